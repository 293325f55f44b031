//! What is typed of a plan's launch files.

use clap::Args;
use std::path::PathBuf;

/// Options of `plan` for launch files.
#[derive(Debug, Args)]
pub(crate) struct LaunchArgs {
    /// Hosts to put into launch files, one line for each host or range: `gpu[001-128] h100 8`, with
    /// class and devices, maybe cores=N or domain=NAME; `sinfo -N -h -o "%N %f %G"` prints such a
    /// list [default: names that stand for hosts].
    #[arg(long, value_name = "FILE", requires = "output")]
    pub(crate) hosts: Option<PathBuf>,
    /// Launch files of another option than the answer, by its number on the page.
    #[arg(long, value_name = "N", requires = "output")]
    pub(crate) option: Option<usize>,
}
