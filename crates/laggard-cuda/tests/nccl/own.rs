//! What NCCL's backend has beside the suite: versions, shared GPUs, and failures of NCCL's own
//! kind.

use crate::fakes;
use crate::ranks::{Candidate, LONG, Ranks};
use laggard_backend::conformance::{CHECKS, Launcher};
use laggard_backend::{
    Abortable, BackendError, Buffer, Call, Device, Launch, Messenger, Slice, Token, World,
};
use laggard_cuda::{CudaError, Nccl, NcclOptions, NcclWorld, Surround};
use laggard_types::{DataType, Rank, ReduceOp};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// How long ranks wait in tests whose ranks wait in vain.
const SHORT: Duration = Duration::from_millis(500);

fn sum(world: &World) -> Call {
    let buffer = world.device.allocate(DataType::F32, 1000).unwrap();
    let slice = Slice::whole(&buffer);
    Call::AllReduce {
        send: slice.clone(),
        recv: slice,
        op: ReduceOp::Sum,
    }
}

fn enqueue(world: &World, call: Call) -> Result<Token, BackendError> {
    let queue = world.device.create_queue("test").unwrap();
    let launch = Launch {
        queue,
        after: &[],
        tag: 0,
    };
    world.data.enqueue(call, launch)
}

/// Is told why the world ends.
struct Ear(Mutex<Sender<String>>);

impl Abortable for Ear {
    fn abort(&self, reason: &str) {
        self.0.lock().unwrap().send(reason.to_owned()).unwrap();
    }
}

/// Waits for the end of the world.
fn reason_of_abort(candidate: &Candidate) -> BackendError {
    let (tell, told) = channel();
    let ear = Arc::new(Ear(Mutex::new(tell)));
    let listener: Weak<Ear> = Arc::downgrade(&ear);
    candidate.surround.abort.listen(listener);
    BackendError::Aborted {
        rank: candidate.rank,
        reason: told.recv_timeout(LONG).expect("an abort"),
    }
}

fn short() -> NcclOptions {
    NcclOptions {
        timeout: SHORT,
        ..NcclOptions::default()
    }
}

/// One rank of three does not come.
pub(crate) fn missing_rank() {
    let ends = Ranks::new(short()).each(3, &|candidate, options| {
        let world = candidate.join(options).unwrap().into_world();
        if candidate.rank == 1 {
            // Does not come, and hears of the end.
            return Err(reason_of_abort(candidate));
        }
        enqueue(&world, sum(&world)).and_then(|token| world.device.wait(token, LONG))
    });
    let named = ends.iter().filter(|end| match end {
        Err(BackendError::Timeout {
            missing,
            waiting_for,
            ..
        }) => *missing == [1] && waiting_for.starts_with("all_reduce(sum, 1000 x f32)"),
        _ => false,
    });
    assert!(named.count() > 0, "{ends:?}");
    // Nobody is left waiting.
    for end in &ends {
        let is_over = matches!(
            end,
            Err(BackendError::Timeout { .. } | BackendError::Aborted { .. })
        );
        assert!(is_over, "{ends:?}");
    }
}

/// One rank of two does not come, and the other enqueues more than its stream takes.
pub(crate) fn full_stream(check_calls: bool) {
    let options = NcclOptions {
        check_calls,
        ..short()
    };
    let ends = Ranks::new(options).each(2, &|candidate, options| {
        let world = candidate.join(options).unwrap().into_world();
        if candidate.rank == 1 {
            return Err(reason_of_abort(candidate));
        }
        let (tell, told) = channel();
        // If it waits for ever, the test does not.
        std::thread::spawn(move || {
            let launch = Launch {
                queue: world.device.create_queue("test").unwrap(),
                after: &[],
                tag: 0,
            };
            let call = sum(&world);
            let enqueue = |_| world.data.enqueue(call.clone(), launch);
            let tokens: Result<Vec<Token>, _> = (0..100).map(enqueue).collect();
            let end = tokens.and_then(|tokens| world.device.wait(tokens[0], LONG));
            drop(world);
            tell.send(end).unwrap();
        });
        told.recv_timeout(LONG).expect("an end")
    });
    assert!(
        matches!(&ends[0], Err(BackendError::Timeout { missing, .. }) if *missing == [1]),
        "{ends:?}"
    );
}

/// Has no way to the other ranks.
struct Mute;

impl Messenger for Mute {
    fn rank(&self) -> Rank {
        1
    }

    fn size(&self) -> u32 {
        2
    }

    fn send(&self, _: Rank, _: &[u8], _: Instant) -> Result<(), BackendError> {
        Err(BackendError::System {
            what: "sending".to_owned(),
            why: "no way".to_owned(),
        })
    }

    fn receive(&self, _: Rank, _: &mut [u8], _: Instant) -> Result<(), BackendError> {
        self.send(0, &[], Instant::now())
    }
}

/// What fails on one rank alone, before it meets the others, is told to them.
pub(crate) fn mute_rank() {
    let ends = Ranks::new(NcclOptions::default()).each(2, &|candidate, options| {
        if candidate.rank == 0 {
            return reason_of_abort(candidate).to_string();
        }
        let surround = Surround {
            messenger: Arc::new(Mute),
            control: Arc::clone(&candidate.surround.control),
            abort: Arc::clone(&candidate.surround.abort),
        };
        let Candidate { nccl, device, .. } = candidate;
        let joined = NcclWorld::join(nccl, device, "here", &surround, options);
        joined.map(|_| ()).unwrap_err().to_string()
    });
    assert!(ends[0].contains("rank 1 gave up"), "{ends:?}");
    assert!(ends.iter().all(|end| end.contains("no way")), "{ends:?}");
}

