//! The control plane between true processes, which are killed and stopped. The ranks are this test
//! itself, started again.

use laggard_backend::control::{
    ControlOptions, ControlPlane, HostRanks, WitnessProgram, serve_witness,
};
use laggard_backend::{Abort, Abortable, BackendError, Messenger};
use laggard_types::Rank;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// What a process started again is to be.
const ROLE: &str = "LAGGARD_TEST_ROLE";
/// Where the processes of a test leave files for each other.
const DIRECTORY: &str = "LAGGARD_TEST_DIRECTORY";
/// The hosts of all ranks.
const HOSTS: &str = "a,a,b,b,b,c";
const RANKS: Rank = 6;
/// Silence where a test is not about it.
const CALM: Duration = Duration::from_secs(20);
/// Silence where it is.
const SILENCE: Duration = Duration::from_secs(2);
/// Reached only when a test fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks for a file.
const LOOK: Duration = Duration::from_millis(1);

/// Leaves a file that is there either whole or not at all.
fn leave(directory: &Path, name: &str, contents: &[u8]) {
    let draft = directory.join(format!("{name}.draft"));
    fs::write(&draft, contents).expect("a file");
    fs::rename(draft, directory.join(name)).expect("a name");
}

fn find(directory: &Path, name: &str, deadline: Instant) -> Option<Vec<u8>> {
    while Instant::now() < deadline {
        if let Ok(contents) = fs::read(directory.join(name)) {
            return Some(contents);
        }
        thread::sleep(LOOK);
    }
    None
}

/// A messenger over files.
struct Files {
    directory: PathBuf,
    rank: Rank,
    /// Messages so far to and from each rank.
    counts: Mutex<(Vec<u32>, Vec<u32>)>,
}

impl Messenger for Files {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn size(&self) -> u32 {
        RANKS
    }

    fn send(&self, to: Rank, message: &[u8], _: Instant) -> Result<(), BackendError> {
        let count = &mut self.counts.lock().expect("no panic").0[to as usize];
        *count += 1;
        leave(
            &self.directory,
            &format!("{}-{to}-{count}", self.rank),
            message,
        );
        Ok(())
    }

    fn receive(&self, from: Rank, message: &mut [u8], until: Instant) -> Result<(), BackendError> {
        let count = &mut self.counts.lock().expect("no panic").1[from as usize];
        *count += 1;
        let name = format!("{from}-{}-{count}", self.rank);
        message.copy_from_slice(&find(&self.directory, &name, until).expect("a message"));
        Ok(())
    }
}

/// Passes the reason of an abort on.
struct Ear(Sender<String>);

impl Abortable for Ear {
    fn abort(&self, reason: &str) {
        drop(self.0.send(reason.to_owned()));
    }
}

/// One rank: joins, says so, and writes down why the world ended.
fn be_a_rank(directory: PathBuf, rank: Rank) {
    let counts = || vec![0; RANKS as usize];
    let messenger = Files {
        directory: directory.clone(),
        rank,
        counts: Mutex::new((counts(), counts())),
    };
    let abort = Arc::new(Abort::default());
    let (sender, receiver) = channel();
    let ear = Arc::new(Ear(sender));
    let listener: Weak<Ear> = Arc::downgrade(&ear);
    abort.listen(listener);
    let silent = directory.join("silent").exists();
    let witness = directory.join("witnessed").exists();
    let options = ControlOptions {
        join: PATIENCE,
        witness: witness.then(witness_program),
        ..ControlOptions::new(if silent { SILENCE } else { CALM })
    };
    let host = HOSTS.split(',').nth(rank as usize).expect("a host");
    let plane = ControlPlane::join(&messenger, host, abort, &options).expect("a plane");
    plane.watch_parent();
    let names: Vec<_> = plane.hosts().iter().map(HostRanks::leader).collect();
    assert_eq!(names, [0, 2, 5]);
    leave(
        &directory,
        &format!("pid-{rank}"),
        std::process::id().to_string().as_bytes(),
    );
    if directory.join("clean").exists() {
        plane.leave(PATIENCE).expect("all leave");
        leave(&directory, &format!("end-{rank}"), b"");
        return;
    }
    let reason = receiver.recv_timeout(PATIENCE).expect("an abort");
    leave(&directory, &format!("end-{rank}"), reason.as_bytes());
    drop(plane.leave(PATIENCE));
}

