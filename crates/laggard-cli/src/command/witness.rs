//! `laggard __witness`: what a host's first rank starts, and no user. Says which rank was the first
//! to go where the launcher leaves no rank that could.

use crate::exit_code;
use crate::output::talk;
use anyhow::Result;
use laggard_backend::control::{Testimony, serve_witness};
use laggard_record::{Failure, append_failure};
use std::time::Duration;

/// How long a witness that has begun to speak may take. Neither a terminal nor a file system that
/// hangs must keep it.
const END_WITHIN: Duration = Duration::from_secs(5);

pub(crate) fn run() -> Result<u8> {
    let mut said = String::new();
    serve_witness(|testimony| {
        if said.is_empty() {
            std::thread::spawn(|| {
                std::thread::sleep(END_WITHIN);
                std::process::abort();
            });
        }
        let mut words = testimony.loss.to_string();
        if testimony.is_launcher_gone {
            words += "; the launcher is gone too, which may have been first";
        }
        if words != said {
            talk(&format!("[witness on {}] {words}", testimony.host));
            said.clone_from(&words);
        }
        note(testimony, words);
    })?;
    Ok(exit_code::DONE)
}

/// Writes the last word into the record.
fn note(testimony: &Testimony, why: String) {
    let Some(record) = testimony.record.as_ref().filter(|_| testimony.is_final) else {
        return;
    };
    if let Err(error) = append_failure(record, &Failure { rank: None, why }) {
        tracing::warn!(%error, "the testimony was not noted");
    }
}
