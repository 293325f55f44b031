//! Where CUDA's libraries may be. Knows names and folders, loads nothing.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// The environment variable that names folders to look into first, separated by colons: folders
/// with libraries, toolkits, or folders that wheels were installed into.
pub const PATH_VARIABLE: &str = "LAGGARD_CUDA_PATH";

/// A library that laggard uses where it is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CudaLibrary {
    /// The driver's interface.
    Driver,
    /// The driver's management library: clocks, power, temperatures.
    Nvml,
    /// The compiler of kernels.
    Nvrtc,
    /// NVIDIA's matrix products.
    CublasLt,
    /// NVIDIA's collectives.
    Nccl,
}

impl CudaLibrary {
    /// Every library, in the order in which they build on each other.
    pub const ALL: [Self; 5] = [
        Self::Driver,
        Self::Nvml,
        Self::Nvrtc,
        Self::CublasLt,
        Self::Nccl,
    ];

    /// File names, the preferred first.
    pub const fn file_names(self) -> &'static [&'static str] {
        match self {
            Self::Driver => &["libcuda.so.1", "libcuda.so"],
            Self::Nvml => &["libnvidia-ml.so.1", "libnvidia-ml.so"],
            Self::Nvrtc => &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"],
            Self::CublasLt => &["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"],
            // Wheels and runtime packages have the first name only.
            Self::Nccl => &["libnccl.so.2", "libnccl.so"],
        }
    }

    /// What to do where it is missing.
    pub const fn fix(self) -> &'static str {
        match self {
            Self::Driver => {
                "install the NVIDIA driver until `nvidia-smi` works, or start the container with \
                 `--gpus all`"
            }
            Self::Nvml => "it comes with the NVIDIA driver: install libnvidia-ml, or nvidia-utils",
            Self::Nvrtc => {
                "`pip install nvidia-cuda-nvrtc` (CUDA 13) or `nvidia-cuda-nvrtc-cu12`, or \
                 install the CUDA toolkit; put a folder that is not found into LAGGARD_CUDA_PATH"
            }
            Self::CublasLt => {
                "`pip install nvidia-cublas` (CUDA 13) or `nvidia-cublas-cu12`, or install the \
                 CUDA toolkit; put a folder that is not found into LAGGARD_CUDA_PATH"
            }
            Self::Nccl => {
                "`pip install nvidia-nccl-cu13` or `nvidia-nccl-cu12`, or install libnccl2; put a \
                 folder that is not found into LAGGARD_CUDA_PATH"
            }
        }
    }

    /// Whether it is a part of the driver, of which there is one per machine.
    const fn is_of_driver(self) -> bool {
        matches!(self, Self::Driver | Self::Nvml)
    }
}

impl fmt::Display for CudaLibrary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Driver => "the CUDA driver (libcuda)",
            Self::Nvml => "NVML (libnvidia-ml)",
            Self::Nvrtc => "NVRTC (libnvrtc)",
            Self::CublasLt => "cuBLASLt (libcublasLt)",
            Self::Nccl => "NCCL (libnccl)",
        })
    }
}

/// One way to load a library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidate {
    /// A file that exists.
    File(PathBuf),
    /// A name that the system's loader looks up: LD_LIBRARY_PATH and the system's folders.
    Name(&'static str),
}

/// What of a process's surroundings says where libraries are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// `LAGGARD_CUDA_PATH`.
    pub named: Option<OsString>,
    /// The folder of the executable.
    pub executable: Option<PathBuf>,
    /// Toolkits: `CUDA_HOME`, `CUDA_PATH`, the usual one.
    pub toolkits: Vec<PathBuf>,
    /// Folders that hold `lib/python3.*`: environments, the prefixes of programs in `PATH`, the
    /// user's own.
    pub prefixes: Vec<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Self {
        let folder = |name: &str| {
            let value = std::env::var_os(name)?;
            (!value.is_empty()).then(|| PathBuf::from(value))
        };
        let programs = std::env::var_os("PATH").unwrap_or_default();
        let programs: Vec<PathBuf> = std::env::split_paths(&programs).collect();
        let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"]
            .into_iter()
            .filter_map(folder);
        let of_programs = programs.iter().filter_map(|path| path.parent());
        let own = folder("HOME").map(|home| home.join(".local"));
        let executable = std::env::current_exe().ok();
        Self {
            named: std::env::var_os(PATH_VARIABLE).filter(|named| !named.is_empty()),
            executable: executable.and_then(|path| path.parent().map(Path::to_owned)),
            toolkits: ["CUDA_HOME", "CUDA_PATH"]
                .into_iter()
                .filter_map(folder)
                .chain([PathBuf::from("/usr/local/cuda")])
                .collect(),
            prefixes: environments
                .chain(own)
                .chain(of_programs.map(Path::to_owned))
                .chain(["/usr/local", "/usr"].map(PathBuf::from))
                .collect(),
        }
    }

    /// Those where only these folders are looked into, and what the system's loader knows.
    pub fn only(folders: &[PathBuf]) -> Self {
        Self {
            named: std::env::join_paths(folders).ok(),
            ..Self::default()
        }
    }

    /// Every way to load a library that is worth trying, the preferred first, none twice.
    pub fn candidates(&self, library: CudaLibrary) -> Vec<Candidate> {
        let named = self.named.iter().flat_map(std::env::split_paths);
        let mut before: Vec<PathBuf> = named.flat_map(|folder| inside(&folder)).collect();
        if let Some(executable) = &self.executable {
            before.push(executable.join("lib"));
            before.push(executable.join("../lib/laggard"));
        }
        let mut after: Vec<PathBuf> = Vec::new();
        if !library.is_of_driver() {
            after.extend(self.toolkits.iter().flat_map(|folder| inside(folder)));
            after.extend(self.prefixes.iter().flat_map(|prefix| of_python(prefix)));
        }
        let names = library.file_names();
        let files = |folders: Vec<PathBuf>| {
            let paths = folders
                .into_iter()
                .flat_map(|folder| names.iter().map(move |name| folder.join(name)));
            paths.filter(|path| path.is_file()).map(Candidate::File)
        };
        let by_name = names.iter().copied().map(Candidate::Name);
        let mut all = Vec::new();
        for candidate in files(before).chain(by_name).chain(files(after)) {
            if !all.contains(&candidate) {
                all.push(candidate);
            }
        }
        all
    }
}

