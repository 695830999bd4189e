//! Components in files.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use bytes::Bytes;

use super::{MOST_BYTES, SourceError};

/// Reads a file that is not too large, without trusting that it stays as large as it is.
pub(super) fn read(path: &Path) -> Result<Bytes, SourceError> {
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => SourceError::Missing(path.to_owned()),
        _ => SourceError::Unreadable { path: path.to_owned(), error },
    };
    // To open a pipe would wait for somebody who writes to it.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(SourceError::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(unreadable)?;
    let too_large = |bytes| SourceError::TooLarge { origin: path.display().to_string(), bytes };
    let length = file.metadata().map_err(unreadable)?.len();
    if length > MOST_BYTES {
        return Err(too_large(length));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_large_is_refused_before_it_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // A hole: it takes no room on the disk.
        file.as_file().set_len(MOST_BYTES + 1).unwrap();
        let error = read(file.path()).unwrap_err();
        assert!(matches!(error, SourceError::TooLarge { bytes, .. } if bytes == MOST_BYTES + 1), "{error}");
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(folder.path()).unwrap_err(), SourceError::NotAFile(_)));
        assert!(matches!(read(Path::new("/dev/zero")).unwrap_err(), SourceError::NotAFile(_)));
    }
}
