//! From errors to messages and exit codes.

use crate::exit_code;
use laggard_analyze::AnalyzeError;
use laggard_backend::BackendError;
use laggard_cuda::CudaError;
use laggard_import::ImportError;
use laggard_measure::MeasureError;
use laggard_mpi::MpiError;
use laggard_plan::{LossError, MeasuredError, NoLayout, NumberError, PlanError, PlanFileError};
use laggard_record::RecordError;
use laggard_schedule::LayoutError;
use laggard_simulate::SimulateError;
use laggard_specs::SpecsError;
use std::io;

/// An error of usage that clap cannot see.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A file that was named and is not what it must be.
#[derive(Debug)]
pub(crate) struct BadInput(pub(crate) String);

impl std::fmt::Display for BadInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadInput {}

/// Not all ranks of a launch have started.
#[derive(Debug)]
pub(crate) struct NotStarted;

impl std::fmt::Display for NotStarted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the run has not begun")
    }
}

impl std::error::Error for NotStarted {}

/// What all ranks of a launch find by themselves, of what they have told each other.
#[derive(Debug)]
pub(crate) struct Together(pub(crate) String);

impl std::fmt::Display for Together {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Together {}

/// Whether all ranks of a run know of an error: ranks that are gone, the failure of another, or
/// what they found when they compared what they have.
pub(crate) fn is_shared(error: &anyhow::Error) -> bool {
    is_echo(error)
        || error.is::<Together>()
        || error.chain().any(|cause| {
            let measured = cause.downcast_ref::<MeasureError>();
            // A setting that cannot be is that on all ranks.
            let is_known =
                |it: &MeasureError| it.is_of_others() || measure_code(it) == exit_code::USAGE;
            measured.is_some_and(is_known)
                || matches!(
                    cause.downcast_ref::<CudaError>(),
                    Some(CudaError::NcclVersions { .. } | CudaError::SharedGpu { .. })
                )
        })
}

/// Whether an error is only the echo of another rank's.
pub(crate) fn is_echo(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let inner = match (
            cause.downcast_ref::<CudaError>(),
            cause.downcast_ref::<MpiError>(),
        ) {
            (Some(CudaError::World(error)), _) | (_, Some(MpiError::World(error))) => Some(error),
            _ => cause.downcast_ref::<BackendError>(),
        };
        matches!(inner, Some(BackendError::Aborted { .. }))
    })
}

/// What went wrong, for the other ranks: the chain of causes on one line, without hints.
pub(crate) fn cause(error: &anyhow::Error) -> String {
    causes(error).0.join(": ")
}

/// The message: the chain of causes on one line, hints on lines of their own.
pub(crate) fn message(error: &anyhow::Error) -> String {
    let (text, mut hints) = causes(error);
    let mut message = format!("error: {}", text.join(": "));
    if !hints.iter().any(|hint| hint.starts_with("hint:")) {
        hints.push(last_hint(error).to_owned());
    }
    for hint in hints {
        message.push('\n');
        message.push_str(&hint);
    }
    message
}

/// The causes, and the lines that come after each.
fn causes(error: &anyhow::Error) -> (Vec<String>, Vec<String>) {
    let mut text: Vec<String> = Vec::new();
    let mut hints: Vec<String> = Vec::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        let mut lines = cause.lines();
        let first = lines.next().unwrap_or_default().to_owned();
        // A transparent error repeats its cause.
        if !text.iter().any(|known| known.contains(&first)) {
            text.push(first);
        }
        for line in lines.map(str::to_owned) {
            if !hints.contains(&line) {
                hints.push(line);
            }
        }
    }
    (text, hints)
}

