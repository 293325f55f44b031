//! Who started this process, and as which of how many: read from the variables that launchers set.

use crate::failure::Usage;
use laggard_backend::control::MeetingPoint;
use laggard_mpi::Flavor;
use std::fmt;

/// A launcher of several processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Launcher {
    /// `mpirun` of Open MPI 4 or 5.
    OpenMpi,
    /// `mpiexec` of MPICH or one of its kin (Hydra).
    Mpich,
    /// `srun`.
    Slurm,
    /// `torchrun`.
    Torchrun,
    /// Whatever sets the variables that torchrun sets, such as Kubernetes' PyTorchJob.
    Variables,
}

/// This process's place among those that a launcher started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launch {
    pub(crate) launcher: Launcher,
    pub(crate) rank: u32,
    pub(crate) size: u32,
    /// The libraries to try, the likeliest first; none where the launcher starts no MPI.
    pub(crate) flavors: Vec<Flavor>,
    /// Where ranks can meet without MPI, if the launcher says so.
    pub(crate) meeting: Option<MeetingPoint>,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenMpi => "mpirun of Open MPI",
            Self::Mpich => "mpiexec of MPICH",
            Self::Slurm => "srun",
            Self::Torchrun => "torchrun",
            Self::Variables => "who set RANK and WORLD_SIZE",
        })
    }
}

/// The variables that torchrun and its like set, in words.
const ALL_FOUR: &str = "RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT";

impl Launch {
    /// The launch of this process, if a launcher started it.
    ///
    /// # Errors
    /// [`Usage`] if what launchers say is not complete or contradicts itself.
    pub(crate) fn detect() -> Result<Option<Self>, Usage> {
        Self::from_variables(&|name| std::env::var(name).ok())
    }

    /// Torchrun is the inner one where others started it: its ranks are the job's. Elsewhere MPI's
    /// launchers count, and what is set beside them must agree.
    fn from_variables(value: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, Usage> {
        let is_torchrun = value("TORCHELASTIC_RUN_ID").is_some();
        match Self::of_mpi(value).filter(|_| !is_torchrun || value("RANK").is_none()) {
            Some(launch) => launch.with_meeting(value).map(Some),
            None => Self::of_meeting(is_torchrun, value),
        }
    }

    /// Sources of the names: Open MPI's mpirun(1), "Environment Variables"; MPICH's Hydra (PMI-1);
    /// Slurm's srun(1), "Output environment variables". `SLURM_STEP_NUM_TASKS` is set by `srun`
    /// alone: in a batch script outside of it nobody else runs.
    fn of_mpi(value: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let pair = |rank: &str, size: &str| Some((number(value, rank)?, number(value, size)?));
        use Flavor::{Mpich, OpenMpi};
        let open_mpi = pair("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE");
        let slurm = pair("SLURM_PROCID", "SLURM_STEP_NUM_TASKS");
        let hydra = pair("PMI_RANK", "PMI_SIZE");
        let (launcher, (rank, size), flavors) = if let Some(place) = open_mpi {
            (Launcher::OpenMpi, place, vec![OpenMpi])
        } else if let Some(place) = slurm {
            // PMIx is what Open MPI speaks; PMI-1 and PMI-2 are MPICH's.
            let flavors = match value("PMIX_RANK").or_else(|| value("PMIX_NAMESPACE")) {
                Some(_) => vec![OpenMpi, Mpich],
                None => vec![Mpich, OpenMpi],
            };
            (Launcher::Slurm, place, flavors)
        } else if let Some(place) = hydra {
            (Launcher::Mpich, place, vec![Mpich])
        } else {
            return None;
        };
        let flavors = match value("LAGGARD_MPI").as_deref() {
            Some("openmpi") => vec![OpenMpi],
            Some("mpich") => vec![Mpich],
            _ => flavors,
        };
        Some(Self {
            launcher,
            rank,
            size,
            flavors,
            meeting: None,
        })
    }

    /// The same with where ranks meet without MPI, if torchrun's variables are set too.
    fn with_meeting(mut self, value: &dyn Fn(&str) -> Option<String>) -> Result<Self, Usage> {
        let Some((rank, size)) = number(value, "RANK").zip(number(value, "WORLD_SIZE")) else {
            return Ok(self);
        };
        let Self {
            launcher,
            rank: own,
            size: all,
            ..
        } = self;
        if (rank, size) != (own, all) {
            return Err(Usage(format!(
                "{launcher} says that this is rank {own} of {all}, and RANK and WORLD_SIZE say \
                 {rank} of {size}\nhint: unset RANK and WORLD_SIZE, or set them to what \
                 {launcher} says"
            )));
        }
        self.meeting = MeetingPoint::from_variables(value).ok().flatten();
        Ok(self)
    }

    /// A launch that torchrun's variables alone tell of.
    fn of_meeting(
        is_torchrun: bool,
        value: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, Usage> {
        let (set, missing) = match (value("RANK"), value("WORLD_SIZE")) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                let meeting = MeetingPoint::from_variables(value);
                let meeting = meeting.map_err(|error| Usage(error.to_string()))?;
                return Ok(meeting.map(|meeting| Self {
                    launcher: match is_torchrun {
                        true => Launcher::Torchrun,
                        false => Launcher::Variables,
                    },
                    rank: meeting.rank,
                    size: meeting.size,
                    flavors: Vec::new(),
                    meeting: Some(meeting),
                }));
            }
            (Some(_), None) => ("RANK", "WORLD_SIZE"),
            (None, Some(_)) => ("WORLD_SIZE", "RANK"),
        };
        Err(Usage(format!(
            "{set} is set, as a launcher does, and {missing} is not\n\
             hint: unset {set} to run on this machine alone, or set {ALL_FOUR}, as torchrun does"
        )))
    }
}

