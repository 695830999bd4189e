//! What can befall the store's database, under a host that works: the host stays up, says what is
//! wrong, and goes on when it can; and nothing is lost or done twice.

#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/failover.rs"]
mod failover;
#[path = "faults/namespace.rs"]
mod namespace;
#[path = "faults/network.rs"]
mod network;
#[path = "faults/server.rs"]
mod server;
#[path = "faults/stage.rs"]
mod stage;
