//! Compiled code on disk, so that a component is compiled once and not at each start.
//!
//! An entry is one file: the code as wasmtime writes it, and behind it a trailer that says what the
//! code is of and what its checksum is. It is mapped into memory, not read, so hosts on one machine
//! share its pages. Files are never changed: one is written under another name, made durable, and
//! renamed; and removed where it is broken, or was not used for longest when there are too many.
//!
//! Whoever writes here has the folder's lock, so that there is one compilation at a time for all
//! processes that share the folder, and none compiles what another one just has.

use std::fs::{DirBuilder, File, FileTimes, OpenOptions, TryLockError};
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::plugin::Digest;

mod trailer;
mod trim;

use trailer::Trailer;

/// Raised when the layout of a file changes.
const FORMAT: u32 = 1;

const EXTENSION: &str = "cwasm";

/// What files are called that are being written.
const UNFINISHED: &str = ".unfinished-";

/// The file whose lock those have that write.
const LOCK: &str = "lock";

/// A folder with compiled code.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    /// Bytes that are kept.
    limit: u64,
}

/// What code is of: a component, and everything that has a part in what it is compiled to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    file_name: String,
    hash: [u8; 32],
}

/// An entry that was asked for.
pub(super) enum Found {
    /// The code, ready to run, and how many bytes there are.
    Here(Component, u64),
    Missing,
    /// It is there and cannot be used.
    Broken(anyhow::Error),
}

/// Held while something is compiled for the folder; given back when dropped, or by the system when
/// the process ends.
pub(super) struct Lock(#[expect(dead_code, reason = "closing it gives the lock back")] File);

/// An entry that is being written. What is not finished is removed when it is dropped.
pub(super) struct Unfinished {
    file: NamedTempFile,
    hasher: Sha256,
    length: u64,
    failed: Option<std::io::Error>,
}

impl Cache {
    /// Keeps compiled code in `folder`, at most `limit` bytes of it. The folder is made when
    /// something is first kept.
    #[must_use]
    pub fn new(folder: PathBuf, limit: u64) -> Self {
        Self { folder, limit }
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder where there is none, and tries whether it can be used.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn check_writable(&self) -> anyhow::Result<()> {
        self.open_lock().map(drop)
    }

    /// It is to keep nothing.
    pub(super) fn is_off(&self) -> bool {
        self.limit == 0
    }

    /// Looks for an entry, and notes that it was used.
    pub(super) fn find(&self, engine: &Engine, key: &Key) -> Found {
        match self.check_and_map(engine, key) {
            Ok(Some((component, length))) => Found::Here(component, length),
            Ok(None) => Found::Missing,
            Err(error) => Found::Broken(error),
        }
    }

    fn check_and_map(&self, engine: &Engine, key: &Key) -> anyhow::Result<Option<(Component, u64)>> {
        let path = self.path(key);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let length = trailer::check(&mut file, key)?;
        // Which files were used last decides which are kept. On a folder that cannot be written,
        // nothing is removed either.
        let now = SystemTime::from(crate::clock::now());
        let _ = file.set_times(FileTimes::new().set_modified(now));
        Ok(Some((self.map(engine, key)?, length)))
    }

    /// Maps an entry whose checksum was just compared, or that was just written.
    pub(super) fn map(&self, engine: &Engine, key: &Key) -> anyhow::Result<Component> {
        let path = self.path(key);
        only_ours(&self.folder, &std::fs::metadata(&self.folder)?)?;
        only_ours(&path, &std::fs::metadata(&path)?)?;
        #[expect(unsafe_code, reason = "compiled code can only be used by trusting where it is from")]
        // SAFETY: what is mapped has to be code that wasmtime wrote, and must not change while it is
        // in use.
        // - It was written by this program from wasmtime's own output: nobody but this user and root
        //   can write to the folder or to the file (`only_ours`, just before), and both can replace
        //   this program or look into its memory as it is.
        // - It is whole: its trailer was written last, before the file got this name, and its
        //   checksum was compared (`find`), or it was written a moment ago under the folder's lock.
        // - It is of this engine: the key in the trailer covers wasmtime's version, the processor's
        //   features and every setting that code depends on, and wasmtime compares those again.
        // - It does not change: files here are never opened for writing once they have their name.
        //   One that is removed or replaced by a rename stays as it is for those who have it mapped.
        let component = unsafe { Component::deserialize_file(engine, &path) };
        component.map_err(anyhow::Error::from)
    }

    /// Waits until no other process writes. Cancel it by dropping it.
    pub(super) async fn lock(&self) -> anyhow::Result<Lock> {
        const BETWEEN: Duration = Duration::from_millis(20);
        let file = self.open_lock()?;
        let mut waited = Duration::ZERO;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    return Err(error).context("the lock of the folder cannot be taken");
                }
            }
            if waited == BETWEEN * 50 {
                tracing::info!(folder = %self.folder.display(), "waiting for another process that compiles");
            }
            tokio::time::sleep(BETWEEN).await;
            waited += BETWEEN;
        }
    }

    fn open_lock(&self) -> anyhow::Result<File> {
        // What it lies in may be for others as well; the folder itself is for nobody else.
        let made =
            self.folder.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(
                |()| match DirBuilder::new().mode(0o700).create(&self.folder) {
                    Err(_) if self.folder.is_dir() => Ok(()),
                    made => made,
                },
            );
        made.context("the folder cannot be made")?;
        only_ours(&self.folder, &std::fs::metadata(&self.folder)?)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.open(self.folder.join(LOCK)).context("the lock of the folder cannot be opened")
    }

    /// Starts an entry. Only for who has the lock.
    pub(super) fn begin(&self, _: &Lock) -> anyhow::Result<Unfinished> {
        let file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.folder)
            .context("a file cannot be made in the folder")?;
        Ok(Unfinished { file, hasher: Sha256::new(), length: 0, failed: None })
    }

    /// Gives an entry its name, once it is durable. Returns its bytes of code.
    pub(super) fn finish(&self, unfinished: Unfinished, key: &Key) -> anyhow::Result<u64> {
        let Unfinished { mut file, hasher, length, failed } = unfinished;
        if let Some(error) = failed {
            return Err(error).context("the compiled code cannot be written");
        }
        let trailer = Trailer { key: key.hash, length, checksum: hasher.finalize().into() };
        let written = file.write_all(&trailer.to_bytes()).and_then(|()| file.as_file().sync_all());
        written.context("the compiled code cannot be written")?;
        file.persist(self.path(key)).context("the compiled code cannot be renamed")?;
        // Best effort: without it a crash may lose the name, and the component is compiled again.
        let _ = File::open(&self.folder).and_then(|folder| folder.sync_all());
        Ok(length)
    }

    /// Removes an entry.
    pub(super) fn remove(&self, key: &Key) {
        let path = self.path(key);
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::debug!(path = %path.display(), %error, "compiled code could not be removed");
        }
    }

    /// Removes what was not used for longest until the rest is within the limit, and what was never
    /// finished. Only for who has the lock: whatever is unfinished is nobody's.
    pub(super) fn trim(&self, _: &Lock) {
        match trim::trim(&self.folder, self.limit) {
            Ok(0) => {}
            Ok(removed) => {
                tracing::info!(
                    removed,
                    limit = %bytesize::ByteSize::b(self.limit),
                    folder = %self.folder.display(),
                    "removed the compiled code that was not used for longest"
                );
            }
            Err(error) => {
                tracing::debug!(folder = %self.folder.display(), %error, "the folder could not be trimmed");
            }
        }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(&key.file_name)
    }
}

