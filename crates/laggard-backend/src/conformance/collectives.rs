//! Results of every collective, over element types, reductions, lengths, roots and places.

use super::Violation;
use super::fixture::{
    Fixture, LENGTHS, PLACES, Place, block_lengths, element, elements, reduced, roots, scale,
};
use crate::{Call, Slice, World};
use laggard_types::{DataType, Rank, ReduceOp};

impl Fixture<'_> {
    /// What this rank contributes to a reduction.
    fn contribution(&self, op: ReduceOp, data_type: DataType, len: usize) -> Vec<f64> {
        let scale = scale(op, data_type, self.ranks);
        elements(self.rank, 0, len)
            .iter()
            .map(|x| x * scale)
            .collect()
    }

    fn zeros(&self, data_type: DataType, len: usize) -> Result<Slice, Violation> {
        self.slice(data_type, &vec![0.0; len])
    }

    fn block(&self, whole: &Slice, counts: &[usize], rank: Rank) -> Result<Slice, Violation> {
        let start = start(counts, rank);
        self.must("slicing", whole.part(start..start + counts[rank as usize]))
    }
}

fn start(counts: &[usize], rank: Rank) -> usize {
    counts[..rank as usize].iter().sum()
}

fn reductions() -> impl Iterator<Item = (DataType, ReduceOp)> {
    DataType::ALL
        .into_iter()
        .flat_map(|t| ReduceOp::ALL.into_iter().map(move |op| (t, op)))
}

pub(super) fn all_reduce(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    for ((data_type, op), len) in reductions().flat_map(|r| LENGTHS.map(|len| (r, len))) {
        for place in PLACES {
            let case = format!("{op:?} of {len} {data_type:?}, {place:?} place");
            let mine = f.contribution(op, data_type, len);
            let send = f.slice(data_type, &mine)?;
            let recv = match place {
                Place::In => send.clone(),
                Place::Out => f.zeros(data_type, len)?,
            };
            f.done(
                &case,
                Call::AllReduce {
                    send: send.clone(),
                    recv: recv.clone(),
                    op,
                },
            )?;
            let want: Vec<f64> = (0..len)
                .map(|index| reduced(op, data_type, f.ranks, index))
                .collect();
            f.expect(&case, &recv, &want)?;
            if place == Place::Out {
                f.expect(&case, &send, &mine)?;
            }
        }
    }
    f.done(&"barrier", Call::Barrier)
}

pub(super) fn reduce(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    for ((data_type, op), len) in reductions().flat_map(|r| LENGTHS.map(|len| (r, len))) {
        for (root, place) in roots(f.ranks)
            .into_iter()
            .flat_map(|r| PLACES.map(|p| (r, p)))
        {
            let case = format!("{op:?} of {len} {data_type:?} at {root}, {place:?} place");
            let mine = f.contribution(op, data_type, len);
            let send = f.slice(data_type, &mine)?;
            let recv = match place {
                Place::In => send.clone(),
                Place::Out => f.zeros(data_type, len)?,
            };
            let of_root = (f.rank == root).then(|| recv.clone());
            f.done(
                &case,
                Call::Reduce {
                    send: send.clone(),
                    recv: of_root,
                    op,
                    root,
                },
            )?;
            if f.rank == root {
                let want: Vec<f64> = (0..len)
                    .map(|index| reduced(op, data_type, f.ranks, index))
                    .collect();
                f.expect(&case, &recv, &want)?;
            } else {
                f.expect(&case, &send, &mine)?;
            }
        }
    }
    Ok(())
}

