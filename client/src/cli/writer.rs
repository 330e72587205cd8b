//! Standard output and standard error, written by threads of their own: a reader that does not read
//! can block the command, but can't keep it from being interrupted.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How long output may take once the command was interrupted.
const GRACE: Duration = Duration::from_millis(500);

static OUT: LazyLock<Writer> =
    LazyLock::new(|| Writer::start(|bytes| write_through(&mut io::stdout().lock(), bytes)));
static ERR: LazyLock<Writer> =
    LazyLock::new(|| Writer::start(|bytes| write_through(&mut io::stderr().lock(), bytes)));

/// Writes all of this to standard output, and sees it through.
pub(super) fn to_stdout(bytes: Vec<u8>) -> io::Result<()> {
    OUT.write(bytes)
}

/// Writes all of this to standard error.
pub(super) fn to_stderr(bytes: Vec<u8>) -> io::Result<()> {
    ERR.write(bytes)
}

/// From now on writes don't wait for the reader: one that would block fails with
/// [`io::ErrorKind::Interrupted`].
pub(super) fn interrupt() {
    OUT.interrupt();
    ERR.interrupt();
}

fn write_through(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

/// One stream and its thread.
struct Writer {
    /// `None` if the system gives no thread: then the caller writes by itself.
    jobs: Option<Mutex<mpsc::Sender<Vec<u8>>>>,
    write: fn(&[u8]) -> io::Result<()>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// How the last job went, once it is done.
    done: Option<io::Result<()>>,
    /// When output was to be given up.
    interrupted_at: Option<Instant>,
    /// A job was given up, and may be done some day.
    is_stuck: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn start(write: fn(&[u8]) -> io::Result<()>) -> Self {
        let shared = Arc::new(Shared::default());
        let (jobs, queue) = mpsc::channel::<Vec<u8>>();
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("umbel-output".to_owned())
            .spawn(move || {
                for bytes in queue {
                    let result = write(&bytes);
                    of_thread.state().done = Some(result);
                    of_thread.changed.notify_all();
                }
            });
        Self {
            jobs: thread.ok().map(|_| Mutex::new(jobs)),
            write,
            shared,
        }
    }

    fn write(&self, bytes: Vec<u8>) -> io::Result<()> {
        let Some(jobs) = &self.jobs else {
            return (self.write)(&bytes);
        };
        // Held until the end, so that one job runs at a time.
        let jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.shared.state();
        if state.is_stuck {
            return Err(io::ErrorKind::Interrupted.into());
        }
        state.done = None;
        jobs.send(bytes).map_err(|_| io::ErrorKind::BrokenPipe)?;
        loop {
            if let Some(result) = state.done.take() {
                return result;
            }
            state = match state.interrupted_at {
                Some(at) if at.elapsed() >= GRACE => {
                    state.is_stuck = true;
                    return Err(io::ErrorKind::Interrupted.into());
                }
                Some(_) => {
                    let waited = self.shared.changed.wait_timeout(state, GRACE);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .shared
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn interrupt(&self) {
        self.shared
            .state()
            .interrupted_at
            .get_or_insert_with(Instant::now);
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_that_nobody_reads_ends_when_interrupted() {
        let writer = Arc::new(Writer::start(|_| {
            loop {
                thread::park();
            }
        }));
        let writing = {
            let writer = Arc::clone(&writer);
            thread::spawn(move || writer.write(vec![1]))
        };
        writer.interrupt();
        assert_eq!(
            writing.join().unwrap().unwrap_err().kind(),
            io::ErrorKind::Interrupted
        );
        assert_eq!(
            writer.write(vec![2]).unwrap_err().kind(),
            io::ErrorKind::Interrupted
        );
    }

    #[test]
    fn written_bytes_and_failures_are_reported() {
        assert!(Writer::start(|_| Ok(())).write(vec![1]).is_ok());
        let broken = Writer::start(|_| Err(io::ErrorKind::BrokenPipe.into()));
        assert_eq!(
            broken.write(vec![1]).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }
}
