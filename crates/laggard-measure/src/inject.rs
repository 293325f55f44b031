//! Faults that are put into a run on purpose: who is slow when, and by how much. All slowness is
//! real arithmetic, never sleep, so it shows in CPU time as a true fault would. Knows ranks and
//! steps; nothing of kernels or clocks. Deterministic: the same seed gives the same faults.

mod parse;

use crate::MeasureError;
use crate::stream::{Purpose, generator};
use laggard_record::InjectedFault;
use laggard_schedule::Phase;
use laggard_stats::Rng;
use laggard_types::Rank;

/// One fault, as given to `--inject`:
///
/// | text | what is slow |
/// |---|---|
/// | `slow-rank:RANK:FACTOR` | all compute of a rank does FACTOR times the arithmetic |
/// | `slow-host:HOST:FACTOR` | the same for all ranks of a host |
/// | `slow-stage:STAGE:FACTOR` | the same for all ranks of a pipeline stage |
/// | `slow-backward:RANK:FACTOR` | the same for backward of a rank only |
/// | `jitter:SIGMA[@RANK]` | 1 + SIGMA * abs(normal) times the arithmetic, drawn each step |
/// | `pause:STEPS:MS[@RANK]` | in one of STEPS steps a host computes MS longer in `input` |
/// | `ragged:CV` | sequence lengths vary, lognormal with this coefficient of variation |
///
/// `+from=STEP` at the end lets a fault begin at that step.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    spec: String,
    kind: Kind,
    from_step: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    SlowRank {
        rank: Rank,
        factor: f64,
    },
    SlowHost {
        host: u32,
        factor: f64,
    },
    SlowStage {
        stage: u32,
        factor: f64,
    },
    SlowBackward {
        rank: Rank,
        factor: f64,
    },
    Jitter {
        sigma: f64,
        rank: Option<Rank>,
    },
    Pause {
        every: u32,
        milliseconds: f64,
        rank: Option<Rank>,
    },
    Ragged {
        variation: f64,
    },
}

/// The shortest sequence of a ragged batch, unless the nominal length is shorter.
const SHORTEST: u32 = 8;
/// The longest sequence of a ragged batch, in nominal lengths.
pub(crate) const LONGEST_OVER_NOMINAL: u32 = 4;

/// What a run must be like for a fault to fit it.
#[derive(Debug, Clone)]
pub(crate) struct World {
    /// Host of each rank.
    pub host_of_rank: Vec<u32>,
    /// Pipeline stage of each rank.
    pub stage_of_rank: Vec<u32>,
    /// Steps of the run.
    pub steps: u32,
    /// Nominal tokens of a sequence.
    pub length: u32,
    /// Micro-batches of each replica.
    pub micro_batches: Vec<u32>,
    /// Seed of the run.
    pub seed: u64,
}

/// Faults that fit a run.
#[derive(Debug, Clone)]
pub(crate) struct Injector {
    faults: Vec<Fault>,
    world: World,
}

/// What the faults make of one rank's step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slowness {
    /// Factor on all compute.
    compute: f64,
    /// Further factor on backward.
    backward: f64,
    /// Seconds of arithmetic that the host does in `input`, at the measured peak.
    pub pause_s: f64,
}

impl Slowness {
    /// Factor on the arithmetic of a phase.
    pub(crate) fn factor(&self, phase: Phase) -> f64 {
        match phase {
            Phase::Backward | Phase::Recompute => self.compute * self.backward,
            _ => self.compute,
        }
    }
}

impl Injector {
    /// Faults for a run.
    ///
    /// # Errors
    /// [`MeasureError::Fault`] for a rank, host, stage or step that the run does not have.
    pub(crate) fn new(faults: &[Fault], world: World) -> Result<Self, MeasureError> {
        for fault in faults {
            fault.check(&world)?;
        }
        Ok(Self {
            faults: faults.to_vec(),
            world,
        })
    }

    /// The faults as the record's manifest tells them.
    pub(crate) fn truth(&self) -> Vec<InjectedFault> {
        let truth = |fault: &Fault| InjectedFault {
            spec: fault.spec.clone(),
            kind: fault.kind.name().to_owned(),
            ranks: self
                .ranks()
                .filter(|rank| self.concerns(fault, *rank))
                .collect(),
            size: fault.kind.size(),
            from_step: fault.from_step,
        };
        self.faults.iter().map(truth).collect()
    }

    /// Whether sequence lengths vary.
    pub(crate) fn is_ragged(&self) -> bool {
        self.faults
            .iter()
            .any(|fault| matches!(fault.kind, Kind::Ragged { .. }))
    }

    /// Tokens of the longest sequence that can come.
    pub(crate) fn longest(&self) -> u32 {
        match self.is_ragged() {
            true => self.world.length.saturating_mul(LONGEST_OVER_NOMINAL),
            false => self.world.length,
        }
    }

    /// How slow a rank is in a step.
    pub(crate) fn slowness(&self, rank: Rank, step: u32) -> Slowness {
        let mut slowness = Slowness {
            compute: 1.0,
            backward: 1.0,
            pause_s: 0.0,
        };
        for (index, fault) in self.faults.iter().enumerate() {
            if step < fault.from_step || !self.concerns(fault, rank) {
                continue;
            }
            match fault.kind {
                Kind::SlowRank { factor, .. }
                | Kind::SlowHost { factor, .. }
                | Kind::SlowStage { factor, .. } => slowness.compute *= factor,
                Kind::SlowBackward { factor, .. } => slowness.backward *= factor,
                Kind::Jitter { sigma, .. } => {
                    slowness.compute *= 1.0 + sigma * self.rng(index, rank, step).normal().abs();
                }
                Kind::Pause {
                    every,
                    milliseconds,
                    ..
                } => {
                    if self.rng(index, rank, step).below(every as usize) == 0 {
                        slowness.pause_s += milliseconds * 1e-3;
                    }
                }
                Kind::Ragged { .. } => {}
            }
        }
        slowness
    }

