//! `[plugins.NAME]`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::references::Names;
use super::table::Table;
use super::{GrantConfig, LONGEST_TIMEOUT, Limits, Places, PluginConfig, SHORTEST_TIMEOUT, values};
use crate::job::Name;

const MIB: u64 = 1 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 64 * MIB, timeout: Duration::from_secs(300) }
    }
}

pub(super) fn plugins(
    tables: Vec<(Name, Table<'_>)>,
    base: &Path,
    names: &Names,
    places: &mut Places,
) -> BTreeMap<Name, PluginConfig> {
    let mut plugins = BTreeMap::new();
    for (name, table) in tables {
        let component = table.required_text("component", "\"plugins/maintenance.wasm\"");
        let at = component.as_ref().map_or(table.at, |text| text.at);
        places.plugins.insert(name.clone(), table.doc.location(at));
        let config = table.entry("config").map(|entry| values::to_dotted(&entry, table.doc));
        let jobs = table.texts("jobs");
        let jobs = jobs.iter().filter_map(|text| names.job(table.doc, text)).collect();
        let limits = limits(table.table("limits"));
        let (databases, default_database) = grants(table.tables("databases"), names);
        table.finish();
        if let Some(component) = component {
            let component = base.join(component.value());
            let config = config.unwrap_or_default();
            plugins
                .insert(name, PluginConfig { component, config, jobs, limits, databases, default_database });
        }
    }
    plugins
}

fn limits(table: Option<Table<'_>>) -> Limits {
    let defaults = Limits::default();
    let Some(table) = table else { return defaults };
    let memory = table.bytes("memory", defaults.memory, MIB..=4096 * MIB);
    let timeout = table.duration("timeout", defaults.timeout, SHORTEST_TIMEOUT..=LONGEST_TIMEOUT);
    table.finish();
    Limits { memory, timeout }
}

/// The databases of a plugin and its default one. A single one is the default unless it says
/// otherwise.
fn grants(tables: Vec<Table<'_>>, names: &Names) -> (BTreeMap<Name, GrantConfig>, Option<Name>) {
    let single = tables.len() == 1;
    let (mut granted, mut default) = (BTreeMap::new(), None);
    for table in tables {
        let text = table.required_text("name", "\"app\"");
        let name = text.as_ref().and_then(|text| names.database(table.doc, text));
        let is_default = table.boolean("default");
        if is_default == Some(true) && default.is_some() {
            table.doc.error(table.at, "a plugin has one default database at most: leave one `default` out");
        }
        if let (Some(text), Some(name)) = (text, name) {
            if is_default.unwrap_or(single) && default.is_none() {
                default = Some(name.clone());
            }
            if granted.insert(name, GrantConfig::default()).is_some() {
                table.doc.error(text.at, format!("the database `{}` is granted twice", text.written));
            }
        }
        table.finish();
    }
    (granted, default)
}
