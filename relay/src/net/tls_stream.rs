//! TLS on a socket, as a busy link wants it: one system call for several records, each way.
//!
//! rustls does the TLS; this module only moves bytes. Written cells become whole records inside
//! rustls and leave together when the stream is flushed. The socket is read in large pieces, into a
//! buffer borrowed from a pool and returned as soon as it is empty, so that an idle link keeps
//! none. Limits: [`SEND_BYTES_MAX`], [`READ_AHEAD_LEN`], and [`LENT_BUFFERS_MAX`] for the large
//! buffers of all links.

use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use rustls::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Read from the socket at once: about four full records.
const READ_AHEAD_LEN: usize = 64 * 1024;
/// The same once too many large buffers are lent: as much as rustls alone would read.
const SMALL_READ_LEN: usize = 4 * 1024;
/// Most large buffers that links hold at once: 16 MiB. They are held for long only where cells come
/// faster than they can go.
const LENT_BUFFERS_MAX: usize = 256;
/// Most bytes of records that wait for the socket: four full records with what TLS puts around
/// each.
const SEND_BYTES_MAX: usize = 4 * (16 * 1024 + 22);
/// Most unused buffers that the pool keeps: 2 MiB. Only links with more to read than they could
/// forward hold one.
const POOL_BUFFERS_MAX: usize = 32;

/// Buffers to read into, lent to links.
#[derive(Default)]
pub(crate) struct BufferPool(Mutex<Buffers>);

#[derive(Default)]
struct Buffers {
    unused: Vec<Box<[u8]>>,
    /// How many large ones links hold.
    lent: usize,
}

impl BufferPool {
    fn take(&self) -> Box<[u8]> {
        let mut buffers = self.lock();
        if buffers.lent == LENT_BUFFERS_MAX {
            return vec![0; SMALL_READ_LEN].into_boxed_slice();
        }
        buffers.lent += 1;
        buffers
            .unused
            .pop()
            .unwrap_or_else(|| vec![0; READ_AHEAD_LEN].into_boxed_slice())
    }

