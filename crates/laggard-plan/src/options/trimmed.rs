//! One option made better by what is known of each host: the same jobs without the slowest hosts of
//! each class.

use super::devices::{Rest, uses};
use super::{JobPlan, Kind, Parts, PlanOption, Search, on};
use crate::figures::{Figures, figures};
use crate::problem::{Factors, PlanError, Problem};
use crate::tails::{Crowd, best_cut};

/// An option without the slowest hosts, beside the option with them.
#[derive(Debug, Clone, PartialEq)]
pub struct Trimmed {
    /// The option without them.
    pub option: PlanOption,
    /// Hosts of each class that it leaves out.
    pub left_out: Vec<u64>,
    /// Tokens per second with them.
    pub with_all: f64,
    /// Tokens per second if all devices were as fast as their class.
    pub of_equal: f64,
}

impl Trimmed {
    /// The share of what differences between devices cost that leaving the slowest out wins back.
    #[must_use]
    pub fn recovered(&self) -> Option<f64> {
        let lost = self.of_equal - self.with_all;
        let won = self.option.figures.tokens_per_s - self.with_all;
        (lost > 0.0).then(|| won / lost)
    }
}

impl Problem<'_> {
    /// Lets every job of a class go at the pace of the slowest host that the power lets run.
    /// `speeds` has the slowest device of each host of each class, the fastest host first; a class
    /// of no speeds is as it was.
    pub fn slow_down(&mut self, speeds: &[Vec<f64>]) {
        let on = on(self);
        for ((class, on), speeds) in self.classes.iter_mut().zip(on).zip(speeds) {
            class.pace = pace(speeds, on / class.node_devices);
        }
    }
}

/// The speed of the slowest of the fastest so many hosts.
fn pace(speeds: &[f64], hosts: u64) -> f64 {
    let last = (hosts as usize).min(speeds.len());
    match last {
        0 => 1.0,
        last => speeds[last - 1],
    }
}

/// An option without the hosts that cost it more than they do; `None` where it trains no faster
/// without any, where a whole class would better leave (another option is without it), or where its
/// jobs have stages on several classes. The hosts to leave are those that are best by
/// the option's own layouts; then the jobs are laid out and predicted anew without them.
///
/// # Errors
/// Speeds that cannot be, or a prediction that fails.
pub fn trimmed(
    problem: &Problem<'_>,
    option: &PlanOption,
    speeds: &[Vec<f64>],
) -> Result<Option<Trimmed>, PlanError> {
    let on = on(problem);
    let mut counts = on.clone();
    for (at, job) in option.jobs.iter().enumerate() {
        let Some(kept) = kept(problem, option, at, speeds)? else {
            return Ok(None);
        };
        if kept.iter().any(|(_, hosts)| *hosts == 0) {
            return Ok(None);
        }
        for (class, hosts) in kept {
            counts[class] = hosts * problem.classes[class].node_devices + job.idle[class];
        }
    }
    let hosts = |devices: u64, class: usize| devices / problem.classes[class].node_devices;
    let left_out: Vec<u64> = (0..on.len())
        .map(|class| hosts(on[class].saturating_sub(counts[class]), class))
        .collect();
    if left_out.iter().all(|count| *count == 0) {
        return Ok(None);
    }
    let paces: Vec<f64> = (0..on.len())
        .map(|class| match left_out[class] {
            0 => problem.classes[class].pace,
            _ => pace(&speeds[class], hosts(counts[class], class)),
        })
        .collect();
    let jobs = laid_out(problem, option, &counts, &paces);
    if jobs.len() < option.jobs.len() {
        return Ok(None);
    }
    let name: Vec<String> = (0..on.len())
        .filter(|&class| left_out[class] > 0)
        .map(|class| format!("{} {}", left_out[class], problem.classes[class].of.name))
        .collect();
    let without = PlanOption {
        kind: Kind::WithoutSlowest,
        name: format!(
            "{}, without the slowest {} hosts",
            option.name,
            name.join(" + ")
        ),
        uses: uses(problem, &on, &jobs, Rest::Leased),
        jobs,
        figures: Figures::default(),
        can_win: option.can_win,
        paces: Some(paces),
    };
    let none = Factors::none(on.len());
    let with_figures = PlanOption {
        figures: figures(problem, &without, &none)?,
        ..without
    };
    if with_figures.figures.tokens_per_s <= option.figures.tokens_per_s {
        return Ok(None);
    }
    Ok(Some(Trimmed {
        option: with_figures,
        left_out,
        with_all: option.figures.tokens_per_s,
        of_equal: as_if_equal(problem, option)?,
    }))
}

