//! Settings made ready: the schedule, who runs where, how fast and on what.

use crate::batches::Batches;
use crate::classes::{class_of_rank, distinct};
use crate::inject::{Injector, World};
use crate::memory::{Capacity, Memory};
use crate::place::{Neighbours, Places, Report};
use crate::portion::Portion;
use crate::processors;
use crate::shape::{Experts, Shape};
use crate::sharing;
use crate::stream::MOST_FAULTS;
use crate::turns::Turn;
use crate::{MeasureError, Settings};
use laggard_backend::DeviceDescription;
use laggard_record::TimeBasis;
use laggard_schedule::{ModelWork, Schedule, generate};
use laggard_specs::{Model, model_work};
use laggard_types::{DataType, DeviceIdentity, Rank, format_bytes};
use std::collections::BTreeMap;

/// A job that can be run.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub settings: Settings,
    pub shape: Shape,
    work: ModelWork,
    pub schedule: Schedule,
    pub injector: Injector,
    /// Class of each rank: the emulated one, else its processor's model.
    pub class_of_rank: Vec<u32>,
    /// What each rank says of its place.
    pub reports: Vec<Report>,
    /// Host of each rank, by order of first appearance.
    pub host_of_rank: Vec<u32>,
    /// Which times the run vouches for.
    pub basis: TimeBasis,
    /// The processor that each rank is bound to, where each has one of its own.
    cpu_of_rank: Option<Vec<u32>>,
    /// Its turns, where it takes turns with others.
    pub turn: Option<Turn>,
}

impl Job {
    /// A job whose ranks are all in this process.
    ///
    /// # Errors
    /// If the settings cannot be run.
    pub(crate) fn new(settings: &Settings) -> Result<Self, MeasureError> {
        Self::beside(settings, Neighbours::default())
    }

    /// The same, beside other jobs of this process.
    ///
    /// # Errors
    /// If the settings cannot be run.
    pub(crate) fn beside(settings: &Settings, others: Neighbours) -> Result<Self, MeasureError> {
        settings.check()?;
        let host_of_rank = hosts(settings.ranks(), settings.emulate_hosts);
        Self::at(settings, settings.own_places(&host_of_rank, others)?)
    }

    /// Makes a job of the ranks of this process ready, on devices of theirs.
    ///
    /// # Errors
    /// As [`Job::new`].
    pub(crate) fn on(
        settings: &Settings,
        devices: &[DeviceDescription],
        identities: &[Option<DeviceIdentity>],
    ) -> Result<Self, MeasureError> {
        settings.check()?;
        let host_of_rank = hosts(settings.ranks(), settings.emulate_hosts);
        let places = settings.own_places(&host_of_rank, Neighbours::default())?;
        Self::at(settings, places.on(devices.iter()).identified(identities))
    }

    /// Checks settings and prepares what follows from them, for ranks at these places.
    ///
    /// # Errors
    /// If the settings cannot be run.
    pub(crate) fn at(settings: &Settings, places: Places) -> Result<Self, MeasureError> {
        settings.check()?;
        let Places {
            reports,
            cpu_of_rank,
            ..
        } = places;
        let on_accelerators = check_devices(&reports, settings.data_type)?;
        if !settings.allow_shared_gpu {
            sharing::refuse(&reports)?;
        }
        settings.check_soak(on_accelerators)?;
        let shape = shape_of(&settings.model, settings.data_type)?;
        let size = (settings.micro_batch_sequences, settings.sequence_length);
        let work = model_work(
            &settings.model,
            size,
            settings.data_type.size_bytes() as u64,
        );
        let schedule = generate(&settings.layout, &work)?;
        let ranks = settings.ranks();
        let host_of_rank = order_of_appearance(reports.iter().map(|report| report.host.as_str()));
        if settings.faults.len() > MOST_FAULTS {
            return Err(MeasureError::Setting {
                what: "the number of faults",
                value: settings.faults.len().to_string(),
                why: format!("there are random numbers for {MOST_FAULTS}"),
                hint: "give --inject fewer times".to_owned(),
            });
        }
        let injector = Injector::new(
            &settings.faults,
            World {
                host_of_rank: host_of_rank.clone(),
                stage_of_rank: schedule.stage_of_rank.clone(),
                steps: settings.steps,
                length: settings.sequence_length,
                micro_batches: settings.layout.micro_batches.clone(),
                seed: settings.seed,
            },
        )?;
        let job = Self {
            class_of_rank: match settings.classes.is_empty() {
                true => order_of_appearance(reports.iter().map(Report::device)),
                false => class_of_rank(&settings.classes, ranks)?,
            },
            settings: settings.clone(),
            shape,
            work,
            schedule,
            injector,
            host_of_rank,
            basis: match cpu_of_rank.is_some() || on_accelerators {
                true => TimeBasis::Wall,
                false => TimeBasis::Virtual,
            },
            cpu_of_rank,
            reports,
            turn: None,
        };
        job.check_memory()?;
        Ok(job)
    }

