//! Part of laggard.
