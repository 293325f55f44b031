//! How work takes its course: order, stamps, refusals and abort.

use super::{Bench, LONG, element, elements, task};
use crate::conformance::Violation;
use crate::{
    BackendError, Kernel, Launch, Matrix, QueueId, Slice, TaggedStamp, Task, Token, Transpose,
};
use laggard_types::DataType;
use std::sync::Arc;
use std::time::Duration;

/// Work on three queues in turns, ordered by tokens alone: each round fills with wrong values
/// first.
pub(super) fn order(b: &Bench<'_>) -> Result<(), Violation> {
    let queues = [b.queue()?, b.queue()?, b.queue()?];
    let len = 1 << 14;
    let filled = b.slice(DataType::F32, &vec![0.0; len])?;
    let copied = b.slice(DataType::F32, &vec![0.0; len])?;
    let sum = b.slice(DataType::F32, &vec![1.0; len])?;
    let mut last = Vec::new();
    let mut want = 1.0;
    for round in 0..30u8 {
        let fill = |value| Kernel::Fill {
            to: filled.clone(),
            value,
        };
        let mut kernels = vec![fill(-1.0); 6];
        kernels.push(fill(f32::from(round)));
        let token = b.must("fill", b.enqueue((queues[0], &last), kernels))?;
        let copy = Kernel::Copy {
            from: filled.clone(),
            to: copied.clone(),
        };
        let token = b.must("copy", b.enqueue((queues[1], &[token]), vec![copy]))?;
        let add = Kernel::Add {
            from: copied.clone(),
            to: sum.clone(),
        };
        last = vec![b.must("add", b.enqueue((queues[2], &[token]), vec![add]))?];
        want += f64::from(round);
    }
    b.must("waiting", b.device.wait(last[0], LONG))?;
    b.holds("sums over the rounds", &sum, &vec![want; len])?;
    // All that came before is complete, too.
    let first = Token {
        queue: queues[0],
        position: 1,
    };
    let is_complete = b.must("polling", b.device.poll(first))?;
    b.expect(
        "polling",
        is_complete,
        "work that was passed is not complete",
    )
}

fn drained(b: &Bench<'_>, queue: QueueId) -> Result<Vec<TaggedStamp>, Violation> {
    let mut stamps = Vec::new();
    b.must("draining", b.device.drain(queue, &mut stamps))?;
    Ok(stamps)
}

/// Every piece of work leaves one stamp, in order, once; what follows by a token begins later.
pub(super) fn stamps(b: &Bench<'_>) -> Result<(), Violation> {
    let (first, second) = (b.queue()?, b.queue()?);
    let slice = b.slice(DataType::F32, &vec![0.0; 4096])?;
    let fill = || {
        let to = slice.clone();
        task(vec![Kernel::Fill { to, value: 1.0 }], 1.0)
    };
    let fill_after = |queue, tag, after: &[Token]| {
        let token = b.device.enqueue(&fill(), Launch { queue, after, tag });
        b.must("fill", token)
    };
    for round in 0..3 {
        let mut tokens: Vec<Token> = Vec::new();
        for tag in 0..10 {
            tokens = vec![fill_after(first, tag, &tokens)?];
            tokens = vec![fill_after(second, tag, &tokens)?];
        }
        b.must("waiting", b.device.wait(tokens[0], LONG))?;
        let (one, two) = (drained(b, first)?, drained(b, second)?);
        for stamps in [&one, &two] {
            let tags: Vec<u64> = stamps.iter().map(|it| it.tag).collect();
            let case = format!("tags of round {round}");
            b.expect(
                case,
                tags == (0..10).collect::<Vec<_>>(),
                format!("{tags:?}"),
            )?;
        }
        let in_turns = one.iter().zip(&two).flat_map(|(a, b)| [a.stamp, b.stamp]);
        let in_turns: Vec<_> = in_turns.collect();
        let is_ordered = in_turns.iter().all(|it| it.start_ns <= it.end_ns)
            && in_turns.windows(2).all(|it| it[0].end_ns <= it[1].start_ns);
        b.expect("order of stamps", is_ordered, format!("{in_turns:?}"))?;
        b.expect(
            "draining again",
            drained(b, first)?.is_empty(),
            "a stamp came twice",
        )?;
    }
    Ok(())
}

/// More work than there is room for at first, from as many threads as queues.
pub(super) fn much_work(b: &Bench<'_>) -> Result<(), Violation> {
    const THREADS: usize = 4;
    const EACH: usize = 2500;
    let one_thread = |seed: usize| -> Result<(), Violation> {
        let queue = b.queue()?;
        let from = b.slice(DataType::F32, &elements(seed, 33))?;
        let to = b.slice(DataType::F32, &[0.0; 33])?;
        let add = Kernel::Add {
            from,
            to: to.clone(),
        };
        let task = task(vec![add], 1.0);
        let mut last = None;
        for tag in 0..EACH as u64 {
            let launch = Launch {
                queue,
                after: &[],
                tag,
            };
            last = Some(b.must("adding", b.device.enqueue(&task, launch))?);
        }
        if let Some(last) = last {
            b.must("waiting", b.device.wait(last, LONG))?;
        }
        let tags = drained(b, queue)?.into_iter().map(|it| it.tag);
        let is_whole = tags.eq(0..EACH as u64);
        b.expect("stamps of much work", is_whole, "some are missing")?;
        let want: Vec<f64> = (0..33).map(|i| element(seed, i) * EACH as f64).collect();
        b.holds("sums of much work", &to, &want)
    };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|seed| scope.spawn(move || one_thread(seed)))
            .collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    for outcome in outcomes {
        outcome.map_err(|_| b.violation("much work", "a thread panicked"))??;
    }
    Ok(())
}

