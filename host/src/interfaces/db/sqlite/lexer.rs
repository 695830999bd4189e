//! Where a text of SQL falls into tokens, by the rules of SQLite's own `tokenize.c`.
//!
//! SQLite tells where its first statement ends only after compiling it, and what it does not
//! tell at all is how a parameter is written that shares its number with another one.

use super::super::{Error, ErrorKind, error};

/// Statements that write whatever they say: they begin with the writer's lock.
const WRITING: &[&str] =
    &["ALTER", "ANALYZE", "CREATE", "DELETE", "DROP", "INSERT", "REINDEX", "REPLACE", "UPDATE"];

/// A piece of a text that is neither white space nor a comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A keyword, a name without quotes, or a number.
    Word,
    /// A text, or a name in quotes.
    Quoted,
    /// `$1`, `?1`, `?`, `:a` and their like.
    Parameter,
    Semicolon,
    /// One character of anything else.
    Other,
}

/// True where the statement writes for certain, by its first keyword.
pub(super) fn writes(sql: &str) -> bool {
    let first = tokens(sql).find(|token| token.kind != Kind::Semicolon);
    first.is_some_and(|first| WRITING.iter().any(|word| word.eq_ignore_ascii_case(first.text)))
}

/// Checks that a text holds one statement, and that its parameters are written in one way.
///
/// # Errors
/// `statement`, with what to write instead.
pub(super) fn check(sql: &str) -> Result<(), Error> {
    let (mut numbered_by_dollar, mut numbered_by_mark) = (false, false);
    let mut first = FirstStatement::default();
    for token in tokens(sql) {
        if first.is_over_before(token) {
            return Err(several_statements());
        }
        if token.kind == Kind::Parameter {
            numbered_by_dollar |= token.text.starts_with('$');
            numbered_by_mark |= token.text.starts_with('?');
        }
    }
    // SQLite numbers `$2` by its place and `?2` by its name, so that one may mean the other.
    if numbered_by_dollar && numbered_by_mark {
        let message =
            "the statement has parameters with `$` and with `?`: write all of them as $1, $2 and so on";
        return Err(error::new(ErrorKind::Statement, message));
    }
    Ok(())
}

/// What a text with more than one statement is refused with.
pub(super) fn several_statements() -> Error {
    let message = "the text holds more than one statement: run them one by one, in a transaction of `begin` if \
                   they belong together";
    error::new(ErrorKind::Statement, message)
}

/// Follows the tokens of a text to the end of its first statement, as `sqlite3_complete` does: a
/// trigger ends at `; END`, anything else at the first semicolon.
#[derive(Default)]
struct FirstStatement {
    /// Its first words, as far as they tell whether it makes a trigger.
    beginning: Beginning,
    after_semicolon: bool,
    after_end: bool,
    over: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Beginning {
    #[default]
    Nothing,
    Explain,
    Create,
    Trigger,
    Other,
}

impl FirstStatement {
    /// Takes the next token. True where it belongs to a second statement.
    fn is_over_before(&mut self, token: Token<'_>) -> bool {
        let is = |word: &str| token.kind == Kind::Word && token.text.eq_ignore_ascii_case(word);
        if self.over {
            return token.kind != Kind::Semicolon;
        }
        if token.kind == Kind::Semicolon {
            self.over = match self.beginning {
                Beginning::Nothing => false,
                Beginning::Trigger => self.after_end,
                _ => true,
            };
            self.after_semicolon = true;
            self.after_end = false;
            return false;
        }
        self.after_end = self.after_semicolon && is("END");
        self.after_semicolon = false;
        self.beginning = match self.beginning {
            Beginning::Nothing if is("EXPLAIN") => Beginning::Explain,
            Beginning::Explain if is("QUERY") || is("PLAN") => Beginning::Explain,
            Beginning::Nothing | Beginning::Explain if is("CREATE") => Beginning::Create,
            Beginning::Create if is("TEMP") || is("TEMPORARY") => Beginning::Create,
            Beginning::Create if is("TRIGGER") => Beginning::Trigger,
            Beginning::Trigger => Beginning::Trigger,
            _ => Beginning::Other,
        };
        false
    }
}

fn tokens(sql: &str) -> impl Iterator<Item = Token<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += skipped(&sql[at..]);
        let rest = &sql[at..];
        let (kind, length) = first(rest)?;
        let token = Token { kind, text: &rest[..length] };
        at += length;
        Some(token)
    })
}

