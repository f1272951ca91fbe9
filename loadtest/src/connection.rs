//! One connection of a client: the opening of a stream, and frames read in place.
//!
//! Nothing is allocated a message. Sockets are edge-triggered: a read that does not fill its
//! buffer has emptied the socket, and who did not read when it was told has to read by itself.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use memchr::memmem;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use socket2::{Domain, SockRef, Socket, Type};

use crate::wire::{self, Frame};

/// What one read may bring.
pub(crate) const BUFFER_BYTES: usize = 1 << 20;
/// The window of a client that takes little at a time.
const NARROW_WINDOW: usize = 64 * 1024;

/// What a client speaks.
#[derive(Clone, Debug)]
pub(crate) enum Speaks {
    /// The stream of a node.
    Stream(Stream),
    /// Redis pub/sub, of this channel.
    Redis(String),
}

/// How to open a stream.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    /// Path and query.
    pub(crate) path: String,
    pub(crate) key: String,
    pub(crate) secret: String,
    /// Whose trades.
    pub(crate) symbols: Vec<String>,
    pub(crate) msgpack: bool,
}

/// How a socket is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pipe {
    /// As the system makes them.
    #[default]
    Wide,
    /// One that is soon full.
    Narrow,
}

/// The handshake was answered with this status.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused(pub(crate) u16);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the handshake was answered with {}", self.0)
    }
}

impl std::error::Error for Refused {}

/// The server closed the stream and said why.
#[derive(Clone, Debug)]
pub(crate) struct Closed {
    pub(crate) code: u16,
    pub(crate) reason: String,
}

impl Closed {
    fn read(payload: &[u8]) -> Self {
        let (code, reason) = payload.split_at_checked(2).unwrap_or((&[0, 0], payload));
        let code = code.first_chunk().map_or(0, |code| u16::from_be_bytes(*code));
        Self { code, reason: String::from_utf8_lossy(reason).into_owned() }
    }
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "closed {}: {}", self.code, self.reason)
    }
}

impl std::error::Error for Closed {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Upgrading,
    Greeting,
    Authenticating,
    Subscribing,
    Live,
}

/// What is ready of a connection.
pub(crate) struct Ready {
    pub(crate) at: usize,
    /// It stands, or takes bytes again.
    pub(crate) writable: bool,
    /// There is something to read, if only the end.
    pub(crate) readable: bool,
    /// The server has ended it.
    pub(crate) ends: bool,
}

/// What is ready within a while.
pub(crate) fn ready(poll: &mut Poll, events: &mut Events, wait: Duration) -> anyhow::Result<Vec<Ready>> {
    if let Err(error) = poll.poll(events, Some(wait))
        && error.kind() != ErrorKind::Interrupted
    {
        return Err(error.into());
    }
    let ready = |event: &Event| {
        let (Token(at), ends) = (event.token(), event.is_read_closed());
        Ready { at, writable: event.is_writable(), readable: event.is_readable() || ends, ends }
    };
    Ok(events.iter().map(ready).collect())
}

/// A connection.
pub(crate) struct Connection {
    socket: TcpStream,
    phase: Phase,
    /// A frame that is not whole yet.
    left: Vec<u8>,
}

