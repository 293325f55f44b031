//! Kernels compiled for this machine's processor, with `ptx.cuh` of this folder in the place of the
//! one that is for GPUs, and launched as a GPU would be.

use laggard_cuda::{
    Architecture, Argument, CudaError, GemmArguments, HEADERS, KernelLaunch, Launcher, Module,
    TensorMap,
};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

const MACHINE: &str = include_str!("machine.cuh");
const PTX: &str = include_str!("ptx.cuh");
const PTX_ASYNC: &str = include_str!("ptx_async.cuh");
const PTX_TENSOR: &str = include_str!("ptx_tensor.cuh");
const LAUNCHER: &str = include_str!("launcher.cpp");

/// The kernels of one module, and how they are executed.
pub(crate) struct Machine {
    program: PathBuf,
    architecture: Architecture,
    order: Order,
    defect: u32,
}

/// A mistake that a kernel could have: what stands in its source, and what stood there instead.
#[derive(Debug)]
pub(crate) enum Defect {
    /// Of statements.
    Statement(&'static str, &'static str),
    /// Of an expression.
    Expression(&'static str, &'static str),
}

impl Defect {
    /// Puts the mistake into a source, where it is made if the launch says its number.
    fn put(&self, number: usize, source: &str) -> String {
        let (from, to) = match self {
            Self::Statement(right, wrong) => (
                right,
                format!("if (machine.defect == {number}) {{ {wrong} }} else {{ {right} }}"),
            ),
            Self::Expression(right, wrong) => (
                right,
                format!("(machine.defect == {number} ? ({wrong}) : ({right}))"),
            ),
        };
        source.replace(from, &to)
    }
}

/// In which order threads run and copies arrive: what a GPU leaves open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    /// Threads run from the last to the first.
    pub(crate) backwards: bool,
    /// Copies arrive when they begin, and not when they are waited for.
    pub(crate) early: bool,
    /// If not 0, threads and whatever the hardware does by itself take turns at random; the number
    /// begins the sequence.
    pub(crate) random: u32,
}

impl Machine {
    /// Compiles a module; what was compiled before is used again.
    pub(crate) fn new(
        module: Module,
        architecture: Architecture,
        order: Order,
    ) -> Result<Self, String> {
        Self::with_defects(module, architecture, order, &[])
    }

    /// The same with mistakes, of which none is made until [`Machine::make`].
    pub(crate) fn with_defects(
        module: Module,
        architecture: Architecture,
        order: Order,
        defects: &[Defect],
    ) -> Result<Self, String> {
        /// Tests that want the same program wait for the first that builds it.
        static BUILDING: Mutex<()> = Mutex::new(());
        let _turn = BUILDING.lock().map_err(|error| error.to_string())?;
        let file = module.source(architecture);
        let mut files = vec![
            ("machine.cuh", MACHINE.to_owned()),
            ("ptx.cuh", PTX.to_owned()),
            ("ptx_async.cuh", PTX_ASYNC.to_owned()),
            ("ptx_tensor.cuh", PTX_TENSOR.to_owned()),
            ("launcher.cpp", LAUNCHER.to_owned()),
        ];
        for source in HEADERS.into_iter().chain([file]) {
            if !source.name.starts_with("ptx") {
                files.push((source.name, without_memory_spaces(source.text)));
            }
        }
        for (number, defect) in (1..).zip(defects) {
            let before = files.clone();
            for (_, text) in &mut files[5..] {
                *text = defect.put(number, text);
            }
            assert!(files != before, "defect {number} has no place");
        }
        let entries: String = module
            .entries()
            .iter()
            .map(|name| format!("E({name}) "))
            .collect();
        let mut options = vec![
            "-std=c++17".to_owned(),
            "-O1".to_owned(),
            "-w".to_owned(),
            // As the GPU's compiler is told: every operation is rounded by itself.
            "-ffp-contract=off".to_owned(),
            // Its check of jumps knows nothing of several stacks.
            "-U_FORTIFY_SOURCE".to_owned(),
            format!("-DKERNEL_FILE=\"{}\"", file.name),
            format!("-DENTRIES={entries}"),
        ];
        let own = module.options(architecture).into_iter();
        options.extend(own.filter(|option| option.starts_with("-D")));
        match module {
            Module::Gemm(_) | Module::Plain(_) => options.push("-DOF_PRODUCTS".to_owned()),
            Module::GemmTma(_) => options.push("-DOF_TMA_PRODUCTS".to_owned()),
            Module::GemmFp8 => options.push(match architecture {
                Architecture::Sm90 | Architecture::Sm100 => "-DOF_TMA_PRODUCTS".to_owned(),
                _ => "-DOF_PRODUCTS".to_owned(),
            }),
            _ => {}
        }
        let mut hash = DefaultHasher::new();
        (&files, &options).hash(&mut hash);
        let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulator");
        let folder = base.join(format!("{:016x}", hash.finish()));
        let program = folder.join("launcher");
        if !program.is_file() {
            build(&folder, &files, &options)?;
        }
        Ok(Self {
            program,
            architecture,
            order,
            defect: 0,
        })
    }

