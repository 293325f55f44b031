//! Ranks of this process that have one GPU in common: a mixed cluster, rehearsed on the one GPU
//! that there is. Each rank is confined to a part of it in proportion to its class's rate where the
//! driver divides GPUs; how fast each part really is, and whether all run at the same time, is
//! measured first and goes into the record.

use crate::failure::Usage;
use crate::gpus::Gpus;
use crate::output::talk;
use anyhow::{Result, anyhow};
use laggard_backend::{Abort, Device};
use laggard_cuda::{
    Concurrency, ConcurrencyOptions, CudaDevice, CudaError, PeakOptions, STAGED, Share,
    concurrency, staged_worlds,
};
use laggard_measure::{ClassShare, Hooks, Settings, Summary, run_on};
use laggard_record::{Communication, Emulation};
use laggard_types::{Caveat, CaveatCode};
use std::sync::{Arc, Barrier};

/// Products by which each part's rate is measured.
const PRODUCTS: u32 = 20;

/// The variable that says how many of a process's streams a GPU tells apart, and the most that it
/// takes (CUDA C++ programming guide, "CUDA environment variables"). Others wait behind each other,
/// also where one of them waits for a rank whose stream is behind it.
const CONNECTIONS: &str = "CUDA_DEVICE_MAX_CONNECTIONS";
const MOST_CONNECTIONS: u32 = 32;

/// Whether ranks are to share: there are more of them than GPUs, and that is allowed.
pub(crate) fn is_meant(settings: &Settings, gpus: &Gpus) -> bool {
    settings.allow_shared_gpu && settings.ranks() as usize > gpus.count
}

/// Runs a job on ranks of this process that share the GPU.
pub(crate) fn run(gpus: Gpus, settings: &mut Settings, hooks: &Hooks<'_>) -> Result<Summary> {
    if gpus.count > 1 {
        let (ranks, count) = (settings.ranks(), gpus.count);
        let hint = "hint: show one alone by CUDA_VISIBLE_DEVICES=0, or give each rank its own";
        let what = format!("{ranks} ranks share one GPU, and there are {count}");
        return Err(Usage(format!("{what}\n{hint}")).into());
    }
    if let Some(hint) = connections_hint(std::env::var(CONNECTIONS).ok().as_deref()) {
        talk(&hint);
    }
    let shares = divide(&gpus, settings)?;
    let gpus = gpus.divided(shares);
    let abort: Arc<Abort> = Arc::default();
    let open = |rank| gpus.device((rank, 0), &abort).map(Arc::new);
    let devices: Vec<Arc<CudaDevice>> = (0..settings.ranks()).map(open).collect::<Result<_>>()?;
    let options = ConcurrencyOptions {
        timeout: settings.timeout,
        ..ConcurrencyOptions::among(devices.len())
    };
    let found = concurrency(&devices, &options)?;
    if let Concurrency::NotShown { why } = &found {
        let words = format!("time-sliced, not a proof: {why}");
        talk(&words);
        settings
            .doubts
            .push(Caveat::new(CaveatCode::TimeSliced, words));
    }
    if !gpus.shares.is_empty() {
        settings.classes = measured(settings, &devices, &gpus.shares)?;
        for class in &settings.classes {
            let ClassShare {
                name,
                relative_rate,
                emulation,
                ..
            } = class;
            talk(&format!(
                "{name}: {emulation}, {relative_rate:.3} of the fastest"
            ));
        }
    }
    if gpus.lets_ranks_share() {
        // NCCL's world opens devices of its own.
        drop(devices);
        return gpus.run(settings, hooks);
    }
    let communication = Communication {
        backend: STAGED.to_owned(),
        progress: "by copies of each GPU and threads of the host".to_owned(),
    };
    let worlds = staged_worlds(&devices, &abort, settings.timeout)?;
    drop(devices);
    Ok(run_on(settings, worlds, communication, hooks)?)
}

/// What to try where ranks wait for each other in vain, unless it is so.
fn connections_hint(set: Option<&str>) -> Option<String> {
    let set = set.and_then(|text| text.trim().parse::<u32>().ok());
    let is_most = set.is_some_and(|count| count >= MOST_CONNECTIONS);
    (!is_most).then(|| {
        format!("hint: set {CONNECTIONS}={MOST_CONNECTIONS} if ranks on one GPU run out of time")
    })
}

/// A part of the GPU for each rank, in order; none where the driver does not divide it.
fn divide(gpus: &Gpus, settings: &Settings) -> Result<Vec<Share>> {
    let weights = match settings.classes.is_empty() {
        true => vec![1.0; settings.ranks() as usize],
        false => rates(&settings.classes),
    };
    match Share::divide(0, &weights, &gpus.surroundings) {
        Ok(shares) => Ok(shares),
        Err(error @ CudaError::Undivided { .. }) => {
            talk(&error.to_string());
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    }
}

/// The rate of each rank, relative to the fastest class.
fn rates(classes: &[ClassShare]) -> Vec<f64> {
    let of = |class: &ClassShare| vec![class.relative_rate; class.ranks as usize];
    classes.iter().flat_map(of).collect()
}

/// The classes as they really are on their parts of the GPU; ranks without classes are all of one.
fn measured(
    settings: &Settings,
    devices: &[Arc<CudaDevice>],
    shares: &[Share],
) -> Result<Vec<ClassShare>> {
    let edge = usize::try_from(settings.model.hidden).unwrap_or(usize::MAX);
    let options = PeakOptions {
        edge,
        products: PRODUCTS,
        timeout: settings.timeout,
    };
    let source = format!("products of {edge} x {edge} x {edge} on all parts at the same time");
    let rates = together(devices, &options)?;
    let part = |share: &Share| Emulation::GreenContext {
        multiprocessors: share.multiprocessors(),
        of: share.of(),
    };
    let ranks: Vec<(f64, Emulation)> = rates.into_iter().zip(shares.iter().map(part)).collect();
    if !settings.classes.is_empty() {
        return Ok(ClassShare::confined(&settings.classes, &ranks, &source)?);
    }
    let names: Vec<String> = devices.iter().map(|it| it.description().name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let equal = ClassShare::of_ranks(&names, |_| Some((1.0, source.clone())));
    Ok(ClassShare::confined(&equal, &ranks, &source)?)
}

/// Measures the rates of all devices at the same time, FLOP/s.
fn together(devices: &[Arc<CudaDevice>], options: &PeakOptions) -> Result<Vec<f64>> {
    let start = Barrier::new(devices.len());
    std::thread::scope(|scope| {
        let measure = |device: &'_ Arc<CudaDevice>| {
            let device = Arc::clone(device);
            let start = &start;
            scope.spawn(move || {
                start.wait();
                device.measure_peak(options)
            })
        };
        let threads: Vec<_> = devices.iter().map(measure).collect();
        let ended = threads.into_iter().map(|thread| match thread.join() {
            Ok(rate) => Ok(rate?.0),
            Err(_) => Err(anyhow!("the thread of a rank panicked")),
        });
        ended.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_connections_are_told() {
        let is_told = |set| connections_hint(set).is_some();
        assert!(is_told(None) && is_told(Some("8")) && is_told(Some("many")));
        assert!(!is_told(Some("32")) && !is_told(Some(" 64 ")));
    }
}
