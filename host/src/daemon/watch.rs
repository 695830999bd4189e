//! Whether the configuration's file, a component's or one of a plugin's secrets has changed.
//!
//! Files are looked at once a second instead of asking the kernel to tell: that finds whatever way a
//! file is replaced (written in place, renamed over, a symbolic link on the way to it pointed
//! elsewhere, as Kubernetes does it), on network file systems too, and a host has a few files.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::component::ComponentRef;
use crate::config::Config;
use crate::store::ReloadWish;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Tells one content of a file from the next, as far as that is known without reading it. None: it is
/// not there.
type Stamp = Option<(PathBuf, [i64; 6])>;

/// The files of a configuration, as they were when they last took effect.
pub(super) struct Watch {
    config: PathBuf,
    files: BTreeMap<PathBuf, Stamp>,
    /// How the last look found them, where that was otherwise: somebody may be writing still.
    unsettled: Option<BTreeMap<PathBuf, Stamp>>,
    is_on: bool,
}

impl Watch {
    /// The files as they are now.
    pub(super) async fn new(config: &Config) -> Self {
        let files = look(files_of(config)).await;
        Self { config: config.path.clone(), files, unsettled: None, is_on: config.host.watch }
    }

    /// Watches the files of another configuration. Those that were not watched before are taken for
    /// changed.
    pub(super) fn follow(&mut self, config: &Config) {
        self.is_on = config.host.watch;
        let mut before = std::mem::take(&mut self.files);
        self.files = files_of(config).map(|path| (path.clone(), before.remove(&path).flatten())).collect();
        self.unsettled = None;
    }

    /// Waits until files have changed, and nobody has changed them for one interval. May be dropped at
    /// any time.
    pub(super) async fn changed(&mut self) -> ReloadWish {
        loop {
            if !self.is_on {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(INTERVAL).await;
            if let Some(wish) = self.look().await {
                return wish;
            }
        }
    }

    /// What has changed, and has not done so again since the last look.
    async fn look(&mut self) -> Option<ReloadWish> {
        let found = look(self.files.keys().cloned().collect::<Vec<_>>()).await;
        if found == self.files {
            self.unsettled = None;
            return None;
        }
        if self.unsettled.as_ref() != Some(&found) {
            self.unsettled = Some(found);
            return None;
        }
        self.unsettled = None;
        let is_same = found.get(&self.config) == self.files.get(&self.config);
        self.files = found;
        Some(if is_same { ReloadWish::Plugins } else { ReloadWish::Configuration })
    }
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
async fn look(files: impl IntoIterator<Item = PathBuf>) -> BTreeMap<PathBuf, Stamp> {
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
    async fn settled(watch: &mut Watch) -> Option<ReloadWish> {
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
        assert_eq!(watch.look().await, Some(ReloadWish::Configuration));
    }

    #[tokio::test]
    async fn a_link_on_the_way_that_leads_elsewhere_is_noticed() {
        let (folder, path) = folder();
        let mut watch = Watch::new(&config(&path)).await;
        // As Kubernetes does it: nothing is ever half there.
        std::os::unix::fs::symlink("two", folder.path().join("next")).unwrap();
        std::fs::rename(folder.path().join("next"), folder.path().join("current")).unwrap();
        assert_eq!(settled(&mut watch).await, Some(ReloadWish::Plugins));
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
        assert_eq!(settled(&mut watch).await, Some(ReloadWish::Plugins));
    }

    #[tokio::test]
    async fn a_file_of_the_next_configuration_is_looked_at_and_one_of_the_last_is_not() {
        let (folder, path) = folder();
        let mut watch = Watch::new(&config(&path)).await;
        let next = TEXT.replace("current", "two");
        watch.follow(&Config::parse(&next, &path, &|_| None).unwrap());
        let new = settled(&mut watch).await;
        assert_eq!(new, Some(ReloadWish::Plugins), "it may have changed before it was watched");
        write(&folder.path().join("one/p.wasm"), "another");
        assert_eq!(settled(&mut watch).await, None);
    }
}
