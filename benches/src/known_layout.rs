//! Jobs of any layout whose every time is drawn from a stated law, and what their waterfalls are in
//! truth. Steps are laid out by an event walk of its own (`known_layout/timeline.rs`), not by
//! laggard's replay, so that one checks the other.

mod timeline;
mod truth;

use crate::known_manifest::{Placement, manifest, write};
use laggard_record::{Link, Manifest, RecordError, Sample, StepWork};
use laggard_schedule::{
    LayerWork, Layout, ModelWork, Operation, Part, PartWork, Phase, Schedule, Stream, generate,
};
use laggard_stats::Rng;
use std::path::Path;
use timeline::Timeline;

pub use truth::Truth;

/// Peak of the fastest class, FLOP/s.
const PEAK: f64 = 1e12;
/// Share of the peak that kernels of every class reach.
const EFFICIENCY: f64 = 0.5;
/// Forward time of one layer on one rank of the fastest class, seconds.
const FORWARD: f64 = 1e-3;
const TOKENS: u32 = 128;
/// Parameters of a layer.
const PARAMETERS: u64 = 3 << 16;
/// Elements of the activations of a micro-batch.
const STREAM: u64 = 1 << 15;

/// The laws.
#[derive(Debug, Clone)]
pub struct KnownLayout {
    /// The layout.
    pub layout: Layout,
    /// Transformer layers.
    pub layers: u32,
    /// FLOP of the output head over those of a layer.
    pub head: f64,
    /// Steps.
    pub steps: u32,
    /// Relative rate of each rank's class; ranks of one rate form a class.
    pub rate: Vec<f64>,
    /// Host of each rank.
    pub host: Vec<u32>,
    /// Lasting excess of each rank's forward and backward (0.1 = 10 % longer), beside its host's.
    pub rank_excess: Vec<f64>,
    /// The same, by host.
    pub host_excess: Vec<f64>,
    /// Standard deviation of each rank's forward and backward from step to step, relative.
    pub jitter: Vec<f64>,
    /// Time of input on the host, seconds.
    pub input: f64,
    /// Time of the update and of the gradients' norm on the fastest class, seconds.
    pub optimizer: f64,
    /// Bandwidth of transfers, bytes/s.
    pub bandwidth: f64,
    /// The host whose transfers to others take longer, and how many times.
    pub slow_link: Option<(u32, f64)>,
    /// Seed.
    pub seed: u64,
}

impl KnownLayout {
    /// A job of equal ranks on hosts of `per_host`, with a little jitter, in which every piece of
    /// the model has `layers_per_piece` layers and the last the head as well.
    ///
    /// # Panics
    /// If the layout cannot be read, which only a wrong test can do.
    pub fn clean(layout: &str, micro_batches: u32, layers_per_piece: u32) -> Self {
        let layout = Layout::parse(layout).expect("a layout");
        let layout = Layout {
            micro_batches: vec![micro_batches; layout.data_parallel as usize],
            bucket_bytes: PARAMETERS * 4,
            ..layout
        };
        let ranks = layout.world_size() as usize;
        let per_host = 2;
        Self {
            layers: layout.pieces() * layers_per_piece,
            head: 0.0,
            layout,
            steps: 300,
            rate: vec![1.0; ranks],
            host: (0..ranks as u32).map(|rank| rank / per_host).collect(),
            rank_excess: vec![0.0; ranks],
            host_excess: vec![0.0; ranks.div_ceil(per_host as usize)],
            jitter: vec![0.01; ranks],
            input: 0.2e-3,
            optimizer: 0.3e-3,
            bandwidth: 2e9,
            slow_link: None,
            seed: 0,
        }
    }

    /// Number of ranks.
    pub fn ranks(&self) -> usize {
        self.rate.len()
    }

    /// Ranks of a pipeline stage.
    pub fn stage(&self, stage: u32) -> Vec<usize> {
        let at = |rank: &usize| self.layout.coordinates(*rank as u32).pipeline == stage;
        (0..self.ranks()).filter(at).collect()
    }