fn number(value: &dyn Fn(&str) -> Option<String>, name: &str) -> Option<u32> {
    value(name)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Flavor::{Mpich, OpenMpi};

    fn launch(text: &str) -> Result<Option<Launch>, Usage> {
        let value = |name: &str| {
            let pairs = text
                .split_whitespace()
                .filter_map(|pair| pair.split_once('='));
            let mut values = pairs.filter(|(given, _)| *given == name);
            values.next().map(|(_, value)| value.to_owned())
        };
        Launch::from_variables(&value)
    }

    #[test]
    fn launchers_are_told_apart() {
        let check = |text: &str, expect: Option<(Launcher, u32, u32, &[Flavor])>| {
            let found = launch(text).unwrap();
            let found = found
                .as_ref()
                .map(|it| (it.launcher, it.rank, it.size, &it.flavors[..]));
            assert_eq!(found, expect, "{text}");
        };
        check("", None);
        check(
            "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=4",
            Some((Launcher::OpenMpi, 1, 4, &[OpenMpi])),
        );
        check(
            "PMI_RANK=0 PMI_SIZE=2",
            Some((Launcher::Mpich, 0, 2, &[Mpich])),
        );
        // Open MPI's mpirun within a Slurm allocation.
        check(
            "SLURM_PROCID=0 OMPI_COMM_WORLD_RANK=3 OMPI_COMM_WORLD_SIZE=4",
            Some((Launcher::OpenMpi, 3, 4, &[OpenMpi])),
        );
        // A batch script is no step of many tasks.
        check("SLURM_PROCID=0 SLURM_NTASKS=8", None);
        let step = "SLURM_PROCID=5 SLURM_STEP_NUM_TASKS=8";
        check(step, Some((Launcher::Slurm, 5, 8, &[Mpich, OpenMpi])));
        check(
            &format!("{step} PMIX_RANK=5"),
            Some((Launcher::Slurm, 5, 8, &[OpenMpi, Mpich])),
        );
        check(
            &format!("{step} PMI_RANK=5 PMI_SIZE=8 LAGGARD_MPI=openmpi"),
            Some((Launcher::Slurm, 5, 8, &[OpenMpi])),
        );
        check("PMI_RANK=x PMI_SIZE=2", None);
    }

    const PLACE: &str = "MASTER_ADDR=h0 MASTER_PORT=29500";

    #[test]
    fn torchrun_and_its_like_need_no_mpi() {
        let check = |text: &str, expect: (Launcher, u32, u32), port: u16| {
            let found = launch(&format!("{text} {PLACE}")).unwrap().unwrap();
            assert_eq!((found.launcher, found.rank, found.size), expect, "{text}");
            assert!(found.flavors.is_empty(), "{text}");
            let meeting = found.meeting.unwrap();
            assert_eq!((meeting.rank, meeting.size), (expect.1, expect.2));
            assert_eq!(
                (meeting.address.as_str(), *meeting.ports.start()),
                ("h0", port)
            );
        };
        let torchrun = "TORCHELASTIC_RUN_ID=none TORCHELASTIC_USE_AGENT_STORE=True";
        let own = format!("RANK=3 WORLD_SIZE=8 LOCAL_RANK=3 {torchrun}");
        check(&own, (Launcher::Torchrun, 3, 8), 29501);
        check("RANK=1 WORLD_SIZE=2", (Launcher::Variables, 1, 2), 29500);
        // One task of srun, or one process of mpirun, per host, each a torchrun.
        for outer in [
            "SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=2",
            "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=2",
        ] {
            check(&format!("{outer} {own}"), (Launcher::Torchrun, 3, 8), 29501);
        }
    }

    #[test]
    fn an_mpi_launcher_goes_before_variables_that_agree() {
        let mpirun = "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=4";
        let meets = |more: &str| {
            let found = launch(&format!("{mpirun} {more}")).unwrap().unwrap();
            assert_eq!(
                (found.launcher, found.rank),
                (Launcher::OpenMpi, 1),
                "{more}"
            );
            found.meeting.is_some()
        };
        assert!(meets(&format!("RANK=1 WORLD_SIZE=4 {PLACE}")));
        // Nothing that ranks could meet by, and nothing that contradicts.
        assert!(!meets("RANK=1 WORLD_SIZE=4"));
        assert!(!meets("RANK=7"));
        assert!(!meets("WORLD_SIZE=16"));
        assert!(!meets("RANK=east WORLD_SIZE=4"));
    }

    #[test]
    fn what_is_not_complete_or_contradicts_is_explained() {
        let check = |text: &str, parts: &[&str]| {
            let error = launch(text).expect_err(text).to_string();
            for part in parts.iter().chain(&["\nhint: "]) {
                assert!(error.contains(part), "{error}");
            }
        };
        check(
            "RANK=0",
            &["RANK is set", "WORLD_SIZE is not", "unset RANK"],
        );
        check("WORLD_SIZE=2", &["WORLD_SIZE is set", "RANK is not"]);
        check("RANK=0 WORLD_SIZE=2", &["MASTER_PORT", "is not set"]);
        check(&format!("RANK=2 WORLD_SIZE=2 {PLACE}"), &["RANK: it is 2"]);
        check(
            &format!("OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=4 RANK=0 WORLD_SIZE=4 {PLACE}"),
            &[
                "mpirun of Open MPI says that this is rank 1 of 4",
                "say 0 of 4",
            ],
        );
        check(
            &format!("PMI_RANK=0 PMI_SIZE=4 RANK=0 WORLD_SIZE=8 {PLACE}"),
            &["mpiexec of MPICH says", "say 0 of 8"],
        );
    }
}
