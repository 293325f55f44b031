//! The rules of the house that no compiler checks. Each rule takes text and returns what is wrong
//! with it; one test applies it to the repository, another to text that must be refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may use whom, as in ARCHITECTURE.md; normal and build dependencies alone.
const LAYERS: &[(&str, &[&str])] = &[
    ("laggard-types", &[]),
    ("laggard-stats", &[]),
    ("laggard-specs", &["schedule", "types"]),
    ("laggard-schedule", &["types"]),
    ("laggard-record", &["schedule", "types"]),
    ("laggard-backend", &["types"]),
    ("laggard-cuda", &["backend", "types"]),
    ("laggard-mpi", &["backend", "types"]),
    ("laggard-mpi-plugin", &[]),
    ("laggard-import", &["record", "schedule", "types"]),
    (
        "laggard-analyze",
        &["record", "schedule", "specs", "stats", "types"],
    ),
    (
        "laggard-simulate",
        &["record", "schedule", "specs", "stats", "types"],
    ),
    (
        "laggard-measure",
        &["backend", "record", "schedule", "specs", "stats", "types"],
    ),
    (
        "laggard-plan",
        &["schedule", "simulate", "specs", "stats", "types"],
    ),
    (
        "laggard-report",
        &["analyze", "plan", "record", "specs", "types"],
    ),
    (
        "laggard-cli",
        &[
            "analyze", "backend", "cuda", "import", "measure", "mpi", "plan", "record", "report",
            "schedule", "simulate", "specs", "stats", "types",
        ],
    ),
];
/// Crates that take values and return values.
const PURE: &[&str] = &[
    "types", "stats", "specs", "schedule", "analyze", "simulate", "plan",
];
/// What a pure crate cannot name: clocks, files, environment, network, processes, printing.
const IMPURE: &[&str] = &[
    "Instant",
    "SystemTime",
    "fs::",
    "std::fs",
    "env::",
    "std::env",
    "std::net",
    "process::",
    "println!",
    "print!",
    "eprintln!",
    "eprint!",
    "dbg!",
];
/// What the analysis is measured against and so cannot read.
const TRUTH: &[&str] = &["truth", "injected_faults"];
/// Names of files that collect what nobody placed.
const NAMELESS: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "misc", "manager",
];
/// Longest source file, in lines, and longest line, in characters.
const MOST_LINES: usize = 500;
const MOST_COLUMNS: usize = 100;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below a directory as its path from the root, without hidden files and build outputs.
fn files_below(directory: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from(directory)];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(root().join(&at)).expect("a directory that can be listed") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            let path = at.join(name);
            if entry.file_type().expect("a file type").is_dir() {
                open.push(path);
            } else {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{directory} holds no files");
    found
}

fn rust_files() -> Vec<String> {
    let all = files_below("crates")
        .into_iter()
        .chain(files_below("benches"));
    all.filter(|path| path.ends_with(".rs")).collect()
}

/// Applies a rule to files, and fails with all that it finds.
fn hold(paths: impl IntoIterator<Item = String>, rule: impl Fn(&str, &str) -> Vec<String>) {
    let mut applied = 0;
    let mut wrong = Vec::new();
    for path in paths {
        applied += 1;
        wrong.extend(rule(&path, &read(&root().join(&path))));
    }
    assert!(applied > 0, "the rule was applied to no file");
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Whether `word` stands in a line with no letter, digit or underscore before it.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|before| before.is_alphanumeric() || before == '_')
    })
}

fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// The workspace's own crates that a manifest needs to be built, under their true names.
fn needs(manifest: &toml::Table) -> BTreeSet<String> {
    let mut tables = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        tables.extend(targets.values().filter_map(toml::Value::as_table));
    }
    let sections = ["dependencies", "build-dependencies"];
    let sections = tables
        .into_iter()
        .flat_map(|table| sections.map(|name| table.get(name)));
    let entries = sections
        .flatten()
        .filter_map(toml::Value::as_table)
        .flatten();
    let name = |(key, value): (&String, &toml::Value)| {
        let renamed = value.get("package").and_then(toml::Value::as_str);
        renamed.unwrap_or(key).to_owned()
    };
    entries
        .map(name)
        .filter(|name| name.starts_with("laggard-"))
        .collect()
}

fn layering(path: &str, text: &str) -> Vec<String> {
    let manifest: toml::Table = match text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return vec![format!("{path}: {error}")],
    };
    let name = manifest["package"]["name"].as_str().unwrap_or_default();
    let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
        return vec![format!("{path}: `{name}` has no place in the layering")];
    };
    needs(&manifest)
        .iter()
        .filter(|needed| {
            !allowed
                .iter()
                .any(|allowed| format!("laggard-{allowed}") == **needed)
        })
        .map(|needed| format!("{path}: `{name}` may not use `{needed}`"))
        .collect()
}

