//! What a cubin holds: by `cuobjdump` and `nvdisasm` of the CUDA toolkit, and from its bytes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What one kernel takes.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) registers: u32,
    pub(crate) stack_bytes: u32,
    pub(crate) shared_bytes: u32,
    pub(crate) local_bytes: u32,
}

/// NVIDIA's tools.
pub(crate) struct Disassembler {
    path: std::ffi::OsString,
}

impl Disassembler {
    /// Those of the wheels, else those in `PATH`.
    pub(crate) fn find(wheels: &Path) -> Result<Self, String> {
        let folder = wheels.join("nvidia/cu13/bin");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = [folder]
            .into_iter()
            .chain(std::env::split_paths(&path))
            .collect();
        for tool in ["cuobjdump", "nvdisasm"] {
            if !folders.iter().any(|folder| folder.join(tool).is_file()) {
                return Err(format!("{tool} not found, so that no kernel is inspected"));
            }
        }
        let path = std::env::join_paths(folders).map_err(|error| error.to_string())?;
        Ok(Self { path })
    }

    fn dump(&self, option: &str, cubin: &[u8]) -> String {
        let mut file = tempfile::Builder::new()
            .suffix(".cubin")
            .tempfile()
            .expect("a temporary file");
        file.write_all(cubin).expect("room for a cubin");
        // Found by this PATH and not this process's.
        let output = Command::new("env")
            .env("PATH", &self.path)
            .args(["cuobjdump", option])
            .arg(file.path())
            .output()
            .expect("cuobjdump starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "cuobjdump {option}: {text}{errors}"
        );
        text
    }

    /// Every kernel of a cubin.
    pub(crate) fn kernels(&self, cubin: &[u8]) -> Vec<Kernel> {
        let text = self.dump("--dump-resource-usage", cubin);
        let mut kernels = Vec::new();
        let mut name = None;
        for line in text.lines().map(str::trim) {
            if let Some(found) = line.strip_prefix("Function ") {
                name = Some(found.trim_end_matches(':').to_owned());
            } else if let Some(name) = name.take() {
                kernels.push(kernel(name, line));
            }
        }
        kernels
    }

    /// The names of every kernel's instructions, with their modifiers.
    pub(crate) fn instructions(&self, cubin: &[u8]) -> Vec<(String, Vec<String>)> {
        let text = self.dump("--dump-sass", cubin);
        let mut kernels: Vec<(String, Vec<String>)> = Vec::new();
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("Function : ") {
                kernels.push((name.to_owned(), Vec::new()));
            } else if let Some((_, instructions)) = kernels.last_mut() {
                instructions.extend(instruction(line));
            }
        }
        assert!(!kernels.is_empty(), "no kernels in:\n{text}");
        kernels
    }
}

/// `REG:20 STACK:0 SHARED:0 LOCAL:0 ...`
fn kernel(name: String, line: &str) -> Kernel {
    let number = |key: &str| {
        let found = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix(key));
        let found = found.unwrap_or_else(|| panic!("no {key} in {line}"));
        found.parse().expect("a number")
    };
    Kernel {
        name,
        registers: number("REG:"),
        stack_bytes: number("STACK:"),
        shared_bytes: number("SHARED:"),
        local_bytes: number("LOCAL:"),
    }
}

/// `/*0010*/ @!P0 IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ; /* 0x... */`
fn instruction(line: &str) -> Option<String> {
    let rest = line.strip_prefix("/*")?;
    let (address, rest) = rest.split_once("*/")?;
    u64::from_str_radix(address, 16).ok()?;
    let mut words = rest.split_whitespace();
    let first = words.next()?;
    let name = if first.starts_with('@') {
        words.next()?
    } else {
        first
    };
    (name != "/*").then(|| name.trim_end_matches(';').to_owned())
}

/// The opcodes of a kernel, from the section of an ELF file that holds it.
pub(crate) fn opcodes(cubin: &[u8], entry: &str) -> Vec<u16> {
    let section = section(cubin, &format!(".text.{entry}"));
    let section = section.unwrap_or_else(|| panic!("no {entry} in the cubin"));
    let low = |instruction: &[u8]| u16::from_le_bytes([instruction[0], instruction[1]]) & 0xfff;
    section.chunks_exact(16).map(low).collect()
}

/// A section of an ELF file of 64 bits, by its name (System V ABI, "Sections").
fn section<'a>(file: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    let number = |at: usize, bytes: usize| {
        let mut value = [0; 8];
        value[..bytes].copy_from_slice(&file[at..at + bytes]);
        usize::try_from(u64::from_le_bytes(value)).expect("an offset")
    };
    let (table, count, names) = (number(40, 8), number(60, 2), number(62, 2));
    let header = |index: usize| table + index * 64;
    let bytes = |index: usize| {
        let (offset, size) = (number(header(index) + 24, 8), number(header(index) + 32, 8));
        &file[offset..offset + size]
    };
    let name = |index: usize| {
        let text = &bytes(names)[number(header(index), 4)..];
        text.split(|byte| *byte == 0).next().unwrap_or_default()
    };
    (0..count)
        .find(|index| name(*index) == wanted.as_bytes())
        .map(bytes)
}
