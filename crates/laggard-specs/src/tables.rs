//! The tables together: built in, or from text that replaces them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::accelerator::Accelerator;
use crate::error::SpecsError;
use crate::model::Model;
use crate::names::Names;
use crate::training_rate::{self, ClassRate, RateBasis, RateSet};

const ACCELERATORS: &str = include_str!("../data/accelerators.toml");
const MODELS: &str = include_str!("../data/models.toml");
const TRAINING_RATES: &str = include_str!("../data/training_rates.toml");

/// Accelerators, models and training rates, each found by exact name.
#[derive(Debug, Clone)]
pub struct Tables {
    accelerators: Vec<Accelerator>,
    accelerator_names: Names,
    models: Vec<Model>,
    model_names: Names,
    rate_sets: Vec<RateSet>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AcceleratorTable {
    #[serde(rename = "accelerator", default)]
    accelerators: Vec<Accelerator>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelTable {
    #[serde(rename = "model", default)]
    models: Vec<Model>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateTable {
    #[serde(rename = "set", default)]
    sets: Vec<RateSet>,
}

impl Tables {
    /// The tables that laggard ships.
    ///
    /// # Errors
    /// None in a released laggard: its tests load them.
    pub fn builtin() -> Result<Self, SpecsError> {
        Self::from_toml_strs(None, None, None)
    }

    /// Tables from TOML text; `None` keeps the built-in table.
    ///
    /// # Errors
    /// Text that is not such a table, an impossible value, a name that two entries claim, or a
    /// rate of an accelerator that is in no table.
    pub fn from_toml_strs(
        accelerators: Option<&str>,
        models: Option<&str>,
        training_rates: Option<&str>,
    ) -> Result<Self, SpecsError> {
        let rates = training_rates.unwrap_or(TRAINING_RATES);
        Self::of(
            accelerators_of(accelerators.unwrap_or(ACCELERATORS))?,
            models_of(models.unwrap_or(MODELS))?,
            parse::<RateTable>("training_rates", rates)?.sets,
        )
    }

    /// The tables that laggard ships, with a user's own entries before them; these replace built-in
    /// entries of the same id.
    ///
    /// # Errors
    /// As [`Self::from_toml_strs`].
    pub fn extended(accelerators: Option<&str>, models: Option<&str>) -> Result<Self, SpecsError> {
        let builtin = Self::builtin()?;
        let mut own_accelerators = accelerators_of(accelerators.unwrap_or_default())?;
        let mut own_models = models_of(models.unwrap_or_default())?;
        let replaced = |id: &str| own_accelerators.iter().any(|own| own.id == id);
        let kept = builtin.accelerators.into_iter();
        let kept: Vec<_> = kept.filter(|entry| !replaced(&entry.id)).collect();
        own_accelerators.extend(kept);
        let replaced = |id: &str| own_models.iter().any(|own| own.id == id);
        let kept = builtin.models.into_iter();
        let kept: Vec<_> = kept.filter(|entry| !replaced(&entry.id)).collect();
        own_models.extend(kept);
        Self::of(own_accelerators, own_models, builtin.rate_sets)
    }

    fn of(
        accelerators: Vec<Accelerator>,
        models: Vec<Model>,
        rate_sets: Vec<RateSet>,
    ) -> Result<Self, SpecsError> {
        let mut accelerator_names = Names::new("accelerator");
        for accelerator in &accelerators {
            accelerator.check()?;
            let others = std::iter::once(&accelerator.product).chain(&accelerator.aliases);
            accelerator_names.add(&accelerator.id, others.map(String::as_str))?;
        }
        let mut model_names = Names::new("model");
        for model in &models {
            model.check()?;
            let others = std::iter::once(&model.name).chain(&model.aliases);
            model_names.add(&model.id, others.map(String::as_str))?;
        }
        for set in &rate_sets {
            set.check()?;
        }
        Ok(Self {
            accelerators,
            accelerator_names,
            models,
            model_names,
            rate_sets,
        })
    }

    /// Every accelerator, in the order of the table.
    #[must_use]
    pub fn accelerators(&self) -> &[Accelerator] {
        &self.accelerators
    }

    /// Every model, in the order of the table.
    #[must_use]
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// Every set of measured training rates, in the order of the table.
    #[must_use]
    pub fn rate_sets(&self) -> &[RateSet] {
        &self.rate_sets
    }

    /// The accelerator with exactly this id, product name or alias, in any ASCII case.
    ///
    /// # Errors
    /// No such name; the error lists close ones.
    pub fn accelerator(&self, name: &str) -> Result<&Accelerator, SpecsError> {
        Ok(&self.accelerators[self.accelerator_names.find(name)?])
    }

    /// The model with exactly this id, name or alias, in any ASCII case.
    ///
    /// # Errors
    /// No such name; the error lists close ones.
    pub fn model(&self, name: &str) -> Result<&Model, SpecsError> {
        Ok(&self.models[self.model_names.find(name)?])
    }

    /// Training rates of accelerator classes relative to the fastest of them, in the order given.
    ///
    /// Measured rates come from one set, the first of the table that holds all the classes:
    /// ratios across sets would compare workloads, not accelerators.
    ///
    /// # Errors
    /// No classes, an unknown name, classes that no set holds together, or an unknown peak.
    pub fn class_rates(
        &self,
        classes: &[&str],
        basis: RateBasis,
    ) -> Result<Vec<ClassRate>, SpecsError> {
        if classes.is_empty() {
            return Err(SpecsError::NoClasses);
        }
        let classes: Vec<&Accelerator> = classes
            .iter()
            .map(|name| self.accelerator(name))
            .collect::<Result<_, _>>()?;
        match basis {
            RateBasis::Measured => training_rate::measured(&self.rate_sets, &classes),
            RateBasis::Peak => training_rate::by_peak(&classes),
        }
    }
}

fn accelerators_of(text: &str) -> Result<Vec<Accelerator>, SpecsError> {
    parse::<AcceleratorTable>("accelerators", text).map(|table| table.accelerators)
}

fn models_of(text: &str) -> Result<Vec<Model>, SpecsError> {
    parse::<ModelTable>("models", text).map(|table| table.models)
}

pub(crate) fn parse<T: for<'de> Deserialize<'de>>(
    table: &'static str,
    text: &str,
) -> Result<T, SpecsError> {
    toml::from_str(text).map_err(|source| SpecsError::Parse {
        table,
        source: Box::new(source),
    })
}

/// One entry of a table, with its header.
pub(crate) fn entry(table: &'static str, value: &impl Serialize) -> Result<String, SpecsError> {
    let text = toml::to_string(&BTreeMap::from([(table, [value])]));
    text.map_err(|source| SpecsError::Write { table, source })
}

#[cfg(test)]
mod tests;
