//! Launch files of plans, given to the launchers that they are for: `mpirun` of Open MPI and MPICH
//! start every rank on the host that the table says. Hosts are emulated by starting what would
//! start there here. Skips loudly where a launcher is missing, unless `LAGGARD_REQUIRE` has `mpi`.
#![cfg(target_os = "linux")]
#![expect(clippy::print_stderr, reason = "tests that are passed over say so")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Two classes, of which a replica's stages and shares fill no host evenly.
const CLUSTER: &str = r#"
id = "two"

[[site]]
id = "here"

[[pool]]
id = "h100"
site = "here"
accelerator = "h100-sxm5-80gb"
count = 24
devices_per_node = 8

[[pool]]
id = "a100"
site = "here"
accelerator = "a100-sxm4-80gb"
count = 12
devices_per_node = 4
"#;

const HOSTS: &str = "x[1-3] h100 8\ny[1-3] a100 4\n";

fn laggard(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_laggard"));
    command.args(args).env_remove("LAGGARD_LOG");
    command.output().expect("the binary starts")
}

/// Plans into a folder; the launch files of an option on the listed hosts, or on placeholders.
fn plan(folder: &Path, option: Option<usize>, hosts: Option<&str>) -> Output {
    let cluster = folder.join("two.toml");
    fs::write(&cluster, CLUSTER).expect("a file");
    let (cluster, out) = (cluster.to_string_lossy(), folder.join("plan"));
    let (out, number) = (out.to_string_lossy(), option.map(|it| it.to_string()));
    let list = folder.join("hosts");
    let mut args = vec!["plan", "--cluster", &cluster, "--model", "llama3-8b"];
    args.extend(["--batch-tokens", "4194304", "-o", &out]);
    args.extend(number.iter().flat_map(|it| ["--option", it]));
    let path = list.to_string_lossy();
    if let Some(text) = hosts {
        fs::write(&list, text).expect("a file");
        args.extend(["--hosts", &path]);
    }
    laggard(&args)
}

/// The folders of the jobs that a plan has launch files of.
fn jobs(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder.join("plan/launch")) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.is_dir()).collect();
    paths.sort();
    paths
}

/// The host of each rank, by the table.
fn hosts_of_ranks(job: &Path) -> Vec<String> {
    let table = fs::read_to_string(job.join("nodes.tsv")).expect("a table");
    let mut hosts = Vec::new();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let cells: Vec<&str> = line.split('\t').collect();
        let count: usize = cells[5].parse().expect("a number of ranks");
        hosts.extend(std::iter::repeat_n(cells[1].to_owned(), count));
    }
    hosts
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).expect("a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
}

/// Whether a launcher is there.
fn is_there(program: &str) -> bool {
    let output = Command::new(program).arg("--version").output();
    if output.is_ok_and(|output| output.status.success()) {
        return true;
    }
    let required = std::env::var("LAGGARD_REQUIRE").unwrap_or_default();
    let is_required = required.split(',').any(|name| name == "mpi");
    assert!(!is_required, "LAGGARD_REQUIRE asks for {program}");
    eprintln!("SKIPPED: {program} is missing");
    false
}

/// How often a launcher is started until it works.
const ATTEMPTS: u32 = 3;

/// Starts a job's ranks as its script says, with a launcher that starts them all here; the host
/// that each rank was started for.
fn started(job: &Path, launcher: &str, mpirun: &str) -> BTreeMap<usize, String> {
    let wrapper = job.join("wrapper");
    executable(&wrapper, mpirun);
    // Hosts that are one machine must not share Open MPI's folder of a session.
    let agent = "#!/bin/bash\nexport EMULATED_HOST=$1 TMPDIR=$(dirname \"$0\")/tmp-$1\n\
                 mkdir -p \"$TMPDIR\"\nshift\nexec bash -c \"$*\"\n";
    executable(&job.join("agent"), agent);
    let start = || {
        let output = Command::new(job.join("mpirun.sh"))
            .args([launcher, "bash", "-c"])
            .arg("echo \"${OMPI_COMM_WORLD_RANK:-} ${EMULATED_HOST:-}\"")
            .env("MPIRUN", &wrapper)
            .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
            .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
            .output();
        output.expect("a script")
    };
    // Where the ranks are is asked here, not whether launchers start several daemons on one machine
    // without ever getting into each other's way: now and then they do.
    let mut output = start();
    for _ in 1..ATTEMPTS {
        if output.status.success() {
            break;
        }
        eprintln!("{launcher} failed: {}", told(&output));
        output = start();
    }
    let (ended, words) = (output.status, told(&output));
    assert!(ended.success(), "{launcher}, {}: {words}", job.display());
    let stdout = String::from_utf8_lossy(&output.stdout);
    let pairs = stdout.lines().map(|line| {
        let (rank, host) = line.trim().split_once(' ').expect("rank and host");
        (rank.parse().expect("a rank"), host.trim().to_owned())
    });
    pairs.collect()
}

