//! From the samples of a benchmark to what they say: bandwidths, who comes late to calls, whose
//! device is slower than its peers, which link is slow. Takes values and returns values.

mod device;
mod late;
mod pair;
#[cfg(test)]
mod tests;

pub use device::{KernelKind, SlowDevice};
pub use late::LateRank;
pub use pair::{LinkScope, PairFigures, SlowRankLinks};

use laggard_record::{
    BenchRank, BenchSamples, CollectiveSamples, Communication, ComputeSamples, ComputeWork, Peak,
    Placement,
};
use laggard_stats::{median, quantile, sorted_median_interval, sorted_quantile};
use laggard_types::{Caveat, Collective, DataType, Rank, ReduceOp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Version of the form of [`Bench`].
pub const BENCH_VERSION: u32 = 1;
/// From so many samples on, a percentile is distinguishable from the largest sample, with 95 %
/// confidence: `ln 0.05 / ln p`.
const LEAST_FOR_P95: usize = 59;
const LEAST_FOR_P99: usize = 299;

/// How a benchmark is judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BenchOptions {
    /// Smallest shortfall that is named, as a share: of a device's rate, or of the time of calls
    /// that others wait for a rank.
    pub name_over: f64,
}

impl Default for BenchOptions {
    /// As the analysis of a run has it.
    fn default() -> Self {
        Self { name_over: 0.06 }
    }
}

/// What a benchmark says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bench {
    /// Version of this form.
    pub schema_version: u32,
    /// The answer in words.
    pub verdict: String,
    /// What carries the collectives.
    pub communication: Communication,
    /// The ranks, in order.
    pub ranks: Vec<BenchRank>,
    /// Collectives, size by size.
    pub collectives: Vec<CollectiveFigures>,
    /// Kernels.
    pub compute: Vec<ComputeFigures>,
    /// Messages between pairs of ranks.
    pub pairs: Vec<PairFigures>,
    /// Devices that are slower than others of their class, the slowest first.
    pub slow_devices: Vec<SlowDevice>,
    /// Ranks that the others wait for, the costliest first.
    pub late_ranks: Vec<LateRank>,
    /// Ranks whose links are slow, the slowest first.
    pub slow_links: Vec<SlowRankLinks>,
    /// Doubts.
    pub caveats: Vec<Caveat>,
}

/// How samples are distributed, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    /// How many there are.
    pub n: usize,
    /// The median.
    pub median: f64,
    /// Its 95 % interval by order statistics, which supposes no distribution; `None` where the
    /// samples are too few for one.
    pub interval: Option<[f64; 2]>,
    /// The 5th percentile.
    pub p5: f64,
    /// The 95th percentile; `None` where the samples are too few to tell it from the largest.
    pub p95: Option<f64>,
    /// The 99th percentile, likewise.
    pub p99: Option<f64>,
    /// The largest.
    pub max: f64,
}

/// One collective at one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectiveFigures {
    /// Which.
    pub collective: Collective,
    /// Its reduction, if it has one.
    pub op: Option<ReduceOp>,
    /// Where results go.
    pub placement: Placement,
    /// Type of the elements.
    pub data_type: DataType,
    /// Bytes as nccl-tests counts them.
    pub bytes: u64,
    /// From the arrival of the last rank to the completion of the last: the call itself.
    pub transfer: Distribution,
    /// From the arrival of the first rank to that of the last: waiting, which is no fault of the
    /// network.
    pub skew: Distribution,
    /// Bytes over the median of `transfer`.
    pub algbw_bytes_per_s: f64,
    /// The same times the bus factor of nccl-tests, which makes it comparable across numbers of
    /// ranks.
    pub busbw_bytes_per_s: f64,
    /// Time per call of calls that follow each other without a barrier, mean over ranks: what
    /// nccl-tests prints.
    pub back_to_back_s: f64,
    /// Bus bandwidth from that time.
    pub back_to_back_busbw_bytes_per_s: f64,
    /// Each rank's own view, in order.
    pub ranks: Vec<RankCalls>,
    /// Elements of the result that were wrong, over all ranks.
    pub wrong: u64,
    /// Ranks with wrong elements.
    pub wrong_ranks: Vec<Rank>,
}

