//! Predicts what a job will do before it runs: the time of a step by cause, what failures leave of
//! it, and whole steps of up to a million ranks. Knows nothing of search or money.