/// This program again, with a name for the witness instead of a role.
fn witness_program() -> WitnessProgram {
    WitnessProgram {
        program: env::current_exe().expect("this program"),
        arguments: ["--exact", "witness_stand_in", "--nocapture"]
            .map(str::to_owned)
            .to_vec(),
    }
}

/// Not a test: what this program is when a rank starts it as its host's witness.
#[test]
fn witness_stand_in() {
    let Some(directory) = env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    let number = std::process::id();
    leave(&directory, &format!("witness-{number}"), b"");
    let mut count = 0;
    let served = serve_witness(|testimony| {
        count += 1;
        let words = format!("{} {}\n", testimony.is_final, testimony.loss);
        leave(
            &directory,
            &format!("word-{number}-{count}"),
            words.as_bytes(),
        );
    });
    served.expect("a witness that ends in order");
    leave(&directory, &format!("done-{number}"), b"");
}

fn start(directory: &Path, role: &str) -> Child {
    Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "stand_in", "--nocapture"])
        .env(ROLE, role)
        .env(DIRECTORY, directory)
        .stdout(Stdio::null())
        .spawn()
        .expect("a process")
}

fn start_ranks(directory: &Path) -> Vec<Child> {
    (0..RANKS)
        .map(|rank| start(directory, &rank.to_string()))
        .collect()
}

/// Not a test: what this program is when another test starts it again. Without a role it has
/// nothing to do.
#[test]
fn stand_in() {
    let Some((role, directory)) = env::var(ROLE).ok().zip(env::var_os(DIRECTORY)) else {
        return;
    };
    let directory = PathBuf::from(directory);
    match role.parse() {
        Ok(rank) => be_a_rank(directory, rank),
        Err(_) => {
            for mut rank in start_ranks(&directory) {
                rank.wait().expect("an end");
            }
        }
    }
}

/// Processes of a test, which end with it.
struct Job {
    directory: tempfile::TempDir,
    children: Vec<Child>,
    ranks: Vec<Pid>,
}

impl Job {
    /// Ranks that find these marks.
    fn start(marks: &[&str], start: impl Fn(&Path) -> Vec<Child>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for mark in marks {
            leave(directory.path(), mark, b"");
        }
        let children = start(directory.path());
        let mut job = Self {
            directory,
            children,
            ranks: Vec::new(),
        };
        let deadline = Instant::now() + PATIENCE;
        for rank in 0..RANKS {
            let pid = find(job.directory.path(), &format!("pid-{rank}"), deadline);
            let pid = String::from_utf8(pid.expect("all join")).expect("text");
            job.ranks
                .push(Pid::from_raw(pid.parse().expect("a number")));
        }
        job
    }

    fn signal(&self, ranks: &[Rank], signal: Signal) {
        for rank in ranks {
            kill(self.ranks[*rank as usize], signal).expect("a process to signal");
        }
    }