/// The bytes of white space and comments at the beginning.
fn skipped(text: &str) -> usize {
    let mut rest = text;
    loop {
        let before = rest.len();
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.find('\n').map_or("", |end| &comment[end..]);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.find("*/").map_or("", |end| &comment[end + 2..]);
        }
        if rest.len() == before {
            return text.len() - rest.len();
        }
    }
}

/// What the text begins with, and how many bytes it has.
fn first(text: &str) -> Option<(Kind, usize)> {
    let character = text.chars().next()?;
    let found = match character {
        ';' => (Kind::Semicolon, 1),
        '\'' | '"' | '`' => (Kind::Quoted, quoted(text, character)),
        '[' => (Kind::Quoted, text.find(']').map_or(text.len(), |end| end + 1)),
        '?' => (Kind::Parameter, 1 + run(&text[1..], |c| c.is_ascii_digit())),
        '$' | '@' | ':' | '#' => (Kind::Parameter, named_parameter(text)),
        _ if is_of_word(character) => (Kind::Word, run(text, is_of_word)),
        _ => (Kind::Other, character.len_utf8()),
    };
    Some(found)
}

/// A quote within is doubled.
fn quoted(text: &str, quote: char) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        if bytes[at] == quote as u8 {
            if bytes.get(at + 1) != Some(&(quote as u8)) {
                return at + 1;
            }
            at += 1;
        }
        at += 1;
    }
    bytes.len()
}

/// Names of Tcl's variables may have `::` in them, and a suffix in parentheses that takes in
/// whatever it meets.
fn named_parameter(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut named) = (1, false);
    loop {
        let word = run(&text[at..], is_of_word);
        at += word;
        named |= word > 0;
        if text[at..].starts_with("::") {
            at += 2;
        } else if named && bytes.get(at) == Some(&b'(') {
            let end = text[at..].find(|c: char| c == ')' || c == '\x0b' || c.is_ascii_whitespace());
            return match end.map(|end| at + end) {
                Some(end) if bytes[end] == b')' => end + 1,
                Some(end) => end,
                None => text.len(),
            };
        } else {
            return at;
        }
    }
}

fn run(text: &str, of: impl Fn(char) -> bool) -> usize {
    text.find(|c| !of(c)).unwrap_or(text.len())
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_statement_is_one_whatever_it_holds() {
        for sql in [
            "SELECT 1",
            ";; SELECT 1 ;; -- and no more",
            "SELECT ';', \";\", `;`, [;] /* ; */ -- ;",
            "SELECT 'it''s; one'",
            "SELECT $1(;), $a::b(;)",
            "CREATE TRIGGER a BEFORE INSERT ON t BEGIN SELECT 1; SELECT CASE WHEN 1 THEN 2 END; END",
            "/**/create temp trigger a BEFORE INSERT ON t BEGIN SELECT 1; END; ;",
        ] {
            assert!(check(sql).is_ok(), "{sql}");
        }
    }

    #[test]
    fn a_second_statement_is_found_wherever_it_hides() {
        for sql in [
            "SELECT 1; COMMIT",
            "SELECT 1;;/**/;x",
            "SELECT ';' ; SELECT 2",
            "SELECT 1 /* ; */ -- ;\n; SELECT 2",
            "CREATE TRIGGER a BEFORE INSERT ON t BEGIN SELECT 1; END; COMMIT",
            "CREATE TABLE trigger_a (x); SELECT 1; END; SELECT 2",
            "SELECT 1; '",
        ] {
            assert!(check(sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn parameters_are_written_in_one_way() {
        assert!(check("SELECT $1, $2, '?'").is_ok());
        assert!(check("SELECT ?2, ?1, \"$1\" -- $1").is_ok());
        assert!(check("SELECT $2, $1, ?1").is_err());
    }

    #[test]
    fn what_writes_for_certain_is_known_by_its_first_word() {
        assert!(writes("; /* x */ insert INTO t VALUES (1)"));
        assert!(writes("REPLACE INTO t VALUES (1)"));
        assert!(!writes("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x"));
        assert!(!writes("SELECT 1"));
        assert!(!writes(""));
    }
}
