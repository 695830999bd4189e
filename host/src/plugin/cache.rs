//! What was fetched from registries, in a folder of this host. (What a host may go back to is
//! kept elsewhere, in `kept.rs`: it does not go for want of room.)
//!
//! Everything is kept under its digest and checked against it when it is read, so that no file
//! has to be trusted, and several hosts may share the folder. Nothing here is ever an error:
//! what cannot be kept or read is fetched again.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;

use super::{Digest, file};

/// Bytes that are kept in all; beyond them, what was not used for the longest time goes.
const MOST_KEPT: u64 = 1 << 30;

#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    most: u64,
}

impl Cache {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, most: MOST_KEPT }
    }

    pub(super) fn component(&self, digest: &Digest) -> Option<Bytes> {
        self.read(&self.component_path(digest), digest)
    }

    pub(super) fn keep_component(&self, digest: &Digest, bytes: &[u8]) {
        self.keep(&self.component_path(digest), bytes);
    }

    pub(super) fn manifest(&self, digest: &Digest) -> Option<Bytes> {
        self.read(&self.manifest_path(digest), digest)
    }

    pub(super) fn keep_manifest(&self, digest: &Digest, bytes: &[u8]) {
        self.keep(&self.manifest_path(digest), bytes);
    }

    fn component_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{}.wasm", digest.hex()))
    }

    fn manifest_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{}.manifest.json", digest.hex()))
    }

    fn read(&self, path: &Path, digest: &Digest) -> Option<Bytes> {
        let bytes = file::read(path).ok()?;
        if Digest::of(&bytes) != *digest {
            tracing::warn!(path = %path.display(), "is damaged and was removed; it will be fetched again");
            let _ = std::fs::remove_file(path);
            return None;
        }
        let now = SystemTime::from(crate::clock::now());
        // So that what is in use is not what goes first.
        let touched = std::fs::File::options().append(true).open(path).map(|file| file.set_modified(now));
        if let Err(error) = touched {
            tracing::debug!(path = %path.display(), %error, "could not be marked as used");
        }
        Some(bytes)
    }

    fn keep(&self, path: &Path, bytes: &[u8]) {
        if let Err(error) = self.write(path, bytes) {
            tracing::warn!(
                path = %path.display(), %error,
                "what was fetched could not be kept: the next start needs the registry again"
            );
        }
    }

    /// Appears whole or not at all, also to another host.
    fn write(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let mut file = tempfile::Builder::new().prefix("incoming-").tempfile_in(&self.folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        self.trim(path)
    }

    fn trim(&self, except: &Path) -> std::io::Result<()> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            // Another host may have removed it since.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        files.sort();
        let mut total = files.iter().map(|(_, length, _)| length).sum::<u64>();
        for (_, length, path) in files {
            if total <= self.most {
                break;
            }
            if path != except && std::fs::remove_file(&path).is_ok() {
                total -= length;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_by_its_digest_and_only_undamaged() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("fetched"));
        let digest = Digest::of(b"component");
        assert_eq!(cache.component(&digest), None);
        cache.keep_component(&digest, b"component");
        assert_eq!(cache.component(&digest).as_deref(), Some(b"component".as_slice()));
        assert_eq!(cache.manifest(&digest), None, "a component is no manifest");
        std::fs::write(cache.component_path(&digest), b"componenT").unwrap();
        assert_eq!(cache.component(&digest), None);
        assert!(!cache.component_path(&digest).exists(), "what is damaged goes");
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { folder: folder.path().to_owned(), most: 250 };
        let [a, b, c] = [[1; 100], [2; 100], [3; 100]];
        let old = |bytes: &[u8], seconds| {
            let path = cache.component_path(&Digest::of(bytes));
            let file = std::fs::File::options().append(true).open(path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        };
        for (bytes, seconds) in [(&a, 1), (&b, 2)] {
            cache.keep_component(&Digest::of(bytes), bytes);
            old(bytes, seconds);
        }
        assert!(cache.component(&Digest::of(&a)).is_some(), "used");
        cache.keep_component(&Digest::of(&c), &c);
        let there = [&a, &b, &c].map(|bytes| cache.component(&Digest::of(bytes)).is_some());
        assert_eq!(there, [true, false, true]);
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_no_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let cache = Cache::new(file.path().join("fetched"));
        cache.keep_component(&Digest::of(b"x"), b"x");
        assert_eq!(cache.component(&Digest::of(b"x")), None);
    }
}
