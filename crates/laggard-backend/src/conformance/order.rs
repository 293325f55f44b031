//! Order: point to point, groups that are split while others use the parent, tokens across queues,
//! and parts of one buffer in use at the same time.

use super::Violation;
use super::fixture::{Fixture, LENGTHS, LONG, elements};
use crate::{Call, Kernel, Launch, Slice, Task, Token, World};
use laggard_types::{DataType, ReduceOp};
use std::sync::Arc;

/// Everybody sends to the next rank and receives from the one before, on two queues.
pub(super) fn ring(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    let receiving = f.must("creating a queue", world.device.create_queue("receive"))?;
    let next = (f.rank + 1) % f.ranks;
    let last = (f.rank + f.ranks - 1) % f.ranks;
    for (data_type, len) in DataType::ALL
        .into_iter()
        .flat_map(|t| LENGTHS.map(|len| (t, len)))
    {
        let case = format!("{len} {data_type:?} around the ring");
        let sent = f.slice(data_type, &elements(f.rank, 0, len))?;
        let received = f.slice(data_type, &vec![0.0; len])?;
        let send = Call::Send {
            buffer: sent.clone(),
            to: next,
        };
        let receive = Call::Receive {
            buffer: received.clone(),
            from: last,
        };
        let send = f.must(&case, world.data.enqueue(send, f.launch(&[])))?;
        let launch = Launch {
            queue: receiving,
            after: &[],
            tag: 0,
        };
        let receive = f.must(&case, world.data.enqueue(receive, launch))?;
        f.must(&case, world.device.wait(send, LONG))?;
        f.must(&case, world.device.wait(receive, LONG))?;
        f.expect(&case, &received, &elements(last, 0, len))?;
        f.expect(&case, &sent, &elements(f.rank, 0, len))?;
    }
    Ok(())
}

/// Splits while a call on the parent is under way, then uses parent and parts.
pub(super) fn split(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    let sum = |slice: &Slice| Call::AllReduce {
        send: slice.clone(),
        recv: slice.clone(),
        op: ReduceOp::Sum,
    };
    let on_parent = f.slice(DataType::F32, &elements(f.rank, 0, 20_011))?;
    let token = f.must(
        "enqueueing",
        world.data.enqueue(sum(&on_parent), f.launch(&[])),
    )?;

    // Odd and even ranks, in reverse order.
    let color = f.rank % 2;
    let part = f.must("split", world.split(Some(color), -i64::from(f.rank)))?;
    let Some(part) = part else {
        return Err(f.violation("split", "gave no group for a color"));
    };
    let members: Vec<u32> = (0..f.ranks)
        .rev()
        .filter(|rank| rank % 2 == color)
        .collect();
    let own = members.get(part.data.rank() as usize).copied();
    if part.data.size() as usize != members.len() || own != Some(f.rank) {
        let why = format!("is {} of {}", part.data.rank(), part.data.size());
        return Err(f.violation("place in the part", why));
    }
    let slice = f.slice(DataType::I32, &[f64::from(f.rank)])?;
    f.must("part", f.call_on(&*part.data, sum(&slice)))?;
    f.expect(
        &"sum over the part",
        &slice,
        &[members.iter().copied().map(f64::from).sum()],
    )?;
    f.must("part's control", f.call_on(&*part.control, Call::Barrier))?;

    f.must("parent", world.device.wait(token, LONG))?;
    let want: Vec<f64> = (0..20_011)
        .map(|at| {
            (0..f.ranks)
                .map(|rank| super::fixture::element(rank, at))
                .sum()
        })
        .collect();
    f.expect(&"sum over the parent", &on_parent, &want)?;

    // A rank without color has no group, and the others have one without it.
    let color = (f.rank != 0).then_some(3);
    match f.must("split without", world.data.split(color, 0))? {
        None if f.rank == 0 => Ok(()),
        Some(rest) if f.rank > 0 && (rest.rank(), rest.size()) == (f.rank - 1, f.ranks - 1) => {
            f.must("barrier of the rest", f.call_on(&*rest, Call::Barrier))
        }
        other => Err(f.violation("split without color", format!("group: {}", other.is_some()))),
    }
}

/// Work on three queues, ordered by tokens alone: fill, reduce what was filled, use the result.
pub(super) fn tokens(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    let communication = f.must("creating a queue", world.device.create_queue("communicate"))?;
    let using = f.must("creating a queue", world.device.create_queue("use"))?;
    let len = 1 << 16;
    let filled = f.slice(DataType::F32, &vec![0.0; len])?;
    let used = f.slice(DataType::F32, &vec![1.0; len])?;
    let mut expected = 1.0;
    let mut last: Vec<Token> = Vec::new();
    for round in 0..20u8 {
        let mine = f32::from(round) + f.rank as f32;
        // Many fills with a wrong value, so that who does not wait sees one.
        let mut kernels = vec![
            Kernel::Fill {
                to: filled.clone(),
                value: -1.0
            };
            8
        ];
        kernels.push(Kernel::Fill {
            to: filled.clone(),
            value: mine,
        });
        let task = Task {
            kernels: Arc::from(kernels),
            work_scale: 1.0,
            extra_flop: 0,
        };
        let fill = f.must("fill", world.device.enqueue(&task, f.launch(&last)))?;
        let (send, recv) = (filled.clone(), filled.clone());
        let launch = Launch {
            queue: communication,
            after: &[fill],
            tag: 0,
        };
        let call = Call::AllReduce {
            send,
            recv,
            op: ReduceOp::Sum,
        };
        let reduce = f.must("reduce", world.data.enqueue(call, launch))?;
        let add = Kernel::Add {
            from: filled.clone(),
            to: used.clone(),
        };
        let task = Task {
            kernels: Arc::from([add]),
            work_scale: 1.0,
            extra_flop: 0,
        };
        let launch = Launch {
            queue: using,
            after: &[reduce],
            tag: 0,
        };
        last = vec![f.must("use", world.device.enqueue(&task, launch))?];
        expected += (0..f.ranks)
            .map(|rank| f64::from(round) + f64::from(rank))
            .sum::<f64>();
    }
    for token in last {
        f.must("waiting for the last", world.device.wait(token, LONG))?;
    }
    f.expect(&"sums over the rounds", &used, &vec![expected; len])
}

/// One part of a buffer is reduced while another is written.
pub(super) fn parts(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    let compute = f.must("creating a queue", world.device.create_queue("compute"))?;
    let len = 1 << 15;
    let whole = f.slice(DataType::F32, &vec![1.0; 2 * len])?;
    let low = f.must("slicing", whole.part(0..len))?;
    let high = f.must("slicing", whole.part(len..2 * len))?;
    let mut tokens = Vec::new();
    for _ in 0..20 {
        let (send, recv) = (low.clone(), low.clone());
        let call = Call::AllReduce {
            send,
            recv,
            op: ReduceOp::Max,
        };
        tokens.push(f.must("reduce", world.data.enqueue(call, f.launch(&[])))?);
        let fill = Kernel::Fill {
            to: high.clone(),
            value: 9.0,
        };
        let task = Task {
            kernels: Arc::from([fill]),
            work_scale: 1.0,
            extra_flop: 0,
        };
        let launch = Launch {
            queue: compute,
            after: &[],
            tag: 0,
        };
        tokens.push(f.must("fill", world.device.enqueue(&task, launch))?);
    }
    for token in tokens {
        f.must("parts in use at once", world.device.wait(token, LONG))?;
    }
    f.expect(
        &"both parts",
        &whole,
        &[vec![1.0; len], vec![9.0; len]].concat(),
    )
}
