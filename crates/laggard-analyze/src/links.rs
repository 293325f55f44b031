//! Hosts whose network is slow, from probes between hosts. With one host less, all links among the
//! others must be fast: one slow link alone names nobody.

use laggard_record::Link;
use laggard_stats::median;

/// A host is slow if its links have less than this share of the bandwidth of the others.
const SLOW_SHARE: f64 = 1.0 / 3.0;
/// Two hosts have one link, and nothing to compare it with.
const LEAST_HOSTS: usize = 3;

/// A host whose links are slow, where links that do not touch it are fast.
#[derive(Debug, Clone, PartialEq)]
pub struct SlowLinkHost {
    /// The host, by position in the manifest.
    pub host: u32,
    /// Median bandwidth of its links, bytes per second.
    pub bandwidth_bytes_per_s: f64,
    /// Median bandwidth of links between other hosts, bytes per second.
    pub others_bandwidth_bytes_per_s: f64,
    /// How many times slower its links are: the second over the first.
    pub ratio: f64,
    /// How many of its links were probed.
    pub links: usize,
    /// How many links between other hosts were probed.
    pub other_links: usize,
    /// Median latency of its links, nanoseconds.
    pub latency_ns: f64,
    /// Median latency of links between other hosts, nanoseconds.
    pub others_latency_ns: f64,
}

/// The hosts whose links' median bandwidth is below a third of that of the links that do not touch
/// them, slowest first. Nobody is named with fewer than three hosts: a slow link has two ends.
/// Neither is anybody where most other links are slow too. Links of hosts that are not there, or
/// without a finite positive bandwidth, do not count.
#[must_use]
pub fn slow_hosts(links: &[Link], hosts: usize) -> Vec<SlowLinkHost> {
    if hosts < LEAST_HOSTS {
        return Vec::new();
    }
    let is_sound = |link: &&Link| {
        let bandwidth = link.bandwidth_bytes_per_s;
        let ends = [link.from_host, link.to_host];
        ends.iter().all(|host| (*host as usize) < hosts)
            && ends[0] != ends[1]
            && bandwidth.is_finite()
            && bandwidth > 0.0
    };
    let sound: Vec<&Link> = links.iter().filter(is_sound).collect();
    let figures = (0..hosts as u32).filter_map(|host| figures(&sound, host));
    let mut slow: Vec<SlowLinkHost> = figures
        .filter(|it| it.bandwidth_bytes_per_s < SLOW_SHARE * it.others_bandwidth_bytes_per_s)
        .collect();
    // Stable: of equally slow hosts, the first stays first.
    slow.sort_by(|a, b| b.ratio.total_cmp(&a.ratio));
    slow
}

