//! A job of several hosts in this process: each host has a writer, and each rank but a host's first
//! forwards its rows to it.

use crate::example;
use laggard_record::{
    Forwarded, Manifest, RankRecorder, RecordWriter, RowForwarder, Telemetry, accept_file,
    part_files,
};
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::channel;

/// How many hosts of how many ranks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cluster {
    pub(crate) hosts: u32,
    pub(crate) ranks: u32,
}

impl Cluster {
    pub(crate) fn world(self) -> u32 {
        self.hosts * self.ranks
    }

    pub(crate) fn manifest(self) -> Manifest {
        example::manifest_of_hosts(self.hosts, self.ranks)
    }

    /// The rows of one rank's step.
    fn record(self, recorder: &mut RankRecorder, step: u32) {
        let (world, rank) = (self.world(), recorder.rank());
        let first = (step * world + rank) * 3;
        (first..first + 3).for_each(|index| recorder.push(example::sample(world, index)));
        recorder.push_step(example::step_work(rank, step));
    }
}

/// One host with its ranks.
pub(crate) struct HostOfRanks {
    cluster: Cluster,
    host: u32,
    writer: RecordWriter,
    leader: RankRecorder,
    forwarded: Vec<Forwarded>,
}

impl HostOfRanks {
    pub(crate) fn new(cluster: Cluster, host: u32, writer: RecordWriter) -> Self {
        Self {
            leader: writer.recorder(host * cluster.ranks).expect("a recorder"),
            forwarded: Vec::new(),
            cluster,
            host,
            writer,
        }
    }

    /// Lets the host's ranks record some steps, the others one after another, and its writer flush.
    pub(crate) fn run(&mut self, steps: Range<u32>) {
        for step in steps.clone() {
            self.cluster.record(&mut self.leader, step);
            let telemetry = Telemetry {
                host: self.host,
                ..example::telemetry(step)
            };
            let pushed = self.writer.push_telemetry(vec![telemetry]);
            pushed.expect("telemetry");
        }
        for rank in self.leader.rank() + 1..self.leader.rank() + self.cluster.ranks {
            self.forward(rank, steps.clone());
        }
        self.writer.flush().expect("flushed");
    }

    fn forward(&mut self, rank: u32, steps: Range<u32>) {
        let (wire, arrived) = channel();
        let send = move |rows| wire.send(rows).map_err(|error| error.to_string());
        let world = self.cluster.world() as usize;
        let forwarder = RowForwarder::start(world, Box::new(send)).expect("a thread");
        let mut recorder = forwarder.recorder(rank).expect("a recorder");
        for step in steps {
            self.cluster.record(&mut recorder, step);
            forwarder.flush().expect("forwarded");
        }
        self.forwarded.push(forwarder.close().expect("closed"));
        for rows in arrived {
            self.writer.receive(&rows).expect("rows");
        }
    }

    /// Ends the ranks. What is left is to close the writer.
    pub(crate) fn end(self) -> (RecordWriter, Vec<Forwarded>) {
        (self.writer, self.forwarded)
    }
}

/// Takes a part's files to the record, as bytes.
pub(crate) fn gather(scratch: &Path, part: u32, record: &Path) {
    for (name, path, bytes) in part_files(scratch, part).expect("files") {
        let file = File::open(path).expect("a file");
        assert_eq!(accept_file(record, part, &name, file), Ok(bytes), "{name}");
    }
}
