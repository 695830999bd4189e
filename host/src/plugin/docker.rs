//! Logins that `docker login`, `podman login` and `oras login` have left.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// The login for a registry in `config.json` of `$DOCKER_CONFIG`, or else of `~/.docker`. Only
/// what is written there itself (`auths`): no program is started to ask for it.
pub(super) fn login(registry: &str) -> Option<(String, String)> {
    let folder = match std::env::var_os("DOCKER_CONFIG") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".docker"),
    };
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).ok()?;
    match serde_json::from_str(&text) {
        Ok(config) => find(&config, registry),
        Err(_) => {
            tracing::warn!(path = %path.display(), "is not JSON: its logins are not used");
            None
        }
    }
}

fn find(config: &Value, registry: &str) -> Option<(String, String)> {
    let of_registry = |(name, _): &(&String, &Value)| host(name) == host(registry);
    let (_, entry) = config.get("auths")?.as_object()?.iter().find(of_registry)?;
    let text = |key| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let (Some(user), Some(password)) = (text("username"), text("password")) {
        return Some((user.to_owned(), password.to_owned()));
    }
    let decoded = String::from_utf8(STANDARD.decode(text("auth")?).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    // Docker pads with NUL.
    Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// Docker writes some names as URLs, and its own registry under another name.
fn host(name: &str) -> &str {
    let name = name.split_once("://").map_or(name, |(_, rest)| rest);
    match name.split('/').next().unwrap_or(name) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_found_by_the_registrys_host_however_it_is_written() {
        let config = serde_json::json!({
            "auths": {
                "registry.example:5000": { "auth": STANDARD.encode("me:pass:word") },
                "https://index.docker.io/v1/": { "username": "hub", "password": "secret" },
                "empty.example": {},
                "odd.example": { "auth": "%%%" },
            },
            "credsStore": "desktop",
        });
        let login = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(find(&config, "registry.example:5000"), login("me", "pass:word"));
        assert_eq!(find(&config, "docker.io"), login("hub", "secret"));
        for registry in ["registry.example", "empty.example", "odd.example"] {
            assert_eq!(find(&config, registry), None, "{registry}");
        }
        assert_eq!(find(&serde_json::json!([]), "docker.io"), None);
    }
}
