//! A file of training jobs that want the same cluster.

use laggard_specs::{Model, Tables};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::ops::Range;
use thiserror::Error;
use toml::Spanned;

use crate::file::{JOB_NAMES, is_job_name, label};

/// Most jobs of a file.
const MOST_JOBS: usize = 16;

/// A job of the file, with what it leaves to others absent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WantedJob<'t> {
    /// The model.
    pub model: &'t Model,
    /// Tokens to train on.
    pub tokens: Option<f64>,
    /// Most tokens of a step.
    pub batch_tokens: Option<u64>,
    /// Tokens of a sequence.
    pub sequence_length: Option<u32>,
    /// Days in which it must have its tokens.
    pub deadline_days: Option<f64>,
    /// What a FLOP of it is worth beside those of other jobs.
    pub weight: f64,
    /// Fewest devices that it may have.
    pub fewest_devices: u64,
}

/// Why a file of jobs was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JobsError {
    /// Text that is no such file.
    #[error("cannot read the jobs: {source}")]
    Parse {
        /// What the TOML reader says, with line and column.
        source: Box<toml::de::Error>,
    },
    /// A value that cannot be.
    #[error("jobs, line {line}, column {column}: {key}: {problem}")]
    Wrong {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// The key.
        key: &'static str,
        /// What is wrong with its value, perhaps with a `hint:` line.
        problem: String,
    },
    /// No job, or too many.
    #[error("{count} jobs, but there must be from 1 to {most}\nhint: begin each with [[job]]")]
    Count {
        /// Jobs of the file.
        count: usize,
        /// Most that there can be.
        most: usize,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "job")]
    jobs: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Option<Spanned<String>>,
    model: Spanned<String>,
    tokens: Option<Spanned<f64>>,
    batch_tokens: Option<Spanned<f64>>,
    sequence_length: Option<Spanned<u32>>,
    deadline_days: Option<Spanned<f64>>,
    weight: Option<Spanned<f64>>,
    #[serde(default)]
    fewest_devices: u64,
}

/// The jobs of a file with their names: what they are called, or their models.
///
/// ```toml
/// [[job]]
/// model = "llama3.1-405b"   # as in laggard's tables
/// tokens = 15.6e12          # 20 for each parameter where nothing is said
/// deadline_days = 120
/// batch_tokens = 16777216   # most of a step
/// fewest_devices = 4096
///
/// [[job]]
/// name = "small"
/// model = "llama3-70b"
/// weight = 2.0              # a FLOP of it is worth twice as much
/// ```
///
/// # Errors
/// Text that is no such file, a model that is in no table, or a number that cannot be: with line
/// and column.
pub fn read_jobs<'t>(
    text: &str,
    tables: &'t Tables,
) -> Result<Vec<(String, WantedJob<'t>)>, JobsError> {
    let file: File = toml::from_str(text).map_err(|source| JobsError::Parse {
        source: Box::new(source),
    })?;
    let count = file.jobs.len();
    if !(1..=MOST_JOBS).contains(&count) {
        let most = MOST_JOBS;
        return Err(JobsError::Count { count, most });
    }
    let mut names = BTreeSet::new();
    let mut jobs = Vec::new();
    for entry in &file.jobs {
        let name = entry.name.as_ref().unwrap_or(&entry.model);
        if !is_job_name(name.as_ref()) {
            let problem = format!("a job's name {JOB_NAMES}\nhint: give it such a name");
            return Err(wrong(text, name.span(), "name", problem));
        }
        // Schedulers tell names apart by less than files do.
        if !names.insert(label(name.as_ref())) {
            let problem = format!(
                "two jobs are called {}, or nearly so\nhint: give each a name",
                name.as_ref()
            );
            return Err(wrong(text, name.span(), "name", problem));
        }
        jobs.push((name.as_ref().clone(), job(entry, text, tables)?));
    }
    Ok(jobs)
}

fn job<'t>(entry: &Entry, text: &str, tables: &'t Tables) -> Result<WantedJob<'t>, JobsError> {
    let model = tables.model(entry.model.as_ref());
    let model =
        model.map_err(|error| wrong(text, entry.model.span(), "model", error.to_string()))?;
    let positive = |key: &'static str, value: &Option<Spanned<f64>>| {
        let Some(value) = value else { return Ok(None) };
        let number = *value.as_ref();
        match number > 0.0 && number.is_finite() {
            true => Ok(Some(number)),
            false => {
                let problem = format!("is {number}, but must be above zero and finite");
                Err(wrong(text, value.span(), key, problem))
            }
        }
    };
    if let Some(length) = entry
        .sequence_length
        .as_ref()
        .filter(|it| *it.as_ref() == 0)
    {
        let problem = "must be above zero".to_owned();
        return Err(wrong(text, length.span(), "sequence_length", problem));
    }
    let batch_tokens = positive("batch_tokens", &entry.batch_tokens)?;
    if let (Some(batch), Some(at)) = (batch_tokens, &entry.batch_tokens)
        && !(batch.fract() == 0.0 && batch <= u64::MAX as f64)
    {
        let problem = format!("is {batch}, but must be a whole number of tokens");
        return Err(wrong(text, at.span(), "batch_tokens", problem));
    }
    Ok(WantedJob {
        model,
        tokens: positive("tokens", &entry.tokens)?,
        batch_tokens: batch_tokens.map(|it| it as u64),
        sequence_length: entry.sequence_length.as_ref().map(|it| *it.as_ref()),
        deadline_days: positive("deadline_days", &entry.deadline_days)?,
        weight: positive("weight", &entry.weight)?.unwrap_or(1.0),
        fewest_devices: entry.fewest_devices,
    })
}

fn wrong(text: &str, span: Range<usize>, key: &'static str, problem: String) -> JobsError {
    let before = &text[..span.start.min(text.len())];
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    JobsError::Wrong {
        line: before.matches('\n').count() + 1,
        column: before[start..].chars().count() + 1,
        key,
        problem,
    }
}

#[cfg(test)]
mod tests;
