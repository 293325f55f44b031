//! One run with one fault.

use crate::bed::{Bed, Launch, Process, Shape};
use crate::loss::named;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Beyond the run's own time limit, until a survivor has told who is gone.
const SLACK: Duration = Duration::from_secs(2);
/// From then on until no process is left. Open MPI 4.1 takes 2 s to kill what is left of a launch,
/// and 3.1 s where it has to wake a stopped process first.
const CLEANUP: Duration = Duration::from_secs(5);
/// Longest wait for the manifest of a run.
const START: Duration = Duration::from_secs(60);
/// Between looks at what happens.
const LOOK: Duration = Duration::from_millis(10);
/// More steps than any trial lasts.
const STEPS: &str = "1000000";

/// What is done to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    StopRank,
    KillRank,
    KillHost,
    /// The host's network is cut, as when a machine loses power: no connection is closed.
    CutHost,
    KillLauncher,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::StopRank,
        Self::KillRank,
        Self::KillHost,
        Self::CutHost,
        Self::KillLauncher,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::StopRank => "stop-rank",
            Self::KillRank => "kill-rank",
            Self::KillHost => "kill-host",
            Self::CutHost => "cut-host",
            Self::KillLauncher => "kill-launcher",
        }
    }

    pub(crate) fn from_name(name: &str) -> Result<Self> {
        let Some(kind) = Self::ALL.into_iter().find(|kind| kind.name() == name) else {
            let known = Self::ALL.map(Self::name).join(", ");
            bail!("unknown kind {name}\nhint: known kinds: {known}");
        };
        Ok(kind)
    }

    /// Launchers that lose a process or a daemon may end before they have passed on what ranks say.
    fn may_silence_launcher(self) -> bool {
        matches!(self, Self::KillRank | Self::KillHost)
    }

    pub(crate) fn needs_hosts(self) -> bool {
        matches!(self, Self::KillHost | Self::CutHost)
    }
}

/// What all trials have in common.
#[derive(clap::Args)]
pub(crate) struct Setup {
    /// The binary; without it, the one beside this.
    #[arg(long, value_name = "FILE", default_value_os_t = beside_this_binary())]
    pub laggard: PathBuf,
    #[command(flatten)]
    pub shape: Shape,
    /// `--timeout` of the run.
    #[arg(long = "timeout", value_name = "S", default_value_t = 5)]
    pub timeout_s: u64,
    /// More arguments of `laggard run`.
    #[arg(last = true)]
    pub more: Vec<String>,
}

fn beside_this_binary() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name("laggard")
}

impl Setup {
    fn command(&self, record: &Path) -> Vec<String> {
        let timeout = self.timeout_s.to_string();
        let mut words = vec![self.laggard.display().to_string()];
        let own = [
            "run",
            "--model",
            "tiny",
            "--steps",
            STEPS,
            "--quiet",
            "--timeout",
            &timeout,
        ];
        words.extend(own.map(str::to_owned));
        words.extend(["-o".to_owned(), record.display().to_string()]);
        words.extend(self.more.iter().cloned());
        words
    }

    /// From the fault until it must have been told.
    fn deadline(&self) -> Duration {
        Duration::from_secs(self.timeout_s) + SLACK
    }
}

/// Who, what and when.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub number: u32,
    pub kind: Kind,
    /// The rank, or one of the host.
    pub rank: usize,
    /// From the manifest on.
    pub after: Duration,
}

impl Plan {
    fn host(&self, shape: &Shape) -> usize {
        self.rank / shape.ranks_per_host
    }

    /// Who is gone then.
    fn culprits(&self, shape: &Shape) -> BTreeSet<usize> {
        match self.kind {
            Kind::StopRank | Kind::KillRank => BTreeSet::from([self.rank]),
            Kind::KillHost | Kind::CutHost => {
                let first = self.host(shape) * shape.ranks_per_host;
                (first..first + shape.ranks_per_host).collect()
            }
            Kind::KillLauncher => BTreeSet::new(),
        }
    }

    /// Whether a survivor's words name who is gone. Of the host of rank 0 only that rank can be
    /// named, with its host: the others reported to nobody else.
    fn is_named(&self, names: &BTreeSet<usize>, shape: &Shape) -> bool {
        let culprits = self.culprits(shape);
        let is_root = self.kind.needs_hosts() && self.host(shape) == 0;
        *names == culprits || (is_root && *names == BTreeSet::from([0]))
    }

    fn strike(&self, bed: &Bed, setup: &Setup) -> Result<()> {
        let launched = bed.launched()?;
        let rank = || {
            let is_it = |process: &&Process| process.rank_of(&setup.laggard) == Some(self.rank);
            launched
                .iter()
                .find(is_it)
                .context("the rank has no process")
        };
        match self.kind {
            Kind::StopRank => rank()?.send(Signal::SIGSTOP),
            Kind::KillRank => rank()?.send(Signal::SIGKILL),
            Kind::KillHost => bed.kill_host(self.host(&setup.shape)),
            Kind::CutHost => bed.unplug(self.host(&setup.shape)),
            Kind::KillLauncher => {
                let launcher = launched.iter().find(|process| process.is_launcher());
                launcher
                    .context("there is no launcher")?
                    .send(Signal::SIGKILL)
            }
        }
    }
}

