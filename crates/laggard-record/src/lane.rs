//! The way of rows from a rank's thread to the writer's, without a lock: a chain of chunks of
//! atomic words. The rank stores a row and then publishes the chunk's new length; the writer reads
//! up to that length at any time, so that it sees all rows even of a rank that hangs. Read chunks
//! go back to the rank through a pool.

use std::array;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};

/// A fixed number of rows of `W` words.
struct Chunk<const W: usize> {
    rows: Box<[[AtomicU64; W]]>,
    /// Rows that are complete.
    length: AtomicUsize,
    /// The chunk that the rank went on with.
    next: OnceLock<Arc<Self>>,
}

impl<const W: usize> Chunk<W> {
    fn new(rows: usize) -> Arc<Self> {
        let row = |_| array::from_fn(|_| AtomicU64::new(0));
        Arc::new(Self {
            rows: (0..rows).map(row).collect(),
            length: AtomicUsize::new(0),
            next: OnceLock::new(),
        })
    }
}

/// How many rows a lane holds before the rank has to allocate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    pub(crate) chunks: usize,
    pub(crate) rows_per_chunk: usize,
}

/// The rank's end of a lane.
pub(crate) struct Producer<const W: usize> {
    chunk: Arc<Chunk<W>>,
    length: usize,
    pool: Receiver<Arc<Chunk<W>>>,
    lags: Arc<AtomicU64>,
}

/// The writer's end of a lane.
pub(crate) struct Consumer<const W: usize> {
    chunk: Arc<Chunk<W>>,
    read: usize,
    pool: SyncSender<Arc<Chunk<W>>>,
    /// Chunks that are read, but that the rank still holds for a moment.
    leaving: Vec<Arc<Chunk<W>>>,
}

/// Makes a lane. `lags` counts how often the rank had to allocate.
pub(crate) fn lane<const W: usize>(
    capacity: Capacity,
    lags: Arc<AtomicU64>,
) -> (Producer<W>, Consumer<W>) {
    let first = Chunk::new(capacity.rows_per_chunk);
    let (give, pool) = sync_channel(capacity.chunks);
    for _ in 1..capacity.chunks {
        give.try_send(Chunk::new(capacity.rows_per_chunk))
            .expect("the pool has room for them all");
    }
    let producer = Producer {
        chunk: Arc::clone(&first),
        length: 0,
        pool,
        lags,
    };
    (
        producer,
        Consumer {
            chunk: first,
            read: 0,
            pool: give,
            leaving: Vec::new(),
        },
    )
}

impl<const W: usize> Producer<W> {
    /// Stores a row. Neither locks nor allocates, unless all chunks are full and unread.
    #[inline]
    pub(crate) fn push(&mut self, row: [u64; W]) {
        if self.length == self.chunk.rows.len() {
            self.go_on();
        }
        for (word, value) in self.chunk.rows[self.length].iter().zip(row) {
            word.store(value, Ordering::Relaxed);
        }
        self.length += 1;
        // The writer that sees this length sees the words too.
        self.chunk.length.store(self.length, Ordering::Release);
    }

    #[cold]
    fn go_on(&mut self) {
        let fresh = self.pool.try_recv().unwrap_or_else(|_| {
            self.lags.fetch_add(1, Ordering::Relaxed);
            Chunk::new(self.chunk.rows.len())
        });
        self.length = 0;
        let full = std::mem::replace(&mut self.chunk, Arc::clone(&fresh));
        assert!(full.next.set(fresh).is_ok(), "a chunk has one successor");
    }
}

impl<const W: usize> Consumer<W> {
    /// Hands all rows that were complete at some moment of the call to `visit`, in order.
    pub(crate) fn drain(&mut self, mut visit: impl FnMut([u64; W])) {
        loop {
            // The successor is asked for first: once there is one, the length is final.
            let next = self.chunk.next.get().cloned();
            let length = self.chunk.length.load(Ordering::Acquire);
            for row in &self.chunk.rows[self.read..length] {
                visit(array::from_fn(|word| row[word].load(Ordering::Relaxed)));
            }
            self.read = length;
            let Some(next) = next else { break };
            self.leaving.push(std::mem::replace(&mut self.chunk, next));
            self.read = 0;
        }
        self.recycle();
    }

    fn recycle(&mut self) {
        for mut chunk in std::mem::take(&mut self.leaving) {
            match Arc::get_mut(&mut chunk) {
                Some(free) => {
                    *free.length.get_mut() = 0;
                    free.next.take();
                    // A full pool means that the rank allocated this one: let it go.
                    drop(self.pool.try_send(chunk));
                }
                None => self.leaving.push(chunk),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_arrive_in_order_while_both_ends_run() {
        const ROWS: u64 = 200_000;
        let lags = Arc::new(AtomicU64::new(0));
        let capacity = Capacity {
            chunks: 3,
            rows_per_chunk: 64,
        };
        let (mut producer, mut consumer) = lane::<2>(capacity, Arc::clone(&lags));
        let rank = std::thread::spawn(move || {
            (0..ROWS).for_each(|row| producer.push([row, row * 3]));
        });
        let mut expect = 0;
        while expect < ROWS {
            consumer.drain(|row| {
                assert_eq!(row, [expect, expect * 3]);
                expect += 1;
            });
        }
        rank.join().expect("the rank's thread");
        assert_eq!(expect, ROWS);
    }

    #[test]
    fn a_lane_allocates_only_when_the_writer_lags() {
        let lags = Arc::new(AtomicU64::new(0));
        let capacity = Capacity {
            chunks: 2,
            rows_per_chunk: 4,
        };
        let (mut producer, mut consumer) = lane::<1>(capacity, Arc::clone(&lags));
        let mut push = |rows| (0..rows).for_each(|row| producer.push([row]));
        for _ in 0..10 {
            push(4);
            let mut seen = 0;
            consumer.drain(|_| seen += 1);
            assert_eq!(seen, 4);
        }
        assert_eq!(lags.load(Ordering::Relaxed), 0);
        // The chunk that was read last is still the rank's: one more is free, the next is not.
        push(4 + 1);
        assert_eq!(lags.load(Ordering::Relaxed), 1);
    }
}