/// Tokens per second of an option if no device were slower than its class.
fn as_if_equal(problem: &Problem<'_>, option: &PlanOption) -> Result<f64, PlanError> {
    let mut equal = problem.clone();
    equal.classes.iter_mut().for_each(|class| class.pace = 1.0);
    let found = figures(&equal, option, &Factors::none(equal.classes.len()))?;
    Ok(found.tokens_per_s)
}

/// Hosts of each class of a job that are worth having.
fn kept(
    problem: &Problem<'_>,
    option: &PlanOption,
    at: usize,
    speeds: &[Vec<f64>],
) -> Result<Option<Vec<(usize, u64)>>, PlanError> {
    let (job, outcome) = (&option.jobs[at], &option.figures.outcomes[at]);
    let Parts::Replicas(groups) = &job.parts else {
        return Ok(None);
    };
    let mut classes: Vec<usize> = groups.iter().map(|group| group.class).collect();
    classes.sort_unstable();
    classes.dedup();
    let mut crowds = Vec::with_capacity(classes.len());
    for &at in &classes {
        let class = &problem.classes[at];
        let devices = job.devices(at);
        let hosts = (devices / class.node_devices).max(1);
        let time = &outcome.classes[at];
        let busy = outcome.step_s - time.waiting_s;
        let own = groups.iter().filter(|group| group.class == at);
        let work: f64 = own
            .map(|it| it.replicas as f64 * f64::from(it.micro_batches))
            .sum();
        // What kernels take is at the class's pace; the rest does not depend on the device.
        let seconds = |speed: f64| busy + time.kernels_s * (class.pace / speed - 1.0);
        let fastest = (0..hosts).map(|host| pace(&speeds[at], host + 1));
        crowds.push(Crowd {
            seconds: fastest.map(seconds).collect(),
            work: work / hosts as f64,
            elsewhere: 0.0,
            together: together(job, class.node_devices),
        });
    }
    let cut = best_cut(&crowds, 1.0)?;
    let kept = cut.kept.iter().map(|&hosts| hosts as u64);
    Ok(Some(classes.into_iter().zip(kept).collect()))
}

/// Hosts of one replica, or of one group of replicas that share experts.
fn together(job: &JobPlan, node_devices: u64) -> usize {
    let degrees = &job.degrees;
    let replica = u64::from(degrees.tensor) * u64::from(degrees.context);
    let replica = replica * u64::from(degrees.pipeline) * u64::from(degrees.expert);
    replica.div_ceil(node_devices).max(1) as usize
}

/// The jobs of an option on fewer devices of a class, at the pace of those that are left.
fn laid_out(
    problem: &Problem<'_>,
    option: &PlanOption,
    counts: &[u64],
    paces: &[f64],
) -> Vec<JobPlan> {
    let mut faster = problem.clone();
    for (class, pace) in faster.classes.iter_mut().zip(paces) {
        class.pace = *pace;
    }
    let mut search = Search::of(&faster);
    let job = |job: &JobPlan| {
        let of = |(class, &count): (usize, &u64)| match job.devices(class) + job.idle[class] {
            0 => 0,
            _ => count,
        };
        let counts: Vec<u64> = counts.iter().enumerate().map(of).collect();
        search.either(&counts)
    };
    option.jobs.iter().filter_map(job).collect()
}

#[cfg(test)]
mod tests;
