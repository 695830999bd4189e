//! `[registries."HOST"]`: how a registry is asked for components.

use std::collections::BTreeMap;

use super::table::Table;
use crate::component::{self, RegistryAccess};

pub(super) fn registries(root: &Table<'_>) -> BTreeMap<String, RegistryAccess> {
    let host = |host: &str| {
        if component::is_registry(host) {
            return Ok(host.to_owned());
        }
        Err(format!(
            "`{host}` is no registry: write its host, and its port if it has one, as in \
             [registries.\"registry.example:5000\"]"
        ))
    };
    let tables = root.named_by("registries", host).into_iter();
    tables.map(|(host, table)| (host, access(table))).collect()
}

fn access(table: Table<'_>) -> RegistryAccess {
    let (username, password) = (table.text("username"), table.text("password"));
    match (&username, &password) {
        (Some(_), None) if table.entry("password").is_none() => {
            table.missing("password", "\"${REGISTRY_PASSWORD}\"");
        }
        (None, Some(_)) if table.entry("username").is_none() => {
            table.missing("username", "\"${REGISTRY_USER}\"");
        }
        _ => {}
    }
    let login = username.zip(password);
    let login = login.map(|(user, password)| (user.value().to_owned(), password.value().to_owned()));
    let insecure = table.boolean("insecure");
    table.finish();
    RegistryAccess { login, insecure }
}
