//! What a waterfall is in truth: expectations over many drawn steps for what varies, and one step
//! laid out with the laws' means for everything else.

use super::timeline::Timeline;
use super::{Drawn, KnownLayout};
use laggard_schedule::{Phase, Schedule, Stream};
use laggard_stats::Rng;

/// Steps that the mean is taken over.
const DRAWS: usize = 8_000;

/// Terms of a waterfall, as shares of the step.
#[derive(Debug, Clone, PartialEq)]
pub struct Truth {
    /// What comes and goes.
    pub transient: f64,
    /// Slow ranks.
    pub rank: f64,
    /// Slow hosts.
    pub node: f64,
    /// Mixed generations.
    pub generation: f64,
    /// Uneven stages.
    pub stage: f64,
    /// Exposed communication.
    pub exposed: f64,
    /// The pipeline bubble.
    pub bubble: f64,
    /// Input.
    pub host: f64,
    /// Optimizer.
    pub optimizer: f64,
    /// Kernels below peak.
    pub kernels: f64,
    /// Utilisation.
    pub utilisation: f64,
    /// Two standard errors of the shares, because the mean step comes from draws.
    pub error: f64,
}

/// Parts of a rank's own time that are evened out on their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Forward,
    Backward,
    Update,
    Other,
}

impl KnownLayout {
    /// The waterfall.
    pub fn truth(&self) -> Truth {
        let schedule = self.schedule();
        let timeline = Timeline::new(&schedule);
        let plain = self.seconds(&schedule, &timeline);
        let length = |seconds: &[f64]| length(&schedule, seconds);
        let scaled = |factor: &dyn Fn(usize) -> f64| self.without(&schedule, &timeline, factor);
        let ranks = self.ranks();
        // A cell is a class. Its measure is the mean over its ranks of everything lasting; in a
        // pipeline the typical rank, of two the faster.
        let peers = |rank: usize| {
            let alike = move |other: &usize| (self.rate[*other] - self.rate[rank]).abs() < 1e-9;
            (0..ranks).filter(alike)
        };
        let usual = |rank: usize, of: &dyn Fn(usize) -> f64| {
            let mut values: Vec<f64> = peers(rank).map(of).collect();
            values.sort_by(f64::total_cmp);
            match self.layout.pipeline_parallel {
                1 => values.iter().sum::<f64>() / values.len() as f64,
                _ => values[(values.len() - 1) / 2],
            }
        };
        let of_host = |rank: usize| self.host_excess[self.host[rank] as usize];
        let all = |rank: usize| self.rank_excess[rank] + of_host(rank);
        let no_rank =
            scaled(&|rank| 1.0 + usual(rank, &all) + of_host(rank) - usual(rank, &of_host));
        let as_class = scaled(&|rank| 1.0 + usual(rank, &all));
        let even_generations = self.average(&schedule, &timeline, &as_class);
        let even_stages = self.even_stages(&schedule, &timeline, &even_generations);
        let silent = self.silent(&schedule, &timeline, &even_stages);
        let (wall, error) = self.mean_step(&schedule);
        let [host, forward, backward, update] = self.busy(&schedule, &timeline, &even_stages);
        let peak: f64 = self.rate.iter().sum::<f64>() * super::PEAK;
        let flop: f64 = (0..ranks)
            .flat_map(|rank| schedule.program(rank as u32))
            .map(|id| &schedule.operations[*id as usize])
            .filter(|operation| operation.phase != Phase::Recompute)
            .map(|operation| operation.flop + operation.attention_flop)
            .sum();
        let chain = [
            &plain,
            &no_rank,
            &as_class,
            &even_generations,
            &even_stages,
            &silent,
        ]
        .map(|seconds| length(seconds));
        Truth {
            transient: (wall - chain[0]) / wall,
            rank: (chain[0] - chain[1]) / wall,
            node: (chain[1] - chain[2]) / wall,
            generation: (chain[2] - chain[3]) / wall,
            stage: (chain[3] - chain[4]) / wall,
            exposed: (chain[4] - chain[5]) / wall,
            bubble: (chain[5] - host - forward - backward - update) / wall,
            host: host / wall,
            optimizer: update / wall,
            kernels: (forward + backward - flop / peak) / wall,
            utilisation: flop / peak / wall,
            error: 2.0 * error / wall,
        }
    }