fn lines_too_long(path: &str, text: &str) -> Vec<String> {
    let long = |(_, line): &(usize, &str)| line.chars().count() > MOST_COLUMNS;
    let lines = text.lines().enumerate().filter(long);
    lines
        .map(|(at, _)| format!("{path}:{}: over {MOST_COLUMNS} columns", at + 1))
        .collect()
}

fn too_many_lines(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    let over = lines > MOST_LINES;
    over.then(|| format!("{path}: {lines} lines, over {MOST_LINES}"))
        .into_iter()
        .collect()
}

fn nameless(path: &str) -> Option<String> {
    let stem = |part: &str| part.split('.').next().unwrap_or(part).to_lowercase();
    let bad = path
        .split('/')
        .map(stem)
        .find(|part| NAMELESS.contains(&part.as_str()))?;
    Some(format!("{path}: `{bad}` says nothing"))
}

fn impure(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let code = code_of(line);
        let hits = IMPURE.iter().filter(|word| names(code, word));
        wrong.extend(hits.map(|word| format!("{path}:{}: `{word}` in a pure crate", at + 1)));
    }
    wrong
}

/// Comments count too: an analysis that speaks of the answer is about to look at it.
fn mentions_truth(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    let hit = |(_, line): &(usize, &str)| {
        let line = line.to_lowercase();
        TRUTH.iter().any(|word| line.contains(word))
    };
    lines
        .filter(hit)
        .map(|(at, _)| format!("{path}:{}: the truth", at + 1))
        .collect()
}

/// Entries of a table of hardware, models or rates without a source.
fn without_source(path: &str, text: &str) -> Vec<String> {
    let tables: toml::Table = match text.parse() {
        Ok(tables) => tables,
        Err(error) => return vec![format!("{path}: {error}")],
    };
    let named = |entry: &toml::Value| {
        let one = entry.get("source").and_then(toml::Value::as_str);
        let many = entry.get("sources").and_then(toml::Value::as_array);
        let many = many.into_iter().flatten().filter_map(toml::Value::as_str);
        let mut all = one.into_iter().chain(many).peekable();
        all.peek().is_some() && all.all(|source| !source.trim().is_empty())
    };
    let mut wrong = Vec::new();
    for (kind, entries) in &tables {
        let Some(entries) = entries.as_array().filter(|entries| !entries.is_empty()) else {
            wrong.push(format!("{path}: `{kind}` is no list of entries"));
            continue;
        };
        for entry in entries.iter().filter(|entry| !named(entry)) {
            let id = entry.get("id").and_then(toml::Value::as_str).unwrap_or("?");
            wrong.push(format!("{path}: {kind} `{id}` has no source"));
        }
    }
    if tables.is_empty() {
        wrong.push(format!("{path}: no entries"));
    }
    wrong
}

/// Names that a text does not hold in backquotes.
fn unlisted(text: &str, names: &[String]) -> Vec<String> {
    let missing = names
        .iter()
        .filter(|name| !text.contains(&format!("`{name}`")));
    missing
        .map(|name| format!("ARCHITECTURE.md does not list `{name}`"))
        .collect()
}

fn manifests() -> Vec<String> {
    let all = files_below("crates").into_iter();
    all.filter(|path| path.ends_with("/Cargo.toml")).collect()
}

fn sources_of(name: &str) -> Vec<String> {
    let all = files_below(&format!("crates/laggard-{name}/src")).into_iter();
    all.filter(|path| path.ends_with(".rs")).collect()
}

#[test]
fn crates_use_only_what_lies_below_them() {
    hold(manifests(), layering);
}

#[test]
fn layering_refuses_upward_renamed_and_unknown() {
    let check = |name: &str, rest: &str| {
        layering("x", &format!("[package]\nname = \"{name}\"\n{rest}")).len()
    };
    assert_eq!(
        check(
            "laggard-specs",
            "[dependencies]\nlaggard-types.workspace = true"
        ),
        0
    );
    assert_eq!(
        check(
            "laggard-specs",
            "[dependencies]\nlaggard-record.workspace = true"
        ),
        1
    );
    let renamed = "[dependencies]\nr = { package = \"laggard-record\", path = \"r\" }";
    assert_eq!(check("laggard-specs", renamed), 1);
    let target = "[target.'cfg(unix)'.dependencies]\nlaggard-record.workspace = true";
    assert_eq!(check("laggard-specs", target), 1);
    assert_eq!(
        check(
            "laggard-specs",
            "[dev-dependencies]\nlaggard-record.workspace = true"
        ),
        0
    );
    assert_eq!(check("laggard-unheard-of", ""), 1);
}