    fn give_back(&self, buffer: Box<[u8]>) {
        if buffer.len() < READ_AHEAD_LEN {
            return;
        }
        let mut buffers = self.lock();
        buffers.lent -= 1;
        if buffers.unused.len() < POOL_BUFFERS_MAX {
            buffers.unused.push(buffer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Buffers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A TLS connection whose handshake is over, on the socket `S`.
pub(super) struct TlsStream<S> {
    socket: S,
    session: Connection,
    ahead: ReadAhead,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Continues a session on the socket that its handshake was made on.
    pub(super) fn new(socket: S, session: impl Into<Connection>, pool: Arc<BufferPool>) -> Self {
        let mut session = session.into();
        session.set_buffer_limit(Some(SEND_BYTES_MAX));
        Self {
            socket,
            session,
            ahead: ReadAhead {
                pool,
                buffer: None,
                start: 0,
                end: 0,
            },
        }
    }

    /// Opens what was read ahead, after reading more if that was nothing.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            ready!(self.ahead.poll_fill(&mut self.socket, cx))?;
        }
        // Nothing ahead means the end of the stream, to rustls too.
        self.session.read_tls(&mut self.ahead)?;
        let processed = self.session.process_new_packets();
        if self.session.wants_write() {
            // An alert or a new key: now if the socket takes it, else with the next cells.
            let _ = self.poll_send(cx);
        }
        Poll::Ready(
            processed
                .map(|_| ())
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        )
    }

    /// Hands finished records to the socket until none waits.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut NonBlocking {
                socket: &mut self.socket,
                cx,
            }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.session.reader().read(buf.initialize_unfilled()) {
                Ok(len) => {
                    buf.advance(len);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(this.poll_receive(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    /// Makes one record of the slices. Only a flush, or more than may wait, hands records to the
    /// socket.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            let len = this.session.writer().write_vectored(slices)?;
            if len > 0 || slices.iter().all(|slice| slice.is_empty()) {
                return Poll::Ready(Ok(len));
            }
            ready!(this.poll_send(cx))?;
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.session.send_close_notify(); // once, however often it is asked
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

/// Bytes from the socket that rustls has not taken yet.
struct ReadAhead {
    pool: Arc<BufferPool>,
    /// There only while something is in it.
    buffer: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

impl ReadAhead {
    const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Reads as much as the socket has and the buffer holds; nothing at the end of the stream.
    fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut buffer = self.buffer.take().unwrap_or_else(|| self.pool.take());
        let mut filled = ReadBuf::new(&mut buffer);
        let polled = Pin::new(socket).poll_read(cx, &mut filled);
        (self.start, self.end) = (0, filled.filled().len());
        if self.is_empty() {
            self.pool.give_back(buffer);
        } else {
            self.buffer = Some(buffer);
        }
        polled
    }
}

impl Read for ReadAhead {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let buffer = self.buffer.as_deref().unwrap_or_default();
        let len = buffer
            .get(self.start..self.end)
            .unwrap_or_default()
            .read(out)?;
        self.start += len;
        Ok(len)
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.pool.give_back(buffer);
        }
    }
}

/// A socket as rustls writes to it: a write that would block is an error.
struct NonBlocking<'a, 'b, S> {
    socket: &'a mut S,
    cx: &'a mut Context<'b>,
}

impl<S: AsyncWrite + Unpin> Write for NonBlocking<'_, '_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match Pin::new(&mut *self.socket).poll_write_vectored(self.cx, slices) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector};
    use umbel_proto::crypto::sign::SigningKey;
    use umbel_proto::link::tls;

    use super::*;

    /// Both ends of a connection with so much room on the wire, and the pool of the first.
    async fn pair(
        wire_len: usize,
    ) -> (
        TlsStream<DuplexStream>,
        TlsStream<DuplexStream>,
        Arc<BufferPool>,
    ) {
        let key = SigningKey::from_seed(&[1; 32]);
        let acceptor = TlsAcceptor::from(tls::accept_config(&key).unwrap());
        let connector = TlsConnector::from(tls::dial_config(&key.public().into(), None).unwrap());
        let (near, far) = duplex(wire_len);
        let (near, far) = tokio::join!(
            connector.connect(tls::server_name(), near),
            acceptor.accept(far)
        );
        let ((near, client), (far, server)) =
            (near.unwrap().into_inner(), far.unwrap().into_inner());
        let pool = Arc::<BufferPool>::default();
        (
            TlsStream::new(near, client, Arc::clone(&pool)),
            TlsStream::new(far, server, Arc::default()),
            pool,
        )
    }

    /// Large buffers that links hold, and that nobody does.
    fn counts(pool: &BufferPool) -> (usize, usize) {
        let buffers = pool.lock();
        (buffers.lent, buffers.unused.len())
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..=250).cycle().take(len).collect()
    }

    #[tokio::test]
    async fn what_is_written_arrives_through_a_wire_of_any_width() {
        for wire_len in [100, 5000, 1 << 20] {
            let (mut near, mut far, _) = pair(wire_len).await;
            let sent = bytes(300_000);
            let expected = sent.clone();
            let writing = tokio::spawn(async move {
                near.write_all(&sent).await.unwrap();
                near.shutdown().await.unwrap();
                near
            });
            let mut received = Vec::new();
            far.read_to_end(&mut received).await.unwrap();
            assert!(received == expected, "{wire_len}");
            writing.await.unwrap();
        }
    }

    #[tokio::test]
    async fn records_leave_together_when_flushed_and_not_before() {
        let (mut near, mut far, _) = pair(1 << 20).await;
        let sent = bytes(30_000);
        near.write_all(&sent).await.unwrap();
        let mut received = vec![0; sent.len()];
        let early =
            tokio::time::timeout(std::time::Duration::from_millis(1), far.read(&mut received))
                .await;
        assert!(early.is_err(), "nothing was flushed");
        near.flush().await.unwrap();
        far.read_exact(&mut received).await.unwrap();
        assert!(received == sent);
    }

    #[tokio::test]
    async fn an_idle_stream_holds_no_buffer() {
        let (mut near, mut far, pool) = pair(1 << 20).await;
        far.write_all(&bytes(100_000)).await.unwrap();
        far.flush().await.unwrap();
        let mut received = vec![0; 50_000];
        near.read_exact(&mut received).await.unwrap();
        assert!(near.ahead.buffer.is_some() && counts(&pool) == (1, 0));
        near.read_exact(&mut received).await.unwrap();
        let mut more = ReadBuf::new(&mut received);
        assert!(
            Pin::new(&mut near)
                .poll_read(
                    &mut Context::from_waker(std::task::Waker::noop()),
                    &mut more
                )
                .is_pending()
        );
        assert!(near.ahead.buffer.is_none() && counts(&pool) == (0, 1));
    }

    #[test]
    fn only_so_many_links_borrow_large_buffers() {
        let pool = BufferPool::default();
        let mut lent: Vec<_> = (0..=LENT_BUFFERS_MAX).map(|_| pool.take()).collect();
        assert_eq!(lent.pop().map(|last| last.len()), Some(SMALL_READ_LEN));
        lent.drain(..).for_each(|buffer| pool.give_back(buffer));
        assert_eq!(counts(&pool), (0, POOL_BUFFERS_MAX));
        assert_eq!(pool.take().len(), READ_AHEAD_LEN);
    }

    #[tokio::test]
    async fn a_stream_cut_off_or_garbled_is_an_error_and_a_closed_one_an_end() {
        let (mut near, mut far, _) = pair(1 << 20).await;
        far.shutdown().await.unwrap();
        assert_eq!(near.read(&mut [0; 10]).await.unwrap(), 0);

        let (mut near, far, _) = pair(1 << 20).await;
        drop(far);
        assert_eq!(
            near.read(&mut [0; 10]).await.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );

        let (mut near, mut far, _) = pair(1 << 20).await;
        far.socket
            .write_all(&[
                23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
                20,
            ])
            .await
            .unwrap();
        assert_eq!(
            near.read(&mut [0; 10]).await.unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert_eq!(
            far.read(&mut [0; 10]).await.unwrap_err().kind(),
            io::ErrorKind::InvalidData,
            "told by an alert"
        );
    }
}
