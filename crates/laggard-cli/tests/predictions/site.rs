//! The real binary on `plan` where more than one job uses a cluster: serving, reserves, deadlines,
//! several jobs, owners, clusters side by side.

use crate::{json, refused, works};
use serde_json::Value;
use std::fs;

const COLOSSUS: [&str; 5] = ["plan", "--cluster", "colossus-1", "--model", "grok-1"];

/// Three classes at a site whose power does not suffice for all.
const THREE: &str = r#"
id = "three"
[[site]]
id = "here"
power_limit_watts = 1.2e6
power_usage_effectiveness = 1.2
"#;
const POOLS: [(&str, &str, u64, u64, f64); 3] = [
    ("h100", "h100-sxm5-80gb", 512, 8, 2.6),
    ("h200", "h200-sxm-141gb", 256, 8, 3.5),
    ("gb200", "gb200", 144, 4, 4.54),
];

/// A cluster file, and what is planned on it.
struct Site {
    folder: tempfile::TempDir,
    cluster: String,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut text = THREE.to_owned();
        for (id, accelerator, count, host, price) in POOLS {
            text += &format!(
                "[[pool]]\nid = \"{id}\"\nsite = \"here\"\naccelerator = \"{accelerator}\"\n\
                 count = {count}\ndevices_per_node = {host}\npower_watts_per_device = 1275.0\n\
                 failures_per_device_year = 0.173\nprice_dollars_per_device_hour = \
                 {{ low = {price}, typical = {price}, high = {price} }}\n"
            );
        }
        let cluster = folder.path().join("three.toml");
        fs::write(&cluster, text).expect("a file");
        let cluster = cluster.to_str().expect("a path").to_owned();
        Self { folder, cluster }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("a path").to_owned()
    }

    fn args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let model = ["--model", "llama3-8b"];
        let model = if more.contains(&"--jobs") {
            &[][..]
        } else {
            &model[..]
        };
        [&["plan", "--cluster", &self.cluster], model, more].concat()
    }

    fn plan(&self, more: &[&str]) -> Value {
        json(&self.args(more))
    }

    fn page(&self, more: &[&str]) -> String {
        works(&self.args(more))
    }

    #[track_caller]
    fn refuses(&self, more: &[&str], code: i32, says: &[&str]) {
        refused(&self.args(more), code, says);
    }
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

fn options(plan: &Value) -> &Vec<Value> {
    plan["options"].as_array().expect("options")
}

/// Devices of all classes that do something in an option.
fn devices(option: &Value, what: &str) -> u64 {
    let uses = option["uses"].as_object().expect("uses");
    uses.values().filter_map(|it| it[what].as_u64()).sum()
}

fn all_devices(option: &Value) -> u64 {
    let all = ["train", "idle", "lease", "serve", "reserve", "off"];
    all.iter().map(|what| devices(option, what)).sum()
}

#[test]
fn the_page_of_colossus_1_answers_on_one_page() {
    let page = works(&COLOSSUS);
    assert!(
        page.lines().count() <= 110,
        "{} lines",
        page.lines().count()
    );
    let widest = page.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{widest:?}\n{page}");
    let words: String = page.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "with everything on memphis draws 346 MW",
        "more than the limit of 300 MW",
        "within the limit",
        "the account of this site's lease says 2.60 for any",
        "train 1.00 : 1.10 : 2.22 and serve 1.00 : 1.13 : 3.34",
        "how a lease is paid turns the answer: by the token let gb200, h200, h100 first",
        "at one price an hour h100, h200, gb200",
        "replicas wait for nobody; one training job in equal shares loses",
    ] {
        assert!(words.contains(part), "`{part}` is not in\n{page}");
    }
    assert!(!page.contains("not kept"));
}

#[test]
fn a_limit_is_kept_or_said_not_to_be() {
    let small = ["plan", "--cluster", "small-lab", "--model", "llama3-8b"];
    let limit = ["--power-limit-mw", "0.01"];
    refused(
        &[&small[..], &limit].concat(),
        2,
        &[
            "0.01 MW cannot be kept",
            "a100, rtx",
            "power_watts_per_device",
        ],
    );
    assert!(works(&small).contains("at most 0.020 MW (not kept: see below)"));
}

