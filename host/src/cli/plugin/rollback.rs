//! `innkeeper plugin rollback`

use crate::cli::{CliError, Global, Report, one_by_one, reload};
use crate::engine::rollback::unfit_jobs;
use crate::job::Name;
use crate::store::{PluginVersion, ReloadWish, Rollback, Store, VERSIONS_KEPT};
use crate::suggest;

/// Versions that are looked back at.
const LOOKED_BACK: u32 = 200;

/// Have every host run the component that a plugin was before.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RollBack {
    /// The plugin.
    name: Name,
    /// The digest of the component to go back to, or its beginning. Default: the one before what runs.
    #[arg(long, value_name = "DIGEST")]
    to: Option<String>,
    /// Why, for whoever looks at the plugins.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Wait until the hosts have done it, and tell how it went.
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(global: &Global, command: RollBack) -> Result<Report, CliError> {
    let RollBack { name, to, reason, wait } = command;
    let store = global.open_store().await?;
    let versions = store.plugin_versions(&name, LOOKED_BACK).await?;
    let Some(configured) = versions.first() else { return Err(unknown(&store, &name).await?) };
    let rollbacks = store.rollbacks().await?;
    let running = running(&rollbacks, &name, &configured.component);
    let target = target(&name, &versions, running, to.as_deref()).map_err(CliError::usage)?;
    let component = &target.component;
    if store.superseded_components(VERSIONS_KEPT).await?.contains(component) {
        return Err(CliError::usage(format!(
            "{component} is older than the last {VERSIONS_KEPT} versions of plugin `{name}`, and hosts keep no more than \
             those: put its file where the configuration names it, and reload"
        )));
    }
    let unfit = unfit_jobs(&store, &name, &target.component).await?;
    if !unfit.is_empty() {
        let refused = format!(
            "plugin `{name}` cannot go back to {}, which not every job can run with",
            target.component
        );
        return Err(CliError::usage(one_by_one([refused].into_iter().chain(unfit))));
    }
    store.roll_back(&name, &target.component, &configured.component, reason.as_deref()).await?;
    let text = format!(
        "Plugin `{name}` goes back to {} (of {}), wherever a configuration names {}.\n",
        target.component, target.loaded_at, configured.component
    );
    let asked = store.request_reload(&ReloadWish::Plugin(name), None).await?;
    if asked.is_empty() {
        let json = serde_json::json!({ "hosts": [] });
        return Ok(Report::new(
            &json,
            format!("{text}There is no live host to tell; one that starts follows it."),
        ));
    }
    reload::answers(&store, &asked, wait, &text).await
}

/// What runs where the configuration names this component.
fn running<'a>(rollbacks: &'a [Rollback], plugin: &Name, configured: &'a str) -> &'a str {
    let rollback = rollbacks.iter().find(|rollback| rollback.plugin == *plugin);
    let rollback = rollback.filter(|rollback| rollback.replaces == configured);
    rollback.map_or(configured, |rollback| &rollback.component)
}

/// What to go back to. `versions`: the newest first, and the first is what the configuration names.
fn target<'a>(
    name: &Name,
    versions: &'a [PluginVersion],
    running: &str,
    to: Option<&str>,
) -> Result<&'a PluginVersion, String> {
    let configured = versions.first().map_or("", |version| &version.component);
    let others = |version: &&PluginVersion| version.component != running && version.component != configured;
    let Some(to) = to else {
        let older = versions.iter().skip_while(|version| version.component != running);
        return older.into_iter().find(others).ok_or_else(|| {
            format!("plugin `{name}` has no version before {running} that the store knows of")
        });
    };
    let mut found: Vec<&PluginVersion> = Vec::new();
    for version in versions {
        let hex = version.component.trim_start_matches("sha256:");
        let is_meant = version.component.starts_with(to) || hex.starts_with(to);
        if is_meant && !found.iter().any(|found| found.component == version.component) {
            found.push(version);
        }
    }
    match found.as_slice() {
        [] => Err(format!("plugin `{name}` was never {to}; it was {}", digests(versions))),
        [version] if version.component == running => Err(format!("plugin `{name}` runs {running} already")),
        [version] if version.component == configured => Err(format!(
            "{configured} is what the configurations name: `innkeeper plugin reload {name} --end-rollback` goes back to it"
        )),
        [version] => Ok(version),
        several => Err(format!("`{to}` may be {}: write more of it", digests(several.iter().copied()))),
    }
}

/// A few of them.
fn digests<'a>(versions: impl IntoIterator<Item = &'a PluginVersion>) -> String {
    let mut digests: Vec<&str> = Vec::new();
    for version in versions {
        if !digests.contains(&version.component.as_str()) {
            digests.push(&version.component);
        }
    }
    let more = if digests.len() > 5 { ", …" } else { "" };
    digests.truncate(5);
    format!("{}{more}", digests.join(", "))
}

async fn unknown(store: &Store, name: &Name) -> Result<CliError, CliError> {
    let plugins = store.plugins().await?;
    let hint = suggest::hint(name.as_str(), plugins.iter().map(|plugin| plugin.name.as_str()));
    Ok(CliError::usage(format!(
        "no host has loaded a plugin `{name}`{hint}, so there is nothing to go back to"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(components: &[&str]) -> Vec<PluginVersion> {
        let version = |component: &&str| PluginVersion {
            component: format!("sha256:{component}"),
            host: "inn-1".to_owned(),
            loaded_at: jiff::Timestamp::UNIX_EPOCH,
        };
        components.iter().map(version).collect()
    }

    fn target_of(components: &[&str], running: &str, to: Option<&str>) -> Result<String, String> {
        let versions = versions(components);
        let name = Name::new("p").unwrap();
        let found = target(&name, &versions, &format!("sha256:{running}"), to);
        found.map(|version| version.component.trim_start_matches("sha256:").to_owned())
    }

    #[test]
    fn each_rollback_goes_one_version_further_back_and_never_forth() {
        let newest_first = &["c", "b", "a"];
        assert_eq!(target_of(newest_first, "c", None).unwrap(), "b");
        assert_eq!(target_of(newest_first, "b", None).unwrap(), "a");
        assert!(target_of(newest_first, "a", None).is_err());
        // One that was deployed again.
        assert_eq!(target_of(&["a", "b", "a"], "a", None).unwrap(), "b");
        assert!(target_of(&["a", "b", "a"], "b", None).unwrap_err().contains("no version before"));
    }

    #[test]
    fn a_version_is_named_by_the_beginning_of_its_digest() {
        let newest_first = &["c1", "b2", "b1", "a1"];
        assert_eq!(target_of(newest_first, "c1", Some("a")).unwrap(), "a1");
        assert_eq!(target_of(newest_first, "c1", Some("sha256:b1")).unwrap(), "b1");
        assert!(target_of(newest_first, "c1", Some("b")).unwrap_err().contains("write more of it"));
        assert!(target_of(newest_first, "c1", Some("d")).unwrap_err().contains("was never d"));
        assert!(target_of(newest_first, "c1", Some("c1")).unwrap_err().contains("already"));
        assert!(target_of(newest_first, "a1", Some("c1")).unwrap_err().contains("--end-rollback"));
    }
}
