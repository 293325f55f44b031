//! The command line.

use crate::kind::{KINDS, Row};
use crate::world::groups;
use anyhow::{Context, Result, anyhow, bail};
use std::path::PathBuf;
use std::str::FromStr;

/// What the command line asks for.
pub(crate) struct Options {
    /// Groups of layouts.
    pub groups: Vec<&'static str>,
    /// Of each kind in each group.
    pub trials: u32,
    /// Of each group.
    pub clean: u32,
    /// Most trials in all.
    pub at_most: Option<usize>,
    pub seed: u64,
    only: Option<String>,
    pub csv: Option<PathBuf>,
    pub require: Require,
}

/// What the result must be, as shares.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Require {
    pub lower: Option<f64>,
    pub upper: Option<f64>,
}

impl Options {
    pub(crate) fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            groups: groups(),
            trials: 8,
            clean: 30,
            at_most: None,
            seed: 1,
            only: None,
            csv: None,
            require: Require::default(),
        };
        while let Some(name) = arguments.next() {
            let value = arguments
                .next()
                .ok_or_else(|| anyhow!("{name} needs a value"))?;
            match name.as_str() {
                "--layouts" => options.groups = chosen(&value)?,
                "--at-most" => options.at_most = Some(number(&name, &value)?),
                "--trials" => options.trials = number(&name, &value)?,
                "--clean" => options.clean = number(&name, &value)?,
                "--seed" => options.seed = number(&name, &value)?,
                "--only" => options.only = Some(value),
                "--csv" => options.csv = Some(value.into()),
                "--require-lower" => options.require.lower = Some(number(&name, &value)?),
                "--require-upper" => options.require.upper = Some(number(&name, &value)?),
                _ => bail!("unknown option {name}"),
            }
        }
        if let Some(only) = &options.only
            && !KINDS.iter().any(|row| row.name == only)
        {
            let known = KINDS.map(|row| row.name).join(", ");
            bail!("unknown kind {only}\nhint: known kinds: {known}");
        }
        if options.clean == 0 && options.trials == 0 {
            bail!("nothing to do\nhint: give --trials or --clean a positive number");
        }
        Ok(options)
    }

    /// Whether a kind is asked for.
    pub(crate) fn wants(&self, row: &Row) -> bool {
        self.only.as_ref().is_none_or(|only| row.name == only)
    }
}

/// Groups by their names.
fn chosen(text: &str) -> Result<Vec<&'static str>> {
    let known = groups();
    let find = |name: &str| {
        let place = known.iter().position(|group| *group == name);
        let hint = || format!("unknown layouts {name}\nhint: known: {}", known.join(", "));
        place.map(|place| known[place]).with_context(hint)
    };
    text.split(',').map(find).collect()
}

fn number<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    name: &str,
    value: &str,
) -> Result<T> {
    value.parse().with_context(|| format!("{name} {value}"))
}
