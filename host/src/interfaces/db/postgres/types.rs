//! Which types of PostgreSQL the host can read and write in their binary form.
//!
//! Pure. Everything else passes as text, by the server's own conversion ([`super::rewrite`]).

use sqlx::TypeInfo as _;
use sqlx::postgres::{PgTypeInfo, PgTypeKind};

/// How a scalar is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Bytes,
    Int2,
    Int4,
    Int8,
    /// An unsigned number of 32 bits, such as `oid`.
    Unsigned,
    Float4,
    Float8,
    Numeric,
    /// Its binary form is its text.
    Text,
    /// The same, of a type that has a meaning of its own, such as an enumeration.
    Label,
    /// One byte, `"char"`.
    Char,
    Date,
    Time,
    Timestamp,
    Instant,
    Uuid,
    Json,
    Jsonb,
    /// The result of a function that returns nothing.
    Void,
}

/// How a value of a type is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Scalar(Kind),
    Array {
        element: Kind,
        /// The number of the element's type, which the binary form of an array contains.
        oid: u32,
    },
    /// Not at all in binary.
    None,
}

impl Codec {
    /// True where a column of the type can be read in its binary form.
    pub(super) fn is_readable(self) -> bool {
        match self {
            Self::Scalar(_) => true,
            // The other arrays have no case in `value`.
            Self::Array { element, .. } => matches!(
                element,
                Kind::Bool
                    | Kind::Int2
                    | Kind::Int4
                    | Kind::Int8
                    | Kind::Unsigned
                    | Kind::Float4
                    | Kind::Float8
                    | Kind::Text
                    | Kind::Label
            ),
            Self::None => false,
        }
    }
}

/// How values of a type are read and written.
pub(super) fn codec(info: &PgTypeInfo) -> Codec {
    if let Some(kind) = kind(info) {
        return Codec::Scalar(kind);
    }
    match info.kind() {
        PgTypeKind::Domain(base) => codec(base),
        // Not int2vector and oidvector, which have a text form of their own.
        PgTypeKind::Array(element) if !matches!(number(info), 22 | 30) => {
            match (kind(element), number(element)) {
                (None, _) | (_, 0) => Codec::None,
                (Some(element), oid) => Codec::Array { element, oid },
            }
        }
        _ => Codec::None,
    }
}

/// By its number in the server's `pg_type.dat`.
fn kind(info: &PgTypeInfo) -> Option<Kind> {
    Some(match number(info) {
        16 => Kind::Bool,
        17 => Kind::Bytes,
        18 => Kind::Char,
        20 => Kind::Int8,
        21 => Kind::Int2,
        23 => Kind::Int4,
        // oid, xid, cid
        26 | 28 | 29 => Kind::Unsigned,
        // name, text, unknown, bpchar, varchar
        19 | 25 | 705 | 1042 | 1043 => Kind::Text,
        // xml
        142 => Kind::Label,
        114 => Kind::Json,
        700 => Kind::Float4,
        701 => Kind::Float8,
        1082 => Kind::Date,
        1083 => Kind::Time,
        1114 => Kind::Timestamp,
        1184 => Kind::Instant,
        1700 => Kind::Numeric,
        2278 => Kind::Void,
        2950 => Kind::Uuid,
        3802 => Kind::Jsonb,
        oid => match info.kind() {
            PgTypeKind::Domain(base) => return kind(base),
            PgTypeKind::Enum(_) => Kind::Label,
            PgTypeKind::Simple if oid >= FIRST_OWN && info.name().eq_ignore_ascii_case("citext") => {
                Kind::Text
            }
            _ => return None,
        },
    })
}

/// Numbers from here on are of types that somebody has made in this database.
const FIRST_OWN: u32 = 16_384;

/// The number of a type, 0 where it is not known.
pub(super) fn number(info: &PgTypeInfo) -> u32 {
    info.oid().map_or(0, |oid| oid.0)
}

/// The database's own name of a type.
pub(super) fn type_name(info: &PgTypeInfo) -> String {
    match number(info) {
        18 => "char".to_owned(),
        // sqlx writes the names of built-in types in capitals.
        1..FIRST_OWN => info.name().to_lowercase(),
        _ => info.name().to_owned(),
    }
}