#[test]
fn what_is_asked_for_is_served_first_and_the_rest_is_planned() {
    let site = Site::new();
    let rate = ["--serve", "llama3-70b", "--serve-rate", "1e5"];
    let plan = site.plan(&[&rate[..], &["--peak-factor", "1.5"]].concat());
    let demand = &plan["serving"]["demand"];
    assert!(number(&demand["tokens_per_s"]) >= 1.5e5);
    assert!(number(&demand["gap"]) < 0.1);
    let serving = demand["devices"].as_array().expect("devices").iter();
    let serving: u64 = serving.filter_map(|it| it[1].as_u64()).sum();
    assert!(serving > 0);
    for option in options(&plan) {
        assert_eq!(devices(option, "serve"), serving, "{option:#}");
        assert_eq!(all_devices(option), 912, "{option:#}");
        assert!(number(&option["figures"]["power_mw"]) <= 1.2);
    }
    // Ten thousand sessions of ten tokens a second are the same demand, and so is a day whose peak
    // is one and a half times its mean.
    let sessions = [
        "--serve-sessions",
        "1e4",
        "--session-rate",
        "10",
        "--peak-factor",
        "1.5",
    ];
    let sessions = site.plan(&[&["--serve", "llama3-70b"], &sessions[..]].concat());
    let of_sessions = &sessions["serving"]["demand"];
    assert_eq!(of_sessions["devices"], demand["devices"]);
    assert!(number(&of_sessions["sessions"]) >= 1e4);
    let day = ["--day", "1,1,1,1,1,1,1,1,1,1,1,1,3,3,3,3,3,3,3,3,3,3,3,3"];
    let of_day = site.plan(&[&rate[..], &day].concat());
    assert_eq!(of_day["serving"]["demand"]["devices"], demand["devices"]);
    let refused = |more: &[&str], says: &[&str]| {
        site.refuses(&[&["--serve", "llama3-70b"], more].concat(), 2, says);
    };
    refused(&["--serve-rate", "1e12"], &["serving", "at most", "hint"]);
    refused(&["--serve-rate=-1"], &["tokens per second to serve is -1"]);
    refused(&["--peak-factor", "0.5"], &["peak factor is 0.5"]);
    refused(&["--day", "1,2"], &["number of hours is 2", "24"]);
    refused(&["--tpot", "1e-9"], &["for a token", "allow more"]);
    site.refuses(&["--serve", "nope"], 2, &["nope"]);
}

#[test]
fn tokens_with_a_price_are_an_option_beside_the_lease() {
    let site = Site::new();
    let at = |price: &str| {
        let serve = ["--serve", "llama3-70b", "--token-price", price];
        site.plan(&[&serve[..], &["--objective", "net-dollars"]].concat())
    };
    let best = |plan: &Value| {
        let at = plan["ranking"]["order"][0].as_u64().expect("an option");
        options(plan)[at as usize]["kind"].clone()
    };
    let dear = at("2");
    let kinds: Vec<&Value> = options(&dear).iter().map(|it| &it["kind"]).collect();
    for kind in [
        "train_and_serve",
        "train_and_lease",
        "serve_all",
        "lease_all",
    ] {
        assert!(kinds.contains(&&Value::from(kind)), "{kind}: {kinds:?}");
    }
    assert_eq!(best(&dear), "serve_all");
    let mut all = options(&dear).iter();
    let all = all.find(|it| it["kind"] == "serve_all").expect("an option");
    let offers = dear["serving"]["offers"].as_array().expect("offers").iter();
    let earned: f64 = offers
        .map(|offer| {
            let class = offer["class"].as_str().expect("a class");
            number(&offer["dollars_per_hour"]) * number(&all["uses"][class]["serve"])
        })
        .sum();
    let stated = number(&all["figures"]["serving_dollars_per_hour"]);
    assert!((stated / earned - 1.0).abs() < 1e-9, "{stated} {earned}");
    assert_eq!(best(&at("0.001")), "lease_all");
}

