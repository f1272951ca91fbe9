//! The bare loop: a server that does nothing but `send(2)` the same bytes to every socket.
//!
//! It is the floor under every fan-out of this machine. Its readers are the stream's: it speaks
//! the handshake, then waits for a line on standard input, `start period batch requests first`
//! (an instant and nanoseconds of the clock that all processes share), and publishes by it. With
//! `--drop-each` and `--repeat-each` it does what a server must not.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::readers::Schedule;
use crate::system::{raise_files, sleep_until};
use crate::wire;

/// Arguments of `floor-send`.
#[derive(Args, Clone, Debug)]
pub(crate) struct FloorArgs {
    /// Readers that are waited for
    #[arg(long)]
    readers: usize,
    /// Leave out every so many numbers
    #[arg(long)]
    drop_each: Option<u64>,
    /// Send every so many numbers twice
    #[arg(long)]
    repeat_each: Option<u64>,
}

/// Serves until standard input ends.
pub(crate) fn run(args: &FloorArgs) -> anyhow::Result<()> {
    raise_files();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let lines = std::io::stdin().lock().lines();
    serve(&listener, lines.map(|line| schedule(&line?)), args)
}

fn serve(
    listener: &TcpListener,
    schedules: impl Iterator<Item = anyhow::Result<Schedule>>,
    args: &FloorArgs,
) -> anyhow::Result<()> {
    let mut sockets = Vec::new();
    for _ in 0..args.readers {
        sockets.push(accept(listener)?);
    }
    for schedule in schedules {
        publish(&mut sockets, schedule?, args)?;
    }
    Ok(())
}

/// `start period batch requests first`.
pub(crate) fn line_of(schedule: &Schedule) -> String {
    let Schedule { start, period, batch, requests, first } = schedule;
    format!("{start} {period} {batch} {requests} {first}\n")
}

fn schedule(line: &str) -> anyhow::Result<Schedule> {
    let numbers: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [start, period, batch, requests, first] = *numbers else { bail!("not five numbers: {line}") };
    Ok(Schedule { start, period, batch, requests, first })
}

/// The stream's opening with one reader.
fn accept(listener: &TcpListener) -> anyhow::Result<TcpStream> {
    let (mut socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    let mut bytes = Vec::new();
    let mut used = loop {
        more(&mut socket, &mut bytes)?;
        if let Some((_, end)) = wire::head(&bytes) {
            break end;
        }
    };
    let mut out =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec();
    wire::put_frame(&mut out, 1, br#"[{"T":"success","msg":"connected"}]"#, false);
    socket.write_all(&out)?;
    for answer in [r#"[{"T":"success","msg":"authenticated"}]"#, r#"[{"T":"subscription","trades":["A"]}]"#] {
        // A client's message is short, and masked by zeros.
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            let length = rest.get(1).map_or(usize::MAX - 6, |byte| usize::from(byte & 0x7f));
            if rest.len() >= length + 6 {
                used += length + 6;
                break;
            }
            more(&mut socket, &mut bytes)?;
        }
        out.clear();
        wire::put_frame(&mut out, 1, answer.as_bytes(), false);
        socket.write_all(&out)?;
    }
    Ok(socket)
}

fn more(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut buffer = [0; 4096];
    match socket.read(&mut buffer)? {
        0 => bail!("a reader left"),
        came => bytes.extend_from_slice(buffer.get(..came).unwrap_or_default()),
    }
    Ok(())
}

fn publish(sockets: &mut [TcpStream], schedule: Schedule, args: &FloorArgs) -> anyhow::Result<()> {
    let is = |each: Option<u64>, number: u64| each.is_some_and(|each| number.is_multiple_of(each));
    let mut out = Vec::new();
    for request in 0..schedule.requests {
        sleep_until(schedule.at(request));
        out.clear();
        let first = schedule.first + request * schedule.batch;
        for number in first..first + schedule.batch {
            let copies =
                if is(args.drop_each, number) { 0 } else { 1 + u8::from(is(args.repeat_each, number)) };
            for _ in 0..copies {
                let mut payload = b"[".to_vec();
                wire::put_trade(&mut payload, "AAPL", number, "2024-01-05T15:04:05.123456007Z");
                payload.push(b']');
                wire::put_frame(&mut out, 1, &payload, false);
            }
        }
        for socket in &mut *sockets {
            socket.write_all(&out).context("a reader left")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{Speaks, Stream};
    use crate::live::{Run, measure};
    use crate::readers::Readers;

    /// Ten readers of 200 numbers, of which a server drops and repeats some.
    fn run(drop_each: Option<u64>, repeat_each: Option<u64>) -> Run {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = std::sync::mpsc::channel::<Schedule>();
        let args = FloorArgs { readers: 10, drop_each, repeat_each };
        let server = std::thread::spawn(move || serve(&listener, told.into_iter().map(Ok), &args).unwrap());
        let text = |text: &str| text.to_owned();
        let speaks = Speaks::Stream(Stream {
            path: text("/"),
            key: text("k"),
            secret: text("s"),
            symbols: vec![text("A")],
            msgpack: false,
        });
        let mut readers = Readers::connect(address, speaks, 10).unwrap();
        let schedule = Schedule::new(1_000, 1_000, 4, 0.05);
        assert_eq!(schedule.end(), 1_200);
        // The server ends with its schedules, and closes: nobody waits for what never comes.
        let publish = || {
            tell.send(schedule).unwrap();
            drop(tell);
            Ok(None)
        };
        let run = measure(&mut readers, schedule, std::process::id(), publish, |_| Ok(())).unwrap();
        drop(readers);
        server.join().unwrap();
        run
    }

    #[test]
    fn readers_count_what_a_server_drops_and_repeats() {
        let good = run(None, None);
        assert!(good.audit.is_clean() && good.deliveries == 2_000, "{:?}", good.audit);
        assert!(good.p50 > 0.0 && good.last_p99 >= good.p50);
        let repeats = run(None, Some(100));
        assert_eq!((repeats.audit.lost, repeats.audit.repeated, repeats.deliveries), (0, 20, 2_000));
    }

    #[test]
    fn readers_count_what_never_comes() {
        let drops = run(Some(50), None);
        assert_eq!((drops.audit.lost, drops.audit.repeated, drops.deliveries), (40, 0, 1_960));
        assert!(!drops.audit.is_clean());
    }
}
