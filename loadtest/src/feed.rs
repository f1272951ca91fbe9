//! The feed as a plain little server on Redis would answer it: one thread, one epoll loop, no
//! framework.
//!
//! Each request is answered by the values of so many keys, which are trades as JSON, in the same
//! body as a node's `GET /v1/feed`. What one round of epoll brings goes to Redis in one write of as
//! many `MGET`s, and their answers are read back as they come: a good peer, and no straw man.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use clap::Args;
use memchr::memmem;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::publish::utc;
use crate::system::wall_ms;
use crate::wire;

const LISTENER: Token = Token(usize::MAX);

/// Arguments of `floor-feed`.
#[derive(Args, Clone, Debug)]
pub(crate) struct FeedArgs {
    /// Where Redis is
    #[arg(long)]
    redis: SocketAddr,
    /// Keys of an answer: L0, L1, and so on
    #[arg(long)]
    keys: usize,
}

struct Peer {
    socket: TcpStream,
    held: Vec<u8>,
}

/// Serves until it is killed.
pub(crate) fn run(args: &FeedArgs) -> anyhow::Result<()> {
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    println!("{}", listener.local_addr()?);
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(256));
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut redis = std::net::TcpStream::connect(args.redis).context("no Redis")?;
    redis.set_nodelay(true)?;
    let names: Vec<String> = (0..args.keys).map(|key| format!("L{key}")).collect();
    let mut mget = Vec::new();
    let words: Vec<&[u8]> = std::iter::once(&b"MGET"[..]).chain(names.iter().map(String::as_bytes)).collect();
    wire::put_command(&mut mget, &words);
    let (mut peers, mut buffer): (Vec<Option<Peer>>, _) = (Vec::new(), vec![0; 1 << 16]);
    let (mut asked, mut commands, mut answers, mut out) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    loop {
        poll.poll(&mut events, None)?;
        asked.clear();
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut peers)?;
            } else {
                let Token(at) = event.token();
                let Some(slot) = peers.get_mut(at) else { continue };
                let Some(requests) = slot.as_mut().and_then(|peer| requests(peer, &mut buffer)) else {
                    *slot = None;
                    continue;
                };
                asked.extend(std::iter::repeat_n(at, requests));
            }
        }
        if asked.is_empty() {
            continue;
        }
        commands.clear();
        asked.iter().for_each(|_| commands.extend_from_slice(&mget));
        redis.write_all(&commands)?;
        answers.clear();
        let mut used = 0;
        for at in &asked {
            let length = loop {
                match wire::resp(answers.get(used..).unwrap_or_default()) {
                    Some(length) => break length,
                    None => more(&mut redis, &mut answers, &mut buffer)?,
                }
            };
            out.clear();
            put_answer(&mut out, answers.get(used..used + length).unwrap_or_default(), &names)?;
            used += length;
            // An answer of some 15 KB fits the socket of a client that waits for it.
            if let Some(Some(peer)) = peers.get_mut(*at) {
                peer.socket.write_all(&out).context("a client does not take its answer")?;
            }
        }
    }
}

fn accept(listener: &TcpListener, poll: &Poll, peers: &mut Vec<Option<Peer>>) -> anyhow::Result<()> {
    loop {
        match listener.accept() {
            Ok((mut socket, _)) => {
                socket.set_nodelay(true)?;
                poll.registry().register(&mut socket, Token(peers.len()), Interest::READABLE)?;
                peers.push(Some(Peer { socket, held: Vec::new() }));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whole requests that came, which are heads without bodies; `None` where the client has gone.
fn requests(peer: &mut Peer, buffer: &mut [u8]) -> Option<usize> {
    loop {
        match peer.socket.read(buffer) {
            Ok(0) => return None,
            Ok(came) => {
                peer.held.extend_from_slice(buffer.get(..came)?);
                if came < buffer.len() {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return None,
        }
    }
    let mut requests = 0;
    while let Some(end) = memmem::find(&peer.held, b"\r\n\r\n") {
        peer.held.drain(..end + 4);
        requests += 1;
    }
    Some(requests)
}

fn more(redis: &mut std::net::TcpStream, answers: &mut Vec<u8>, buffer: &mut [u8]) -> anyhow::Result<()> {
    match redis.read(buffer)? {
        0 => bail!("Redis closed the connection"),
        came => answers.extend_from_slice(buffer.get(..came).unwrap_or_default()),
    }
    Ok(())
}

/// The HTTP answer of the values of these keys, `value` being what Redis answered to `MGET`.
fn put_answer(out: &mut Vec<u8>, value: &[u8], names: &[String]) -> anyhow::Result<()> {
    const LENGTH: usize = 8;
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ");
    let length_at = out.len();
    out.extend_from_slice(&[b' '; LENGTH]);
    out.extend_from_slice(b"\r\n\r\n");
    let body_at = out.len();
    out.extend_from_slice(format!("{{\"as_of\":\"{}\",\"symbols\":{{", utc(wall_ms() * 1_000)).as_bytes());
    let mut rest = value.get(line(value)..).unwrap_or_default();
    for (turn, name) in names.iter().enumerate() {
        let (head, length) = (line(rest), wire::resp(rest).context("Redis answers too few values")?);
        if turn > 0 {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":{\"trade\":");
        // A key that is not there is `$-1`.
        out.extend_from_slice(rest.get(head..length.saturating_sub(2)).unwrap_or(b"null"));
        out.push(b'}');
        rest = rest.get(length..).unwrap_or_default();
    }
    out.extend_from_slice(b"}}");
    let length = format!("{:LENGTH$}", out.len() - body_at);
    if let Some(room) = out.get_mut(length_at..length_at + LENGTH) {
        room.copy_from_slice(length.as_bytes());
    }
    Ok(())
}

/// Bytes of the first line.
fn line(bytes: &[u8]) -> usize {
    memmem::find(bytes, b"\r\n").map_or(0, |at| at + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_the_values_by_their_names() {
        let names = ["L0".to_owned(), "L1".to_owned(), "L2".to_owned()];
        let mut out = Vec::new();
        put_answer(&mut out, b"*3\r\n$7\r\n{\"p\":1}\r\n$-1\r\n$7\r\n{\"p\":2}\r\n", &names).unwrap();
        let (status, end) = wire::head(&out).unwrap();
        assert_eq!((status, wire::content_length(&out[..end])), (200, Some(out.len() - end)));
        let body: serde_json::Value = serde_json::from_slice(&out[end..]).unwrap();
        assert_eq!(body["symbols"]["L2"]["trade"]["p"], 2);
        assert!(body["symbols"]["L1"]["trade"].is_null() && body["as_of"].is_string());
        assert!(put_answer(&mut Vec::new(), b"*1\r\n$-1\r\n", &names).is_err());
    }
}
