//! Every kernel, compiled for every generation and inspected, without a GPU. Needs NVRTC, and
//! NVIDIA's disassembler, in `target/cuda-wheels` (`scripts/cuda_wheels.sh`), `LAGGARD_CUDA_PATH`
//! or the system; without them these tests say so and pass, unless `LAGGARD_REQUIRE` holds `cuda`.

#![expect(clippy::print_stderr, reason = "a test that skips says so")]

mod inspection;

use inspection::{Disassembler, Kernel, opcodes};
use laggard_cuda::{
    Architecture, Compiler, CubinCache, CudaError, CudaLibrary, DeviceMatrix, ElementType,
    HalfType, Module, Outcome, Place, Product, ResultType, Source, Surroundings,
};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where `scripts/cuda_wheels.sh` puts them.
fn wheels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/cuda-wheels")
}

fn surroundings() -> Surroundings {
    let mut surroundings = Surroundings::of_process();
    surroundings.named = surroundings.named.or_else(|| Some(wheels().into()));
    surroundings
}

/// What is there, or `None` after saying what is not.
fn or_skip<T>(found: Result<T, String>) -> Option<T> {
    let required = std::env::var("LAGGARD_REQUIRE").unwrap_or_default();
    let is_required = required.split(',').any(|word| word == "cuda");
    match found {
        Ok(found) => Some(found),
        Err(gap) => {
            assert!(!is_required, "{gap}\nand LAGGARD_REQUIRE asks for cuda");
            eprintln!("SKIPPED: {gap}\nhint: scripts/cuda_wheels.sh fetches what is missing");
            None
        }
    }
}

fn compiler() -> Option<Compiler> {
    let cache = CubinCache::in_folder(Path::new(env!("CARGO_TARGET_TMPDIR")).join("cubins"));
    let opened = Compiler::open(&surroundings(), Some(cache), None);
    or_skip(opened.map_err(|error| error.to_string()))
}

/// Applies a check to the modules that are wanted, of every generation that there is a compiler
/// for, with all processors.
fn for_every_cubin(
    compiler: &Compiler,
    is_wanted: impl Fn(&Module) -> bool,
    check: impl Fn(Module, Architecture, &[u8]) + Sync,
) {
    let served = Architecture::ALL.into_iter().filter(|architecture| {
        or_skip(compiler.nvrtc_for(*architecture).map_err(|e| e.to_string())).is_some()
    });
    let work: Vec<(Module, Architecture)> = served
        .flat_map(|architecture| {
            let modules = Module::all_on(architecture).into_iter();
            let wanted = modules.filter(|module| is_wanted(module));
            wanted.map(move |module| (module, architecture))
        })
        .collect();
    assert!(!work.is_empty(), "there is nothing to compile");
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((module, architecture)) =
                    work.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let cubin = compiler.cubin(*module, *architecture);
                    let cubin = cubin.unwrap_or_else(|error| panic!("{error}"));
                    check(*module, *architecture, &cubin);
                }
            });
        }
    });
}

/// Threads of a block, and shared memory that it gets at the launch.
fn block(module: Module, architecture: Architecture) -> (u32, u32) {
    if !is_product(&module) {
        // What launches will have at most.
        return (1024, 0);
    }
    // No matter which shape.
    let matrix = DeviceMatrix {
        address: 0,
        rows: 64,
        columns: 64,
        row_stride: 64,
    };
    let product = Product {
        a: matrix,
        transpose_a: laggard_backend::Transpose::No,
        b: matrix,
        transpose_b: laggard_backend::Transpose::Yes,
        c: matrix,
        result: ResultType::Half,
        scale: 1.0,
        accumulate: false,
    };
    let place = Place {
        architecture,
        multiprocessors: 1,
    };
    let launch = product.launch(module, place).expect("a product of squares");
    (launch.threads, launch.shared_bytes)
}

fn check_resources(module: Module, architecture: Architecture, kernel: &Kernel) {
    let what = format!("{} of {module} on {architecture}: {kernel:?}", kernel.name);
    let (threads, dynamic_bytes) = block(module, architecture);
    assert_eq!((kernel.stack_bytes, kernel.local_bytes), (0, 0), "{what}");
    assert!(kernel.registers <= Architecture::MOST_REGISTERS, "{what}");
    // Registers are given to warps in lots of 8 per thread.
    let registers = kernel.registers.next_multiple_of(8) * threads;
    assert!(registers <= Architecture::BLOCK_REGISTERS, "{what}");
    let shared_bytes = kernel.shared_bytes + dynamic_bytes;
    assert!(shared_bytes <= architecture.shared_bytes(), "{what}");
}

