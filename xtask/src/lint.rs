//! `cargo xtask lint`: formatting and lints.

use anyhow::{Context, Result};

use crate::cargo;
use crate::process;
use crate::steps::Steps;
use crate::toolchain;

/// Checks formatting and lints of the whole workspace.
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
    })
}
