//! The binary: parse, run, exit with the documented code.

use std::process::ExitCode;

fn main() -> ExitCode {
    innkeeper::cli::main()
}
