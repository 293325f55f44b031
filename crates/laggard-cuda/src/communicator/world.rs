//! Communicators between all ranks of a job, and what they have in common.

use super::NcclCommunicator;
use super::card::{Card, check};
use super::group::{Group, Settings};
use super::lane::Tools;
use super::mail::Mail;
use super::watch::{Watch, Watcher};
use crate::nccl::{Config, Nccl};
use crate::{CudaDevice, CudaError, CudaIdentity};
use laggard_backend::agreement::mixed;
use laggard_backend::control::ControlPlane;
use laggard_backend::{
    Abort, Abortable, BackendError, Device, GroupId, Messenger, RollCall, World, messenger,
};
use laggard_types::Rank;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How long ranks wait for each other by default.
const USUAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Most thread blocks of a call where ranks share a GPU, and fewer where there are no so many
/// multiprocessors for each rank: calls that wait for each other must all fit, or they wait for
/// ever.
const BLOCKS_OF_SHARED: u32 = 8;

/// How communicators over NCCL behave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NcclOptions {
    /// How long a rank waits for the others in one call before all give up.
    pub timeout: Duration,
    /// Whether ranks compare their calls before each one, so that a mismatch is an error on every
    /// rank instead of a hang or wrong numbers. Off by default: it adds messages between hosts to
    /// every call, inside its stamp.
    pub check_calls: bool,
    /// Most thread blocks (CTAs) that one call may occupy; if absent, NCCL's choice, or few enough
    /// where ranks share a GPU.
    pub most_blocks: Option<u32>,
}

impl Default for NcclOptions {
    fn default() -> Self {
        Self {
            timeout: USUAL_TIMEOUT,
            check_calls: false,
            most_blocks: None,
        }
    }
}

/// What reaches this rank's others, besides NCCL.
pub struct Surround {
    /// Messages outside of queues; also the world's.
    pub messenger: Arc<dyn Messenger>,
    /// Carries ids of communicators, and answers who has come. It can serve one world.
    pub control: Arc<ControlPlane>,
    /// Aborted together with the control plane's other ranks and with the device.
    pub abort: Arc<Abort>,
}

/// A job's ranks, connected by NCCL.
pub struct NcclWorld {
    control: NcclCommunicator,
    data: NcclCommunicator,
    device: Arc<dyn Device>,
    messenger: Arc<dyn Messenger>,
}

/// What the communicators of a world have in common.
pub(super) struct Office {
    watch: Arc<Watch>,
    _watcher: Watcher,
    tools: Arc<Tools>,
}

impl Office {
    pub(super) fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    pub(super) fn tools(&self) -> &Arc<Tools> {
        &self.tools
    }
}

impl NcclWorld {
    /// Connects the ranks of a messenger, each with its GPU. Collective. `host` is this rank's
    /// host, by the same name on all of its ranks. What fails on one rank alone aborts the world.
    ///
    /// # Errors
    /// [`CudaError::NcclVersions`] and [`CudaError::SharedGpu`] on all ranks alike;
    /// [`CudaError::World`] if a rank does not come within the timeout, named as far as it is
    /// known, or if NCCL or the driver fail.
    pub fn join(
        nccl: &Arc<Nccl>,
        device: &Arc<CudaDevice>,
        host: &str,
        surround: &Surround,
        options: &NcclOptions,
    ) -> Result<Self, CudaError> {
        let joined = Self::connect((nccl, device), host, surround, options);
        joined.inspect_err(|error| match error {
            // All ranks find these alike, and each is to say so.
            CudaError::NcclVersions { .. } | CudaError::SharedGpu { .. } => {}
            error => {
                let rank = surround.messenger.rank();
                let reason = format!("rank {rank} gave up: {error}");
                surround.abort.abort(&reason);
            }
        })
    }