impl Key {
    /// Of a component with this digest, compiled by this engine.
    pub(super) fn new(engine: &Engine, digest: &Digest) -> Self {
        let mut of_engine = Sha256Hasher(Sha256::new());
        FORMAT.hash(&mut of_engine);
        // Wasmtime's version is part of it.
        engine.precompile_compatibility_hash().hash(&mut of_engine);
        let of_engine: [u8; 32] = of_engine.0.finalize().into();
        let hash = Sha256::new().chain_update(of_engine).chain_update(digest.as_str()).finalize().into();
        let component = digest.as_str().trim_start_matches("sha256:");
        let engine = of_engine[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self { file_name: format!("{component}-{engine}.{EXTENSION}"), hash }
    }
}

/// Not the hasher of the standard library: that may differ between two builds of one program.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash: [u8; 32] = self.0.clone().finalize().into();
        u64::from_le_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]])
    }
}

impl Write for Unfinished {
    /// Never fails, so that what is compiled can be used even where it cannot be kept: `finish` says it.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.failed.is_none() {
            self.hasher.update(bytes);
            self.length += bytes.len() as u64;
            self.failed = self.file.write_all(bytes).err();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Refuses what somebody else may have written: compiled code is run as it is.
fn only_ours(path: &Path, metadata: &std::fs::Metadata) -> anyhow::Result<()> {
    #[expect(unsafe_code, reason = "std does not tell who this process is")]
    // SAFETY: it has no arguments, and cannot fail.
    let me = unsafe { libc::geteuid() };
    let (owner, mode) = (metadata.uid(), metadata.mode());
    if owner != me && owner != 0 {
        bail!(
            "{} belongs to user {owner}, not to user {me}, whose process this is; code that somebody else \
             may have written is not run",
            path.display()
        );
    }
    ensure!(
        mode & 0o022 == 0,
        "{} can be written by others (mode {:o}); `chmod go-w` it, and remove what is in it",
        path.display(),
        mode & 0o7777
    );
    Ok(())
}

fn is_missing(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// Reads all of a file that is left, up to `length` bytes, in pieces.
fn read_pieces(file: &mut impl Read, mut length: u64, mut each: impl FnMut(&[u8])) -> std::io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    while length > 0 {
        let most = usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
        let read = file.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        each(&buffer[..read]);
        length -= read as u64;
    }
    Ok(())
}
