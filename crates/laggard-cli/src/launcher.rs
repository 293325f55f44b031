//! Who started this process, and as which of how many: read from the variables that launchers set.

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
}

/// This process's place among those that a launcher started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launch {
    pub(crate) launcher: Launcher,
    pub(crate) rank: u32,
    pub(crate) size: u32,
    /// The libraries to try, the likeliest first.
    pub(crate) flavors: Vec<Flavor>,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenMpi => "mpirun of Open MPI",
            Self::Mpich => "mpiexec of MPICH",
            Self::Slurm => "srun",
        })
    }
}

impl Launch {
    /// The launch of this process, if a launcher started it.
    pub(crate) fn detect() -> Option<Self> {
        Self::from_variables(&|name| std::env::var(name).ok())
    }

    /// Sources of the names: Open MPI's mpirun(1), "Environment Variables"; MPICH's Hydra (PMI-1);
    /// Slurm's srun(1), "Output environment variables". `SLURM_STEP_NUM_TASKS` is set by `srun`
    /// alone: in a batch script outside of it nobody else runs.
    fn from_variables(value: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |name: &str| value(name)?.trim().parse::<u32>().ok();
        let pair = |rank: &str, size: &str| Some((number(rank)?, number(size)?));
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
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Flavor::{Mpich, OpenMpi};

    fn launch(text: &str) -> Option<Launch> {
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
            let found = launch(text);
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
}
