//! The findings of the examples.

use super::around;
use laggard_analyze::{Cause, Confidence, Culprit, Finding, Onset};

pub(super) fn slow_rank() -> Finding {
    Finding {
        cause: Cause::SlowRank,
        culprit: Culprit::Rank(5),
        confidence: Confidence::Shown,
        loss: around(0.074, 0.006),
        excess: Some(around(0.181, 0.007)),
        onset: Some(Onset {
            step: 420,
            earliest: 412,
            latest: 431,
            ratio: 1.181,
        }),
        signs: Vec::new(),
        summary: "Rank 5 on host-1 takes 18.1 % longer than its class for the same work."
            .to_owned(),
        evidence: vec![
            "last in 74 % of steps; chance alone gives 20 %".to_owned(),
            "forward and backward are slower alike".to_owned(),
            "its share of descheduled time is that of its peers".to_owned(),
            "sequence lengths and micro-batches are the same as those of its peers".to_owned(),
        ],
        advice: "Check the clocks and the temperature of that device, or take it out; without \
                 it the step would take 7.4 % less."
            .to_owned(),
    }
}

pub(super) fn mixed_classes() -> Finding {
    Finding {
        cause: Cause::MixedGenerations,
        culprit: Culprit::Nobody,
        confidence: Confidence::Shown,
        loss: around(0.152, 0.004),
        excess: None,
        onset: None,
        signs: Vec::new(),
        summary: "Classes of different speed have equal shares: GB200-like waits 61 % of the \
                  step."
            .to_owned(),
        evidence: vec!["own time per micro-batch: GB200-like 21 ms, H100-like 46 ms".to_owned()],
        advice: "Give GB200-like 2.2 times the micro-batches of H100-like.".to_owned(),
    }
}

pub(super) fn jitter() -> Finding {
    Finding {
        cause: Cause::StepJitter,
        culprit: Culprit::Nobody,
        confidence: Confidence::Inconclusive,
        loss: around(0.018, 0.012),
        excess: None,
        onset: None,
        signs: Vec::new(),
        summary: "Compute times vary from step to step.".to_owned(),
        evidence: Vec::new(),
        advice: "Record with the machine otherwise idle to tell jitter from contention.".to_owned(),
    }
}

pub(super) fn slow_node() -> Finding {
    Finding {
        cause: Cause::SlowNode,
        culprit: Culprit::Host(3),
        confidence: Confidence::Shown,
        loss: around(0.0442, 0.003),
        excess: Some(around(0.061, 0.004)),
        onset: None,
        signs: Vec::new(),
        summary: "All 8 ranks of host-3 take 6.1 % longer than the others.".to_owned(),
        evidence: vec!["p = 0.002 against shuffled hosts".to_owned()],
        advice: "Check the power cap and the clocks of host-3, or exchange it.".to_owned(),
    }
}