#[test]
fn every_kernel_fits_every_generation() {
    let Some(compiler) = compiler() else { return };
    let Some(tools) = or_skip(Disassembler::find(&wheels())) else {
        return;
    };
    let seen = Mutex::new(0);
    for_every_cubin(
        &compiler,
        |_| true,
        |module, architecture, cubin| {
            let kernels = tools.kernels(cubin);
            let mut names: Vec<&str> = kernels.iter().map(|kernel| kernel.name.as_str()).collect();
            let mut expected = module.entries().to_vec();
            names.sort_unstable();
            expected.sort_unstable();
            assert_eq!(names, expected, "{module} on {architecture}");
            for kernel in &kernels {
                check_resources(module, architecture, kernel);
            }
            *seen.lock().expect("no panic") += kernels.len();
        },
    );
    eprintln!("inspected {} kernels", seen.into_inner().expect("no panic"));
}

/// What a product's kernel must be made of: the tensor cores' instruction, and how often it stands
/// there, the loop over slices being the only one of it.
fn tensor_instruction(module: Module, architecture: Architecture) -> (&'static str, usize) {
    // A warp's 64 x 64 x 32 in steps of 16 x 8 x 16, or of 16 x 8 x 8; of 8-bit operands,
    // 64 x 64 x 64 in steps of 16 x 8 x 32.
    match (architecture, module) {
        (Architecture::Sm75, _) => ("HMMA.1688.F32", 128),
        (_, Module::GemmFp8) => ("QMMA.16832.F32.E4M3.E4M3", 64),
        (_, Module::Gemm(HalfType::Bf16)) => ("HMMA.16816.F32.BF16", 64),
        _ => ("HMMA.16816.F32", 64),
    }
}

fn is_product(module: &Module) -> bool {
    matches!(
        module,
        Module::Gemm(_) | Module::GemmTma(_) | Module::GemmFp8
    )
}

/// Of the others, what they take shows that they spill nothing.
#[test]
fn products_run_on_tensor_cores_and_spill_nothing() {
    let Some(compiler) = compiler() else { return };
    let Some(tools) = or_skip(Disassembler::find(&wheels())) else {
        return;
    };
    let by_warps = |module: &Module| matches!(module, Module::Gemm(_) | Module::GemmFp8);
    for_every_cubin(&compiler, by_warps, |module, architecture, cubin| {
        match (architecture, module) {
            (Architecture::Sm70, _) => return check_volta(module, cubin),
            // See the next two tests.
            (Architecture::Sm90 | Architecture::Sm100 | Architecture::Sm103, Module::GemmFp8) => {
                return;
            }
            _ => {}
        }
        let kernels = tools.instructions(cubin);
        assert_eq!(kernels.len(), module.entries().len());
        for (kernel, instructions) in kernels {
            let what = format!("{kernel} of {module} on {architecture}");
            let count = |name: &str| instructions.iter().filter(|found| *found == name).count();
            let begins = |start: &str| instructions.iter().any(|found| found.starts_with(start));
            let (name, times) = tensor_instruction(module, architecture);
            assert_eq!(count(name), times, "{what} has another number of {name}");
            // Operands are to be loaded to where tensor cores take them, not moved there.
            let is_tensor = |found: &String| found == name;
            let first = instructions.iter().position(is_tensor).unwrap_or_default();
            let last = instructions.iter().rposition(is_tensor).unwrap_or_default();
            let is_move = |found: &&String| found.contains("MOV");
            let moves = instructions[first..=last].iter().filter(is_move).count();
            assert!(moves <= times / 4, "{what} moves {moves} registers");
            assert!(begins("LDSM"), "{what} loads no matrices");
            let copies = begins("LDGSTS");
            assert_eq!(copies, architecture >= Architecture::Sm80, "{what}");
            assert!(!begins("LDL") && !begins("STL"), "{what} spills");
        }
    });
}

/// Of some generations.
fn is_fed_by_copies(module: &Module) -> bool {
    matches!(module, Module::GemmTma(_) | Module::GemmFp8)
}

