//! The kernels' sources, which are in `kernels/`, and the modules that they are compiled to: which
//! file, for which element type, with which options. Compiles nothing.

use crate::{Architecture, MapElement, gemm_tma};
use laggard_types::DataType;
use std::fmt;

/// What a buffer of a kernel holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ElementType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl ElementType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// The same type as the rest of laggard names it.
    pub const fn data_type(self) -> DataType {
        match self {
            Self::F32 => DataType::F32,
            Self::F16 => DataType::F16,
            Self::Bf16 => DataType::Bf16,
        }
    }

    const fn option(self) -> &'static str {
        match self {
            Self::F32 => "-DELEMENT_F32",
            Self::F16 => "-DELEMENT_F16",
            Self::Bf16 => "-DELEMENT_BF16",
        }
    }
}

/// Element types that tensor cores multiply with sums in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HalfType {
    /// IEEE half precision.
    F16,
    /// bfloat16; sm_80 and later.
    Bf16,
}

impl HalfType {
    /// The same type among all element types.
    pub const fn element_type(self) -> ElementType {
        match self {
            Self::F16 => ElementType::F16,
            Self::Bf16 => ElementType::Bf16,
        }
    }
}

/// Kernels that are compiled together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Module {
    /// Matrix products on tensor cores: `gemm_nn`, `gemm_nt`, `gemm_tn`, `gemm_tt`, named after
    /// which operand is transposed.
    Gemm(HalfType),
    /// The same, with operands that the copy engine brings and the tensor cores take from shared
    /// memory; sm_90, sm_100 and sm_103. Has to pass its self-check on a device before it is used
    /// there.
    GemmTma(HalfType),
    /// `gemm_nt` of 8-bit operands (E4M3) with results in bf16 or f32; sm_89 and later, by the copy
    /// engine where `GemmTma` is.
    GemmFp8,
    /// `copy`, `triad`, `add`, `fill`.
    Stream(ElementType),
    /// `fill_exact`, `verify_exact`.
    Exact(ElementType),
    /// `layer_norm`.
    Norm(ElementType),
    /// `square_sums`, `sum_squares`.
    Squares(ElementType),
    /// What the others do not take, any address and any mix of one type with f32: `copy_plain`,
    /// `widen`, `narrow`, `add_plain`, `fill_plain`, `adam_plain`, `gemm_plain`.
    Plain(ElementType),
    /// `adam`.
    Adam,
    /// `stamp`, `spin`, `meet_others`.
    Clock,
}

/// A file of `kernels/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name, as compilers print it.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

macro_rules! source_file {
    ($name:literal) => {
        SourceFile {
            name: $name,
            text: include_str!(concat!("../../../kernels/", $name)),
        }
    };
}

/// What modules include.
pub const HEADERS: [SourceFile; 8] = [
    source_file!("ptx.cuh"),
    source_file!("ptx_async.cuh"),
    source_file!("ptx_tensor.cuh"),
    source_file!("element.cuh"),
    source_file!("lot.cuh"),
    source_file!("block_sum.cuh"),
    source_file!("gemm.cuh"),
    source_file!("gemm_tma.cuh"),
];

impl Module {
    /// Every module that a generation can execute.
    pub fn all_on(architecture: Architecture) -> Vec<Self> {
        let mut all = vec![Self::Gemm(HalfType::F16), Self::Adam, Self::Clock];
        if architecture.has_bf16() {
            all.push(Self::Gemm(HalfType::Bf16));
        }
        if architecture.has_fp8() {
            all.push(Self::GemmFp8);
        }
        if gemm_tma::serves(architecture) {
            all.extend([Self::GemmTma(HalfType::F16), Self::GemmTma(HalfType::Bf16)]);
        }
        for element in ElementType::ALL {
            if element != ElementType::Bf16 || architecture.has_bf16() {
                all.extend([
                    Self::Stream(element),
                    Self::Exact(element),
                    Self::Norm(element),
                    Self::Squares(element),
                    Self::Plain(element),
                ]);
            }
        }
        all
    }