/// What came of a trial.
pub(crate) struct Outcome {
    pub plan: Plan,
    /// From the fault until the first line that names those who are gone, and them alone.
    pub named_after: Option<Duration>,
    /// From the fault until no process was left.
    pub gone_after: Option<Duration>,
    /// The record's closing names those who are gone, and them alone.
    pub recorded: bool,
    /// mpirun or a daemon of it was left.
    launcher_left: bool,
    /// Exit code of the launch, if it ended by itself.
    code: Option<i32>,
    /// A flush had brought samples to the disk before the fault: then what is there must do for an
    /// analysis. Before the first flush nothing of a rank that dies is anywhere.
    flushed: bool,
    /// The record was analysed.
    pub analyzed: bool,
    /// What was not as it must be.
    wrong: Vec<String>,
    said: Vec<String>,
}

impl Outcome {
    pub(crate) const HEADER: &str = "number,kind,rank,after_s,named_after_s,recorded,\
        gone_after_s,launcher_left,exit_code,flushed,analyzed,wrong";

    pub(crate) fn of(setup: &Setup, plan: Plan) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let record = dir.path().join("record");
        let name = format!(
            "fault-{}-{}-{}",
            std::process::id(),
            plan.kind.name(),
            plan.number
        );
        let bed = Bed::up(name, &setup.shape)?;
        let mut launch = bed.launch(&setup.command(&record))?;
        let mut outcome = Self {
            plan,
            named_after: None,
            gone_after: None,
            recorded: false,
            launcher_left: false,
            code: None,
            flushed: false,
            analyzed: false,
            wrong: Vec::new(),
            said: Vec::new(),
        };
        if outcome.starts(&mut launch, &record)? {
            outcome.flushed = has_samples(&record);
            let fault = Instant::now();
            outcome.plan.strike(&bed, setup)?;
            let left = outcome.watch(setup, &bed, &mut launch, fault)?;
            let names = |names: &_| outcome.plan.is_named(names, &setup.shape);
            outcome.recorded = noted(&record).iter().any(names);
            outcome.judge(setup, &launch, &left);
            outcome.check_record(setup, &record);
        }
        outcome.said = launch.said().into_iter().map(|(_, line)| line).collect();
        Ok(outcome)
    }

    /// Waits until the run steps and the moment of the fault is there.
    fn starts(&mut self, launch: &mut Launch, record: &Path) -> Result<bool> {
        let begin = Instant::now();
        while !record.join("manifest.json").exists() {
            if launch.ended()?.is_some() || begin.elapsed() > START {
                self.wrong.push("the run did not start".to_owned());
                return Ok(false);
            }
            std::thread::sleep(LOOK);
        }
        std::thread::sleep(self.plan.after);
        if launch.ended()?.is_some() {
            self.wrong.push("the run ended before the fault".to_owned());
            return Ok(false);
        }
        Ok(true)
    }

    /// Looks on until nothing is left or the time is up.
    fn watch(
        &mut self,
        setup: &Setup,
        bed: &Bed,
        launch: &mut Launch,
        fault: Instant,
    ) -> Result<Vec<Process>> {
        let plan = self.plan.clone();
        let told = |launch: &Launch| {
            let lines = launch.said().into_iter();
            let is_right = |names| plan.is_named(&names, &setup.shape);
            let right = lines.filter(|(_, line)| named(line).is_some_and(is_right));
            right
                .map(|(at, _)| at.saturating_duration_since(fault))
                .next()
        };
        let silent = self.plan.kind == Kind::KillLauncher;
        let left = loop {
            let now = fault.elapsed();
            let launched = bed.launched()?;
            self.launcher_left = !launched.is_empty();
            let left = self.counted(setup, launched);
            if left.is_empty() {
                self.gone_after.get_or_insert(now);
            }
            self.named_after = told(launch);
            let limit = match self.named_after {
                _ if silent => setup.deadline(),
                named => named.unwrap_or(setup.deadline()) + CLEANUP,
            };
            if !self.launcher_left || now > limit {
                break left;
            }
            std::thread::sleep(LOOK);
        };
        // The last lines may still be on their way through a pipe.
        std::thread::sleep(LOOK * 10);
        self.named_after = told(launch);
        self.code = launch.ended()?.and_then(|status| status.code());
        Ok(left)
    }

    /// Whether the right ones were named in time, on stderr; where processes die the launcher may
    /// not pass on what survivors say, and the record must do.
    fn judge(&mut self, setup: &Setup, launch: &Launch, left: &[Process]) {
        if !left.is_empty() {
            let left: Vec<_> = left.iter().map(Process::name).collect();
            self.wrong
                .push(format!("processes are left: {}", left.join("; ")));
        }
        if self.plan.kind == Kind::KillLauncher {
            return;
        }
        let culprits = self.plan.culprits(&setup.shape);
        let in_time = self
            .named_after
            .is_some_and(|after| after <= setup.deadline());
        let on_record = self.recorded && self.plan.kind.may_silence_launcher();
        if !in_time && !on_record {
            let limit = setup.deadline().as_secs();
            self.wrong
                .push(format!("nobody named ranks {culprits:?} within {limit} s"));
        }
        let lines = launch.said().into_iter().map(|(_, line)| line);
        let accuses = |line: &String| named(line).is_some_and(|all| !all.is_subset(&culprits));
        let accusing: BTreeSet<String> = lines.filter(accuses).collect();
        let wrong = accusing
            .iter()
            .map(|line| format!("an innocent is named: {line}"));
        self.wrong.extend(wrong);
    }

    /// Nothing of the launch must be left. Where a host is lost ranks and witnesses alone are asked
    /// of: on a host that is cut off mpirun reaches no daemon, and that of Open MPI 4 may stay for
    /// ever once it has lost one.
    fn counted(&self, setup: &Setup, mut launched: Vec<Process>) -> Vec<Process> {
        if self.plan.kind.needs_hosts() {
            launched.retain(|process| process.runs(&setup.laggard));
        }
        launched
    }

    /// Tries an analysis, which must do if there was a flush before the fault.
    fn check_record(&mut self, setup: &Setup, record: &Path) {
        let mut analyze = Command::new(&setup.laggard);
        analyze
            .arg("analyze")
            .arg(record)
            .args(["--format", "json"]);
        let told = match analyze.output() {
            Err(error) => Err(error.to_string()),
            Ok(done) if !done.status.success() => Err(format!(
                "{}: {}",
                done.status,
                String::from_utf8_lossy(&done.stderr)
            )),
            Ok(done) => serde_json::from_slice::<serde_json::Value>(&done.stdout)
                .map_err(|error| error.to_string()),
        };
        self.analyzed = told.is_ok();
        if let Err(error) = told
            && self.flushed
        {
            self.wrong
                .push(format!("the record cannot be analysed: {error}"));
        }
    }

    pub(crate) fn is_right(&self) -> bool {
        self.wrong.is_empty()
    }

    /// One line, and all that is known of a trial that went wrong.
    pub(crate) fn line(&self) -> String {
        let Plan {
            number,
            kind,
            rank,
            after,
        } = &self.plan;
        let mut text = format!(
            "{:<14} {number:>3}  rank {rank} after {:.2} s: named {}, gone {}, exit code {}{}{}{}",
            kind.name(),
            after.as_secs_f64(),
            seconds(self.named_after),
            seconds(self.gone_after),
            self.code.map_or("-".to_owned(), |code| code.to_string()),
            if self.recorded { ", recorded" } else { "" },
            if self.launcher_left {
                ", mpirun is left"
            } else {
                ""
            },
            match (self.flushed, self.analyzed) {
                (true, _) => "",
                (false, true) => ", not flushed before",
                (false, false) => ", not flushed before and no analysis",
            },
        );
        for wrong in &self.wrong {
            let _ = write!(text, "\n  WRONG: {}", wrong.trim());
        }
        if !self.is_right() {
            for line in &self.said {
                let _ = write!(text, "\n  | {line}");
            }
        }
        text
    }

    pub(crate) fn csv_row(&self) -> String {
        let Plan {
            number,
            kind,
            rank,
            after,
        } = &self.plan;
        format!(
            "{number},{},{rank},{:.3},{},{},{},{},{},{},{},\"{}\"",
            kind.name(),
            after.as_secs_f64(),
            seconds(self.named_after),
            self.recorded,
            seconds(self.gone_after),
            self.launcher_left,
            self.code.map_or(String::new(), |code| code.to_string()),
            self.flushed,
            self.analyzed,
            self.wrong.join("; ").replace('"', "'").replace('\n', " "),
        )
    }
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or("-".to_owned(), |time| format!("{:.3}", time.as_secs_f64()))
}

/// Whether any file of samples has something in it.
fn has_samples(record: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(record) else {
        return false;
    };
    entries.filter_map(Result::ok).any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return has_samples(&path);
        }
        let is_table = path
            .extension()
            .is_some_and(|extension| extension == "parquet");
        is_table && entry.metadata().is_ok_and(|data| data.len() > 0)
    })
}

/// Whom the record calls gone: in its closing, and in what survivors have noted.
fn noted(record: &Path) -> Vec<BTreeSet<usize>> {
    let read = |file| std::fs::read_to_string(record.join(file)).unwrap_or_default();
    let closing = serde_json::from_str(&read("closing.json")).into_iter();
    let notes = read("failures.jsonl");
    let notes = notes
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let why = |value: serde_json::Value| {
        let why = value.pointer("/status/failed/why").or(value.get("why"))?;
        named(why.as_str()?)
    };
    closing.chain(notes).filter_map(why).collect()
}
