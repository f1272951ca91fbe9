//! Answers that the protocol layer makes by itself, in the one envelope.
//!
//! What is no HTTP/1.1, or has headers beyond the protocol layer's own limits, reaches no
//! router: hyper answers it with a status and nothing else, and closes. Clients that read every
//! error as JSON fail on that. Its answer is known by what it lacks: every answer of ours has a
//! request id.
//!
//! It is known by its bytes, so this sits where they are plain: above TLS, which lies above
//! [`super::socket`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::http::StatusCode;
use axum_server::accept::Accept;
use bytes::{Buf as _, Bytes};
use futures::FutureExt as _;
use futures::future::Map;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::ApiError;
use super::layers::new_request_id;

const BEGIN: &[u8] = b"HTTP/1.1 4";
const END: &[u8] = b"\r\n\r\n";

/// Whether these bytes, which go out at once, are such an answer.
fn is_bare(bytes: &[u8]) -> bool {
    bytes.starts_with(BEGIN)
        && bytes.ends_with(END)
        && memchr::memmem::find(bytes, b"\r\ncontent-length: 0\r\n").is_some()
        && memchr::memmem::find(bytes, b"\r\nx-request-id: ").is_none()
}

/// The same answer with an envelope and a request id; `None` where it is no such answer.
fn enveloped(bytes: &[u8]) -> Option<Bytes> {
    if !is_bare(bytes) {
        return None;
    }
    let status = StatusCode::from_bytes(bytes.get(9..12)?).ok()?;
    let error = match status {
        StatusCode::URI_TOO_LONG => ApiError::new(status, "the URI is too long").with("reason", "uri_bytes"),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            ApiError::new(status, "the headers are too large").with("reason", "header_bytes")
        }
        _ => ApiError::new(status, "the request is no HTTP that this server reads").with("reason", "no_http"),
    };
    let body = error.body();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         x-request-id: {}\r\nconnection: close\r\n\r\n",
        body.len(),
        new_request_id(),
    );
    Some([head, body].concat().into())
}

/// Puts the envelope around such answers of the connections that another acceptor takes.
#[derive(Clone)]
pub(super) struct Enveloping<A>(pub(super) A);

type Accepted<S, T> = io::Result<(S, T)>;

impl<A: Accept<I, S>, I, S> Accept<I, S> for Enveloping<A> {
    type Stream = EnvelopedStream<A::Stream>;
    type Service = A::Service;
    type Future = Map<
        A::Future,
        fn(Accepted<A::Stream, A::Service>) -> Accepted<EnvelopedStream<A::Stream>, A::Service>,
    >;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        fn wrapped<S, T>(accepted: Accepted<S, T>) -> Accepted<EnvelopedStream<S>, T> {
            accepted.map(|(stream, service)| (EnvelopedStream { stream, instead: None }, service))
        }
        self.0.accept(stream, service).map(wrapped)
    }
}

/// A connection, as plain text.
pub(super) struct EnvelopedStream<S> {
    stream: S,
    /// What goes out instead of an answer that the protocol layer made by itself.
    instead: Option<Bytes>,
}

impl<S: AsyncWrite + Unpin> EnvelopedStream<S> {
    /// Writes what stands for an answer of `length` bytes, which counts as written at the end.
    fn poll_instead(&mut self, cx: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        while let Some(rest) = &mut self.instead {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            rest.advance(count);
            if rest.is_empty() {
                self.instead = None;
            }
        }
        Poll::Ready(Ok(length))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for EnvelopedStream<S> {
    /// A peer that goes without a goodbye of TLS has gone all the same: requests tell by
    /// themselves whether they are whole.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.stream).poll_read(cx, into)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => Poll::Ready(read),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for EnvelopedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.instead.is_none() {
            self.instead = enveloped(bytes);
        }
        if self.instead.is_some() {
            return self.poll_instead(cx, bytes.len());
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(first) = slices.first()
            && (self.instead.is_some() || is_bare(first))
        {
            return self.poll_write(cx, first);
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_without_body_and_id_gets_an_envelope() {
        let bare = b"HTTP/1.1 414 URI Too Long\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let made = enveloped(bare).unwrap();
        let text = std::str::from_utf8(&made).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 414 URI Too Long\r\n") && !is_bare(text.as_bytes()), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&body["code"], &body["reason"]), (&41_400_000.into(), &"uri_bytes".into()));
        let text = std::str::from_utf8(bare).unwrap();
        for other in [
            text.replace("414 URI Too Long", "200 OK"),
            text.replace("date: x", "x-request-id: 1"),
            text.replace("content-length: 0", "content-length: 2"),
            text.replace("\r\n\r\n", "\r\n\r\n{}"),
            text.replace("\r\n\r\n", "\r\n"),
        ] {
            assert_eq!(enveloped(other.as_bytes()), None, "{other}");
        }
    }
}
