//! The hosts that a plan is launched on: read from a list, or names that stand for hosts that
//! nobody has named yet.

use std::collections::{BTreeMap, BTreeSet};

use super::{DeviceClass, LaunchError, host_list};
use crate::file::label;

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name in the network.
    pub name: String,
    /// Its class, by position.
    pub class: usize,
    /// Its devices that can be used.
    pub devices: u32,
    /// Its processor cores, where they are known.
    pub cores: Option<u32>,
    /// Hosts with the same number are joined by the fabric inside a box or rack.
    pub domain: u32,
}

/// Hosts, class by class, in the order in which they are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    /// The hosts.
    pub list: Vec<Host>,
    /// Whether the names are only stand-ins.
    pub are_placeholders: bool,
}

/// The first word of what sinfo prints, above the hosts.
const HEADING: &str = "NODELIST";
/// More devices of a host are a slip of the hand.
const MOST_DEVICES: u32 = 1 << 12;

/// A host as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    class: usize,
    devices: u32,
    cores: Option<u32>,
    domain: Option<String>,
}

impl Hosts {
    /// Stand-ins: as many hosts as each class has, named by class and number.
    #[must_use]
    pub fn placeholders(classes: &[DeviceClass]) -> Self {
        let mut entries = Vec::new();
        for (class, it) in classes.iter().enumerate() {
            let whole = u64::from(it.host_devices);
            let count = it.devices.div_ceil(whole);
            let digits = count.to_string().len().max(4);
            let stem = label(&it.name);
            for number in 0..count {
                let entry = Entry {
                    class,
                    devices: (it.devices - number * whole).min(whole) as u32,
                    cores: None,
                    domain: None,
                };
                entries.push((format!("{stem}-{:0digits$}", number + 1), entry));
            }
        }
        Self {
            list: with_domains(entries, classes),
            are_placeholders: true,
        }
    }

    /// The names of the hosts of a list, whatever else its lines say: also of one for mpirun, with
    /// a number of slots behind a colon.
    ///
    /// # Errors
    /// A range that is none.
    pub fn names(text: &str) -> Result<BTreeSet<String>, LaunchError> {
        let mut names = BTreeSet::new();
        for (at, line) in text.lines().enumerate() {
            let word = content(line).split_whitespace().next();
            let name = word.and_then(|word| word.split(':').next());
            if let Some(name) = name.filter(|name| *name != HEADING) {
                let wrong = |why| LaunchError::BadHostLine { line: at + 1, why };
                names.extend(host_list::expand(name).map_err(wrong)?);
            }
        }
        Ok(names)
    }

    /// Reads a list: a host on each line with its class, its devices (those of the class where
    /// nothing is said), and `cores=N` or `domain=NAME` where they are known. Names may be ranges
    /// (`gpu[001-128]`). The class, by its name or its accelerator's, may be one of several words
    /// joined by commas, and the devices as Slurm has them: `sinfo -N -h -o "%N %f %G"` prints
    /// such a list. Hosts of no class of the cluster are left out. What follows `#` is a comment.
    ///
    /// # Errors
    /// A line that is none of this, two lines of one host that contradict each other, or no host
    /// of these classes.
    pub fn parse(text: &str, classes: &[DeviceClass]) -> Result<Self, LaunchError> {
        let mut entries: Vec<(String, Entry)> = Vec::new();
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        for (at, line) in text.lines().enumerate() {
            let wrong = |why| LaunchError::BadHostLine { line: at + 1, why };
            let words: Vec<&str> = content(line).split_whitespace().collect();
            if words.is_empty() || words[0] == HEADING {
                continue;
            }
            let Some(entry) = entry(&words, classes).map_err(wrong)? else {
                continue;
            };
            for name in host_list::expand(words[0]).map_err(wrong)? {
                // Slurm lists a host once for each of its partitions.
                match known.get(&name) {
                    Some(&first) if entries[first].1 == entry => {}
                    Some(_) => {
                        return Err(wrong(format!("`{name}` stood on another line, otherwise")));
                    }
                    None => {
                        known.insert(name.clone(), entries.len());
                        entries.push((name, entry.clone()));
                    }
                }
            }
        }
        if entries.is_empty() {
            let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
            return Err(LaunchError::NoHosts {
                classes: names.join(", "),
            });
        }
        Ok(Self {
            list: with_domains(entries, classes),
            are_placeholders: false,
        })
    }
}

