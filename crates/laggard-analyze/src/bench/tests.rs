//! Samples whose answer is known.

use super::*;
use laggard_record::{PairSamples, PeakKind};
use laggard_stats::Rng;

fn rank(device: &str) -> BenchRank {
    BenchRank {
        host: "here".to_owned(),
        device: device.to_owned(),
        peak: Some(Peak {
            flop_per_s: 1e12,
            kind: PeakKind::Datasheet,
            source: "known".to_owned(),
        }),
        clock_bound_ns: 100,
    }
}

fn samples(devices: &[&str]) -> BenchSamples {
    BenchSamples {
        schema_version: BenchSamples::VERSION,
        communication: Communication {
            backend: "threads".to_owned(),
            progress: String::new(),
        },
        ranks: devices.iter().map(|it| rank(it)).collect(),
        collectives: Vec::new(),
        compute: Vec::new(),
        pairs: Vec::new(),
        caveats: Vec::new(),
    }
}

/// An all-reduce of 4000 bytes whose calls all begin and end so, rank by rank.
fn all_reduce(count: usize, of_rank: &[[i64; 2]]) -> CollectiveSamples {
    let calls = |interval: &[i64; 2]| {
        let at = |call: usize| interval.map(|ns| ns + 1_000_000 * call as i64);
        (0..count).map(at).collect()
    };
    CollectiveSamples {
        collective: Collective::AllReduce,
        op: Some(ReduceOp::Sum),
        placement: Placement::OutOfPlace,
        data_type: DataType::F32,
        bytes: 4000,
        calls: of_rank.iter().map(calls).collect(),
        back_to_back_ns: vec![40_000.0; of_rank.len()],
        wrong: vec![0; of_rank.len()],
    }
}

fn close(found: f64, expect: f64) {
    assert!((found / expect - 1.0).abs() < 1e-9, "{found}, not {expect}");
}

#[test]
fn the_late_rank_is_told_apart_from_the_network() {
    let mut samples = samples(&["gpu"; 4]);
    // Rank 2 comes 200 us late; the call itself takes 20 us, and rank 2 sees no more than that.
    let [early, late] = [[0, 220_000], [200_000, 220_000]];
    samples.collectives = vec![all_reduce(60, &[early, early, late, early])];
    let found = bench(&samples, &BenchOptions::default());
    let figures = &found.collectives[0];
    close(figures.transfer.median, 20e-6);
    close(figures.skew.median, 200e-6);
    close(figures.algbw_bytes_per_s, 4000.0 / 20e-6);
    close(figures.busbw_bytes_per_s, 1.5 * 4000.0 / 20e-6);
    close(figures.back_to_back_busbw_bytes_per_s, 1.5 * 4000.0 / 40e-6);
    close(figures.ranks[2].call_s, 20e-6);
    close(figures.ranks[0].call_s, 220e-6);
    close(figures.ranks[2].lag_s, 200e-6);
    let [late] = &found.late_ranks[..] else {
        panic!("{:?}", found.late_ranks)
    };
    assert_eq!(late.rank, 2);
    close(late.late_s, 200e-6);
    close(late.cost_share, 200.0 / 220.0);
    assert!(
        found.verdict.contains("rank 2 of here comes last"),
        "{}",
        found.verdict
    );
}

#[test]
fn who_comes_last_in_turn_or_within_the_bound_is_not_late() {
    let check = |of_call: &dyn Fn(usize) -> usize, late_ns: i64, bound_ns: i64| {
        let mut samples = samples(&["gpu"; 3]);
        samples.ranks[2].clock_bound_ns = bound_ns;
        let mut point = all_reduce(90, &[[0, 220_000]; 3]);
        for call in 0..90 {
            point.calls[of_call(call)][call][0] += late_ns;
        }
        samples.collectives = vec![point];
        bench(&samples, &BenchOptions::default()).late_ranks.len()
    };
    assert_eq!(check(&|call| call % 3, 100_000, 100), 0);
    // Less than the clocks can tell.
    assert_eq!(check(&|_| 1, 100_000, 40_000), 0);
    // Seen, but of no weight.
    assert_eq!(check(&|_| 1, 5_000, 100), 0);
    assert_eq!(check(&|_| 1, 100_000, 100), 1);
}