/// NCCL never gets done with making a communicator.
pub(crate) fn stalled_start() {
    fakes::stall(true);
    let ends =
        Ranks::new(short()).each(2, &|candidate, options| candidate.join(options).map(|_| ()));
    fakes::stall(false);
    for end in ends {
        let text = end.unwrap_err().to_string();
        let is_told =
            text.contains("2 ranks to make a communicator of NCCL") || text.contains("aborted");
        assert!(is_told, "{text}");
    }
}

/// NCCL fails on an idle rank while another waits.
pub(crate) fn broken_link() {
    let ends = Ranks::new(NcclOptions::default()).each(2, &|candidate, options| {
        let world = candidate.join(options).unwrap().into_world();
        if candidate.rank == 1 {
            // While it does nothing at all.
            fakes::break_rank(1);
            return Err(reason_of_abort(candidate));
        }
        enqueue(&world, sum(&world)).and_then(|token| world.device.wait(token, LONG))
    });
    fakes::break_rank(-1);
    for end in ends {
        let text = end.unwrap_err().to_string();
        assert!(text.contains("remote process exited"), "{text}");
        assert!(text.contains("Connection closed by remote peer"), "{text}");
        assert!(text.contains("rank 1"), "{text}");
    }
}

/// Ranks with different versions are told, all of them.
pub(crate) fn versions() {
    let mut ranks = Ranks::new(NcclOptions::default());
    let old = Nccl::load(&fakes::surroundings(true)).unwrap();
    ranks.nccls = vec![Arc::clone(&ranks.nccls[0]), old];
    for end in ranks.each(3, &|candidate, options| candidate.join(options).map(|_| ())) {
        let Err(CudaError::NcclVersions { versions }) = end else {
            panic!("{end:?}");
        };
        let expect = "2.18.5 on rank 1 (host here), 2.30.7 on 2 ranks, the first 0 (host here)";
        assert_eq!(versions, expect);
    }
}

/// What is there since some version is used, and done without where it is not.
pub(crate) fn newer() {
    let mut ranks = Ranks::new(NcclOptions {
        most_blocks: Some(4),
        ..NcclOptions::default()
    });
    let look = |candidate: &Candidate, options: &NcclOptions| {
        let world = candidate.join(options).unwrap();
        let buffer = candidate_buffer(candidate);
        let slice = Slice::whole(&buffer);
        let call = Call::AllReduce {
            send: slice.clone(),
            recv: slice,
            op: ReduceOp::Sum,
        };
        let estimate = world.data().estimate(call.clone()).unwrap();
        // Asking makes no call: the next one finds its ranks.
        let registered = world.data().register(&buffer).unwrap();
        let bytes = registered.as_ref().map(|_| fakes::registered_bytes());
        drop(registered);
        let world = world.into_world();
        let token = enqueue(&world, call).unwrap();
        world.device.wait(token, LONG).unwrap();
        (estimate, bytes)
    };
    assert!(ranks.nccls[0].can_estimate() && ranks.nccls[0].can_register());
    for (estimate, bytes) in ranks.each(1, &look) {
        // As the stand-in reckons: 5 microseconds, and one per 1000 bytes.
        let seconds = estimate.expect("an estimate").0;
        assert!((seconds - 9e-6).abs() < 1e-9, "{seconds}");
        assert_eq!(bytes, Some(4000));
        assert_eq!(fakes::registered_bytes(), 0);
    }
    assert_eq!(fakes::most_blocks(), 4);
    ranks.nccls = vec![Nccl::load(&fakes::surroundings(true)).unwrap()];
    assert!(!ranks.nccls[0].can_estimate() && !ranks.nccls[0].can_register());
    assert_eq!(ranks.each(2, &look), [(None, None), (None, None)]);
}

fn candidate_buffer(candidate: &Candidate) -> Buffer {
    candidate.device.allocate(DataType::F32, 1000).unwrap()
}

fn on_one_gpu() -> Ranks {
    let mut ranks = Ranks::new(NcclOptions::default());
    ranks.gpus = vec![0];
    ranks
}

/// Two ranks on one GPU are told how they may be.
pub(crate) fn refuses_to_share() {
    let ends = on_one_gpu().each(2, &|candidate, options| candidate.join(options).map(|_| ()));
    for end in ends {
        let Err(CudaError::SharedGpu { a, b, hint, .. }) = end else {
            panic!("{end:?}");
        };
        assert_eq!((a, b), (0, 1));
        assert!(hint.contains("NCCL_MULTI_RANK_GPU_ENABLE=1"), "{hint}");
    }
}

/// Two ranks on one GPU, as the environment allows it here.
pub(crate) fn shares() {
    let ranks = on_one_gpu();
    for name in ["all_reduce", "ring", "split"] {
        let check = CHECKS.iter().find(|check| check.name == name).unwrap();
        ranks.run(2, &check.body).unwrap();
    }
    // Few enough that the calls of all fit, though nobody asked for a limit.
    // The stand-in's GPUs have 4 multiprocessors.
    assert_eq!(fakes::most_blocks(), 2);
}
