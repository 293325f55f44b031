//! A cluster after something of it was lost.

use laggard_specs::{Cluster, Pool};
use thiserror::Error;

/// Watts of a megawatt.
const MEGAWATT: f64 = 1e6;

/// What is lost.
#[derive(Debug, Clone, PartialEq)]
pub enum Loss {
    /// Devices of a class: a pool, or an accelerator, of whose pools each loses as large a share as
    /// it has of the devices.
    Devices {
        /// The pool's id or the accelerator's.
        class: String,
        /// How many.
        count: u64,
    },
    /// Everything at a site.
    Site {
        /// The site's id.
        site: String,
    },
    /// Power of a site.
    Power {
        /// The site's id; absent where there is only one.
        site: Option<String>,
        /// Megawatts at the meter.
        megawatts: f64,
    },
}

/// A loss that cannot be.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum LossError {
    /// Nothing has that name.
    #[error("the cluster has no {what} `{name}` to lose\nhint: it has {known}")]
    Unknown {
        /// A class or a site.
        what: &'static str,
        /// What was named.
        name: String,
        /// What there is.
        known: String,
    },
    /// More than there is.
    #[error("{count} devices of {class} cannot be lost: there are {there}")]
    TooMany {
        /// The class.
        class: String,
        /// What should be lost.
        count: u64,
        /// What there is.
        there: u64,
    },
    /// None of something.
    #[error("no device of {class} is lost\nhint: give a number above zero, or name no loss")]
    Nothing {
        /// The class.
        class: String,
    },
    /// No device is left.
    #[error("nothing is left of the cluster\nhint: lose less of it")]
    Everything,
    /// Power of one of several sites.
    #[error("power is lost, but at which of the sites {known}?\nhint: give SITE=MW")]
    WhichSite {
        /// The sites.
        known: String,
    },
    /// Power of a site that has no limit.
    #[error(
        "no limit is known of the power of {site}, so that none can be taken from it\nhint: state \
         power_limit_watts in a cluster file, or give what is left with --power-limit-mw"
    )]
    NoLimit {
        /// The site.
        site: String,
    },
    /// Power that is none, or more than there is.
    #[error("{megawatts} MW cannot be lost of {limit_mw} MW at {site}")]
    Megawatts {
        /// The site.
        site: String,
        /// What should be lost.
        megawatts: f64,
        /// The limit.
        limit_mw: f64,
    },
}

/// The cluster that is left. Pools and sites that lose everything stay, with no devices.
///
/// # Errors
/// Names that the cluster has not, or more lost than there is.
pub fn lose(cluster: &Cluster, losses: &[Loss]) -> Result<Cluster, LossError> {
    let mut left = cluster.clone();
    for loss in losses {
        match loss {
            Loss::Devices { class, count } => lose_devices(&mut left, class, *count)?,
            Loss::Site { site } => lose_site(&mut left, site)?,
            Loss::Power { site, megawatts } => {
                lose_power(&mut left, site.as_deref(), *megawatts)?;
            }
        }
    }
    match left.devices() {
        0 => Err(LossError::Everything),
        _ => Ok(left),
    }
}

fn lose_devices(cluster: &mut Cluster, class: &str, count: u64) -> Result<(), LossError> {
    let by_name = cluster.pools.iter().any(|pool| pool.id == class);
    let is_meant = |pool: &&mut Pool| match by_name {
        true => pool.id == class,
        false => pool.accelerator == class,
    };
    let pools = cluster.pools.iter_mut().filter(is_meant);
    let mut counts: Vec<&mut u64> = pools.map(|pool| &mut pool.count).collect();
    let there: u64 = counts.iter().map(|it| **it).sum();
    if counts.is_empty() {
        let known = cluster.pools.iter().map(|pool| pool.id.as_str());
        return Err(LossError::Unknown {
            what: "class",
            name: class.to_owned(),
            known: known.collect::<Vec<_>>().join(", "),
        });
    }
    if count == 0 {
        let class = class.to_owned();
        return Err(LossError::Nothing { class });
    }
    if count > there {
        return Err(LossError::TooMany {
            class: class.to_owned(),
            count,
            there,
        });
    }
    take_away(&mut counts, count);
    Ok(())
}

fn lose_site(cluster: &mut Cluster, site: &str) -> Result<(), LossError> {
    position(cluster, site)?;
    let there = cluster.pools.iter_mut().filter(|pool| pool.site == site);
    there.for_each(|pool| pool.count = 0);
    Ok(())
}

fn lose_power(cluster: &mut Cluster, site: Option<&str>, megawatts: f64) -> Result<(), LossError> {
    let at = match (site, cluster.sites.len()) {
        (Some(site), _) => position(cluster, site)?,
        (None, 1) => 0,
        (None, _) => {
            let known = site_names(cluster);
            return Err(LossError::WhichSite { known });
        }
    };
    let place = &mut cluster.sites[at];
    let site = place.id.clone();
    let Some(limit) = place.power_limit_watts else {
        return Err(LossError::NoLimit { site });
    };
    let left = limit - megawatts * MEGAWATT;
    if !(megawatts > 0.0 && left > 0.0) {
        let limit_mw = limit / MEGAWATT;
        return Err(LossError::Megawatts {
            site,
            megawatts,
            limit_mw,
        });
    }
    place.power_limit_watts = Some(left);
    Ok(())
}

