//! Where results and talk go: results to stdout or a file, talk to stderr.

use crate::args::{ResultArgs, TableFormat};
use crate::failure::Usage;
use anyhow::{Context, Result};
use laggard_report::text::{Glyphs, Style};
use serde::Serialize;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;

/// Width of text where no terminal says otherwise.
const WIDTH: usize = 100;

/// Prints a line of talk.
pub(crate) fn talk(line: &str) {
    // There is nobody to tell that stderr is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes a result to stdout (`-`) or to a file. A closed pipe is success: the reader has what it
/// wanted.
pub(crate) fn result(text: &str, to: &Path) -> Result<()> {
    if to.as_os_str() == "-" {
        let mut stdout = std::io::stdout().lock();
        let written = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
        return match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            other => other.context("cannot write to stdout"),
        };
    }
    file(text, to)
}

/// Writes a result as the page of a terminal or as JSON, as was asked.
pub(crate) fn either(
    how: &ResultArgs,
    value: &impl Serialize,
    page: impl FnOnce() -> String,
) -> Result<()> {
    result(&formatted(how.format, value, page)?, &how.output)
}

/// A result as the page of a terminal or as JSON.
pub(crate) fn formatted(
    format: TableFormat,
    value: &impl Serialize,
    page: impl FnOnce() -> String,
) -> Result<String> {
    match format {
        TableFormat::Text => Ok(page()),
        TableFormat::Json => {
            let text = serde_json::to_string_pretty(value).context("cannot write JSON")?;
            Ok(text + "\n")
        }
    }
}

/// Writes a file whole or not at all.
pub(crate) fn file(text: &str, to: &Path) -> Result<()> {
    let name = to
        .file_name()
        .ok_or_else(|| {
            let hint = "hint: give the name of a file, or `-` for stdout";
            Usage(format!(
                "{} is not the name of a file\n{hint}",
                to.display()
            ))
        })?
        .to_string_lossy();
    let temporary = to.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, to));
    written.map_err(|error| {
        // What is left of a failed file is of no use; that it cannot be removed changes nothing.
        let _ = std::fs::remove_file(&temporary);
        anyhow::Error::new(error).context(format!(
            "cannot write {}\nhint: free some space or choose another place with `-o`",
            to.display()
        ))
    })
}

/// How text for stdout is written.
pub(crate) fn style(to: &Path) -> Style {
    let terminal = to.as_os_str() == "-" && std::io::stdout().is_terminal();
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let columns = std::env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok());
    let utf8 = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .is_none_or(|locale| locale.to_lowercase().contains("utf"));
    Style {
        color: terminal && !set("NO_COLOR"),
        width: columns.unwrap_or(WIDTH).clamp(Style::MIN_WIDTH, 120),
        glyphs: if utf8 { Glyphs::Unicode } else { Glyphs::Ascii },
    }
}
