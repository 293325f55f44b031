//! Where the rows of this process's ranks go: into the record, or to the process that writes it.

use laggard_record::{
    DeviceReading, RankRecorder, RecordError, RecordWriter, RowForwarder, Telemetry,
};
use laggard_types::Rank;
use std::path::Path;
use std::sync::Arc;

/// The way into the record.
pub(crate) enum Rows {
    Writer(Arc<RecordWriter>),
    Forwarder(RowForwarder),
}

impl Rows {
    pub(crate) fn recorder(&self, rank: Rank) -> Result<RankRecorder, RecordError> {
        match self {
            Self::Writer(writer) => writer.recorder(rank),
            Self::Forwarder(forwarder) => forwarder.recorder(rank),
        }
    }

    pub(crate) fn push_telemetry(&self, rows: Vec<Telemetry>) -> Result<(), RecordError> {
        match self {
            Self::Writer(writer) => writer.push_telemetry(rows),
            Self::Forwarder(forwarder) => forwarder.push_telemetry(rows),
        }
    }

    pub(crate) fn push_devices(&self, rows: Vec<DeviceReading>) -> Result<(), RecordError> {
        match self {
            Self::Writer(writer) => writer.push_devices(rows),
            Self::Forwarder(forwarder) => forwarder.push_devices(rows),
        }
    }

    pub(crate) fn flush(&self) -> Result<(), RecordError> {
        match self {
            Self::Writer(writer) => writer.flush(),
            Self::Forwarder(forwarder) => forwarder.flush(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), RecordError> {
        match self {
            Self::Writer(writer) => writer.check(),
            Self::Forwarder(forwarder) => forwarder.check(),
        }
    }
}

/// The writer, when nobody else uses it any more.
pub(crate) fn sole(writer: Arc<RecordWriter>, record: &Path) -> Result<RecordWriter, RecordError> {
    Arc::into_inner(writer).ok_or_else(|| RecordError::WriterGone {
        path: record.to_owned(),
    })
}