#[test]
fn a_reserve_is_kept_in_every_option() {
    let site = Site::new();
    let kept = site.plan(&["--reserve", "h100=5%", "--reserve", "gb200=13"]);
    for option in options(&kept) {
        assert_eq!(
            option["uses"]["h100"]["reserve"], 32,
            "26 in whole hosts of eight"
        );
        assert_eq!(
            option["uses"]["gb200"]["reserve"], 16,
            "whole hosts of four"
        );
        assert_eq!(all_devices(option), 912);
    }
    let of_all = site.plan(&["--reserve", "10%"]);
    assert_eq!(devices(&options(&of_all)[0], "reserve"), 56 + 32 + 16);
    site.refuses(&["--reserve", "h100=513"], 2, &["513 h100", "512"]);
    site.refuses(&["--reserve", "h100=101%"], 2, &["101 %", "at most 100 %"]);
    site.refuses(
        &["--reserve", "h100=-1"],
        2,
        &["cannot read --reserve", "h100=1024"],
    );
    site.refuses(&["--reserve", "tpu=1"], 2, &["reserve of `tpu`", "gb200"]);
    site.refuses(&["--reserve", "100%"], 2, &["leaves nothing", "--reserve"]);
}

#[test]
fn a_deadline_rules_out_what_is_later_and_adds_just_enough() {
    let site = Site::new();
    let fastest = number(&site.plan(&[])["options"][0]["figures"]["days"]);
    let days = format!("{}", fastest * 3.0);
    let plan = site.plan(&["--deadline", &days, "--objective", "net-dollars"]);
    let at = plan["ranking"]["order"][0].as_u64().expect("an option") as usize;
    let best = &options(&plan)[at];
    assert_eq!(best["kind"], "in_time");
    assert!(number(&best["figures"]["days"]) <= fastest * 3.0);
    assert!(
        number(&plan["in_time_gap"]) < 0.05,
        "{}",
        plan["in_time_gap"]
    );
    for option in options(&plan).iter().filter(|it| it["can_win"] == true) {
        assert!(
            number(&option["figures"]["days"]) <= fastest * 3.0,
            "{option:#}"
        );
        let earned = number(&option["figures"]["net_dollars_per_hour"]);
        assert!(earned <= number(&best["figures"]["net_dollars_per_hour"]));
    }
    let soon = format!("{}", fastest / 10.0);
    site.refuses(
        &["--deadline", &soon],
        2,
        &["cannot be trained in", "--deadline"],
    );
    site.refuses(&["--deadline", "nan"], 2, &["deadline in days is NaN"]);
}

