//! Where the parts of a statement are, by PostgreSQL's own lexical rules (its `scan.l`).
//!
//! Pure. Only for texts that the server has prepared, and so found to be one whole statement.
//! Where the rules depend on settings, or nobody writes such texts, the answer is "not sure".

use std::ops::Range;

/// What is done with the rows of a statement that stands in another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// `SELECT`, `VALUES`, `TABLE`: it can stand behind FROM.
    Select,
    /// `INSERT`, `UPDATE`, `DELETE`, `MERGE`: it can stand in WITH.
    Change,
    Other,
}

/// The parts of a statement, in bytes of its text.
#[derive(Debug)]
pub(super) struct Scan {
    /// The statement without what stands before and behind it: space, comments, semicolons.
    pub(super) body: Range<usize>,
    /// The parameters: where each stands, and its number.
    pub(super) parameters: Vec<(Range<usize>, usize)>,
    pub(super) verb: Verb,
    /// The word FOR stands in it, as in `FOR UPDATE`.
    pub(super) says_for: bool,
}

/// Reads a statement. `None` where it is not sure where its parts are.
pub(super) fn scan(sql: &str) -> Option<Scan> {
    let mut reader = Reader { sql, at: 0 };
    let (mut parameters, mut verb) = (Vec::new(), VerbFinder::default());
    let mut body: Option<Range<usize>> = None;
    let (mut ended, mut says_for) = (false, false);
    while let Some((token, range)) = reader.token()? {
        if token == Token::Semicolon {
            ended = body.is_some();
            continue;
        }
        if ended {
            // A semicolon inside, as in the body of a function.
            return None;
        }
        if let Token::Parameter(number) = token {
            parameters.push((range.clone(), number));
        }
        says_for |= token == Token::Word && sql[range.clone()].eq_ignore_ascii_case("FOR");
        verb.see(token, &sql[range.clone()]);
        body = Some(body.map_or(range.start, |body| body.start)..range.end);
    }
    Some(Scan { body: body?, parameters, verb: verb.found.unwrap_or(Verb::Other), says_for })
}