/// Calls of one collective at one size, as one rank saw them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RankCalls {
    /// Median time from its own arrival to its own completion, which is the shortest for the rank
    /// that comes last.
    pub call_s: f64,
    /// Median time by which it came after the first.
    pub lag_s: f64,
    /// Share of the calls to which it came last.
    pub last_share: f64,
}

/// One kernel on all ranks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComputeFigures {
    /// What it is for.
    pub name: String,
    /// Its work.
    pub work: ComputeWork,
    /// Type of the elements.
    pub data_type: DataType,
    /// Each rank, in order.
    pub ranks: Vec<RankKernel>,
}

/// One kernel on one rank.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RankKernel {
    /// Times of one execution.
    pub seconds: Distribution,
    /// FLOP/s of a product, bytes/s of a triad (read and written), by the median.
    pub rate: f64,
    /// Share of the device's peak; `None` where that is not known or not of this work.
    pub share_of_peak: Option<f64>,
}

/// What samples say.
#[must_use]
pub fn bench(samples: &BenchSamples, options: &BenchOptions) -> Bench {
    let collectives: Vec<_> = samples.collectives.iter().filter_map(collective).collect();
    let peaks: Vec<Option<&Peak>> = samples.ranks.iter().map(|it| it.peak.as_ref()).collect();
    let compute = samples.compute.iter().map(|it| kernel(it, &peaks));
    let compute: Vec<_> = compute.collect();
    let pairs: Vec<_> = samples.pairs.iter().filter_map(PairFigures::of).collect();
    let slow_devices = device::slow(samples, options);
    let late_ranks = late::late(samples, options);
    let slow_links = pair::slow(&pairs, &samples.ranks);
    let mut found = Bench {
        schema_version: BENCH_VERSION,
        verdict: String::new(),
        communication: samples.communication.clone(),
        ranks: samples.ranks.clone(),
        collectives,
        compute,
        pairs,
        slow_devices,
        late_ranks,
        slow_links,
        caveats: samples.caveats.clone(),
    };
    found.verdict = found.in_words();
    found
}

impl Distribution {
    /// Of some samples; `None` without any.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let at = |p: f64| sorted_quantile(&sorted, p).ok();
        let percentile = |p: f64, least: usize| at(p).filter(|_| n >= least);
        let interval = sorted_median_interval(&sorted, 0.95);
        Some(Self {
            n,
            median: at(0.5)?,
            interval: interval.map(|it| [it.low, it.high]),
            p5: at(0.05)?,
            p95: percentile(0.95, LEAST_FOR_P95),
            p99: percentile(0.99, LEAST_FOR_P99),
            max: *sorted.last()?,
        })
    }
}

/// Arrivals and completions of call number `at` on all ranks.
fn call(samples: &CollectiveSamples, at: usize) -> impl Iterator<Item = [i64; 2]> + Clone + '_ {
    samples
        .calls
        .iter()
        .filter_map(move |rank| rank.get(at).copied())
}

fn calls_of(samples: &CollectiveSamples) -> usize {
    samples.calls.iter().map(Vec::len).min().unwrap_or(0)
}

fn seconds(ns: i64) -> f64 {
    ns as f64 * 1e-9
}

fn collective(samples: &CollectiveSamples) -> Option<CollectiveFigures> {
    let (mut transfers, mut skews) = (Vec::new(), Vec::new());
    let count = calls_of(samples);
    for at in 0..count {
        let begins = || call(samples, at).map(|[begin, _]| begin);
        let ends = call(samples, at).map(|[_, end]| end);
        let (first, last) = (begins().min()?, begins().max()?);
        skews.push(seconds(last - first));
        // Where clocks are known badly, a call may seem to end before it began.
        transfers.push(seconds((ends.max()? - last).max(1)));
    }
    let transfer = Distribution::of(&transfers)?;
    let ranks = samples.calls.len();
    let back_to_back_s = samples.back_to_back_ns.iter().sum::<f64>() * 1e-9 / ranks as f64;
    let bytes = samples.bytes as f64;
    let factor = samples.collective.bus_factor(ranks as u32);
    let is_wrong = |(wrong, rank): (&u64, Rank)| (*wrong > 0).then_some(rank);
    Some(CollectiveFigures {
        collective: samples.collective,
        op: samples.op,
        placement: samples.placement,
        data_type: samples.data_type,
        bytes: samples.bytes,
        algbw_bytes_per_s: bytes / transfer.median,
        busbw_bytes_per_s: factor * bytes / transfer.median,
        back_to_back_s,
        back_to_back_busbw_bytes_per_s: factor * bytes / back_to_back_s.max(1e-9),
        transfer,
        skew: Distribution::of(&skews)?,
        ranks: (0..ranks)
            .filter_map(|rank| rank_calls(samples, rank))
            .collect(),
        wrong: samples.wrong.iter().sum(),
        wrong_ranks: samples.wrong.iter().zip(0..).filter_map(is_wrong).collect(),
    })
}