#[test]
fn several_jobs_share_a_cluster() {
    let site = Site::new();
    let jobs = "[[job]]\nmodel = \"llama3-70b\"\ntokens = 2e11\ndeadline_days = 60\n\
                [[job]]\nname = \"small\"\nmodel = \"llama3-8b\"\ntokens = 2e11\nweight = 2\n\
                batch_tokens = 4194304\n";
    let path = site.file("jobs.toml", jobs);
    let args = ["--jobs", &path];
    let shared = site.plan(&args);
    assert_eq!(all_devices(&shared), 912);
    let days = number(&shared["jobs"][0]["days"]);
    assert!(days <= 60.0, "{days}");
    assert!(number(&shared["value"]) <= number(&shared["bound"]));
    assert!(number(&shared["gap"]) < 0.2, "{}", shared["gap"]);
    let page = site.page(&args);
    for part in [
        "who gets what",
        "small",
        "less than the best possible",
        "what is possible is known no better than that",
        "until all are done",
        "whenever one is done, all is shared out anew",
        "one after the other",
    ] {
        assert!(page.contains(part), "`{part}` is not in\n{page}");
    }
    let widest = page.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{widest:?}\n{page}");
    assert_eq!(page, site.page(&args));
    let folder = site.file("shared", "");
    std::fs::remove_file(&folder).expect("a file");
    site.page(&[&args[..], &["-o", &folder]].concat());
    let folder = std::path::Path::new(&folder);
    let text = std::fs::read_to_string(folder.join("plan.json")).expect("a plan");
    let plan = laggard_plan::PlanFile::parse(&text).expect("a plan");
    let option = plan.option(None).expect("the answer");
    assert_eq!(option.kind, laggard_plan::Kind::Shared);
    for (job, model) in [("llama3-70b", "llama3-70b"), ("small", "llama3-8b")] {
        let planned = option.jobs.iter().find(|it| it.name == job);
        assert_eq!(planned.map(|it| it.model.as_str()), Some(model));
        let script = std::fs::read_to_string(folder.join("launch").join(job).join("mpirun.sh"));
        assert!(script.expect("a script").contains(&format!("--job {job}")));
    }
    site.file("jobs.toml", &jobs.replace("= 60", "= 0.05"));
    site.refuses(&args, 2, &["deadline cannot be kept", "deadline_days = "]);
    site.file(
        "jobs.toml",
        &jobs.replace("4194304", "4194304\nfewest_devices = 5000"),
    );
    site.refuses(&args, 2, &["fewer than 5000 devices", "fewest_devices = "]);
    site.file("jobs.toml", &jobs.replace("2e11\nweight", "-2e11\nweight"));
    site.refuses(&args, 3, &["jobs.toml", "line 8", "tokens"]);
    site.refuses(
        &["--jobs", &path, "--cluster", "colossus-2"],
        2,
        &["one --cluster"],
    );
    site.refuses(&["--jobs", &path, "--model", "grok-1"], 2, &["--jobs"]);
    let start = ["--jobs", &path, "--start", "2027-01-02"];
    site.refuses(&start, 2, &["--start counts only until", "hint: "]);
    let objective = ["--jobs", &path, "--objective", "time"];
    site.refuses(
        &objective,
        2,
        &["several jobs cannot be compared by", "--objective tokens"],
    );
}

#[test]
fn an_owner_sees_what_an_hour_costs_beside_the_rent() {
    let site = Site::new();
    let text = "staff_dollars_per_year = 3e5\nutilization = 0.8\n\
                electricity_dollars_per_kwh = 0.06\n[bought.h100]\ndollars_per_device = 30000\n\
                years = 4\nmaintenance_share_per_year = 0.05\n";
    let path = site.file("owned.toml", text);
    let args = ["--owned", &path];
    let hour = number(&site.plan(&args)["owner"]["dollars_per_used_hour"]["h100"]);
    let by_hand = (30_000.0 * 0.3 / 8766.0 + 3e5 / 8766.0 / 912.0 + 1.275 * 1.2 * 0.06) / 0.8;
    assert!((hour - by_hand).abs() < 1e-9, "{hour} {by_hand}");
    let page = site.page(&args);
    assert!(
        page.contains("owned, not rented") && page.contains("not counted"),
        "{page}"
    );
    site.file("owned.toml", &text.replace("years = 4", "years = -4"));
    site.refuses(&args, 3, &["owned.toml", "line 6", "above zero"]);
    site.file("owned.toml", &text.replace("bought.h100", "bought.tpu"));
    site.refuses(&args, 3, &["owned.toml", "no pool tpu"]);
}

#[test]
fn two_clusters_stand_side_by_side() {
    let site = Site::new();
    let more = ["--cluster", "small-lab"];
    let page = site.page(&more);
    for part in [
        "three",
        "A small lab",
        "side by side",
        "fastest for one model",
    ] {
        assert!(page.contains(part), "`{part}` is not in\n{page}");
    }
    let widest = page.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{widest:?}\n{page}");
    // Power is too little for one of them, and a price is said of a class that only one has.
    assert!(page.contains("power binds"), "{page}");
    site.page(&[&more[..], &["--lease", "gb200=9"]].concat());
    let nobody = [&more[..], &["--lease", "tpu=9"]].concat();
    site.refuses(&nobody, 2, &["`tpu`"]);
    let both = site.plan(&more);
    assert_eq!(both["plans"][0], site.plan(&[]));
    assert_eq!(both["plans"].as_array().map(Vec::len), Some(2));
    let written = ["--cluster", "small-lab", "-o", "somewhere"];
    site.refuses(&written, 2, &["one --cluster at a time"]);
}
