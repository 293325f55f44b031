//! Parts of one GPU that ranks of a process are confined to, so that one GPU rehearses a mixed
//! cluster with true arithmetic: disjoint groups of its multiprocessors, as green contexts (CUDA
//! 12.5 and later) grant them. Whether kernels of all parts really run at the same time is for
//! `shares/concurrency.rs` to show. Checked over a stand-in for the driver; never run on a GPU yet.

mod concurrency;
mod count;
mod green;
mod mps;

pub use concurrency::{Concurrency, ConcurrencyOptions, concurrency};
pub use mps::MpsClient;

use crate::{CudaError, Surroundings, gpu};
use count::{Granularity, counts};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};
use green::GreenContext;
use std::fmt;
use std::sync::Arc;

/// A part of a GPU's multiprocessors, which kernels of a device can be confined to
/// ([`CudaOptions::share`](crate::CudaOptions)).
#[derive(Clone)]
pub struct Share {
    green: Arc<GreenContext>,
    /// What it was split off from, and before it.
    #[expect(dead_code, reason = "kept alive and not looked at")]
    origins: Vec<Arc<GreenContext>>,
    ordinal: usize,
    multiprocessors: u32,
    of: u32,
    siblings: u32,
}

impl Share {
    /// Divides a GPU into parts in proportion to these weights, in their order: as near as the
    /// GPU's generation can, which groups its multiprocessors. How many each part has is what the
    /// driver says in the end.
    ///
    /// # Errors
    /// [`CudaError::Undivided`] if the driver does not divide GPUs, or not into so many parts; as
    /// [`Gpu::open`](crate::Gpu::open) if there is no such GPU.
    pub fn divide(
        ordinal: usize,
        weights: &[f64],
        surroundings: &Surroundings,
    ) -> Result<Vec<Self>, CudaError> {
        let failed = |doing: &'static str| {
            move |error: DriverError| CudaError::Undivided {
                ordinal,
                why: format!("{doing}: {}", crate::device::trouble::words(error)),
            }
        };
        let undivided = |why| CudaError::Undivided { ordinal, why };
        let (whole, steps) = whole(ordinal, surroundings)?;
        let Steps { granularity, of } = steps;
        let counts = counts(of, granularity, weights).map_err(undivided)?;
        let context = gpu::context(ordinal)?;
        let mut rest = whole;
        let mut origins: Vec<Arc<GreenContext>> = Vec::new();
        let mut shares = Vec::with_capacity(counts.len());
        for (at, wanted) in counts.iter().enumerate() {
            let (part, left) = green::split(&rest, *wanted).map_err(failed("splitting it"))?;
            let create = |resource| GreenContext::create(&context, resource).map(Arc::new);
            let green = create(part).map_err(failed("making a green context"))?;
            let multiprocessors = green.multiprocessors();
            shares.push(Self {
                multiprocessors: multiprocessors.map_err(failed("asking for a part's size"))?,
                green,
                origins: origins.clone(),
                ordinal,
                of,
                siblings: counts.len() as u32,
            });
            if at + 1 < counts.len() {
                // What a split leaves can only be split again by way of a context that has it.
                let scaffold = create(left).map_err(failed("keeping the rest"))?;
                rest = scaffold.resource().map_err(failed("asking for the rest"))?;
                origins.push(scaffold);
            }
        }
        Ok(shares)
    }

    /// The GPU's number, in the driver's order.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// Its multiprocessors.
    pub fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// Those of the whole GPU.
    pub fn of(&self) -> u32 {
        self.of
    }

    /// Into how many parts the GPU was divided; they have its memory in common.
    pub fn siblings(&self) -> u32 {
        self.siblings
    }

    /// A stream whose kernels stay within the part. It lives as long as any clone of this does.
    pub(crate) fn new_stream(
        &self,
        context: &Arc<CudaContext>,
        priority: i32,
    ) -> Result<Arc<CudaStream>, DriverError> {
        self.green.new_stream(context, priority)
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ordinal,
            multiprocessors,
            of,
            ..
        } = self;
        write!(f, "Share({multiprocessors} of {of} of GPU {ordinal})")
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            multiprocessors,
            of,
            ..
        } = self;
        write!(f, "green context of {multiprocessors} of {of} SMs")
    }
}

/// How ranks can share a GPU, as far as its driver and the environment tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Sharing {
    /// In which steps it can be divided, or why it cannot.
    pub steps: Result<Steps, CudaError>,
    /// How this process is a client of NVIDIA's Multi-Process Service, if it is one.
    pub mps: Option<MpsClient>,
}

/// The multiprocessors that parts of a GPU can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    granularity: Granularity,
    of: u32,
}

impl Sharing {
    /// Asks, without a context on the GPU.
    ///
    /// # Errors
    /// As [`Gpu::open`](crate::Gpu::open) if there is no such GPU.
    pub fn of(ordinal: usize, surroundings: &Surroundings) -> Result<Self, CudaError> {
        gpu::usable_driver(ordinal, surroundings)?;
        let (_, by_mps) = device(ordinal)
            .and_then(green::traits_of)
            .map_err(|error| CudaError::Driver {
                doing: "asking how it is shared",
                why: crate::device::trouble::words_and_hint(error),
            })?;
        Ok(Self {
            steps: whole(ordinal, surroundings).map(|(_, steps)| steps),
            mps: MpsClient::of_process(by_mps),
        })
    }
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.steps {
            Ok(Steps { granularity, of }) => {
                let count::Granularity { least, multiple } = granularity;
                write!(
                    f,
                    "green contexts of {least} or more of {of} SMs in steps of {multiple}"
                )?;
            }
            Err(CudaError::Undivided { why, .. }) => write!(f, "no green contexts ({why})")?,
            Err(error) => write!(f, "no green contexts ({error})")?,
        }
        match self.mps.map(|client| client.thread_percentage) {
            Some(Some(limit)) => write!(f, "; MPS with {limit} % of its threads"),
            Some(None) => f.write_str("; MPS without a limit"),
            None => Ok(()),
        }
    }
}

fn device(ordinal: usize) -> Result<sys::CUdevice, DriverError> {
    result::device::get(i32::try_from(ordinal).unwrap_or(i32::MAX))
}

/// All multiprocessors of a GPU, and in which steps they can be divided.
fn whole(ordinal: usize, surroundings: &Surroundings) -> Result<(Resource, Steps), CudaError> {
    gpu::usable_driver(ordinal, surroundings)?;
    let undivided = |why: String| CudaError::Undivided { ordinal, why };
    // Asked for first: cudarc panics where the driver has less than it calls.
    if let Some(missing) = green::missing_function() {
        let why = format!("the driver has no {missing}, which came with CUDA 12.5");
        return Err(undivided(why));
    }
    let asked = || -> Result<(Resource, i32), DriverError> {
        let device = device(ordinal)?;
        let (major, _) = green::traits_of(device)?;
        Ok((green::multiprocessors_of(device)?, major))
    };
    let (resource, major) = asked().map_err(|error| {
        let words = crate::device::trouble::words(error);
        undivided(format!("asking for its parts: {words}"))
    })?;
    let steps = Steps {
        granularity: Granularity::of(green::granularity(&resource), major),
        of: green::count(&resource),
    };
    Ok((resource, steps))
}

/// A type of the driver that stands for some of a GPU.
type Resource = sys::CUdevResource;
