//! Errors of this crate.

use thiserror::Error;

/// Why a table or a name was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpecsError {
    /// A table is not the TOML that it should be.
    #[error("cannot read the {table} table: {source}")]
    Parse {
        /// Which table.
        table: &'static str,
        /// What the TOML reader says, with line and column.
        source: Box<toml::de::Error>,
    },
    /// An entry cannot be written as TOML.
    #[error("cannot write the {table}: {source}")]
    Write {
        /// Which table.
        table: &'static str,
        /// What the TOML writer says.
        source: toml::ser::Error,
    },
    /// A value of a table is impossible.
    #[error("{table} table, entry '{id}': {field} {problem}")]
    Invalid {
        /// Which table.
        table: &'static str,
        /// The entry's id.
        id: String,
        /// The key of the value.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Two entries of a table claim one name.
    #[error("{table} table: '{first}' and '{second}' are both called '{name}'")]
    DuplicateName {
        /// Which table.
        table: &'static str,
        /// The shared name.
        name: String,
        /// The entry that has it.
        first: String,
        /// The entry that also claims it.
        second: String,
    },
    /// No entry has this id, name or alias.
    #[error("unknown {kind} '{name}'\n{hint}")]
    UnknownName {
        /// Accelerator or model.
        kind: &'static str,
        /// The name that was asked for.
        name: String,
        /// A `hint:` line with close names.
        hint: String,
    },
    /// No measured set compares all of these accelerators.
    #[error(
        "no measured training rates compare {}\n\
         hint: use the ratio of the dense peaks, or add a set to the training_rates table",
        .ids.join(", ")
    )]
    NoMeasuredRates {
        /// The accelerators that no one set holds together.
        ids: Vec<String>,
    },
    /// An accelerator without the peak that a ratio needs.
    #[error(
        "the dense bf16 peak of {id} is unknown\n\
         hint: add dense_bf16_flop_per_s to its entry in the accelerators table"
    )]
    NoPeak {
        /// The accelerator.
        id: String,
    },
    /// A CSV text that cannot be taken apart.
    #[error("cannot read the rows: {source}\nhint: rows are CSV with one header line")]
    Rows {
        /// What the CSV reader says, with the line.
        source: Box<csv::Error>,
    },
    /// Rows without columns that are needed.
    #[error(
        "the rows have no column {}\n\
         hint: the first line names the columns; `laggard specs show published-training` prints \
         rows with all of them",
        .missing.join(", ")
    )]
    MissingColumns {
        /// The columns that are missing.
        missing: Vec<&'static str>,
    },
    /// Two columns of one name.
    #[error("the rows have two columns '{column}'\nhint: remove or rename one of them")]
    DuplicateColumn {
        /// The name.
        column: String,
    },
    /// A cell that is not what its column holds.
    #[error(
        "line {line}, column {column}: '{value}' {problem}\n\
         hint: leave a cell empty where the value is unknown"
    )]
    Cell {
        /// Line of the file, from 1.
        line: u64,
        /// Name of the column.
        column: &'static str,
        /// What stands in the cell.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A value of a cluster file that cannot be.
    #[error("cluster file, line {line}, column {column}: {key}: {problem}")]
    Cluster {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// The key.
        key: &'static str,
        /// What is wrong with its value, perhaps with a `hint:` line.
        problem: String,
    },
    /// A step that cannot have been.
    #[error("{what} {problem}")]
    Step {
        /// The number.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A layout that the model cannot have.
    #[error("{what} {problem}\nhint: choose a layout that divides the model")]
    Layout {
        /// The dimension.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A comparison of no classes.
    #[error("no accelerator classes to compare")]
    NoClasses,
}
