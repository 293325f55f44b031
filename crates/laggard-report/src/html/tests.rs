use super::*;
use crate::examples;
use laggard_analyze::HeatMap;

/// Elements without an end tag.
const VOID: [&str; 1] = ["meta"];

/// Checks that tags nest and that attributes have values in quotes, and counts the elements.
fn check_nesting(page: &str) -> usize {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page
        .strip_prefix("<!DOCTYPE html>")
        .expect("a page begins with its type");
    let mut elements = 0;
    while let Some((text, after)) = rest.split_once('<') {
        assert!(
            !text.contains('>') || open.last() == Some(&"style"),
            "stray `>` in {text}"
        );
        let (tag, after) = after.split_once('>').expect("a tag ends");
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "end tag without its start");
            continue;
        }
        elements += 1;
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes in <{tag}>");
        let name = tag.split(' ').next().unwrap();
        if !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
    elements
}

fn every_example() -> Vec<Analysis> {
    let mut all: Vec<Analysis> = examples::all().into();
    all.extend([examples::hostile(), examples::not_finite()]);
    all
}

#[test]
fn pages_are_well_formed() {
    for example in every_example() {
        assert!(check_nesting(&analysis(&example)) > 100);
    }
}

#[test]
fn a_page_with_nothing_in_it_is_well_formed() {
    let mut example = examples::clean();
    example.heat_map = HeatMap {
        first_rank: vec![],
        first_step: vec![],
        excess: vec![],
    };
    example.waterfall.clear();
    example.blame.clear();
    example.classes.clear();
    example.ranks.clear();
    example.mfu = None;
    let page = analysis(&example);
    check_nesting(&page);
    for absent in [
        "<svg",
        "Own time per class",
        "Ranks over steps",
        "Tests against chance",
    ] {
        assert!(!page.contains(absent), "{absent}");
    }
}

#[test]
fn maps_and_histograms_that_do_not_fit_their_edges_are_not_drawn() {
    let mut example = examples::clean();
    example.heat_map.excess.pop();
    example.classes[0].histogram_edges.pop();
    let page = analysis(&example);
    check_nesting(&page);
    assert!(!page.contains("Ranks over steps") && !page.contains("class=\"hist\""));
}

#[test]
fn of_a_sketch_only_what_is_known_is_shown() {
    let page = analysis(&examples::sketch());
    check_nesting(&page);
    for part in [
        "Where the time goes",
        "what equal ranks would take",
        "219,903 other ranks",
        "219,864 left out",
        "rank 5, host-0",
    ] {
        assert!(page.contains(part), "{part}");
    }
    for part in [
        "capacity",
        "Ranks over steps",
        "What if",
        ">alone<",
        "Alone:",
    ] {
        assert!(!page.contains(part), "{part}");
    }
}

#[test]
fn nothing_is_fetched_and_nothing_runs() {
    for example in every_example() {
        let page = analysis(&example);
        for forbidden in [
            "http://", "https://", "src=", "href=", "url(", "@import", "<script",
        ] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }
}

#[test]
fn hostile_names_are_escaped() {
    let page = analysis(&examples::hostile());
    assert!(page.contains("&lt;script&gt;alert("));
    assert!(page.chars().all(|c| c == '\n' || !c.is_control()));
}

#[test]
fn nan_is_never_printed() {
    let page = analysis(&examples::not_finite());
    assert!(page.contains("n/a"));
    for word in ["NaN", "inf%", ">inf", "\"inf", "-inf"] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn synthetic_virtual_and_emulated_are_named_where_the_numbers_are() {
    let page = analysis(&examples::mixed());
    assert!(page.contains("own time [ms, virtual time]"));
    assert!(page.contains("GB200-like (emulated)"));
    assert!(page.contains("synthetic step, not your job"));
    assert_eq!(
        page.matches("driven by CPU time").count(),
        1,
        "caveats are printed once"
    );
}

#[test]
fn the_largest_map_stays_small() {
    let mut example = examples::large();
    let (rows, columns) = (128, 240);
    example.subject.ranks = 128;
    example.heat_map = HeatMap {
        first_rank: (0..rows).collect(),
        first_step: (0..columns).map(|column| column * 10).collect(),
        excess: (0..rows * columns)
            .map(|at| examples::noise(at) - 0.3)
            .collect(),
    };
    let page = analysis(&example);
    check_nesting(&page);
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
}

/// With `LAGGARD_RENDER=DIRECTORY` the examples are written there, to be looked at in a browser.
#[test]
fn examples_can_be_written_to_look_at() {
    let Some(directory) = std::env::var_os("LAGGARD_RENDER") else {
        return;
    };
    for (name, example) in ["clean", "mixed", "large", "sketch"]
        .into_iter()
        .zip(examples::all())
    {
        let path = std::path::Path::new(&directory)
            .join(name)
            .with_extension("html");
        std::fs::write(path, analysis(&example)).unwrap();
    }
}
