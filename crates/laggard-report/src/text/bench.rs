//! The page of a benchmark: the answer, a table for each collective with nccl-tests' columns and
//! those it lacks, and tables of kernels and pairs.

use super::columns::{self, Column, Keep};
use super::layout::{Page, Tone};
use super::{Style, caveats};
use crate::{figure, subject};
use laggard_analyze::{Bench, CollectiveFigures, ComputeFigures, Distribution, RankKernel};
use laggard_record::ComputeWork;
use laggard_types::{Collective, format_bytes};
use std::collections::BTreeSet;

/// Pairs on a page; the rest is in the JSON.
const MOST_PAIRS: usize = 16;
const GB: f64 = 1e-9;
const TFLOP: f64 = 1e-12;
const US: f64 = 1e6;

pub(super) fn print(bench: &Bench, style: Style) -> String {
    let mut page = Page::new(style);
    page.paragraph(&bench.verdict, Tone::Strong);
    page.blank();
    ranks(&mut page, bench);
    let mut done = BTreeSet::new();
    for point in &bench.collectives {
        if done.insert(point.collective) {
            collective(&mut page, bench, point.collective);
        }
    }
    kernels(&mut page, bench);
    pairs(&mut page, bench);
    caveats(&mut page, &subject::caveats(&bench.caveats));
    page.finish()
}

fn ranks(page: &mut Page, bench: &Bench) {
    let distinct = |of: fn(&laggard_record::BenchRank) -> &str| {
        let names: BTreeSet<&str> = bench.ranks.iter().map(of).collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    };
    let hosts: BTreeSet<&str> = bench.ranks.iter().map(|it| it.host.as_str()).collect();
    let (ranks, hosts) = (
        figure::plural(bench.ranks.len(), "rank"),
        figure::plural(hosts.len(), "host"),
    );
    page.field(
        "ranks",
        &format!("{ranks} on {hosts}: {}", distinct(|it| &it.device)),
    );
    page.field("collectives by", &bench.communication.backend);
    let bound = bench.ranks.iter().map(|it| it.clock_bound_ns).max();
    if let Some(bound) = bound.filter(|_| !bench.collectives.is_empty()) {
        page.field("clocks", &format!("hosts' clocks known to {bound} ns"));
    }
}

fn us(seconds: f64) -> String {
    figure::decimal(seconds * US, 2)
}

fn or_dash(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), us)
}

fn collective(page: &mut Page, bench: &Bench, which: Collective) {
    let is_this = |it: &&CollectiveFigures| it.collective == which;
    let points: Vec<&CollectiveFigures> = bench.collectives.iter().filter(is_this).collect();
    let Some(first) = points.first() else { return };
    let op = first.op.map(|op| format!(" {op:?}").to_lowercase());
    let title = format!(
        "{} ({}{})",
        which.name(),
        first.data_type.name(),
        op.unwrap_or_default()
    );
    page.heading(
        &title,
        "us from the last arrival to the last completion; GB/s by the median; late: first arrival \
         to last; nccl-tests: calls back to back",
    );
    let cells = |cell: &dyn Fn(&CollectiveFigures) -> String| -> Vec<String> {
        points.iter().map(|point| cell(point)).collect()
    };
    let of = |of: fn(&Distribution) -> Option<f64>| cells(&|it| or_dash(of(&it.transfer)));
    let bandwidth =
        |of: fn(&CollectiveFigures) -> f64| cells(&|it| figure::decimal(of(it) * GB, 2));
    let interval = cells(&|it| {
        let interval = it.transfer.interval;
        interval.map_or_else(
            || "-".to_owned(),
            |[low, high]| format!("[{}, {}]", us(low), us(high)),
        )
    });
    let number = Column::numbers;
    let table = vec![
        number("bytes", Keep::Always, cells(&|it| it.bytes.to_string())),
        Column::names(
            "place",
            Keep::Always,
            cells(&|it| it.placement.name().to_owned()),
        ),
        number("p50", Keep::Always, of(|it| Some(it.median))),
        number("algbw", Keep::Always, bandwidth(|it| it.algbw_bytes_per_s)),
        number("busbw", Keep::Always, bandwidth(|it| it.busbw_bytes_per_s)),
        number("wrong", Keep::Always, cells(&|it| it.wrong.to_string())),
        number("late p50", Keep::Always, cells(&|it| us(it.skew.median))),
        number("p95", Keep::IfRoom, of(|it| it.p95)),
        number("p99", Keep::IfRoom, of(|it| it.p99)),
        number(
            "nccl-tests",
            Keep::IfRoom,
            cells(&|it| us(it.back_to_back_s)),
        ),
        number(
            "busbw",
            Keep::IfRoom,
            bandwidth(|it| it.back_to_back_busbw_bytes_per_s),
        ),
        number("95 % of p50", Keep::IfRoom, interval),
        number(
            "calls",
            Keep::IfRoom,
            cells(&|it| it.transfer.n.to_string()),
        ),
    ];
    let marked: Vec<bool> = points.iter().map(|it| it.wrong > 0).collect();
    columns::print(page, table, &marked);
}