    /// The names of its kernels.
    pub const fn entries(self) -> &'static [&'static str] {
        match self {
            Self::Gemm(_) | Self::GemmTma(_) => &["gemm_nn", "gemm_nt", "gemm_tn", "gemm_tt"],
            Self::Stream(_) => &["copy", "triad", "add", "fill"],
            Self::Exact(_) => &["fill_exact", "verify_exact"],
            Self::GemmFp8 => &["gemm_nt"],
            Self::Norm(_) => &["layer_norm"],
            Self::Squares(_) => &["square_sums", "sum_squares"],
            Self::Plain(_) => &[
                "copy_plain",
                "widen",
                "narrow",
                "add_plain",
                "fill_plain",
                "adam_plain",
                "gemm_plain",
            ],
            Self::Adam => &["adam"],
            Self::Clock => &["stamp", "spin", "meet_others"],
        }
    }

    /// The file that it is compiled from.
    pub fn source(self, architecture: Architecture) -> SourceFile {
        match self {
            Self::Gemm(_) if architecture == Architecture::Sm70 => source_file!("gemm_wmma.cu"),
            Self::GemmTma(_) | Self::GemmFp8 if self.uses_copy_engine(architecture) => {
                match architecture {
                    Architecture::Sm90 => source_file!("gemm_wgmma.cu"),
                    _ => source_file!("gemm_tcgen05.cu"),
                }
            }
            Self::Gemm(_) | Self::GemmTma(_) | Self::GemmFp8 => source_file!("gemm_mma.cu"),
            Self::Stream(_) => source_file!("stream.cu"),
            Self::Exact(_) => source_file!("exact.cu"),
            Self::Norm(_) => source_file!("norm.cu"),
            Self::Squares(_) => source_file!("squares.cu"),
            Self::Plain(_) => source_file!("plain.cu"),
            Self::Adam => source_file!("adam.cu"),
            Self::Clock => source_file!("clock.cu"),
        }
    }

    /// The generation as its compiler is told of it: with the instructions that only this one has,
    /// where the module needs them.
    pub fn target(self, architecture: Architecture) -> String {
        if self.uses_copy_engine(architecture) {
            format!("{architecture}a")
        } else {
            architecture.to_string()
        }
    }

    /// What the operands of its products are; `None` if it has none.
    pub(crate) const fn operands(self) -> Option<MapElement> {
        match self {
            Self::Gemm(HalfType::F16) | Self::GemmTma(HalfType::F16) => Some(MapElement::F16),
            Self::Gemm(HalfType::Bf16) | Self::GemmTma(HalfType::Bf16) => Some(MapElement::Bf16),
            Self::GemmFp8 => Some(MapElement::U8),
            _ => None,
        }
    }

    /// Whether it multiplies matrices of an element type on tensor cores.
    pub(crate) fn multiplies(self, operands: ElementType) -> bool {
        match self {
            Self::Gemm(half) | Self::GemmTma(half) => half.element_type() == operands,
            _ => false,
        }
    }

    /// Whether other modules do the same, if slower, so that a device can do without this one.
    pub(crate) fn has_substitute(self) -> bool {
        matches!(
            self,
            Self::Gemm(_) | Self::GemmTma(_) | Self::GemmFp8 | Self::Stream(_) | Self::Adam
        )
    }

    /// Whether its products' operands come by the copy engine.
    pub(crate) fn uses_copy_engine(self, architecture: Architecture) -> bool {
        matches!(self, Self::GemmTma(_) | Self::GemmFp8) && gemm_tma::serves(architecture)
    }

    /// What its compiler is told, besides the generation.
    pub fn options(self, architecture: Architecture) -> Vec<String> {
        let mut options = Vec::new();
        match self {
            Self::Gemm(half) => {
                options.push(half.element_type().option().to_owned());
                options.push(format!("-DSTAGES={}", stages(architecture)));
            }
            Self::GemmTma(half) => {
                options.push(half.element_type().option().to_owned());
                options.push(format!("-DSTAGES={}", gemm_tma::STAGES));
            }
            Self::GemmFp8 => {
                options.push(ElementType::Bf16.option().to_owned());
                options.push("-DOPERANDS_E4M3".to_owned());
                options.push(format!("-DSTAGES={}", stages(architecture)));
            }
            Self::Stream(element)
            | Self::Exact(element)
            | Self::Norm(element)
            | Self::Squares(element)
            | Self::Plain(element) => {
                options.push(element.option().to_owned());
            }
            Self::Adam | Self::Clock => {}
        }
        // Every operation is rounded by itself, as on the CPU, so that results can be compared bit
        // by bit. Tensor cores have their own arithmetic, so that this costs products nothing.
        options.push("--fmad=false".to_owned());
        options
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, element) = match self {
            Self::Gemm(half) => ("gemm", Some(half.element_type())),
            Self::GemmTma(half) => ("gemm tma", Some(half.element_type())),
            Self::GemmFp8 => ("gemm fp8", None),
            Self::Stream(element) => ("stream", Some(*element)),
            Self::Exact(element) => ("exact", Some(*element)),
            Self::Norm(element) => ("norm", Some(*element)),
            Self::Squares(element) => ("squares", Some(*element)),
            Self::Plain(element) => ("plain", Some(*element)),
            Self::Adam => ("adam", None),
            Self::Clock => ("clock", None),
        };
        f.write_str(name)?;
        match element {
            Some(element) => write!(f, " {}", element.data_type().name()),
            None => Ok(()),
        }
    }
}

/// How many slices of both operands wait in shared memory: as many as fit into that of every
/// generation but sm_75, which has room for two.
pub(crate) fn stages(architecture: Architecture) -> u32 {
    if architecture == Architecture::Sm75 {
        2
    } else {
        4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_in_the_source_of_every_generation() {
        for architecture in Architecture::ALL {
            for module in Module::all_on(architecture) {
                let mut text = module.source(architecture).text.to_owned();
                // All that it has stands in the header.
                if text.contains("TMA_ENTRIES") {
                    text += source_file!("gemm_tma.cuh").text;
                }
                for entry in module.entries() {
                    let is_there = [format!(" {entry}("), format!("ENTRY({entry},")]
                        .iter()
                        .any(|form| text.contains(form.as_str()));
                    assert!(is_there, "{entry} of {module} on {architecture}");
                }
            }
        }
    }

    #[test]
    fn every_include_is_a_header() {
        let mut seen = 0;
        let modules = Module::all_on(Architecture::Sm70)
            .into_iter()
            .map(|module| module.source(Architecture::Sm70))
            .chain(
                Module::all_on(Architecture::Sm90)
                    .into_iter()
                    .map(|module| module.source(Architecture::Sm90)),
            )
            .chain(HEADERS);
        for file in modules {
            for line in file.text.lines() {
                let Some(name) = line.strip_prefix("#include ") else {
                    continue;
                };
                let name = name.trim_matches('"');
                assert!(HEADERS.iter().any(|header| header.name == name), "{name}");
                seen += 1;
            }
        }
        assert!(seen > 0, "nothing includes anything");
    }
}