    /// Machine of each rank, by order of first appearance: hosts of one machine share its clock.
    pub(crate) fn machine_of_rank(&self) -> Vec<u32> {
        order_of_appearance(self.reports.iter().map(|report| report.machine.as_str()))
    }

    /// Names of what ranks compute on, by order of first appearance.
    pub(crate) fn device_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for report in &self.reports {
            if !names.contains(&report.device()) {
                names.push(report.device());
            }
        }
        names
    }

    /// Whether ranks compute on accelerators: all do, or none does.
    pub(crate) fn is_on_accelerators(&self) -> bool {
        self.reports.iter().any(|it| it.accelerator.is_some())
    }

    /// How much arithmetic a rank does for what the fastest class does once.
    pub(crate) fn class_scale(&self, rank: Rank) -> f64 {
        let class = self.class_of_rank[rank as usize] as usize;
        distinct(&self.settings.classes)
            .get(class)
            .map_or(1.0, |class| class.work_scale())
    }

    /// The processor that a rank is bound to: each has one of its own, or none is bound.
    pub(crate) fn processor_of(&self, rank: Rank) -> Option<u32> {
        self.cpu_of_rank.as_ref()?.get(rank as usize).copied()
    }

    /// The processors of all ranks, in order of rank; empty where ranks are not bound.
    pub(crate) fn bound_processors(&self) -> Vec<u32> {
        (0..self.settings.ranks())
            .filter_map(|rank| self.processor_of(rank))
            .collect()
    }

    /// What a rank holds of the model.
    ///
    /// # Errors
    /// If the layout does not fit the model.
    pub(crate) fn portion(&self, rank: Rank) -> Result<Portion, MeasureError> {
        Portion::new(self.shape, &self.settings.layout, &self.work, rank)
    }

    /// The micro-batches of a rank.
    pub(crate) fn batches(&self, rank: Rank) -> Batches {
        let settings = &self.settings;
        let size = (settings.micro_batch_sequences, settings.sequence_length);
        Batches::new(&settings.layout, rank, size)
    }

    /// The largest micro-batch of a rank.
    pub(crate) fn capacity(&self, rank: Rank) -> Capacity {
        let layout = &self.settings.layout;
        let replica = layout.coordinates(rank).data as usize;
        Capacity {
            micro_batches: layout.micro_batches[replica] as usize,
            sequences: self.settings.micro_batch_sequences as usize,
            length: self.injector.longest() as usize,
        }
    }

    fn check_memory(&self) -> Result<(), MeasureError> {
        // What cannot be split cannot on any rank.
        self.portion(0)?;
        let here = processors::machine();
        let mut needed = 0_u64;
        for rank in 0..self.settings.ranks() {
            let report = &self.reports[rank as usize];
            let bytes = Memory::bytes(&self.portion(rank)?, self.capacity(rank));
            if let Some(accelerator) = &report.accelerator {
                if let Some(has) = accelerator.memory_bytes.filter(|has| bytes > *has) {
                    let who = format!("rank {rank}, on {}, needs", accelerator.name);
                    return Err(self.too_large(&who, bytes, has));
                }
            } else if report.machine == here {
                needed = needed.saturating_add(bytes);
            }
        }
        let Some(available) = processors::available_memory() else {
            return Ok(());
        };
        if needed <= available {
            return Ok(());
        }
        Err(self.too_large("the ranks of this machine need", needed, available))
    }

    fn too_large(&self, who: &str, needed: u64, available: u64) -> MeasureError {
        MeasureError::Setting {
            what: "the model",
            value: self.settings.model.id.clone(),
            why: format!(
                "{who} {} of memory, and {} are available",
                format_bytes(needed),
                format_bytes(available)
            ),
            hint: "choose a smaller --model, fewer --layers or --ranks, or a shorter \
                   --sequence-length"
                .to_owned(),
        }
    }
}