/// Ranks of one class whose times vary together by 10 % and alone by 1 %, one of them slower.
fn products(devices: &[&str], slow: Option<(usize, f64)>) -> BenchSamples {
    let mut samples = samples(devices);
    let mut rng = Rng::new(7);
    for k in [64, 128] {
        let mut seconds = vec![Vec::new(); devices.len()];
        for _ in 0..20 {
            let together = (0.1 * rng.normal()).exp();
            for (at, seconds) in seconds.iter_mut().enumerate() {
                let factor = slow.filter(|slow| slow.0 == at).map_or(1.0, |slow| slow.1);
                seconds.push(1e-6 * together * factor * (0.01 * rng.normal()).exp());
            }
        }
        samples.compute.push(ComputeSamples {
            name: format!("depth {k}"),
            work: ComputeWork::Product { m: 64, n: 64, k },
            data_type: DataType::F32,
            seconds,
        });
    }
    samples
}

#[test]
fn a_device_below_its_peers_is_named_with_an_interval() {
    let devices = ["a", "b", "a", "a", "a"];
    let found = bench(
        &products(&devices, Some((2, 1.0 / 0.92))),
        &BenchOptions::default(),
    );
    let [slow] = &found.slow_devices[..] else {
        panic!("{:?}", found.slow_devices)
    };
    assert_eq!((slow.rank, slow.peers), (2, 3));
    assert!(slow.below.low < 0.08 && 0.08 < slow.below.high, "{slow:?}");
    // All of them vary by 10 %, which the comparison within rounds leaves out.
    assert!(slow.below.high - slow.below.low < 0.03, "{slow:?}");
    let share = found.compute[0].ranks[0].share_of_peak;
    assert!(
        share.is_some_and(|share| (0.4..0.65).contains(&share)),
        "{share:?}"
    );
}

#[test]
fn nobody_is_named_without_a_peer_or_a_reason() {
    let check = |devices: &[&str], slow| {
        let found = bench(&products(devices, slow), &BenchOptions::default());
        assert_eq!(found.slow_devices, [], "{devices:?}");
        found.verdict
    };
    check(&["a"; 8], None);
    // A class is never slow.
    let alone = check(&["a", "b"], Some((1, 2.0)));
    assert_eq!(alone, "no device has a peer to be compared with");
    check(&["a"; 4], Some((1, 1.03)));
}

#[test]
fn percentiles_are_given_where_samples_suffice() {
    let of = |n: usize| {
        let samples: Vec<f64> = (1..=n).map(|it| it as f64).collect();
        Distribution::of(&samples).expect("samples")
    };
    assert_eq!(Distribution::of(&[]), None);
    assert_eq!((of(58).p95, of(298).p99), (None, None));
    assert!(of(59).p95.is_some() && of(299).p99.is_some());
    // Conover's interval for n = 100: order statistics 40 and 61.
    assert_eq!(
        (of(100).median, of(100).interval),
        (50.5, Some([40.0, 61.0]))
    );
    // Of five, all lie on one side of the median too often: 2 / 2^5.
    assert_eq!((of(5).median, of(5).interval), (3.0, None));
    assert_eq!(of(6).interval, Some([1.0, 6.0]));
}

#[test]
fn wrong_results_come_first() {
    let mut samples = samples(&["gpu"; 2]);
    let mut point = all_reduce(9, &[[0, 10_000]; 2]);
    point.wrong[1] = 3;
    samples.collectives = vec![point];
    let found = bench(&samples, &BenchOptions::default());
    assert!(found.is_wrong());
    assert_eq!(
        (
            found.collectives[0].wrong,
            &found.collectives[0].wrong_ranks[..]
        ),
        (3, &[1][..])
    );
    assert!(
        found.verdict.starts_with("WRONG RESULTS: all_reduce"),
        "{}",
        found.verdict
    );
}

#[test]
fn wrong_results_are_counted_in_words() {
    let samples = samples(&["gpu"; 2]);
    let mut point = all_reduce(9, &[[0, 10_000]; 2]);
    point.wrong[1] = 3;
    let check = |points: Vec<CollectiveSamples>, expect: &str| {
        let samples = BenchSamples {
            collectives: points,
            ..samples.clone()
        };
        let verdict = bench(&samples, &BenchOptions::default()).verdict;
        assert_eq!(
            verdict,
            format!("WRONG RESULTS: all_reduce of 4000 bytes {expect}")
        );
    };
    check(vec![point.clone()], "on ranks [1]");
    check(
        vec![point.clone(), point.clone()],
        "on ranks [1], and 1 more",
    );
}