pub(super) fn reduce_scatter(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    for (data_type, op) in reductions() {
        for (counts, place) in block_lengths(f.ranks)
            .iter()
            .flat_map(|c| PLACES.map(|p| (c, p)))
        {
            let case = format!("{op:?} of {counts:?} {data_type:?}, {place:?} place");
            let total = counts.iter().sum();
            let own = counts[f.rank as usize];
            let mine = f.contribution(op, data_type, total);
            let send = f.slice(data_type, &mine)?;
            let recv = match place {
                Place::In => f.block(&send, counts, f.rank)?,
                Place::Out => f.zeros(data_type, own)?,
            };
            let (send_, recv_, counts_) = (send.clone(), recv.clone(), counts.clone());
            f.done(
                &case,
                Call::ReduceScatter {
                    send: send_,
                    recv: recv_,
                    op,
                    counts: counts_,
                },
            )?;
            let first = start(counts, f.rank);
            let want: Vec<f64> = (first..first + own)
                .map(|index| reduced(op, data_type, f.ranks, index))
                .collect();
            f.expect(&case, &recv, &want)?;
            if place == Place::Out {
                f.expect(&case, &send, &mine)?;
            }
        }
    }
    Ok(())
}

pub(super) fn all_gather(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    for (data_type, counts) in DataType::ALL
        .into_iter()
        .flat_map(|t| block_lengths(f.ranks).into_iter().map(move |c| (t, c)))
    {
        for place in PLACES {
            let case = format!("{counts:?} of {data_type:?}, {place:?} place");
            let recv = f.zeros(data_type, counts.iter().sum())?;
            let mine = elements(f.rank, 0, counts[f.rank as usize]);
            let send = match place {
                Place::In => f.block(&recv, &counts, f.rank)?,
                Place::Out => f.zeros(data_type, mine.len())?,
            };
            f.must(&case, send.write_numbers(&mine))?;
            let (send, recv_, counts_) = (send, recv.clone(), counts.clone());
            f.done(
                &case,
                Call::AllGather {
                    send,
                    recv: recv_,
                    counts: counts_,
                },
            )?;
            f.expect(&case, &recv, &gathered(&counts))?;
        }
    }
    Ok(())
}

fn gathered(counts: &[usize]) -> Vec<f64> {
    (0..)
        .zip(counts)
        .flat_map(|(rank, count)| elements(rank, 0, *count))
        .collect()
}

pub(super) fn gather_scatter(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    for (data_type, counts) in DataType::ALL
        .into_iter()
        .flat_map(|t| block_lengths(f.ranks).into_iter().map(move |c| (t, c)))
    {
        for (root, place) in roots(f.ranks)
            .into_iter()
            .flat_map(|r| PLACES.map(|p| (r, p)))
        {
            let case = format!("{counts:?} of {data_type:?} at {root}, {place:?} place");
            let whole = f.zeros(data_type, counts.iter().sum())?;
            let mine = elements(f.rank, 0, counts[f.rank as usize]);
            let is_root = f.rank == root;
            let own = match place {
                Place::In if is_root => f.block(&whole, &counts, f.rank)?,
                _ => f.zeros(data_type, mine.len())?,
            };
            f.must(&case, own.write_numbers(&mine))?;
            let of_root = is_root.then(|| whole.clone());
            f.done(
                &format!("gather of {case}"),
                Call::Gather {
                    send: own.clone(),
                    recv: of_root,
                    counts: counts.clone(),
                    root,
                },
            )?;
            if is_root {
                f.expect(&format!("gather of {case}"), &whole, &gathered(&counts))?;
                let shifted: Vec<f64> = gathered(&counts).iter().map(|x| x + 4.0).collect();
                f.must(&case, whole.write_numbers(&shifted))?;
            }
            let of_root = is_root.then(|| whole.clone());
            f.done(
                &format!("scatter of {case}"),
                Call::Scatter {
                    send: of_root,
                    recv: own.clone(),
                    counts: counts.clone(),
                    root,
                },
            )?;
            let want: Vec<f64> = mine.iter().map(|x| x + 4.0).collect();
            let found = f.must(&case, own.read_numbers())?;
            f.same(&format!("scatter of {case}"), &found, &want)?;
        }
    }
    Ok(())
}

/// How many elements `from` sends to `to`.
type Traffic = fn(from: Rank, to: Rank) -> usize;

