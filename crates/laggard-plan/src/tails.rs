//! Who leaves a synchronous job for being slow. A job goes at the pace of its slowest host, so the
//! slowest few can cost more than they do; and what leaves may earn something elsewhere.
//!
//! Hosts of a class differ in nothing but their speed, so a job that goes at some pace has the
//! fastest of each class, and the pace is that of one of them: all paces are looked at, after
//! sorting, which is exact.

use laggard_stats::normal_quantile;
use serde::Serialize;

use crate::number::{NumberError, above_zero, at_least_zero};

/// Hosts of one class that a job can have.
#[derive(Debug, Clone, PartialEq)]
pub struct Crowd {
    /// Seconds that a step would take each of them by itself.
    pub seconds: Vec<f64>,
    /// What one of them does of a step, in any unit that is the same for all crowds.
    pub work: f64,
    /// What one of them earns outside of the job.
    pub elsewhere: f64,
    /// Hosts that are in the job together or not at all, such as those of a replica: at least 1.
    pub together: usize,
}

/// Which hosts a job keeps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kept {
    /// The fastest so many of each crowd.
    pub kept: Vec<usize>,
    /// Seconds of a step; absent where nobody is kept.
    pub seconds: Option<f64>,
    /// Work per second of those that are kept.
    pub rate: f64,
    /// What work and earnings elsewhere are worth together.
    pub value: f64,
    /// Work per second if as many as fit together are kept, and what that is worth.
    pub of_all: Whole,
}

/// What a job does with all hosts that fit together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Whole {
    /// Work per second.
    pub rate: f64,
    /// What work and earnings elsewhere are worth together.
    pub value: f64,
}

/// Finds the hosts to keep: `worth` is the value of a unit of work per second, in the unit of what
/// is earned elsewhere. Of equal values the one that keeps most.
///
/// # Errors
/// Times, work or earnings that cannot be.
pub fn best_cut(crowds: &[Crowd], worth: f64) -> Result<Kept, NumberError> {
    let crowds = sorted(crowds)?;
    at_least_zero("the worth of work", worth)?;
    let mut paces: Vec<f64> = crowds.iter().flat_map(|it| it.seconds.clone()).collect();
    paces.sort_unstable_by(f64::total_cmp);
    paces.dedup();
    let all: Vec<usize> = crowds.iter().map(|it| it.whole(it.seconds.len())).collect();
    let whole = evaluated(&crowds, worth, all);
    let mut best = whole.clone();
    // How many of each crowd are fast enough falls with the pace.
    let mut fast: Vec<usize> = crowds.iter().map(|it| it.seconds.len()).collect();
    for &pace in paces.iter().rev() {
        for (crowd, fast) in crowds.iter().zip(&mut fast) {
            while *fast > 0 && crowd.seconds[*fast - 1] > pace {
                *fast -= 1;
            }
        }
        let of = |(crowd, &fast): (&Crowd, &usize)| match worth * crowd.work / pace {
            earned if earned >= crowd.elsewhere => crowd.whole(fast),
            _ => 0,
        };
        let kept: Vec<usize> = crowds.iter().zip(&fast).map(of).collect();
        let tried = evaluated(&crowds, worth, kept);
        if tried.value > best.value {
            best = tried;
        }
    }
    let nobody = evaluated(&crowds, worth, vec![0; crowds.len()]);
    if nobody.value > best.value {
        best = nobody;
    }
    best.of_all = whole.of_all;
    Ok(best)
}

/// Checked crowds with their fastest hosts first.
fn sorted(crowds: &[Crowd]) -> Result<Vec<Crowd>, NumberError> {
    let mut crowds = crowds.to_vec();
    for crowd in &mut crowds {
        above_zero("the work of a host", crowd.work)?;
        at_least_zero("the earnings of a host", crowd.elsewhere)?;
        above_zero(
            "the number of hosts that are together",
            crowd.together as f64,
        )?;
        for &seconds in &crowd.seconds {
            above_zero("the time of a host's step", seconds)?;
        }
        crowd.seconds.sort_unstable_by(f64::total_cmp);
    }
    Ok(crowds)
}