#[test]
fn equal_devices_are_rarely_named() {
    const BENCHMARKS: usize = 200;
    let is_alarm = |seed: &u64| {
        let mut samples = products(&["a"; 8], None);
        let mut rng = Rng::new(*seed);
        for kernel in &mut samples.compute {
            let all = kernel.seconds.iter_mut().flatten();
            all.for_each(|it| *it = (0.01 * rng.normal()).exp());
        }
        samples.compute[1].work = ComputeWork::Triad { bytes: 3000 };
        let options = BenchOptions { name_over: 0.0 };
        !bench(&samples, &options).slow_devices.is_empty()
    };
    let alarms = (0..BENCHMARKS as u64).filter(is_alarm).count();
    assert!(alarms * 20 <= BENCHMARKS, "{alarms} of {BENCHMARKS}");
}

#[test]
fn few_rounds_name_no_device() {
    let check = |rounds: usize, expect: usize| {
        let mut samples = products(&["a"; 4], Some((2, 1.5)));
        for kernel in &mut samples.compute {
            kernel.seconds.iter_mut().for_each(|it| it.truncate(rounds));
        }
        let found = bench(&samples, &BenchOptions::default());
        assert_eq!(found.slow_devices.len(), expect, "{rounds} rounds");
    };
    check(1, 0);
    check(5, 0);
    check(20, 1);
}

/// Links of ranks on hosts of so many: fast within a host, slower across, and by `of` slower still.
/// Of many ranks not all pairs are probed.
fn links(per_host: &[usize], of: &dyn Fn(usize, usize, bool) -> f64) -> BenchSamples {
    let hosts = per_host.iter().zip(0..);
    let hosts: Vec<usize> = hosts.flat_map(|(count, host)| vec![host; *count]).collect();
    let n = hosts.len();
    let mut samples = samples(&vec!["gpu"; n]);
    for (rank, host) in hosts.iter().enumerate() {
        samples.ranks[rank].host = format!("h{host}");
    }
    let distances = [1, 2, 4, 8];
    for from in 0..n {
        for to in (0..n).filter(|to| *to != from) {
            let away = (from + n - to) % n;
            if n > 12 && !distances.contains(&away.min(n - away)) {
                continue;
            }
            let is_within = hosts[from] == hosts[to];
            let bandwidth = if is_within { 200e9 } else { 25e9 };
            samples.pairs.push(PairSamples {
                from: from as Rank,
                to: to as Rank,
                bytes: 1_000_000,
                seconds: vec![1e6 / (bandwidth * of(from, to, is_within)); 7],
            });
        }
    }
    samples
}

fn slow_links(samples: &BenchSamples) -> Vec<(Rank, LinkScope)> {
    let found = bench(samples, &BenchOptions::default()).slow_links;
    found.iter().map(|it| (it.rank, it.scope)).collect()
}

#[test]
fn links_across_hosts_are_not_held_against_those_within() {
    for per_host in [&[8, 1][..], &[8, 4], &[2, 1], &[8, 8, 8], &[1, 1, 1], &[4]] {
        let samples = links(per_host, &|_, _, _| 1.0);
        assert_eq!(slow_links(&samples), [], "{per_host:?}");
    }
    let of = |rank: usize, scope: LinkScope| {
        move |from: usize, to: usize, is_within: bool| {
            let is_in = is_within == (scope == LinkScope::WithinHost);
            let is_its = from == rank || to == rank;
            if is_in && is_its { 0.1 } else { 1.0 }
        }
    };
    for scope in [LinkScope::WithinHost, LinkScope::AcrossHosts] {
        for per_host in [&[8, 4][..], &[8, 8, 8], &[4, 4]] {
            let samples = links(per_host, &of(5, scope));
            assert_eq!(slow_links(&samples), [(5, scope)], "{per_host:?}");
        }
    }
    let samples = links(&[8, 1], &of(5, LinkScope::WithinHost));
    assert_eq!(slow_links(&samples), [(5, LinkScope::WithinHost)]);
    // A link has two ends, and here nothing tells which it is.
    let samples = links(&[2, 1], &of(0, LinkScope::AcrossHosts));
    assert_eq!(slow_links(&samples), []);
}

#[test]
fn the_rank_with_slow_links_is_named() {
    let mut samples = samples(&["gpu"; 4]);
    for (from, to) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
        for (from, to) in [(from, to), (to, from)] {
            let slow = from == 3 || to == 3;
            samples.pairs.push(PairSamples {
                from,
                to,
                bytes: 1_000_000,
                seconds: vec![if slow { 1e-2 } else { 1e-3 }; 7],
            });
        }
    }
    let found = bench(&samples, &BenchOptions::default());
    let [slow] = &found.slow_links[..] else {
        panic!("{:?}", found.slow_links)
    };
    assert_eq!((slow.rank, slow.scope), (3, LinkScope::WithinHost));
    close(slow.bandwidth_bytes_per_s, 1e8);
    close(slow.others_bandwidth_bytes_per_s, 1e9);
}
