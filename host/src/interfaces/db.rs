//! The `db` interface.

/// What the guest's handle of a transaction stands for.
#[derive(Debug)]
pub struct TransactionHandle {
    /// The number of the transaction in its execution's registry, never used again.
    pub id: u64,
}
