//! `cargo xtask lint`: formatting, lints and the documentation's links.

use anyhow::{Context, Result};

use crate::cargo;
use crate::process;
use crate::steps::Steps;
use crate::toolchain;

/// Checks formatting, lints and documentation of the whole workspace.
pub fn run(steps: &mut Steps) -> Result<()> {
    steps.run("rustfmt and clippy, added where they are missing", toolchain::add_lint_components)?;
    steps.run("formatting", || {
        process::run_to_success(cargo::command().args(["fmt", "--all", "--check"]))
            .context("the formatting is not that of rustfmt; run `cargo fmt --all`")
    })?;
    steps.run("lints", || {
        let mut clippy = cargo::command();
        clippy.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
        process::run_to_success(&mut clippy).context("clippy has something to say, see above")
    })?;
    steps.run("documentation", || {
        let mut doc = cargo::command();
        // A link that leads nowhere is only a warning of rustdoc's.
        doc.env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--no-deps"]).args(cargo::HOST_PACKAGES);
        process::run_to_success(&mut doc).context("rustdoc has something to say, see above")
    })
}
