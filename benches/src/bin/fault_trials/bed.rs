//! A bed of `scripts/testbed.sh`, and what runs on it.

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What the script exits with where a machine does not offer what a bed needs.
const SKIPPED: i32 = 77;

/// The machine cannot make such a bed.
#[derive(Debug)]
pub(crate) struct Unavailable(String);

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.trim())
    }
}

impl std::error::Error for Unavailable {}

/// How many hosts and ranks, and whose mpirun.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Shape {
    /// openmpi or mpich.
    #[arg(long, value_name = "NAME", default_value = "openmpi")]
    pub mpi: String,
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub hosts: usize,
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub ranks_per_host: usize,
    /// One more argument of mpirun; repeatable.
    #[arg(
        long = "mpirun-arg",
        value_name = "ARGUMENT",
        allow_hyphen_values = true
    )]
    pub mpirun_args: Vec<String>,
}

impl Shape {
    pub(crate) fn ranks(&self) -> usize {
        self.hosts * self.ranks_per_host
    }
}

/// A bed; taken down at the end.
pub(crate) struct Bed {
    name: String,
}

/// A process of the bed.
pub(crate) struct Process {
    pid: i32,
    environment: BTreeMap<String, String>,
    arguments: Vec<String>,
}

impl Bed {
    pub(crate) fn up(name: String, shape: &Shape) -> Result<Self> {
        let mut up = script();
        up.args(["up", &name, "--mpi", &shape.mpi, "--timeout", "600"]);
        up.args(["--hosts", &shape.hosts.to_string()]);
        up.args(["--ranks-per-host", &shape.ranks_per_host.to_string()]);
        for argument in &shape.mpirun_args {
            up.args(["--mpirun-arg", argument]);
        }
        // Through a file, since what stays up would hold a pipe open.
        let log = tempfile::tempfile()?;
        let status = up.stdout(Stdio::null()).stderr(log.try_clone()?).status()?;
        if status.success() {
            return Ok(Self { name });
        }
        let said = read_from_start(log)?;
        if status.code() == Some(SKIPPED) {
            return Err(Unavailable(said).into());
        }
        bail!("no bed: {said}")
    }

    /// Starts a command on every rank.
    pub(crate) fn launch(&self, command: &[String]) -> Result<Launch> {
        let mut launch = script();
        launch.args(["launch", &self.name, "--"]).args(command);
        launch
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = launch.spawn().context("scripts/testbed.sh launch")?;
        let said = Arc::new(Mutex::new(Vec::new()));
        let output = child.stderr.take().context("no stderr of the launcher")?;
        let sink = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
                sink.push((Instant::now(), line));
            }
        });
        Ok(Launch { child, said })
    }

    /// The processes that a launch started and that are left: mpirun, its daemons and the ranks.
    pub(crate) fn launched(&self) -> Result<Vec<Process>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // It may end meanwhile; a zombie has neither.
            let Some(process) = Process::read(pid) else {
                continue;
            };
            let has = |key: &str| process.environment.get(key);
            if has("LAGGARD_TESTBED") == Some(&self.name) && has("LAGGARD_TESTBED_LAUNCH").is_some()
            {
                found.push(process);
            }
        }
        Ok(found)
    }

    /// Ends a host and all of its processes at once: its first process takes the others with it.
    pub(crate) fn kill_host(&self, host: usize) -> Result<()> {
        let said = script()
            .args(["pids", &self.name, &format!("h{host}")])
            .output()?;
        let said = String::from_utf8(said.stdout)?;
        let pids: Vec<i32> = said.lines().map(str::parse).collect::<Result<_, _>>()?;
        ensure!(!pids.is_empty(), "host h{host} has no processes");
        for pid in pids {
            // Those that the first took with it are gone already.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        Ok(())
    }

    pub(crate) fn unplug(&self, host: usize) -> Result<()> {
        let status = script()
            .args(["unplug", &self.name, &format!("h{host}")])
            .status()?;
        ensure!(status.success(), "host h{host} cannot be cut off: {status}");
        Ok(())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = script().args(["down", &self.name]).status();
    }
}

/// A launch under way.
pub(crate) struct Launch {
    child: Child,
    said: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Launch {
    /// The lines on stderr so far, with the moments they came.
    pub(crate) fn said(&self) -> Vec<(Instant, String)> {
        self.said
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let words = |file: &str| -> Option<Vec<String>> {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).ok()?;
            let words = bytes
                .split(|&byte| byte == 0)
                .filter(|word| !word.is_empty());
            Some(
                words
                    .map(|word| String::from_utf8_lossy(word).into_owned())
                    .collect(),
            )
        };
        let pair = |word: String| {
            let (key, value) = word.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        };
        let environment = words("environ")?.into_iter().filter_map(pair).collect();
        Some(Self {
            pid,
            environment,
            arguments: words("cmdline")?,
        })
    }

    /// Whether it runs that program: as a rank, or as a witness that a rank has started.
    pub(crate) fn runs(&self, program: &Path) -> bool {
        let is_it = |word: &String| Path::new(word) == program;
        self.arguments.iter().take(2).any(is_it)
    }

    /// The rank that this process is, if it runs that program as one.
    pub(crate) fn rank_of(&self, program: &Path) -> Option<usize> {
        let is_rank = |word: &String| word == "run";
        if !self.runs(program) || !self.arguments.iter().take(3).any(is_rank) {
            return None;
        }
        let value = |key: &str| self.environment.get(key)?.parse().ok();
        value("OMPI_COMM_WORLD_RANK").or_else(|| value("PMI_RANK"))
    }

    pub(crate) fn is_launcher(&self) -> bool {
        let name = self
            .arguments
            .first()
            .map(Path::new)
            .and_then(Path::file_name);
        let name = name
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        ["mpirun", "mpiexec", "orterun"]
            .iter()
            .any(|known| name.starts_with(known))
    }

    pub(crate) fn send(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid), signal)
            .with_context(|| format!("{signal} to process {}", self.pid))
    }

    /// For messages: id and command.
    pub(crate) fn name(&self) -> String {
        let short: Vec<_> = self.arguments.iter().take(3).cloned().collect();
        format!("{} {}", self.pid, short.join(" "))
    }
}

fn script() -> Command {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    Command::new(root.join("scripts/testbed.sh"))
}

fn read_from_start(mut file: fs::File) -> Result<String> {
    use std::io::{Read as _, Seek as _};
    file.rewind()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}
