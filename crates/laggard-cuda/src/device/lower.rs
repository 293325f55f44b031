//! From kernels as the rest of laggard knows them to launches on this device: which of several
//! kernels an operation's types and addresses allow, and how large its grid is. Knows addresses as
//! numbers and puts nothing on a stream.

use crate::{
    Argument, DeviceMatrix, ElementType, GemmArguments, KernelLaunch, Module, Place, Product,
    ResultType,
};
use half::{bf16, f16};
use laggard_backend::squares::segment_len;
use laggard_backend::{BackendError, Kernel, Matrix, Repeats, Slice, Task, Transpose};
use laggard_types::DataType;

/// What is put on a stream for a kernel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// One launch, with addresses in the place of buffers' numbers.
    Launch(KernelLaunch),
    /// A product that tensor cores compute, by whichever engine.
    Product(Product, ElementType),
}

/// Threads of a block of the kernels that go through memory once.
const THREADS: u32 = 256;
/// Elements for each of these threads, so that a launch is worth its while.
const ELEMENTS_PER_THREAD: u64 = 8;
/// Blocks of these for each multiprocessor: as many as are resident at a time on every generation.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 8;
/// Rows and columns that a block of `gemm_plain` computes.
const PLAIN_TILE: u32 = 16;
/// Blocks of a launch, along x (CUDA C++ Programming Guide, "Compute Capabilities").
const MOST_BLOCKS: u32 = i32::MAX.unsigned_abs();
/// Where the sums of a norm's segments begin in the scratch memory: behind what a repetition
/// writes.
const SUMS_AT: usize = ALIGNMENT as usize;
/// Bits of `flags`, as `kernels/plain.cu` reads them.
const ACCUMULATE: u32 = 1;
const RESULT_IS_F32: u32 = 2;
const TRANSPOSE_A: u32 = 4;
const TRANSPOSE_B: u32 = 8;
/// What fast kernels want of addresses.
const ALIGNMENT: u64 = 16;

/// The type of this crate for an element type that kernels compute in.
pub(crate) fn element_type(data_type: DataType) -> Option<ElementType> {
    let mut all = ElementType::ALL.into_iter();
    all.find(|element| element.data_type() == data_type)
}

/// Bytes that a task writes to beside its results: what its repetitions write, and sums on the way
/// to a norm.
pub(crate) fn scratch_bytes(task: &Task) -> usize {
    let has_repeats = Repeats::of(task.work_scale).any();
    let of_kernel = |kernel: &Kernel| match kernel {
        Kernel::SquaredNorm { from, .. } => {
            SUMS_AT + segments(from).unwrap_or(0) * size_of::<f64>()
        }
        _ if !has_repeats => 0,
        Kernel::Adam { parameters, .. } => 3 * padded(parameters.len) * size_of::<f32>(),
        kernel => {
            let bytes = |slice: &Slice| slice.len * slice.data_type().size_bytes();
            kernel.writes().map(bytes).max().unwrap_or(0)
        }
    };
    task.kernels.iter().map(of_kernel).max().unwrap_or(0)
}

/// Segments whose squares a norm adds up; `None` for a type that no kernel takes.
fn segments(from: &Slice) -> Option<usize> {
    let len = match element_type(from.data_type())? {
        ElementType::F32 => segment_len::<f32>(),
        ElementType::F16 => segment_len::<f16>(),
        ElementType::Bf16 => segment_len::<bf16>(),
    };
    Some(from.len.div_ceil(len))
}

/// So many elements of f32 that what follows is aligned.
fn padded(len: usize) -> usize {
    len.next_multiple_of(ALIGNMENT as usize / size_of::<f32>())
}

/// Makes launches of the kernels of one checked task.
pub(crate) struct Lowering<'a> {
    pub place: Place,
    /// The kernels that can be believed here.
    pub modules: &'a [Module],
    /// Where the first element of a slice is.
    pub address: &'a dyn Fn(&Slice) -> Result<u64, BackendError>,
    /// Where repetitions write to.
    pub scratch: u64,
    pub steps: Vec<Step>,
}

/// Why a kernel has no launch.
pub(crate) enum Refusal {
    /// There is no kernel for it.
    Invalid(String),
    /// Its memory is none of this device's.
    Backend(BackendError),
}

impl From<BackendError> for Refusal {
    fn from(error: BackendError) -> Self {
        Self::Backend(error)
    }
}

