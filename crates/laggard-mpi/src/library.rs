//! The loaded plugin: finds its table and calls its functions. The only file that calls through the
//! C interface.
#![expect(unsafe_code, reason = "loads a library and calls its C functions")]

use crate::abi::{
    self, Comm, Completion, MEANINGLESS, NOT_NOW, Operation, PANICKED, Request, Started, Status,
    TRUNCATED, Table,
};
use crate::{Flavor, MpiError};
use libloading::os::unix::{Library as Handle, RTLD_GLOBAL, RTLD_NOW};
use std::error::Error;
use std::ffi::{c_char, c_int};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The plugin's only symbol.
const ENTRY: &[u8] = b"laggard_mpi_plugin_table\0";

/// What the plugin's texts are cut to: longer than MPI's longest.
const TEXT_BYTES: usize = 8192;

/// A plugin, loaded for the life of the process.
pub(crate) struct Library {
    table: &'static Table,
    /// Taken for each call where MPI does not let threads call at the same time.
    turn: Mutex<()>,
    is_concurrent: AtomicBool,
    is_final: AtomicBool,
    /// Operations that were given up before they were complete; MPI may still use their memory.
    abandoned: AtomicUsize,
    /// Communicators that are in use.
    communicators: AtomicUsize,
}

/// A status other than success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed(pub(crate) Status);

fn check(status: Status) -> Result<(), Failed> {
    if status == abi::SUCCESS {
        Ok(())
    } else {
        Err(Failed(status))
    }
}