    /// Tokens of each sequence of each of a replica's micro-batches in a step.
    pub(crate) fn lengths(&self, replica: u32, step: u32, lengths: &mut Vec<u32>) {
        let share = self.world.micro_batches[replica as usize];
        lengths.clear();
        lengths.resize(share as usize, self.world.length);
        for (index, fault) in self.faults.iter().enumerate() {
            if let Kind::Ragged { variation } = fault.kind
                && step >= fault.from_step
            {
                let mut rng = self.rng(index, replica, step);
                for length in lengths.iter_mut() {
                    *length = self.draw_length(variation, &mut rng);
                }
            }
        }
    }

    /// A lognormal length of nominal mean (`exp(mu + sigma^2 / 2)` is the mean of a lognormal, and
    /// `exp(sigma^2) - 1` its squared coefficient of variation), cut where a step gets absurd.
    fn draw_length(&self, variation: f64, rng: &mut Rng) -> u32 {
        let nominal = self.world.length;
        let variance = (variation * variation).ln_1p();
        let mu = f64::from(nominal).ln() - variance / 2.0;
        let length = (mu + variance.sqrt() * rng.normal()).exp().round();
        length.clamp(f64::from(SHORTEST.min(nominal)), f64::from(self.longest())) as u32
    }

    fn rng(&self, fault: usize, rank: Rank, step: u32) -> Rng {
        let purpose = Purpose::Fault(fault as u8);
        generator(self.world.seed, purpose, step, rank)
    }

    fn ranks(&self) -> impl Iterator<Item = Rank> {
        0..self.world.host_of_rank.len() as Rank
    }

    fn concerns(&self, fault: &Fault, rank: Rank) -> bool {
        match fault.kind {
            Kind::SlowRank { rank: one, .. } | Kind::SlowBackward { rank: one, .. } => one == rank,
            Kind::SlowHost { host, .. } => self.world.host_of_rank[rank as usize] == host,
            Kind::SlowStage { stage, .. } => self.world.stage_of_rank[rank as usize] == stage,
            Kind::Jitter { rank: one, .. } | Kind::Pause { rank: one, .. } => {
                one.is_none_or(|one| one == rank)
            }
            Kind::Ragged { .. } => true,
        }
    }
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::SlowRank { .. } => "slow_rank",
            Self::SlowHost { .. } => "slow_host",
            Self::SlowStage { .. } => "slow_stage",
            Self::SlowBackward { .. } => "slow_backward",
            Self::Jitter { .. } => "jitter",
            Self::Pause { .. } => "pause",
            Self::Ragged { .. } => "ragged",
        }
    }

    /// Factor, sigma, milliseconds or coefficient of variation.
    fn size(&self) -> f64 {
        match *self {
            Self::SlowRank { factor, .. }
            | Self::SlowHost { factor, .. }
            | Self::SlowStage { factor, .. }
            | Self::SlowBackward { factor, .. } => factor,
            Self::Jitter { sigma, .. } => sigma,
            Self::Pause { milliseconds, .. } => milliseconds,
            Self::Ragged { variation } => variation,
        }
    }

    fn rank(&self) -> Option<Rank> {
        match *self {
            Self::SlowRank { rank, .. } | Self::SlowBackward { rank, .. } => Some(rank),
            Self::Jitter { rank, .. } | Self::Pause { rank, .. } => rank,
            Self::SlowHost { .. } | Self::SlowStage { .. } | Self::Ragged { .. } => None,
        }
    }
}

impl Fault {
    fn check(&self, world: &World) -> Result<(), MeasureError> {
        let ranks = world.host_of_rank.len() as u32;
        if let Some(rank) = self.kind.rank().filter(|rank| *rank >= ranks) {
            let why = format!("there is no rank {rank}");
            return Err(self.refused(why, format!("ranks are 0 to {}", ranks - 1)));
        }
        let count = |of_rank: &[u32]| of_rank.iter().max().map_or(0, |last| last + 1);
        let group = match self.kind {
            Kind::SlowHost { host, .. } => {
                let alone = "group the ranks into hosts with --emulate-hosts";
                Some(("host", host, count(&world.host_of_rank), alone))
            }
            Kind::SlowStage { stage, .. } => {
                let alone = "give a --layout with a pipeline, such as pp2";
                Some(("stage", stage, count(&world.stage_of_rank), alone))
            }
            _ => None,
        };
        if let Some((name, number, all, alone)) = group
            && number >= all
        {
            let hint = match all {
                1 => alone.to_owned(),
                _ => format!("{name}s are 0 to {}", all - 1),
            };
            return Err(self.refused(format!("there is no {name} {number}"), hint));
        }
        if self.from_step >= world.steps {
            let why = format!("step {} never comes", self.from_step);
            let hint = format!(
                "the run has {} steps; raise --steps or begin earlier",
                world.steps
            );
            return Err(self.refused(why, hint));
        }
        Ok(())
    }

    fn refused(&self, why: String, hint: String) -> MeasureError {
        MeasureError::Fault {
            spec: self.spec.clone(),
            why,
            hint,
        }
    }
}

#[cfg(test)]
mod tests;