    /// The same machine in another order, making the mistake of this number, from 1.
    pub(crate) fn make(&self, defect: u32, order: Order) -> Self {
        Self {
            program: self.program.clone(),
            architecture: self.architecture,
            order,
            defect,
        }
    }
}

impl Launcher for Machine {
    fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// Few, so that each block has several turns.
    fn multiprocessors(&self) -> u32 {
        2
    }

    fn launch(
        &self,
        launch: &KernelLaunch,
        buffers: &[Vec<u8>],
    ) -> Result<Vec<Vec<u8>>, CudaError> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("few");
        let mut input = Vec::new();
        for number in [
            u32::from(self.order.backwards),
            u32::from(self.order.early),
            self.order.random,
            self.defect,
            launch.blocks,
            launch.threads,
            launch.shared_bytes,
            u32::try_from(buffers.len()).expect("few buffers"),
        ] {
            input.extend(number.to_le_bytes());
        }
        for buffer in buffers {
            input.extend((buffer.len() as u64).to_le_bytes());
            input.extend(buffer);
        }
        input.extend(length(launch.entry.as_bytes()).to_le_bytes());
        input.extend(launch.entry.as_bytes());
        for argument in &launch.arguments {
            match argument {
                Argument::Buffer(value) | Argument::U32(value) => {
                    input.extend(u64::from(*value).to_le_bytes());
                }
                Argument::U64(value) => input.extend(value.to_le_bytes()),
                Argument::F32(value) => input.extend(u64::from(value.to_bits()).to_le_bytes()),
                Argument::Product(product) => input.extend(bytes(product)),
                Argument::TmaProduct(product) => {
                    for map in [product.a, product.b, product.c] {
                        input.extend(map_bytes(&map));
                    }
                    // To the alignment of the maps.
                    input.extend(bytes(&product.product));
                    input.resize(input.len() + 128 - size_of::<GemmArguments>(), 0);
                }
            }
        }
        let output = run(&self.program, &input).map_err(|why| CudaError::Launch {
            entry: launch.entry,
            why,
        })?;
        let mut rest = output.as_slice();
        let part = |buffer: &Vec<u8>| {
            let (part, after) = rest.split_at(buffer.len());
            rest = after;
            part.to_vec()
        };
        Ok(buffers.iter().map(part).collect())
    }
}

/// The struct as it lies in memory.
fn bytes(g: &GemmArguments) -> Vec<u8> {
    let addresses = [g.a, g.b, g.c].into_iter().flat_map(u64::to_le_bytes);
    let sizes = [
        g.rows, g.columns, g.depth, g.stride_a, g.stride_b, g.stride_c,
    ];
    let rest = sizes.into_iter().chain([g.scale.to_bits(), g.flags]);
    addresses.chain(rest.flat_map(u32::to_le_bytes)).collect()
}

/// `TensorMap` of `ptx_async.cuh` of this folder.
fn map_bytes(map: &TensorMap) -> Vec<u8> {
    let sizes = [
        map.columns,
        map.rows,
        map.box_columns,
        map.box_rows,
        map.element.bytes(),
    ];
    let mut bytes = Vec::new();
    bytes.extend(map.address.to_le_bytes());
    bytes.extend(map.row_bytes.to_le_bytes());
    bytes.extend(sizes.into_iter().flat_map(u32::to_le_bytes));
    bytes.resize(128, 0);
    bytes
}

fn run(program: &Path, input: &[u8]) -> Result<Vec<u8>, String> {
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the launcher starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    // It reads all before it writes anything. What it leaves unread, its own words explain.
    let written = pipe.write_all(input);
    drop(pipe);
    let output = child.wait_with_output().expect("the launcher ends");
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", output.status, words.trim()));
    }
    written.expect("all was read");
    Ok(output.stdout)
}

/// Shared memory between kernels' launches is one array here, and what a block declares is static.
fn without_memory_spaces(text: &str) -> String {
    text.replace("extern __shared__", "extern")
        .replace("__shared__", "static")
}

fn build(folder: &Path, files: &[(&str, String)], options: &[String]) -> Result<(), String> {
    let fresh = folder.with_extension(std::process::id().to_string());
    std::fs::create_dir_all(&fresh).map_err(|error| error.to_string())?;
    for (name, text) in files {
        std::fs::write(fresh.join(name), text).map_err(|error| error.to_string())?;
    }
    let output = Command::new("c++")
        .args(options)
        .args(["-o", "launcher", "launcher.cpp"])
        .current_dir(&fresh)
        .output()
        .map_err(|error| {
            format!("kernels are not executed without a C++ compiler: c++: {error}")
        })?;
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "c++ {}: {words}",
        options.join(" ")
    );
    match std::fs::rename(&fresh, folder) {
        Ok(()) => Ok(()),
        // Another process was quicker, with the same program.
        Err(_) if folder.join("launcher").is_file() => {
            std::fs::remove_dir_all(&fresh).map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    }
}
