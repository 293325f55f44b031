//! Proves `scripts/testbed.sh`: that its hosts are apart, its limits are there, and that it leaves
//! nothing behind, however it ends. Skips loudly where the machine does not offer what it needs,
//! unless `LAGGARD_REQUIRE` holds `testbed`.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// What each rank says of itself: host, rank, and a variable of the caller.
const WHO: &str = "echo \"$(hostname) ${OMPI_COMM_WORLD_RANK:-$PMI_RANK} $LAGGARD_MARK\"";
const MPIS: [&str; 2] = ["openmpi", "mpich"];
const SKIPPED: i32 = 77;

/// A bed that no other test uses; taken down at the end.
struct Bed {
    name: String,
}

impl Bed {
    fn new(purpose: &str) -> Self {
        let name = format!("{purpose}-{}", std::process::id());
        Self { name }
    }

    fn down(&self) {
        let done = testbed(&["down", &self.name]);
        assert_eq!(done.status.code(), Some(0), "{}", errors(&done));
    }

    /// The ids of the processes with this bed's mark.
    fn processes(&self) -> Vec<String> {
        let mark = format!("LAGGARD_TESTBED={}", self.name);
        let entries = fs::read_dir("/proc").expect("/proc");
        let ids = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        ids.filter(|id| {
            let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
            environment
                .split(|&byte| byte == 0)
                .any(|variable| variable == mark.as_bytes())
        })
        .collect()
    }

    fn owner(&self) -> PathBuf {
        beds().join(&self.name).join("owner")
    }

    /// No process, folder or cgroup of this bed is there.
    fn check_gone(&self) {
        assert_eq!(self.processes(), Vec::<String>::new(), "processes");
        let folder = beds().join(&self.name);
        assert!(!folder.exists(), "{}", folder.display());
        let groups = run(Command::new("find")
            .args(["/sys/fs/cgroup", "-type", "d", "-name"])
            .arg(format!("laggard-testbed.{}.*", self.name)));
        assert_eq!(text(&groups), "", "cgroups");
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        testbed(&["down", &self.name]);
    }
}

/// Where the beds of this user are.
fn beds() -> PathBuf {
    let user = text(&run(Command::new("id").arg("-u")));
    format!("/tmp/laggard-testbed.{}", user.trim()).into()
}

/// While this lives, no script claims, hands over or removes a bed.
struct Lock(Child);

