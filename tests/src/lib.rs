//! What the tests of the whole workspace share.

pub mod attempt;
pub mod chaos;
pub mod clock;
pub mod database;
pub mod fuzz;
pub mod host;
pub mod http;
pub mod interrupt;
pub mod login;
pub mod pgbouncer;
pub mod plugins;
pub mod raw;
pub mod registry;
pub mod relay;
pub mod release;
pub mod server;
pub mod simulate;
pub mod soak;
pub mod versions;

/// Makes each of these tests one for SQLite and one for PostgreSQL.
#[macro_export]
macro_rules! on_both_engines {
    ($(async fn $name:ident($engine:ident: $type:ty) $body:block)*) => {
        $(async fn $name($engine: $type) $body)*

        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($crate::database::Engine::Sqlite).await;
            })*
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($crate::database::Engine::Postgres).await;
            })*
        }
    };
}
