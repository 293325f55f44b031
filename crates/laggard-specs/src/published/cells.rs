//! The cells of a row by the names of their columns. An empty cell is `None`.

use std::collections::BTreeMap;
use std::str::FromStr;

use csv::StringRecord;

use super::RowKind;
use crate::accelerator::Confidence;
use crate::error::SpecsError;

/// Columns without which a row says nothing.
const REQUIRED: [&str; 6] = [
    "row_id",
    "kind",
    "model",
    "accelerator_id",
    "gpus",
    "seq_len",
];

/// Where each column stands.
pub(super) struct Columns(BTreeMap<String, usize>);

impl Columns {
    pub(super) fn of(header: &StringRecord) -> Result<Self, SpecsError> {
        let mut columns = BTreeMap::new();
        for (at, name) in header.iter().enumerate() {
            // Spreadsheets begin a file with a byte order mark.
            let name = name.trim_start_matches('\u{feff}').trim().to_owned();
            if columns.insert(name.clone(), at).is_some() && !name.is_empty() {
                return Err(SpecsError::DuplicateColumn { column: name });
            }
        }
        let missing: Vec<&str> = REQUIRED
            .into_iter()
            .filter(|name| !columns.contains_key(*name))
            .collect();
        if missing.is_empty() {
            Ok(Self(columns))
        } else {
            Err(SpecsError::MissingColumns { missing })
        }
    }
}

/// One row.
pub(super) struct Cells<'a> {
    columns: &'a Columns,
    record: &'a StringRecord,
}

impl<'a> Cells<'a> {
    pub(super) fn new(columns: &'a Columns, record: &'a StringRecord) -> Self {
        Self { columns, record }
    }

    /// The error that this row's cell is not what it must be.
    pub(super) fn wrong(&self, column: &'static str, problem: &'static str) -> SpecsError {
        SpecsError::Cell {
            line: self.record.position().map_or(0, csv::Position::line),
            column,
            value: self.cell(column).unwrap_or_default().to_owned(),
            problem,
        }
    }

    fn cell(&self, column: &str) -> Option<&'a str> {
        let cell = self.record.get(*self.columns.0.get(column)?)?.trim();
        (!cell.is_empty()).then_some(cell)
    }

    fn parsed<T>(
        &self,
        column: &'static str,
        problem: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, SpecsError> {
        match self.cell(column) {
            None => Ok(None),
            Some(cell) => match parse(cell) {
                Some(value) => Ok(Some(value)),
                None => Err(self.wrong(column, problem)),
            },
        }
    }

    pub(super) fn required(&self, column: &'static str) -> Result<String, SpecsError> {
        let cell = self.text(column);
        cell.ok_or_else(|| self.wrong(column, "is empty"))
    }

    pub(super) fn text(&self, column: &str) -> Option<String> {
        self.cell(column).map(str::to_owned)
    }

    pub(super) fn words(&self, column: &str) -> Vec<String> {
        let words = self.cell(column).unwrap_or_default().split_whitespace();
        words.map(str::to_owned).collect()
    }

    pub(super) fn count(&self, column: &'static str) -> Result<Option<u64>, SpecsError> {
        self.parsed(column, "is no whole number above 0", |cell| {
            // Spreadsheets and data frames write whole numbers with a point where cells are empty.
            let whole = cell.strip_suffix(".0").unwrap_or(cell);
            u64::from_str(whole).ok().filter(|&count| count > 0)
        })
    }

    /// A count of virtual stages, where sources write 0 for "not interleaved".
    pub(super) fn stages(&self, column: &'static str) -> Result<Option<u64>, SpecsError> {
        self.parsed(column, "is no whole number", |cell| {
            let whole = cell.strip_suffix(".0").unwrap_or(cell);
            u64::from_str(whole).ok().map(|count| count.max(1))
        })
    }

    pub(super) fn number(&self, column: &'static str) -> Result<Option<f64>, SpecsError> {
        self.parsed(column, "is no finite number above 0", |cell| {
            let number = f64::from_str(cell).ok();
            number.filter(|&number| number > 0.0 && number.is_finite())
        })
    }

    /// A number of any sign.
    pub(super) fn value(&self, column: &'static str) -> Result<Option<f64>, SpecsError> {
        self.parsed(column, "is no finite number", |cell| {
            f64::from_str(cell).ok().filter(|number| number.is_finite())
        })
    }

    pub(super) fn yes_or_no(&self, column: &'static str) -> Result<Option<bool>, SpecsError> {
        self.parsed(column, "is neither yes nor no", |cell| match cell {
            "yes" | "true" | "1" => Some(true),
            "no" | "false" | "0" => Some(false),
            _ => None,
        })
    }

    pub(super) fn confidence(&self) -> Result<Option<Confidence>, SpecsError> {
        self.parsed(
            "confidence",
            "is none of high, medium, low",
            |cell| match cell {
                "high" => Some(Confidence::High),
                "medium" => Some(Confidence::Medium),
                "low" => Some(Confidence::Low),
                _ => None,
            },
        )
    }

    pub(super) fn kind(&self) -> Result<RowKind, SpecsError> {
        let problem = "is none of train, hetero, memory, reliability, claim";
        let kind = self.parsed("kind", problem, |cell| match cell {
            "train" => Some(RowKind::Train),
            "hetero" => Some(RowKind::Hetero),
            "memory" => Some(RowKind::Memory),
            "reliability" => Some(RowKind::Reliability),
            "claim" => Some(RowKind::Claim),
            _ => None,
        })?;
        kind.ok_or_else(|| self.wrong("kind", problem))
    }
}
