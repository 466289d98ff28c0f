//! The `selftrace` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    selftrace::cli::main()
}
