//! Who publishes, at scheduled instants: to a node, or to Redis.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, bail};

use crate::node::Access;
use crate::readers::Schedule;
use crate::system::{now, sleep_until};
use crate::wire;

/// A publisher that runs.
pub(crate) struct Publishing(Vec<JoinHandle<anyhow::Result<()>>>);

impl Publishing {
    /// Waits until all is sent and answered.
    pub(crate) fn join(self) -> anyhow::Result<()> {
        for thread in self.0 {
            thread.join().map_err(|_| anyhow::anyhow!("a publisher panicked"))??;
        }
        Ok(())
    }
}

/// Posts trades of a symbol by a schedule, over so many connections in turn.
pub(crate) fn to_node(access: &Access, symbol: &str, schedule: Schedule, connections: u64) -> Publishing {
    let threads = (0..connections).map(|own| {
        let (access, symbol) = (access.clone(), symbol.to_owned());
        std::thread::spawn(move || {
            let mut http = Http::connect(access.address)?;
            let head = format!(
                "POST /v1/ticks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{}",
                access.headers(&access.write)
            );
            for request in (0..schedule.requests).filter(|request| request % connections == own) {
                let body = body_of(&symbol, schedule.first + request * schedule.batch, schedule.batch);
                sleep_until(schedule.at(request));
                let status = http.call(&head, &body)?;
                if status != 200 {
                    bail!("a node answered POST /v1/ticks with {status}: {}", http.text());
                }
            }
            Ok(())
        })
    });
    Publishing(threads.collect())
}

/// Publishes the same bytes to a channel of Redis, the commands of a request in one write.
pub(crate) fn to_redis(address: SocketAddr, channel: &str, schedule: Schedule) -> Publishing {
    let channel = channel.to_owned();
    let thread = std::thread::spawn(move || {
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let (mut out, mut answers) = (Vec::new(), vec![0; 1 << 16]);
        for request in 0..schedule.requests {
            out.clear();
            let first = schedule.first + request * schedule.batch;
            for number in first..first + schedule.batch {
                let mut payload = b"[".to_vec();
                wire::put_trade(&mut payload, "AAPL", number, "2024-01-05T15:04:05.123456007Z");
                payload.push(b']');
                wire::put_command(&mut out, &[b"PUBLISH", channel.as_bytes(), &payload]);
            }
            sleep_until(schedule.at(request));
            socket.write_all(&out)?;
            let mut left = schedule.batch;
            while left > 0 {
                let came = socket.read(&mut answers)?;
                if came == 0 {
                    bail!("Redis closed the publisher's connection");
                }
                let lines = memchr::memchr_iter(b'\n', answers.get(..came).unwrap_or_default()).count();
                left = left.saturating_sub(lines as u64);
            }
        }
        Ok(())
    });
    Publishing(vec![thread])
}

/// So many trades as a body; their times are told to the microsecond and are of now.
fn body_of(symbol: &str, first: u64, count: u64) -> Vec<u8> {
    body_with(|_| symbol.to_owned(), first, count)
}

/// The same, each of a symbol of its own.
pub(crate) fn body_with(symbol: impl Fn(u64) -> String, first: u64, count: u64) -> Vec<u8> {
    /// No two bodies are the same, also not of two runs within one microsecond.
    static BODIES: AtomicU64 = AtomicU64::new(0);
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let micros = wall.as_micros() as u64 + BODIES.fetch_add(1, Ordering::Relaxed) % 2;
    let mut body = b"[".to_vec();
    for number in first..first + count {
        if number > first {
            body.push(b',');
        }
        wire::put_trade(&mut body, &symbol(number), number, &utc(micros));
    }
    body.push(b']');
    body
}

/// Microseconds since 1970 as RFC 3339 in UTC.
pub(crate) fn utc(micros: u64) -> String {
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days.cast_signed());
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}007Z")
}

/// The date of a day since 1970, by the proleptic Gregorian calendar counted from a March.
const fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + next, month, day)
}

/// A connection that is kept.
pub(crate) struct Http {
    socket: TcpStream,
    bytes: Vec<u8>,
}

impl Http {
    pub(crate) fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address).context("no connection to the node")?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(std::time::Duration::from_secs(30)))?;
        Ok(Self { socket, bytes: Vec::new() })
    }

    /// Sends a request whose head lacks its length; answers the status.
    pub(crate) fn call(&mut self, head: &str, body: &[u8]) -> anyhow::Result<u16> {
        let mut out = format!("{head}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
        out.extend_from_slice(body);
        self.socket.write_all(&out)?;
        self.bytes.clear();
        let mut buffer = [0; 16_384];
        let until = now() + 30_000_000_000;
        loop {
            if let Some((status, end)) = wire::head(&self.bytes) {
                let length = wire::content_length(self.bytes.get(..end).unwrap_or_default()).unwrap_or(0);
                if self.bytes.len() >= end + length {
                    return Ok(status);
                }
            }
            let came = self.socket.read(&mut buffer)?;
            if came == 0 || now() > until {
                bail!("no whole answer: {}", self.text());
            }
            self.bytes.extend_from_slice(buffer.get(..came).unwrap_or_default());
        }
    }

    /// The last answer, for people.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The body of the last answer.
    pub(crate) fn body(&self) -> &[u8] {
        wire::head(&self.bytes).and_then(|(_, end)| self.bytes.get(end..)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000007Z"),
            (1_709_210_096_000_007, "2024-02-29T12:34:56.000007007Z"),
            (1_735_689_599_999_999, "2024-12-31T23:59:59.999999007Z"),
        ] {
            assert_eq!(utc(micros), text);
        }
    }
}
