//! The reading half of a link: whole cells out of a stream, each straight into the buffer in which
//! it goes onward.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use umbel_proto::cell::Cell;
use umbel_proto::limits::CELL_LEN;

use super::LinkEnd;
use crate::net::pool::CellCache;

/// Most cells read before other links and this one's writing have their turn.
const READ_BATCH_CELLS: usize = 32;

/// The cells that have come and are not handled yet.
#[derive(Default)]
pub(super) struct Reader {
    /// A cell that has come in part, and how many bytes of it have.
    partial: Option<(Cell, usize)>,
    /// Whole cells, in the order they came.
    pub(super) received: Vec<Cell>,
}

impl Reader {
    /// Reads up to a batch into `received`. Cells that came before an end are kept too.
    pub(super) fn read<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        cells: &mut CellCache,
    ) -> Result<(), LinkEnd> {
        while self.received.len() < READ_BATCH_CELLS {
            match self.poll_cell(cx, stream, cells) {
                Poll::Ready(cell) => self.received.push(cell?),
                Poll::Pending => return Ok(()),
            }
        }
        cx.waker().wake_by_ref(); // more may be there, but others come first
        Ok(())
    }

    fn poll_cell<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        cells: &mut CellCache,
    ) -> Poll<Result<Cell, LinkEnd>> {
        let (mut cell, mut read_len) = self.partial.take().unwrap_or_else(|| (cells.take(), 0));
        loop {
            let mut rest =
                ReadBuf::new(cell.as_bytes_mut().get_mut(read_len..).unwrap_or_default());
            let polled = Pin::new(&mut *stream).poll_read(cx, &mut rest);
            let len = rest.filled().len();
            match polled {
                Poll::Pending if read_len == 0 => {
                    cells.put(cell);
                    return Poll::Pending;
                }
                Poll::Pending => {
                    self.partial = Some((cell, read_len));
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(LinkEnd::Io(error))),
                Poll::Ready(Ok(())) if len == 0 => return Poll::Ready(Err(LinkEnd::ByPeer)),
                Poll::Ready(Ok(())) => read_len += len,
            }
            if read_len == CELL_LEN {
                return Poll::Ready(Ok(cell));
            }
        }
    }
}
