//! A data-parallel job whose every time is drawn from a stated law, and what its waterfall is in
//! truth. The times are laid out by a few lines of arithmetic of their own, not by laggard's
//! replay, so that one checks the other.

use crate::known_manifest::{Placement, manifest, sample, write};
use laggard_record::{Manifest, RecordError, Sample, StepWork, Telemetry};
use laggard_schedule::{LayerWork, Layout, ModelWork, Part, PartWork, Schedule, generate};
use laggard_stats::Rng;
use std::path::Path;

/// Peak of the fastest class, FLOP/s.
const PEAK: f64 = 1e12;
/// Forward time of one layer on the fastest class, seconds.
const FORWARD: f64 = 1e-3;
/// Backward takes twice as long.
const BACKWARD: f64 = 2e-3;
const OPTIMIZER: f64 = 0.5e-3;
const INPUT: f64 = 0.2e-3;
/// Transfer of one bucket.
const TRANSFER: f64 = 0.8e-3;
/// Share of the peak that kernels of every class reach.
const EFFICIENCY: f64 = 0.5;
const LAYERS: usize = 3;
const TOKENS: i64 = 128;

/// The laws.
#[derive(Debug, Clone)]
pub struct KnownJob {
    /// Steps.
    pub steps: u32,
    /// Relative rate of each rank's class; ranks of one rate form a class.
    pub rate: Vec<f64>,
    /// Host of each rank.
    pub host: Vec<u32>,
    /// Lasting excess of each host (0.1 = 10 % longer), by host.
    pub host_excess: Vec<f64>,
    /// Lasting excess of each rank, beside its host's.
    pub rank_excess: Vec<f64>,
    /// The step at which the ranks' excess begins.
    pub from_step: u32,
    /// Excess of each rank in backward only.
    pub backward_excess: Vec<f64>,
    /// Standard deviation of each rank's compute time from step to step, relative.
    pub jitter: Vec<f64>,
    /// Probability of a pause per rank and step, by rank.
    pub pause_probability: Vec<f64>,
    /// Length of a pause, seconds.
    pub pause: f64,
    /// Coefficient of variation of tokens per rank and step.
    pub ragged: f64,
    /// What processors did meanwhile.
    pub telemetry: Vec<Telemetry>,
    /// Seed.
    pub seed: u64,
}

/// What the waterfall of a job is in truth, as shares of the step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truth {
    /// Unequal work.
    pub uneven_work: f64,
    /// Pauses.
    pub host_pauses: f64,
    /// What comes and goes.
    pub transient: f64,
    /// Slow ranks.
    pub rank: f64,
    /// Slow hosts.
    pub node: f64,
    /// Mixed generations.
    pub generation: f64,
    /// Exposed communication.
    pub exposed: f64,
    /// Input.
    pub host: f64,
    /// Optimizer.
    pub optimizer: f64,
    /// Kernels below peak.
    pub kernels: f64,
    /// Utilisation.
    pub utilisation: f64,
}

/// What is drawn for one rank and step.
struct Drawn {
    factor: f64,
    backward: f64,
    pause: f64,
    tokens: i64,
}

impl KnownJob {
    /// A job of equal ranks on hosts of `per_host`, with a little jitter.
    pub fn clean(ranks: u32, per_host: u32, steps: u32, seed: u64) -> Self {
        let count = ranks as usize;
        Self {
            steps,
            rate: vec![1.0; count],
            host: (0..ranks).map(|rank| rank / per_host).collect(),
            host_excess: vec![0.0; ranks.div_ceil(per_host) as usize],
            rank_excess: vec![0.0; count],
            from_step: 0,
            backward_excess: vec![0.0; count],
            jitter: vec![0.01; count],
            pause_probability: vec![0.0; count],
            pause: 0.02,
            ragged: 0.0,
            telemetry: Vec::new(),
            seed,
        }
    }

    /// Number of ranks.
    pub fn ranks(&self) -> usize {
        self.rate.len()
    }

    /// Samples per rank and step.
    pub fn samples_per_step(&self) -> usize {
        self.schedule().program(0).len()
    }

