//! A connection's socket: it holds the connection's place, and closes it when nothing moves.
//!
//! A request that is refused before its body was read leaves the body on its way. Closed at once,
//! the socket would answer these bytes with a reset, which takes the answer from its reader: so the
//! rest is read and discarded for a while first.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::activity::{Activity, Overdue};
use super::server::Place;
use crate::telemetry::Metrics;

/// How long nothing may move.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// While an answer waits to be taken.
    pub(super) stall: Duration,
    /// Between an answer and the next request.
    pub(super) idle: Duration,
}

/// How long what still comes is discarded when a connection ends, how much of it, and how soon the
/// end is taken for one where nothing comes.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 64 << 20;
const LINGER_QUIET: Duration = Duration::from_millis(250);
/// What is discarded at once.
const DISCARD_BYTES: usize = 16 << 10;

/// A connection that holds its place until it is dropped.
pub(super) struct LimitedStream {
    stream: TcpStream,
    activity: Arc<Activity>,
    patience: Patience,
    /// Since when the socket takes no bytes.
    blocked_since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    linger: Option<Linger>,
    metrics: Arc<Metrics>,
    _place: Place,
}

/// The end of a connection: nothing more is sent, what comes is discarded.
struct Linger {
    until: Instant,
    left: usize,
    buffer: Vec<u8>,
}

impl LimitedStream {
    pub(super) fn new(stream: TcpStream, place: Place, patience: Patience, metrics: Arc<Metrics>) -> Self {
        Self {
            stream,
            activity: Arc::default(),
            patience,
            blocked_since: None,
            timer: Box::pin(tokio::time::sleep(patience.stall)),
            linger: None,
            metrics,
            _place: place,
        }
    }

    /// What is under way on this connection.
    pub(super) fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }

    fn due(&self) -> Option<(Instant, Overdue)> {
        let Patience { stall, idle } = self.patience;
        let blocked = self.blocked_since.map(|since| (since + stall, Overdue::Stalled));
        let due = self.activity.due(stall, idle);
        blocked.into_iter().chain(due).min_by_key(|(at, _)| *at)
    }

    /// Ready once the connection is overdue. It is asked whenever the socket is not ready, and
    /// wakes the connection by itself.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Overdue> {
        loop {
            let Some((at, overdue)) = self.due() else { return Poll::Pending };
            if at <= Instant::now() {
                return Poll::Ready(overdue);
            }
            // Each piece that moves puts the time off; the timer follows when it is over.
            if self.timer.is_elapsed() || at < self.timer.deadline() {
                self.timer.as_mut().reset(at);
            }
            ready!(self.timer.as_mut().poll(cx));
        }
    }

    /// What a write came to: it counts when it is blocked, and fails when it was for too long.
    fn written<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.blocked_since = None;
            return result;
        }
        self.blocked_since.get_or_insert_with(Instant::now);
        self.poll_overdue(cx).map(|overdue| Err(self.closed(overdue)))
    }

    fn closed(&self, overdue: Overdue) -> io::Error {
        let (reason, why) = match overdue {
            Overdue::Stalled => ("write_stall", "http.write_stall_ms went by with nothing taken"),
            Overdue::Idle => ("idle", "http.header_read_ms went by without a request"),
        };
        self.metrics.http_connections_closed.with_label_values(&[reason]).inc();
        io::Error::new(io::ErrorKind::TimedOut, why)
    }

    /// Ready when the peer has ended too, or has been waited for long enough.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(linger) = &mut self.linger else { return Poll::Ready(Ok(())) };
        loop {
            let mut into = ReadBuf::new(&mut linger.buffer);
            match Pin::new(&mut self.stream).poll_read(cx, &mut into) {
                Poll::Ready(Ok(())) if !into.filled().is_empty() => {
                    linger.left = linger.left.saturating_sub(into.filled().len());
                    if linger.left == 0 || Instant::now() >= linger.until {
                        return Poll::Ready(Ok(()));
                    }
                    self.timer.as_mut().reset(linger.until.min(Instant::now() + LINGER_QUIET));
                }
                // It has ended, or failed: there is nobody left to tell.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    ready!(self.timer.as_mut().poll(cx));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncRead for LimitedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        if read.is_ready() {
            return read;
        }
        self.poll_overdue(cx).map(|overdue| {
            let error = self.closed(overdue);
            // An idle connection ends as if its peer had closed it, which is no failure.
            if overdue == Overdue::Idle { Ok(()) } else { Err(error) }
        })
    }
}

impl AsyncWrite for LimitedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            let until = Instant::now() + LINGER;
            self.linger = Some(Linger { until, left: LINGER_BYTES, buffer: vec![0; DISCARD_BYTES] });
            self.timer.as_mut().reset(Instant::now() + LINGER_QUIET);
        }
        self.poll_discard(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
