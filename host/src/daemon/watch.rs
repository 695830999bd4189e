//! Whether the configuration's file, a component's or one of a plugin's secrets has changed.
//!
//! Files are looked at once a second instead of asking the kernel to tell: that finds whatever way a
//! file is replaced (written in place, renamed over, a symbolic link on the way to it pointed
//! elsewhere, as Kubernetes does it), on network file systems too, and a host has a few files.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::component::ComponentRef;
use crate::config::Config;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Tells one content of a file from the next, as far as that is known without reading it. None: it is
/// not there.
type Stamp = Option<(PathBuf, [i64; 6])>;

/// Files as they were at some time.
pub(super) type Stamps = BTreeMap<PathBuf, Stamp>;

/// What is to be loaded anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// The configuration.
    Configuration,
    /// The plugins of the configuration that runs.
    Plugins,
    /// The configuration, which was refused as its files were; and if it still is, the plugins of the one
    /// that runs.
    Refused,
}

/// The files of a configuration, as they were when they last took effect.
pub(super) struct Watch {
    config: PathBuf,
    files: Stamps,
    /// Those of a configuration that was refused, as they were then: one of them may be what was wrong.
    refused: Stamps,
    /// How the last look found them all, where that was otherwise: somebody may be writing still.
    unsettled: Option<Stamps>,
    is_on: bool,
}

impl Watch {
    /// The files as they are now.
    pub(super) async fn new(config: &Config) -> Self {
        let files = stamps(config).await;
        Self {
            config: config.path.clone(),
            files,
            refused: Stamps::new(),
            unsettled: None,
            is_on: config.host.watch,
        }
    }

    /// Watches the files of another configuration. Those that were not watched before are taken for
    /// changed.
    pub(super) fn follow(&mut self, config: &Config) {
        self.is_on = config.host.watch;
        let mut before = std::mem::take(&mut self.files);
        self.files = files_of(config).map(|path| (path.clone(), before.remove(&path).flatten())).collect();
        self.refused.clear();
        self.unsettled = None;
    }

    /// Watches the files of a configuration that was refused as well, which were these before it was
    /// loaded; none where nothing is known of it.
    pub(super) fn note_refused(&mut self, files: Stamps) {
        self.refused = files;
        self.unsettled = None;
    }

