//! The real binary on plans of what is left of a cluster, and on plans made again.

use crate::{json, refused, works};
use serde_json::Value;

const COLOSSUS: [&str; 5] = ["plan", "--cluster", "colossus-1", "--model", "grok-1"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&COLOSSUS[..], more].concat()
}

fn count(plan: &Value, name: &str) -> u64 {
    plan["again"][name].as_u64().expect("a count")
}

#[test]
fn what_if_devices_or_power_are_lost() {
    let plan = json(&with(&["--lose", "h100=8000"]));
    assert_eq!(plan["again"]["lost"]["h100"], 8000);
    assert_eq!(count(&plan, "devices"), 212_000);
    assert!(count(&plan, "moved") <= count(&plan, "moved_by_best"));
    assert!(count(&plan, "moved") < 212_000);
    let of_best = plan["again"]["of_best"].as_f64().expect("a share");
    assert!((0.99..=1.0).contains(&of_best), "{of_best}");
    // As much power less as a class draws: at least its devices go off.
    let plan = json(&with(&["--lose-mw", "60"]));
    let least = (60e6 / (1275.0 * 1.2)) as u64;
    assert!(count(&plan, "moved") >= least, "{}", plan["again"]);
    let page = works(&with(&["--lose", "gb200=20000"]));
    assert!(page.contains("20000 gb200 are lost"), "{page}");
    // Three jobs, one for each class, are two then: what goes on is the same.
    assert!(page.contains("2 jobs, one for each class: moves"), "{page}");
    assert!(!page.contains("is not possible"), "{page}");
}

#[test]
fn the_same_question_again_moves_nothing_and_a_wide_tolerance_keeps_what_is() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let folder = dir.path().join("plan");
    let folder = folder.to_str().expect("text");
    works(&with(&["-o", folder]));
    let before = format!("{folder}/plan.json");
    let plan = json(&with(&["--previous", &before]));
    assert_eq!(count(&plan, "moved"), 0);
    assert_eq!(
        plan["again"]["lost"].as_object().map(serde_json::Map::len),
        Some(0)
    );
    let other = ["plan", "--cluster", "colossus-1", "--model", "llama3-8b"];
    refused(
        &[&other[..], &["--previous", &before]].concat(),
        2,
        &["--previous is a plan of grok-1, not of llama3-8b"],
    );
    // By what is earned the best is another; to give up all of that moves nobody.
    let by_dollars = ["--objective", "net-dollars", "--previous", &before];
    let best = json(&with(&by_dollars));
    assert!(count(&best, "moved") > 100_000);
    let staying = &best["again"]["staying"];
    assert_eq!(staying["moved"], 0);
    assert!(staying["of_best"].as_f64() < Some(0.9), "{staying}");
    let kept = json(&with(&[&by_dollars[..], &["--tolerance", "100"]].concat()));
    assert_eq!(count(&kept, "moved"), 0);
}

#[test]
fn what_is_lost_on_a_day_is_there_until_then() {
    let args = |lost_on: &'static str, more: &[&'static str]| {
        let loss = [
            "--lose",
            "gb200=20000",
            "--start",
            "2026-12-30",
            "--lose-on",
            lost_on,
        ];
        let days = [&["--tokens", "6e13"], more].concat();
        with(&[&loss[..], &days[..]].concat())
    };
    let plan = json(&args("2027-01-02", &[]));
    let until = &plan["again"]["until"];
    let figure = |name: &str| until[name].as_f64().expect("a figure");
    assert_eq!(until["days"], 3);
    // Three days of the plan as it was, and the rest on what is left.
    let rate = 6e13 / figure("without_loss_days");
    assert!((figure("trained_tokens") / (3.0 * rate) - 1.0).abs() < 1e-9);
    let chosen = plan["again"]["chosen"].as_u64().expect("a position") as usize;
    let rest = plan["options"][chosen]["figures"]["days"]
        .as_f64()
        .expect("days");
    assert!((figure("with_loss_days") - 3.0 - rest).abs() < 1e-9);
    assert!((plan["tokens"].as_f64().expect("tokens") - (6e13 - 3.0 * rate)).abs() < 1e6);
    let later = json(&args("2027-01-05", &[]));
    let with_loss = |plan: &Value| plan["again"]["until"]["with_loss_days"].as_f64();
    assert!(with_loss(&later) < with_loss(&plan));
    let page = works(&args("2027-01-02", &[]));
    assert!(
        page.contains("Lost on 2027-01-02, 3 d after the start"),
        "{page}"
    );
    let check = |args: Vec<&str>, says: &str| refused(&args, 2, &[says, "hint: "]);
    check(
        args("2026-12-29", &[]),
        "before the job begins on 2026-12-30",
    );
    check(
        args("2027-02-30", &[]),
        "cannot read --lose-on `2027-02-30`",
    );
    check(args("2047-01-01", &[]), "before anything is lost");
    check(with(&["--lose-on", "2027-01-02"]), "nothing is lost on");
}

#[test]
fn losses_and_plans_that_cannot_be_say_why() {
    let check = |more: &[&str], code, says: &[&str]| refused(&with(more), code, says);
    check(
        &["--lose", "h100"],
        2,
        &["cannot read --lose `h100`", "--lose h100=256"],
    );
    check(
        &["--lose", "mars=1"],
        2,
        &["no class `mars`", "hint: it has h100"],
    );
    check(&["--lose", "gb200=20001"], 2, &["there are 20000"]);
    check(
        &["--lose", "gb200=0"],
        2,
        &["no device of gb200 is lost", "hint: "],
    );
    check(&["--lose-site", "mars"], 2, &["no site `mars`", "memphis"]);
    check(&["--lose-site", "memphis"], 2, &["nothing is left"]);
    check(&["--lose-mw", "many"], 2, &["cannot read --lose-mw"]);
    check(&["--lose-mw", "300"], 2, &["cannot be lost of 300 MW"]);
    check(
        &["--tolerance", "200", "--lose", "h100=8"],
        2,
        &["--tolerance", "from 0 to 1"],
    );
    check(
        &["--previous", "/dev/null"],
        3,
        &["/dev/null", "cannot be read as a plan"],
    );
    check(
        &["--cluster", "colossus-2", "--lose", "h100=8"],
        2,
        &["for the plan of one cluster"],
    );
}