impl Lowering<'_> {
    /// One kernel and its repetitions.
    pub(crate) fn kernel(&mut self, kernel: &Kernel, repeats: Repeats) -> Result<(), Refusal> {
        match kernel {
            Kernel::Gemm { .. } => self.gemm(kernel, repeats),
            Kernel::Adam { .. } => self.adam(kernel, repeats),
            Kernel::SquaredNorm { .. } => self.squared_norm(kernel, repeats),
            Kernel::Fill { to, value } => {
                let at = (self.address)(to)?;
                let targets = [(at, to.len)];
                for (at, len) in self.with_repeats(targets[0], repeats) {
                    self.fill(element(to)?, at, (*value, len));
                }
                Ok(())
            }
            Kernel::Triad { .. } => self.triad(kernel, repeats),
            Kernel::Add { from, to } | Kernel::Copy { from, to } => {
                let (source, target) = ((self.address)(from)?, (self.address)(to)?);
                let entries = entries(kernel, (from, to))?;
                for (at, len) in self.with_repeats((target, to.len), repeats) {
                    self.streamed(entries, &[at, source], len);
                }
                Ok(())
            }
        }
    }

    /// The target and what repetitions write of it elsewhere.
    fn with_repeats(&self, target: (u64, usize), repeats: Repeats) -> Vec<(u64, usize)> {
        let parts = repeats.parts(target.1);
        let elsewhere = parts.map(|part| (self.scratch, part));
        std::iter::once(target).chain(elsewhere).collect()
    }

    /// Whether a module's kernels are here and take these addresses.
    fn is_fast(&self, module: Module, addresses: &[u64]) -> bool {
        let is_aligned = addresses.iter().all(|at| at.is_multiple_of(ALIGNMENT));
        is_aligned && self.modules.contains(&module)
    }

    fn fill(&mut self, element: ElementType, at: u64, (value, len): (f32, usize)) {
        let fast = (Module::Stream(element), "fill");
        let plain = (Module::Plain(element), "fill_plain");
        let kernel = match self.is_fast(fast.0, &[at]) {
            true => fast,
            false => plain,
        };
        let arguments = vec![
            Argument::U64(at),
            Argument::F32(value),
            Argument::U64(len as u64),
        ];
        self.push(kernel, len, arguments);
    }

    fn triad(&mut self, kernel: &Kernel, repeats: Repeats) -> Result<(), Refusal> {
        let Kernel::Triad { a, b, scale, to } = kernel else {
            return Ok(());
        };
        let [a, b] = [(self.address)(a)?, (self.address)(b)?];
        let module = Module::Stream(element(to)?);
        for (at, len) in self.with_repeats(((self.address)(to)?, to.len), repeats) {
            if !self.is_fast(module, &[at, a, b]) {
                let why = format!("no kernel adds slices that begin beside {ALIGNMENT} bytes");
                return Err(Refusal::Invalid(why));
            }
            let addresses = [at, a, b].map(Argument::U64);
            let rest = [Argument::F32(*scale), Argument::U64(len as u64)];
            let arguments = addresses.into_iter().chain(rest).collect();
            self.push((module, "triad"), len, arguments);
        }
        Ok(())
    }

    /// Sums of segments, and then their sum.
    fn squared_norm(&mut self, kernel: &Kernel, repeats: Repeats) -> Result<(), Refusal> {
        let Kernel::SquaredNorm {
            from,
            to,
            accumulate,
        } = kernel
        else {
            return Ok(());
        };
        let element = element(from)?;
        let (source, target) = ((self.address)(from)?, (self.address)(to)?);
        let first = source - source % ALIGNMENT;
        let skip = (source - first) / from.data_type().size_bytes() as u64;
        let sums = self.scratch + SUMS_AT as u64;
        let most = self.place.multiprocessors.max(1) * BLOCKS_PER_MULTIPROCESSOR;
        for (at, len) in self.with_repeats((target, from.len), repeats) {
            let part = Slice {
                len,
                ..from.clone()
            };
            let count = segments(&part).unwrap_or(0);
            let mut launch = |entry, blocks, arguments| {
                self.steps.push(Step::Launch(KernelLaunch {
                    module: Module::Squares(element),
                    entry,
                    blocks,
                    threads: THREADS,
                    shared_bytes: 0,
                    arguments,
                }));
            };
            if count > 0 {
                let blocks = u32::try_from(count).unwrap_or(u32::MAX).min(most);
                let arguments = vec![
                    Argument::U64(sums),
                    Argument::U64(first),
                    Argument::U32(skip as u32),
                    Argument::U64(len as u64),
                ];
                launch("square_sums", blocks, arguments);
            }
            let arguments = vec![
                Argument::U64(at),
                Argument::U64(sums),
                Argument::U64(count as u64),
                Argument::U32((*accumulate).into()),
            ];
            launch("sum_squares", 1, arguments);
        }
        Ok(())
    }

    /// A kernel of addresses and a length.
    fn streamed(&mut self, entries: Entries, addresses: &[u64], len: usize) {
        let fast = entries
            .fast
            .filter(|(module, _)| self.is_fast(*module, addresses));
        let kernel = fast.unwrap_or(entries.plain);
        let addresses = addresses.iter().map(|at| Argument::U64(*at));
        let arguments = addresses.chain([Argument::U64(len as u64)]).collect();
        self.push(kernel, len, arguments);
    }

    fn push(
        &mut self,
        (module, entry): (Module, &'static str),
        len: usize,
        arguments: Vec<Argument>,
    ) {
        if len == 0 {
            return;
        }
        let per_block = u64::from(THREADS) * ELEMENTS_PER_THREAD;
        let wanted = (len as u64).div_ceil(per_block);
        let most = self.place.multiprocessors.max(1) * BLOCKS_PER_MULTIPROCESSOR;
        self.steps.push(Step::Launch(KernelLaunch {
            module,
            entry,
            blocks: u32::try_from(wanted).unwrap_or(u32::MAX).min(most),
            threads: THREADS,
            shared_bytes: 0,
            arguments,
        }));
    }

    fn adam(&mut self, kernel: &Kernel, repeats: Repeats) -> Result<(), Refusal> {
        let Kernel::Adam {
            parameters,
            gradients,
            first_moments,
            second_moments,
            learning_rate,
        } = kernel
        else {
            return Ok(());
        };
        let from = (self.address)(gradients)?;
        let own = [parameters, first_moments, second_moments].map(|it| (self.address)(it));
        let [p, m, v] = own;
        let step = (padded(parameters.len) * size_of::<f32>()) as u64;
        let elsewhere = [0, 1, 2].map(|index| self.scratch + index * step);
        let parts = repeats.parts(parameters.len).map(|len| (elsewhere, len));
        let all: Vec<_> = std::iter::once(([p?, m?, v?], parameters.len))
            .chain(parts)
            .collect();
        let element = element(gradients)?;
        for ([p, m, v], len) in all {
            let addresses = [p, from, m, v];
            let is_f32 = element == ElementType::F32;
            let kernel = match is_f32 && self.is_fast(Module::Adam, &addresses) {
                true => (Module::Adam, "adam"),
                false => (Module::Plain(element), "adam_plain"),
            };
            let rest = [Argument::F32(*learning_rate), Argument::U64(len as u64)];
            let arguments = addresses.map(Argument::U64).into_iter().chain(rest);
            self.push(kernel, len, arguments.collect());
        }
        Ok(())
    }

    fn gemm(&mut self, kernel: &Kernel, repeats: Repeats) -> Result<(), Refusal> {
        let Kernel::Gemm {
            a,
            transpose_a,
            b,
            transpose_b,
            c,
            scale,
            accumulate,
        } = kernel
        else {
            return Ok(());
        };
        if c.rows == 0 || c.columns == 0 {
            return Ok(());
        }
        let is_f32 = c.slice.data_type() == DataType::F32;
        let element = element(&a.slice)?;
        let whole = Product {
            a: self.matrix(a)?,
            transpose_a: *transpose_a,
            b: self.matrix(b)?,
            transpose_b: *transpose_b,
            c: self.matrix(c)?,
            result: match is_f32 && element != ElementType::F32 {
                true => ResultType::F32,
                false => ResultType::Half,
            },
            scale: *scale,
            accumulate: *accumulate,
        };
        if plain_tiles(&whole) > u64::from(MOST_BLOCKS) {
            let why = format!("a result of {} x {}", c.rows, c.columns);
            return Err(Refusal::Invalid(why));
        }
        self.product(whole, element);
        // Of the longer side, as on a CPU.
        for part in repeats.parts(c.rows.max(c.columns)) {
            let part = part as u32;
            if part > 0 {
                self.product(of_part(whole, part, self.scratch), element);
            }
        }
        Ok(())
    }

    /// A product that is not empty.
    fn product(&mut self, product: Product, element: ElementType) {
        let is_half = element != ElementType::F32;
        let is_there = self.modules.iter().any(|it| it.multiplies(element));
        if is_half && is_there && product.arguments(2).is_ok() {
            self.steps.push(Step::Product(product, element));
            return;
        }
        let Product { a, b, c, .. } = product;
        let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
        let is_f32 = !is_half || product.result == ResultType::F32;
        let depth = match product.transpose_a {
            Transpose::No => a.columns,
            Transpose::Yes => a.rows,
        };
        let flags = flag(product.accumulate, ACCUMULATE)
            | flag(is_f32, RESULT_IS_F32)
            | flag(product.transpose_a == Transpose::Yes, TRANSPOSE_A)
            | flag(product.transpose_b == Transpose::Yes, TRANSPOSE_B);
        let arguments = GemmArguments {
            a: a.address,
            b: b.address,
            c: c.address,
            rows: c.rows,
            columns: c.columns,
            depth,
            stride_a: a.row_stride,
            stride_b: b.row_stride,
            stride_c: c.row_stride,
            scale: product.scale,
            flags,
        };
        self.steps.push(Step::Launch(KernelLaunch {
            module: Module::Plain(element),
            entry: "gemm_plain",
            blocks: u32::try_from(plain_tiles(&product)).unwrap_or(MOST_BLOCKS),
            threads: PLAIN_TILE * PLAIN_TILE,
            shared_bytes: 0,
            arguments: vec![Argument::Product(arguments)],
        }));
    }

    fn matrix(&self, matrix: &Matrix) -> Result<DeviceMatrix, Refusal> {
        let side = |len: usize| {
            // Kernels count rows and columns in 32 bits, and step over the last by up to a tile.
            let fits = u32::try_from(len).ok().filter(|len| *len <= 1 << 31);
            fits.ok_or_else(|| Refusal::Invalid(format!("a matrix is {len} long or wide")))
        };
        Ok(DeviceMatrix {
            address: (self.address)(&matrix.slice)?,
            rows: side(matrix.rows)?,
            columns: side(matrix.columns)?,
            row_stride: side(matrix.row_stride)?,
        })
    }
}

