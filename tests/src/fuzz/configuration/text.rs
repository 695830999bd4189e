//! Changes to TOML that leave most of it in order: lines, keys, values and headers change places,
//! within a file and between two.

use crate::fuzz::bytes::{self, NUMBERS, Random, pick};

/// Values at which something may change.
const VALUES: &[&str] = &[
    "true",
    "false",
    "0",
    "-1",
    "1_000",
    "0xffff_ffff",
    "-9223372036854775808",
    "nan",
    "-inf",
    "1e400",
    "0.1",
    "2026-02-30",
    "2026-03-29T02:30:00",
    "9999-12-31T23:59:60Z",
    "-9999-01-01",
    "02:30",
    "[]",
    "{}",
    "[[[]]]",
    "\"\"",
    "\"default\"",
    "\"${UNSET}\"",
    "\"${UNSET:-1}\"",
    "\"${EMPTY}\"",
    "\"${X}\"",
    "\"${APP_URL}\"",
    "\"$${\"",
    "\"${\"",
    "'''\n'''",
    "\"\\u0000\"",
    "\"\\U0010ffff\"",
    "\"ﬀ\u{202e}é\u{0301}\"",
    "\"0s\"",
    "\"1ns\"",
    "\"18446744073709551615s\"",
    "\"584942417355y\"",
    "\"1month 1day\"",
    "\"16 EiB\"",
    "\"1 KiB\"",
    "\"0.5 GiB\"",
    "\"0 per 1m\"",
    "\"4294967296 per 1ms\"",
    "\"1 per 366days\"",
    "\"postgres://\"",
    "\"postgres://a:b@[::1]:99999/x?host=/tmp&options=-c%20x\"",
    "\"sqlite:\"",
    "\"sqlite:../x.db?mode=memory\"",
    "\"sqlite::memory:\"",
    "\"127.0.0.1:0\"",
    "\"/a/~1/~0/0\"",
    "\"/~2\"",
    "\"0 0 30 2 *\"",
    "\"0 0 31 4,6,9,11 *\"",
    "\"59 59 23 29 2 SUN\"",
    "\"* * * * * *\"",
    "\"*/7 */11 L * 5#5\"",
    "\"0 0 LW * *\"",
    "\"0-4294967296 * * * *\"",
    "\"@daily\"",
    "\"H H * * *\"",
    "\"Europe/Berlin\"",
    "\"Antarctica/Troll\"",
    "\"Etc/GMT+12\"",
    "\"+25:00\"",
    "\"UTC0\"",
    "{ cron = \"0 0 29 2 *\", timezone = \"America/St_Johns\", overlap = \"both\", gap = \"skip\" }",
    "{ every = \"1ns\" }",
    "{ every = \"7days\", anchor = \"9999-12-31T23:59:59Z\", jitter = \"6days\" }",
    "{ every = \"1s\", not_before = \"2026-03-28T13:00\", not_after = \"2026-03-28T12:00\" }",
    "{ every_after = \"10000years\" }",
    "{ at = \"9999-12-31T23:59:59.999999999\" }",
    "{ at = 2026-03-29T02:30:00, timezone = \"Europe/Berlin\", gap = \"run-after\" }",
    "{ cron = \"0 * * * *\", calendars = [\"business-days\"], when_excluded = \"next-day\" }",
    "{ limit = 0, key = \"\", limit_per_key = 4294967295, when_full = \"replace\" }",
    "{ jobs = [], when = \"any\" }",
    "{ mode = \"all\", max = 10000, window = \"1ns\" }",
    "{ max_attempts = 1000, backoff = \"exponential\", initial = \"30days\", maximum = \"1ns\", jitter = 1 }",
    "{ keep = \"forever\", last = 1 }",
];

/// Characters that end or begin something.
const MARKS: &[&str] = &[
    "[", "]", "[[", "]]", "{", "}", "=", "\"", "'", "'''", "\"\"\"", "#", ".", ",", "\n", "\r\n", "\r", "\t",
    "\0", "\\", "\u{feff}", "\u{2028}", "é", "${", "}", "$",
];

/// Some changes to one text, with parts of another.
pub(super) fn mutate(random: &mut Random, input: &str, other: &str) -> String {
    let mut lines: Vec<String> = input.split('\n').map(str::to_owned).collect();
    let others: Vec<&str> = other.split('\n').collect();
    // One change often leaves the whole in order; several hardly ever do.
    let changes = if random.bool() { 1 } else { 1 + random.usize(..4) };
    for _ in 0..changes {
        change(random, &mut lines, &others);
    }
    lines.join("\n")
}

fn change(random: &mut Random, lines: &mut Vec<String>, others: &[&str]) {
    let len = lines.len();
    let at = random.usize(..len);
    match random.u8(..16) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, lines[random.usize(..len)].clone()),
        2 => lines.swap(at, random.usize(..len)),
        3 => lines.insert(at, others[random.usize(..others.len())].to_owned()),
        4 => {
            let part = bytes::range(random, others.len());
            lines.splice(at..at, others[part].iter().map(|line| (*line).to_owned()));
        }
        5 => {
            let part = bytes::range(random, len);
            lines.drain(part);
        }
        6 => {
            // A word of it changes places with another one.
            let words: Vec<&str> = others.iter().flat_map(|line| line.split_whitespace()).collect();
            if !words.is_empty() {
                let word = words[random.usize(..words.len())];
                replace_word(random, &mut lines[at], word);
            }
        }
        7 => insert(random, &mut lines[at], MARKS),
        8 => nest(random, &mut lines[at]),
        9 => header(random, lines, others),
        10 => key(random, lines, others),
        11..=12 => value_of_key(random, lines, others),
        _ => value(random, lines, others),
    }
    if lines.is_empty() {
        lines.push(String::new());
    }
}