fn rank_calls(samples: &CollectiveSamples, rank: usize) -> Option<RankCalls> {
    let own = &samples.calls[rank];
    let (mut calls, mut lags) = (Vec::new(), Vec::new());
    let mut last = 0;
    for (at, [begin, end]) in own.iter().enumerate().take(calls_of(samples)) {
        let begins = || call(samples, at).map(|[begin, _]| begin);
        calls.push(seconds(end - begin));
        lags.push(seconds(begin - begins().min()?));
        last += usize::from(begins().max() == Some(*begin));
    }
    Some(RankCalls {
        call_s: median(&calls).ok()?,
        lag_s: median(&lags).ok()?,
        last_share: last as f64 / calls.len() as f64,
    })
}

fn kernel(samples: &ComputeSamples, peaks: &[Option<&Peak>]) -> ComputeFigures {
    let (amount, is_product) = match samples.work {
        ComputeWork::Product { m, n, k } => (2.0 * m as f64 * n as f64 * k as f64, true),
        ComputeWork::Triad { bytes } => (bytes as f64, false),
    };
    let of_rank = |(times, peak): (&Vec<f64>, &Option<&Peak>)| {
        let seconds = Distribution::of(times)?;
        let rate = amount / seconds.median;
        Some(RankKernel {
            seconds,
            rate,
            share_of_peak: peak
                .filter(|_| is_product)
                .map(|peak| rate / peak.flop_per_s),
        })
    };
    ComputeFigures {
        name: samples.name.clone(),
        work: samples.work,
        data_type: samples.data_type,
        ranks: samples
            .seconds
            .iter()
            .zip(peaks)
            .filter_map(of_rank)
            .collect(),
    }
}

impl Bench {
    /// Whether a result of a collective was wrong.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.collectives.iter().any(|it| it.wrong > 0)
    }

    fn in_words(&self) -> String {
        let mut words = Vec::new();
        let wrong: Vec<_> = self.collectives.iter().filter(|it| it.wrong > 0).collect();
        if let Some(first) = wrong.first() {
            let (name, ranks) = (first.collective.name(), &first.wrong_ranks);
            let more = match wrong.len() - 1 {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            words.push(format!(
                "WRONG RESULTS: {name} of {} bytes on ranks {ranks:?}{more}",
                first.bytes
            ));
        } else if !self.collectives.is_empty() {
            words.push("all results are right".to_owned());
        }
        words.extend(self.slow_devices.iter().map(SlowDevice::in_words));
        words.extend(self.late_ranks.iter().map(LateRank::in_words));
        words.extend(self.slow_links.iter().map(SlowRankLinks::in_words));
        if self.slow_devices.is_empty() && !self.compute.is_empty() {
            words.push(match self.spread() {
                Some(spread) => format!(
                    "no device is named: medians of a class differ by {:.1} % at most",
                    100.0 * spread
                ),
                None => "no device has a peer to be compared with".to_owned(),
            });
        }
        words.join("; ")
    }

    /// How much longer the slowest of a class takes than the fastest, over all kernels.
    fn spread(&self) -> Option<f64> {
        let mut most: Option<f64> = None;
        for kernel in &self.compute {
            for class in device::classes(&self.ranks) {
                let times = class.iter().filter_map(|rank| kernel.ranks.get(*rank));
                let times: Vec<f64> = times.map(|it| it.seconds.median).collect();
                if times.len() > 1 {
                    let ends = (quantile(&times, 0.0).ok()?, quantile(&times, 1.0).ok()?);
                    most = Some(most.unwrap_or(0.0).max(ends.1 / ends.0 - 1.0));
                }
            }
        }
        most
    }
}
