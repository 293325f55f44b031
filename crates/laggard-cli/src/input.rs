//! Files that a user names on the command line, read whole.

use crate::args::TableArgs;
use crate::failure::BadInput;
use anyhow::{Context, Result};
use laggard_specs::{Cluster, Pool, Tables};
use std::path::{Path, PathBuf};

/// The text of a file that was named with a flag.
pub(crate) fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        let hint = "hint: give the name of a text file that can be read";
        BadInput(format!("cannot read {}: {error}\n{hint}", path.display())).into()
    })
}

/// The tables with a user's own entries.
pub(crate) fn tables(args: &TableArgs) -> Result<Tables> {
    let read = |path: &Option<PathBuf>| path.as_deref().map(text).transpose();
    let (accelerators, models) = (read(&args.accelerators)?, read(&args.models)?);
    let named = [&args.accelerators, &args.models].into_iter().flatten();
    let named: Vec<String> = named.map(|path| path.display().to_string()).collect();
    let tables = Tables::extended(accelerators.as_deref(), models.as_deref());
    tables.with_context(|| format!("cannot use {}", named.join(" and ")))
}

/// A cluster that laggard knows, or that a file describes.
pub(crate) fn cluster(name: &str, tables: &Tables) -> Result<Cluster> {
    let path = Path::new(name);
    let is_file = path.extension().is_some() || path.is_file();
    match is_file {
        true => Cluster::from_toml_str(&text(path)?, tables)
            .with_context(|| format!("cannot use {name}")),
        false => Ok(Cluster::preset(name, tables)?),
    }
}

/// Whether a pool is of a class that a record names: by its own name, or its accelerator's.
pub(crate) fn is_of_class(pool: &Pool, class: &str, tables: &Tables) -> bool {
    let same = |id: &str| pool.accelerator == id;
    pool.id == class || same(class) || tables.accelerator(class).is_ok_and(|it| same(&it.id))
}
