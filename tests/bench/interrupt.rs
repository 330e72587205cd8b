//! Signals: the first one ends the measuring in order, so that no relay is left running; the second
//! ends this process at once.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::failure::Exit;

/// Whether a signal asked this process to stop.
pub(super) struct Interrupt(mpsc::Receiver<()>);

impl Interrupt {
    /// From now on signals are heard here.
    pub(super) fn watch() -> io::Result<Self> {
        let (heard, first) = mpsc::channel(1);
        let ignored = ignored_signals();
        for kind in [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ] {
            // A signal that this process was started to ignore (`nohup`) stays ignored.
            if ignored >> (kind.as_raw_value() - 1) & 1 == 1 {
                continue;
            }
            let (mut signals, heard) = (signal(kind)?, heard.clone());
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    // No room: the first signal still waits to be seen. No receiver: we are ending.
                    if heard.try_send(()).is_err() {
                        std::process::exit(Exit::Interrupted as i32);
                    }
                }
            });
        }
        Ok(Self(first))
    }

    /// Waits for the first signal.
    pub(super) async fn wait(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// The signals that this process was started to ignore, lowest first, where the system shows them.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}
