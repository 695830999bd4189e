//! `innkeeper compile-component`, which hosts start: `runtime/compile/child.rs` has what it does.

use std::process::ExitCode;

use crate::runtime;

/// Compile the component on standard input, for the host that has started this.
#[derive(Debug, clap::Args)]
pub(super) struct CompileComponent {
    /// Bytes of address space that compiling may take.
    #[arg(long)]
    memory: u64,
    /// For plugins with a limit of fuel.
    #[arg(long)]
    fuel: bool,
}

impl CompileComponent {
    pub(super) fn run(&self) -> ExitCode {
        runtime::compile_component(self.memory, self.fuel)
    }
}