/// Kernels that the copy engine feeds: each product's loop is four instructions that nothing waits
/// between, operands and results pass by the copy engine, and warps share registers unevenly.
#[test]
fn products_of_warpgroups_are_not_taken_apart() {
    let Some(compiler) = compiler() else { return };
    let Some(tools) = or_skip(Disassembler::find(&wheels())) else {
        return;
    };
    for_every_cubin(
        &compiler,
        is_fed_by_copies,
        |module, architecture, cubin| {
            if architecture != Architecture::Sm90 {
                return;
            }
            let name = match module {
                Module::GemmTma(HalfType::F16) => "HGMMA.64x256x16.F32",
                Module::GemmFp8 => "QGMMA.64x256x32.F32.E4M3.E4M3",
                _ => "HGMMA.64x256x16.F32.BF16",
            };
            for (kernel, instructions) in tools.instructions(cubin) {
                let what = format!("{kernel} of {module} on {architecture}");
                let is_product = |found: &String| found.contains("GMMA.");
                let first = instructions.iter().position(is_product).expect("products");
                let last = instructions.iter().rposition(is_product).expect("products");
                let body = &instructions[first..=last];
                let products: Vec<_> = body.iter().filter(|found| is_product(found)).collect();
                assert_eq!(products, vec![name; 4], "{what}");
                // Waits and moves are what its compiler inserts where it cannot follow a kernel.
                let stands = |start: &str| body.iter().any(|found| found.starts_with(start));
                assert!(!stands("WARPGROUP"), "{what} waits between products");
                let moves = body.iter().filter(|found| found.contains("MOV")).count();
                assert!(moves < 32, "{what} moves {moves} registers of 128 sums");
                for start in ["UTMALDG.2D", "UTMASTG.2D", "USETMAXREG", "SYNCS"] {
                    let is_there = instructions.iter().any(|found| found.starts_with(start));
                    assert!(is_there, "{what} has no {start}");
                }
                let spills = |found: &String| found.starts_with("LDL") || found.starts_with("STL");
                assert!(!instructions.iter().any(spills), "{what} spills");
            }
        },
    );
}

/// The same where one thread has tensor cores multiply: four instructions, and sums are read from
/// tensor memory.
#[test]
fn products_of_tensor_memory_use_it() {
    let Some(compiler) = compiler() else { return };
    let Some(tools) = or_skip(Disassembler::find(&wheels())) else {
        return;
    };
    for_every_cubin(
        &compiler,
        is_fed_by_copies,
        |module, architecture, cubin| {
            if !matches!(architecture, Architecture::Sm100 | Architecture::Sm103) {
                return;
            }
            let name = match module {
                Module::GemmFp8 => "UTCQMMA",
                _ => "UTCHMMA",
            };
            for (kernel, instructions) in tools.instructions(cubin) {
                let what = format!("{kernel} of {module} on {architecture}");
                let count = |start: &str| {
                    let begins = |found: &&String| found.starts_with(start);
                    instructions.iter().filter(begins).count()
                };
                assert_eq!(count(name), 4, "{what}");
                for start in ["UTMALDG.2D", "UTMASTG.2D", "UTCBAR", "LDTM.x32", "SYNCS"] {
                    assert!(count(start) > 0, "{what} has no {start}");
                }
                assert_eq!((count("LDL"), count("STL")), (0, 0), "{what} spills");
            }
        },
    );
}

/// Today's disassemblers refuse sm_70, so its instructions are told apart by their opcodes, the
/// lowest 12 bits of each 16 bytes: HMMA.884 is 0x236, LDL 0x983, STL 0x387.
fn check_volta(module: Module, cubin: &[u8]) {
    for entry in module.entries() {
        let opcodes = opcodes(cubin, entry);
        let count = |opcode: u16| opcodes.iter().filter(|found| **found == opcode).count();
        // A warp's 64 x 32 x 32 in steps of 16 x 16 x 16, each of 16 instructions.
        assert_eq!(count(0x236), 256, "{entry} has another number of HMMA.884");
        assert_eq!((count(0x983), count(0x387)), (0, 0), "{entry} spills");
    }
}

