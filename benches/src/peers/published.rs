//! What was published of training on mixed GPUs, row by row, with what laggard predicts of it, or
//! why it predicts nothing.
//!
//! Rows of kind `hetero` are those of the published table, with their sources. HexiScale publishes
//! neither sequence, batch nor network: its rows are planned under stated assumptions and bracket a
//! number, they do not test the cost model.

use anyhow::{Context, Result, bail};
use laggard_plan::money::Prices;
use laggard_plan::{Kind, Known, PlanOption, Problem, Terms, Training, options};
use laggard_simulate::{Constants, Frameworks, Precision, Surroundings};
use laggard_specs::{Cluster, PublishedRow, RowKind, Tables};
use laggard_types::Seconds;

/// Tokens of a sequence and of a step where a source says neither: Llama 2's context, and 256 of
/// them.
const SEQUENCE: u32 = 4096;
const STEP_SEQUENCES: u64 = 256;
/// Gigabits a second of a host's network where a source says no more than that it is TCP.
pub const NETWORKS: [f64; 2] = [10.0, 100.0];
/// GPUs of a host.
const HOST: u64 = 8;
/// Names of GPUs in layouts, and of laggard's tables.
const NAMES: [(&str, &str); 5] = [
    ("3080Ti", "rtx-3080-ti"),
    ("3090", "rtx-3090"),
    ("4090", "rtx-4090"),
    ("A100-80", "a100-pcie-80gb"),
    ("a100-pcie-80gb", "a100-pcie-80gb"),
];

/// What is said of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// MFU, per cent: published, and predicted with the slower and the faster network.
    Between {
        /// What was measured.
        published: f64,
        /// What is predicted.
        predicted: [f64; 2],
    },
    /// Nothing, with the reason.
    Nothing(&'static str),
}

/// Whether a row is one of mixed GPUs, or of HexiScale's homogeneous references.
#[must_use]
pub fn belongs(row: &PublishedRow) -> bool {
    row.kind == RowKind::Hetero || row.row_id.starts_with("HEXISCALE")
}

/// What laggard says of a row.
///
/// # Errors
/// A row of another shape, or a prediction that fails.
pub fn said(row: &PublishedRow) -> Result<Said> {
    if row.row_id.starts_with("SAILOR") {
        return Ok(Said::Nothing(
            "see `plan_peers mixed`: predicted from profiles",
        ));
    }
    let Some(published) = row.mfu_pct else {
        return Ok(Said::Nothing("the GPUs of each kind are not published"));
    };
    let counts = match &row.stage_layout {
        Some(layout) => layout
            .split('+')
            .map(count_of)
            .collect::<Result<Vec<_>>>()?,
        None => {
            let name = row.accelerator_id.as_deref().context("no accelerator")?;
            vec![(row.gpus.context("no number of GPUs")?, table_name(name)?)]
        }
    };
    let tables = Tables::builtin()?;
    let model = match row.model.as_str() {
        "Llama-2 7B" => "llama2-7b",
        "Llama-2 13B" => "llama2-13b",
        _ => return Ok(Said::Nothing("the model is in no table")),
    };
    let mut predicted = [0.0; 2];
    for (share, gigabits) in predicted.iter_mut().zip(NETWORKS) {
        *share = 100.0 * best_mfu(&tables, model, &counts, gigabits)?;
    }
    Ok(Said::Between {
        published,
        predicted,
    })
}

/// `8x3090` as a number and the table's name.
fn count_of(text: &str) -> Result<(u64, &'static str)> {
    let (count, name) = text.split_once('x').context("a layout of another shape")?;
    Ok((count.parse()?, table_name(name)?))
}

fn table_name(name: &str) -> Result<&'static str> {
    match NAMES.iter().find(|(published, _)| *published == name) {
        Some((_, id)) => Ok(id),
        None => bail!("no GPU is called {name}"),
    }
}

/// MFU of the best single job on all of them.
fn best_mfu(
    tables: &Tables,
    model: &str,
    counts: &[(u64, &'static str)],
    gigabits: f64,
) -> Result<f64> {
    let mut text = "id = \"mixed\"\n[[site]]\nid = \"here\"\n".to_owned();
    let each = gigabits * 1e9 / 8.0 / HOST as f64;
    for (count, name) in counts {
        text += &format!(
            "[[pool]]\nid = \"{name}\"\nsite = \"here\"\naccelerator = \"{name}\"\n\
             count = {count}\ndevices_per_node = {HOST}\n\
             network_bytes_per_s_per_device = {each:e}\n"
        );
    }
    let (constants, prices) = (Constants::builtin()?, Prices::builtin()?);
    let frameworks = Frameworks::builtin()?;
    let known = Known {
        tables,
        prices: &prices,
        constants: &constants,
    };
    let training = Training {
        model: tables.model(model)?,
        tokens: 1e12,
        batch_tokens: STEP_SEQUENCES * u64::from(SEQUENCE),
        sequence_length: SEQUENCE,
        precision: Precision::Half,
        software: frameworks
            .named("megatron-lm")
            .context("no framework")?
            .software,
        around: Surroundings::new(Seconds(30.0), Seconds(600.0))?,
    };
    let cluster = Cluster::from_toml_str(&text, tables)?;
    let problem = Problem::new(&cluster, training, &Terms::default(), &known)?;
    let one_job = [Kind::EqualShares, Kind::UnevenShares, Kind::UnevenStages];
    let found = options(&problem)?.list;
    let is_one = |option: &&PlanOption| one_job.contains(&option.kind);
    let shares = found.iter().filter(is_one).map(|option| option.figures.mfu);
    Ok(shares.fold(0.0, f64::max))
}