/// Rates print in TFLOP/s or GB/s.
fn rate(work: ComputeWork, rate: f64) -> String {
    match work {
        ComputeWork::Product { .. } => {
            let decimals = if rate * TFLOP < 10.0 { 3 } else { 1 };
            format!("{} TFLOP/s", figure::decimal(rate * TFLOP, decimals))
        }
        ComputeWork::Triad { .. } => format!("{} GB/s", figure::decimal(rate * GB, 1)),
    }
}

fn kernels(page: &mut Page, bench: &Bench) {
    let known = |it: &&ComputeFigures| !it.ranks.is_empty();
    let all: Vec<&ComputeFigures> = bench.compute.iter().filter(known).collect();
    let Some(first) = all.first() else { return };
    let title = format!("kernels ({})", first.data_type.name());
    page.heading(
        &title,
        "all ranks at the same time; shares of the peak by the median rank",
    );
    let cells = |cell: &dyn Fn(&ComputeFigures) -> String| -> Vec<String> {
        all.iter().map(|kernel| cell(kernel)).collect()
    };
    let shape = |it: &ComputeFigures| match it.work {
        ComputeWork::Product { m, n, k } => format!("{m} x {n} x {k}"),
        ComputeWork::Triad { bytes } => format_bytes(bytes),
    };
    let share = |it: &ComputeFigures| {
        let share = middle(it).and_then(|rank| rank.share_of_peak);
        share.map_or_else(|| "-".to_owned(), figure::percent)
    };
    let slowest = |it: &ComputeFigures| {
        let slowest = it
            .ranks
            .iter()
            .zip(0..)
            .min_by(|a, b| a.0.rate.total_cmp(&b.0.rate));
        slowest.map_or_else(String::new, |(rank, at)| {
            format!("{} (rank {at})", rate(it.work, rank.rate))
        })
    };
    let of_middle =
        |it: &ComputeFigures| middle(it).map_or_else(String::new, |rank| rate(it.work, rank.rate));
    let table = vec![
        Column::names("kernel", Keep::Always, cells(&|it| it.name.clone())),
        Column::numbers("m x n x k", Keep::Always, cells(&shape)),
        Column::numbers("median rank", Keep::Always, cells(&of_middle)),
        Column::numbers("of peak", Keep::Always, cells(&share)),
        Column::numbers("slowest", Keep::IfRoom, cells(&slowest)),
    ];
    columns::print(page, table, &[]);
}

/// The rank in the middle of rates.
fn middle(kernel: &ComputeFigures) -> Option<&RankKernel> {
    let mut ranks: Vec<&RankKernel> = kernel.ranks.iter().collect();
    ranks.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    ranks.get(ranks.len() / 2).copied()
}

fn pairs(page: &mut Page, bench: &Bench) {
    let mut pairs: Vec<_> = bench.pairs.iter().collect();
    pairs.sort_by(|a, b| a.bandwidth_bytes_per_s.total_cmp(&b.bandwidth_bytes_per_s));
    let Some(first) = pairs.first() else { return };
    let remark = format!(
        "messages of {}, the slowest {} of {}",
        format_bytes(first.bytes),
        MOST_PAIRS.min(pairs.len()),
        pairs.len()
    );
    page.heading("pairs of ranks", &remark);
    pairs.truncate(MOST_PAIRS);
    let from = pairs.iter().map(|it| it.from.to_string()).collect();
    let to = pairs.iter().map(|it| it.to.to_string()).collect();
    let time = pairs.iter().map(|it| us(it.seconds.median)).collect();
    let gb = pairs
        .iter()
        .map(|it| figure::decimal(it.bandwidth_bytes_per_s * GB, 2));
    let table = vec![
        Column::numbers("from", Keep::Always, from),
        Column::numbers("to", Keep::Always, to),
        Column::numbers("p50 us", Keep::Always, time),
        Column::numbers("GB/s", Keep::Always, gb.collect()),
    ];
    columns::print(page, table, &[]);
}

