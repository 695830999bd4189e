//! How many instances there is room for, and how large each may be.

/// Core instances of one component. One of Python or JavaScript has dozens; of Rust, one to three.
pub(super) const MOST_CORE_INSTANCES: u32 = 60;
/// Linear memories of one component.
pub(super) const MOST_MEMORIES: u32 = 4;
/// Tables of one component.
pub(super) const MOST_TABLES: u32 = 20;
