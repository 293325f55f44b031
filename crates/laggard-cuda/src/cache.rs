//! Compiled kernels, kept from run to run. Each is a file of its own, named after a hash of all
//! that it follows from, written under a temporary name and renamed, so that processes which
//! compile at the same time never see each other's halves. A file that is damaged counts as absent.
//! Trouble with the folder costs time, never a run.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A folder of compiled kernels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CubinCache {
    folder: PathBuf,
}

/// The hash of everything that a cubin follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key(u128);

/// What files begin with; followed by a hash of the rest, then the cubin.
const MAGIC: &[u8; 8] = b"laggard1";
const HEAD_BYTES: usize = 8 + 16;

impl CubinCache {
    /// A cache in a folder, which is made when it is first needed.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The user's cache: `XDG_CACHE_HOME`, else `~/.cache` (XDG base directory specification).
    /// `None` if the environment names neither.
    pub fn of_user() -> Option<Self> {
        let folder = |name: &str| {
            let path = PathBuf::from(std::env::var_os(name)?);
            path.is_absolute().then_some(path)
        };
        let base = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
        Some(Self::in_folder(base.join("laggard/cubins")))
    }

    pub(crate) fn get(&self, key: Key) -> Option<Vec<u8>> {
        let path = self.path(key);
        let bytes = fs::read(&path).ok()?;
        let cubin = unpacked(&bytes);
        if cubin.is_none() {
            tracing::warn!("{} is damaged and will be replaced", path.display());
        }
        cubin.map(<[u8]>::to_vec)
    }

    pub(crate) fn put(&self, key: Key, cubin: &[u8]) {
        if let Err(error) = self.write(key, cubin) {
            tracing::warn!("cannot keep a kernel in {}: {error}", self.folder.display());
        }
    }

    fn write(&self, key: Key, cubin: &[u8]) -> io::Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(&self.folder)?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let partial = format!("{:032x}.{}.{count}.partial", key.0, std::process::id());
        let partial = self.folder.join(partial);
        let written = fill(&partial, cubin).and_then(|()| fs::rename(&partial, self.path(key)));
        if written.is_err() {
            // The first error says more than one of cleaning up would.
            fs::remove_file(&partial).ok();
        }
        written
    }

    fn path(&self, key: Key) -> PathBuf {
        self.folder.join(format!("{:032x}.cubin", key.0))
    }
}

impl Key {
    /// The key of a list of texts; lists of other texts have other keys, also where the texts put
    /// together are the same.
    pub(crate) fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hash = Fnv::new();
        for text in texts {
            hash.add(&(text.len() as u64).to_le_bytes());
            hash.add(text.as_bytes());
        }
        Self(hash.0)
    }
}

fn fill(path: &Path, cubin: &[u8]) -> io::Result<()> {
    let mut hash = Fnv::new();
    hash.add(cubin);
    let mut file = File::create(path)?;
    file.write_all(MAGIC)?;
    file.write_all(&hash.0.to_le_bytes())?;
    file.write_all(cubin)?;
    file.sync_all()
}

fn unpacked(bytes: &[u8]) -> Option<&[u8]> {
    let (head, cubin) = bytes.split_at_checked(HEAD_BYTES)?;
    let (magic, sum) = head.split_at(MAGIC.len());
    let mut hash = Fnv::new();
    hash.add(cubin);
    (magic == MAGIC && sum == hash.0.to_le_bytes()).then_some(cubin)
}

/// FNV-1a of 128 bits (RFC 9923): enough against accidents, which are all that happens here.
struct Fnv(u128);

impl Fnv {
    const fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 ^= u128::from(*byte);
            self.0 = self
                .0
                .wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_has_its_published_values() {
        let check = |text: &str, expect: u128| {
            let mut hash = Fnv::new();
            hash.add(text.as_bytes());
            assert_eq!(hash.0, expect, "{text}");
        };
        check("a", 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        check("foobar", 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
    }

    #[test]
    fn texts_do_not_run_into_each_other() {
        assert_ne!(Key::of(["ab", "c"]), Key::of(["a", "bc"]));
        assert_ne!(Key::of(["ab"]), Key::of(["ab", ""]));
        assert_eq!(Key::of(["ab", "c"]), Key::of(["ab", "c"]));
    }

    #[test]
    fn what_is_put_is_got_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CubinCache::in_folder(folder.path().join("deep/down"));
        let key = Key::of(["x"]);
        assert_eq!(cache.get(key), None);
        cache.put(key, b"machine code");
        cache.put(key, b"machine code");
        assert_eq!(cache.get(key).as_deref(), Some(&b"machine code"[..]));
        assert_eq!(cache.get(Key::of(["y"])), None);
        let files = fs::read_dir(folder.path().join("deep/down")).unwrap();
        assert_eq!(files.count(), 1);
    }

    #[test]
    fn damage_of_any_kind_counts_as_absent() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CubinCache::in_folder(folder.path());
        let key = Key::of(["x"]);
        cache.put(key, b"machine code");
        let whole = fs::read(cache.path(key)).unwrap();
        for cut in 0..whole.len() {
            fs::write(cache.path(key), &whole[..cut]).unwrap();
            assert_eq!(cache.get(key), None, "cut to {cut}");
            let mut flipped = whole.clone();
            flipped[cut] ^= 1;
            fs::write(cache.path(key), &flipped).unwrap();
            assert_eq!(cache.get(key), None, "flipped at {cut}");
        }
        cache.put(key, b"machine code");
        assert!(cache.get(key).is_some());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let cache = CubinCache::in_folder(file.join("below"));
        cache.put(Key::of(["x"]), b"machine code");
        assert_eq!(cache.get(Key::of(["x"])), None);
    }
}