impl Lock {
    fn take() -> Self {
        let mut lock = Command::new("flock")
            .arg(format!("{}.lock", beds().display()))
            .args(["sh", "-c", "echo held; cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("flock of util-linux");
        let mut held = BufReader::new(lock.stdout.take().expect("its output"));
        held.read_line(&mut String::new()).expect("the lock");
        Self(lock)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().expect("its end");
    }
}

fn script() -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new(root.join("scripts/testbed.sh"));
    command.env("LAGGARD_MARK", "seen").stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Output {
    command.output().expect("a program that starts")
}

fn testbed(arguments: &[&str]) -> Output {
    run(script().args(arguments))
}

fn text(done: &Output) -> String {
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn errors(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

/// Whether a step was skipped for want of root, an MPI or a kernel's feature; says so.
#[expect(clippy::print_stderr, reason = "a test that skips says so")]
fn skipped(done: &Output) -> bool {
    if done.status.code() != Some(SKIPPED) {
        return false;
    }
    let required = std::env::var("LAGGARD_REQUIRE").unwrap_or_default();
    assert!(
        !required.contains("testbed"),
        "LAGGARD_REQUIRE asks for the testbed: {}",
        errors(done)
    );
    eprintln!("skipped: {}", errors(done).trim());
    true
}

/// Whether a bed of several hosts can be made with this MPI.
fn offers(mpi: &str) -> bool {
    !skipped(&testbed(&[
        "run", "--hosts", "2", "--mpi", mpi, "--quota", "0:90", "--", "true",
    ]))
}

/// Sends a signal to processes.
fn send(signal: &str, ids: &[String]) {
    assert!(!ids.is_empty(), "nobody to send {signal} to");
    let line = format!("kill -{signal} {}", ids.join(" "));
    run(Command::new("sh").args(["-c", &line]));
}

#[test]
fn ranks_are_on_their_hosts_and_see_the_callers_variables() {
    for (mpi, hosts) in MPIS.iter().flat_map(|mpi| [(mpi, "1"), (mpi, "3")]) {
        let bed = Bed::new("who");
        let arguments = ["run", "--name", &bed.name, "--hosts", hosts, "--mpi", mpi];
        let command = ["--ranks-per-host", "2", "--", "sh", "-c", WHO];
        let done = testbed(&[&arguments[..], &command[..]].concat());
        if skipped(&done) {
            continue;
        }
        assert_eq!(done.status.code(), Some(0), "{mpi}: {}", errors(&done));
        let here = text(&run(&mut Command::new("hostname")));
        let expected: BTreeSet<String> = match hosts {
            "1" => (0..2)
                .map(|rank| format!("{} {rank} seen", here.trim()))
                .collect(),
            _ => (0..6)
                .map(|rank| format!("h{} {rank} seen", rank / 2))
                .collect(),
        };
        let found: BTreeSet<String> = text(&done).lines().map(str::to_owned).collect();
        assert_eq!(found, expected, "{mpi}");
        bed.check_gone();
    }
}

#[test]
fn the_exit_code_is_the_commands() {
    for (mpi, hosts) in MPIS.iter().flat_map(|mpi| [(mpi, "1"), (mpi, "2")]) {
        let check = |more: &[&str], expected: i32| {
            let bed = Bed::new("code");
            let arguments = ["run", "--name", &bed.name, "--hosts", hosts, "--mpi", mpi];
            let done = testbed(&[&arguments[..], more].concat());
            if !skipped(&done) {
                assert_eq!(
                    done.status.code(),
                    Some(expected),
                    "{mpi}: {}",
                    errors(&done)
                );
                bed.check_gone();
            }
        };
        check(&["--", "sh", "-c", "exit 7"], 7);
        // Also those who left their parents behind are killed when the time is up.
        let hang = "setsid sleep 1000 & sleep 1000";
        check(&["--timeout", "1", "--", "sh", "-c", hang], 124);
    }
}

#[test]
fn bad_arguments_are_refused() {
    let check = |arguments: &[&str], expected: &str| {
        let done = testbed(arguments);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}");
        let said = errors(&done);
        assert!(said.contains(expected) && said.contains("hint: "), "{said}");
    };
    check(&[], "no command of testbed.sh");
    check(&["run", "--hosts", "2"], "no command");
    check(&["run", "--hosts"], "lacks its value");
    check(&["run", "--hosts", "9", "--", "true"], "--hosts is 1 to 8");
    check(
        &["run", "--ranks-per-host", "08", "--", "true"],
        "from 1, not '08'",
    );
    check(&["run", "--mpi", "mvapich", "--", "true"], "not 'mvapich'");
    check(&["run", "--timeout", "0", "--", "true"], "not '0'");
    check(
        &["run", "--slow-host", "2:1mbit", "--", "true"],
        "a host below 2",
    );
    check(
        &["run", "--slow-host", "1:fast", "--", "true"],
        "not '1:fast'",
    );
    check(
        &["run", "--quota", "2:50", "--", "true"],
        "one of the bed's ranks",
    );
    check(&["run", "--name", "../up", "--", "true"], "not '../up'");
    check(&["exec", "nowhere", "h0", "--", "true"], "no bed 'nowhere'");
}

#[test]
fn a_slow_host_is_limited_in_both_directions() {
    let bed = Bed::new("slow");
    let done = testbed(&["up", &bed.name, "--hosts", "3", "--slow-host", "1:100mbit"]);
    if skipped(&done) {
        return;
    }
    assert_eq!(done.status.code(), Some(0), "{}", errors(&done));
    let check = |host: &str, device: &str, limited: bool| {
        let show = [
            "exec", &bed.name, host, "--", "tc", "qdisc", "show", "dev", device,
        ];
        let done = testbed(&show);
        let said = text(&done);
        assert_eq!(
            said.contains("tbf") && said.contains("100Mbit"),
            limited,
            "{host}: {said}{}",
            errors(&done)
        );
    };
    check("h1", "eth0", true);
    check("login", "e1", true);
    check("h0", "eth0", false);
    check("login", "e2", false);
    bed.down();
    bed.check_gone();
}

#[test]
fn only_a_rank_with_a_quota_is_limited() {
    for (mpi, hosts) in MPIS.iter().flat_map(|mpi| [(mpi, "1"), (mpi, "2")]) {
        let bed = Bed::new("quota");
        let each = if hosts == "1" { "4" } else { "2" };
        let say = "echo \"${OMPI_COMM_WORLD_RANK:-$PMI_RANK} $(tr '\\n' ' ' </proc/self/cgroup)\"";
        let arguments = ["run", "--name", &bed.name, "--hosts", hosts, "--mpi", mpi];
        let command = [
            "--ranks-per-host",
            each,
            "--quota",
            "2:20",
            "--",
            "sh",
            "-c",
            say,
        ];
        let done = testbed(&[&arguments[..], &command[..]].concat());
        if skipped(&done) {
            continue;
        }
        assert_eq!(done.status.code(), Some(0), "{mpi}: {}", errors(&done));
        let group = format!("laggard-testbed.{}.r2", bed.name);
        for rank in 0..4 {
            let said = text(&done);
            let line = said
                .lines()
                .find(|line| line.starts_with(&rank.to_string()));
            let line = line.expect("a line of each rank");
            assert_eq!(line.contains(&group), rank == 2, "{mpi}: {line}");
        }
        bed.check_gone();
    }
}

/// Starts a run whose ranks stay, also as orphans, and returns once all of them have said so.
fn start(bed: &Bed, mpi: &str, hosts: usize) -> (Child, BufReader<std::process::ChildStdout>) {
    let stay = "setsid sleep 1000 & echo up; exec sleep 1000";
    // Whoever starts tests in the background may have left SIGINT ignored.
    let mut child = Command::new("env")
        .args(["--default-signal=INT,TERM".as_ref(), script().get_program()])
        .args(["run", "--name", &bed.name, "--hosts", &hosts.to_string()])
        .args(["--mpi", mpi, "--ranks-per-host", "2", "--quota", "0:90"])
        .args(["--timeout", "60", "--", "sh", "-c", stay])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the script starts");
    let mut output = BufReader::new(child.stdout.take().expect("its output"));
    for _ in 0..2 * hosts {
        let mut line = String::new();
        output.read_line(&mut line).expect("what a rank says");
        assert_eq!(line, "up\n");
    }
    assert!(
        bed.processes().len() > 2 * hosts,
        "the bed's processes can be seen"
    );
    (child, output)
}

#[test]
fn nothing_is_left_after_signals() {
    for mpi in MPIS.into_iter().filter(|mpi| offers(mpi)) {
        for (hosts, signal, code) in [1, 3]
            .into_iter()
            .flat_map(|hosts| [(hosts, "INT", 130), (hosts, "TERM", 143)])
        {
            let bed = Bed::new("signal");
            let (mut child, _output) = start(&bed, mpi, hosts);
            send(signal, &[child.id().to_string()]);
            let status = child.wait().expect("its end");
            assert_eq!(status.code(), Some(code), "{mpi} {hosts} {signal}");
            bed.check_gone();
        }
    }
}

/// Each script sweeps up beds whose owner was killed; between the look and the sweep, the next bed
/// of the same name may have been made.
#[test]
fn a_name_can_be_used_again_while_others_sweep() {
    let bed = Bed::new("again");
    let owner = bed.owner();
    let lock = Lock::take();

    fs::create_dir_all(Path::new(&owner).parent().expect("a folder")).expect("a bed");
    fs::write(&owner, "1 0\n").expect("a dead owner");
    let mut other = script()
        .args(["run", "--hosts", "1", "--", "true"])
        .stderr(Stdio::null())
        .spawn()
        .expect("the script starts");
    std::thread::sleep(std::time::Duration::from_millis(500));
    let stat = fs::read_to_string("/proc/self/stat").expect("this process");
    let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
    let started = fields.split(' ').nth(19).expect("when it started");
    fs::write(&owner, format!("{} {started}\n", std::process::id())).expect("a new owner");
    drop(lock);
    other.wait().expect("its end");
    assert!(Path::new(&owner).exists(), "a bed in use was swept up");
}

/// Who sweeps reads who owns a bed and then whether that lives: a script must not end in between.
#[test]
#[expect(clippy::print_stderr, reason = "a test that shows nothing says so")]
fn a_script_hands_its_bed_over_while_nobody_sweeps() {
    for _ in 0..20 {
        let bed = Bed::new("handed");
        let mut up = script()
            .args(["up", &bed.name, "--hosts", "2"])
            .stderr(Stdio::null())
            .spawn()
            .expect("the script starts");
        let mine = format!("{} ", up.id());
        let is_mine =
            || fs::read_to_string(bed.owner()).is_ok_and(|owner| owner.starts_with(&mine));
        while !is_mine() {
            match up.try_wait().expect("a state") {
                Some(status) if status.code() == Some(SKIPPED) => return,
                Some(status) => panic!("the bed was not built: {status}"),
                None => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        }
        let lock = Lock::take();
        // Else it came too late.
        if is_mine() {
            std::thread::sleep(std::time::Duration::from_secs(1));
            let still = up.try_wait().expect("a state").is_none() && is_mine();
            drop(lock);
            assert!(still, "the bed had no living owner for a moment");
            assert_eq!(up.wait().expect("its end").code(), Some(0));
            bed.down();
            bed.check_gone();
            return;
        }
        drop(lock);
        up.wait().expect("its end");
    }
    eprintln!("UNDECIDED: all beds were up before a look at them");
}

#[test]
fn down_removes_what_a_killed_script_left() {
    for (mpi, hosts) in MPIS.into_iter().flat_map(|mpi| [(mpi, 1), (mpi, 3)]) {
        if offers(mpi) {
            let bed = Bed::new("killed");
            let (mut child, _output) = start(&bed, mpi, hosts);
            send("KILL", &[child.id().to_string()]);
            child.wait().expect("its end");
            bed.down();
            bed.check_gone();
        }
    }
}

#[test]
fn orphans_of_a_killed_launcher_are_killed() {
    for (mpi, hosts) in MPIS.into_iter().flat_map(|mpi| [(mpi, 1), (mpi, 3)]) {
        if offers(mpi) {
            let bed = Bed::new("launcher");
            let (mut child, _output) = start(&bed, mpi, hosts);
            let launchers = bed.processes().into_iter().filter(|id| {
                let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
                ["mpirun", "orterun", "mpiexec"]
                    .iter()
                    .any(|known| name.starts_with(known))
            });
            send("KILL", &launchers.collect::<Vec<_>>());
            assert_eq!(
                child.wait().expect("its end").code(),
                Some(137),
                "{mpi} {hosts}"
            );
            bed.check_gone();
        }
    }
}

#[test]
fn one_host_can_be_killed() {
    let bed = Bed::new("host");
    let done = testbed(&["up", &bed.name, "--hosts", "3"]);
    if skipped(&done) {
        return;
    }
    assert_eq!(done.status.code(), Some(0), "{}", errors(&done));
    let pids = testbed(&["pids", &bed.name, "h1"]);
    let pids: Vec<String> = text(&pids).lines().map(str::to_owned).collect();
    send("KILL", &pids);
    let on = |host: &str| testbed(&["exec", &bed.name, host, "--", "hostname"]);
    for host in ["h0", "h2"] {
        let done = on(host);
        assert_eq!(text(&done), format!("{host}\n"), "{}", errors(&done));
    }
    let dead = on("h1");
    assert_eq!(dead.status.code(), Some(1));
    assert!(errors(&dead).contains("host h1"), "{}", errors(&dead));
    bed.down();
    bed.check_gone();
}
