//! Calibration on what `laggard bench` measured.

use super::{Basis, SEED};
use crate::command::bench::SAMPLES_FILE;
use crate::failure::{BadInput, Usage};
use anyhow::Result;
use laggard_record::{BenchSamples, CollectiveSamples, ComputeSamples, ComputeWork, Placement};
use laggard_simulate::{
    CallWork, ForecastClass, MeasuredCall, Precision, RunComparison, compare_calls,
};
use laggard_types::DataType;
use std::collections::BTreeMap;
use std::path::Path;

/// The samples of a benchmark's folder; `None` where it is none.
pub(super) fn read(dir: &Path) -> Result<Option<BenchSamples>> {
    let path = dir.join(SAMPLES_FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let text = crate::input::text(&path)?;
    let samples = BenchSamples::from_json(&text).map_err(|why| {
        let hint = "hint: measure again with `laggard bench --output DIR`";
        BadInput(format!("cannot read {}: {why}\n{hint}", path.display()))
    })?;
    Ok(Some(samples))
}

/// What ranks computed on, by order of first appearance.
pub(super) fn classes(samples: &BenchSamples) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for rank in &samples.ranks {
        if !names.contains(&rank.device.as_str()) {
            names.push(&rank.device);
        }
    }
    names
}

/// What samples say of the classes that are asked for.
pub(super) fn compare(
    samples: &BenchSamples,
    expected: &[Option<&ForecastClass>],
    basis: &Basis<'_>,
) -> Result<RunComparison> {
    if basis.precision != Precision::Half {
        let hint = "hint: give --precision half, or calibrate on a record of `laggard run`";
        let words = "a benchmark's products tell of half precision alone";
        return Err(Usage(format!("{words}\n{hint}")).into());
    }
    let names = classes(samples);
    let transfers: Vec<Vec<f64>> = samples.collectives.iter().map(transfer_seconds).collect();
    let mut found = Vec::new();
    let mut rounds = 0;
    for (name, class) in names.iter().zip(expected) {
        let Some(class) = class else { continue };
        let of_class = (0..samples.ranks.len()).filter(|at| samples.ranks[*at].device == *name);
        let mut ranks: Vec<Vec<MeasuredCall<'_>>> =
            of_class.map(|at| kernels(&samples.compute, at)).collect();
        // Of several classes, the slowest makes all wait.
        if names.len() == 1 {
            ranks.extend(collectives(samples, &transfers));
        }
        let calls = ranks.iter().flatten();
        rounds = calls.map(|call| call.seconds.len()).min().unwrap_or(0);
        if rounds == 0 {
            let hint = "hint: measure with `laggard bench --only gemm,triad,all_reduce`";
            let words = format!("the benchmark measured nothing of {name} alone");
            return Err(BadInput(format!("{words}\n{hint}")).into());
        }
        found.push(compare_calls(&ranks, (class, basis.constants), SEED)?);
    }
    let caveats = samples.caveats.iter();
    Ok(RunComparison {
        steps: rounds,
        classes: found,
        own_step: None,
        caveats: caveats.map(|caveat| caveat.message.clone()).collect(),
    })
}

fn kernels(compute: &[ComputeSamples], rank: usize) -> Vec<MeasuredCall<'_>> {
    let mut calls = Vec::new();
    for kernel in compute {
        let work = match kernel.work {
            ComputeWork::Triad { bytes } => CallWork::Memory { bytes },
            ComputeWork::Product { m, n, k } => CallWork::Product {
                m,
                n,
                k,
                single: kernel.data_type == DataType::F32,
            },
        };
        let seconds = kernel.seconds.get(rank);
        calls.extend(seconds.map(|seconds| MeasuredCall { work, seconds }));
    }
    calls
}

/// Calls from the last arrival to the last completion: what the cost model has for all ranks
/// arriving at once.
fn transfer_seconds(samples: &CollectiveSamples) -> Vec<f64> {
    let count = samples.calls.iter().map(Vec::len).min().unwrap_or(0);
    let of_call = |at: usize| {
        let all = samples.calls.iter().map(|rank| rank[at]);
        let last = all.clone().map(|[begin, _]| begin).max()?;
        let end = all.map(|[_, end]| end).max()?;
        Some((end - last).max(1) as f64 * 1e-9)
    };
    (0..count).filter_map(of_call).collect()
}

/// The collectives of all ranks together, as if one rank told of them; none of one rank.
fn collectives<'a>(
    samples: &BenchSamples,
    transfers: &'a [Vec<f64>],
) -> Option<Vec<MeasuredCall<'a>>> {
    let mut hosts: BTreeMap<&str, u32> = BTreeMap::new();
    for rank in &samples.ranks {
        *hosts.entry(&rank.host).or_default() += 1;
    }
    let ranks = u32::try_from(samples.ranks.len()).unwrap_or(u32::MAX);
    let ranks_per_host = hosts.into_values().max()?;
    let call = |(point, seconds): (&CollectiveSamples, &'a Vec<f64>)| {
        let work = CallWork::Collective {
            collective: point.collective,
            bytes: point.bytes,
            ranks,
            ranks_per_host,
        };
        let is_counted = point.placement == Placement::OutOfPlace && ranks > 1;
        is_counted.then_some(MeasuredCall { work, seconds })
    };
    let calls: Vec<_> = samples
        .collectives
        .iter()
        .zip(transfers)
        .filter_map(call)
        .collect();
    (!calls.is_empty()).then_some(calls)
}
