//! `meta-NAME.yaml` beside `trace-NAME.parquet`: lines of `key: value`.

use crate::error::ImportError;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What the meta file says; nothing where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Meta {
    /// The file, if there is one.
    pub(super) path: Option<PathBuf>,
    pub(super) trial_name: Option<String>,
    pub(super) dp_size: Option<u32>,
    pub(super) pp_size: Option<u32>,
    pub(super) tp_size: Option<u32>,
    pub(super) dsp_size: Option<u32>,
    pub(super) vpp_size: Option<u32>,
}

/// Reads the meta file beside a trace, if there is one.
pub(super) fn read_meta(trace: &Path) -> Result<Meta, ImportError> {
    let stem = trace.file_stem().unwrap_or_default().to_string_lossy();
    let Some(name) = stem.strip_prefix("trace-") else {
        return Ok(Meta::default());
    };
    let path = trace.with_file_name(format!("meta-{name}.yaml"));
    match fs::read_to_string(&path) {
        Ok(text) => parse(&path, &text),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Meta::default()),
        Err(error) => Err(ImportError::io(&path, &error)),
    }
}

fn parse(path: &Path, text: &str) -> Result<Meta, ImportError> {
    let mut meta = Meta {
        path: Some(path.to_owned()),
        ..Meta::default()
    };
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |why: String| ImportError::BadMeta {
            path: path.to_owned(),
            line: index + 1,
            why,
        };
        let (key, value) = line
            .split_once(':')
            .ok_or_else(|| bad(format!("expected `key: value`, found `{line}`")))?;
        let value = value.trim();
        let size = || {
            let size = value.parse().ok().filter(|size| *size > 0);
            size.map(Some)
                .ok_or_else(|| bad(format!("`{key}` is `{value}`, not a positive number")))
        };
        match key.trim() {
            "trial_name" => meta.trial_name = Some(value.trim_matches(['"', '\'']).to_owned()),
            "dp_size" => meta.dp_size = size()?,
            "pp_size" => meta.pp_size = size()?,
            "tp_size" => meta.tp_size = size()?,
            "dsp_size" => meta.dsp_size = size()?,
            "vpp_size" => meta.vpp_size = size()?,
            // Other keys tell nothing that a record holds.
            _ => {}
        }
    }
    Ok(meta)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_errors_name_the_line() {
        let path = Path::new("meta-x.yaml");
        let text = "trial_name: 'x y'\nrun_id: 0\n\n# note\ndp_size: 2\ntp_size: 8\n";
        let expect = Meta {
            path: Some(path.to_owned()),
            trial_name: Some("x y".into()),
            dp_size: Some(2),
            tp_size: Some(8),
            ..Meta::default()
        };
        assert_eq!(parse(path, text), Ok(expect));
        let check = |text: &str, expect: &str| {
            let message = parse(path, text).expect_err("refused").to_string();
            assert_eq!(message, expect);
        };
        check(
            "a: 1\nwhat",
            "meta-x.yaml, line 2: expected `key: value`, found `what`",
        );
        check(
            "dp_size: 0",
            "meta-x.yaml, line 1: `dp_size` is `0`, not a positive number",
        );
        check(
            "pp_size: four",
            "meta-x.yaml, line 1: `pp_size` is `four`, not a positive number",
        );
    }
}
