//! Hostile plugins: everything that a plugin cannot do, tried in every way that we know, on both
//! engines, with logins of their own on PostgreSQL. After each attempt the database is clean, the
//! host is up, and a good plugin beside it is not hurt.
//!
//! [`attacks`] is the list. `statements` and `excess` drive sessions as the runtime does, so that
//! they can look after each step; `raids` and `endings` do a part of it with the real binary and
//! real components.

#[path = "hostile/attacks.rs"]
mod attacks;
#[path = "hostile/endings.rs"]
mod endings;
#[path = "hostile/excess.rs"]
mod excess;
#[path = "hostile/ground.rs"]
mod ground;
#[path = "hostile/raids.rs"]
mod raids;
#[path = "hostile/statements.rs"]
mod statements;
