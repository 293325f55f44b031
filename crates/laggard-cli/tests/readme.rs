//! The README's table of commands against what the binary offers.

use std::collections::BTreeSet;
use std::process::Command;

/// What every command has, and what needs no word.
const EVERYWHERE: [&str; 3] = ["--help", "--verbose", "--quiet"];

fn readme() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    std::fs::read_to_string(path).expect("the README")
}

/// Long options of a text, without what follows them.
fn options(text: &str) -> BTreeSet<String> {
    let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
    let words = text.split(ends).filter(|word| word.starts_with("--"));
    words.filter(|it| it.len() > 2).map(str::to_owned).collect()
}

/// Each option of a command's help as the names by which it can be given, the long one last.
fn offered(command: &[&str]) -> Vec<Vec<String>> {
    let mut laggard = Command::new(env!("CARGO_BIN_EXE_laggard"));
    let output = laggard.args(command).arg("--help").output().expect("help");
    let help = String::from_utf8(output.stdout).expect("text");
    let lines = help.lines().map(str::trim_start);
    let names = |line: &str| {
        let names = line
            .split([' ', '<', '[', '.'])
            .map(|it| it.trim_end_matches(','));
        let names = names.take_while(|it| it.starts_with('-'));
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let all = lines.filter(|line| line.starts_with('-')).map(names);
    all.filter(|names| names.last().is_some_and(|it| it.starts_with("--")))
        .collect()
}

#[test]
fn the_readme_names_every_option_and_no_other() {
    let readme = readme();
    let named = options(&readme);
    let rows = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `laggard "));
    let mut commands = 0;
    for row in rows {
        // Some have commands of their own, as `specs list\|show`.
        let mut words = row.split('`').next().unwrap_or_default().split(' ');
        let command = words.next().expect("a command");
        let below = words.next().filter(|it| it.contains("\\|"));
        let offered: Vec<_> = match below {
            Some(below) => {
                let each = below.split("\\|");
                each.flat_map(|it| offered(&[command, it])).collect()
            }
            None => offered(&[command]),
        };
        assert!(!offered.is_empty(), "laggard {command} --help");
        commands += 1;
        for names in &offered {
            let stands = names.iter().any(|name| match name.strip_prefix("--") {
                Some(_) => named.contains(name) || EVERYWHERE.contains(&name.as_str()),
                None => row.contains(&format!("`{name}`")),
            });
            assert!(
                stands,
                "laggard {command}: README.md does not name {names:?}"
            );
        }
        for option in options(row) {
            let is_offered = offered.iter().any(|names| names.contains(&option));
            assert!(
                is_offered,
                "laggard {command}: README.md names {option}, which is not there"
            );
        }
    }
    assert!(commands > 10, "{commands} commands in the README's table");
}