    fn connect(
        (nccl, device): (&Arc<Nccl>, &Arc<CudaDevice>),
        host: &str,
        surround: &Surround,
        options: &NcclOptions,
    ) -> Result<Self, CudaError> {
        let messenger = &*surround.messenger;
        let each = compare(
            nccl,
            (host, &device.identity()?),
            messenger,
            options.timeout,
        )?;
        let blocks = each.map(|multiprocessors| multiprocessors.min(BLOCKS_OF_SHARED));
        let mail = Mail::new(Arc::clone(&surround.control))?;
        let (watch, watcher) = Watch::start()?;
        let listeners: [Weak<dyn Abortable>; 2] = [
            Arc::downgrade(&mail) as Weak<dyn Abortable>,
            Arc::downgrade(&watch) as Weak<dyn Abortable>,
        ];
        listeners
            .into_iter()
            .for_each(|it| surround.abort.listen(it));
        let settings = Arc::new(Settings {
            mail,
            timeout: options.timeout,
            check_calls: options.check_calls,
            roll_call: Arc::clone(&surround.control) as Arc<dyn RollCall>,
            abort: Arc::clone(&surround.abort),
        });
        let office = Arc::new(Office {
            watch,
            _watcher: watcher,
            tools: Arc::new(Tools {
                nccl: Arc::clone(nccl),
                config: Config {
                    most_blocks: options.most_blocks.or(blocks),
                },
                device: Arc::clone(device),
            }),
        });
        let members: Vec<Rank> = (0..messenger.size()).collect();
        let connect = |name: u64| -> Result<NcclCommunicator, BackendError> {
            let id = GroupId(mixed(&[GROUPS, name]));
            let rank = messenger.rank();
            let group = Group::new(rank, members.clone(), id, &settings);
            let made = NcclCommunicator::connect(&group, &office);
            // At once: what was made before is freed only once the others have heard of it.
            made.inspect_err(|error| group.give_up(&error.to_string()))
        };
        Ok(Self {
            control: connect(0)?,
            data: connect(1)?,
            device: Arc::clone(device) as Arc<dyn Device>,
            messenger: Arc::clone(&surround.messenger),
        })
    }

    /// Whether ranks of this process may have one GPU in common, as far as this NCCL and its
    /// environment go.
    pub fn lets_ranks_share(nccl: &Nccl) -> bool {
        nccl.version().lets_ranks_share_gpus() && is_sharing_asked_for()
    }

    /// The communicator of the job's collectives.
    pub fn data(&self) -> &NcclCommunicator {
        &self.data
    }

    /// The same as backends' worlds are used.
    pub fn into_world(self) -> World {
        World {
            control: Box::new(self.control),
            data: Box::new(self.data),
            device: self.device,
            messenger: self.messenger,
        }
    }
}

/// Tells groups over NCCL from those of other backends, in roll calls.
const GROUPS: u64 = 0x4e43_434c;

/// Whether NCCL is told to let ranks share GPUs.
fn is_sharing_asked_for() -> bool {
    let shares = std::env::var("NCCL_MULTI_RANK_GPU_ENABLE").unwrap_or_default();
    !shares.is_empty() && shares != "0"
}

/// Compares what the ranks use, as [`check`] does.
fn compare(
    nccl: &Nccl,
    (host, gpu): (&str, &CudaIdentity),
    messenger: &dyn Messenger,
    timeout: Duration,
) -> Result<Option<u32>, CudaError> {
    let card = Card {
        version: nccl.version(),
        host: host.to_owned(),
        gpu: gpu.pci_bus_id.clone(),
        multiprocessors: gpu.multiprocessors,
        shares: is_sharing_asked_for(),
        host_id: std::env::var("NCCL_HOSTID").unwrap_or_default(),
        visible: std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default(),
    };
    let all = messenger::all_gather(messenger, &card.encode(), Instant::now() + timeout)?;
    let cards = (0..).zip(&all).map(|(rank, bytes): (Rank, _)| {
        Card::decode(bytes).ok_or_else(|| BackendError::System {
            what: format!("joining NCCL's ranks on rank {}", messenger.rank()),
            why: format!("rank {rank} says something else than this version of laggard"),
        })
    });
    check(&cards.collect::<Result<Vec<Card>, _>>()?)
}