/// The exit code of an error.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    // A context is no cause of its own.
    if error.is::<NotStarted>() || error.is::<Together>() {
        return exit_code::BACKEND;
    }
    for cause in error.chain() {
        if cause.is::<Usage>() {
            return exit_code::USAGE;
        }
        if is_of_prediction(cause) {
            let specs = cause
                .source()
                .and_then(|it| it.downcast_ref::<SpecsError>());
            return specs.map_or(exit_code::USAGE, specs_code);
        }
        if cause.is::<BadInput>() {
            return exit_code::BAD_INPUT;
        }
        if let Some(error) = cause.downcast_ref::<SpecsError>() {
            return specs_code(error);
        }
        if let Some(error) = cause.downcast_ref::<PlanFileError>() {
            return match error {
                PlanFileError::NoOption { .. } | PlanFileError::OtherRuns { .. } => {
                    exit_code::USAGE
                }
                _ => exit_code::BAD_INPUT,
            };
        }
        if let Some(error) = cause.downcast_ref::<RecordError>() {
            return record_code(error);
        }
        if let Some(error) = cause.downcast_ref::<MeasureError>() {
            return measure_code(error);
        }
        if cause.is::<MpiError>() || cause.is::<BackendError>() || cause.is::<CudaError>() {
            return exit_code::BACKEND;
        }
        if cause.is::<AnalyzeError>() || cause.is::<ImportError>() {
            let record = cause
                .source()
                .and_then(|source| source.downcast_ref::<RecordError>());
            return record.map_or(exit_code::BAD_INPUT, record_code);
        }
        if cause.is::<io::Error>() {
            return exit_code::OUTPUT;
        }
    }
    exit_code::INTERNAL
}

/// Whether an error says that what was asked for cannot be predicted.
fn is_of_prediction(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<NoLayout>()
        || cause.is::<LayoutError>()
        || cause.is::<SimulateError>()
        || cause.is::<PlanError>()
        || cause.is::<MeasuredError>()
        || cause.is::<LossError>()
        || cause.is::<NumberError>()
}

/// What to try where the error itself does not say.
fn last_hint(error: &anyhow::Error) -> &'static str {
    match code(error) {
        exit_code::USAGE => "hint: `laggard --help` and `laggard COMMAND --help` say what fits",
        exit_code::BAD_INPUT if error.chain().any(|cause| cause.is::<ImportError>()) => {
            "hint: export the trace again with the tool that made it"
        }
        exit_code::BAD_INPUT if error.chain().any(|cause| cause.is::<SpecsError>()) => {
            "hint: `laggard specs show NAME` prints entries and files that are as they must be"
        }
        exit_code::BAD_INPUT if error.chain().any(|cause| cause.is::<RecordError>()) => {
            "hint: restore the file from a copy, or record the run again"
        }
        exit_code::BAD_INPUT => "hint: mend the file where it is said to be wrong",
        exit_code::BACKEND => "hint: `laggard doctor` shows what this machine offers",
        exit_code::OUTPUT => "hint: see whether the place can be written to and has space left",
        _ => "hint: this is a defect of laggard; report it with the command line and `-vv`",
    }
}

fn record_code(error: &RecordError) -> u8 {
    match error {
        RecordError::AlreadyARecord { .. } | RecordError::ForeignDirectory { .. } => {
            exit_code::USAGE
        }
        RecordError::Io { action, .. } if *action != "read" && *action != "open" => {
            exit_code::OUTPUT
        }
        RecordError::Deadline { .. } | RecordError::WriterGone { .. } => exit_code::OUTPUT,
        _ => exit_code::BAD_INPUT,
    }
}

fn specs_code(error: &SpecsError) -> u8 {
    match error {
        SpecsError::Parse { .. }
        | SpecsError::Invalid { .. }
        | SpecsError::DuplicateName { .. }
        | SpecsError::Rows { .. }
        | SpecsError::MissingColumns { .. }
        | SpecsError::DuplicateColumn { .. }
        | SpecsError::Cell { .. }
        | SpecsError::Cluster { .. } => exit_code::BAD_INPUT,
        _ => exit_code::USAGE,
    }
}

fn measure_code(error: &MeasureError) -> u8 {
    match error {
        MeasureError::Setting { .. }
        | MeasureError::Fault { .. }
        | MeasureError::Classes { .. }
        | MeasureError::Specs(_)
        | MeasureError::Layout(_)
        | MeasureError::Unsupported { .. } => exit_code::USAGE,
        MeasureError::Record(error) => record_code(error),
        _ => exit_code::BACKEND,
    }
}
