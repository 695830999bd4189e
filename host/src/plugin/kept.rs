//! Components that were run, by their digests: what a host goes back to is not in the file that
//! the configuration names.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Digest, Source};

/// For how long a component is left alone that the store does not know of: a host that shares the folder
/// may be about to put it on record.
pub const UNKNOWN_FOR: Duration = Duration::from_secs(3600);

/// With what the names of files begin that are not kept yet.
const DRAFT: &str = ".draft-";

/// The folder that components are kept in, each in a file `sha256-HEX.wasm`.
#[derive(Clone, Debug)]
pub struct Kept {
    folder: PathBuf,
}

/// A component that was written down, and is kept only when it is on record; dropped, it is gone.
#[derive(Debug)]
pub struct Draft {
    file: tempfile::TempPath,
    path: PathBuf,
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

    /// Writes down a component that is to be kept. None: it is kept already.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn draft(&self, source: &Source) -> io::Result<Option<Draft>> {
        let path = self.path(&source.digest);
        if std::fs::metadata(&path).is_ok_and(|file| file.len() == source.bytes.len() as u64) {
            // It has the same bytes; and nobody takes it for one that has been of no use for long.
            let _ = File::options().append(true).open(&path).map(|file| file.set_modified(now()));
            return Ok(None);
        }
        std::fs::create_dir_all(&self.folder)?;
        // Another host may be writing the same: each has a name of its own until it is kept.
        let mut file = tempfile::Builder::new()
            .prefix(DRAFT)
            .permissions(std::fs::Permissions::from_mode(0o644))
            .tempfile_in(&self.folder)?;
        file.write_all(&source.bytes)?;
        file.as_file().sync_all()?;
        Ok(Some(Draft { file: file.into_temp_path(), path }))
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

    /// The components that were written more than [`UNKNOWN_FOR`] ago. Drafts of that age, which a
    /// host has left when it was killed, are removed.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn old(&self) -> io::Result<Vec<Digest>> {
        let mut old = Vec::new();
        let files = match std::fs::read_dir(&self.folder) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(old),
            Err(error) => return Err(error),
        };
        for file in files {
            let file = file?;
            // Another host may have removed it since.
            let Ok(modified) = file.metadata().and_then(|file| file.modified()) else { continue };
            if now().duration_since(modified).is_ok_and(|age| age > UNKNOWN_FOR) {
                let name = file.file_name().to_string_lossy().into_owned();
                if name.starts_with(DRAFT) {
                    let _ = std::fs::remove_file(file.path());
                }
                let digest = name.strip_suffix(".wasm").map(|name| name.replacen('-', ":", 1));
                old.extend(digest.and_then(|digest| Digest::parse(&digest).ok()));
            }
        }
        Ok(old)
    }
}

impl Draft {
    /// From here on it is kept.
    ///
    /// # Errors
    /// Where the file system does not do it.
    pub fn keep(self) -> io::Result<()> {
        self.file.persist(&self.path).map_err(|error| error.error)
    }
}

fn now() -> SystemTime {
    crate::clock::now().into()
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

    fn keep(kept: &Kept, source: &Source) {
        kept.draft(source).unwrap().expect("it is not kept").keep().unwrap();
    }

    #[test]
    fn what_was_written_long_ago_is_known_by_its_digest_and_drafts_of_that_age_are_gone() {
        let data_dir = tempfile::tempdir().unwrap();
        let kept = Kept::new(data_dir.path());
        assert_eq!(kept.old().unwrap(), []);
        let (one, two) = (source(b"one"), source(b"two"));
        keep(&kept, &one);
        keep(&kept, &two);
        let draft = kept.draft(&source(b"three")).unwrap().unwrap();
        for path in [kept.path(&one.digest), draft.file.to_path_buf()] {
            let file = File::options().append(true).open(path).unwrap();
            file.set_modified(now() - UNKNOWN_FOR - Duration::from_secs(1)).unwrap();
        }
        assert_eq!(kept.old().unwrap(), std::slice::from_ref(&one.digest));
        assert!(!draft.file.exists());
        assert!(kept.draft(&one).unwrap().is_none());
        assert_eq!(kept.old().unwrap(), [], "it was of use again");
    }

    #[test]
    fn what_was_kept_is_found_by_its_digest_until_it_is_removed() {
        let data_dir = tempfile::tempdir().unwrap();
        let kept = Kept::new(data_dir.path());
        let one = source(b"one");
        assert!(kept.read(&one.digest).err().unwrap().contains(one.digest.as_str()));
        keep(&kept, &one);
        assert!(kept.draft(&one).unwrap().is_none(), "it is there");
        assert_eq!(kept.read(&one.digest).unwrap().bytes.as_ref(), b"one");
        drop(kept.draft(&source(b"two")).unwrap());
        assert_eq!(std::fs::read_dir(data_dir.path().join("components")).unwrap().count(), 1, "no drafts");
        assert!(kept.remove(&one.digest).unwrap());
        assert!(!kept.remove(&one.digest).unwrap());
    }

    #[test]
    fn what_was_damaged_is_not_taken_for_what_it_was() {
        let data_dir = tempfile::tempdir().unwrap();
        let kept = Kept::new(data_dir.path());
        let one = source(b"one");
        keep(&kept, &one);
        std::fs::write(kept.path(&one.digest), b"two").unwrap();
        assert!(kept.read(&one.digest).err().unwrap().contains("damaged"));
        std::fs::write(kept.path(&one.digest), b"on").unwrap();
        keep(&kept, &one);
        assert_eq!(kept.read(&one.digest).unwrap().bytes.as_ref(), b"one", "half of it is written anew");
    }
}
