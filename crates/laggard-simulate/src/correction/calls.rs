//! How far a class is from its datasheet by single kernels and collectives, as `laggard bench`
//! measures them: each is held against what the cost model says of that very call.

use laggard_types::Collective;

use super::ClassCorrection;
use super::parts::Parts;
use super::ratio::{RankTimes, Series, ratios};
use crate::compute::{Constants, Gemm, Kernelry};
use crate::error::SimulateError;
use crate::forecast::ForecastClass;
use crate::job::Precision;
use crate::network::{Group, collective_seconds};

/// What one rank measured of one call.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredCall<'a> {
    /// The call.
    pub work: CallWork,
    /// What it took, time after time, seconds.
    pub seconds: &'a [f64],
}

/// A kernel or a collective.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CallWork {
    /// A product of an `m` x `k` matrix and a `k` x `n` one.
    Product {
        /// Rows of the result.
        m: u64,
        /// Columns of the result.
        n: u64,
        /// What is summed over.
        k: u64,
        /// Whether it is in single precision.
        single: bool,
    },
    /// A kernel that moves so many bytes through memory.
    Memory {
        /// Bytes read and written.
        bytes: u64,
    },
    /// A collective.
    Collective {
        /// Which.
        collective: Collective,
        /// Bytes as nccl-tests counts them.
        bytes: u64,
        /// Ranks, all of this class.
        ranks: u32,
        /// The most that are in one host.
        ranks_per_host: u32,
    },
}

