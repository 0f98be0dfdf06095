//! The `sessile` binary: parses the command line and runs the command; the code of both is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    sessile::cli::main(sessile::server::run)
}
