//! Parse, call, set the exit code: 0 done, 1 failed, 2 usage, 3 found something.

use std::process::ExitCode;

#[cfg(feature = "io")]
fn main() -> ExitCode {
    purser::cli::main()
}

#[cfg(not(feature = "io"))]
fn main() -> ExitCode {
    eprintln!("error: this purser was built without its command line\nhint: build it with the feature `io`, which is on by default");
    ExitCode::FAILURE
}
