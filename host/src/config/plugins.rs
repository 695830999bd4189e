//! `[plugins.NAME]`.

use std::collections::BTreeMap;
use std::path::Path;

use super::grants::{self, Surroundings};
use super::limits::limits;
use super::table::Table;
use super::{Places, PluginConfig, capabilities, values};
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
            let component = base.join(component.value());
            plugins.insert(
                name,
                PluginConfig { component, config, jobs, limits, capabilities, databases, default_database },
            );
        }
    }
    plugins
}