/// Compares single calls with what is expected of a class in half precision: `ranks` has what each
/// rank measured. Everything random has `seed`.
///
/// # Errors
/// Products in single precision of a class that computes half precision by other units, or whose
/// peak in single precision is unknown.
pub fn compare_calls(
    ranks: &[Vec<MeasuredCall<'_>>],
    (class, constants): (&ForecastClass, &Constants),
    seed: u64,
) -> Result<ClassCorrection, SimulateError> {
    let rounds = ranks.iter().flatten().map(|call| call.seconds.len());
    // Calls of large messages are repeated less often than others.
    let steps = rounds.min().unwrap_or(0);
    let mut times = Vec::new();
    for calls in ranks {
        let mut rank = RankTimes::new(steps);
        for call in calls {
            let (series, expected) = expected(&call.work, class, constants)?;
            rank.add(series, &expected, call.seconds.iter().copied());
        }
        times.push(rank);
    }
    let whole: Vec<f64> = (0..steps)
        .map(|step| {
            let of_call = |call: &MeasuredCall<'_>| call.seconds[step];
            ranks.iter().flatten().map(of_call).sum()
        })
        .collect();
    let no_links = "no collective of two ranks was measured";
    let [products, memory_bound, links] = ratios(&times, &whole, (no_links, seed))?;
    Ok(ClassCorrection {
        class: class.name.clone(),
        accelerator: class.accelerator.clone(),
        products,
        memory_bound,
        links,
    })
}

fn expected(
    work: &CallWork,
    class: &ForecastClass,
    constants: &Constants,
) -> Result<(Series, Parts), SimulateError> {
    let none = Parts::default();
    let kernels = |machine| Kernelry {
        machine,
        constants,
        precision: Precision::Half,
    };
    let machine = &class.machine;
    Ok(match *work {
        CallWork::Product { m, n, k, single } => {
            let [m, n, k] = [m, n, k].map(|extent| extent as f64);
            let other = match single {
                true => Some(in_single(class)?),
                false => None,
            };
            let products = kernels(other.as_ref().unwrap_or(machine)).gemm(Gemm { m, n, k });
            (Series::Layers, Parts { products, ..none })
        }
        CallWork::Memory { bytes } => {
            let memory_bound = kernels(machine).memory(bytes as f64);
            (
                Series::MemoryBound,
                Parts {
                    memory_bound,
                    ..none
                },
            )
        }
        CallWork::Collective {
            collective,
            bytes,
            ranks,
            ranks_per_host,
        } => {
            let host = class.devices_per_node.unwrap_or(u64::from(ranks_per_host));
            let group = match u64::from(ranks_per_host) >= host.min(u64::from(ranks)) {
                // Whole hosts: what is beyond a host may still be one scale-up domain.
                true => Group::strided(ranks, 1, &machine.fabric),
                false => Group::new(ranks, ranks_per_host),
            };
            let links = collective_seconds(collective, bytes as f64, &group, &machine.fabric);
            (Series::Links, Parts { links, ..none })
        }
    })
}

/// The class as it computes single precision, from which it tells of half precision only if it does
/// both by the same units.
fn in_single(class: &ForecastClass) -> Result<crate::job::Machine, SimulateError> {
    let machine = &class.machine;
    let same_units = machine
        .single_peak
        .is_some_and(|single| machine.half_peak <= single);
    let other = machine.in_single().filter(|_| same_units);
    other.ok_or_else(|| SimulateError::OtherArithmetic {
        data_type: "f32".to_owned(),
        why: format!(
            "{} computes half precision, which is forecast, by other units",
            class.accelerator
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Machine;
    use crate::network::FabricOptions;
    use laggard_specs::Tables;

    fn class(accelerator: &str) -> ForecastClass {
        let tables = Tables::builtin().unwrap();
        let accelerator = tables.accelerator(accelerator).unwrap();
        ForecastClass {
            name: "mine".to_owned(),
            accelerator: accelerator.id.clone(),
            count: 16,
            devices_per_node: Some(8),
            machine: Machine::new(accelerator, &FabricOptions::default()).unwrap(),
            failures_per_device_year: None,
        }
    }

    fn works(single: bool) -> [CallWork; 4] {
        [
            CallWork::Product {
                m: 8192,
                n: 1280,
                k: 8192,
                single,
            },
            CallWork::Memory { bytes: 3 << 30 },
            CallWork::Collective {
                collective: Collective::AllReduce,
                bytes: 128 << 20,
                ranks: 16,
                ranks_per_host: 8,
            },
            CallWork::Collective {
                collective: Collective::AllGather,
                bytes: 1 << 20,
                ranks: 16,
                ranks_per_host: 8,
            },
        ]
    }

    #[test]
    fn what_every_call_takes_longer_is_found() {
        let (class, constants) = (class("h100"), Constants::builtin().unwrap());
        let factors = [1.25, 0.9, 2.0, 2.0];
        let seconds: Vec<Vec<f64>> = works(false)
            .iter()
            .zip(factors)
            .map(|(work, factor)| {
                let (_, parts) = expected(work, &class, &constants).unwrap();
                let whole = parts.products + parts.memory_bound + parts.links;
                (0..20)
                    .map(|at| factor * whole * (1.0 + 0.001 * f64::from(at % 3)))
                    .collect()
            })
            .collect();
        let calls = works(false).into_iter().zip(&seconds);
        let calls: Vec<MeasuredCall<'_>> = calls
            .map(|(work, seconds)| MeasuredCall { work, seconds })
            .collect();
        let kernels = calls[..2].to_vec();
        let found = compare_calls(&[calls, kernels], (&class, &constants), 1).unwrap();
        let ratio = |correction: &super::super::Correction| match correction {
            super::super::Correction::Measured(ratio) => *ratio,
            other => panic!("{other:?}"),
        };
        for (correction, expect, ranks) in [
            (&found.products, 1.25, 2),
            (&found.memory_bound, 0.9, 2),
            (&found.links, 2.0, 1),
        ] {
            let found = ratio(correction);
            assert!((found.value / expect - 1.0).abs() < 0.003, "{found:?}");
            assert!(found.low <= found.value && found.value <= found.high);
            assert_eq!((found.ranks, found.steps), (ranks, 20));
        }
    }

    #[test]
    fn single_precision_tells_nothing_of_tensor_cores() {
        let (class, constants) = (class("h100"), Constants::builtin().unwrap());
        let seconds = [1e-3; 3];
        let work = works(true)[0];
        let calls = vec![MeasuredCall {
            work,
            seconds: &seconds,
        }];
        let error = compare_calls(&[calls], (&class, &constants), 1).unwrap_err();
        assert!(
            matches!(error, SimulateError::OtherArithmetic { .. }),
            "{error}"
        );
    }
}
