//! `failures.jsonl`: why a run ended, in the words of who outlived it. It is there for runs
//! whose rank 0 is gone, and for launchers that take the terminal with them.

use crate::error::RecordError;
use laggard_types::{Caveat, CaveatCode, Rank};
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

/// Name of the file in a record.
const FAILURES_FILE: &str = "failures.jsonl";

/// What one rank or witness says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The rank that says it; `None` for a host's witness, which is no rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<Rank>,
    /// What it says.
    pub why: String,
}

/// Appends what somebody says to the record in `dir`. Several may do so at the same time.
///
/// # Errors
/// If the file cannot be written.
pub fn append_failure(dir: &Path, failure: &Failure) -> Result<(), RecordError> {
    let path = dir.join(FAILURES_FILE);
    let mut line = serde_json::to_vec(failure).map_err(|error| RecordError::json(&path, &error))?;
    line.push(b'\n');
    let file = OpenOptions::new().append(true).create(true).open(&path);
    // One write, so that lines of several ranks do not mix.
    file.and_then(|mut file| file.write_all(&line))
        .map_err(|error| RecordError::io("append to", &path, &error))
}

/// What was said, as doubts about the record. Lines that cannot be read say nothing.
pub(crate) fn failures(dir: &Path) -> Vec<Caveat> {
    let text = fs::read_to_string(dir.join(FAILURES_FILE)).unwrap_or_default();
    let failures = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let caveat = |Failure { rank, why }| {
        let who = rank.map_or("a witness".to_owned(), |rank| format!("rank {rank}"));
        let message = format!("the run failed; {who} said: {}", why.replace('\n', "; "));
        Caveat::new(CaveatCode::NotClosed, message)
    };
    failures.map(caveat).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_comes_back_as_caveats() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(failures(dir.path()), []);
        let said = [
            (Some(1), "rank 0 is gone"),
            (Some(2), "two\nlines"),
            (None, "rank 3 is gone"),
        ];
        for (rank, why) in said {
            let why = why.to_owned();
            append_failure(dir.path(), &Failure { rank, why }).unwrap();
        }
        let mut file = OpenOptions::new();
        let mut file = file
            .append(true)
            .open(dir.path().join(FAILURES_FILE))
            .unwrap();
        file.write_all(b"{\"rank\":3,\"wh").unwrap();
        let messages: Vec<String> = failures(dir.path())
            .into_iter()
            .map(|it| it.message)
            .collect();
        let expect = [
            "the run failed; rank 1 said: rank 0 is gone",
            "the run failed; rank 2 said: two; lines",
            "the run failed; a witness said: rank 3 is gone",
        ];
        assert_eq!(messages, expect);
    }
}
