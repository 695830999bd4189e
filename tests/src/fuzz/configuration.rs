//! The operator's file: whatever is in it, it is read or refused with places, and what is read can be
//! checked.

mod text;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use innkeeper::check::difference::{Difference, Stored};
use innkeeper::check::durations::{self, Taken};
use innkeeper::check::warnings;
use innkeeper::config::{Config, ConfigErrors, EXAMPLE};
use innkeeper::schedule::Schedule;
use jiff::Timestamp;

use super::{Random, Reached, Target, bytes};

/// What every environment variable holds, and no message may show.
const SECRET: &str = "hunter2-0c9f";

/// The file's name, which the places of errors repeat.
const FILE: &str = "fuzz/innkeeper.toml";

/// Fire times of each schedule that are looked at.
const FIRES: usize = 20;

/// `Config::parse`, and what `innkeeper check --offline` makes of the result.
pub struct Configuration {
    now: Timestamp,
}

impl Target for Configuration {
    const NAME: &'static str = "configuration";
    const PATIENCE: Duration = Duration::from_secs(60);
    const MEMORY: u64 = 256 << 20;

    fn start() -> Self {
        // A day before the clocks of Europe change, which the forecast looks at.
        Self { now: "2026-03-28T12:00:00Z".parse().expect("a time") }
    }

    fn seeds() -> Vec<Vec<u8>> {
        let mut seeds = vec![uncommented(EXAMPLE), crowd(), EXAMPLE.to_owned()];
        for file in documents() {
            seeds.extend(blocks(&file));
        }
        let refused = include_str!("../../../host/src/config/tests/errors.txt");
        let case = |case: &str| Some(case.split_once("----\n")?.0.to_owned());
        seeds.extend(refused.split("====\n").filter_map(case));
        seeds.into_iter().map(String::into_bytes).collect()
    }

    fn mutate(random: &mut Random, pool: &[Vec<u8>]) -> Vec<u8> {
        // Of the whole example and of the crowd, which come first, something is in order for longest.
        let input = match random.u8(..6) {
            0 | 1 => &pool[0],
            2 => &pool[1],
            _ => bytes::choose(random, pool),
        };
        let input = input.to_vec();
        let other = bytes::choose(random, pool);
        match random.u8(..10) {
            0 => bytes::mutate(random, input, other),
            _ => text::mutate(random, &String::from_utf8_lossy(&input), &String::from_utf8_lossy(other))
                .into_bytes(),
        }
    }

    fn run(&mut self, input: &[u8]) -> Result<Reached, String> {
        let Ok(text) = std::str::from_utf8(input) else { return not_text(input) };
        let path = Path::new(FILE);
        match Config::parse(text, path, &environment) {
            Err(errors) => refused(text, path, &errors),
            Ok(config) => self.accepted(text, path, &config),
        }
    }
}

impl Configuration {
    fn accepted(&self, text: &str, path: &Path, config: &Config) -> Result<Reached, String> {
        let mut features = Vec::new();
        let told = warnings(config, self.now);
        features.extend(forms(text, path, &told)?);
        let looked_at = durations::worth_a_look(config, self.now);
        let taken = Taken { median: Duration::from_secs(3_600), count: 20 };
        let history: BTreeMap<_, _> = looked_at.into_iter().map(|name| (name, taken)).collect();
        let told = ConfigErrors::new(durations::warnings(config, self.now, &history));
        features.extend(forms(text, path, &told)?);
        for schedule in config.jobs.values().filter_map(|job| job.schedule.as_ref()) {
            fires_go_on(schedule, self.now)?;
        }
        // Started twice with the same file, a host changes nothing the second time.
        let owner = &config.host.owner;
        let owner = || owner.clone();
        let jobs: Vec<_> =
            config.jobs.values().map(|job| Stored { definition: job, owner: owner() }).collect();
        let queues = config.queues.values().cloned();
        let queues: Vec<_> = queues.map(|queue| Stored { definition: queue, owner: owner() }).collect();
        let difference = Difference::new(config, &jobs, &queues);
        if !difference.is_empty() {
            return Err(format!("a file differs from itself: {difference}"));
        }
        let _ = Difference::new(config, &[], &[]).to_string();
        let parts = [config.databases.len(), config.plugins.len(), config.queues.len(), config.jobs.len()];
        features.push(format!("accepted with {:?}", parts.map(|count| count.min(3))));
        Ok(Reached { stage: "accepted".to_owned(), features })
    }
}

