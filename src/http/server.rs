//! A router on a listener, with limits on connections and on the time and size of headers.
//!
//! A connection above `http.connections_max`, or of a source (IPv4 /24, IPv6 /64) above
//! `http.connections_per_source_max`, is closed at once and counted. One that does not send the
//! headers of its first request within `http.first_request_ms`, or those of a later one within
//! `http.header_read_ms` after the last answer, is closed. The limits sit in [`Counted`], an
//! acceptor: TLS wraps around it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::accept::Accept;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::config;
use crate::telemetry::Metrics;

/// A ping goes out after so long a silence of an HTTP/2 connection.
const HTTP2_PING_AFTER: Duration = Duration::from_secs(20);
/// And closes it when it is not answered within this.
const HTTP2_PONG_WITHIN: Duration = Duration::from_secs(10);
/// Header list of an HTTP/2 request; its request line is part of it.
const HTTP2_HEADER_BYTES_MAX: usize = 1 << 20;

/// Serves a router until `handle` shuts it down: [`Handle::graceful_shutdown`] stops accepting,
/// lets running requests end within its time, and closes idle connections at once.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: &config::Http,
    metrics: Arc<Metrics>,
    handle: Handle<SocketAddr>,
) -> io::Result<()> {
    let mut server = axum_server::from_tcp(listener)?
        .first_request_timeout(Duration::from_millis(config.first_request_ms))
        .acceptor(Counted::new(config, metrics))
        .handle(handle);
    let http2_header_bytes = config.header_bytes_max.min(HTTP2_HEADER_BYTES_MAX);
    server
        .http_builder()
        .http1()
        .header_read_timeout(Duration::from_millis(config.header_read_ms))
        .max_buf_size(config.header_bytes_max)
        .max_headers(config.headers_max);
    server
        .http_builder()
        .http2()
        .max_concurrent_streams(config.http2_streams_max)
        .max_header_list_size(u32::try_from(http2_header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(HTTP2_PING_AFTER)
        .keep_alive_timeout(HTTP2_PONG_WITHIN);
    server.serve(router.into_make_service_with_connect_info::<SocketAddr>()).await
}

/// Admits connections within the limits and counts them until they close.
#[derive(Clone)]
pub struct Counted(Arc<Connections>);

struct Connections {
    max: usize,
    per_source_max: usize,
    open: Mutex<Open>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Open {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
}

impl Counted {
    /// With the limits of this configuration.
    #[must_use]
    pub fn new(config: &config::Http, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Connections {
            max: config.connections_max,
            per_source_max: config.connections_per_source_max,
            open: Mutex::default(),
            metrics,
        }))
    }

    /// A place for a connection from this address, given back when it is dropped.
    fn place(&self, address: IpAddr) -> Result<Place, &'static str> {
        let source = source_of(address);
        let mut open = self.0.open.lock();
        if open.all >= self.0.max {
            return Err("connections_max");
        }
        let of_source = open.by_source.entry(source).or_default();
        if *of_source >= self.0.per_source_max {
            return Err("connections_per_source_max");
        }
        *of_source += 1;
        open.all += 1;
        self.0.metrics.http_connections.inc();
        Ok(Place { connections: Arc::clone(&self.0), source })
    }
}

struct Place {
    connections: Arc<Connections>,
    source: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        open.all -= 1;
        if let Some(count) = open.by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.by_source.remove(&self.source);
            }
        }
        self.connections.metrics.http_connections.dec();
    }
}

/// The network that an address belongs to: IPv4 /24, IPv6 /64.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            Ipv4Addr::new(a, b, c, 0).into()
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for Counted {
    type Stream = CountedStream;
    type Service = S;
    type Future = std::future::Ready<io::Result<(CountedStream, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        std::future::ready(self.admitted(stream).map(|stream| (stream, service)))
    }
}

