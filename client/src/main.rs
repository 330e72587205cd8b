//! The `umbel` command.

#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a shell: the user's files, waits on the clock"
)]
mod cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
