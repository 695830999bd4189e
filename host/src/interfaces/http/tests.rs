//! Requests, without a guest.
