//! What was analysed, in words.

use crate::Subject;
use laggard_record::{Manifest, Origin, TimeBasis};
use laggard_schedule::ScheduleOrigin;

/// The steps that are used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) steps: usize,
    /// Tokens of all ranks in a step, mean.
    pub(crate) tokens_per_step: f64,
    /// Length of a step in seconds, mean.
    pub(crate) step_s: f64,
}

/// The subject of a record of which all steps are used.
pub(crate) fn subject(manifest: &Manifest, pace: Pace) -> Subject {
    let schedule = &manifest.schedule;
    let layout = match &schedule.origin {
        ScheduleOrigin::Generated(layout) => layout.to_string(),
        ScheduleOrigin::Trace if schedule.stages() > 1 => {
            format!("from the trace, {} pipeline stages", schedule.stages())
        }
        ScheduleOrigin::Trace => "from the trace".to_owned(),
    };
    Subject {
        model: manifest.workload.model.clone(),
        synthetic: manifest.workload.synthetic,
        layout,
        ranks: manifest.ranks.len() as u32,
        hosts: manifest.hosts.len() as u32,
        steps_recorded: pace.steps as u32,
        steps_warm_up: 0,
        steps_used: pace.steps as u32,
        time_basis: match manifest.clock.basis {
            TimeBasis::Wall => "wall".to_owned(),
            TimeBasis::Virtual => "virtual".to_owned(),
        },
        origin: match &manifest.origin {
            Origin::Imported { tool, .. } => format!("imported from {tool}"),
            other => came_about(other).to_owned(),
        },
        tokens_per_step: pace.tokens_per_step,
        tokens_per_s: pace.tokens_per_step / pace.step_s,
    }
}

/// How the times of a record came about, as a verb.
pub(crate) const fn came_about(origin: &Origin) -> &'static str {
    match origin {
        Origin::Measured => "measured",
        Origin::Predicted | Origin::Sketch(_) => "predicted",
        Origin::Imported { .. } => "imported",
    }
}