#[test]
fn every_nvrtc_compiles_the_same_modules() {
    let Some(compiler) = compiler() else { return };
    for nvrtc in compiler.nvrtcs() {
        // Hopper is known to all of them. The other tests compile everything once.
        let architecture = Architecture::Sm90;
        assert!(nvrtc.knows(architecture), "{}", nvrtc.path().display());
        let modules = [
            Module::Adam,
            Module::Norm(ElementType::Bf16),
            Module::GemmTma(HalfType::Bf16),
        ];
        for module in modules {
            let file = module.source(architecture);
            let source = Source {
                name: file.name,
                text: file.text,
                target: module.target(architecture),
                options: module.options(architecture),
            };
            let cubin = nvrtc.compile(&source, architecture);
            let cubin = cubin.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(cubin[..4], *b"\x7fELF", "{module} by {}", nvrtc.version());
        }
    }
}

#[test]
fn a_mistake_is_reported_with_file_line_and_generation() {
    let Some(compiler) = compiler() else { return };
    let source = Source {
        name: "wrong.cu",
        text: "#include \"ptx.cuh\"\n\nextern \"C\" __global__ void wrong(u32* to) {\n    *to = \
               nothing;\n}\n",
        target: Architecture::Sm90.to_string(),
        options: Vec::new(),
    };
    let error = compiler.compiled(&source, Architecture::Sm90).unwrap_err();
    let text = error.to_string();
    for part in ["wrong.cu(4)", "nothing", "sm_90", "NVRTC"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn code_that_no_driver_here_could_load_is_refused() {
    let opened = Compiler::open(&surroundings(), None, Some(10));
    let Some(compiler) = or_skip(opened.map_err(|error| error.to_string())) else {
        return;
    };
    let error = compiler
        .cubin(Module::Adam, Architecture::Sm90)
        .unwrap_err();
    assert!(matches!(error, CudaError::NoCompiler { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("newer than the driver") && text.contains("hint: "),
        "{text}"
    );
}

#[test]
fn what_a_generation_lacks_is_refused() {
    let Some(compiler) = compiler() else { return };
    let bf16 = Module::Gemm(HalfType::Bf16);
    let error = compiler.cubin(bf16, Architecture::Sm75).unwrap_err();
    assert_eq!(
        error.to_string(),
        "sm_75 does not have what module gemm bf16 needs"
    );
}

#[test]
fn wheels_are_found_where_they_are() {
    let surroundings = Surroundings::only(&[wheels()]);
    let findings = laggard_cuda::probe(&surroundings);
    for (library, folder) in [
        (CudaLibrary::Nvrtc, "nvidia/cu13/lib"),
        (CudaLibrary::Nccl, "nvidia/nccl/lib"),
    ] {
        let folder = wheels().join(folder);
        if or_skip(
            folder
                .read_dir()
                .map_err(|error| format!("{folder:?}: {error}")),
        )
        .is_none()
        {
            continue;
        }
        let found = findings.iter().find(|finding| finding.library == library);
        match &found.expect("a finding of every library").outcome {
            Outcome::Usable { path, version } => {
                assert!(path.starts_with(&folder), "{}", path.display());
                let major = version.split('.').next();
                assert!(matches!(major, Some("13" | "2")), "{library} {version}");
            }
            other => panic!("{library}: {other:?}"),
        }
    }
}

#[test]
fn nothing_is_compiled_twice_and_damage_is_repaired() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = CubinCache::in_folder(folder.path());
    let opened = Compiler::open(&surroundings(), Some(cache), None);
    let Some(compiler) = or_skip(opened.map_err(|error| error.to_string())) else {
        return;
    };
    let compile = |architecture| {
        let cubin = compiler.cubin(Module::Clock, architecture);
        cubin.unwrap_or_else(|error| panic!("{error}"))
    };
    let files = || -> Vec<(PathBuf, std::time::SystemTime)> {
        let entries = folder.path().read_dir().expect("a folder").flatten();
        let written = |path: PathBuf| {
            let metadata = path.metadata().expect("a file");
            (path, metadata.modified().expect("a time"))
        };
        entries.map(|entry| written(entry.path())).collect()
    };
    let first = compile(Architecture::Sm90);
    let after_first = files();
    assert_eq!(after_first.len(), 1);
    assert_eq!(compile(Architecture::Sm90), first);
    assert_eq!(files(), after_first, "it was compiled again");
    assert_ne!(compile(Architecture::Sm80), first);
    assert_eq!(files().len(), 2);
    std::fs::write(&after_first[0].0, "damaged").expect("a file");
    assert_eq!(compile(Architecture::Sm90), first);
}
