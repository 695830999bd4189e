//! The rows of the demo: made up, the same for the same seed and moment, and kept, so that
//! the check afterwards knows every one of them.

use jiff::{Timestamp, ToSpan};
use serde::Serialize;

/// A row of the table `sessions`. Times are microseconds since 1970-01-01T00:00:00Z, and
/// whole seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    pub id: i64,
    pub token: String,
    pub tenant: String,
    /// Null for a visitor who did not log in.
    pub user_name: Option<String>,
    /// Any bytes; not text on purpose.
    #[serde(serialize_with = "as_hex")]
    pub data: Vec<u8>,
    pub created_at: i64,
    /// Null for a session that never expires.
    pub expires_at: Option<i64>,
}

/// A row of the table `audit_log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditRecord {
    pub id: i64,
    pub tenant: String,
    /// Null for what the system did by itself.
    pub actor: Option<String>,
    pub action: String,
    pub recorded_at: i64,
}

/// All rows, in the order of their ids.
pub struct Data {
    pub sessions: Vec<Session>,
    pub audit_log: Vec<AuditRecord>,
}

/// How old a record of the audit log may get, in days; the example's configuration says so.
pub const AUDIT_RETENTION_DAYS: i64 = 90;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const TENANTS: [&str; 5] =
    ["acme", "Bäckerei Müller", "Société Générale d'Œuvres", "株式会社サンプル", "Кафе"];
const USERS: [&str; 8] =
    ["alice", "Zażółć Gęślą", "O'Brien", "Ñandú", "李小龍", "إيمان", "\"quoted\"; DROP TABLE", "🦊 fox"];
const ACTIONS: [&str; 4] = ["login", "logout", "password changed", "Rôle modifié"];

impl Data {
    /// Makes rows around a moment. What has expired by then has done so for an hour or more,
    /// and what has not goes on for a month or more, so that it does not matter how long the
    /// demo takes.
    pub fn generate(seed: u64, now: Timestamp, sessions: i64, audit_records: i64) -> Self {
        let mut random = Random(seed);
        let now = now.as_second();
        Self {
            sessions: (1..=sessions).map(|id| session(&mut random, id, now)).collect(),
            audit_log: (1..=audit_records).map(|id| audit_record(&mut random, id, now)).collect(),
        }
    }
}

impl Session {
    /// True for what the job is to delete.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at < now.as_microsecond())
    }
}

impl AuditRecord {
    /// True for what the job is to delete.
    pub fn is_old(&self, now: Timestamp) -> bool {
        let oldest = now - (AUDIT_RETENTION_DAYS * 24).hours();
        self.recorded_at < oldest.as_microsecond()
    }
}

fn session(random: &mut Random, id: i64, now: i64) -> Session {
    let expires_at = match random.below(100) {
        0..60 => Some(now - random.between(HOUR, 400 * DAY)),
        60..95 => Some(now + random.between(30 * DAY, 400 * DAY)),
        _ => None,
    };
    let tenant = random.one_of(&TENANTS).to_owned();
    let user_name = (random.below(4) > 0).then(|| random.one_of(&USERS).to_owned());
    let length = random.below(48);
    Session {
        id,
        token: format!("{:016x}{id:08x}", random.number()),
        tenant,
        user_name,
        data: (0..length).map(|_| random.number().to_le_bytes()[0]).collect(),
        created_at: (now - random.between(401 * DAY, 500 * DAY)) * 1_000_000,
        expires_at: expires_at.map(|at| at * 1_000_000),
    }
}

fn audit_record(random: &mut Random, id: i64, now: i64) -> AuditRecord {
    let age = match random.below(2) {
        0 => random.between((AUDIT_RETENTION_DAYS + 1) * DAY, 1000 * DAY),
        _ => random.between(0, (AUDIT_RETENTION_DAYS - 10) * DAY),
    };
    AuditRecord {
        id,
        tenant: random.one_of(&TENANTS).to_owned(),
        actor: (random.below(5) > 0).then(|| random.one_of(&USERS).to_owned()),
        action: random.one_of(&ACTIONS).to_owned(),
        recorded_at: (now - age) * 1_000_000,
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): small, and good enough for made-up rows.
struct Random(u64);

impl Random {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    fn between(&mut self, first: i64, last: i64) -> i64 {
        first + i64::try_from(self.below((last - first).unsigned_abs())).unwrap_or(0)
    }

    fn one_of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.number() as usize % texts.len()]
    }
}

fn as_hex<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    serializer.serialize_str(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-23T04:05:06Z".parse().unwrap()
    }

    #[test]
    fn the_same_seed_and_moment_make_the_same_rows() {
        let (one, two) = (Data::generate(7, now(), 500, 50), Data::generate(7, now(), 500, 50));
        assert_eq!(one.sessions, two.sessions);
        assert_eq!(one.audit_log, two.audit_log);
        assert_ne!(one.sessions, Data::generate(8, now(), 500, 50).sessions);
    }

    #[test]
    fn there_is_some_of_everything_that_a_real_table_has() {
        let sessions = Data::generate(1, now(), 2000, 0).sessions;
        let share = |holds: &dyn Fn(&Session) -> bool| sessions.iter().filter(|s| holds(s)).count();
        assert!((1000..1400).contains(&share(&|s| s.is_expired(now()))));
        assert!(share(&|s| s.expires_at.is_none()) > 50);
        assert!(share(&|s| s.user_name.is_none()) > 300);
        assert!(share(&|s| !s.tenant.is_ascii()) > 300);
        assert!(share(&|s| std::str::from_utf8(&s.data).is_err()) > 300);
    }

    #[test]
    fn an_hour_or_three_weeks_later_the_same_rows_have_expired() {
        let data = Data::generate(1, now(), 2000, 500);
        let later = now() + (21 * 24).hours();
        assert!(data.sessions.iter().all(|session| session.is_expired(now()) == session.is_expired(later)));
        let later = now() + (9 * 24).hours();
        assert!(data.audit_log.iter().all(|record| record.is_old(now()) == record.is_old(later)));
    }
}
