//! A run of which this process has one rank: what all processes settle before the first step and
//! after the last, around the same steps that in-process ranks run.

use crate::clock_sync::{Clocks, Sync, SyncOptions, alignments, revalidate, synchronize};
use crate::crew::{Crew, Watch, execute};
use crate::handover::{Opening, Part};
use crate::job::Job;
use crate::links::{HostPlaces, LinkOptions, probe_links};
use crate::manifest::{Findings, manifest, monotonic_ns};
use crate::place::Places;
use crate::run::{Hooks, Summary, identity};
use crate::team::Team;
use crate::{MeasureError, Settings};
use laggard_backend::control::ControlPlane;
use laggard_backend::{Device, Messenger, World, bind_thread, measure_peak, messenger};
use laggard_record::{Communication, Failure, append_alignment, append_failure};
use laggard_types::{FlopPerSecond, Rank, Seconds};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long each rank measures its arithmetic peak.
const PEAK_TIME: Duration = Duration::from_millis(50);

/// What one process of a run of several has.
pub struct Member {
    /// This rank's world; its messenger connects all ranks of the run.
    pub world: World,
    /// The control plane, joined.
    pub control: Arc<ControlPlane>,
    /// Where all ranks are.
    pub places: Places,
    /// What carries the collectives.
    pub communication: Communication,
}

/// Runs this process's rank of a synthetic training job and its part of the record. Collective;
/// every rank must be given the same settings. Only rank 0 has a summary to tell of.
///
/// # Errors
/// As [`crate::run`]; [`MeasureError::Lost`] if other ranks are gone, which every survivor says.
/// The other ranks are told of any failure, and what was recorded is kept.
pub fn run_member(
    settings: &Settings,
    member: Member,
    hooks: &Hooks<'_>,
) -> Result<Option<Summary>, MeasureError> {
    let rank = member.world.messenger.rank();
    let control = Arc::clone(&member.control);
    let team = Arc::new(Team::new(Arc::clone(&control), member.places, rank));
    let deadline = Instant::now() + settings.init_timeout;
    let places = team.places.clone().exchange_devices(
        &member.world.device.description(),
        &*member.world.messenger,
        deadline,
    );
    let identity = identity(&*member.world.device);
    let messenger = &*member.world.messenger;
    let places =
        places.and_then(|it| it.exchange_identities(identity.as_ref(), messenger, deadline));
    let outcome = places.and_then(|places| {
        let job = Job::at(settings, places)?;
        team.describe(&job.schedule);
        let process = Process {
            job: &job,
            rank,
            team: &team,
            messenger: Arc::clone(&member.world.messenger),
        };
        process.run(member.world, member.communication, hooks)
    });
    outcome.map_err(|error| {
        let error = team.explain(error);
        control.abort(&error.to_string());
        error
    })
}

/// One process, with what all of its doings need.
struct Process<'a> {
    job: &'a Job,
    rank: Rank,
    team: &'a Arc<Team>,
    messenger: Arc<dyn Messenger>,
}

