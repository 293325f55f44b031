//! Records as their users see them: written, read, damaged, killed.

mod example;
mod round_trip;
