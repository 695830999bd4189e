//! What holds in a store after every step, whatever was asked of it.

use crate::tables::{Rows, Tables};

type Row = std::collections::BTreeMap<String, String>;

/// Every rule that is broken, in words.
pub fn broken(before: &Tables, after: &Tables) -> Vec<String> {
    let mut broken = Vec::new();
    each_execution_is_in_one_place(after, &mut broken);
    each_start_has_one_end_or_a_live_session(after, &mut broken);
    attempts_count_what_was_not_released(after, &mut broken);
    keys_are_of_unfinished_executions(after, &mut broken);
    history_is_only_added_to(before, after, &mut broken);
    the_dead_stay_dead(before, after, &mut broken);
    broken
}

/// What came too late may be put on record as such, and changes nothing else.
pub fn broken_by_what_came_too_late(before: &Tables, after: &Tables) -> Vec<String> {
    let changed = after.names().filter(|table| *table != "stale" && after.rows(table) != before.rows(table));
    changed.map(|table| format!("what came too late changed `{table}`")).collect()
}

fn each_execution_is_in_one_place(tables: &Tables, broken: &mut Vec<String>) {
    for execution in tables.rows("execution") {
        let id = &execution["id"];
        let of_it = |table| tables.rows(table).iter().filter(move |row| row["execution_id"] == *id);
        let ready = of_it("ready").count();
        let waiting = of_it("waiting").count();
        let running = of_it("start").filter(|start| end_of(tables, start).is_none()).count();
        let ended = of_it("completion").filter(|end| end["final"] == "1").count();
        if ready + waiting + running + ended != 1 {
            broken.push(format!(
                "execution {id} is {ready} times ready, {waiting} times waiting, {running} times running and \
                 has {ended} final outcomes"
            ));
        }
    }
}

fn each_start_has_one_end_or_a_live_session(tables: &Tables, broken: &mut Vec<String>) {
    for start in tables.rows("start") {
        let sessions = tables.rows("host_session");
        let session = sessions.iter().find(|session| session["id"] == start["session_id"]);
        let lives = session.is_some_and(|session| session["dead_at"] == "null");
        let ends = tables.rows("completion").iter().filter(|end| end["lease"] == start["lease"]).count();
        if ends > 1 || (ends == 0 && !lives) {
            broken.push(format!("{start:?} has {ends} ends, and its session lives: {lives}"));
        }
    }
    for end in tables.rows("completion").iter().filter(|end| end["lease"] != "0") {
        let of = |start: &&Row| {
            ["lease", "execution_id", "attempt"].iter().all(|column| start[*column] == end[*column])
        };
        if !tables.rows("start").iter().any(|start| of(&start)) {
            broken.push(format!("{end:?} is the end of no start"));
        }
    }
}

fn attempts_count_what_was_not_released(tables: &Tables, broken: &mut Vec<String>) {
    let released = |start: &&Row| end_of(tables, start).is_some_and(|end| end["outcome"] == "released");
    let counted = |execution: &str, before: usize| {
        let starts = tables.rows("start").iter().filter(|start| start["execution_id"] == execution);
        starts.filter(|start| lease(start) < before && !released(start)).count()
    };
    for start in tables.rows("start") {
        let attempt = counted(&start["execution_id"], lease(start)) + 1;
        if start["attempt"] != attempt.to_string() {
            broken.push(format!("{start:?} is attempt {attempt}"));
        }
        let execution = tables.rows("execution").iter().find(|row| row["id"] == start["execution_id"]);
        let most = execution.map_or(0, |execution| execution["max_attempts"].parse().unwrap());
        if attempt > most {
            broken.push(format!("{start:?} is one of {most} attempts at most"));
        }
    }
    for queued in tables.rows("ready").iter().chain(tables.rows("waiting")) {
        let attempts = counted(&queued["execution_id"], usize::MAX);
        if queued["attempt"] != attempts.to_string() {
            broken.push(format!("{queued:?}, where {attempts} attempts count"));
        }
    }
}

fn keys_are_of_unfinished_executions(tables: &Tables, broken: &mut Vec<String>) {
    let is_final = |execution: &Row| {
        let mut ends = tables.rows("completion").iter();
        ends.any(|end| end["execution_id"] == execution["id"] && end["final"] == "1")
    };
    let mut expected: Vec<(&str, &str, &str)> = Vec::new();
    for execution in tables.rows("execution") {
        if execution["unique_key"] != "null" && !is_final(execution) {
            expected.push((&execution["job_id"], &execution["unique_key"], &execution["id"]));
        }
    }
    let mut held: Vec<(&str, &str, &str)> = Vec::new();
    for row in tables.rows("unique_key") {
        held.push((&row["job_id"], &row["key"], &row["execution_id"]));
    }
    expected.sort_unstable();
    held.sort_unstable();
    if held != expected {
        broken.push(format!("the unique keys are {held:?}, not {expected:?}"));
    }
}

fn history_is_only_added_to(before: &Tables, after: &Tables, broken: &mut Vec<String>) {
    for table in ["execution", "start", "completion", "log", "stale"] {
        let gone = |rows: &Rows| rows.iter().find(|row| !after.rows(table).contains(row)).cloned();
        if let Some(row) = gone(before.rows(table)) {
            broken.push(format!("{row:?} is no longer in `{table}`"));
        }
    }
}

fn the_dead_stay_dead(before: &Tables, after: &Tables, broken: &mut Vec<String>) {
    for dead in before.rows("host_session").iter().filter(|session| session["dead_at"] != "null") {
        if !after.rows("host_session").contains(dead) {
            broken.push(format!("{dead:?} has changed"));
        }
    }
}

fn end_of<'a>(tables: &'a Tables, start: &Row) -> Option<&'a Row> {
    tables.rows("completion").iter().find(|end| end["lease"] == start["lease"])
}

/// Their names are in the order of the leases.
fn lease(row: &Row) -> usize {
    row["lease"].trim_start_matches("lease ").parse().unwrap()
}
