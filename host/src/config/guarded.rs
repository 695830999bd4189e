//! Which folders no plugin may be granted: those that give away what the host runs, believes or
//! keeps secret, and what other grants bound.
//!
//! Links and mounts are seen through, by the identity of each folder on the way. A plugin itself
//! cannot follow a link out of its folder, so links *in* a folder that is granted do not matter.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::document::Document;
use super::places::Places;
use super::same_file::{Identity, Resolved};
use super::{DatabaseConfig, PluginConfig, StoreConfig};
use crate::capability::{CapabilityKey, FolderGrant, Guarded, SecretSource};
use crate::component::ComponentRef;
use crate::database_url::DatabaseUrl;
use crate::job::Name;

/// What is guarded, as the file system has it now.
pub struct Guards(Vec<Guard>);

struct Guard {
    what: String,
    unreadable: bool,
    itself: Identity,
    /// The folders that it is in, and itself.
    within: Vec<Identity>,
    /// The folders whose links decide what it is.
    steered_by: Vec<Identity>,
}

/// Everything that is guarded in a configuration.
pub(super) fn guarded(
    file: &Path,
    data_dir: &Path,
    store: &StoreConfig,
    databases: &BTreeMap<Name, DatabaseConfig>,
    plugins: &BTreeMap<Name, PluginConfig>,
) -> Vec<Guarded> {
    let mut guarded = Vec::new();
    let mut add = |path: &Path, unreadable, what: String| {
        guarded.push(Guarded { path: path.to_owned(), what, unreadable });
    };
    add(file, true, "this configuration file".to_owned());
    add(data_dir, true, "`data_dir` of [host]".to_owned());
    // They may be links to somewhere else.
    for folder in ["compiled", "components", "fetched"] {
        add(&data_dir.join(folder), true, format!("`{folder}` in `data_dir` of [host]"));
    }
    if let DatabaseUrl::Sqlite(path) = &store.url {
        add(path, true, "the store's file".to_owned());
    }
    for (name, database) in databases {
        if let DatabaseUrl::Sqlite(path) = &database.url {
            // Not to be read either: whoever closes a file gives up all locks that this process has on
            // it (<https://sqlite.org/howtocorrupt.html>, 2.2).
            add(path, true, format!("the file of database `{name}`"));
        }
    }
    for (name, plugin) in plugins {
        if let ComponentRef::File(path) = &plugin.component {
            add(path, false, format!("the component of plugin `{name}`"));
        }
        for (secret, grant) in &plugin.capabilities.secrets {
            if let SecretSource::File(path) = &grant.source {
                add(path, true, format!("the file of secret `{secret}` of plugin `{name}`"));
            }
        }
        if let Some(ca) = plugin.capabilities.http.as_ref().and_then(|http| http.ca.as_deref()) {
            add(ca, false, format!("`ca` of plugin `{name}`"));
        }
    }
    add(Path::new("/proc"), true, "/proc, which has the memory and the environment of processes".to_owned());
    guarded
}

/// Tells of each folder that gives away what is guarded, and has those of `plugins` that have
/// folders remember what to look at when they are opened.
pub(super) fn guard(
    plugins: &mut BTreeMap<Name, PluginConfig>,
    guarded: Vec<Guarded>,
    doc: &Document<'_>,
    places: &Places,
) {
    if plugins.values().all(|plugin| plugin.capabilities.files.is_empty()) {
        return;
    }
    let guards = Guards::look(&guarded);
    let guarded: Arc<[Guarded]> = guarded.into();
    for (name, plugin) in plugins {
        let capabilities = &mut plugin.capabilities;
        for folder in &capabilities.files {
            let key = (name.clone(), CapabilityKey::Folder(folder.seen_as.clone()));
            if let (Some(problem), Some(place)) = (guards.problem(folder), places.capabilities.get(&key)) {
                doc.error_at(place.clone(), format!("`path` {problem}"));
            }
        }
        if !capabilities.files.is_empty() {
            capabilities.guarded = guarded.clone();
        }
    }
}

impl Guards {
    /// Looks at the file system.
    #[must_use]
    pub fn look(guarded: &[Guarded]) -> Self {
        let guard = |guarded: &Guarded| {
            let resolved = Resolved::of(&guarded.path);
            let steered_by = resolved.links.iter().filter_map(|link| link.parent());
            Guard {
                what: guarded.what.clone(),
                unreadable: guarded.unreadable,
                itself: Identity::of(&resolved.path),
                within: identities(&resolved.path),
                steered_by: steered_by.flat_map(identities).collect(),
            }
        };
        Self(guarded.iter().map(guard).collect())
    }

