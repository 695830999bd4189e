//! Statements as the host sends them where a type has no binary form that it knows: with casts
//! to and from text, which the server carries out.
//!
//! Pure. A statement is only put into another one after the server has prepared it alone, and
//! so found it to be one whole statement: nothing in it can end the parentheses around it.

use std::fmt::Write as _;
use std::ops::Range;

use super::scan::{Scan, Verb};

/// The cast of a parameter: its number (from 1), and the name of its type with its schema.
pub(super) type Cast = (usize, String);

/// A statement as it is sent.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub(super) sql: String,
    /// What of it was copied, in characters: where it stands, where it stood, and how much.
    copies: Vec<(usize, usize, usize)>,
}

impl Rewritten {
    /// The place in the statement as it was written, of one (from 1) in the statement as it is
    /// sent.
    pub(super) fn original_position(&self, position: u32) -> Option<u32> {
        let at = usize::try_from(position).ok()?.checked_sub(1)?;
        let (new, old, _) = self.copies.iter().find(|(new, _, length)| (*new..new + length).contains(&at))?;
        u32::try_from(old + (at - new) + 1).ok()
    }
}

/// The statement with casts behind its parameters, and around those columns that are `true`,
/// or `None` where such a statement cannot stand in another one.
pub(super) fn rewrite(sql: &str, scan: &Scan, casts: &[Cast], columns: &[bool]) -> Option<Rewritten> {
    let mut writer = Writer { original: sql, sql: String::new(), chars: 0, copies: Vec::new() };
    if !columns.contains(&true) {
        writer.copy_with_casts(scan, casts);
        return Some(writer.finish());
    }
    let names: Vec<String> = (1..=columns.len()).map(|number| format!("c{number}")).collect();
    let names = names.join(", ");
    // The order of the rows is that of the inner statement: a subquery with ORDER BY is
    // planned by itself and read in its order, and what RETURNING brings is kept and read as it
    // came. Nothing outside sorts, joins or filters.
    match scan.verb {
        Verb::Select => {
            writer.insert(&format!("SELECT {} FROM (", outputs(columns)));
            writer.copy_with_casts(scan, casts);
            // On a line of its own, since a comment may stand at the end.
            writer.insert(&format!("\n) AS q({names})"));
        }
        Verb::Change => {
            writer.insert(&format!("WITH q({names}) AS ("));
            writer.copy_with_casts(scan, casts);
            writer.insert(&format!("\n) SELECT {} FROM q", outputs(columns)));
        }
        Verb::Other => return None,
    }
    Some(writer.finish())
}

/// The columns of `q`. `format` writes a value by its type's own output function, as every
/// client of the server sees it, where a cast to text may write it in another way (`inet`).
/// It makes an empty text of NULL, and `IS NULL` is true of a row of NULLs, hence DISTINCT.
fn outputs(columns: &[bool]) -> String {
    let mut text = String::new();
    for (index, as_text) in columns.iter().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        let number = index + 1;
        let _infallible = if *as_text {
            write!(
                text,
                "{comma}CASE WHEN q.c{number} IS NOT DISTINCT FROM NULL THEN NULL \
                 ELSE pg_catalog.format('%s', q.c{number}) END"
            )
        } else {
            write!(text, "{comma}q.c{number}")
        };
    }
    text
}

struct Writer<'a> {
    original: &'a str,
    sql: String,
    /// How many characters `sql` has.
    chars: usize,
    copies: Vec<(usize, usize, usize)>,
}

impl Writer<'_> {
    fn insert(&mut self, text: &str) {
        self.sql.push_str(text);
        self.chars += text.chars().count();
    }

    fn copy(&mut self, range: Range<usize>) {
        let old = self.original[..range.start].chars().count();
        let text = &self.original[range];
        let length = text.chars().count();
        self.copies.push((self.chars, old, length));
        self.sql.push_str(text);
        self.chars += length;
    }

    fn copy_with_casts(&mut self, scan: &Scan, casts: &[Cast]) {
        let mut from = scan.body.start;
        for (range, number) in &scan.parameters {
            if let Some((_, name)) = casts.iter().find(|(cast, _)| cast == number) {
                self.copy(from..range.start);
                self.insert("(");
                self.copy(range.clone());
                self.insert(&format!("::pg_catalog.text::{name})"));
                from = range.end;
            }
        }
        self.copy(from..scan.body.end);
    }

    fn finish(self) -> Rewritten {
        Rewritten { sql: self.sql, copies: self.copies }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan::scan;
    use super::*;

    fn rewritten(sql: &str, casts: &[Cast], columns: &[bool]) -> Rewritten {
        rewrite(sql, &scan(sql).unwrap(), casts, columns).unwrap()
    }

    #[test]
    fn parameters_get_a_cast_to_their_type() {
        let casts = [(2, "pg_catalog.inet".to_owned())];
        let rewritten = rewritten(";SELECT $1, '$2', $2;", &casts, &[false, false, false]);
        assert_eq!(rewritten.sql, "SELECT $1, '$2', ($2::pg_catalog.text::pg_catalog.inet)");
    }

    #[test]
    fn columns_are_written_as_text_around_the_statement() {
        assert_eq!(
            rewritten("SELECT a, b FROM t -- all\n;", &[], &[false, true]).sql,
            "SELECT q.c1, CASE WHEN q.c2 IS NOT DISTINCT FROM NULL THEN NULL ELSE \
             pg_catalog.format('%s', q.c2) END FROM (SELECT a, b FROM t\n) AS q(c1, c2)"
        );
        assert_eq!(
            rewritten("DELETE FROM t RETURNING a", &[], &[true]).sql,
            "WITH q(c1) AS (DELETE FROM t RETURNING a\n) SELECT CASE WHEN q.c1 IS NOT DISTINCT FROM \
             NULL THEN NULL ELSE pg_catalog.format('%s', q.c1) END FROM q"
        );
        let explain = "EXPLAIN SELECT 1";
        assert!(rewrite(explain, &scan(explain).unwrap(), &[], &[true]).is_none());
    }

    #[test]
    fn positions_are_those_of_the_statement_as_it_was_written() {
        let sql = " SELECT 'é', $1, wrong";
        let casts = [(1, "pg_catalog.inet".to_owned())];
        for columns in [&[false][..], &[true]] {
            let rewritten = rewritten(sql, &casts, columns);
            for word in ["SELECT", "$1", "wrong"] {
                let place = |text: &str| {
                    // The host's own SELECT comes before the plugin's.
                    let at = text.rfind(word).unwrap();
                    u32::try_from(text[..at].chars().count() + 1).unwrap()
                };
                assert_eq!(rewritten.original_position(place(&rewritten.sql)), Some(place(sql)), "{word}");
            }
            assert_eq!(rewritten.original_position(100_000), None);
            assert_eq!(rewritten.original_position(0), None);
        }
    }
}
