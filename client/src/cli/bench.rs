//! `umbel bench`: becomes the `umbel-bench` that lies beside this program, a tool of its own so
//! that nobody who sends messages carries a benchmark.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::failure::{Exit, Failure};
use super::session::Session;

const PROGRAM: &str = "umbel-bench";

const BUILD_HINT: &str =
    "build it with `cargo build --release --workspace`, which puts it beside umbel";

#[derive(clap::Args)]
pub(super) struct BenchArgs {
    /// Options of umbel-bench; `umbel bench --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Comes back only if there is nothing to become: the exit code is the benchmark's.
pub(super) fn run(session: &Session, args: &BenchArgs) -> Result<(), Failure> {
    let program = std::env::current_exe()
        .map_err(|error| failed(&error))?
        .with_file_name(PROGRAM);
    if !program.is_file() {
        let dir = program.parent().unwrap_or(Path::new(".")).display();
        let error = format!("there is no {PROGRAM} in {dir}");
        return Err(Failure::new(Exit::NotThere, error, BUILD_HINT));
    }
    let mut command = Command::new(program);
    command.args(session.output_options()).args(&args.words);
    Err(failed(&command.exec()))
}

fn failed(error: &io::Error) -> Failure {
    Failure::failed(format!("could not start {PROGRAM}: {error}"), BUILD_HINT)
}