#[test]
fn lines_fit_the_page() {
    hold(rust_files(), lines_too_long);
    assert_eq!(lines_too_long("x", &"é".repeat(MOST_COLUMNS)).len(), 0);
    assert_eq!(lines_too_long("x", &"x".repeat(MOST_COLUMNS + 1)).len(), 1);
}

#[test]
fn source_files_are_short() {
    let is_source = |path: &String| {
        path.contains("/src/") && !path.contains("/tests/") && !path.ends_with("/tests.rs")
    };
    hold(rust_files().into_iter().filter(is_source), too_many_lines);
    assert_eq!(too_many_lines("x", &"\n".repeat(MOST_LINES)).len(), 0);
    assert_eq!(too_many_lines("x", &"\n".repeat(MOST_LINES + 1)).len(), 1);
}

#[test]
fn files_have_names_that_say_something() {
    let roots = ["crates", "benches", "kernels", "scripts", "docs"];
    let present = roots.into_iter().filter(|name| {
        fs::read_dir(root().join(name)).is_ok_and(|mut entries| entries.next().is_some())
    });
    let wrong: Vec<String> = present
        .flat_map(files_below)
        .filter_map(|path| nameless(&path))
        .collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    for bad in [
        "a/src/utils.rs",
        "a/src/Common/mod.rs",
        "b/manager.tests.rs",
    ] {
        assert!(nameless(bad).is_some(), "{bad}");
    }
    assert!(nameless("a/src/uncommon.rs").is_none());
}

#[test]
fn pure_crates_touch_no_clock_file_or_terminal() {
    hold(PURE.iter().flat_map(|name| sources_of(name)), impure);
    let clock = "use std::time::Instant;";
    for bad in [
        clock,
        "fs::read(path)",
        "use std::fs;",
        "std::env::var(x)",
        "  println!();",
    ] {
        assert!(!impure("x", bad).is_empty(), "{bad}");
    }
    for good in [
        "// no Instant here",
        "let offs::x = 1",
        "LastInstant",
        "snapshot_env",
    ] {
        assert!(impure("x", good).is_empty(), "{good}");
    }
}

#[test]
fn the_analysis_never_reads_the_answer() {
    hold(sources_of("analyze"), mentions_truth);
    assert_eq!(
        mentions_truth("x", "let a = manifest.injected_faults;").len(),
        1
    );
    assert_eq!(mentions_truth("x", "// the Truth\n").len(), 1);
}

#[test]
fn every_table_entry_has_a_source() {
    let tables = files_below("crates/laggard-specs/data").into_iter();
    // Clusters are no lists; the tests of their crate hold them to the same.
    let is_table = |path: &String| path.ends_with(".toml") && !path.contains("/clusters/");
    hold(tables.filter(is_table), without_source);
    let check = |entry: &str| without_source("x", &format!("[[model]]\nid = \"m\"\n{entry}")).len();
    assert_eq!(check("sources = [\"https://example.org\"]"), 0);
    assert_eq!(check("source = \"a paper\""), 0);
    for bad in ["", "sources = []", "sources = [\" \"]", "source = \"\""] {
        assert_eq!(check(bad), 1, "{bad}");
    }
    assert_eq!(without_source("x", "").len(), 1);
}

#[test]
fn architecture_lists_every_crate_and_every_unsafe_file() {
    let package = |path: String| {
        let manifest: toml::Table = read(&root().join(path)).parse().expect("a manifest");
        manifest["package"]["name"]
            .as_str()
            .expect("a name")
            .to_owned()
    };
    let mut wanted: Vec<String> = manifests().into_iter().map(package).collect();
    let allows_unsafe = |path: &String| {
        let text = read(&root().join(path));
        text.lines()
            .any(|line| names(code_of(line).trim_start(), "unsafe_code,"))
    };
    let unsafe_files: Vec<String> = rust_files()
        .into_iter()
        .filter(|path| path.contains("/src/"))
        .filter(allows_unsafe)
        .collect();
    assert!(
        !unsafe_files.is_empty(),
        "the search for unsafe code finds none"
    );
    wanted.extend(unsafe_files);
    let wrong = unlisted(&read(&root().join("ARCHITECTURE.md")), &wanted);
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    assert_eq!(
        unlisted("`laggard-types`", &["laggard-typ".to_owned()]).len(),
        1
    );
}