/// A line without its comment.
fn content(line: &str) -> &str {
    line.split('#').next().unwrap_or_default()
}

/// What a line says of its hosts; `None` where they are of no class of the cluster.
fn entry(words: &[&str], classes: &[DeviceClass]) -> Result<Option<Entry>, String> {
    let Some(named) = words.get(1) else {
        return Err("a host needs its class, as in `gpu[001-128] h100 8`".to_owned());
    };
    let is_named = |class: &DeviceClass| {
        let mut names = named.split(',');
        names.any(|name| [&class.name, &class.accelerator].contains(&&name.to_owned()))
    };
    let of: Vec<usize> = (0..classes.len())
        .filter(|&class| is_named(&classes[class]))
        .collect();
    let class = match of[..] {
        [] => return Ok(None),
        [class] => class,
        _ => return Err(format!("`{named}` names several classes")),
    };
    let mut entry = Entry {
        class,
        devices: classes[class].host_devices,
        cores: None,
        domain: None,
    };
    for word in &words[2..] {
        let positive = |text: &str| match text.parse::<u32>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!("`{word}` needs a number above zero")),
        };
        match word.split_once('=') {
            Some(("cores", cores)) => entry.cores = Some(positive(cores)?),
            Some(("domain", domain)) => entry.domain = Some(domain.to_owned()),
            Some(_) => return Err(format!("`{word}` is neither `cores=N` nor `domain=NAME`")),
            None if *word == "(null)" => {}
            None => entry.devices = positive(generic_resource(word))?,
        }
        if entry.devices > MOST_DEVICES {
            return Err(format!(
                "`{word}`: a host has at most {MOST_DEVICES} devices"
            ));
        }
    }
    Ok(Some(entry))
}

/// The number in a count of devices as Slurm prints it, `gpu:h100:8(S:0-1)`; a mere number is
/// itself. Source: sinfo(1), `%G`, and slurm.conf(5), `Gres`.
fn generic_resource(word: &str) -> &str {
    let mut parts = word
        .split(',')
        .map(|part| part.split('(').next().unwrap_or(part));
    let of_devices = parts.find(|part| part.starts_with("gpu:"));
    match of_devices {
        Some(part) => part.rsplit(':').next().unwrap_or(part),
        None => word,
    }
}

/// Numbers the domains: the named ones, and of other hosts as many in a row as a domain of their
/// class holds. Hosts of a class, and in it those of a domain, come to stand together.
fn with_domains(entries: Vec<(String, Entry)>, classes: &[DeviceClass]) -> Vec<Host> {
    let mut named: BTreeMap<(usize, String), u32> = BTreeMap::new();
    // Of each class, the domain that is being filled and the devices in it.
    let mut filling: Vec<Option<(u32, u32)>> = vec![None; classes.len()];
    let mut domains = 0;
    let mut next = || {
        domains += 1;
        domains - 1
    };
    let mut list: Vec<Host> = entries
        .into_iter()
        .map(|(name, entry)| {
            let domain = match entry.domain {
                Some(domain) => *named.entry((entry.class, domain)).or_insert_with(&mut next),
                None => {
                    let most = classes[entry.class].domain_devices;
                    let open = filling[entry.class].filter(|it| it.1 + entry.devices <= most);
                    let (domain, filled) = open.unwrap_or_else(|| (next(), 0));
                    filling[entry.class] = Some((domain, filled + entry.devices));
                    domain
                }
            };
            Host {
                name,
                class: entry.class,
                devices: entry.devices,
                cores: entry.cores,
                domain,
            }
        })
        .collect();
    list.sort_by_key(|host| (host.class, host.domain));
    list
}

#[cfg(test)]
mod tests;
