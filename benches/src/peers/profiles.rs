//! What was measured of each layer of OPT-350M on each class, and how large its layers are.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::rows;

const SIZES: &str = include_str!("opt350_layers.csv");
/// Layers that are placed: the embedding, 24 layers, and the head.
pub const LAYERS: usize = 26;
/// Bytes of a value: the profiles are of single precision.
pub const VALUE_BYTES: f64 = 4.0;

/// Seconds of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerSeconds {
    /// Forward and backward of a micro-batch.
    pub compute: f64,
    /// The update of its parameters.
    pub update: f64,
}

/// Times of all layers on a class, by sequences of a micro-batch and width of tensor parallelism.
#[derive(Debug, Clone, Default)]
pub struct Profile(pub BTreeMap<(u32, u32), Vec<LayerSeconds>>);

/// The directory of the profiles of OPT-350M, where `LAGGARD_TRACES` names one that has it.
#[must_use]
pub fn directory() -> Option<PathBuf> {
    let traces = std::env::var_os("LAGGARD_TRACES").map(PathBuf::from)?;
    Some(traces.join("sailor/sailor/Planner/sailor_planner/profiles/OPT-350"))
}

impl Profile {
    /// Reads the profile of a class.
    ///
    /// # Errors
    /// A file that cannot be read, or is no profile.
    pub fn read(directory: &Path, class: &str) -> Result<Self> {
        let path = directory.join(class).join("profile.json");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let profile: Value = serde_json::from_str(&text)?;
        let mut times = BTreeMap::new();
        for (micro_batch, widths) in members(&profile)? {
            for (width, layers) in members(widths)? {
                let mut of_layer = BTreeMap::new();
                for (layer, seconds) in members(layers)? {
                    of_layer.insert(layer, layer_seconds(seconds)?);
                }
                ensure!(of_layer.len() == LAYERS, "{}: layers", path.display());
                times.insert((micro_batch, width), of_layer.into_values().collect());
            }
        }
        Ok(Self(times))
    }

    /// The layers for a micro-batch and a width.
    ///
    /// # Errors
    /// Where they were not measured.
    pub fn layers(&self, micro_batch: u32, width: u32) -> Result<&[LayerSeconds]> {
        let found = self.0.get(&(micro_batch, width));
        found
            .map(Vec::as_slice)
            .with_context(|| format!("no profile of {micro_batch} sequences on {width} devices"))
    }
}

fn members(value: &Value) -> Result<Vec<(u32, &Value)>> {
    let object = value.as_object().context("an object")?;
    let numbered = object.iter().map(|(key, value)| Ok((key.parse()?, value)));
    numbered.collect()
}

fn layer_seconds(value: &Value) -> Result<LayerSeconds> {
    let number = |at: usize| value.get(at).and_then(Value::as_f64).context("a time");
    Ok(LayerSeconds {
        compute: number(0)? + number(1)?,
        update: number(2)?,
    })
}

/// How large layers are on a rank.
#[derive(Debug, Clone)]
pub struct Sizes {
    /// Parameters of each layer, by width.
    pub parameters: BTreeMap<u32, Vec<f64>>,
    /// Values that each keeps of a sequence for backward, by width.
    pub kept: BTreeMap<u32, Vec<f64>>,
}

impl Sizes {
    /// Those of OPT-350M.
    ///
    /// # Errors
    /// A row that cannot be read.
    pub fn of_opt350() -> Result<Self> {
        let (mut parameters, mut kept) = (BTreeMap::new(), BTreeMap::new());
        for row in rows(SIZES) {
            let number = |at: usize| row[at].parse::<f64>().with_context(|| format!("{row:?}"));
            let (width, first, last) = (row[0].parse()?, number(1)?, number(2)?);
            for _ in first as usize..=last as usize {
                let add = |table: &mut BTreeMap<u32, Vec<f64>>, value| {
                    table.entry(width).or_default().push(value);
                };
                add(&mut parameters, number(3)?);
                add(&mut kept, number(4)?);
            }
        }
        let complete =
            |table: &BTreeMap<u32, Vec<f64>>| table.values().all(|it| it.len() == LAYERS);
        ensure!(complete(&parameters), "layers of OPT-350M are missing");
        Ok(Self { parameters, kept })
    }
}

/// Values that a sequence has between two layers; the head gives more.
#[must_use]
pub fn output_values(layer: usize) -> f64 {
    // 2,048 tokens, 1,024 wide; the head's logits and loss. Source: as the sizes of layers.
    match layer + 1 == LAYERS {
        true => 103_022_593.0,
        false => 2_097_152.0,
    }
}
