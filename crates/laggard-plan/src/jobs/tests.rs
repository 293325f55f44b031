use super::*;

fn refusal(text: &str) -> String {
    let tables = Tables::builtin().expect("tables");
    read_jobs(text, &tables)
        .expect_err("must be refused")
        .to_string()
}

#[test]
fn a_job_has_what_is_said_and_leaves_the_rest_open() {
    let tables = Tables::builtin().expect("tables");
    let text = "[[job]]\nmodel = \"llama3-70b\"\n\n[[job]]\nname = \"big\"\nmodel = \"grok-1\"\n\
                tokens = 1e12\nbatch_tokens = 4194304\ndeadline_days = 90\nweight = 2\n\
                sequence_length = 4096\nfewest_devices = 64\n";
    let jobs = read_jobs(text, &tables).expect("two jobs");
    let names: Vec<&str> = jobs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["llama3-70b", "big"]);
    let plain = jobs[0].1;
    assert_eq!((plain.tokens, plain.deadline_days), (None, None));
    assert_eq!((plain.weight, plain.fewest_devices), (1.0, 0));
    let big = jobs[1].1;
    assert_eq!(
        (big.tokens, big.batch_tokens),
        (Some(1e12), Some(4_194_304))
    );
    assert_eq!((big.deadline_days, big.weight), (Some(90.0), 2.0));
    assert_eq!((big.sequence_length, big.fewest_devices), (Some(4096), 64));
    assert_eq!(big.model.id, "grok-1");
}

#[test]
fn what_cannot_be_is_refused_with_its_line() {
    let check = |text: &str, parts: &[&str]| {
        let refusal = refusal(text);
        for part in parts {
            assert!(refusal.contains(part), "`{part}` is not in: {refusal}");
        }
    };
    let with = |line: &str| format!("[[job]]\nmodel = \"grok-1\"\n{line}\n");
    check(
        &with("tokens = -1e12"),
        &["line 3, column 10", "tokens", "-1000000000000"],
    );
    check(&with("weight = nan"), &["line 3", "weight", "NaN"]);
    check(&with("deadline_days = 0"), &["line 3", "deadline_days"]);
    check(
        &with("sequence_length = 0"),
        &["line 3, column 19", "sequence_length"],
    );
    check(&with("batch_tokens = 0"), &["line 3", "batch_tokens"]);
    check(&with("batch_tokens = -4"), &["line 3"]);
    check(&with("batch_tokens = 1.5"), &["line 3", "batch_tokens"]);
    let thousands = with("batch_tokens = 4e6");
    let tables = Tables::builtin().expect("tables");
    let jobs = read_jobs(&thousands, &tables).expect("a job");
    assert_eq!(jobs[0].1.batch_tokens, Some(4_000_000));
    check(&with("tokns = 1"), &["line 3", "tokns"]);
    check("[[job]]\nmodel = \"grok\"\n", &["line 2, column 9", "grok"]);
    check(
        &(with("") + &with("")),
        &["line 5", "two jobs are called grok-1"],
    );
    let named = |name: &str| with(&format!("name = \"{name}\""));
    check(
        &named("../up"),
        &["line 3, column 8", "a job's name begins"],
    );
    check(&named(""), &["a job's name begins"]);
    check(&(named("a.b") + &named("A-b")), &["line 6", "nearly so"]);
    check("", &["0 jobs", "[[job]]"]);
    check("[[job]", &["cannot read the jobs", "line 1"]);
}
