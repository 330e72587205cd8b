//! The runtime that a command runs in, and a check that the system has threads and memory for it:
//! where it has none, the libraries below would abort the process.

use std::io;
use std::sync::RwLock;
use std::thread;

use super::failure::{Failure, MEMORY_HINT, system_hint};

/// Threads of a command that measures nothing: it waits most of the time.
const WORKERS_MAX: usize = 4;
/// Threads besides: for the profile, for output, and for what blocks.
const OTHER_THREADS: usize = 4;
/// Address space that a command takes that may use the network: most of it threads' stacks and what
/// the allocator keeps.
const MEMORY_MIN_MIB: u64 = 256;

/// Runs a command.
pub(super) fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    run(cores().min(WORKERS_MAX), work)
}

/// Runs a command that uses all of the machine.
pub(super) fn block_on_all_cores(
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    run(cores(), work)
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn run(workers: usize, work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(mib) = memory_limit_mib(&limits).filter(|&mib| mib < MEMORY_MIN_MIB) {
        let error = format!(
            "not enough memory: the limit is {mib} MiB, and umbel takes {MEMORY_MIN_MIB} MiB"
        );
        return Err(Failure::failed(error, MEMORY_HINT));
    }
    let failed = |error: io::Error| {
        Failure::failed(
            format!("could not start: {error}"),
            system_hint(&error, MEMORY_HINT),
        )
    };
    check_threads(workers + OTHER_THREADS).map_err(failed)?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .worker_threads(workers)
        .enable_all()
        .build()
        .map_err(failed)?
        .block_on(Box::pin(work))
}

/// Whether this process may start `count` more threads.
fn check_threads(count: usize) -> io::Result<()> {
    let gate = RwLock::new(());
    let closed = gate.write();
    thread::scope(|scope| {
        let pass = || drop(gate.read());
        let started =
            (0..count).try_for_each(|_| thread::Builder::new().spawn_scoped(scope, pass).map(drop));
        drop(closed);
        started
    })
}

/// The limit of address space in `/proc/self/limits`; `None` if there is none.
fn memory_limit_mib(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max address space"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_memory_is_read_and_none_is_none() {
        let text = |soft| {
            format!(
                "Max locked memory 1 1 bytes\nMax address space         {soft}   unlimited   bytes\n"
            )
        };
        assert_eq!(memory_limit_mib(&text("104857600")), Some(100));
        assert_eq!(memory_limit_mib(&text("unlimited")), None);
        assert_eq!(memory_limit_mib(""), None);
    }

    #[test]
    fn asking_for_threads_that_can_be_had_is_no_error_however_often() {
        assert!((0..20).all(|_| check_threads(8).is_ok()));
    }
}
