//! Exit codes of the binary. They are part of its interface: documented in `--help` and README.

/// All went well.
pub(crate) const DONE: u8 = 0;
/// A defect of laggard itself.
pub(crate) const INTERNAL: u8 = 1;
/// The command line cannot be understood or asks for what cannot be (clap's own code as well).
pub(crate) const USAGE: u8 = 2;
/// A file that was read is not what it must be.
pub(crate) const BAD_INPUT: u8 = 3;
/// `--fail-over` was exceeded, or `compare` found a regression with it.
pub(crate) const THRESHOLD: u8 = 4;
/// The job itself failed: a rank did not arrive, a backend is missing, or results are wrong.
pub(crate) const BACKEND: u8 = 5;
/// Something could not be written: full disk, no permission.
pub(crate) const OUTPUT: u8 = 7;
/// Ended early by SIGINT; what was recorded is complete.
pub(crate) const INTERRUPTED: u8 = 130;
/// Ended early by SIGTERM; what was recorded is complete.
pub(crate) const TERMINATED: u8 = 143;

/// The code of what a signal ended early.
pub(crate) fn by_signal(name: &str) -> u8 {
    match name {
        "SIGTERM" => TERMINATED,
        _ => INTERRUPTED,
    }
}

/// The table for `--help`.
pub(crate) const HELP: &str = "Exit codes:
  0    done
  1    internal error (a defect of laggard)
  2    usage: the command line asks for what cannot be
  3    bad input: a file is not what it must be
  4    threshold: --fail-over was exceeded
  5    the job failed: a rank did not arrive, a backend is missing, or bench found wrong results
  7    output: the disk is full or the folder cannot be written
  130  interrupted (SIGINT); the record is complete up to there
  143  terminated (SIGTERM); the record is complete up to there";