    /// Writes the record.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), RecordError> {
        let manifest = self.manifest();
        let mut layout = Timeline::new(self, &manifest.schedule);
        let work: Vec<StepWork> = Vec::new();
        let samples = (0..self.steps)
            .flat_map(|step| layout.step(step))
            .collect::<Vec<_>>();
        let steps = if self.ragged > 0.0 { layout.work } else { work };
        write(dir, &manifest, (samples, steps, self.telemetry.clone()))
    }

    /// Expected waterfall, from the laws: the expectations of maxima from many draws, all else by
    /// hand.
    pub fn truth(&self) -> Truth {
        const DRAWS: usize = 200_000;
        let ranks = self.ranks();
        let mut rng = Rng::new(self.seed ^ 0x5eed);
        let [mut measured, mut even, mut calm] = [0.0_f64; 3];
        for _ in 0..DRAWS {
            let [mut worst, mut worst_even, mut worst_calm] = [0.0_f64; 3];
            for rank in 0..ranks {
                let drawn = self.draw(rank, u32::MAX, &mut rng);
                // The optimizer that a step begins with belongs to the draw before.
                let before = self.draw(rank, u32::MAX, &mut rng);
                let late = (before.factor - drawn.factor) * OPTIMIZER / self.rate[rank];
                let own = |share: f64| self.own(rank, drawn.factor, drawn.backward, share) + late;
                let share = drawn.tokens as f64 / TOKENS as f64;
                worst = worst.max(own(share) + drawn.pause);
                worst_even = worst_even.max(own(1.0) + drawn.pause);
                worst_calm = worst_calm.max(own(1.0));
            }
            measured += worst / DRAWS as f64;
            even += worst_even / DRAWS as f64;
            calm += worst_calm / DRAWS as f64;
        }
        self.terms(measured, even, calm)
    }

    fn terms(&self, measured: f64, even: f64, calm: f64) -> Truth {
        let ranks = self.ranks();
        let mean_factor = |rank: usize| 1.0 + self.excess(rank, u32::MAX);
        let mean = |rank: usize| {
            self.own(
                rank,
                mean_factor(rank),
                1.0 + self.backward_excess[rank],
                1.0,
            )
        };
        let class_mean = |rank: usize| {
            let peers: Vec<usize> = (0..ranks)
                .filter(|&r| (self.rate[r] - self.rate[rank]).abs() < 1e-9)
                .collect();
            peers.iter().map(|&peer| mean(peer)).sum::<f64>() / peers.len() as f64
        };
        let hosts_only = |rank: usize| {
            let of_host =
                |r: usize| self.compute() / self.rate[r] * self.host_excess[self.host[r] as usize];
            let peers: Vec<usize> = (0..ranks)
                .filter(|&r| (self.rate[r] - self.rate[rank]).abs() < 1e-9)
                .collect();
            let centre = peers.iter().map(|&r| of_host(r)).sum::<f64>() / peers.len() as f64;
            class_mean(rank) + of_host(rank) - centre
        };
        let longest = |of: &dyn Fn(usize) -> f64| (0..ranks).map(of).fold(0.0, f64::max);
        let weight: f64 = self.rate.iter().sum();
        let balanced = (0..ranks)
            .map(|r| self.rate[r] * class_mean(r))
            .sum::<f64>()
            / weight;
        let persistent = longest(&mean);
        let (node, class) = (longest(&hosts_only), longest(&class_mean));
        let wall = measured + TRANSFER;
        let optimizer = ranks as f64 * OPTIMIZER / weight
            * (0..ranks).map(mean_factor).sum::<f64>()
            / ranks as f64;
        let useful = ranks as f64 * EFFICIENCY * (FORWARD + BACKWARD) * LAYERS as f64 / weight;
        Truth {
            uneven_work: (measured - even) / wall,
            host_pauses: (even - calm) / wall,
            transient: (calm - persistent) / wall,
            rank: (persistent - node) / wall,
            node: (node - class) / wall,
            generation: (class - balanced) / wall,
            exposed: TRANSFER / wall,
            host: INPUT / wall,
            optimizer: optimizer / wall,
            kernels: (balanced - INPUT - optimizer - useful) / wall,
            utilisation: useful / wall,
        }
    }

    /// Compute of the fastest class without any excess.
    fn compute(&self) -> f64 {
        (FORWARD + BACKWARD) * LAYERS as f64 + OPTIMIZER
    }

    fn own(&self, rank: usize, factor: f64, backward: f64, share: f64) -> f64 {
        let layers = (FORWARD + BACKWARD * backward) * LAYERS as f64 * share + OPTIMIZER;
        INPUT + layers * factor / self.rate[rank]
    }

    fn excess(&self, rank: usize, step: u32) -> f64 {
        let own = if step >= self.from_step {
            self.rank_excess[rank]
        } else {
            0.0
        };
        own + self.host_excess[self.host[rank] as usize]
    }

    fn draw(&self, rank: usize, step: u32, rng: &mut Rng) -> Drawn {
        let noise = (1.0 + self.jitter[rank] * rng.normal()).max(0.2);
        let paused = rng.uniform() < self.pause_probability[rank];
        let share = (1.0 + self.ragged * rng.normal()).clamp(0.2, 4.0);
        Drawn {
            factor: (1.0 + self.excess(rank, step)) * noise,
            backward: 1.0 + self.backward_excess[rank],
            pause: if paused { self.pause } else { 0.0 },
            tokens: (TOKENS as f64 * share).round() as i64,
        }
    }

    fn schedule(&self) -> Schedule {
        // The head is as the layers before it.
        let layer = |index: usize| LayerWork {
            name: format!("layer {index}"),
            parts: vec![PartWork {
                part: if index + 1 == LAYERS {
                    Part::Head
                } else {
                    Part::FeedForward
                },
                forward_flop: EFFICIENCY * PEAK * FORWARD,
                forward_attention_flop: 0.0,
                parameters: 1 << 18,
            }],
        };
        let work = ModelWork {
            layers: (0..LAYERS).map(layer).collect(),
            element_bytes: 4,
            stream_elements: 1,
            key_value_elements: 1,
            experts_per_token: 1,
        };
        let layout = Layout {
            bucket_bytes: 2 << 20,
            ..Layout::data_parallel(self.ranks() as u32, 1)
        };
        generate(&layout, &work).expect("one micro-batch per rank is a possible layout")
    }

    /// The manifest of its record.
    pub fn manifest(&self) -> Manifest {
        let place = Placement {
            rate: &self.rate,
            host: &self.host,
            peak_flop_per_s: PEAK,
            tokens: TOKENS as u32,
        };
        manifest(&place, self.schedule(), self.seed)
    }
}

