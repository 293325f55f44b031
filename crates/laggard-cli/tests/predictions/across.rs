//! The real binary on `plan` for a job whose stages stand at two sites.

use crate::{json, laggard, works};
use serde_json::Value;
use std::fs;

/// Two sites with a class each and a link between them.
struct TwoSites {
    folder: tempfile::TempDir,
}

impl TwoSites {
    fn new(bytes_per_s: f64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut text = "id = \"two\"\n".to_owned();
        for (site, kind, id) in [
            ("east", "h100-sxm5-80gb", "h100"),
            ("west", "a100-sxm4-80gb", "a100"),
        ] {
            text += &format!(
                "[[site]]\nid = \"{site}\"\npower_usage_effectiveness = 1.2\n[[pool]]\n\
                 id = \"{id}\"\nsite = \"{site}\"\naccelerator = \"{kind}\"\ncount = 64\n\
                 devices_per_node = 8\npower_watts_per_device = 1000.0\n\
                 failures_per_device_year = 0.1\n"
            );
        }
        text += &format!(
            "[[link]]\nfrom = \"east\"\nto = \"west\"\nbandwidth_bytes_per_s = \
             {bytes_per_s:e}\nlatency_s = 0.002\n"
        );
        fs::write(folder.path().join("two-sites.toml"), text).expect("a file");
        Self { folder }
    }

    fn with<T>(&self, more: &[&str], of: impl FnOnce(&[&str]) -> T) -> T {
        let cluster = self.folder.path().join("two-sites.toml");
        let cluster = cluster.to_str().expect("a path");
        let plan = ["plan", "--cluster", cluster, "--model", "llama3-8b"];
        of(&[&plan[..], &["--batch-tokens", "4194304"], more].concat())
    }

    /// The option whose stages stand at both sites.
    fn spanning(&self) -> Value {
        let plan = self.with(&[], json);
        let options = plan["options"].as_array().expect("options").iter();
        let mut spanning = options.filter(|it| !it["jobs"][0]["stages"].is_null());
        let option = spanning.find(|it| it["kind"] == "across_sites");
        option.expect("stages at both sites").clone()
    }
}

fn rate(option: &Value) -> f64 {
    option["figures"]["tokens_per_s"].as_f64().expect("a rate")
}

/// Over a narrow link the layers are cut otherwise than over a wide one: what a plan for the wide
/// one would send is too much.
#[test]
fn the_cut_sees_the_link() {
    let (wide, narrow) = (
        TwoSites::new(1e12).spanning(),
        TwoSites::new(1e9).spanning(),
    );
    assert_eq!(wide["name"], "one job at east + west, activations cross");
    assert_eq!(narrow["name"], wide["name"]);
    assert!(rate(&wide) > rate(&narrow));
    let of = |option: &Value, what: &str| option["jobs"][0][what].clone();
    assert_ne!(
        (of(&wide, "layout"), of(&wide, "stages")),
        (of(&narrow, "layout"), of(&narrow, "stages"))
    );
    for option in [&wide, &narrow] {
        let stages = of(option, "stages");
        let stages = stages.as_array().expect("stages");
        let layers = stages.iter().filter_map(|stage| stage["layers"].as_u64());
        assert_eq!(layers.sum::<u64>(), 32, "{option:#}");
        // The classes of a site stand together.
        let mut classes: Vec<&str> = stages
            .iter()
            .filter_map(|it| it["class"].as_str())
            .collect();
        classes.dedup();
        assert_eq!(classes.len(), 2, "{option:#}");
    }
}

#[test]
fn the_page_and_the_launch_files_of_a_spanning_plan_have_its_stages() {
    let sites = TwoSites::new(1e10);
    let option = sites.spanning();
    let number = option["number"].as_u64().expect("a number").to_string();
    let page = sites.with(&[], works);
    assert!(
        page.contains("one job at east + west, activations"),
        "{page}"
    );
    let words: String = page.split_whitespace().collect::<Vec<_>>().join(" ");
    let layout = option["jobs"][0]["layout"].as_str().expect("a layout");
    let stages = option["jobs"][0]["stages"].as_array().expect("stages");
    assert!(words.contains(&format!("{number} {layout}")), "{page}");
    assert!(words.contains("stages and layers of each:"), "{page}");

    let out = sites.folder.path().join("plan");
    let more = ["-o", out.to_str().expect("a path"), "--option", &number];
    let output = sites.with(&more, laggard);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && stderr.contains("launch files"),
        "{stderr}"
    );
    let jobs = fs::read_dir(out.join("launch")).expect("launch files");
    let [job] = &jobs.map(|it| it.expect("a job").path()).collect::<Vec<_>>()[..] else {
        panic!("one job");
    };
    let text = |name: &str| fs::read_to_string(job.join(name)).expect("a file");
    let hosts = text("nodes.tsv");
    // Every rank of each class has a place.
    for class in ["h100", "a100"] {
        let used = option["uses"][class]["train"].as_u64().expect("a number");
        let lines = hosts
            .lines()
            .filter(|line| line.split('\t').any(|it| it == class));
        let ranks = lines.filter_map(|line| line.split('\t').nth(5)?.parse::<u64>().ok());
        assert_eq!(ranks.sum::<u64>(), used, "{hosts}");
    }
    let stage_count = format!("--pipeline-model-parallel-size {}", stages.len());
    assert!(
        text("megatron.sh").contains(&stage_count),
        "{}",
        text("megatron.sh")
    );
}
