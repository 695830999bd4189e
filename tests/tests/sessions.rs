//! What this product is for: sessions that are never shared, pools that do not run dry, and
//! the whole way from a schedule to a recorded completion. `cargo xtask test sessions` runs
//! these alone.

#[path = "sessions/flow.rs"]
mod flow;
#[path = "sessions/isolation.rs"]
mod isolation;
#[path = "sessions/load.rs"]
mod load;
#[path = "sessions/stage.rs"]
mod stage;
