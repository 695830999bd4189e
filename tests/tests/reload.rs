//! A host takes on another configuration, or other components, while it runs: with the real binary.
//! What runs ends with what it began with, what starts has the new one, and what is wrong changes
//! nothing.

#[path = "reload/configuration.rs"]
mod configuration;
#[path = "reload/rollback.rs"]
mod rollback;
#[path = "reload/stage.rs"]
mod stage;
#[path = "reload/storm.rs"]
mod storm;
#[path = "reload/swap.rs"]
mod swap;