impl Library {
    /// Loads a plugin and compares its version and flavor.
    pub(crate) fn load(flavor: Flavor, path: &Path) -> Result<Self, MpiError> {
        let not_loaded = |why: String| MpiError::NotLoaded {
            flavor,
            path: path.to_owned(),
            why,
        };
        // The system's own words stand in the source of the error.
        let words = |error: libloading::Error| {
            error
                .source()
                .map_or_else(|| error.to_string(), ToString::to_string)
        };
        // Global, because Open MPI's own plug-ins look up MPI's symbols among the global ones.
        // SAFETY: loading runs the initialisers of the plugin and of MPI. Both are meant to be
        // loaded this way; another file under this name is beyond what can be checked.
        let handle = unsafe { Handle::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
        let handle = handle.map_err(|error| not_loaded(words(error)))?;
        // SAFETY: whoever exports this name exports a function of this type.
        let entry = unsafe { handle.get::<abi::Entry>(ENTRY) };
        let entry = *entry.map_err(|error| not_loaded(words(error)))?;
        // MPI cannot be unloaded: its threads, its exit handlers and the table live on.
        std::mem::forget(handle);
        // SAFETY: the function takes nothing, and returns the address of a static.
        let table = unsafe { entry() };
        if table.is_null() {
            return Err(not_loaded("it has no table".to_owned()));
        }
        // SAFETY: every version of the table begins with its version.
        let found = unsafe { (&raw const (*table).version).read() };
        if found != abi::VERSION {
            return Err(MpiError::WrongVersion {
                flavor,
                path: path.to_owned(),
                found,
                wanted: abi::VERSION,
            });
        }
        let library = Self {
            // SAFETY: it is a static of the plugin, which stays loaded, and of this version.
            table: unsafe { &*table },
            turn: Mutex::default(),
            is_concurrent: AtomicBool::new(false),
            is_final: AtomicBool::new(false),
            abandoned: AtomicUsize::new(0),
            communicators: AtomicUsize::new(0),
        };
        let version = library.version();
        if !flavor.is_of(&version) {
            return Err(MpiError::WrongFlavor {
                flavor,
                path: path.to_owned(),
                found: version.lines().next().unwrap_or_default().to_owned(),
            });
        }
        Ok(library)
    }

    /// Calls the plugin, alone where it must be.
    fn call<T>(&self, body: impl FnOnce(&Table) -> T) -> T {
        if self.is_concurrent.load(Ordering::Acquire) {
            return body(self.table);
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        body(self.table)
    }

    /// Name and version of the MPI library.
    pub(crate) fn version(&self) -> String {
        self.text(|table, to, capacity| {
            // SAFETY: `to` has room for `capacity` bytes.
            unsafe { (table.library_version)(to, capacity) }
        })
    }

    /// What a status means.
    pub(crate) fn explain(&self, Failed(status): Failed) -> String {
        match status {
            PANICKED => "the plugin panicked".to_owned(),
            NOT_NOW => "MPI is initialised already, or finalised".to_owned(),
            MEANINGLESS => "not a meaningful operation".to_owned(),
            TRUNCATED => "the message is longer than the memory for it".to_owned(),
            code => {
                let text = self.text(|table, to, capacity| {
                    // SAFETY: `to` has room for `capacity` bytes.
                    unsafe { (table.error_text)(code, to, capacity) }
                });
                format!("{text} (MPI error {code})")
            }
        }
    }

    fn text(&self, write: impl FnOnce(&Table, *mut c_char, usize) -> usize) -> String {
        let mut text = vec![0u8; TEXT_BYTES];
        let length = self.call(|table| write(table, text.as_mut_ptr().cast(), TEXT_BYTES));
        String::from_utf8_lossy(&text[..length.min(TEXT_BYTES)]).into_owned()
    }

    /// Initialises MPI; gives the world's communicator.
    pub(crate) fn init(&self) -> Result<Comm, Failed> {
        let mut started = Started {
            world: Comm(0),
            is_concurrent: 0,
        };
        // SAFETY: the answer goes to a local.
        check(self.call(|table| unsafe { (table.init)(&raw mut started) }))?;
        let is_concurrent = started.is_concurrent != 0;
        tracing::debug!(is_concurrent, "MPI initialised");
        self.is_concurrent.store(is_concurrent, Ordering::Release);
        Ok(started.world)
    }

    /// Finalises MPI.
    pub(crate) fn finalize(&self) -> Result<(), Failed> {
        self.is_final.store(true, Ordering::SeqCst);
        // SAFETY: takes nothing; the caller has made sure that nothing uses MPI any more.
        check(self.call(|table| unsafe { (table.finalize)() }))
    }

    /// Ends all processes of the job.
    pub(crate) fn abort(&self, world: Comm, exit_code: c_int) -> Result<(), Failed> {
        // Without waiting for a turn: another thread may be stuck in MPI.
        // SAFETY: `world` is the world's communicator.
        check(unsafe { (self.table.abort)(world, exit_code) })
    }

    /// Makes errors on a communicator return; gives this process's place in it.
    pub(crate) fn adopt(&self, comm: Comm) -> Result<abi::Place, Failed> {
        let mut place = abi::Place::default();
        // SAFETY: handles come from the plugin alone; the answer goes to a local.
        check(self.call(|table| unsafe { (table.adopt)(comm, &raw mut place) }))?;
        Ok(place)
    }

    /// Starts duplicating a communicator.
    ///
    /// # Safety
    /// `copy` must stay where it is until the request is complete.
    pub(crate) unsafe fn duplicate(&self, comm: Comm, copy: *mut Comm) -> Result<Request, Failed> {
        let mut request = Request(0);
        // SAFETY: the caller vouches for the copy's place; the request is a local.
        check(self.call(|table| unsafe { (table.duplicate)(comm, copy, &raw mut request) }))?;
        Ok(request)
    }

    /// A communicator of some ranks of another, in this order.
    pub(crate) fn subset(&self, comm: Comm, ranks: &[c_int], tag: c_int) -> Result<Comm, Failed> {
        let mut subset = Comm(0);
        let count = c_int::try_from(ranks.len()).map_err(|_| Failed(MEANINGLESS))?;
        let ranks = ranks.as_ptr();
        // SAFETY: `ranks` has `count` entries; the answer goes to a local.
        check(self.call(|t| unsafe { (t.subset)(comm, ranks, count, tag, &raw mut subset) }))?;
        Ok(subset)
    }

    /// Frees a communicator, unless MPI is final or operations were given up: then MPI may still
    /// use it, and the process is about to end.
    pub(crate) fn free(&self, mut comm: Comm) {
        if self.is_final.load(Ordering::SeqCst) || self.abandoned() > 0 {
            return;
        }
        // SAFETY: the communicator is the caller's own, who gives it away.
        let freed = check(self.call(|table| unsafe { (table.free)(&raw mut comm) }));
        if let Err(failed) = freed {
            tracing::warn!(why = self.explain(failed), "a communicator cannot be freed");
        }
    }

    /// Starts an operation.
    ///
    /// # Safety
    /// What the operation points to must be as long as its counts say, and must stay where it is
    /// until the request is complete; what it writes to must be used by nobody else until then.
    pub(crate) unsafe fn start(
        &self,
        comm: Comm,
        operation: &Operation,
    ) -> Result<Request, Failed> {
        let mut request = Request(0);
        // SAFETY: the caller vouches for the operation; the request is a local.
        check(self.call(|table| unsafe { (table.start)(comm, operation, &raw mut request) }))?;
        Ok(request)
    }

    /// Whether a request is complete.
    pub(crate) fn test(&self, request: &mut Request) -> Result<Completion, Failed> {
        let mut completion = Completion::default();
        // SAFETY: requests come from the plugin alone; MPI takes one that is complete already.
        check(self.call(|table| unsafe { (table.test)(request, &raw mut completion) }))?;
        Ok(completion)
    }

    /// Cancels a receive.
    pub(crate) fn cancel(&self, request: &mut Request) -> Result<Completion, Failed> {
        let mut completion = Completion::default();
        // SAFETY: as for `test`.
        check(self.call(|table| unsafe { (table.cancel)(request, &raw mut completion) }))?;
        Ok(completion)
    }

    /// Notes that an operation was given up before it was complete.
    pub(crate) fn abandon(&self) {
        self.abandoned.fetch_add(1, Ordering::SeqCst);
    }

    /// How many operations were given up.
    pub(crate) fn abandoned(&self) -> usize {
        self.abandoned.load(Ordering::SeqCst)
    }

    /// Counts the communicators that are in use.
    pub(crate) fn communicators(&self) -> &AtomicUsize {
        &self.communicators
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Compiles a shared library from C, or has the compiler say why not.
    fn compile(folder: &Path, name: &str, source: &str, libraries: &[&str]) -> std::path::PathBuf {
        let (from, to) = (folder.join("source.c"), folder.join(name));
        std::fs::write(&from, source).unwrap();
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-Wl,--no-as-needed", "-o"])
            .args([&to, &from])
            .arg(format!("-L{}", folder.display()))
            .args(libraries)
            .status();
        assert!(status.unwrap().success());
        to
    }

    fn refusal(path: &Path) -> String {
        let error = Library::load(Flavor::Mpich, path).err().unwrap();
        error.to_string()
    }

    #[test]
    fn another_version_of_the_interface_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let source = "unsigned table = 999; unsigned *laggard_mpi_plugin_table(void) \
                      { return &table; }";
        let path = compile(folder.path(), "old.so", source, &[]);
        let text = refusal(&path);
        assert!(text.contains("speaks version 999"), "{text}");
        assert!(
            text.contains("hint: build it again with `scripts/build_mpi.sh mpich`"),
            "{text}"
        );
    }

    #[test]
    fn a_missing_mpi_library_a_foreign_and_a_damaged_file_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let mpi = compile(folder.path(), "liblaggard_absent_mpi.so", "int x;", &[]);
        let needs = compile(
            folder.path(),
            "needs.so",
            "int y;",
            &["-llaggard_absent_mpi"],
        );
        std::fs::remove_file(mpi).unwrap();
        let text = refusal(&needs);
        assert!(
            text.contains("liblaggard_absent_mpi.so: cannot open shared object"),
            "{text}"
        );
        assert!(
            text.contains("hint: if a library is missing, install MPICH"),
            "{text}"
        );

        let foreign = compile(folder.path(), "foreign.so", "int z;", &[]);
        assert!(refusal(&foreign).contains("laggard_mpi_plugin_table"));

        let damaged = folder.path().join("damaged.so");
        std::fs::write(&damaged, "not a library").unwrap();
        assert!(refusal(&damaged).contains("cannot load"));
    }
}
