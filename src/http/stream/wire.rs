//! WebSocket messages on a connection.
//!
//! What comes in is read by `tungstenite`, which never sees the socket: its bytes are handed to it,
//! and its pongs and closes are taken from it and go out first, between two messages. What goes
//! out is framed here, so that the bytes of ticks are written from where all clients share them and
//! a connection holds no buffer of its own.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

use crate::live::{Bell, Codec, Piece, payload};

/// What is read from the socket at once.
const READ_BYTES: usize = 4 * 1024;
/// What is parsed at once: a connection holds so much while it is idle.
const PARSE_BYTES: usize = 512;
/// Pongs that the peer does not take; above it nothing is read.
const REPLIES_BYTES_MAX: usize = 4 * 1024;
/// Parts of a message that are written at once.
const SLICES: usize = 64;

/// What came of driving a connection.
#[derive(Debug)]
pub(super) enum Driven {
    /// A message.
    Heard(Codec, Bytes),
    /// A ping, a pong: a sign of life.
    Alive,
    /// What was being sent is sent.
    Sent,
    /// It has ended; with a text where by the peer's fault.
    Ended(Option<&'static str>),
}

/// The bytes between the socket and `tungstenite`.
#[derive(Default)]
struct Pipe {
    incoming: BytesMut,
    replies: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.incoming.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.incoming.len().min(into.len());
        self.incoming.copy_to_slice(into.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.replies.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection that speaks WebSocket.
pub(super) struct Wire<IO> {
    io: IO,
    inbound: WebSocketContext,
    pipe: Pipe,
    /// Rung when something may have come in: who is woken to send need not look at the socket again.
    arrival: Arc<Bell>,
    /// The same as the socket takes it.
    arrived: Waker,
    /// What is being written: a message that has begun is written to its end.
    outgoing: VecDeque<Bytes>,
    /// Bytes were taken since this was last looked at.
    moved: bool,
    blocked: bool,
    /// Something was written that a layer below may still hold.
    unflushed: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire<IO> {
    /// Takes messages of at most so many bytes.
    pub(super) fn new(io: IO, message_bytes_max: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(PARSE_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        let inbound = WebSocketContext::new(Role::Server, Some(config));
        let (pipe, outgoing) = (Pipe::default(), VecDeque::new());
        let arrival = Arc::new(Bell::rung());
        let arrived = Waker::from(Arc::clone(&arrival));
        let (moved, blocked, unflushed) = (false, false, false);
        Self { io, inbound, pipe, arrival, arrived, outgoing, moved, blocked, unflushed }
    }

    /// Begins to send ticks. Only when nothing is being sent.
    pub(super) fn send_pieces(&mut self, codec: Codec, pieces: &[Arc<Piece>]) {
        let alone = match pieces {
            [piece] => piece.alone(|| whole(codec, &payload(pieces, codec))),
            _ => None,
        };
        match alone {
            Some(whole) => self.outgoing.push_back(whole),
            None => self.send(codec, payload(pieces, codec)),
        }
    }

    /// Begins to send a payload. Only when nothing is being sent.
    pub(super) fn send(&mut self, codec: Codec, parts: Vec<Bytes>) {
        self.outgoing.push_back(head(opcode(codec), length(&parts)));
        self.outgoing.extend(parts.into_iter().filter(|part| !part.is_empty()));
    }

    /// Asks the peer for a sign of life.
    pub(super) fn ping(&mut self) {
        let ping = Message::Ping(Bytes::new());
        // The pipe takes everything; what is refused is refused because the peer has closed.
        _ = self.inbound.write(&mut self.pipe, ping).and_then(|()| self.inbound.flush(&mut self.pipe));
    }

    /// Says that this is the end, after what is being sent.
    pub(super) fn close(&mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.to_owned().into() };
        _ = self.inbound.close(&mut self.pipe, Some(frame));
    }

    /// Whether something is being sent.
    pub(super) fn is_sending(&self) -> bool {
        self.unflushed || !self.outgoing.is_empty() || !self.pipe.replies.is_empty()
    }

    /// Whether the peer has taken nothing since this was last asked, and something waits for it.
    pub(super) fn is_blocked(&mut self) -> bool {
        self.blocked && !std::mem::take(&mut self.moved)
    }

    /// From now on it is looked at whether the peer takes anything.
    pub(super) const fn watch(&mut self) {
        self.moved = false;
    }

    /// Ends the connection so that what was sent last is read: what still comes is discarded.
    pub(super) async fn shutdown(&mut self) {
        _ = tokio::io::AsyncWriteExt::shutdown(&mut self.io).await;
    }

    /// Writes and reads until something has come of it. It may be dropped and called again.
    pub(super) async fn drive(&mut self, may_read: bool) -> Driven {
        std::future::poll_fn(|cx| self.poll(cx, may_read)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, may_read: bool) -> Poll<Driven> {
        if self.is_sending() {
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Driven::Sent),
                Poll::Ready(Err(_)) => return Poll::Ready(Driven::Ended(None)),
                Poll::Pending => {}
            }
        }
        if may_read && self.pipe.replies.len() <= REPLIES_BYTES_MAX {
            self.poll_read(cx)
        } else {
            Poll::Pending
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.outgoing.is_empty() {
                if self.pipe.replies.is_empty() {
                    let flushed = Pin::new(&mut self.io).poll_flush(cx);
                    self.unflushed = flushed.is_pending();
                    self.blocked = self.unflushed;
                    return flushed;
                }
                self.outgoing.push_back(Bytes::from(std::mem::take(&mut self.pipe.replies)));
            }
            match self.poll_write_some(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.blocked = true;
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_write_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let io = Pin::new(&mut self.io);
        if let (1, Some(whole)) = (self.outgoing.len(), self.outgoing.front()) {
            return io.poll_write(cx, whole);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        for (slice, part) in slices.iter_mut().zip(&self.outgoing) {
            *slice = IoSlice::new(part);
        }
        io.poll_write_vectored(cx, slices.get(..self.outgoing.len().min(SLICES)).unwrap_or_default())
    }

    fn advance(&mut self, mut written: usize) {
        (self.moved, self.unflushed) = (true, true);
        while let Some(first) = self.outgoing.front_mut() {
            if first.len() > written {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.outgoing.pop_front();
        }
        // A burst leaves no memory behind.
        if self.outgoing.capacity() > SLICES {
            self.outgoing = VecDeque::new();
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Driven> {
        if self.arrival.poll_heard(cx).is_pending() {
            return Poll::Pending;
        }
        let polled = self.poll_message();
        // Behind one message there may be another. And what rang meanwhile has its turn after others.
        if polled.is_ready() || self.arrival.poll_heard(cx).is_ready() {
            self.arrival.ring();
            cx.waker().wake_by_ref();
        }
        polled
    }

    fn poll_message(&mut self) -> Poll<Driven> {
        let mut arrived = Context::from_waker(&self.arrived);
        loop {
            let read = self.inbound.read(&mut self.pipe);
            if let Ok(Message::Ping(_) | Message::Close(_)) = &read {
                // What it answers goes into the pipe.
                _ = self.inbound.flush(&mut self.pipe);
            }
            match read {
                Ok(Message::Text(text)) => return Poll::Ready(Driven::Heard(Codec::Json, text.into())),
                Ok(Message::Binary(bytes)) => return Poll::Ready(Driven::Heard(Codec::MessagePack, bytes)),
                Ok(Message::Ping(_) | Message::Pong(_)) => return Poll::Ready(Driven::Alive),
                // Its answer waits in the pipe.
                Ok(Message::Close(_)) if self.is_sending() => return Poll::Ready(Driven::Alive),
                Ok(Message::Close(_) | Message::Frame(_)) => return Poll::Ready(Driven::Ended(None)),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(Error::Capacity(_)) => return Poll::Ready(Driven::Ended(Some("message too big"))),
                Err(Error::Protocol(_) | Error::Utf8(_)) => {
                    return Poll::Ready(Driven::Ended(Some("protocol error")));
                }
                Err(_) => return Poll::Ready(Driven::Ended(None)),
            }
            // Not filled with zeros at each wake.
            let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
            let mut into = ReadBuf::uninit(&mut bytes);
            match Pin::new(&mut self.io).poll_read(&mut arrived, &mut into) {
                Poll::Ready(Ok(())) if !into.filled().is_empty() => {
                    self.pipe.incoming.extend_from_slice(into.filled());
                }
                Poll::Ready(_) => return Poll::Ready(Driven::Ended(None)),
                Poll::Pending => {
                    if self.pipe.incoming.is_empty() {
                        self.pipe.incoming = BytesMut::new();
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

const fn opcode(codec: Codec) -> u8 {
    match codec {
        Codec::Json => 1,
        Codec::MessagePack => 2,
    }
}

fn length(parts: &[Bytes]) -> usize {
    parts.iter().map(Bytes::len).sum()
}

/// A message as one run of bytes.
fn whole(codec: Codec, parts: &[Bytes]) -> Bytes {
    let mut whole = BytesMut::from(head(opcode(codec), length(parts)));
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole.freeze()
}

/// The head of an unmasked message in one frame (RFC 6455, section 5.2).
fn head(opcode: u8, length: usize) -> Bytes {
    let mut head = vec![0x80 | opcode];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => head.push(short),
        (_, Ok(medium)) => {
            head.push(126);
            head.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            head.push(127);
            head.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    Bytes::from(head)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    fn wire(buffer: usize) -> (Wire<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(buffer);
        (Wire::new(ours, 1 << 20), theirs)
    }

    /// A masked frame of a client.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match u8::try_from(payload.len()) {
            Ok(short) if short < 126 => bytes.push(0x80 | short),
            _ => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
            }
        }
        bytes.extend_from_slice(&[1, 2, 3, 4]);
        bytes.extend(payload.iter().zip([1, 2, 3, 4].into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    #[tokio::test]
    async fn a_fragmented_message_is_one() {
        let (mut wire, mut peer) = wire(64 * 1024);
        let parts = [frame(0x02, &[b'x'; 32_000]), frame(0x00, &[b'y'; 32_000]), frame(0x80, b"z")].concat();
        peer.write_all(&parts[..40_000]).await.unwrap();
        let heard = tokio::spawn(async move { wire.drive(true).await });
        peer.write_all(&parts[40_000..]).await.unwrap();
        let Driven::Heard(Codec::MessagePack, bytes) = heard.await.unwrap() else {
            panic!("a binary message")
        };
        assert_eq!((bytes.len(), bytes[0], bytes[64_000]), (64_001, b'x', b'z'));
    }

    #[tokio::test]
    async fn a_pong_goes_out_between_two_messages() {
        let (mut wire, mut peer) = wire(8);
        wire.send(Codec::Json, vec![Bytes::from_static(b"[1234567890123456789]")]);
        peer.write_all(&frame(0x89, b"p")[..7]).await.unwrap();
        assert!(matches!(wire.drive(true).await, Driven::Alive));
        assert!(wire.blocked, "the pipe takes eight bytes");
        let reader = tokio::spawn(async move {
            let mut all = vec![0; 2 + 21 + 3];
            peer.read_exact(&mut all).await.unwrap();
            all
        });
        assert!(matches!(wire.drive(false).await, Driven::Sent));
        let all = reader.await.unwrap();
        assert_eq!((&all[..2], &all[23..]), (&[0x81, 21][..], &[0x8a, 1, b'p'][..]));
    }

    #[tokio::test]
    async fn what_comes_while_nothing_is_read_is_heard_later_and_each_message_of_one_read() {
        let (mut wire, mut peer) = wire(1 << 10);
        assert!(futures::poll!(Box::pin(wire.drive(true))).is_pending(), "nothing has come");
        peer.write_all(&[frame(0x81, b"1"), frame(0x81, b"2")].concat()).await.unwrap();
        assert!(futures::poll!(Box::pin(wire.drive(false))).is_pending(), "it may not read");
        for expected in [b"1", b"2"] {
            let Driven::Heard(Codec::Json, bytes) = wire.drive(true).await else { panic!("a message") };
            assert_eq!(&bytes[..], expected);
        }
        let heard = tokio::spawn(async move { wire.drive(true).await });
        tokio::task::yield_now().await;
        peer.write_all(&frame(0x81, b"3")).await.unwrap();
        assert!(matches!(heard.await.unwrap(), Driven::Heard(..)), "it is woken");
    }

    /// Counts how often it is asked for bytes, and has none.
    struct Silent(usize);

    impl AsyncRead for Silent {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.0 += 1;
            Poll::Pending
        }
    }

    impl AsyncWrite for Silent {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn who_is_woken_to_send_does_not_look_at_the_socket_again() {
        let mut wire = Wire::new(Silent(0), 100);
        assert!(futures::poll!(Box::pin(wire.drive(true))).is_pending());
        for _ in 0..5 {
            wire.send(Codec::Json, vec![Bytes::from_static(b"[]")]);
            assert!(matches!(wire.drive(true).await, Driven::Sent));
            assert!(futures::poll!(Box::pin(wire.drive(true))).is_pending());
        }
        assert_eq!(wire.io.0, 1);
    }

    #[tokio::test]
    async fn lengths_have_three_forms() {
        for (length, expected) in [
            (125, vec![0x82, 125]),
            (126, vec![0x82, 126, 0, 126]),
            (65_536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            assert_eq!(head(2, length), expected, "{length}");
        }
    }

    #[tokio::test]
    async fn what_is_too_big_or_no_frame_ends_the_connection() {
        let (ours, mut peer) = duplex(1 << 16);
        let mut wire = Wire::new(ours, 100);
        peer.write_all(&frame(0x81, &[b'x'; 101])).await.unwrap();
        assert!(matches!(wire.drive(true).await, Driven::Ended(Some("message too big"))));
        let (mut wire, mut peer) = self::wire(1 << 16);
        peer.write_all(&[0x81, 1, b'x']).await.unwrap();
        assert!(matches!(wire.drive(true).await, Driven::Ended(Some("protocol error"))), "unmasked");
    }

    #[tokio::test]
    async fn a_close_is_answered() {
        let (mut wire, mut peer) = wire(1 << 10);
        peer.write_all(&frame(0x88, &1000_u16.to_be_bytes())).await.unwrap();
        assert!(matches!(wire.drive(true).await, Driven::Alive));
        assert!(matches!(wire.drive(true).await, Driven::Sent));
        let mut answer = [0; 4];
        peer.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [0x88, 2, 0x03, 0xe8]);
        assert!(matches!(wire.drive(true).await, Driven::Ended(None)));
    }
}
