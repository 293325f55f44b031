//! The nouns that every crate of laggard shares: quantities with units, ranks, data types,
//! collectives and doubts about data. No I/O, no models, no backend.

mod caveat;
mod clock;
mod clock_reason;
mod collective;
mod data_type;
mod device_state;
mod human;
mod quantity;

pub use caveat::{Caveat, CaveatCode};
pub use clock::{ClockDomain, Stamp};
pub use clock_reason::ClockReason;
pub use collective::{Collective, ReduceOp};
pub use data_type::DataType;
pub use device_state::{AdapterPath, ComputeMode, DeviceIdentity, DeviceState, Gauge};
pub use human::{ParseSizeError, format_bytes, format_seconds, format_span, parse_bytes};
pub use quantity::{Bytes, BytesPerSecond, Flop, FlopPerSecond, Seconds};

/// A rank: the position of one worker in a world, from 0. Plain `u32` indices are used inside
/// dense tables; this alias names the meaning in signatures.
pub type Rank = u32;