/// Number of each item's first equal.
/// Refuses ranks that do not compute in the type that is asked for, and a mix of processors and
/// accelerators; whether it is accelerators that they compute on.
fn check_devices(reports: &[Report], data_type: DataType) -> Result<bool, MeasureError> {
    let on_accelerators = reports.iter().any(|it| it.accelerator.is_some());
    for (rank, report) in reports.iter().enumerate() {
        let where_to = || format!("rank {rank} on host {} ({})", report.host, report.device());
        if on_accelerators && report.accelerator.is_none() {
            return Err(MeasureError::Setting {
                what: "the device",
                value: "not the same everywhere".to_owned(),
                why: format!("{} has no GPU, and other ranks have one", where_to()),
                hint: "run on hosts with GPUs alone, or give --device cpu".to_owned(),
            });
        }
        let known = report.computes_in();
        if !known.iter().any(|name| name == data_type.name()) {
            return Err(MeasureError::Setting {
                what: "the data type",
                value: data_type.name().to_owned(),
                why: format!("{} does not compute in it", where_to()),
                hint: format!("give --data-type {}", known.join(" or ")),
            });
        }
    }
    Ok(on_accelerators)
}

pub(crate) fn order_of_appearance<'a>(items: impl Iterator<Item = &'a str>) -> Vec<u32> {
    let mut numbers = BTreeMap::new();
    let number = |item| {
        let next = numbers.len() as u32;
        *numbers.entry(item).or_insert(next)
    };
    items.map(number).collect()
}

/// Ranks in contiguous blocks, as even as they can be.
fn hosts(ranks: u32, hosts: u32) -> Vec<u32> {
    let host = |rank: u32| (u64::from(rank) * u64::from(hosts) / u64::from(ranks)) as u32;
    (0..ranks).map(host).collect()
}

