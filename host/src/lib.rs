//! Innkeeper: a scheduler that runs WebAssembly job handlers, and never shares a database
//! session with them.
//!
//! Read in this order: [`job`], [`schedule`] (with [`calendar`] and [`catch_up`]), [`policy`], [`retry`] and
//! [`execution`] are the rules, pure and without I/O; [`capability`] is what plugins may be granted; [`store`] keeps the host's own records; [`plugin`] finds components ([`component`]) and
//! [`runtime`] calls them; [`interfaces`] is what a component may ask of the host; [`engine`]
//! moves executions through their phases; [`http`] answers whoever watches over the host; [`config`] reads the operator's file; [`daemon`]
//! wires it all, and [`cli`] is what a person types.

pub mod args;
pub mod bounds;
pub mod calendar;
pub mod capability;
pub mod catch_up;
pub mod check;
pub mod cli;
pub mod clock;
pub mod component;
pub mod config;
pub mod daemon;
pub mod database_url;
pub mod engine;
pub mod execution;
pub mod http;
pub mod interfaces;
pub mod job;
pub mod limits;
pub mod name;
pub mod plugin;
pub mod policy;
pub mod retry;
pub mod runtime;
pub mod schedule;
pub mod store;
pub mod suggest;
pub mod telemetry;
pub mod wire;