pub(super) fn handles(b: &Bench<'_>) -> Result<(), Violation> {
    let queue = b.queue()?;
    let unknown = |result: Result<(), BackendError>, case: &str| {
        let is_it = matches!(result, Err(BackendError::Unknown { .. }));
        b.expect(case, is_it, format!("ended with {result:?}"))
    };
    let other = QueueId(queue.0 + 99);
    let never = |queue, position| Token { queue, position };
    unknown(b.device.drain(other, &mut Vec::new()), "drain")?;
    unknown(b.enqueue((other, &[]), vec![]).map(|_| ()), "enqueue")?;
    unknown(b.device.poll(never(other, 1)).map(|_| ()), "poll")?;
    for position in [0, 1] {
        let token = never(queue, position);
        unknown(b.device.poll(token).map(|_| ()), "poll")?;
        unknown(b.device.wait(token, LONG), "wait")?;
        let after = [token];
        unknown(b.enqueue((queue, &after), vec![]).map(|_| ()), "after")?;
    }
    // None of them has harmed the queue, and work of no kernels is work.
    let token = b.must("empty work", b.enqueue((queue, &[]), vec![]))?;
    b.must("empty work", b.device.wait(token, LONG))?;
    b.expect("stamps", drained(b, queue)?.len() == 1, "it has none")
}

pub(super) fn invalid(b: &Bench<'_>) -> Result<(), Violation> {
    let queue = b.queue()?;
    let slice = b.slice(DataType::F32, &[1.0; 12])?;
    let ints = b.slice(DataType::I32, &[1.0; 12])?;
    let matrix = |slice: &Slice, rows, columns, row_stride| Matrix {
        slice: slice.clone(),
        rows,
        columns,
        row_stride,
    };
    let fill = |to: &Slice| Kernel::Fill {
        to: to.clone(),
        value: 2.0,
    };
    let part = |range| b.must("slicing", slice.part(range));
    let overlapping = Kernel::Copy {
        from: part(0..6)?,
        to: part(5..11)?,
    };
    let unequal = Kernel::Add {
        from: part(0..6)?,
        to: part(6..11)?,
    };
    let too_small = Kernel::Gemm {
        a: matrix(&slice, 3, 4, 5),
        transpose_a: Transpose::No,
        b: matrix(&slice, 4, 3, 3),
        transpose_b: Transpose::No,
        c: matrix(&b.slice(DataType::F32, &[0.0; 9])?, 3, 3, 3),
        scale: 1.0,
        accumulate: false,
    };
    let wild = Slice {
        offset: usize::MAX,
        ..slice.clone()
    };
    let mut tasks: Vec<Task> = [fill(&ints), fill(&wild), overlapping, unequal, too_small]
        .into_iter()
        .map(|kernel| task(vec![kernel], 1.0))
        .collect();
    let scales = [0.5, f64::NAN, f64::INFINITY];
    tasks.extend(scales.map(|scale| task(vec![fill(&slice)], scale)));
    for (at, task) in tasks.iter().enumerate() {
        let launch = Launch {
            queue,
            after: &[],
            tag: 0,
        };
        let result = b.device.enqueue(task, launch);
        let is_it = matches!(result, Err(BackendError::Invalid { rank, .. }) if rank == b.rank);
        b.expect(
            format!("task {at}"),
            is_it,
            format!("ended with {result:?}"),
        )?;
    }
    b.run("work after refusals", vec![fill(&slice)])?;
    b.holds("work after refusals", &slice, &[2.0; 12])
}

/// What is complete stays so; everything after the abort fails with its reason, on every queue.
pub(super) fn abort(b: &Bench<'_>) -> Result<(), Violation> {
    let (queue, other) = (b.queue()?, b.queue()?);
    let slice = b.slice(DataType::F32, &[0.0; 100])?;
    let fill = || {
        let to = slice.clone();
        vec![Kernel::Fill { to, value: 3.0 }]
    };
    let before = b.must("before", b.enqueue((queue, &[]), fill()))?;
    b.must("before", b.device.wait(before, LONG))?;
    b.device.abort("had enough");
    b.must("what was complete", b.device.wait(before, LONG))?;
    let is_abort = |result: &Result<(), BackendError>| match result {
        Err(BackendError::Aborted { reason, .. }) => reason == "had enough",
        _ => false,
    };
    for queue in [queue, other] {
        let token = b.enqueue((queue, &[]), fill());
        let result = token.and_then(|token| b.device.wait(token, Duration::from_secs(60)));
        b.expect("after", is_abort(&result), format!("ended with {result:?}"))?;
    }
    let kept: Arc<[TaggedStamp]> = drained(b, queue)?.into();
    b.expect("stamps", kept.len() == 1, format!("{} of 1", kept.len()))
}