/// Where a statement begins: after space, comments and semicolons.
pub(super) fn start(sql: &str) -> usize {
    let mut reader = Reader { sql, at: 0 };
    loop {
        match reader.token() {
            Some(Some((Token::Semicolon, _))) => {}
            Some(Some((_, range))) => return range.start,
            _ => return 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Word,
    Parameter(usize),
    Open,
    Close,
    Comma,
    Semicolon,
    /// Anything else.
    Other,
}

/// Finds out what a statement does: by its first word, and where that is WITH, by the first
/// word that means something behind the named queries.
#[derive(Default)]
struct VerbFinder {
    found: Option<Verb>,
    in_with: bool,
    depth: u32,
    /// A name of a query in WITH comes next.
    names_query: bool,
    previous: Option<Token>,
}

impl VerbFinder {
    fn see(&mut self, token: Token, text: &str) {
        match token {
            Token::Open => self.depth += 1,
            Token::Close => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if self.found.is_some() {
            return;
        }
        if !self.in_with {
            self.found = match (token, verb_of(text)) {
                // `(SELECT 1) UNION (SELECT 2)`
                (Token::Open, _) => Some(Verb::Select),
                (Token::Word, _) if text.eq_ignore_ascii_case("WITH") => None,
                (Token::Word, verb) => verb.or(Some(Verb::Other)),
                _ => Some(Verb::Other),
            };
            self.in_with = self.found.is_none();
            self.names_query = self.in_with;
            return;
        }
        if self.depth == 0 && token == Token::Word && !self.names_query {
            self.found = verb_of(text);
        }
        // `insert` and others may be names: `WITH insert AS (...), update AS (...) SELECT ...`
        self.names_query = self.depth == 0
            && (token == Token::Comma || token == Token::Word && text.eq_ignore_ascii_case("RECURSIVE"));
        // `WITH a AS (...) (SELECT ...)`
        if self.depth == 1 && token == Token::Open && self.previous == Some(Token::Close) {
            self.found = Some(Verb::Select);
        }
        self.previous = Some(token);
    }
}

fn verb_of(word: &str) -> Option<Verb> {
    let is = |keywords: &[&str]| keywords.iter().any(|keyword| word.eq_ignore_ascii_case(keyword));
    if is(&["SELECT", "VALUES", "TABLE"]) {
        Some(Verb::Select)
    } else if is(&["INSERT", "UPDATE", "DELETE", "MERGE"]) {
        Some(Verb::Change)
    } else {
        None
    }
}

struct Reader<'a> {
    sql: &'a str,
    at: usize,
}

impl Reader<'_> {
    /// The next token; `Some(None)` at the end, `None` where it is not sure.
    #[expect(clippy::option_option, reason = "not sure and at the end are two things")]
    fn token(&mut self) -> Option<Option<(Token, Range<usize>)>> {
        self.skip()?;
        let start = self.at;
        let Some(byte) = self.peek(0) else { return Some(None) };
        let token = match byte {
            b';' => self.one(Token::Semicolon),
            b'(' | b'[' => self.one(Token::Open),
            b')' | b']' => self.one(Token::Close),
            b',' => self.one(Token::Comma),
            b'\'' => self.string()?,
            b'"' => self.quoted_identifier()?,
            b'$' => self.dollar()?,
            b'0'..=b'9' => self.number()?,
            byte if is_word_start(byte) => self.word()?,
            _ => self.one(Token::Other),
        };
        Some(Some((token, start..self.at)))
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.sql.as_bytes().get(self.at + ahead).copied()
    }

    fn one(&mut self, token: Token) -> Token {
        self.at += 1;
        token
    }

    /// Skips space and comments, which nest. `None` where one does not end.
    fn skip(&mut self) -> Option<()> {
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(byte), _) if is_space(byte) => self.at += 1,
                (Some(b'-'), Some(b'-')) => {
                    let line = &self.sql[self.at..];
                    self.at += line.find(['\n', '\r']).unwrap_or(line.len());
                }
                (Some(b'/'), Some(b'*')) => self.skip_comment()?,
                _ => return Some(()),
            }
        }
    }

    fn skip_comment(&mut self) -> Option<()> {
        let mut depth = 0;
        loop {
            match (self.peek(0)?, self.peek(1)?) {
                (b'/', b'*') => (depth, self.at) = (depth + 1, self.at + 2),
                (b'*', b'/') => (depth, self.at) = (depth - 1, self.at + 2),
                _ => self.at += 1,
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// `'...'`. Whether a backslash may hide its end depends on a setting.
    fn string(&mut self) -> Option<Token> {
        let end = self.quoted(b'\'')?;
        if self.sql[self.at..end].contains("\\'") {
            return None;
        }
        self.at = end;
        Some(Token::Other)
    }

    fn quoted_identifier(&mut self) -> Option<Token> {
        self.at = self.quoted(b'"')?;
        Some(Token::Other)
    }

    /// Where the quoted text ends that begins here; two quotes stand for one in it.
    fn quoted(&self, quote: u8) -> Option<usize> {
        let bytes = self.sql.as_bytes();
        let mut at = self.at + 1;
        loop {
            at += bytes.get(at..)?.iter().position(|byte| *byte == quote)? + 1;
            if bytes.get(at) != Some(&quote) {
                return Some(at);
            }
            at += 1;
        }
    }

    /// `E'...'`, from its quote on.
    fn escape_string(&mut self) -> Option<Token> {
        self.at += 1;
        loop {
            match (self.peek(0)?, self.peek(1)) {
                (b'\\', _) | (b'\'', Some(b'\'')) => self.at += 2,
                (b'\'', _) => break,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        let end = self.at;
        // A string that goes on behind the end of a line goes on with the same escapes.
        self.skip()?;
        let ends = self.peek(0) != Some(b'\'');
        self.at = end;
        ends.then_some(Token::Other)
    }

    /// `$1`, or `$tag$...$tag$`.
    fn dollar(&mut self) -> Option<Token> {
        let rest = &self.sql[self.at + 1..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            self.at += 1 + digits;
            let ends = self.peek(0).is_none_or(|byte| !is_word(byte));
            return rest[..digits].parse().ok().filter(|_| ends).map(Token::Parameter);
        }
        let tag = rest.bytes().take_while(|byte| is_word(*byte) && *byte != b'$').count();
        if !rest[tag..].starts_with('$') {
            return None;
        }
        let quote = &self.sql[self.at..self.at + tag + 2];
        let inside = self.at + quote.len();
        self.at = inside + self.sql[inside..].find(quote)? + quote.len();
        Some(Token::Other)
    }

    fn number(&mut self) -> Option<Token> {
        while self.peek(0).is_some_and(|byte| is_word(byte) || byte == b'.') {
            if self.peek(0) == Some(b'$') {
                return None;
            }
            self.at += 1;
        }
        Some(Token::Other)
    }

    fn word(&mut self) -> Option<Token> {
        match (self.peek(0), self.peek(1), self.peek(2)) {
            (Some(b'e' | b'E'), Some(b'\''), _) => {
                self.at += 1;
                return self.escape_string();
            }
            // Of the prefixes of strings this is the only one that is no word.
            (Some(b'u' | b'U'), Some(b'&'), Some(b'\'' | b'"')) => {
                self.at += 2;
                return Some(Token::Other);
            }
            _ => {}
        }
        while self.peek(0).is_some_and(is_word) {
            self.at += 1;
        }
        Some(Token::Word)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c')
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii()
}

fn is_word(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers(sql: &str) -> Option<Vec<usize>> {
        scan(sql).map(|scan| scan.parameters.iter().map(|(_, number)| *number).collect())
    }

    fn verb(sql: &str) -> Verb {
        scan(sql).unwrap().verb
    }

    #[test]
    fn parameters_are_found_and_what_only_looks_like_them_is_not() {
        for (sql, expected) in [
            ("SELECT $1, $22+$3", vec![1, 22, 3]),
            ("SELECT ($1)[$2]", vec![1, 2]),
            ("SELECT a->$1, b@>$2", vec![1, 2]),
            ("SELECT '$1', 'it''s $2', $3", vec![3]),
            (r"SELECT e'\'$1', E'''$2', $3", vec![3]),
            (r#"SELECT U&'\0441 $1', u&"a $2", $3"#, vec![3]),
            (r#"SELECT "$1", "a""$2", $3"#, vec![3]),
            ("SELECT $$ $1 $$, $a$ $2 $$ $b$ $a$, $3", vec![3]),
            ("SELECT -- $1\n $2 /* $3 /* $4 */ $5 */", vec![2]),
            ("SELECT a$1, b.c$2 FROM t$3 WHERE x = $4", vec![4]),
            (r"SELECT 'a\b' ~ $1", vec![1]),
            ("SELECT 1.5e-3*$1, x'1F', n'$2'", vec![1]),
        ] {
            assert_eq!(numbers(sql), Some(expected), "{sql}");
        }
    }

    #[test]
    fn what_is_not_sure_is_said_to_be_so() {
        for sql in [
            "",
            "-- nothing",
            r"SELECT 'a\' || $1 || ' '",
            "SELECT E'a'\n'b\\' $1'",
            "SELECT 'open",
            "SELECT \"open",
            "SELECT $a$ open",
            "SELECT /* open",
            "SELECT $1a",
            "SELECT 1$1",
            "SELECT $",
            "SELECT 1; SELECT 2",
        ] {
            assert!(scan(sql).is_none(), "{sql}");
        }
    }

    #[test]
    fn the_body_is_what_stands_between_semicolons_and_comments() {
        for (sql, body) in [
            ("SELECT 1", "SELECT 1"),
            (" ;; /* a */ SELECT 1 ; -- b\n;", "SELECT 1"),
            ("SELECT 1 -- b", "SELECT 1"),
            ("(SELECT 1) UNION (SELECT 2);", "(SELECT 1) UNION (SELECT 2)"),
        ] {
            assert_eq!(&sql[scan(sql).unwrap().body], body);
            assert!(sql[start(sql)..].starts_with(body));
        }
    }

    #[test]
    fn locks_are_seen_wherever_they_stand() {
        assert!(scan("SELECT * FROM t FOR UPDATE").unwrap().says_for);
        assert!(scan("SELECT * FROM (SELECT * FROM t for no key update) q").unwrap().says_for);
        assert!(!scan("SELECT 'for', \"for\" FROM fort -- for").unwrap().says_for);
    }

    #[test]
    fn what_a_statement_does_is_found_behind_its_named_queries() {
        for sql in [
            "SELECT 1",
            "values (1)",
            "Table t",
            "((SELECT 1))",
            "WITH a AS (DELETE FROM t RETURNING x) SELECT * FROM a",
            "WITH RECURSIVE a(x) AS (SELECT 1), b AS NOT MATERIALIZED (SELECT 2) SELECT 1",
            "WITH insert AS (SELECT 1), update AS (SELECT 2) SELECT 1",
            "WITH a AS (SELECT 1) (SELECT * FROM a)",
            "WITH a AS (SELECT 1) VALUES (1)",
        ] {
            assert_eq!(verb(sql), Verb::Select, "{sql}");
        }
        for sql in [
            "INSERT INTO t SELECT 1 RETURNING x",
            "update t SET x = 1",
            "DELETE FROM t",
            "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
            "WITH select_one(x) AS (VALUES (1)) UPDATE t SET x = 1",
        ] {
            assert_eq!(verb(sql), Verb::Change, "{sql}");
        }
        for sql in ["SHOW x", "EXPLAIN SELECT 1", "CALL p()"] {
            assert_eq!(verb(sql), Verb::Other, "{sql}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_not_sure(sql in "[-a-zE'\"$/*0-9;(),\\\\é\n ]{0,40}") {
            if let Some(scan) = scan(&sql) {
                prop_assert!(sql.get(scan.body).is_some());
                for (range, number) in scan.parameters {
                    let digits = sql[range].strip_prefix('$').unwrap().to_owned();
                    prop_assert_eq!(digits.parse::<usize>().unwrap(), number);
                }
            }
        }
    }
}