    /// Why each of the other ranks ended.
    fn ends(&self, gone: &[Rank]) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let left = (0..RANKS).filter(|rank| !gone.contains(rank));
        let end = |rank| {
            let end = find(self.directory.path(), &format!("end-{rank}"), deadline);
            String::from_utf8(end.unwrap_or_else(|| panic!("rank {rank} does not end")))
        };
        left.map(|rank| end(rank).expect("text")).collect()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Ranks that another process started are killed by number, which is safe as long as they
        // cannot have ended: those that are stopped. All others end by themselves.
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn check(gone: &[Rank], signal: Signal, starts: &str) {
    let silent = signal == Signal::SIGSTOP;
    let job = Job::start(if silent { &["silent"] } else { &[] }, start_ranks);
    job.signal(gone, signal);
    for end in job.ends(gone) {
        // How it was noticed: by silence if only that tells, and otherwise without waiting for it.
        assert!(end.starts_with(starts), "{end}\nbut not: {starts}");
        if silent {
            let lasted = end[starts.len()..].split(' ').next().expect("a word");
            let lasted: f64 = lasted.parse().expect("seconds");
            assert!(lasted >= SILENCE.as_secs_f64(), "{end}");
        }
    }
}

#[test]
fn a_killed_rank_is_named() {
    check(
        &[4],
        Signal::SIGKILL,
        "rank 4 on host b is gone: its connection closed",
    );
}

#[test]
fn a_killed_leader_is_named() {
    check(
        &[2],
        Signal::SIGKILL,
        "rank 2 on host b is gone: its connection closed",
    );
}

#[test]
fn a_killed_root_is_named() {
    check(
        &[0],
        Signal::SIGKILL,
        "rank 0 on host a is gone: its connection closed",
    );
}

#[test]
fn a_killed_host_is_named() {
    check(
        &[2, 3, 4],
        Signal::SIGKILL,
        "host b (ranks 2 to 4) is gone: its connection closed",
    );
}

#[test]
fn a_stopped_rank_is_named() {
    check(
        &[1],
        Signal::SIGSTOP,
        "rank 1 on host a is gone: no sign of life for ",
    );
}

#[test]
fn a_stopped_host_is_named() {
    check(
        &[2, 3, 4],
        Signal::SIGSTOP,
        "host b (ranks 2 to 4) is gone: no sign of life for ",
    );
}

#[test]
fn ranks_whose_launcher_is_killed_end() {
    let launcher = |directory: &Path| vec![start(directory, "launcher")];
    let mut job = Job::start(&[], launcher);
    job.children[0].kill().expect("a launcher to kill");
    for end in job.ends(&[]) {
        assert!(end.ends_with("the launcher is gone"), "{end}");
    }
}

/// The files of a job whose names start so.
fn files(directory: &Path, start: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory");
    let files = entries.map(|entry| entry.expect("an entry").path());
    let name = |path: &PathBuf| {
        path.file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned()
    };
    files
        .filter(|path| name(path).starts_with(start) && !name(path).ends_with("draft"))
        .collect()
}

/// What witnesses say of ranks that end in this order, once all witnesses have ended. Whoever is
/// last of a launcher's making may be named beside nobody.
fn testimony(job: &Job) -> String {
    let directory = job.directory.path();
    let deadline = Instant::now() + PATIENCE;
    let witnesses = files(directory, "witness-").len();
    assert_eq!(witnesses, 3, "one for each host");
    while files(directory, "done-").len() < witnesses {
        assert!(Instant::now() < deadline, "witnesses are left");
        thread::sleep(LOOK);
    }
    let read = |path: PathBuf| fs::read_to_string(path).expect("words");
    let words: String = files(directory, "word-").into_iter().map(read).collect();
    let mut last = words.lines().filter(|line| line.starts_with("true "));
    let word = last.next().unwrap_or_default().to_owned();
    assert_eq!(last.next(), None, "one has the last word: {words}");
    word
}

#[test]
fn witnesses_name_the_first_where_nobody_is_left() {
    for first in [0, 1, 2, 4, 5] {
        let mut job = Job::start(&["witnessed"], start_ranks);
        job.signal(&[first], Signal::SIGKILL);
        // As a launcher does it: when it has seen the first one end.
        job.children[first as usize].wait().expect("an end");
        let others: Vec<_> = (0..RANKS).filter(|rank| *rank != first).collect();
        job.signal(&others, Signal::SIGKILL);
        let host = HOSTS.split(',').nth(first as usize).expect("a host");
        let expect = format!("true rank {first} on host {host} is gone: its connection closed");
        let word = testimony(&job);
        assert!(word.starts_with(&expect), "{word}\nbut not: {expect}");
    }
}

#[test]
fn witnesses_say_nothing_of_ranks_that_leave() {
    let job = Job::start(&["witnessed", "clean"], start_ranks);
    assert_eq!(job.ends(&[]), [const { String::new() }; RANKS as usize]);
    assert_eq!(testimony(&job), "");
}
