//! The arrows between the rooms of the host go one way. `ARCHITECTURE.md` draws them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// No I/O and no clock: they know each other and nothing else.
const PURE: &[&str] = &[
    "args",
    "bounds",
    "calendar",
    "capability",
    "catch_up",
    "component",
    "database_url",
    "execution",
    "job",
    "limits",
    "name",
    "policy",
    "retry",
    "schedule",
    "suggest",
];

/// What each other room may use besides [`PURE`].
const MAY_USE: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("telemetry", &[]),
    ("config", &[]),
    ("plugin", &["clock"]),
    ("store", &["clock"]),
    ("interfaces", &["clock", "config"]),
    ("runtime", &["clock", "plugin", "interfaces"]),
    ("engine", &["clock", "config", "plugin", "store", "interfaces", "runtime"]),
    ("http", &["engine"]),
    ("check", &["config", "engine"]),
    ("wire", &["plugin", "store"]),
    (
        "daemon",
        &[
            "check",
            "clock",
            "config",
            "engine",
            "http",
            "interfaces",
            "plugin",
            "runtime",
            "store",
            "telemetry",
        ],
    ),
    ("cli", &["check", "clock", "config", "engine", "interfaces", "store", "telemetry", "wire"]),
];

/// Files that may use more than their room.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("cli/serve.rs", "daemon"),
    ("cli/check.rs", "runtime"),
    ("cli/compile_component.rs", "runtime"),
    ("cli/plugin.rs", "runtime"),
    ("cli/plugin/compile.rs", "plugin"),
    ("cli/plugin/compile.rs", "runtime"),
    ("cli/plugin/inspect.rs", "plugin"),
    ("cli/plugin/inspect.rs", "runtime"),
];

#[test]
fn no_room_uses_one_that_it_must_not_know() {
    let source = source();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for file in rust_files(&source) {
        let relative = file.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
        let room = relative.split(['/', '.']).next().unwrap().to_owned();
        if room == "lib" || room == "main" {
            continue;
        }
        for used in used_rooms(&std::fs::read_to_string(&file).unwrap()) {
            let allowed = used == room
                || PURE.contains(&used.as_str())
                || may_use(&room).contains(&used.as_str())
                || EXCEPTIONS.contains(&(relative.as_str(), used.as_str()));
            if !allowed {
                wrong.push(format!("{relative} uses {used}"));
            }
        }
        seen.insert(room);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let known =
        PURE.iter().copied().chain(MAY_USE.iter().map(|(room, _)| *room)).map(str::to_owned).collect();
    assert_eq!(seen, known, "every room is listed here, and every listed room is there");
}

#[test]
fn pure_rooms_touch_neither_files_nor_the_clock_nor_a_database() {
    let forbidden = [
        "std::fs",
        "std::net",
        "std::env",
        "tokio",
        "sqlx",
        "wasmtime",
        "Timestamp::now",
        "Zoned::now",
        "Instant::now",
    ];
    for room in PURE {
        let text = std::fs::read_to_string(source().join(format!("{room}.rs"))).unwrap();
        for word in forbidden {
            assert!(!text.contains(word), "{room}.rs has {word}");
        }
    }
}

#[test]
fn no_file_is_called_mod_or_a_word_for_anything() {
    for file in rust_files(&source()) {
        let name = file.file_stem().unwrap().to_str().unwrap();
        assert!(!["mod", "util", "utils", "common", "helpers", "misc"].contains(&name), "{}", file.display());
    }
}

fn may_use(room: &str) -> &'static [&'static str] {
    MAY_USE.iter().find(|(name, _)| *name == room).map_or(&[], |(_, rooms)| *rooms)
}

/// The first name after every `crate::`, in code and in nested `use` lists alike.
fn used_rooms(text: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for rest in line.split("crate::").skip(1) {
            let name = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
            if !name.is_empty() {
                rooms.insert(name);
            }
        }
    }
    rooms
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/src")
}