fn position(cluster: &Cluster, site: &str) -> Result<usize, LossError> {
    let found = cluster.sites.iter().position(|it| it.id == site);
    found.ok_or_else(|| LossError::Unknown {
        what: "site",
        name: site.to_owned(),
        known: site_names(cluster),
    })
}

fn site_names(cluster: &Cluster) -> String {
    let names = cluster.sites.iter().map(|site| site.id.as_str());
    names.collect::<Vec<_>>().join(", ")
}

/// Takes a number away in proportion, the largest remainders first.
pub(crate) fn take_away(places: &mut [&mut u64], lost: u64) {
    let all: u64 = places.iter().map(|it| **it).sum();
    let lost = lost.min(all);
    if lost == 0 {
        return;
    }
    let part = |count: u64| u128::from(count) * u128::from(lost);
    let mut rest = lost;
    let mut order: Vec<(u128, usize)> = Vec::with_capacity(places.len());
    for (at, place) in places.iter_mut().enumerate() {
        let share = part(**place);
        let whole = (share / u128::from(all)) as u64;
        order.push((share % u128::from(all), at));
        **place -= whole;
        rest -= whole;
    }
    order.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    // There are no more left than remainders.
    for &(_, at) in order.iter().take(rest as usize) {
        *places[at] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use laggard_specs::Tables;

    fn devices(class: &str, count: u64) -> Loss {
        Loss::Devices {
            class: class.to_owned(),
            count,
        }
    }

    fn power(site: Option<&str>, megawatts: f64) -> Loss {
        Loss::Power {
            site: site.map(str::to_owned),
            megawatts,
        }
    }

    fn preset(name: &str) -> Cluster {
        let tables = Tables::builtin().expect("the tables");
        Cluster::preset(name, &tables).expect("a preset")
    }

    #[test]
    fn what_is_lost_is_no_more_there() {
        let cluster = preset("colossus-1");
        let losses = [devices("h100", 8000), power(None, 50.0)];
        let left = lose(&cluster, &losses).expect("losses");
        let count = |cluster: &Cluster| {
            let pool = cluster.pools.iter().find(|pool| pool.id == "h100");
            pool.expect("a pool").count
        };
        assert_eq!(count(&cluster) - count(&left), 8000);
        assert_eq!(cluster.devices() - left.devices(), 8000);
        let limit = |cluster: &Cluster| cluster.sites[0].power_limit_watts.expect("a limit");
        assert!((limit(&cluster) - limit(&left) - 5e7).abs() < 1.0);
        let cluster = preset("portfolio");
        let site = cluster.sites[0].id.clone();
        let there = cluster.pools.iter().filter(|pool| pool.site == site);
        let there: u64 = there.map(|pool| pool.count).sum();
        let dark = lose(&cluster, &[Loss::Site { site }]).expect("a loss");
        assert_eq!(cluster.devices() - dark.devices(), there);
        assert!(there > 0);
    }

    #[test]
    fn losses_that_cannot_be_say_why() {
        let check = |cluster: &str, loss: Loss, expect: &str| {
            let error = lose(&preset(cluster), &[loss]).expect_err(expect);
            assert!(error.to_string().contains(expect), "{error}");
        };
        check("colossus-1", devices("h1000", 1), "no class `h1000`");
        check("colossus-1", devices("gb200", 1 << 40), "there are");
        check(
            "colossus-1",
            devices("gb200", 0),
            "no device of gb200 is lost\nhint:",
        );
        let nowhere = Loss::Site {
            site: "mars".to_owned(),
        };
        check("colossus-1", nowhere, "no site `mars`");
        let only = Loss::Site {
            site: preset("colossus-1").sites[0].id.clone(),
        };
        check("colossus-1", only, "nothing is left");
        check("colossus-1", power(None, f64::NAN), "cannot be lost");
        check("colossus-1", power(None, 301.0), "cannot be lost");
        check("portfolio", power(None, 1.0), "which of the sites");
    }

    proptest::proptest! {
        #[test]
        fn what_is_lost_is_lost_in_proportion(
            counts in proptest::collection::vec(0_u64..1000, 1..6),
            lost in 0_u64..3000,
        ) {
            let mut left = counts.clone();
            let mut places: Vec<&mut u64> = left.iter_mut().collect();
            take_away(&mut places, lost);
            let all: u64 = counts.iter().sum();
            let lost = lost.min(all);
            proptest::prop_assert_eq!(left.iter().sum::<u64>(), all - lost);
            for (before, after) in counts.iter().zip(&left) {
                let share = *before as f64 * (1.0 - lost as f64 / all.max(1) as f64);
                proptest::prop_assert!((share - *after as f64).abs() < 1.0);
            }
        }
    }
}