impl Crowd {
    /// As many of so many hosts as fit together.
    fn whole(&self, hosts: usize) -> usize {
        hosts / self.together * self.together
    }
}

fn evaluated(crowds: &[Crowd], worth: f64, kept: Vec<usize>) -> Kept {
    let (mut work, mut elsewhere, mut seconds) = (0.0, 0.0, 0.0_f64);
    for (crowd, &kept) in crowds.iter().zip(&kept) {
        work += kept as f64 * crowd.work;
        elsewhere += (crowd.seconds.len() - kept) as f64 * crowd.elsewhere;
        if kept > 0 {
            seconds = seconds.max(crowd.seconds[kept - 1]);
        }
    }
    let rate = if seconds > 0.0 { work / seconds } else { 0.0 };
    let value = worth * rate + elsewhere;
    Kept {
        kept,
        seconds: (seconds > 0.0).then_some(seconds),
        rate,
        value,
        of_all: Whole { rate, value },
    }
}

/// How fast the devices of a class are beside each other, as far as they were seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Speeds {
    /// The slowest device of each host that was seen, over the class (0.9 = it takes 11 % longer).
    pub hosts: Vec<f64>,
    /// Hosts that were never seen.
    pub unseen: u64,
    /// Devices of a host.
    pub host_devices: u64,
    /// Lasting differences between devices: standard deviation of the logarithm of speed.
    pub spread: f64,
    /// Speeds of devices that stand out.
    pub unusual: Vec<f64>,
    /// Devices that were seen, with those.
    pub devices: u64,
}

impl Speeds {
    /// The slowest device of each host, the fastest host first. Hosts that were never seen are
    /// where equal shares of them are expected: each device is one of those that stand out with the
    /// share that these had of all seen, else lognormal with the class's spread, whatever its
    /// neighbours are.
    ///
    /// # Errors
    /// Speeds not above zero, a spread below zero, or hosts without devices.
    pub fn of_hosts(&self) -> Result<Vec<f64>, NumberError> {
        for &speed in self.hosts.iter().chain(&self.unusual) {
            above_zero("the speed of a device", speed)?;
        }
        at_least_zero("the spread of speeds", self.spread)?;
        above_zero("the number of devices of a host", self.host_devices as f64)?;
        let mut unusual: Vec<f64> = self.unusual.iter().map(|speed| -speed.ln()).collect();
        unusual.sort_unstable_by(f64::total_cmp);
        let each = 1.0 / self.host_devices as f64;
        let unseen = (0..self.unseen).map(|host| {
            let share = (host as f64 + 0.5) / self.unseen as f64;
            // All devices of the host are faster than this.
            (-self.log_seconds(&unusual, share.powf(each))).exp()
        });
        let mut speeds: Vec<f64> = self.hosts.iter().copied().chain(unseen).collect();
        speeds.sort_unstable_by(|a, b| b.total_cmp(a));
        Ok(speeds)
    }

    /// The logarithm of the time that a share of devices is below, with those that stand out by
    /// their logarithms, ascending.
    fn log_seconds(&self, unusual: &[f64], share: f64) -> f64 {
        let all = self.devices.max(unusual.len() as u64 + 1) as f64;
        let usual = all - unusual.len() as f64;
        for (below, &at) in unusual.iter().enumerate() {
            let found = self.usual((share * all - below as f64) / usual);
            if found < at {
                return found;
            }
            // The step of the distribution at one that stands out.
            if self.usual((share * all - below as f64 - 1.0) / usual) < at {
                return at;
            }
        }
        self.usual((share * all - unusual.len() as f64) / usual)
    }

    fn usual(&self, share: f64) -> f64 {
        if share <= 0.0 {
            return f64::NEG_INFINITY;
        }
        normal_quantile(share).map_or(f64::INFINITY, |it| it * self.spread)
    }
}

#[cfg(test)]
mod tests;
