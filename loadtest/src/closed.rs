//! Requests over kept connections, the next one when the last is answered: what a server's
//! processor time buys, whatever the generator can do.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::bail;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::system::{Cpu, now};
use crate::wire;

/// What an answer is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answers {
    /// HTTP with status 200 and a length.
    Http,
    /// A value of Redis.
    Redis,
}

impl Answers {
    fn whole(self, bytes: &[u8]) -> anyhow::Result<Option<usize>> {
        match self {
            Self::Redis => Ok(wire::resp(bytes)),
            Self::Http => {
                let Some((status, end)) = wire::head(bytes) else { return Ok(None) };
                if status != 200 {
                    bail!("answered {status}: {}", String::from_utf8_lossy(bytes));
                }
                let length = wire::content_length(bytes.get(..end).unwrap_or_default()).unwrap_or(0);
                Ok((bytes.len() >= end + length).then_some(end + length))
            }
        }
    }
}

/// Requests a second of the processor of the servers together, over so many connections for so long.
pub(crate) fn per_core_second(
    address: SocketAddr,
    request: &[u8],
    answers: Answers,
    pids: &[u32],
    connections: usize,
    seconds: f64,
) -> anyhow::Result<f64> {
    let all = || pids.iter().map(|pid| Cpu::of(*pid).all()).sum::<u64>();
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    let mut sockets: Vec<(TcpStream, Vec<u8>)> = Vec::new();
    for at in 0..connections {
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        poll.registry().register(&mut socket, Token(at), Interest::READABLE | Interest::WRITABLE)?;
        sockets.push((socket, Vec::new()));
    }
    let mut buffer = vec![0; 1 << 16];
    let (mut answered, mut before) = (0_u64, 0);
    let (warm, mut begun) = (now() + 500_000_000, false);
    let until = warm + (seconds * 1e9) as u64;
    let mut started = vec![false; connections];
    while now() < until {
        if !begun && now() >= warm {
            (begun, answered, before) = (true, 0, all());
        }
        poll.poll(&mut events, Some(Duration::from_millis(20)))?;
        for event in &events {
            let Token(at) = event.token();
            let (Some((socket, held)), Some(started)) = (sockets.get_mut(at), started.get_mut(at)) else {
                continue;
            };
            if event.is_writable() && !*started {
                *started = true;
                socket.write_all(request)?;
            }
            if event.is_readable() {
                answered += read(socket, held, &mut buffer, request, answers)?;
            }
        }
    }
    let spent = all().saturating_sub(before);
    if answered == 0 || spent == 0 {
        bail!("nothing was answered");
    }
    Ok(answered as f64 * 1e9 / spent as f64)
}

fn read(
    socket: &mut TcpStream,
    held: &mut Vec<u8>,
    buffer: &mut [u8],
    request: &[u8],
    answers: Answers,
) -> anyhow::Result<u64> {
    let mut answered = 0;
    loop {
        match socket.read(buffer) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(came) => held.extend_from_slice(buffer.get(..came).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(answered),
            Err(error) => return Err(error.into()),
        }
        if let Some(length) = answers.whole(held)? {
            held.drain(..length);
            answered += 1;
            socket.write_all(request)?;
        }
    }
}