    /// Length of a step in which nothing varies, with other lasting factors on the ranks' forward
    /// and backward, seconds.
    pub fn step_with(&self, factor: &dyn Fn(usize) -> f64) -> f64 {
        let schedule = self.schedule();
        let timeline = Timeline::new(&schedule);
        length(&schedule, &self.without(&schedule, &timeline, factor))
    }

    /// What the transfers of each axis cost in a step in which nothing varies and nobody is slow,
    /// seconds, if they are taken away from the inside of a layer outwards.
    pub fn exposed_by_axis(&self) -> Vec<(&'static str, f64)> {
        const AXES: [(&str, &[&str]); 8] = [
            ("tp", &["tp"]),
            ("cp", &["cp"]),
            ("ep", &["ep"]),
            ("pp", &["pp forward", "pp backward"]),
            ("expert dp", &["expert dp"]),
            ("dp", &["dp"]),
            ("dp x cp", &["dp x cp"]),
            ("world", &["world"]),
        ];
        let schedule = self.schedule();
        let timeline = Timeline::new(&schedule);
        let mut seconds = self.without(&schedule, &timeline, &|_| 1.0);
        let mut before = length(&schedule, &seconds);
        let mut costs = Vec::new();
        for (axis, names) in AXES {
            let is_of = |name: &String| names.contains(&name.as_str());
            let name = |axis: u32| &schedule.axes[axis as usize].name;
            let mut used = schedule
                .operations
                .iter()
                .filter_map(|operation| operation.axis);
            if !used.any(|axis| is_of(name(axis))) {
                continue;
            }
            for (node, seconds) in seconds.iter_mut().enumerate() {
                let operation = &schedule.operations[timeline.place(node).1 as usize];
                if operation.axis.is_some_and(|axis| is_of(name(axis))) {
                    *seconds = 0.0;
                }
            }
            let now = length(&schedule, &seconds);
            costs.push((axis, before - now));
            before = now;
        }
        costs
    }

    /// Mean length of a step, and its standard error from means over neighbouring steps.
    fn mean_step(&self, schedule: &Schedule) -> (f64, f64) {
        const BLOCK: usize = 100;
        let mut timeline = Timeline::new(schedule);
        let mut drawn = Drawn::new(self, schedule, &timeline);
        let mut rng = Rng::new(self.seed ^ 0x5eed);
        let mut blocks = Vec::new();
        timeline.step(drawn.draw(self, &mut rng));
        for _ in 0..DRAWS / BLOCK {
            let before = timeline.cut();
            for _ in 0..BLOCK {
                timeline.step(drawn.draw(self, &mut rng));
            }
            blocks.push((timeline.cut() - before) / BLOCK as f64);
        }
        let n = blocks.len() as f64;
        let mean = blocks.iter().sum::<f64>() / n;
        let variance = blocks
            .iter()
            .map(|block| (block - mean).powi(2))
            .sum::<f64>()
            / (n - 1.0);
        (mean, (variance / n).sqrt())
    }

    /// Seconds with another lasting factor on each rank's forward and backward.
    fn without(
        &self,
        schedule: &Schedule,
        timeline: &Timeline,
        factor: &dyn Fn(usize) -> f64,
    ) -> Vec<f64> {
        let mut seconds = self.seconds(schedule, timeline);
        for (node, seconds) in seconds.iter_mut().enumerate() {
            let (rank, id) = timeline.place(node);
            let operation = &schedule.operations[id as usize];
            if matches!(part(schedule, id), Part::Forward | Part::Backward) {
                *seconds = self.own(rank, operation) * factor(rank);
            }
        }
        seconds
    }

