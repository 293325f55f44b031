use super::*;

fn tables() -> Tables {
    Tables::builtin().unwrap()
}

/// Every number of a preset has a source and a confidence: entries without are refused here.
#[test]
fn presets_are_sound_and_sourced() {
    let tables = tables();
    for name in Cluster::preset_names() {
        let cluster =
            Cluster::preset(name, &tables).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(cluster.id, name);
        for site in &cluster.sites {
            let place = format!("{name}, site {}", site.id);
            assert!(
                !site.sources.is_empty() && site.confidence.is_some(),
                "{place}"
            );
        }
        for pool in &cluster.pools {
            let place = format!("{name}, pool {}", pool.id);
            assert!(
                !pool.sources.is_empty() && pool.confidence.is_some(),
                "{place}"
            );
            let price = pool.price_dollars_per_device_hour.as_ref();
            assert!(
                price.is_none_or(|price| price.source.is_some() && price.date.is_some()),
                "{place}"
            );
        }
        for link in &cluster.links {
            assert!(
                !link.sources.is_empty() && link.confidence.is_some(),
                "{name}"
            );
        }
    }
}

/// What is published of Colossus 1: the counts, 247.9 and 272.9 EFLOP/s of dense bf16 peak, and
/// 288 MW of nameplate, 346 MW with cooling.
#[test]
fn colossus_1() {
    let tables = tables();
    for (name, devices, peak) in [
        ("colossus-1", 220_000, 247.9e18),
        ("colossus-1-30k", 230_000, 272.9e18),
    ] {
        let cluster = Cluster::preset(name, &tables).unwrap();
        assert_eq!(cluster.devices(), devices);
        let sum: f64 = cluster
            .pools
            .iter()
            .map(|pool| {
                let accelerator = tables.accelerator(&pool.accelerator).unwrap();
                pool.count as f64 * accelerator.dense_half_peak().unwrap().0
            })
            .sum();
        assert!((sum / peak - 1.0).abs() < 1e-3, "{name}: {sum}");
    }
    let watts = Cluster::preset("colossus-1", &tables)
        .unwrap()
        .power_watts()
        .unwrap();
    assert!((watts / 346e6 - 1.0).abs() < 2e-3, "{watts}");
    let dark = Cluster::preset("small-lab", &tables).unwrap();
    assert_eq!(dark.power_watts(), None);
}

const TEXT: &str = "id = 'x'

[[site]]
id = 'a'
power_limit_watts = 1e6

[[site]]
id = 'b'

[[pool]]
id = 'p'
site = 'a'
accelerator = 'H100'
count = 16
devices_per_node = 8
oversubscription = 1.5
ramp = [{ from = '2026-01', count = 8 }]

[[link]]
from = 'a'
to = 'b'
bandwidth_bytes_per_s = 1e9
latency_s = 0.01
";

#[test]
fn names_become_ids_and_files_come_back() {
    let cluster = Cluster::from_toml_str(TEXT, &tables()).unwrap();
    assert_eq!(cluster.pools[0].accelerator, "h100-sxm5-80gb");
    let again = toml::to_string(&cluster).unwrap();
    assert_eq!(Cluster::from_toml_str(&again, &tables()).unwrap(), cluster);
}

#[track_caller]
fn refuses(from: &str, to: &str, says: &[&str]) {
    assert!(TEXT.contains(from), "{from}");
    let error = Cluster::from_toml_str(&TEXT.replacen(from, to, 1), &tables());
    let error = error.unwrap_err().to_string();
    for part in says {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn errors_have_their_place() {
    refuses(
        "count = 16",
        "coutn = 16",
        &["line 14, column 1", "`coutn`"],
    );
    refuses(
        "power_limit_watts = 1e6",
        "power_limit_mw = 1",
        &["line 5, column 1", "power_limit_watts"],
    );
    refuses("count = 16", "count = 'many'", &["line 14, column 9"]);
    refuses(
        "'H100'",
        "'h10'",
        &["line 13, column 1", "accelerator", "close names", "h100"],
    );
    refuses(
        "site = 'a'",
        "site = 'c'",
        &["line 12", "no site 'c'", "the sites are a, b"],
    );
    refuses(
        "count = 16",
        "  count = 0",
        &["line 14, column 3", "from 1 to"],
    );
    refuses(
        "oversubscription = 1.5",
        "oversubscription = 0.5",
        &["line 16", "below 1"],
    );
    refuses("1e6", "nan", &["line 5", "leave an unknown number out"]);
    refuses("id = 'b'", "id = 'a'", &["line 8", "two sites"]);
    refuses("to = 'b'", "to = 'a'", &["line 21", "with itself"]);
    refuses("1e9", "-1.0", &["line 22", "bandwidth_bytes_per_s"]);
    refuses(
        "2026-01",
        "2026-13",
        &["line 17", "'2026-13' is no day", "YYYY-MM"],
    );
    refuses("count = 8", "count = 17", &["line 17", "at most 16"]);
    let list = "ramp = [{ from = '2026-01', count = 8 }]";
    let table = "\n[[pool.ramp]]\nfrom = '2026-01'\ncount = 17";
    refuses(list, table, &["line 18, column 1", "at most 16"]);
    let twice = "ramp = [{ from = '2026-01', count = 8 }, { from = '2026-01', count = 9 }]";
    refuses(list, twice, &["line 17", "must come after"]);
}

#[test]
fn unknown_presets_have_close_names() {
    let error = Cluster::preset("colosus-1", &tables())
        .unwrap_err()
        .to_string();
    assert!(error.contains("colossus-1"), "{error}");
}
