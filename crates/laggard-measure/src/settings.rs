//! What a run is asked to be. Plain values; [`crate::run`] refuses what cannot be.

use crate::{ClassShare, Fault, MeasureError};
use laggard_schedule::Layout;
use laggard_specs::Model;
use laggard_types::{Caveat, DataType};
use std::path::PathBuf;
use std::time::Duration;

/// A synthetic training job on the ranks of this process.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The model; a plain dense transformer.
    pub model: Model,
    /// Ranks and their shares of micro-batches.
    pub layout: Layout,
    /// Tokens of a sequence.
    pub sequence_length: u32,
    /// Sequences of a micro-batch.
    pub micro_batch_sequences: u32,
    /// What weights, activations and gradients are kept and exchanged in: `f32`, or `bf16` or
    /// `f16` where the device computes in them. The optimizer's own numbers are `f32`.
    pub data_type: DataType,
    /// Steps to run.
    pub steps: u32,
    /// Seed of parameters, tokens and faults.
    pub seed: u64,
    /// How long a rank waits for the others, or for its own work, before all give up.
    pub timeout: Duration,
    /// How long the processes of a run wait for each other before the first step.
    pub init_timeout: Duration,
    /// Folder on each host's own disk in which its part of the record grows; absent where parts
    /// grow in the record itself.
    pub scratch: Option<PathBuf>,
    /// Emulated classes of accelerators, in order of rank; empty for the machine as it is.
    pub classes: Vec<ClassShare>,
    /// Hosts that the ranks are grouped into, in contiguous blocks; 1 for the machine as it is.
    pub emulate_hosts: u32,
    /// Longest time for which steps are run before the first one that counts, until clocks and
    /// temperatures of all devices are steady; absent to begin at once. For accelerators alone.
    pub soak: Option<Duration>,
    /// Whether ranks may share an accelerator.
    pub allow_shared_gpu: bool,
    /// What the caller doubts of the devices that the ranks have, for the record.
    pub doubts: Vec<Caveat>,
    /// Faults to put in.
    pub faults: Vec<Fault>,
    /// Directory of the record; must be new or empty.
    pub record: PathBuf,
    /// The command line, for the record.
    pub command_line: Vec<String>,
}

impl Settings {
    /// Ranks that one process takes: each is a few threads.
    pub const MOST_RANKS: u32 = 4096;

    /// Steps of a run where nothing else is asked for: enough for intervals of some percent.
    pub const DEFAULT_STEPS: u32 = 300;
    /// Time limit of a wait where nothing else is asked for.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
    /// Sequence length of a model that does not tell its own.
    const DEFAULT_LENGTH: u32 = 128;

    /// An undisturbed run of `ranks` ranks, one micro-batch of one sequence each, at the model's
    /// own sequence length.
    pub fn new(model: Model, ranks: u32, record: PathBuf) -> Self {
        let length = model.context.and_then(|length| u32::try_from(length).ok());
        Self {
            model,
            layout: Layout::data_parallel(ranks, 1),
            sequence_length: length.unwrap_or(Self::DEFAULT_LENGTH),
            micro_batch_sequences: 1,
            data_type: DataType::F32,
            steps: Self::DEFAULT_STEPS,
            seed: 1,
            timeout: Self::DEFAULT_TIMEOUT,
            init_timeout: Self::DEFAULT_TIMEOUT,
            scratch: None,
            classes: Vec::new(),
            emulate_hosts: 1,
            soak: None,
            allow_shared_gpu: false,
            doubts: Vec::new(),
            faults: Vec::new(),
            record,
            command_line: Vec::new(),
        }
    }

    /// Ranks of the run.
    pub fn ranks(&self) -> u32 {
        u32::try_from(self.layout.world_size()).unwrap_or(u32::MAX)
    }

    /// Refuses what no run can be.
    pub(crate) fn check(&self) -> Result<(), MeasureError> {
        let ranks = self.ranks();
        self.check_number("the number of ranks", "--ranks", (ranks, Self::MOST_RANKS))?;
        self.layout.check(ranks)?;
        for share in &self.layout.micro_batches {
            let share = (*share, MOST_MICRO_BATCHES);
            self.check_number("a share of micro-batches", "--micro-batches", share)?;
        }
        let length = (self.sequence_length, MOST_TOKENS);
        self.check_number("the sequence length", "--sequence-length", length)?;
        let sequences = (self.micro_batch_sequences, MOST_TOKENS);
        self.check_number(
            "the number of sequences",
            "--micro-batch-sequences",
            sequences,
        )?;
        self.check_number("the number of steps", "--steps", (self.steps, MOST_STEPS))?;
        self.check_number(
            "the number of hosts",
            "--emulate-hosts",
            (self.emulate_hosts, ranks),
        )?;
        if !matches!(
            self.data_type,
            DataType::F32 | DataType::Bf16 | DataType::F16
        ) {
            return Err(MeasureError::Setting {
                what: "the data type",
                value: self.data_type.name().to_owned(),
                why: "no layer computes in it".to_owned(),
                hint: "give --data-type f32, bf16 or f16".to_owned(),
            });
        }
        if self.timeout.is_zero() {
            return Err(MeasureError::Setting {
                what: "the time limit",
                value: "0".to_owned(),
                why: "every wait would fail".to_owned(),
                hint: "give --timeout some seconds".to_owned(),
            });
        }
        Ok(())
    }

    /// Refuses to wait for processors to be steady: nothing tells whether they are.
    pub(crate) fn check_soak(&self, on_accelerators: bool) -> Result<(), MeasureError> {
        match self.soak {
            Some(limit) if !on_accelerators => Err(MeasureError::Setting {
                what: "the time to soak",
                value: format!("{} s", limit.as_secs()),
                why: "ranks compute on processors, of which nobody tells clock and temperature"
                    .to_owned(),
                hint: "leave --soak out, or run on GPUs".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    fn check_number(
        &self,
        what: &'static str,
        flag: &str,
        (value, most): (u32, u32),
    ) -> Result<(), MeasureError> {
        if (1..=most).contains(&value) {
            return Ok(());
        }
        Err(MeasureError::Setting {
            what,
            value: value.to_string(),
            why: "no run can be like that".to_owned(),
            hint: format!("give {flag} a number from 1 to {most}"),
        })
    }
}

/// Micro-batches of one rank's step: each has its own operations in the schedule.
const MOST_MICRO_BATCHES: u32 = 4096;
/// Tokens of a sequence, and sequences of a micro-batch: more does not fit any memory.
const MOST_TOKENS: u32 = 1 << 20;
/// Steps: what a record's columns hold.
const MOST_STEPS: u32 = i32::MAX as u32;