/// The folders of libraries in a folder that may be one itself, a toolkit, or full of wheels.
fn inside(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![
        folder.to_owned(),
        folder.join("lib64"),
        folder.join("lib"),
        folder.join(format!("targets/{}-linux/lib", std::env::consts::ARCH)),
    ];
    found.extend(of_wheels(folder));
    found
}

/// The folders of libraries of wheels: `nvidia/*/lib`, newest CUDA first.
fn of_wheels(packages: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = entries(&packages.join("nvidia"))
        .into_iter()
        .map(|package| package.join("lib"))
        .filter(|lib| lib.is_dir())
        .collect();
    // Wheels of CUDA 13 share a folder called after it; older ones have a folder each.
    found.sort_by_key(|lib| !lib.to_string_lossy().contains("/nvidia/cu1"));
    found
}

fn of_python(prefix: &Path) -> Vec<PathBuf> {
    let is_python = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy());
        name.is_some_and(|name| name.starts_with("python3"))
    };
    let lib = entries(&prefix.join("lib"));
    let packages = lib
        .into_iter()
        .filter(is_python)
        .flat_map(|python| [python.join("site-packages"), python.join("dist-packages")]);
    packages.flat_map(|folder| of_wheels(&folder)).collect()
}

/// What a folder holds, in order of names; nothing where it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    fn files(candidates: Vec<Candidate>) -> Vec<PathBuf> {
        candidates
            .into_iter()
            .filter_map(|candidate| match candidate {
                Candidate::File(path) => Some(path),
                Candidate::Name(_) => None,
            })
            .collect()
    }

    #[test]
    fn what_is_named_comes_first_then_the_loader_then_toolkits_then_wheels() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let nccl = [
            at("named/nvidia/nccl/lib/libnccl.so.2"),
            at("bin/lib/libnccl.so.2"),
            at("toolkit/lib64/libnccl.so"),
            at("env/lib/python3.12/site-packages/nvidia/nccl/lib/libnccl.so.2"),
        ];
        nccl.iter().for_each(|path| touch(path));
        let surroundings = Surroundings {
            named: Some(at("named").into()),
            executable: Some(at("bin")),
            toolkits: vec![at("toolkit"), at("toolkit")],
            prefixes: vec![at("env"), at("nowhere")],
        };
        let candidates = surroundings.candidates(CudaLibrary::Nccl);
        let file = |i: usize| Candidate::File(nccl[i].clone());
        let expect = [
            file(0),
            file(1),
            Candidate::Name("libnccl.so.2"),
            Candidate::Name("libnccl.so"),
            file(2),
            file(3),
        ];
        assert_eq!(candidates, expect);
    }

    #[test]
    fn a_driver_is_not_looked_for_among_toolkits_whose_stubs_do_nothing() {
        let root = tempfile::tempdir().unwrap();
        touch(&root.path().join("lib64/libcuda.so"));
        let surroundings = Surroundings {
            toolkits: vec![root.path().to_owned()],
            ..Surroundings::default()
        };
        assert!(files(surroundings.candidates(CudaLibrary::Driver)).is_empty());
    }

    #[test]
    fn wheels_of_the_newest_cuda_come_first() {
        let root = tempfile::tempdir().unwrap();
        let old = root.path().join("nvidia/cuda_nvrtc/lib/libnvrtc.so.12");
        let new = root.path().join("nvidia/cu13/lib/libnvrtc.so.13");
        touch(&old);
        touch(&new);
        let surroundings = Surroundings::only(&[root.path().to_owned()]);
        assert_eq!(
            files(surroundings.candidates(CudaLibrary::Nvrtc)),
            [new, old]
        );
    }
}