impl Connection {
    /// Begins to connect; events come by this token.
    pub(crate) fn open(
        address: SocketAddr,
        pipe: Pipe,
        registry: &Registry,
        token: Token,
    ) -> anyhow::Result<Self> {
        let mut socket = match pipe {
            Pipe::Wide => TcpStream::connect(address).context("no connection")?,
            Pipe::Narrow => narrow(address).context("no connection")?,
        };
        let _ = socket.set_nodelay(true);
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { socket, phase: Phase::Connecting, left: Vec::new() })
    }

    /// Whether it is subscribed.
    pub(crate) fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// From now on the system takes little for it.
    pub(crate) fn narrow(&self) {
        let _ = SockRef::from(&self.socket).set_recv_buffer_size(NARROW_WINDOW);
    }

    /// Ends it.
    pub(crate) fn close(mut self, registry: &Registry) {
        let _ = registry.deregister(&mut self.socket);
    }

    /// The socket can be written: the first words, where they were not said yet.
    pub(crate) fn connected(&mut self, speaks: &Speaks, cursor: Option<&str>) -> anyhow::Result<()> {
        if self.phase != Phase::Connecting {
            return Ok(());
        }
        let (words, phase) = match speaks {
            Speaks::Stream(stream) => {
                let path = match cursor {
                    Some(cursor) => format!("{}&cursor={cursor}", stream.path),
                    None => stream.path.clone(),
                };
                (wire::upgrade(&path, stream.msgpack).into_bytes(), Phase::Upgrading)
            }
            Speaks::Redis(channel) => {
                let mut words = Vec::new();
                wire::put_command(&mut words, &[b"SUBSCRIBE", channel.as_bytes()]);
                (words, Phase::Subscribing)
            }
        };
        self.phase = phase;
        self.say(&words)
    }

    /// Reads what there is, to its end where the server has ended it, and hands over what came
    /// besides the opening. Answers whether the connection stands.
    pub(crate) fn read(
        &mut self,
        buffer: &mut Vec<u8>,
        speaks: &Speaks,
        ends: bool,
        each: &mut dyn FnMut(&[u8]),
    ) -> anyhow::Result<bool> {
        loop {
            let held = self.left.len();
            if buffer.len() < held + BUFFER_BYTES / 2 {
                buffer.resize(held + BUFFER_BYTES, 0);
            }
            let Some((start, room)) = buffer.split_at_mut_checked(held) else { return Ok(true) };
            start.copy_from_slice(&self.left);
            let came = match self.socket.read(room) {
                Ok(0) => return Ok(false),
                Ok(came) => came,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error.into()),
            };
            let emptied = came < room.len() && !ends;
            let bytes = buffer.get(..held + came).unwrap_or_default();
            let used = match speaks {
                Speaks::Stream(stream) => self.take(bytes, stream, each)?,
                Speaks::Redis(_) => self.take_redis(bytes, each),
            };
            self.left.clear();
            self.left.extend_from_slice(bytes.get(used..).unwrap_or_default());
            if emptied {
                return Ok(true);
            }
        }
    }

    fn say(&mut self, words: &[u8]) -> anyhow::Result<()> {
        self.socket.write_all(words).context("a few bytes do not fit the socket")
    }

    fn say_message(&mut self, stream: &Stream, fields: &[(&str, Said<'_>)]) -> anyhow::Result<()> {
        let mut out = Vec::new();
        let (opcode, payload) = if stream.msgpack { (2, msgpack(fields)) } else { (1, json(fields)) };
        wire::put_frame(&mut out, opcode, &payload, true);
        self.say(&out)
    }

    fn take_redis(&mut self, bytes: &[u8], each: &mut dyn FnMut(&[u8])) -> usize {
        let mut used = 0;
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            let Some(length) = wire::resp(rest) else { break };
            self.phase = Phase::Live;
            each(rest.get(..length).unwrap_or_default());
            used += length;
        }
        used
    }

    /// Takes what came; answers how many bytes were of whole messages.
    fn take(&mut self, bytes: &[u8], stream: &Stream, each: &mut dyn FnMut(&[u8])) -> anyhow::Result<usize> {
        let mut used = 0;
        if self.phase == Phase::Upgrading {
            let Some((status, end)) = wire::head(bytes) else { return Ok(0) };
            if status != 101 {
                return Err(Refused(status).into());
            }
            self.phase = Phase::Greeting;
            used = end;
        }
        while let Some((frame, length)) = wire::frame(bytes.get(used..).unwrap_or_default())? {
            used += length;
            match frame {
                Frame::Data(payload) if self.phase == Phase::Live => each(payload),
                Frame::Data(payload) => self.answer(payload, stream, each)?,
                Frame::Ping(payload) => {
                    let mut out = Vec::new();
                    wire::put_frame(&mut out, 10, payload, true);
                    self.say(&out)?;
                }
                Frame::Pong => {}
                Frame::Close(payload) => return Err(Closed::read(payload).into()),
            }
        }
        Ok(used)
    }

    /// A message of the opening.
    fn answer(&mut self, payload: &[u8], stream: &Stream, each: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
        let has = |word: &str| memmem::find(payload, word.as_bytes()).is_some();
        match self.phase {
            Phase::Greeting if has("connected") => {
                self.phase = Phase::Authenticating;
                let (key, secret) = (Said::Text(&stream.key), Said::Text(&stream.secret));
                self.say_message(stream, &[("action", Said::Text("auth")), ("key", key), ("secret", secret)])
            }
            Phase::Authenticating if has("authenticated") => {
                self.phase = Phase::Subscribing;
                let trades = Said::List(&stream.symbols);
                self.say_message(stream, &[("action", Said::Text("subscribe")), ("trades", trades)])
            }
            Phase::Subscribing if has("subscription") => {
                self.phase = Phase::Live;
                Ok(())
            }
            _ if has("\"hb\"") || has("\u{2}hb") || wire::cursor(payload, stream.msgpack).is_some() => {
                each(payload);
                Ok(())
            }
            _ => bail!("unexpected in {:?}: {}", self.phase, String::from_utf8_lossy(payload)),
        }
    }
}

/// A socket with a window so small that the system holds little for it.
fn narrow(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_recv_buffer_size(NARROW_WINDOW)?;
    socket.connect(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(TcpStream::from_std(socket.into()))
}

/// A value of a client's message.
enum Said<'a> {
    Text(&'a str),
    List(&'a [String]),
}

fn json(fields: &[(&str, Said<'_>)]) -> Vec<u8> {
    let value = |said: &Said<'_>| match said {
        Said::Text(text) => serde_json::json!(text),
        Said::List(texts) => serde_json::json!(texts),
    };
    let map: serde_json::Map<String, serde_json::Value> =
        fields.iter().map(|(name, said)| ((*name).to_owned(), value(said))).collect();
    serde_json::Value::Object(map).to_string().into_bytes()
}

fn msgpack(fields: &[(&str, Said<'_>)]) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        out.push(0xd9);
        out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(text.as_bytes());
    }
    let mut out = vec![0x80 | u8::try_from(fields.len()).unwrap_or(15)];
    for (name, said) in fields {
        text(&mut out, name);
        match said {
            Said::Text(value) => text(&mut out, value),
            Said::List(values) => {
                out.push(0xdc);
                out.extend_from_slice(&u16::try_from(values.len()).unwrap_or(u16::MAX).to_be_bytes());
                values.iter().for_each(|value| text(&mut out, value));
            }
        }
    }
    out
}