fn replace_word(random: &mut Random, line: &mut String, word: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let which = random.usize(..words.len());
    let with =
        |(index, old): (usize, &&str)| if index == which { word.to_owned() } else { (*old).to_owned() };
    *line = words.iter().enumerate().map(with).collect::<Vec<_>>().join(" ");
}

fn insert(random: &mut Random, line: &mut String, of: &[&str]) {
    let at = line.floor_char_boundary(random.usize(..=line.len()));
    line.insert_str(at, pick(random, of));
}

/// Lists, tables or dotted keys within each other, up to far too deep.
fn nest(random: &mut Random, line: &mut String) {
    let depth = 1_usize << random.u32(..15);
    let (key, value) = line
        .split_once('=')
        .map_or((line.clone(), "1".to_owned()), |(key, value)| (key.to_owned(), value.to_owned()));
    *line = match random.u8(..4) {
        0 => format!("{key} = {}{value}{}", "[".repeat(depth), "]".repeat(depth)),
        1 => format!("{key} = {}{value}{}", "{ a = ".repeat(depth), "}".repeat(depth)),
        2 => format!("{}{key} = {value}", "a.".repeat(depth)),
        _ => format!("[{}a]", "a.".repeat(depth)),
    };
}

fn is_header(line: &str) -> bool {
    line.starts_with('[')
}

fn header(random: &mut Random, lines: &mut [String], others: &[&str]) {
    let own: Vec<usize> = (0..lines.len()).filter(|index| is_header(&lines[*index])).collect();
    let of_others: Vec<&str> = others.iter().copied().filter(|line| is_header(line)).collect();
    if own.is_empty() || of_others.is_empty() {
        return;
    }
    let line = &mut lines[own[random.usize(..own.len())]];
    let other = pick(random, &of_others);
    *line = match random.u8(..4) {
        // A dotted part of one, or all of it.
        0 => {
            let mut parts: Vec<&str> = line.split('.').collect();
            let others: Vec<&str> = other.split('.').collect();
            let which = random.usize(..parts.len());
            parts[which] = pick(random, &others);
            parts.join(".")
        }
        1 => format!("[{line}]"),
        2 => line.replace(']', &format!(".x{}]", random.u8(..))),
        _ => other.to_owned(),
    };
}

fn key(random: &mut Random, lines: &mut [String], others: &[&str]) {
    let own: Vec<usize> = (0..lines.len()).filter(|index| lines[*index].contains(" = ")).collect();
    let keys: Vec<&str> = others.iter().filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
    if own.is_empty() || keys.is_empty() {
        return;
    }
    let line = &mut lines[own[random.usize(..own.len())]];
    if let Some((_, value)) = line.split_once(" = ") {
        *line = format!("{} = {value}", pick(random, &keys));
    }
}

/// Another value for a key, as the other file has it: the change that is in order the most often.
fn value_of_key(random: &mut Random, lines: &mut [String], others: &[&str]) {
    let key = |line: &str| Some(line.split_once(" = ")?.0.to_owned());
    let pairs: Vec<(usize, &str)> = (0..lines.len())
        .filter_map(|index| Some((index, key(&lines[index])?)))
        .flat_map(|(index, own)| {
            others
                .iter()
                .filter(move |line| key(line).as_deref() == Some(&own))
                .map(move |line| (index, *line))
        })
        .collect();
    if !pairs.is_empty() {
        let (index, line) = pairs[random.usize(..pairs.len())];
        line.clone_into(&mut lines[index]);
    }
}

fn value(random: &mut Random, lines: &mut [String], others: &[&str]) {
    let own: Vec<usize> = (0..lines.len()).filter(|index| lines[*index].contains('=')).collect();
    let Some(index) = own.get(random.usize(..own.len().max(1))).copied() else { return };
    let values: Vec<&str> = others.iter().filter_map(|line| Some(line.split_once(" = ")?.1)).collect();
    let line = lines[index].clone();
    // Of the values in an inline table as well.
    let places: Vec<usize> = line.match_indices('=').map(|(at, _)| at + 1).collect();
    let start = places[random.usize(..places.len())];
    let rest = &line[start..];
    let is_inline = places.len() > 1 && start != places[0];
    let end = if is_inline { rest.find([',', '}']).map_or(line.len(), |at| start + at) } else { line.len() };
    let old = line[start..end].trim().to_owned();
    let new = match random.u8(..8) {
        0 if !values.is_empty() => pick(random, &values).to_owned(),
        1 => NUMBERS[random.usize(..NUMBERS.len())].cast_signed().to_string(),
        2 => format!("\"{}\"", "x".repeat(1 << random.u32(..17))),
        3 => digits(random, &old),
        4 => {
            let mut old = old;
            insert(random, &mut old, MARKS);
            old
        }
        5 => format!("[{old}, {old}]"),
        _ => pick(random, VALUES).to_owned(),
    };
    lines[index] = format!("{} {new}{}", &line[..start], &line[end..]);
}

/// The same with another number in it.
fn digits(random: &mut Random, old: &str) -> String {
    let number = NUMBERS[random.usize(..NUMBERS.len())].to_string();
    let Some(start) = old.find(|c: char| c.is_ascii_digit()) else { return number };
    let end = old[start..].find(|c: char| !c.is_ascii_digit()).map_or(old.len(), |at| start + at);
    format!("{}{number}{}", &old[..start], &old[end..])
}
