//! Keeps the cache within its limit.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{EXTENSION, UNFINISHED};

/// Removes files of `folder`, those first that were not used for longest, until the rest have at most
/// `limit` bytes. Returns how many.
pub(super) fn trim(folder: &Path, limit: u64) -> std::io::Result<usize> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            let _ = std::fs::remove_file(entry.path());
        } else if entry.path().extension().is_some_and(|extension| extension == EXTENSION) {
            // Another process may have removed it.
            let Ok(metadata) = entry.metadata() else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            entries.push((used, metadata.len(), entry.path()));
        }
    }
    let too_many = beyond(entries, limit);
    let removed = too_many.iter().filter(|path| std::fs::remove_file(path).is_ok());
    Ok(removed.count())
}

/// Those that have to go: when they were used last, bytes, path.
fn beyond(mut entries: Vec<(SystemTime, u64, PathBuf)>, limit: u64) -> Vec<PathBuf> {
    entries.sort();
    let mut total: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
    let mut removed = Vec::new();
    for (_, bytes, path) in entries {
        if total <= limit {
            break;
        }
        total -= bytes;
        removed.push(path);
    }
    removed
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let entries = || {
            [(3, 40, "c"), (1, 40, "a"), (2, 40, "b")].map(|(t, n, p)| (at(t), n, PathBuf::from(p))).to_vec()
        };
        assert_eq!(beyond(entries(), 120), Vec::<PathBuf>::new());
        assert_eq!(beyond(entries(), 100), [PathBuf::from("a")]);
        assert_eq!(beyond(entries(), 79), [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!(beyond(entries(), 0).len(), 3);
    }

    #[test]
    fn what_was_never_finished_is_removed_and_other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".unfinished-abc", "kept.cwasm", "lock", "notes.txt"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        assert_eq!(trim(folder.path(), 100).unwrap(), 0);
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["kept.cwasm", "lock", "notes.txt"]);
    }
}
