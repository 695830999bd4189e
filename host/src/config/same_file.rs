//! Whether two paths name the same file, through links, `..` and before the file exists.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// What makes a file the one it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// A file that exists, by device and inode: the same for all of its hard links.
    Inode(u64, u64),
    /// One that does not yet, by the path at which it would be created.
    Path(PathBuf),
}

impl Identity {
    /// Looks at the file system.
    pub(super) fn of(path: &Path) -> Self {
        if let Ok(file) = path.metadata() {
            return Self::Inode(file.dev(), file.ino());
        }
        Self::Path(Resolved::of(path).path)
    }
}

/// A path with its links followed.
pub(super) struct Resolved {
    pub(super) path: PathBuf,
    /// Where the links stand that were followed.
    pub(super) links: Vec<PathBuf>,
}

impl Resolved {
    /// Looks at the file system.
    pub(super) fn of(path: &Path) -> Self {
        resolve(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
    }
}

/// Follows links as far as the path exists, also a last one that leads nowhere yet: SQLite
/// creates the file where it points.
fn resolve(path: &Path) -> Resolved {
    // As many as Linux follows (path_resolution(7)).
    let mut links_left = 40;
    let (mut resolved, mut links) = (PathBuf::from("/"), Vec::new());
    let mut rest = parts(path);
    while let Some(part) = rest.pop() {
        if part == ".." {
            resolved.pop();
            continue;
        }
        resolved.push(part);
        if let Ok(target) = resolved.read_link()
            && links_left > 0
        {
            links_left -= 1;
            links.push(resolved.clone());
            resolved.pop();
            if target.is_absolute() {
                resolved = PathBuf::from("/");
            }
            rest.extend(parts(&target));
        }
    }
    Resolved { path: resolved, links }
}

/// The names in a path, the last one first, without `/` and `.`.
fn parts(path: &Path) -> Vec<OsString> {
    let part = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_is_the_same_through_links_and_dots_whether_it_exists_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("data")).unwrap();
        symlink("data", at("link")).unwrap();
        symlink("data/new.db", at("dangling.db")).unwrap();
        let same = |a: &str, b: &str| Identity::of(&at(a)) == Identity::of(&at(b));

        assert!(same("data/new.db", "link/new.db"));
        assert!(same("data/new.db", "dangling.db"));
        assert!(same("data/new.db", "not-there/../data/./new.db"));
        assert!(!same("data/new.db", "data/other.db"));

        fs::write(at("data/new.db"), "").unwrap();
        fs::hard_link(at("data/new.db"), at("hard.db")).unwrap();
        assert!(same("data/new.db", "dangling.db"));
        assert!(same("data/new.db", "hard.db"));
        assert!(!same("data/new.db", "data/other.db"));
    }

    #[test]
    fn a_circle_of_links_ends() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b.db", dir.path().join("a.db")).unwrap();
        symlink("a.db", dir.path().join("b.db")).unwrap();
        assert!(matches!(Identity::of(&dir.path().join("a.db")), Identity::Path(_)));
    }
}