    /// True after a configuration was refused, until another one is read.
    pub(super) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Waits until files have changed, and nobody has changed them for one interval. May be dropped at
    /// any time.
    pub(super) async fn changed(&mut self) -> Changed {
        loop {
            if !self.is_on {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(INTERVAL).await;
            if let Some(changed) = self.look().await {
                return changed;
            }
        }
    }

    /// What has changed, and has not done so again since the last look.
    async fn look(&mut self) -> Option<Changed> {
        let paths: BTreeSet<PathBuf> = self.files.keys().chain(self.refused.keys()).cloned().collect();
        let found = look(paths).await;
        let now = |before: &Stamps| -> Stamps {
            before.keys().map(|path| (path.clone(), found.get(path).cloned().flatten())).collect()
        };
        let (files, refused) = (now(&self.files), now(&self.refused));
        if (&files, &refused) == (&self.files, &self.refused) {
            self.unsettled = None;
            return None;
        }
        if self.unsettled.as_ref() != Some(&found) {
            self.unsettled = Some(found);
            return None;
        }
        self.unsettled = None;
        let changed = if files.get(&self.config) != self.files.get(&self.config) {
            Changed::Configuration
        } else if refused == self.refused {
            Changed::Plugins
        } else {
            Changed::Refused
        };
        (self.files, self.refused) = (files, refused);
        Some(changed)
    }
}

/// The files of a configuration as they are now.
pub(super) async fn stamps(config: &Config) -> Stamps {
    look(files_of(config)).await
}

fn files_of(config: &Config) -> impl Iterator<Item = PathBuf> + use<> {
    let components = config.plugins.values().filter_map(|plugin| match &plugin.component {
        ComponentRef::File(path) => Some(path.clone()),
        // A registry tells nobody that a tag has moved.
        ComponentRef::Oci(_) => None,
    });
    let read = config.plugins.values().flat_map(|plugin| plugin.capabilities.files_read());
    components.chain(read.map(Path::to_owned)).chain([config.path.clone()]).collect::<Vec<_>>().into_iter()
}

/// Off the async threads: a file system may take its time.
async fn look(files: impl IntoIterator<Item = PathBuf>) -> Stamps {
    let files: Vec<PathBuf> = files.into_iter().collect();
    let look = move || files.into_iter().map(|path| (path.clone(), stamp(&path))).collect();
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}

fn stamp(path: &Path) -> Stamp {
    let real = path.canonicalize().ok()?;
    let file = real.metadata().ok()?;
    let of = |number: u64| i64::from_ne_bytes(number.to_ne_bytes());
    Some((
        real,
        [of(file.dev()), of(file.ino()), of(file.size()), file.mtime(), file.mtime_nsec(), file.ctime_nsec()],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
    }

    const TEXT: &str = "[plugins.p]\ncomponent = \"current/p.wasm\"\n";

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("innkeeper.toml");
        write(&path, TEXT);
        for release in ["one", "two"] {
            std::fs::create_dir(folder.path().join(release)).unwrap();
            write(&folder.path().join(release).join("p.wasm"), "the same");
        }
        std::os::unix::fs::symlink("one", folder.path().join("current")).unwrap();
        (folder, path)
    }

    fn config(path: &Path) -> Config {
        Config::parse(TEXT, path, &|_| None).unwrap()
    }

    /// What two looks find.
    async fn settled(watch: &mut Watch) -> Option<Changed> {
        assert_eq!(watch.look().await, None);
        watch.look().await
    }

    #[tokio::test]
    async fn a_file_that_is_written_to_is_noticed() {
        let (_folder, path) = folder();
        let mut watch = Watch::new(&config(&path)).await;
        write(&path, "[host]\n");
        assert_eq!(watch.look().await, None, "somebody may be writing still");
        write(&path, "[host]\n\n");
        assert_eq!(watch.look().await, None);
        assert_eq!(watch.look().await, Some(Changed::Configuration));
    }

    #[tokio::test]
    async fn a_link_on_the_way_that_leads_elsewhere_is_noticed() {
        let (folder, path) = folder();
        let mut watch = Watch::new(&config(&path)).await;
        // As Kubernetes does it: nothing is ever half there.
        std::os::unix::fs::symlink("two", folder.path().join("next")).unwrap();
        std::fs::rename(folder.path().join("next"), folder.path().join("current")).unwrap();
        assert_eq!(settled(&mut watch).await, Some(Changed::Plugins));
        assert_eq!(settled(&mut watch).await, None, "a change takes effect once");
    }

    #[tokio::test]
    async fn a_secret_that_is_replaced_is_noticed() {
        let (folder, path) = folder();
        write(&folder.path().join("key"), "hunter2");
        let text = format!(
            "{TEXT}secrets = {{ key = {{ file = \"key\" }} }}\n\
             [plugins.p.http]\nallow = [\"GET https://api.example/\"]\n"
        );
        let mut watch = Watch::new(&Config::parse(&text, &path, &|_| None).unwrap()).await;
        write(&folder.path().join("key"), "hunter33");
        assert_eq!(settled(&mut watch).await, Some(Changed::Plugins));
    }

    #[tokio::test]
    async fn a_file_of_the_next_configuration_is_looked_at_and_one_of_the_last_is_not() {
        let (folder, path) = folder();
        let mut watch = Watch::new(&config(&path)).await;
        let next = TEXT.replace("current", "two");
        watch.follow(&Config::parse(&next, &path, &|_| None).unwrap());
        let new = settled(&mut watch).await;
        assert_eq!(new, Some(Changed::Plugins), "it may have changed before it was watched");
        write(&folder.path().join("one/p.wasm"), "another");
        assert_eq!(settled(&mut watch).await, None);
    }

    #[tokio::test]
    async fn a_file_that_a_refused_configuration_lacks_is_noticed_when_it_is_there() {
        let (folder, path) = folder();
        let mut watch = Watch::new(&config(&path)).await;
        let next = TEXT.replace("current/p.wasm", "late.wasm");
        let refused = Config::parse(&next, &path, &|_| None).unwrap();
        watch.note_refused(stamps(&refused).await);
        assert_eq!(settled(&mut watch).await, None);
        write(&folder.path().join("late.wasm"), "at last");
        assert_eq!(settled(&mut watch).await, Some(Changed::Refused));
        assert_eq!(settled(&mut watch).await, None);
        write(&folder.path().join("one/p.wasm"), "another");
        assert_eq!(settled(&mut watch).await, Some(Changed::Plugins), "the refused one does not name it");
        watch.follow(&config(&path));
        assert_eq!(settled(&mut watch).await, None);
        write(&folder.path().join("late.wasm"), "too late");
        assert_eq!(settled(&mut watch).await, None, "another one was taken on since");
    }
}