fn refused(text: &str, path: &Path, errors: &ConfigErrors) -> Result<Reached, String> {
    if errors.is_empty() {
        return Err("refused, and no error says why".to_owned());
    }
    let features = forms(text, path, errors)?;
    let is_toml = toml_is_fine(errors);
    let stage = if is_toml { "refused for what it says" } else { "refused as TOML" };
    Ok(Reached { stage: stage.to_owned(), features })
}

/// What the parser of TOML says names no key of ours.
fn toml_is_fine(errors: &ConfigErrors) -> bool {
    errors.iter().any(|error| error.message.contains('`') && !error.message.contains("expected"))
}

/// A file that is no text is read from the disk, as everywhere.
fn not_text(input: &[u8]) -> Result<Reached, String> {
    let mut file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    file.write_all(input).map_err(|error| error.to_string())?;
    match Config::load(file.path()) {
        Ok(_) => Err("a file that is not UTF-8 was read".to_owned()),
        Err(errors) => {
            forms(&String::from_utf8_lossy(input), file.path(), &errors)?;
            Ok(Reached { stage: "not UTF-8".to_owned(), features: Vec::new() })
        }
    }
}

/// Each problem is at a place of the file and shows nothing of the environment. Their forms.
fn forms(text: &str, path: &Path, problems: &ConfigErrors) -> Result<Vec<String>, String> {
    let lines: Vec<&str> = text.split('\n').collect();
    let mut forms = Vec::new();
    for problem in problems.iter() {
        let place = &problem.location;
        let line = place.line.checked_sub(1).and_then(|line| lines.get(line));
        let is_there = line.is_some_and(|line| (1..=line.chars().count() + 1).contains(&place.column));
        if place.file != path || !is_there {
            return Err(format!("a problem at a place that the file does not have: {problem}"));
        }
        if problem.message.is_empty() {
            return Err(format!("a problem without a message: {problem}"));
        }
        if problem.message.contains(SECRET) {
            return Err(format!("a message shows the environment: {problem}"));
        }
        forms.push(bytes::form(&problem.message));
    }
    Ok(forms)
}

/// Each fire is later than the one before, and has sentences that explain it.
fn fires_go_on(schedule: &Schedule, now: Timestamp) -> Result<(), String> {
    let mut last = now;
    for _ in 0..FIRES {
        let Some(fire) = schedule.next_fire(last) else { break };
        if fire.at <= last {
            return Err(format!("a fire at {} is next after {last}", fire.at));
        }
        if schedule.next_after(last) != Some(fire.at) {
            return Err(format!("two answers for the fire after {last}"));
        }
        last = fire.at;
    }
    let _ = (schedule.last_until(now), schedule.after_finish(now), schedule.sentences());
    Schedule::new(&schedule.spec()).map(drop).map_err(|error| format!("a schedule is refused later: {error}"))
}

fn environment(name: &str) -> Option<String> {
    let value = match name {
        // As the example takes for granted: some of its settings are for SQLite only.
        "APP_DATABASE_URL" => format!("sqlite:{SECRET}.db"),
        _ if name.ends_with("URL") => format!("postgres://inn:{SECRET}@localhost/inn"),
        "UNSET" => return None,
        "EMPTY" => String::new(),
        _ => SECRET.to_owned(),
    };
    Some(value)
}

