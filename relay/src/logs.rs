//! The log of `umbel-relay`: lines go to standard error through a thread of their own, so that a
//! reader that has stopped reading holds up neither cells nor signals.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::failure::Failure;

/// Lines that may wait for standard error. Further lines are counted and dropped.
const LINES_MAX: usize = 1024;
/// How long the end of the program waits for lines to be written.
const FLUSH_MAX: Duration = Duration::from_secs(1);

type SetFilter = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

/// The log, once begun.
pub(crate) struct Logs {
    lines: SyncSender<Line>,
    set_filter: SetFilter,
}

enum Line {
    Text(Vec<u8>),
    /// All that came before is written.
    Flush(Sender<()>),
}

impl Logs {
    /// Logs what `filter` lets through, as in `RUST_LOG`, which counts more.
    pub(crate) fn begin(filter: &str) -> Result<Self, Failure> {
        let filter = parse_filter(filter)?;
        let (lines, waiting) = sync_channel(LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            lines: lines.clone(),
            dropped: Arc::clone(&dropped),
        };
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&waiting, &dropped));
        thread.map_err(|error| {
            Failure::failed(
                format!("can't start a thread: {error}"),
                "free some threads or memory of this machine",
            )
        })?;
        let builder = tracing_subscriber::fmt()
            .with_writer(writer)
            .with_ansi(false)
            .with_env_filter(filter)
            .with_filter_reloading();
        let handle = builder.reload_handle();
        builder.init();
        Ok(Self {
            lines,
            set_filter: Box::new(move |filter| handle.reload(filter).is_ok()),
        })
    }

    /// Changes the filter.
    pub(crate) fn set_filter(&self, filter: &str) -> Result<(), Failure> {
        let is_set = (self.set_filter)(parse_filter(filter)?);
        assert!(is_set, "the subscriber lives as long as the process");
        Ok(())
    }

    /// Waits until what was logged is written, but not for a reader that does not read.
    pub(crate) fn flush(&self) {
        let (written, is_written) = channel();
        if self.lines.try_send(Line::Flush(written)).is_ok() {
            let _ = is_written.recv_timeout(FLUSH_MAX); // a reader that does not read loses the end
        }
    }
}

/// Whether `log` of the configuration can be a filter.
pub(crate) fn parse_filter(filter: &str) -> Result<EnvFilter, Failure> {
    let of_environment = std::env::var("RUST_LOG");
    let text = of_environment.as_deref().unwrap_or(filter);
    EnvFilter::try_new(text).map_err(|error| {
        Failure::usage(
            format!("the log filter \"{text}\" is wrong: {error}"),
            "write a level, such as info or debug, in RUST_LOG or in the key `log`",
        )
    })
}

fn write_all(lines: &Receiver<Line>, dropped: &AtomicU64) {
    while let Ok(line) = lines.recv() {
        match line {
            // If standard error is closed, nobody is left to tell.
            Line::Text(text) => drop(io::stderr().write_all(&text)),
            Line::Flush(written) => drop(written.send(())),
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            drop(writeln!(
                io::stderr(),
                "{lost} lines of the log were lost: standard error was not read in time"
            ));
        }
    }
}

/// The writer that gets the log's lines: it never waits.
struct Writer {
    lines: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Line::Text(bytes.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
