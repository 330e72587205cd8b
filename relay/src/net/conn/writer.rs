//! The writing half of a link: cells taken from its queue, a TLS record at once.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use umbel_proto::cell::Cell;
use umbel_proto::limits::CELL_LEN;

use crate::net::pool::CellCache;

/// Cells written at once: they fill a TLS record.
const RECORD_CELLS: usize = 16 * 1024 / CELL_LEN;

/// The cells on their way from the queue to the stream.
#[derive(Default)]
pub(super) struct Writer {
    /// Cells taken from the queue. Of the first, `written_len` bytes are written.
    pub(super) outbox: VecDeque<Cell>,
    written_len: usize,
    needs_flush: bool,
    /// Cells written whole since [`take_written`](Self::take_written).
    written_count: usize,
}

impl Writer {
    /// Writes and flushes the outbox: ready once nothing is left of it.
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        cells: &mut CellCache,
    ) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); RECORD_CELLS];
            for (slice, cell) in slices.iter_mut().zip(&self.outbox) {
                *slice = IoSlice::new(cell.as_bytes());
            }
            let mut unwritten = slices.as_mut_slice();
            IoSlice::advance_slices(&mut unwritten, self.written_len);
            match Pin::new(&mut *stream).poll_write_vectored(cx, unwritten) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(len)) => self.on_written(len, cells),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        if self.needs_flush {
            match Pin::new(stream).poll_flush(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(flushed) => flushed?,
            }
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn on_written(&mut self, len: usize, cells: &mut CellCache) {
        self.needs_flush = true;
        self.written_len += len;
        let count = self.written_len / CELL_LEN;
        self.written_len %= CELL_LEN;
        self.outbox.drain(..count).for_each(|cell| cells.put(cell));
        self.written_count += count;
    }

    /// How many cells were written whole since this was last asked.
    pub(super) fn take_written(&mut self) -> usize {
        mem::take(&mut self.written_count)
    }

    /// Cells that the relay's budget still pays for.
    pub(super) fn charged_cells(&self) -> usize {
        self.outbox.len() + self.written_count
    }
}
