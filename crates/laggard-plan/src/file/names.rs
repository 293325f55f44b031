//! Names of jobs, which become those of folders and of what schedulers know.

/// What [`is_job_name`] asks for, in words.
pub(crate) const JOB_NAMES: &str =
    "begins with a letter or digit and is made of these, `-`, `_` and `.`";

/// Whether a job's name can be that of a folder, and in a scheduler.
pub(crate) fn is_job_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(fits)
}

/// A name with nothing in it that a host's name, a label of Kubernetes or a feature of Slurm
/// cannot have (RFC 1123: letters, digits and hyphens).
pub(crate) fn label(name: &str) -> String {
    let plain = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() => c,
        _ => '-',
    };
    let label: String = name.chars().map(plain).collect();
    label.trim_matches('-').to_owned()
}
