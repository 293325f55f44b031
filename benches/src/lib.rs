//! Benchmarks of laggard: each binary prints raw figures and the limit that it is held against.