pub(super) fn all_to_all(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    let traffics: [Traffic; 4] = [
        |_, _| 0,
        |_, _| 3,
        |from, to| ((from * 7 + to * 3) % 5) as usize * 101,
        |from, to| if from > to { 2000 } else { 1 },
    ];
    for (data_type, (number, traffic)) in DataType::ALL
        .into_iter()
        .flat_map(|t| traffics.into_iter().enumerate().map(move |n| (t, n)))
    {
        let sent: Vec<usize> = (0..f.ranks).map(|to| traffic(f.rank, to)).collect();
        let received: Vec<usize> = (0..f.ranks).map(|from| traffic(from, f.rank)).collect();
        let mine = elements(f.rank, 0, sent.iter().sum());
        let want: Vec<f64> = (0..f.ranks)
            .flat_map(|from| {
                let first = (0..f.rank).map(|to| traffic(from, to)).sum();
                elements(from, first, traffic(from, f.rank))
            })
            .collect();
        for place in PLACES {
            let case = format!("pattern {number} of {data_type:?}, {place:?} place");
            let send = f.slice(data_type, &mine)?;
            let recv = match place {
                // In place is possible only where as much comes as goes; the others then do it out
                // of place, which must mix.
                Place::In if mine.len() == want.len() => send.clone(),
                _ => f.zeros(data_type, want.len())?,
            };
            let (recv_, send_counts, recv_counts) = (recv.clone(), sent.clone(), received.clone());
            f.done(
                &case,
                Call::AllToAll {
                    send,
                    recv: recv_,
                    send_counts,
                    recv_counts,
                },
            )?;
            f.expect(&case, &recv, &want)?;
        }
    }
    Ok(())
}

pub(super) fn broadcast(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    for (data_type, len) in DataType::ALL
        .into_iter()
        .flat_map(|t| LENGTHS.map(|len| (t, len)))
    {
        for root in roots(f.ranks) {
            let case = format!("{len} {data_type:?} from {root}");
            let buffer = f.slice(data_type, &elements(f.rank, 0, len))?;
            f.done(
                &case,
                Call::Broadcast {
                    buffer: buffer.clone(),
                    root,
                },
            )?;
            f.expect(&case, &buffer, &elements(root, 0, len))?;
        }
    }
    Ok(())
}

/// Sums of fractions, against the bound `(n - 1) u sum |x|` of any order of summation (Higham 2002,
/// Accuracy and Stability of Numerical Algorithms, section 4.2), first order in the unit roundoff.
/// For 16-bit types it holds with their own roundoff whether a backend rounds once or after every
/// addition; inputs are rounded first.
pub(super) fn rounding(world: &World) -> Result<(), Violation> {
    let f = Fixture::new(world)?;
    let types = [
        (DataType::Bf16, 2f64.powi(-8)),
        (DataType::F16, 2f64.powi(-11)),
        (DataType::F32, 2f64.powi(-24)),
        (DataType::F64, 2f64.powi(-53)),
    ];
    let fraction = |rank: Rank, index: usize| (element(rank, index) + 0.3) / 5.0;
    for (data_type, roundoff) in types {
        let len = 1001;
        let exact: Vec<Vec<f64>> = (0..f.ranks)
            .map(|rank| {
                let values: Vec<f64> = (0..len).map(|index| fraction(rank, index)).collect();
                let rounded = f.slice(data_type, &values)?;
                f.must("reading", rounded.read_numbers())
            })
            .collect::<Result<_, _>>()?;
        let buffer = f.slice(data_type, &exact[f.rank as usize])?;
        let (send, recv) = (buffer.clone(), buffer.clone());
        let case = format!("sum of fractions in {data_type:?}");
        f.done(
            &case,
            Call::AllReduce {
                send,
                recv,
                op: ReduceOp::Sum,
            },
        )?;
        let found = f.must(&case, buffer.read_numbers())?;
        for (index, found) in found.iter().enumerate() {
            let sum: f64 = exact.iter().map(|of_rank| of_rank[index]).sum();
            let size: f64 = exact.iter().map(|of_rank| of_rank[index].abs()).sum();
            // The reference itself is a sum in f64.
            let bound = f64::from(f.ranks) * (roundoff * 1.01 + f64::EPSILON) * size;
            if (found - sum).abs() > bound {
                let why = format!("element {index} is {found}, not {sum} within {bound}");
                return Err(f.violation(&case, why));
            }
        }
    }
    Ok(())
}
