//! Generated from the WIT in `plugin-sdk/wit`.
//!
//! The world adds `wasi:config`, which comes with every plugin, to `innkeeper:plugin/plugin`.
//! It is written here because the host serves `wasi:config` by an implementation that is not
//! generated from our WIT.

wit_bindgen::generate!({
    path: "../wit",
    inline: "
        package innkeeper:sdk@0.1.0;
        world guest {
            include innkeeper:plugin/plugin@0.1.0;
            import wasi:config/store@0.2.0-rc.1;
        }
    ",
    world: "innkeeper:sdk/guest",
    pub_export_macro: true,
    export_macro_name: "export",
    default_bindings_module: "::innkeeper_sdk::__private::bindings",
    additional_derives: [PartialEq],
    generate_all,
});
