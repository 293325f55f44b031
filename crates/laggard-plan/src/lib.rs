//! Partitions of a mixed cluster: what trains together, with which shares of the work, and what
//! serves. Knows nothing of how costs are computed.

mod layouts;
pub mod money;
pub mod pools;
pub mod serving;
mod shares;
mod stages;

pub use layouts::{Candidate, Demand, Found, NoLayout, Space, fastest_layouts, memory_of_layout};
pub use shares::{Shares, SharesError, Worker, share_out};
pub use stages::{Chain, ChainError, Cut, Stage, cut_chain, order_stages};
