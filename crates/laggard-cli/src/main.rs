//! The laggard binary.
fn main() {}
