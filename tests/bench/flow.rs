//! A bulk flow that continues while something else is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::task::JoinHandle;

use super::BenchError;
use super::queue::Queue;

/// Records fetched between two looks at whether to stop: enough to keep the window full.
const RECORDS: usize = 64;

/// A queue that is fetched from as fast as it goes, by a task of its own.
pub(super) struct Flow {
    is_stopping: Arc<AtomicBool>,
    task: JoinHandle<Result<(Queue, f64), BenchError>>,
}

impl Flow {
    /// From now on.
    pub(super) fn start(queue: Queue) -> Self {
        let is_stopping = Arc::new(AtomicBool::new(false));
        Self {
            task: tokio::spawn(carry(queue, Arc::clone(&is_stopping))),
            is_stopping,
        }
    }

    /// Until now: returns the queue, and how many 10^6 bytes came each second.
    pub(super) async fn stop(self) -> Result<(Queue, f64), BenchError> {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.task.await.map_err(|_| BenchError::Destroyed)?
    }
}

async fn carry(mut queue: Queue, is_stopping: Arc<AtomicBool>) -> Result<(Queue, f64), BenchError> {
    let (started, mut bytes) = (Instant::now(), 0);
    while !is_stopping.load(Ordering::Relaxed) {
        bytes += queue.fetch(RECORDS).await?;
    }
    let rate = bytes as f64 / 1e6 / started.elapsed().as_secs_f64();
    Ok((queue, rate))
}
