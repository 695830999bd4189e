//! What a component may ask of the host: one module for each interface of the WIT.
//!
//! A module here knows pure types and its own pools. It never sees the engine or the host's
//! store: what it needs of them goes through [`Port`], which the engine implements.

pub mod db;

/// Generated from the WIT in `plugin-sdk/wit`.
#[expect(missing_docs, reason = "generated; the WIT has the documentation")]
pub mod bindings {
    wasmtime::component::bindgen!({
        path: "../plugin-sdk/wit",
        world: "plugin",
        imports: { default: async | trappable },
        exports: { default: async },
        with: { "innkeeper:plugin/db.transaction": super::db::TransactionHandle },
    });
}