fn told(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Wrappers of both launchers.
fn wrappers() -> Vec<(&'static str, &'static str)> {
    let open_mpi = "#!/bin/bash\nexec timeout 60 mpirun.openmpi \
                    --mca plm_rsh_agent \"$(dirname \"$0\")/agent\" \"$@\"\n";
    // It prints rank and host itself, in front of the program's empty line.
    let mpich = "#!/bin/bash\nexec timeout 60 mpirun.mpich -launcher fork \
                 -prepend-pattern '%r %h ' \"$@\"\n";
    let all = [
        ("openmpi", "mpirun.openmpi", open_mpi),
        ("mpich", "mpirun.mpich", mpich),
    ];
    let there = all.into_iter().filter(|(_, program, _)| is_there(program));
    there.map(|(name, _, wrapper)| (name, wrapper)).collect()
}

#[test]
fn launchers_start_every_rank_where_the_plan_has_it() {
    let wrappers = wrappers();
    let mut checked = 0;
    for option in 1..=4 {
        let folder = tempfile::tempdir().expect("a folder");
        let output = plan(folder.path(), Some(option), Some(HOSTS));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        for job in jobs(folder.path()) {
            let expect = hosts_of_ranks(&job);
            checked += expect.len();
            for (launcher, wrapper) in &wrappers {
                let found = started(&job, launcher, wrapper);
                let found: Vec<String> = found.into_values().collect();
                assert_eq!(found, expect, "{launcher}, option {option}");
            }
        }
    }
    assert!(checked > 60, "{checked} ranks");
}

#[test]
fn scripts_are_scripts_and_can_be_started() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = plan(folder.path(), None, None);
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(talk.contains("with placeholders for hosts"), "{talk}");
    let mut scripts = 0;
    for job in jobs(folder.path()) {
        for entry in fs::read_dir(&job).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|extension| extension != "sh") {
                continue;
            }
            scripts += 1;
            let mode = fs::metadata(&path).expect("a file").permissions().mode();
            assert_eq!(mode & 0o111, 0o111, "{}", path.display());
            let checked = Command::new("bash").arg("-n").arg(&path).output();
            assert!(
                checked.expect("bash").status.success(),
                "{}",
                path.display()
            );
        }
    }
    assert!(scripts >= 3, "{scripts}");
}

/// The number of the first option with so many jobs, by the plan that is in a folder.
fn option_of_jobs(folder: &Path, count: usize) -> usize {
    let text = fs::read_to_string(folder.join("plan/plan.json")).expect("a plan");
    let plan: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let options = plan["options"].as_array().expect("options");
    let jobs = |option: &serde_json::Value| option["jobs"].as_array().map_or(0, Vec::len);
    let option = options.iter().find(|option| jobs(option) == count);
    let number = option.expect("an option")["number"].as_u64();
    number.expect("a number") as usize
}

#[test]
fn only_what_an_earlier_plan_wrote_is_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(plan(folder.path(), None, None).status.success());
    let [two, one] = [2, 1].map(|count| option_of_jobs(folder.path(), count));
    let again = |option: usize| {
        let output = plan(folder.path(), Some(option), None);
        assert!(output.status.success(), "{}", told(&output));
        told(&output)
    };
    again(two);
    let [first, second] = &jobs(folder.path())[..] else {
        panic!("two jobs");
    };
    // A job that is there no more goes as a whole.
    again(one);
    assert!(first.is_dir() && !second.exists());
    // What somebody put there or changed stays.
    again(two);
    fs::write(second.join("notes"), "mine\n").expect("a file");
    fs::write(second.join("mpirun.sh"), "mine\n").expect("a file");
    assert!(second.join("slurm.sh").exists());
    let talk = again(one);
    assert!(
        talk.contains("kept, since it was changed") && talk.contains("mpirun.sh"),
        "{talk}"
    );
    let mut left: Vec<_> = fs::read_dir(second).expect("a folder").collect();
    left.retain(|entry| entry.is_ok());
    assert_eq!(left.len(), 2, "{left:?}");
    // A list that names something elsewhere removes nothing there.
    let outside = folder.path().join("outside");
    fs::write(&outside, "mine\n").expect("a file");
    let list = folder.path().join("plan/launch.files");
    let text = fs::read_to_string(&list).expect("a list");
    let (hash, _) = text.split_once(' ').expect("a line");
    let readme = fs::read_to_string(first.join("README.txt")).expect("a file");
    fs::write(&outside, readme).expect("a file");
    let line = format!("{hash} ../../outside\n");
    fs::write(&list, line).expect("a file");
    again(one);
    assert!(outside.exists());
}

#[test]
fn bad_lists_of_hosts_and_options_are_refused() {
    let check = |option: Option<usize>, hosts: &str, says: &[&str]| {
        let folder = tempfile::tempdir().expect("a folder");
        let output = plan(folder.path(), option, Some(hosts));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_ne!(output.status.code(), Some(0), "{stderr}");
        for part in says {
            assert!(stderr.contains(part), "`{part}` is not in: {stderr}");
        }
    };
    check(None, "x1 h100 eight\n", &["line 1", "above zero", "hint:"]);
    check(
        None,
        "x1 v100 8\n",
        &["none of the plan's classes", "h100, a100"],
    );
    check(Some(1), "x1 h100 8\ny1 a100 4\n", &["take only", "--hosts"]);
    check(Some(99), HOSTS, &["no option 99", "hint:"]);
}
