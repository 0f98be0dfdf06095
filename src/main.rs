//! The `sessile` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    sessile::cli::main(sessile::server::run)
}
