//! A collective, as work of a queue.

use crate::agreement::agree;
use crate::cargo::Cargo;
use crate::counts::Counts;
use crate::group::Visit;
use laggard_backend::{BackendError, Meeting, Reading, Scratch, Work};
use laggard_types::Stamp;
use std::sync::Arc;

/// One rank's part in a collective.
pub(crate) struct CollectiveWork {
    pub visit: Arc<Visit>,
    pub counts: Counts,
}

impl Work for CollectiveWork {
    fn run(&mut self, scratch: &mut Scratch) -> Result<Stamp, BackendError> {
        let visit = &*self.visit;
        let (group, settings) = (&*visit.group, &*visit.group.settings);
        let place = (group.rank(), group.size());
        let counts = std::mem::take(&mut self.counts);
        let mut cargo = Cargo::of(&visit.call, counts, place, 0)?;
        cargo.prepare(scratch);

        let begin = Reading::begin()?;
        visit.arrive();
        let deadline = settings.deadline();
        group.calls.check()?;
        if settings.check_calls {
            agree(visit, deadline)?;
        }
        cargo.stage(scratch);
        let landed = group.calls.fly(cargo, &visit.what, settings.pace, deadline);
        let (_, cargo) = landed.map_err(|stopped| visit.error(stopped))?;
        cargo.unload(scratch);
        begin.end()
    }

    fn meeting(&self) -> Option<Arc<dyn Meeting>> {
        let meeting: Arc<Visit> = Arc::clone(&self.visit);
        Some(meeting)
    }
}