impl Counted {
    fn admitted(&self, stream: TcpStream) -> io::Result<CountedStream> {
        let address = stream.peer_addr()?.ip();
        match self.place(address) {
            Ok(place) => {
                stream.set_nodelay(true)?;
                Ok(CountedStream { stream, _place: place })
            }
            Err(limit) => {
                self.0.metrics.http_connections_refused.with_label_values(&[limit]).inc();
                Err(io::Error::other(format!("http.{limit} is reached")))
            }
        }
    }
}

/// A connection that holds its place until it is dropped.
pub struct CountedStream {
    stream: TcpStream,
    _place: Place,
}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
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
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::config::Config;

    /// A server with these settings, on a port of its own.
    fn server(sets: &[&str]) -> (SocketAddr, Handle<SocketAddr>, Arc<Metrics>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let handle = Handle::new();
        let config = Config::with(sets).unwrap().http;
        let router = Router::new().route("/", get(async || "ok"));
        let (of_task, counted) = (handle.clone(), Arc::clone(&metrics));
        tokio::spawn(async move { serve(listener, router, &config, counted, of_task).await });
        (address, handle, metrics)
    }

    async fn exchange(stream: &mut TcpStream, sent: &str) -> String {
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut bytes = vec![0; 4_096];
        let count = stream.read(&mut bytes).await.unwrap_or(0);
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    const REQUEST: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    #[tokio::test]
    async fn connections_of_a_source_are_bounded_and_give_their_place_back() {
        let (address, _, metrics) = server(&["http.connections_per_source_max=1"]);
        let mut first = TcpStream::connect(address).await.unwrap();
        assert!(exchange(&mut first, REQUEST).await.starts_with("HTTP/1.1 200"));
        let mut second = TcpStream::connect(address).await.unwrap();
        assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0, "it is closed at once");
        let refused = metrics.http_connections_refused.with_label_values(&["connections_per_source_max"]);
        assert_eq!((metrics.http_connections.get(), refused.get()), (1, 1));
        assert!(exchange(&mut first, REQUEST).await.starts_with("HTTP/1.1 200"), "the first goes on");
        drop(first);
        while metrics.http_connections.get() > 0 {
            tokio::task::yield_now().await;
        }
        let mut third = TcpStream::connect(address).await.unwrap();
        assert!(exchange(&mut third, REQUEST).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn senders_of_slow_headers_are_closed() {
        let (address, _, _) = server(&["http.first_request_ms=100", "http.header_read_ms=100"]);
        for sent in ["", "GET / HTTP/1.1\r\nhost: x\r\n"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            assert_eq!(exchange(&mut stream, sent).await, "", "closed without an answer after {sent:?}");
        }
        let mut kept = TcpStream::connect(address).await.unwrap();
        assert!(exchange(&mut kept, REQUEST).await.starts_with("HTTP/1.1 200"));
        assert_eq!(exchange(&mut kept, "GET / HTTP/1.1\r\n").await, "", "also in a later request");
    }

    #[tokio::test]
    async fn headers_are_bounded_in_number_and_bytes() {
        let (address, _, _) = server(&["http.headers_max=16", "http.header_bytes_max=8192"]);
        let many: String = (0..20).map(|number| format!("x-{number}: y\r\n")).collect();
        let large = format!("x: {}\r\n", "y".repeat(20_000));
        for headers in [many, large] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let sent = format!("GET / HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
            let answer = exchange(&mut stream, &sent).await;
            assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_drain_ends_idle_connections_and_the_server() {
        let (address, handle, _) = server(&[]);
        let mut idle = TcpStream::connect(address).await.unwrap();
        assert!(exchange(&mut idle, REQUEST).await.starts_with("HTTP/1.1 200"));
        handle.graceful_shutdown(Some(Duration::from_secs(600)));
        assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }

    #[test]
    fn a_source_is_a_network() {
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.254", true),
            ("192.0.2.1", "192.0.3.1", false),
            ("2001:db8::1", "2001:db8::2:3", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("::ffff:192.0.2.1", "192.0.2.9", true),
        ] {
            let of = |text: &str| source_of(text.parse().unwrap());
            assert_eq!(of(one) == of(other), same, "{one} {other}");
        }
    }
}