    /// Every rank as fast as all are on average, by peak.
    fn average(&self, schedule: &Schedule, timeline: &Timeline, seconds: &[f64]) -> Vec<f64> {
        let weight: f64 = self.rate.iter().sum();
        // Seconds of a pass over those on the fastest class without any excess; alike for all of a
        // rank.
        let mut ratio = vec![[0.0; 4]; self.ranks()];
        for (node, seconds) in seconds.iter().enumerate() {
            let (rank, id) = timeline.place(node);
            let plain = self.own(rank, &schedule.operations[id as usize]) * self.rate[rank];
            if plain > 0.0 {
                ratio[rank][part(schedule, id) as usize] = seconds / plain;
            }
        }
        let mean = |part: Part| {
            let weighted = ratio
                .iter()
                .zip(&self.rate)
                .map(|(of, rate)| of[part as usize] * rate);
            weighted.sum::<f64>() / weight
        };
        let even = |(node, seconds): (usize, &f64)| {
            let (rank, id) = timeline.place(node);
            match part(schedule, id) {
                Part::Other => *seconds,
                part => {
                    let plain = self.own(rank, &schedule.operations[id as usize]);
                    plain * self.rate[rank] * mean(part)
                }
            }
        };
        seconds.iter().enumerate().map(even).collect()
    }

    /// The passes of every rank as long as those of all ranks on average.
    fn even_stages(&self, schedule: &Schedule, timeline: &Timeline, seconds: &[f64]) -> Vec<f64> {
        let mut of_rank = vec![[0.0; 4]; self.ranks()];
        for (node, seconds) in seconds.iter().enumerate() {
            let (rank, id) = timeline.place(node);
            of_rank[rank][part(schedule, id) as usize] += seconds;
        }
        let weight: f64 = self.rate.iter().sum();
        let mean = |part: usize| {
            let weighted = of_rank
                .iter()
                .zip(&self.rate)
                .map(|(of, rate)| of[part] * rate);
            weighted.sum::<f64>() / weight
        };
        let even = |(node, seconds): (usize, &f64)| {
            let (rank, id) = timeline.place(node);
            let part = part(schedule, id);
            let is = of_rank[rank][part as usize];
            match part {
                Part::Other => *seconds,
                _ if is <= 0.0 => 0.0,
                _ => seconds * mean(part as usize) / is,
            }
        };
        seconds.iter().enumerate().map(even).collect()
    }

    /// Without transfers, and without adding up what was reduced, which is part of them.
    fn silent(&self, schedule: &Schedule, timeline: &Timeline, seconds: &[f64]) -> Vec<f64> {
        let is_transfer = |node: usize| {
            let operation = &schedule.operations[timeline.place(node).1 as usize];
            operation.axis.is_some()
                || (operation.phase == Phase::GradientReduce && operation.stream != Stream::Compute)
        };
        let silent = |(node, seconds): (usize, &f64)| match is_transfer(node) {
            true => 0.0,
            false => *seconds,
        };
        seconds.iter().enumerate().map(silent).collect()
    }

    /// Input, forward, backward and update of a step, mean over ranks by peak.
    fn busy(&self, schedule: &Schedule, timeline: &Timeline, seconds: &[f64]) -> [f64; 4] {
        let weight: f64 = self.rate.iter().sum();
        let mut sum = [0.0; 4];
        for (node, seconds) in seconds.iter().enumerate() {
            let (rank, id) = timeline.place(node);
            let at = match part(schedule, id) {
                Part::Forward => 1,
                Part::Backward => 2,
                Part::Update => 3,
                Part::Other if schedule.operations[id as usize].stream == Stream::Host => 0,
                Part::Other => continue,
            };
            sum[at] += seconds * self.rate[rank] / weight;
        }
        sum
    }
}

/// Length of a step that repeats.
fn length(schedule: &Schedule, seconds: &[f64]) -> f64 {
    let mut timeline = Timeline::new(schedule);
    timeline.step(seconds);
    timeline.step(seconds);
    let before = timeline.cut();
    timeline.step(seconds);
    timeline.cut() - before
}

fn part(schedule: &Schedule, id: u32) -> Part {
    let operation = &schedule.operations[id as usize];
    match (operation.axis, operation.stream, operation.phase) {
        (None, Stream::Compute, Phase::Forward) => Part::Forward,
        (None, Stream::Compute, Phase::Backward | Phase::Recompute) => Part::Backward,
        (None, Stream::Compute, Phase::Optimizer | Phase::GradientNorm) => Part::Update,
        _ => Part::Other,
    }
}
