//! Times as the two engines keep them, and whose clock decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef, types::Oid};
use sqlx::sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo, SqliteValueRef};
use sqlx::{Decode, Encode, Postgres, Sqlite, Type};

use crate::clock;

/// Whose clock decides what is due and what has expired.
#[derive(Clone, Debug, Default)]
pub enum StoreClock {
    /// The database's: hosts whose clocks differ agree on it. SQLite has none but this machine's.
    #[default]
    Database,
    /// Microseconds since 1970-01-01T00:00:00Z, for tests that turn the clock themselves.
    Fixed(Arc<AtomicI64>),
}

impl StoreClock {
    /// What to bind as "now": none where the database is to ask its own clock.
    pub(super) fn postgres(&self) -> Option<Time> {
        match self {
            Self::Database => None,
            Self::Fixed(micros) => Some(Time::from_micros(micros.load(Ordering::SeqCst))),
        }
    }

    /// As [`Self::postgres`], for SQLite.
    pub(super) fn sqlite(&self) -> Option<Time> {
        self.postgres().or_else(|| Some(Time(clock::now())))
    }
}

/// An instant in the store, in whole microseconds: `timestamptz` on PostgreSQL, `integer` on
/// SQLite. (sqlx knows chrono and time, not jiff.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time(pub(super) Timestamp);

impl Time {
    pub(super) fn from_micros(micros: i64) -> Self {
        Self(Timestamp::from_microsecond(micros).unwrap_or_default())
    }

    /// From the year 1, which PostgreSQL has too, to the last second that jiff makes of
    /// microseconds: what is written can be read.
    pub(super) fn micros(self) -> i64 {
        const FIRST: i64 = -62_135_596_800_000_000;
        const LAST: i64 = 253_402_207_200_000_000;
        self.0.as_microsecond().clamp(FIRST, LAST)
    }
}

/// `timestamptz` on the wire: microseconds since 2000-01-01T00:00:00Z (`src/include/datatype/timestamp.h`).
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

impl Type<Postgres> for Time {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1184))
    }
}

impl PgHasArrayType for Time {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1185))
    }
}

impl Encode<'_, Postgres> for Time {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<Postgres>>::encode(self.micros() - POSTGRES_EPOCH, buffer)
    }
}

impl Decode<'_, Postgres> for Time {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let micros = i64::from_be_bytes(value.as_bytes()?.try_into()?);
        let micros = micros.checked_add(POSTGRES_EPOCH).ok_or("a timestamptz out of range")?;
        Ok(Self(Timestamp::from_microsecond(micros)?))
    }
}

impl Type<Sqlite> for Time {
    fn type_info() -> SqliteTypeInfo {
        <i64 as Type<Sqlite>>::type_info()
    }

    fn compatible(ty: &SqliteTypeInfo) -> bool {
        <i64 as Type<Sqlite>>::compatible(ty)
    }
}

impl Encode<'_, Sqlite> for Time {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<Sqlite>>::encode(self.micros(), buffer)
    }
}

impl Decode<'_, Sqlite> for Time {
    fn decode(value: SqliteValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Self(Timestamp::from_microsecond(<i64 as Decode<Sqlite>>::decode(value)?)?))
    }
}