/// Lays out one step after the other.
struct Timeline<'a> {
    job: &'a KnownJob,
    schedule: &'a Schedule,
    rng: Rng,
    /// When the optimizer of the step before ended, by rank, seconds.
    free: Vec<f64>,
    work: Vec<StepWork>,
}

impl<'a> Timeline<'a> {
    fn new(job: &'a KnownJob, schedule: &'a Schedule) -> Self {
        let free = vec![0.0; job.ranks()];
        Self {
            job,
            schedule,
            rng: Rng::new(job.seed),
            free,
            work: Vec::new(),
        }
    }

    fn step(&mut self, step: u32) -> Vec<Sample> {
        let ranks = self.job.ranks();
        let mut samples = Vec::with_capacity(ranks * 10);
        let mut ready = vec![[0.0; 2]; ranks];
        let mut optimizer = vec![0.0; ranks];
        for rank in 0..ranks {
            let drawn = self.job.draw(rank, step, &mut self.rng);
            let share = drawn.tokens as f64 / TOKENS as f64;
            let scale = drawn.factor / self.job.rate[rank];
            let mut clock = self.free[rank];
            let mut run = |operation: usize, seconds: f64| {
                let id = self.schedule.program(rank as u32)[operation];
                samples.push(sample(rank, step, id, clock, clock + seconds));
                clock += seconds;
                clock
            };
            // In order: input, 3 forward, 2 backward, bucket, backward, bucket, optimizer.
            run(0, INPUT + drawn.pause);
            (1..4).for_each(|operation| {
                run(operation, FORWARD * scale * share);
            });
            run(4, BACKWARD * drawn.backward * scale * share);
            ready[rank][0] = run(5, BACKWARD * drawn.backward * scale * share);
            ready[rank][1] = run(7, BACKWARD * drawn.backward * scale * share);
            optimizer[rank] = OPTIMIZER * scale;
            self.work.push(StepWork {
                rank: rank as u32,
                step,
                tokens: drawn.tokens,
                tokens_squared: drawn.tokens * drawn.tokens,
            });
        }
        self.meet(step, &ready, &optimizer, &mut samples);
        samples
    }

    fn meet(
        &mut self,
        step: u32,
        ready: &[[f64; 2]],
        optimizer: &[f64],
        samples: &mut Vec<Sample>,
    ) {
        let last = |bucket: usize| ready.iter().map(|r| r[bucket]).fold(0.0, f64::max);
        let first_end = last(0) + TRANSFER;
        let second_end = last(1).max(first_end) + TRANSFER;
        for (rank, ready) in ready.iter().enumerate() {
            let program = self.schedule.program(rank as u32);
            samples.push(sample(rank, step, program[6], ready[0], first_end));
            let arrival = ready[1].max(first_end);
            samples.push(sample(rank, step, program[8], arrival, second_end));
            let end = second_end + optimizer[rank];
            samples.push(sample(rank, step, program[9], second_end, end));
            self.free[rank] = end;
        }
    }
}