/// The example with every setting in use: a comment without a space after its `#` is one.
fn uncommented(example: &str) -> String {
    let setting = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting.to_owned() + "\n",
        _ if line.starts_with('#') => String::new(),
        _ => line.to_owned() + "\n",
    };
    example.lines().map(setting).collect()
}

/// More jobs than the host runs at once, at the same instants, around changes of the clock, and in limits
/// that promise more than there is room for: what `check` warns of.
fn crowd() -> String {
    const SCHEDULES: &[&str] = &[
        "{ cron = \"0 3 * * *\", timezone = \"Europe/Berlin\" }",
        "{ cron = \"30 2 * * *\", timezone = \"Europe/Berlin\", gap = \"skip\", overlap = \"both\" }",
        "{ cron = \"*/15 * * * *\", timezone = \"America/St_Johns\" }",
        "{ every = \"15m\" }",
        "{ every = \"1s\", jitter = \"500ms\" }",
        "{ at = \"2026-03-29T02:30:00\", timezone = \"Europe/Berlin\" }",
    ];
    let mut text = "[host]\nconcurrency = 4\n[databases.app]\nurl = \"sqlite:app.db\"\nmax_connections = 2\n\
                    [plugins.p]\ncomponent = \"p.wasm\"\n[[plugins.p.databases]]\nname = \"app\"\n\
                    max_open_transactions = 5\n[queues.a]\nlimit = 50\nlimit_per_host = 40\n"
        .to_owned();
    for number in 0..24 {
        let schedule = SCHEDULES[number % SCHEDULES.len()];
        text += &format!(
            "[jobs.j{number}]\nplugin = \"p\"\nhandler = \"h\"\nschedule = {schedule}\nqueue = \"a\"\n\
             timeout = \"1h\"\nconcurrency = {{ limit = {} }}\n",
            number + 1
        );
    }
    text
}

/// README.md and the pages of `docs`.
fn documents() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let pages = std::fs::read_dir(root.join("docs")).expect("the documentation is there");
    let mut paths: Vec<_> = pages.map(|page| page.expect("the folder can be read").path()).collect();
    paths.push(root.join("README.md"));
    paths.sort();
    paths.iter().map(|path| std::fs::read_to_string(path).expect("a page is text")).collect()
}

/// The blocks of TOML in a page, each alone, and each with a plugin and a database beside it as the
/// text around it takes for granted.
fn blocks(page: &str) -> Vec<String> {
    const AROUND: &str = "[databases.app]\nurl = \"sqlite:app.db\"\n[plugins.maintenance]\ncomponent = \
                          \"maintenance.wasm\"\n";
    let mut blocks = Vec::new();
    for rest in page.split("```toml\n").skip(1) {
        let block = rest.split("```").next().unwrap_or_default();
        let jobs = block.replace("\nschedule =", "\nplugin = \"maintenance\"\nhandler = \"h\"\nschedule =");
        blocks.extend([block.to_owned(), format!("{AROUND}{jobs}")]);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_beyond_the_file_is_found() {
        let path = Path::new(FILE);
        let at = |line, column| {
            let location = innkeeper::config::Location { file: path.to_owned(), line, column };
            forms("a\nbc", path, &ConfigErrors::one(location, "wrong")).is_ok()
        };
        assert!(at(1, 1) && at(1, 2) && at(2, 3));
        assert!(!at(0, 0) && !at(1, 3) && !at(3, 1) && !at(2, 0));
    }

    #[test]
    fn most_seeds_of_the_documentation_are_read_as_toml() {
        let mut target = Configuration::start();
        let seeds = Configuration::seeds();
        let stages: Vec<String> =
            seeds.iter().map(|seed| target.run(seed).expect("it is fine").stage).collect();
        assert!(seeds.len() > 100, "{}", seeds.len());
        assert!(stages.iter().filter(|stage| *stage == "accepted").count() > 10, "{stages:?}");
    }
}