#[cfg(test)]
mod tests {
    use super::super::Glyphs;
    use super::*;
    use laggard_analyze::{BenchOptions, bench};
    use laggard_record::{
        BenchRank, BenchSamples, CollectiveSamples, Communication, ComputeSamples, PairSamples,
        Peak, PeakKind, Placement,
    };
    use laggard_types::{DataType, ReduceOp};

    fn example() -> Bench {
        let rank = |host: &str| BenchRank {
            host: host.to_owned(),
            device: "NVIDIA H200".to_owned(),
            peak: Some(Peak {
                flop_per_s: 1e12,
                kind: PeakKind::Datasheet,
                source: "known".to_owned(),
            }),
            clock_bound_ns: 800,
        };
        let calls = |begin: i64| vec![[begin, 250_000]; 40];
        let seconds = |each: f64| vec![each; 20];
        let samples = BenchSamples {
            schema_version: BenchSamples::VERSION,
            communication: Communication {
                backend: "NCCL 2.30.7".to_owned(),
                progress: String::new(),
            },
            ranks: vec![rank("a"), rank("b"), rank("b")],
            collectives: vec![CollectiveSamples {
                collective: Collective::AllReduce,
                op: Some(ReduceOp::Sum),
                placement: Placement::OutOfPlace,
                data_type: DataType::Bf16,
                bytes: 1 << 20,
                calls: vec![calls(0), calls(200_000), calls(0)],
                back_to_back_ns: vec![60_000.0; 3],
                wrong: vec![0, 0, 4],
            }],
            compute: vec![ComputeSamples {
                name: "1000 cubed".to_owned(),
                work: ComputeWork::Product {
                    m: 1000,
                    n: 1000,
                    k: 1000,
                },
                data_type: DataType::Bf16,
                seconds: vec![seconds(4e-3), seconds(5e-3), seconds(4e-3)],
            }],
            pairs: vec![PairSamples {
                from: 0,
                to: 2,
                bytes: 1 << 20,
                seconds: vec![1e-4; 7],
            }],
            caveats: Vec::new(),
        };
        bench(&samples, &BenchOptions::default())
    }

    #[test]
    fn the_page_has_every_part_and_fits() {
        let page = print(&example(), Style::plain(100));
        let rows: Vec<Vec<&str>> = page
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let row = |begin: &[&str]| {
            let found = rows.iter().find(|row| row.starts_with(begin));
            found
                .unwrap_or_else(|| panic!("no {begin:?} in\n{page}"))
                .clone()
        };
        // 1 MiB in 50 us is 20.97 GB/s, times 2 (n - 1) / n of three ranks.
        let expect = [
            "1048576", "out", "50.00", "20.97", "27.96", "4", "200.00", "-", "-", "60.00",
        ];
        assert_eq!(row(&["1048576"])[..10], expect);
        assert_eq!(row(&["0", "2"]), ["0", "2", "100.00", "10.49"]);
        let kernel = row(&["1000", "cubed"]);
        // 2e9 FLOP in 4 ms, of a peak of 1 TFLOP/s.
        assert_eq!(kernel[7..11], ["0.500", "TFLOP/s", "50.0", "%"]);
        assert!(page.starts_with("WRONG RESULTS: all_reduce"), "{page}");
        let whole = page.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            whole.contains("rank 1 (NVIDIA H200 of b) is 20.0 % [20.0, 20.0] below its 2 peers")
        );
        assert!(
            whole.contains("rank 1 of b comes last to 100 % of calls"),
            "{page}"
        );
        for width in [100, 60] {
            let style = Style {
                glyphs: Glyphs::Ascii,
                ..Style::plain(width)
            };
            let page = print(&example(), style);
            assert!(page.is_ascii());
            assert!(
                page.lines().all(|line| line.chars().count() <= width),
                "{page}"
            );
        }
    }
}