/// What is executed of a model: its matrices.
fn shape_of(model: &Model, element: DataType) -> Result<Shape, MeasureError> {
    let mixed = |experts: &laggard_specs::Experts| {
        experts.shared > 0 || experts.dense_layers > 0 || experts.every > 1
    };
    let attends_otherwise = model.latent_attention.is_some() || model.sliding_window.is_some();
    if model.experts.as_ref().is_some_and(mixed) || attends_otherwise || model.mtp_modules > 0 {
        return Err(MeasureError::Setting {
            what: "the model",
            value: model.id.clone(),
            why: "shared experts, layers with and without experts, latent or windowed attention \
                  and multi-token prediction cannot be executed"
                .to_owned(),
            hint: "choose another --model, such as small".to_owned(),
        });
    }
    // Dimensions are at most 2^24, which specs has checked.
    let experts = model.experts.as_ref();
    Ok(Shape {
        layers: model.layers as usize,
        hidden: model.hidden as usize,
        heads: model.heads as usize,
        kv_heads: model.kv_heads as usize,
        head_dim: model.head_dim as usize,
        ffn_hidden: experts.map_or(model.ffn_hidden, |experts| experts.ffn_hidden) as usize,
        gated: model.ffn_matrices == 3,
        vocabulary: model.vocab as usize,
        experts: experts.map(|experts| Experts {
            count: experts.count as usize,
            per_token: experts.active as usize,
            router: experts.count as usize,
        }),
        element,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use laggard_backend::DeviceKind;
    use laggard_schedule::{Layout, OperationKind};

    #[test]
    fn gradients_of_all_matrices_are_reduced() {
        let settings = testing::settings(3, 5);
        let job = Job::new(&settings).unwrap();
        let operations = job.schedule.operations.iter();
        let reduced: u64 = operations
            .filter(|operation| operation.axis.is_some())
            .map(|operation| operation.bytes)
            .sum();
        assert_eq!(reduced, settings.model.matmul_parameters() * 4);
        let collectives =
            |o: &&laggard_schedule::Operation| matches!(o.kind, OperationKind::Collective(_));
        assert!(job.schedule.operations.iter().filter(collectives).count() > 1);
    }

    #[test]
    fn hosts_take_contiguous_blocks() {
        assert_eq!(hosts(5, 2), [0, 0, 0, 1, 1]);
        assert_eq!(hosts(4, 4), [0, 1, 2, 3]);
        assert_eq!(hosts(3, 1), [0, 0, 0]);
    }

    #[test]
    fn settings_that_cannot_be_say_why() {
        let check = |change: &dyn Fn(&mut Settings), expect: &str| {
            let mut settings = testing::settings(2, 5);
            change(&mut settings);
            let error = Job::new(&settings).expect_err(expect).to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(&|s| s.steps = 0, "the number of steps is 0");
        check(
            &|s| s.emulate_hosts = 3,
            "--emulate-hosts a number from 1 to 2",
        );
        check(&|s| s.sequence_length = 0, "--sequence-length");
        check(
            &|s| s.layout = Layout::data_parallel(0, 1),
            "the number of ranks is 0",
        );
        check(
            &|s| s.layout.micro_batches = vec![1],
            "1 micro-batch shares for 2",
        );
        check(
            &|s| s.timeout = std::time::Duration::ZERO,
            "every wait would fail",
        );
        check(
            &|s| s.model = testing::model("deepseek-v3"),
            "cannot be executed",
        );
        #[cfg(target_os = "linux")]
        check(
            &|s| s.model = testing::model("llama3-405b"),
            "choose a smaller --model",
        );
    }

    #[test]
    fn devices_that_cannot_run_it_are_named() {
        let cpu = DeviceDescription {
            kind: DeviceKind::Cpu,
            ..testing::gpu("p")
        };
        let mut settings = testing::settings(2, 5);
        settings.data_type = DataType::Bf16;
        let small = DeviceDescription {
            memory_bytes: Some(1000),
            ..testing::gpu("small")
        };
        let (h200, h100) = (
            testing::gpu("NVIDIA H200"),
            testing::gpu("NVIDIA H100 80GB HBM3"),
        );
        let job = Job::on(&settings, &[h200.clone(), h100.clone()], &[]).unwrap();
        assert_eq!(job.device_names(), ["NVIDIA H200", "NVIDIA H100 80GB HBM3"]);
        assert_eq!(job.class_of_rank, [0, 1]);
        assert_eq!(job.basis, TimeBasis::Wall);
        let check = |settings: &Settings, devices: [&DeviceDescription; 2], expect: &str| {
            let error = Job::on(settings, &devices.map(Clone::clone), &[]).expect_err(expect);
            assert!(error.to_string().contains(expect), "{error}");
        };
        check(&settings, [&h200, &cpu], "has no GPU");
        check(&settings, [&h200, &small], "rank 1, on small, needs");
        settings.data_type = DataType::F32;
        check(
            &settings,
            [&h200, &h100],
            "hint: give --data-type bf16 or f16",
        );
        settings.data_type = DataType::Bf16;
        let error = Job::new(&settings).expect_err("processors").to_string();
        assert!(error.contains("hint: give --data-type f32"), "{error}");
        settings.data_type = DataType::I32;
        let error = Job::new(&settings).expect_err("integers").to_string();
        assert!(error.contains("no layer computes in it"), "{error}");
    }
}