    /// Why a folder must not be granted, in words that follow what names it. Looks at the file system
    /// for what the folder is now.
    #[must_use]
    pub fn problem(&self, folder: &FolderGrant) -> Option<String> {
        const ADVICE: &str =
            "grant a folder that has nothing but what the plugin needs, and is in none of these";
        let above = identities(&Resolved::of(&folder.path).path);
        let itself = above.first()?;
        self.0.iter().filter(|guard| folder.writable || guard.unreadable).find_map(|guard| {
            let what = &guard.what;
            let told = if guard.itself == *itself {
                format!("is {what}")
            } else if above.contains(&guard.itself) {
                format!("is in {what}")
            } else if guard.within.contains(itself) {
                format!("has {what} in it")
            } else if folder.writable && guard.steered_by.contains(itself) {
                format!("has a link in it that leads to {what}")
            } else {
                return None;
            };
            Some(match (guard.unreadable, folder.writable) {
                (true, false) => format!("{told}, which no plugin may read as a file: {ADVICE}"),
                _ => format!("{told}, which no plugin may write as a file: {ADVICE}"),
            })
        })
    }
}

/// Of a path and of each folder that it is in, itself first.
fn identities(resolved: &Path) -> Vec<Identity> {
    resolved.ancestors().map(Identity::of).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::Config;

    /// What is wrong with a grant of `path`, in a folder that has a host's things in it.
    fn problem(dir: &Path, path: &str, access: &str) -> Option<String> {
        let text = format!(
            "[host]\ndata_dir = \"data\"\n[databases.app]\nurl = \"sqlite:{0}/dbs/app.db\"\n\
             [store]\nurl = \"sqlite:{0}/records/store.db\"\n\
             [plugins.p]\ncomponent = \"plugins/p.wasm\"\n\
             secrets = {{ key = {{ file = \"keys/key\" }} }}\n[plugins.p.http]\nallow = []\nca = \"cas/ca.pem\"\n\
             [[plugins.p.files]]\npath = \"{path}\"\nas = \"/f\"\naccess = \"{access}\"\n",
            dir.display()
        );
        let errors = Config::parse(&text, &dir.join("etc/innkeeper.toml"), &|_| None).err()?.to_string();
        assert!(errors.contains("innkeeper.toml:14:8: `path` "), "at its place: {errors}");
        Some(errors)
    }

    fn scene() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for folder in
            ["etc/data/compiled", "etc/plugins", "etc/keys", "etc/cas", "dbs", "records", "free/sub"]
        {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        dir
    }

    #[test]
    fn a_folder_over_what_the_host_trusts_is_refused_with_its_place() {
        let dir = scene();
        symlink("../etc/data/compiled", dir.path().join("free/link")).unwrap();
        for (path, what, readable) in [
            ("data", "is `data_dir` of [host]", false),
            ("data/compiled", "is in `data_dir` of [host]", false),
            ("data/not/yet", "is in `data_dir` of [host]", false),
            ("../free/link", "is in `data_dir` of [host]", false),
            ("../free/../etc/./data", "is `data_dir` of [host]", false),
            (".", "has this configuration file in it", false),
            ("..", "has this configuration file in it", false),
            ("/", "has this configuration file in it", false),
            ("../records", "has the store's file in it", false),
            ("../dbs", "has the file of database `app` in it", false),
            ("keys", "has the file of secret `key` of plugin `p` in it", false),
            ("plugins", "has the component of plugin `p` in it", true),
            ("cas", "has `ca` of plugin `p` in it", true),
            ("/proc/self", "is in /proc", false),
        ] {
            let written = problem(dir.path(), path, "read-write").unwrap_or_default();
            assert!(written.contains(what) && written.contains("may write"), "{path}: {written}");
            assert!(written.contains("grant a folder that has nothing but"), "{path}: {written}");
            let read = problem(dir.path(), path, "read-only");
            assert_eq!(read.is_none(), readable, "{path}: {read:?}");
            assert!(read.is_none_or(|read| read.contains(what) && read.contains("may read")), "{path}");
        }
        for path in ["../free", "../free/sub", "../not-yet", "reports"] {
            assert_eq!(problem(dir.path(), path, "read-write"), None, "{path}");
        }
    }

    #[test]
    fn a_folder_with_a_link_that_leads_to_what_the_host_trusts_is_not_to_be_written() {
        let dir = scene();
        fs::remove_dir(dir.path().join("etc/data/compiled")).unwrap();
        symlink("../../free/sub/code", dir.path().join("etc/data/compiled")).unwrap();
        fs::remove_dir(dir.path().join("etc/plugins")).unwrap();
        symlink("../links/current", dir.path().join("etc/plugins")).unwrap();
        fs::create_dir(dir.path().join("links")).unwrap();
        symlink("../elsewhere", dir.path().join("links/current")).unwrap();
        let written = |path: &str| problem(dir.path(), path, "read-write").unwrap_or_default();
        assert!(written("../free/sub").contains("has `compiled` in `data_dir` of [host] in it"));
        assert!(written("../elsewhere").contains("has the component of plugin `p` in it"));
        assert!(written("../links").contains("has a link in it that leads to the component of plugin `p`"));
        assert_eq!(problem(dir.path(), "../links", "read-only"), None);
    }
}
