//! Problems that other planners were tried on, and steps that they measured on mixed clusters.
//!
//! What was measured of each layer on each class is read from the profiles that Sailor ships
//! (`$LAGGARD_TRACES/sailor`); sizes of layers, rates of links and measured steps are in the tables
//! beside this file, each with its source.

pub mod amp;
pub mod errors;
pub mod links;
pub mod mixed;
pub mod problems;
pub mod profiles;
pub mod published;
pub mod sailor;

/// The rows of a table, split at commas: without comments and the line of names.
fn rows(table: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    lines.skip(1).map(|line| line.split(',').collect())
}

#[cfg(test)]
mod tests;