/// A host against the others; `None` where one side has no links.
fn figures(links: &[&Link], host: u32) -> Option<SlowLinkHost> {
    let (own, others): (Vec<&Link>, Vec<&Link>) = links
        .iter()
        .partition(|link| link.from_host == host || link.to_host == host);
    let median_of = |links: &[&Link], figure: fn(&Link) -> f64| {
        let values: Vec<f64> = links.iter().map(|link| figure(link)).collect();
        median(&values).ok()
    };
    let bandwidth = |link: &Link| link.bandwidth_bytes_per_s;
    let latency = |link: &Link| link.latency_ns as f64;
    let bandwidth_bytes_per_s = median_of(&own, bandwidth)?;
    let others_bandwidth_bytes_per_s = median_of(&others, bandwidth)?;
    Some(SlowLinkHost {
        host,
        bandwidth_bytes_per_s,
        others_bandwidth_bytes_per_s,
        ratio: others_bandwidth_bytes_per_s / bandwidth_bytes_per_s,
        links: own.len(),
        other_links: others.len(),
        latency_ns: median_of(&own, latency)?,
        others_latency_ns: median_of(&others, latency)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use laggard_stats::Rng;

    const FAST: f64 = 10e9;
    const SLOW: f64 = 1e9;

    /// All pairs of hosts, with a bandwidth by the pair.
    fn mesh(hosts: u32, bandwidth: impl FnMut(u32, u32) -> f64) -> Vec<Link> {
        let pairs = (0..hosts).flat_map(|to| (0..to).map(move |from| (from, to)));
        among(pairs, bandwidth)
    }

    fn among(
        pairs: impl Iterator<Item = (u32, u32)>,
        mut bandwidth: impl FnMut(u32, u32) -> f64,
    ) -> Vec<Link> {
        let link = |(from_host, to_host)| Link {
            from_host,
            to_host,
            latency_ns: 20_000,
            bytes: 1 << 20,
            bandwidth_bytes_per_s: bandwidth(from_host, to_host),
        };
        pairs.map(link).collect()
    }

    /// The links of some hosts are slow.
    fn slow_at(slow: &[u32]) -> impl Fn(u32, u32) -> f64 {
        move |from, to| {
            let is_slow = slow.contains(&from) || slow.contains(&to);
            if is_slow { SLOW } else { FAST }
        }
    }

    fn check(links: &[Link], hosts: usize, expect: &[u32]) {
        let named: Vec<u32> = slow_hosts(links, hosts).iter().map(|it| it.host).collect();
        assert_eq!(named, expect, "{hosts} hosts");
    }

    #[test]
    fn known_hosts() {
        check(&mesh(3, slow_at(&[1])), 3, &[1]);
        check(&mesh(4, slow_at(&[2])), 4, &[2]);
        check(&mesh(6, slow_at(&[0, 4])), 6, &[0, 4]);
        check(&mesh(5, |_, _| FAST), 5, &[]);
        check(&mesh(5, |_, _| SLOW), 5, &[]);
        check(&mesh(4, slow_at(&[0, 1, 2, 3])), 4, &[]);
    }

    /// One slow link has two ends, and neither host has other slow links.
    #[test]
    fn one_slow_link_names_nobody() {
        check(&mesh(2, |_, _| SLOW), 2, &[]);
        let one = |from, to| if (from, to) == (1, 3) { SLOW } else { FAST };
        check(&mesh(5, one), 5, &[]);
    }

    /// A third is the border, and it is not crossed by noise of a factor of two between the slowest
    /// and the fastest link; a host ten times slower is still found under it.
    #[test]
    fn noise() {
        check(
            &mesh(4, |from, _| if from == 0 { 3.4e9 } else { FAST }),
            4,
            &[],
        );
        check(
            &mesh(4, |from, _| if from == 0 { 3.3e9 } else { FAST }),
            4,
            &[0],
        );
        let mut rng = Rng::new(5);
        for hosts in 3..=12 {
            for _ in 0..50 {
                let slow = rng.below(hosts as usize) as u32;
                let mut noise = |base: f64| base * (1.0 + rng.uniform());
                check(&mesh(hosts, |_, _| noise(FAST)), hosts as usize, &[]);
                let links = mesh(hosts, |from, to| noise(slow_at(&[slow])(from, to)));
                check(&links, hosts as usize, &[slow]);
            }
        }
    }

    /// Only some pairs are probed where there are many hosts.
    #[test]
    fn sparse_probes() {
        let ring = |hosts: u32| {
            let distances = [1, 2, 4, 8].into_iter();
            distances.flat_map(move |d| (0..hosts).map(move |from| (from, (from + d) % hosts)))
        };
        check(&among(ring(20), slow_at(&[7, 13])), 20, &[7, 13]);
        check(&among(ring(20), |_, _| FAST), 20, &[]);
    }

    #[test]
    fn figures_are_those_of_the_links() {
        let mut links = mesh(4, slow_at(&[2]));
        for link in &mut links {
            link.latency_ns = if link.to_host == 2 { 50_000 } else { 10_000 };
        }
        let found = slow_hosts(&links, 4);
        let expect = SlowLinkHost {
            host: 2,
            bandwidth_bytes_per_s: SLOW,
            others_bandwidth_bytes_per_s: FAST,
            ratio: 10.0,
            links: 3,
            other_links: 3,
            latency_ns: 50_000.0,
            others_latency_ns: 10_000.0,
        };
        assert_eq!(found, [expect]);
    }

    #[test]
    fn the_slowest_comes_first() {
        let speeds = |from: u32, to: u32| match (from, to) {
            (5, _) | (_, 5) => SLOW / 2.0,
            (1, _) | (_, 1) => SLOW,
            _ => FAST,
        };
        check(&mesh(7, speeds), 7, &[5, 1]);
    }

    #[test]
    fn unsound_links_do_not_count() {
        let mut links = mesh(4, slow_at(&[2]));
        let unsound = [(0, 9, SLOW), (1, 1, SLOW), (0, 1, f64::NAN), (0, 1, 0.0)];
        for (from, to, bandwidth) in unsound {
            links.extend(among([(from, to)].into_iter(), |_, _| bandwidth));
        }
        let clean = slow_hosts(&mesh(4, slow_at(&[2])), 4);
        assert_eq!(slow_hosts(&links, 4), clean);
        check(&[], 4, &[]);
    }
}
