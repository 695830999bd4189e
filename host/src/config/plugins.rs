//! `[plugins.NAME]`.

use std::collections::BTreeMap;
use std::path::Path;

use super::document::Text;
use super::grants::{self, Surroundings};
use super::limits::limits;
use super::table::Table;
use super::{Places, PluginConfig, capabilities, values};
use crate::component::{ComponentRef, Digest, OciRef};
use crate::job::Name;

pub(super) fn plugins(
    tables: Vec<(Name, Table<'_>)>,
    base: &Path,
    around: &Surroundings<'_>,
    places: &mut Places,
) -> BTreeMap<Name, PluginConfig> {
    let mut plugins = BTreeMap::new();
    for (name, table) in tables {
        let component = table.required_text("component", "\"plugins/maintenance.wasm\"");
        let at = component.as_ref().map_or(table.at, |text| text.at);
        places.plugins.insert(name.clone(), table.doc.location(at));
        let component = component.and_then(|text| component_ref(&table, &text, base));
        let digest = table.text("digest").and_then(|text| digest(&table, &text));
        let config =
            table.entry("config").map(|entry| values::to_dotted(&entry, table.doc)).unwrap_or_default();
        let jobs = table.texts("jobs");
        let jobs = jobs.iter().filter_map(|text| around.names.job(table.doc, text)).collect();
        let limits = limits(table.table("limits"));
        let capabilities = capabilities::capabilities(&table, base, &name, &config, places);
        let granted = grants::grants(table.tables("databases"), &name, limits.memory, around, places);
        let (databases, default_database) = granted;
        table.finish();
        if let Some(component) = component {
            let config = PluginConfig {
                component,
                digest,
                config,
                jobs,
                limits,
                capabilities,
                databases,
                default_database,
            };
            plugins.insert(name, config);
        }
    }
    plugins
}

fn component_ref(table: &Table<'_>, text: &Text<'_>, base: &Path) -> Option<ComponentRef> {
    let wrong = |problem: String| {
        table.doc.error(text.at, format!("`component` {problem}"));
        None
    };
    let value = text.value();
    if let Some(reference) = value.strip_prefix(OciRef::SCHEME) {
        return match OciRef::parse(reference) {
            Ok(reference) => Some(ComponentRef::Oci(reference)),
            Err(error) => wrong(error.to_string()),
        };
    }
    // The text is not shown: a URL may have a password.
    if value.contains("://") {
        return wrong(
            "must be a file, or an artifact of a registry as in `oci://registry.example/team/plugin:1.0`; \
             components are not loaded from other URLs"
                .to_owned(),
        );
    }
    Some(ComponentRef::File(base.join(value)))
}

fn digest(table: &Table<'_>, text: &Text<'_>) -> Option<Digest> {
    let digest = Digest::parse(text.value());
    if let Err(error) = digest {
        table.doc.error(text.at, format!("`digest` is none: {error}"));
    }
    digest.ok()
}
