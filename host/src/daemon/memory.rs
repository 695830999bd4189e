//! What the host frees goes back to the machine.

/// Blocks of this many bytes or more are mapped on their own, so that they are the system's again
/// as soon as they are freed.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: libc::c_int = 1 << 20;

/// Tells the allocator to give back what is large.
///
/// glibc raises its bound of mapped blocks (mallopt(3), `M_MMAP_THRESHOLD`) to the largest block that was
/// freed, 32 MiB at most, and keeps what is below in the arena of the thread that freed it. A few values of 30 MB
/// that a plugin had its database send stayed with the host as 200 MiB and more, for good. Setting the
/// bound ends its rise. Other allocators have no such bound.
pub(super) fn give_back_what_is_large() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "std cannot set up the allocator")]
        // SAFETY: mallopt takes numbers only, and locks what it changes.
        let set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) };
        debug_assert_eq!(set, 1, "glibc takes up to 32 MiB");
    }
}