impl Process<'_> {
    fn run(
        &self,
        world: World,
        communication: Communication,
        hooks: &Hooks<'_>,
    ) -> Result<Option<Summary>, MeasureError> {
        let settings = &self.job.settings;
        let deadline = Instant::now() + settings.init_timeout;
        let peaks = self.peaks(deadline)?;
        let sync = self.synchronize(deadline)?;
        let links = self.probe_links(deadline)?;
        let own = |peaks: &[f64]| peaks.get(self.rank as usize).copied().unwrap_or(0.0);
        let peak = FlopPerSecond(own(&peaks));
        let fastest = FlopPerSecond(peaks.iter().copied().fold(0.0, f64::max));
        let opening = match self.rank {
            0 => {
                let findings = Findings {
                    peaks,
                    communication,
                    links,
                };
                let manifest = manifest(self.job, &findings)?;
                Opening::create(self.job, manifest, &*self.messenger, deadline)?
            }
            _ => Opening::hear(&*self.messenger, deadline)?,
        };
        let record = opening.record.clone();
        self.team.control.name_record(&record);
        let begin_ns = monotonic_ns()?;
        let begin = Instant::now();
        let device = Arc::clone(&world.device);
        // What is known of the clocks by now is enough for a record that is never closed.
        let covered = (begin_ns..begin_ns, device.clock_error_ns());
        let alignment = alignments(&*self.messenger, &sync, covered, deadline)?;
        if self.rank == 0 {
            append_alignment(&record, &alignment)?;
        }
        let part = Part::open(self.job, self.team, opening)?;
        let crew = Crew::member(self.job, self.rank, Arc::clone(self.team));
        let watch = Watch {
            hooks,
            rows: part.rows(),
            crew: &crew,
        };
        let outcome = execute(self.job, vec![world], peak, &watch);
        let outcome = outcome.map_err(|error| self.team.explain(error));
        if let Err(error) = &outcome {
            self.note(&record, error);
            // The others end as soon as they know, and none of them waits for this one's record.
            self.team.control.abort(&error.to_string());
        }
        let elapsed = Seconds(begin.elapsed().as_secs_f64());
        let closing = part.close(&crew.status_of(&outcome), crew.steps_completed());
        outcome?;
        let closing = closing?;
        let alignment = self.align(&sync, (begin_ns, &*device))?;
        let Some(closing) = closing else {
            return Ok(None);
        };
        append_alignment(&record, &alignment)?;
        Ok(Some(Summary {
            record,
            closing,
            basis: self.job.basis,
            elapsed,
            measured_peak: (!self.job.is_on_accelerators()).then_some(fastest),
        }))
    }

    /// Writes down why the run failed, where rank 0 may not be able to: the terminal may be lost
    /// too.
    fn note(&self, record: &Path, error: &MeasureError) {
        if !error.is_of_others() || !self.team.control.is_first_left() {
            return;
        }
        let failure = Failure {
            rank: Some(self.rank),
            why: error.to_string(),
        };
        if let Err(error) = append_failure(record, &failure) {
            tracing::warn!(%error, "the failure was not noted");
        }
    }

    /// Every rank's arithmetic peak, on the processor that it will compute on.
    fn peaks(&self, deadline: Instant) -> Result<Vec<f64>, MeasureError> {
        let rank = self.rank;
        let start = |source| MeasureError::Start { rank, source };
        let cpu = self.job.processor_of(rank);
        let measured = std::thread::scope(|scope| {
            let measure = || bind_thread(cpu).and_then(|()| measure_peak(PEAK_TIME));
            scope.spawn(measure).join()
        });
        let peak = measured.map_err(|_| MeasureError::System {
            what: format!("measuring the arithmetic peak of rank {rank}"),
            why: "the thread panicked".to_owned(),
        })?;
        let bytes = peak.map_err(start)?.0.to_le_bytes();
        let all = messenger::all_gather(&*self.messenger, &bytes, deadline).map_err(start)?;
        let read =
            |bytes: &Vec<u8>| <[u8; 8]>::try_from(&bytes[..]).map_or(0.0, f64::from_le_bytes);
        Ok(all.iter().map(read).collect())
    }

    fn synchronize(&self, deadline: Instant) -> Result<Sync, MeasureError> {
        let machines = self.job.machine_of_rank();
        let options = SyncOptions::default();
        synchronize(
            &*self.messenger,
            &machines,
            &monotonic_ns,
            &options,
            deadline,
        )
    }

    fn probe_links(&self, deadline: Instant) -> Result<Vec<laggard_record::Link>, MeasureError> {
        let machine_of_rank = self.job.machine_of_rank();
        let places = HostPlaces {
            host_of_rank: &self.job.host_of_rank,
            machine_of_rank: &machine_of_rank,
        };
        probe_links(&*self.messenger, places, &LinkOptions::default(), deadline)
    }

    /// Compares the clocks again after the last step.
    fn align(
        &self,
        first: &Sync,
        (begin_ns, device): (i64, &dyn Device),
    ) -> Result<Vec<laggard_record::Alignment>, MeasureError> {
        let deadline = Instant::now() + self.job.settings.timeout;
        let machine_of_rank = self.job.machine_of_rank();
        let clocks = Clocks {
            machine_of_rank: &machine_of_rank,
            clock: &monotonic_ns,
        };
        let options = SyncOptions::default();
        let messenger = &*self.messenger;
        let sync = revalidate(first, messenger, clocks, &options, deadline)?;
        if let Some(missed) = sync.missed_by_ns.filter(|missed| *missed > 0) {
            tracing::warn!(
                rank = self.rank,
                missed,
                "clocks moved beyond their first bound"
            );
        }
        let covered = (begin_ns..monotonic_ns()?, device.clock_error_ns());
        alignments(messenger, &sync, covered, deadline)
    }
}