    /// Writes the record.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), RecordError> {
        let schedule = self.schedule();
        let mut timeline = Timeline::new(&schedule);
        let mut drawn = Drawn::new(self, &schedule, &timeline);
        let mut rng = Rng::new(self.seed);
        let mut samples: Vec<Sample> = Vec::new();
        let mut steps: Vec<StepWork> = Vec::new();
        for step in 0..self.steps {
            timeline.step(drawn.draw(self, &mut rng));
            samples.extend(timeline.samples(step));
            steps.extend((0..self.ranks()).map(|rank| self.work(rank, step)));
        }
        write(dir, &self.manifest(), (samples, steps, Vec::new()))
    }

    /// Every rank of a replica works on the replica's tokens.
    fn work(&self, rank: usize, step: u32) -> StepWork {
        let replica = self.layout.coordinates(rank as u32).data as usize;
        let micro_batches = i64::from(self.layout.micro_batches[replica]);
        let tokens = i64::from(TOKENS);
        StepWork {
            rank: rank as u32,
            step,
            tokens: tokens * micro_batches,
            tokens_squared: tokens * tokens * micro_batches,
        }
    }

    /// The manifest of its record.
    pub fn manifest(&self) -> Manifest {
        let placement = Placement {
            rate: &self.rate,
            host: &self.host,
            peak_flop_per_s: PEAK,
            tokens: TOKENS,
        };
        let hosts = self.host_excess.len() as u32;
        let pairs = (0..hosts).flat_map(|from| (from + 1..hosts).map(move |to| (from, to)));
        let link = |(from_host, to_host)| Link {
            from_host,
            to_host,
            latency_ns: 20_000,
            bytes: 1 << 20,
            bandwidth_bytes_per_s: self.bandwidth / self.link_factor(&[from_host, to_host]),
        };
        Manifest {
            links: pairs.map(link).collect(),
            ..manifest(&placement, self.schedule(), self.seed)
        }
    }

    fn schedule(&self) -> Schedule {
        // FLOP are of all ranks that share a layer, so that each takes the stated time.
        let sharing = self.layout.tensor_parallel * self.layout.context_parallel;
        let flop = f64::from(sharing) * EFFICIENCY * PEAK * FORWARD;
        let part = |part, share: f64| PartWork {
            part,
            forward_flop: flop * share,
            forward_attention_flop: 0.0,
            parameters: (PARAMETERS as f64 * share) as u64,
        };
        let experts = self.layout.expert_parallel > 1;
        let layer = |index: u32| LayerWork {
            name: format!("layer {index}"),
            parts: match experts {
                false => vec![
                    part(Part::Qkv, 0.25),
                    part(Part::Attention, 0.25),
                    part(Part::FeedForward, 0.5),
                ],
                true => vec![
                    part(Part::Qkv, 0.25),
                    part(Part::Attention, 0.25),
                    part(Part::Dispatch, 0.0),
                    part(Part::Experts, 0.5),
                    part(Part::Combine, 0.0),
                ],
            },
        };
        let head = LayerWork {
            name: "head".to_owned(),
            parts: vec![part(Part::Head, self.head)],
        };
        let work = ModelWork {
            layers: (0..self.layers).map(layer).chain([head]).collect(),
            element_bytes: 4,
            stream_elements: STREAM,
            key_value_elements: STREAM,
            experts_per_token: 1,
        };
        generate(&self.layout, &work).expect("a layout that fits the model")
    }

    /// Seconds of every node without noise, of meetings without the waiting.
    fn seconds(&self, schedule: &Schedule, timeline: &Timeline) -> Vec<f64> {
        let of_node = |node: usize| {
            let (rank, operation) = timeline.place(node);
            let operation = &schedule.operations[operation as usize];
            match operation.axis {
                Some(_) => self.transfer(operation, &timeline.ranks_met(node)),
                None => self.own(rank, operation) * self.slowness(rank, operation),
            }
        };
        (0..timeline.nodes()).map(of_node).collect()
    }

    /// Seconds of an operation on a rank of the fastest class.
    fn own(&self, rank: usize, operation: &Operation) -> f64 {
        let flop = operation.flop + operation.attention_flop;
        let seconds = match (operation.stream, operation.phase) {
            (Stream::Host, _) => return self.input,
            (Stream::Compute, Phase::Optimizer | Phase::GradientNorm) => self.optimizer,
            (Stream::Compute, _) => flop / (EFFICIENCY * PEAK),
            // What adds up reduced gradients.
            _ => return 1e-5,
        };
        seconds / self.rate[rank]
    }

    fn slowness(&self, rank: usize, operation: &Operation) -> f64 {
        match varies(operation) {
            true => 1.0 + self.rank_excess[rank] + self.host_excess[self.host[rank] as usize],
            false => 1.0,
        }
    }

    fn transfer(&self, operation: &Operation, ranks: &[u32]) -> f64 {
        let hosts: Vec<u32> = ranks.iter().map(|rank| self.host[*rank as usize]).collect();
        operation.bytes as f64 / self.bandwidth * self.link_factor(&hosts)
    }

    fn link_factor(&self, hosts: &[u32]) -> f64 {
        match self.slow_link {
            Some((slow, factor)) if hosts.contains(&slow) && hosts.iter().any(|h| *h != slow) => {
                factor
            }
            _ => 1.0,
        }
    }
}

/// Whether an operation takes longer on a slow rank, and varies from step to step.
fn varies(operation: &Operation) -> bool {
    let phases = [Phase::Forward, Phase::Backward, Phase::Recompute];
    operation.axis.is_none() && phases.contains(&operation.phase)
}

/// Seconds of every node in one step after the other.
struct Drawn {
    mean: Vec<f64>,
    /// The rank whose noise a node has.
    noise_of: Vec<Option<usize>>,
    seconds: Vec<f64>,
}

impl Drawn {
    fn new(job: &KnownLayout, schedule: &Schedule, timeline: &Timeline) -> Self {
        let noise_of = |node: usize| {
            let (rank, id) = timeline.place(node);
            varies(&schedule.operations[id as usize]).then_some(rank)
        };
        let mean = job.seconds(schedule, timeline);
        Self {
            noise_of: (0..timeline.nodes()).map(noise_of).collect(),
            seconds: mean.clone(),
            mean,
        }
    }

    fn draw(&mut self, job: &KnownLayout, rng: &mut Rng) -> &[f64] {
        let noise: Vec<f64> = job
            .jitter
            .iter()
            .map(|jitter| (1.0 + jitter * rng.normal()).max(0.2))
            .collect();
        for ((seconds, mean), of) in self.seconds.iter_mut().zip(&self.mean).zip(&self.noise_of) {
            *seconds = of.map_or(*mean, |rank| mean * noise[rank]);
        }
        &self.seconds
    }
}
