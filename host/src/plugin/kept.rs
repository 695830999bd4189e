//! Components that were run, by their digests: what a host goes back to is not in the file that
//! the configuration names.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::{Digest, Source};

/// The folder that components are kept in, each in a file `sha256-HEX.wasm`.
#[derive(Clone, Debug)]
pub struct Kept {
    folder: PathBuf,
}

impl Kept {
    /// In the folder of a host's data.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("components") }
    }

    /// The file of a component, whether it is there or not.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{}.wasm", digest.as_str().replace(':', "-")))
    }

    /// Keeps a component. What is there already is left alone: it has the same bytes.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn keep(&self, source: &Source) -> io::Result<()> {
        let path = self.path(&source.digest);
        let is_there = std::fs::metadata(&path).is_ok_and(|file| file.len() == source.bytes.len() as u64);
        if is_there {
            return Ok(());
        }
        std::fs::create_dir_all(&self.folder)?;
        // Another host may be writing the same: each has a name of its own until it is whole.
        let draft =
            self.folder.join(format!(".{}.{}", source.digest.as_str().replace(':', "-"), std::process::id()));
        let mut file = std::fs::File::create(&draft)?;
        let written = file.write_all(&source.bytes).and_then(|()| file.sync_all());
        let written = written.and_then(|()| std::fs::rename(&draft, &path));
        if written.is_err() {
            let _ = std::fs::remove_file(&draft);
        }
        written
    }

    /// A component that was kept.
    ///
    /// # Errors
    /// In words for the operator, where it is not there, or is not what its name says.
    pub fn read(&self, digest: &Digest) -> Result<Source, String> {
        let path = self.path(digest);
        let source = Source::read(&path).map_err(|error| match error {
            super::SourceError::Missing(_) => {
                format!("this host has not kept component {digest}: there is no file {}", path.display())
            }
            error => error.to_string(),
        })?;
        if source.digest == *digest {
            Ok(source)
        } else {
            Err(format!("{} is damaged: its digest is {}", path.display(), source.digest))
        }
    }

    /// Removes a component, if it is there.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub fn remove(&self, digest: &Digest) -> io::Result<bool> {
        match std::fs::remove_file(self.path(digest)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(bytes: &[u8]) -> Source {
        Source {
            origin: String::new(),
            digest: Digest::of(bytes),
            manifest: None,
            bytes: bytes.to_vec().into(),
        }
    }

    #[test]
    fn what_was_kept_is_found_by_its_digest_until_it_is_removed() {
        let data_dir = tempfile::tempdir().unwrap();
        let kept = Kept::new(data_dir.path());
        let one = source(b"one");
        assert!(kept.read(&one.digest).err().unwrap().contains(one.digest.as_str()));
        kept.keep(&one).unwrap();
        kept.keep(&one).unwrap();
        assert_eq!(kept.read(&one.digest).unwrap().bytes.as_ref(), b"one");
        assert_eq!(std::fs::read_dir(data_dir.path().join("components")).unwrap().count(), 1, "no drafts");
        assert!(kept.remove(&one.digest).unwrap());
        assert!(!kept.remove(&one.digest).unwrap());
    }

    #[test]
    fn what_was_damaged_is_not_taken_for_what_it_was() {
        let data_dir = tempfile::tempdir().unwrap();
        let kept = Kept::new(data_dir.path());
        let one = source(b"one");
        kept.keep(&one).unwrap();
        std::fs::write(kept.path(&one.digest), b"two").unwrap();
        assert!(kept.read(&one.digest).err().unwrap().contains("damaged"));
        std::fs::write(kept.path(&one.digest), b"on").unwrap();
        kept.keep(&one).unwrap();
        assert_eq!(kept.read(&one.digest).unwrap().bytes.as_ref(), b"one", "half of it is written anew");
    }
}
