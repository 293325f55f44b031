//! The replay of what ranks did, straight from the samples: own times of each step with the delays
//! that operations usually have, as learnt from other steps, or with none at all.

use anyhow::{Context, Result, ensure};
use laggard_record::{Record, TimeBasis};
use laggard_schedule::{Durations, Replay, Times};
use laggard_stats::median;
use std::collections::BTreeMap;

/// Share of the steps that is left out at the begin.
const WARM_UP: usize = 4;
const MISSING: i64 = i64::MIN;

/// Starts and ends of a step's nodes, nanoseconds.
struct Step {
    start: Vec<i64>,
    end: Vec<i64>,
}

/// Lengths of replayed steps over those of the steps, less 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Errors {
    /// Where an operation that is ready starts after its median delay in other steps.
    pub usual_delays: f64,
    /// Where it starts at once.
    pub no_delays: f64,
}

/// How far the replay is off; none where ranks share processors, as no clock has measured their
/// steps. Delays are learnt from every other step, and tried on the rest.
pub(crate) fn errors(record: &Record) -> Result<Option<Errors>> {
    if record.manifest.clock.basis == TimeBasis::Virtual {
        return Ok(None);
    }
    let replay = Replay::new(&record.manifest.schedule)?;
    let steps = steps(record, &replay)?;
    let pairs: Vec<Pair<'_>> = steps
        .windows(2)
        .skip(steps.len() / WARM_UP)
        .map(|pair| Pair {
            replay: &replay,
            before: &pair[0],
            this: &pair[1],
        })
        .collect();
    ensure!(pairs.len() > 1, "too few steps to look at");
    let usual = usual_delays(pairs.iter().skip(1).step_by(2))?;
    let tried = || pairs.iter().step_by(2);
    let measured: f64 = tried().map(Pair::length).sum();
    let error = |delay: Option<&[f64]>| {
        let mut times = Times::default();
        let replayed = tried().map(|pair| {
            let own = pair.own();
            let durations = Durations {
                lanes: 1,
                own: &own,
                delay,
            };
            replay.evaluate(durations, &mut times);
            times.finish[0]
        });
        replayed.sum::<f64>() / measured - 1.0
    };
    Ok(Some(Errors {
        usual_delays: error(Some(&usual)),
        no_delays: error(None),
    }))
}

/// Median delay of each node.
fn usual_delays<'a>(pairs: impl Iterator<Item = &'a Pair<'a>>) -> Result<Vec<f64>> {
    let steps: Vec<Vec<f64>> = pairs.map(Pair::delays).collect();
    let nodes = 0..steps.first().map_or(0, Vec::len);
    let middle = |node: usize| {
        let delays: Vec<f64> = steps.iter().map(|delays| delays[node]).collect();
        Ok(median(&delays)?)
    };
    nodes.map(middle).collect()
}

fn steps(record: &Record, replay: &Replay) -> Result<Vec<Step>> {
    let nodes = replay.nodes();
    let places = nodes.iter().enumerate();
    let node_of: BTreeMap<(i32, i32), usize> = places
        .map(|(at, node)| ((node.rank as i32, node.operation as i32), at))
        .collect();
    let mut steps: Vec<Step> = Vec::new();
    record.samples(|batch| {
        for row in 0..batch.len() {
            let step = batch.step[row] as usize;
            if step >= steps.len() {
                steps.resize_with(step + 1, || Step {
                    start: vec![MISSING; nodes.len()],
                    end: vec![MISSING; nodes.len()],
                });
            }
            if let Some(node) = node_of.get(&(batch.rank[row], batch.operation[row])) {
                steps[step].start[*node] = batch.start_ns[row];
                steps[step].end[*node] = batch.end_ns[row];
            }
        }
    })?;
    let missing = steps.iter().position(|step| step.start.contains(&MISSING));
    match missing {
        None => Ok(steps),
        Some(step) => Err(anyhow::anyhow!("step {step} is not complete")).context("the record"),
    }
}

/// A step, and the one before it: what follows the cut of a step is carried into the next.
struct Pair<'a> {
    replay: &'a Replay,
    before: &'a Step,
    this: &'a Step,
}

impl Pair<'_> {
    fn of(&self, node: u32) -> &Step {
        match self.replay.nodes()[node as usize].carried {
            true => self.before,
            false => self.this,
        }
    }

    fn start(&self, node: u32) -> i64 {
        self.of(node).start[node as usize]
    }

    /// Own durations of all nodes, seconds: a meeting lasts from its last member's start.
    fn own(&self) -> Vec<f64> {
        let nodes = 0..self.replay.nodes().len() as u32;
        let own = nodes.map(|node| {
            let meeting = self.replay.meeting_of(node);
            let members = meeting.map(|meeting| &self.replay.meetings()[meeting as usize]);
            let starts = members.into_iter().flatten().map(|node| self.start(*node));
            let start = starts.max().unwrap_or_else(|| self.start(node));
            let end = self.of(node).end[node as usize];
            (end - start).max(0) as f64 * 1e-9
        });
        own.collect()
    }

    /// Seconds from a node's being ready on its own rank to its start.
    fn delays(&self) -> Vec<f64> {
        let begin = self.begin();
        let nodes = 0..self.replay.nodes().len() as u32;
        let delays = nodes.map(|node| {
            let end = |before: &u32| self.of(*before).end[*before as usize];
            let ready = self.replay.predecessors(node).iter().map(end).max();
            (self.start(node) - ready.unwrap_or(begin)).max(0) as f64 * 1e-9
        });
        delays.collect()
    }

    /// Seconds from the cut before to the step's own.
    fn length(&self) -> f64 {
        (self.cut_end(self.this) - self.begin()) as f64 * 1e-9
    }

    fn begin(&self) -> i64 {
        match self.replay.is_cut() {
            true => self.cut_end(self.before),
            false => self.this.start.iter().copied().min().unwrap_or(0),
        }
    }

    fn cut_end(&self, step: &Step) -> i64 {
        let nodes = self.replay.nodes().iter().zip(&step.end);
        let ends = nodes.filter(|(node, _)| !node.carried).map(|(_, end)| *end);
        ends.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use laggard_benches::known_job::KnownJob;

    #[test]
    fn a_job_that_keeps_to_its_schedule_is_replayed_exactly() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("record");
        KnownJob::clean(4, 2, 20, 7).write(&dir).unwrap();
        let errors = errors(&Record::open(&dir).unwrap()).unwrap().unwrap();
        assert!(errors.no_delays.abs() < 1e-6, "{errors:?}");
        assert!(errors.usual_delays.abs() < 1e-6, "{errors:?}");
    }
}