/// Tiles of a result, of which each is a block of `gemm_plain`.
fn plain_tiles(product: &Product) -> u64 {
    let along = |extent: u32| u64::from(extent.div_ceil(PLAIN_TILE));
    along(product.c.rows) * along(product.c.columns)
}

fn element(slice: &Slice) -> Result<ElementType, Refusal> {
    element_type(slice.data_type())
        .ok_or_else(|| Refusal::Invalid(format!("no kernel takes {}", slice.data_type().name())))
}

/// The kernels that do the same.
#[derive(Debug, Clone, Copy)]
struct Entries {
    /// For aligned addresses.
    fast: Option<(Module, &'static str)>,
    /// For any.
    plain: (Module, &'static str),
}

/// Those of an `Add` or `Copy`.
fn entries(kernel: &Kernel, (from, to): (&Slice, &Slice)) -> Result<Entries, Refusal> {
    use ElementType::F32;
    let (source, target) = (element(from)?, element(to)?);
    if source == target {
        let (fast, plain) = match kernel {
            Kernel::Add { .. } => ("add", "add_plain"),
            _ => ("copy", "copy_plain"),
        };
        return Ok(Entries {
            fast: Some((Module::Stream(target), fast)),
            plain: (Module::Plain(target), plain),
        });
    }
    let plain = match (source, target) {
        (F32, half) => (Module::Plain(half), "narrow"),
        (half, F32) => (Module::Plain(half), "widen"),
        _ => {
            return Err(Refusal::Invalid(format!(
                "no kernel copies {} to {}",
                from.data_type().name(),
                to.data_type().name()
            )));
        }
    };
    Ok(Entries { fast: None, plain })
}

/// The first rows, or columns where there are more of them, with a result that goes elsewhere.
fn of_part(whole: Product, part: u32, elsewhere: u64) -> Product {
    let mut product = whole;
    product.c.address = elsewhere;
    let (matrix, transpose, of_rows) = match whole.c.rows >= whole.c.columns {
        true => (&mut product.a, whole.transpose_a, Transpose::No),
        false => (&mut product.b, whole.transpose_b, Transpose::Yes),
    };
    match transpose == of_rows {
        true => matrix.rows = part,
        false => matrix.columns = part,
    }
    match whole.c.rows >= whole.c.columns {
        true => product.c.rows = part,
        false => product.c.columns = part,
    }
    product
}

#[cfg(test)]
mod tests;
