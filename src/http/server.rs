//! A router on a listener, with limits on connections and on the time that they may stand still.
//!
//! A connection above `http.connections_max`, or of a source (IPv4 /24, IPv6 /64) above
//! `http.connections_per_source_max`, is closed at once and counted. One that does not send the
//! headers of its first request within `http.first_request_ms`, or those of a later one within
//! `http.header_read_ms` after the last answer, is closed, also an HTTP/2 one that answers
//! pings. One that takes nothing of an answer for `http.write_stall_ms` is closed and counted; so
//! that this is seen, the system takes no more than `http.send_buffer_bytes` ahead of what it sends.
//! The limits sit in [`ConnectionLimits`], an acceptor: TLS wraps around it ([`super::tls`]), and
//! around TLS, where the bytes are plain, [`Enveloping`]. A handshake counts as a connection, and
//! is closed when it is not over within `http.tls_handshake_ms`.
//!
//! Size and number of headers are refused by [`super::limits`] in the one envelope. The protocol
//! layer's own limits lie above those; what reaches even them is answered by [`super::bare`].

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::AddExtension;
use axum_server::accept::Accept;
use axum_server::{Handle, Server};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tower::Layer as _;

use super::activity::Activity;
use super::bare::Enveloping;
use super::socket::{LimitedStream, Patience};
use super::tls::Tls;
use crate::config;
use crate::telemetry::Metrics;

/// A ping goes out after so long a silence of an HTTP/2 connection.
const HTTP2_PING_AFTER: Duration = Duration::from_secs(20);
/// And closes it when it is not answered within this.
const HTTP2_PONG_WITHIN: Duration = Duration::from_secs(10);
/// What one HTTP/2 stream may hold of an answer that its peer has window for, but does not read.
const HTTP2_SEND_BYTES_MAX: usize = 64 * 1024;
/// How far the protocol layer's limits on headers lie above the configured ones, so that what
/// is too large is refused by us and not by it. A URI has at most 64 KiB.
const HEADER_BYTES_ABOVE: usize = 128 * 1024;
const HEADERS_ABOVE: usize = 64;

/// Serves a router, over TLS where there is one, until `handle` shuts it down: [`Handle::graceful_shutdown`] stops accepting,
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
    tls: Option<&Tls>,
) -> io::Result<()> {
    let server = axum_server::from_tcp(listener)?.handle(handle);
    let limits = ConnectionLimits::new(config, metrics);
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    match tls {
        None => tuned(server.acceptor(Enveloping(limits)), config).serve(service).await,
        Some(tls) => tuned(server.acceptor(Enveloping(tls.around(limits))), config).serve(service).await,
    }
}

/// The server with the times and limits of this configuration.
fn tuned<A>(server: Server<SocketAddr, A>, config: &config::Http) -> Server<SocketAddr, A> {
    let mut server = server.first_request_timeout(Duration::from_millis(config.first_request_ms));
    let header_bytes = config.header_bytes_max.saturating_add(HEADER_BYTES_ABOVE);
    server
        .http_builder()
        .http1()
        .header_read_timeout(Duration::from_millis(config.header_read_ms))
        .max_buf_size(header_bytes)
        .max_headers(config.headers_max.saturating_add(HEADERS_ABOVE));
    server
        .http_builder()
        .http2()
        .max_concurrent_streams(config.http2_streams_max)
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(HTTP2_SEND_BYTES_MAX)
        .keep_alive_interval(HTTP2_PING_AFTER)
        .keep_alive_timeout(HTTP2_PONG_WITHIN);
    server
}

/// Admits connections within the limits and counts them until they close.
#[derive(Clone)]
struct ConnectionLimits(Arc<Connections>);

struct Connections {
    max: usize,
    per_source_max: usize,
    patience: Patience,
    send_buffer_bytes: u32,
    open: Mutex<Open>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Open {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
}

impl ConnectionLimits {
    /// With the limits of this configuration.
    #[must_use]
    fn new(config: &config::Http, metrics: Arc<Metrics>) -> Self {
        let patience = Patience {
            stall: Duration::from_millis(config.write_stall_ms),
            idle: Duration::from_millis(config.header_read_ms),
        };
        Self(Arc::new(Connections {
            max: config.connections_max,
            per_source_max: config.connections_per_source_max,
            patience,
            send_buffer_bytes: config.send_buffer_bytes,
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

    fn admitted(&self, stream: TcpStream) -> io::Result<LimitedStream> {
        let address = stream.peer_addr()?.ip();
        match self.place(address) {
            Ok(place) => {
                stream.set_nodelay(true)?;
                bound_unsent(&stream, self.0.send_buffer_bytes)?;
                Ok(LimitedStream::new(stream, place, self.0.patience, Arc::clone(&self.0.metrics)))
            }
            Err(limit) => {
                self.0.metrics.http_connections_refused.with_label_values(&[limit]).inc();
                Err(io::Error::other(format!("http.{limit} is reached")))
            }
        }
    }
}

/// The system takes no more than so many bytes ahead of what it can send; 0: what it likes. A bound on
/// its whole buffer would bound what is on its way too, and so be slow to a client that is far.
fn bound_unsent(stream: &TcpStream, bytes: u32) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if bytes > 0 {
        return socket2::SockRef::from(stream).set_tcp_notsent_lowat(bytes);
    }
    _ = (stream, bytes);
    Ok(())
}

impl<S: Send + 'static> Accept<TcpStream, S> for ConnectionLimits {
    type Stream = LimitedStream;
    /// Requests know the connection on which they came.
    type Service = AddExtension<S, Arc<Activity>>;
    type Future = std::future::Ready<io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        std::future::ready(self.admitted(stream).map(|stream| {
            let service = axum::Extension(stream.activity()).layer(service);
            (stream, service)
        }))
    }
}

/// One open connection in the count.
pub(super) struct Place {
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
        tokio::spawn(async move { serve(listener, router, &config, counted, of_task, None).await });
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
    #[cfg(target_os = "linux")]
    async fn what_the_system_takes_ahead_is_bounded() {
        for (set, expected) in
            [("http.send_buffer_bytes=65536", Some(65_536)), ("http.send_buffer_bytes=0", None)]
        {
            let config = Config::with(&[set]).unwrap().http;
            let limits = ConnectionLimits::new(&config, Arc::new(Metrics::new().unwrap()));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let unset = socket2::SockRef::from(&stream).tcp_notsent_lowat().unwrap();
            let probe = std::os::fd::AsFd::as_fd(&stream).try_clone_to_owned().unwrap();
            let _admitted = limits.admitted(stream).unwrap();
            let bound = socket2::SockRef::from(&probe).tcp_notsent_lowat().unwrap();
            assert_eq!(bound, expected.unwrap_or(unset), "{set}");
        }
    }

    #[tokio::test]
    async fn a_refusal_before_the_body_was_read_reaches_its_sender() {
        let (address, _, _) = server(&[]);
        let body = vec![b'x'; 8 << 20];
        for _ in 0..10 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            // A client that sends all of it before it looks for an answer.
            stream.write_all(&body).await.unwrap();
            assert!(exchange(&mut stream, "").await.starts_with("HTTP/1.1 405"));
        }
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
