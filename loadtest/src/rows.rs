//! The rows of the table, each beside its peer.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;

use crate::closed::{Answers, per_core_second};
use crate::connection::{Refused, Speaks, Stream};
use crate::live::{Bench, Run, measure};
use crate::node::Noticed;
use crate::peers::{self, Floor, Peer, fdatasync};
use crate::publish::{Http, to_redis};
use crate::readers::{Readers, Schedule};
use crate::report::{Bound, Row};
use crate::system::{now, resident_of};
use crate::wire;

/// Requests a second and ticks of a request, rising.
const LADDER: &[(u64, u64)] = &[(20, 5), (20, 20), (20, 50), (20, 100), (20, 200), (40, 200)];
/// Ticks a second, one a request, falling: the first is the one to hold; where the bare loop cannot,
/// the machine cannot, and the next is taken for both.
const SINGLES: &[u64] = &[200, 100, 50, 25];
/// Above this median a server has a backlog: where it cannot hold a rate, it grows all the time.
const BACKLOG_MS: f64 = 100.0;
/// Below this median the bare loop holds a rate.
const HOLDS_MS: f64 = 25.0;
/// Requests a second and ticks of a request that only those who stall are given: half a megabyte.
const FILL: (u64, u64) = (20, 200);
/// Their numbers lie below those of the runs, of each run so many.
const FILL_NUMBERS: u64 = 100_000_000;
/// How long after a run a node may take to notice that a reader stalls.
const NOTICED_WITHIN: u64 = 5_000_000_000;
/// Symbols of a feed.
const FEED: usize = 100;
/// Connections of the closed loops.
const CONNECTIONS: usize = 32;

/// The rows that are asked for, in order. One that fails says why and the others go on.
pub(crate) fn all(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    type Measure = fn(&mut Bench) -> anyhow::Result<Vec<Row>>;
    // Memory first: what a node has served once stays in its allocator.
    let parts: &[(&[u8], Measure)] = &[
        (&[5], idle_memory),
        (&[1], throughput),
        (&[2, 3], one_at_a_time),
        (&[4], durable),
        (&[6], one_stalled),
        (&[7], latest),
        (&[8], feed),
    ];
    let mut rows = Vec::new();
    for (numbers, part) in parts {
        let asked = &bench.args.rows;
        if asked.is_empty() || numbers.iter().any(|number| asked.contains(number)) {
            match part(bench) {
                Ok(measured) => rows.extend(measured),
                Err(error) => rows.extend(numbers.iter().map(|number| failed(*number, &error))),
            }
        }
    }
    rows.sort_by_key(|row| row.number);
    Ok(rows)
}

fn failed(number: u8, error: &anyhow::Error) -> Row {
    let absent = error.downcast_ref::<Refused>().is_some_and(|Refused(status)| *status == 404);
    let note = if absent { "not offered by this node".to_owned() } else { format!("{error:#}") };
    let mut row = blank(number);
    row.note = note;
    row
}

/// A row without figures.
fn blank(number: u8) -> Row {
    use Bound::{Above, AtLeast, AtMost, Max};
    let row = |number, name, unit, peer, accept, aim| Row {
        number,
        name,
        unit,
        figures: None,
        peer,
        accept,
        aim,
        note: String::new(),
    };
    match number {
        1 => row("1", "deliveries a core-second", "/s", "Redis pub/sub", AtLeast(1.5), AtLeast(3.0)),
        2 => row("2", "CPU a delivery, nothing to coalesce", "us", "send(2)", AtMost(1.25), AtMost(1.1)),
        3 => row("3", "publish to last reader, p99", "ms", "send(2)", AtMost(2.0), AtMost(1.5)),
        4 => row("4", "POST, durable, to 100 readers, p50", "ms", "fdatasync", Above(0.5), Above(0.3)),
        5 => row("5", "memory an idle connection", "kB", "", Max(12.0), Max(8.0)),
        6 => row("6", "p99 beside a stalled reader", "ms", "without it", AtMost(1.25), AtMost(1.1)),
        7 => row("7", "latest trades a core-second", "/s", "nginx, a file", AtLeast(0.9), AtLeast(1.05)),
        _ => row(
            "8",
            "feeds of 100 a core-second",
            "/s",
            "HTTP and JSON on Redis MGET 100",
            AtLeast(1.5),
            AtLeast(3.0),
        ),
    }
}

fn measured(number: u8, figures: (f64, f64), note: String) -> Row {
    Row { figures: Some(figures), note, ..blank(number) }
}

/// The best rung of the ladder that leaves no backlog. A rung that does is tried once more, for
/// something else may have come in between.
fn climb(mut rung: impl FnMut((u64, u64)) -> anyhow::Result<Run>) -> anyhow::Result<(Run, String)> {
    let mut best: Option<(Run, String)> = None;
    for rate in LADDER {
        let per_second = rate.0 * rate.1;
        let mut run = rung(*rate)?;
        if run.p50 > BACKLOG_MS {
            run = rung(*rate)?;
        }
        anyhow::ensure!(run.audit.is_clean() && run.audit.closed == 0, "{per_second}/s: {}", run.note());
        if run.p50 > BACKLOG_MS {
            break;
        }
        if best.as_ref().is_none_or(|(known, _)| run.per_core_second() > known.per_core_second()) {
            let note = format!("{per_second}/s, p99 {:.1} ms, {}", run.p99, run.note());
            best = Some((run, note));
        }
    }
    best.context("not even the lowest rate is held without a backlog")
}

fn throughput(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    let (clients, seconds) = (bench.clients(), bench.seconds());
    let mut readers = bench.readers("ROW1", clients)?;
    bench.run(&mut readers, "ROW1", (20, 5), 1.0, 4)?;
    let (own, note) = climb(|rate| bench.run(&mut readers, "ROW1", rate, seconds, 4))?;
    drop(readers);
    let redis = Peer::redis(&bench.folder, bench.cores)?;
    let mut readers = Readers::connect(redis.address, Speaks::Redis("c".to_owned()), clients)?;
    let (peer, other) = climb(|rate| {
        let schedule = bench.schedule(rate.0, rate.1, seconds);
        let publish = || Ok(Some(to_redis(redis.address, "c", schedule)));
        measure(&mut readers, schedule, redis.process.pid(), publish, |_| Ok(()))
    })?;
    let figures = (own.per_core_second(), peer.per_core_second());
    Ok(vec![measured(1, figures, format!("node {note}; Redis {other}"))])
}

/// The bare loop with these readers, which is started for them.
fn floor(bench: &Bench, readers: usize) -> anyhow::Result<(Floor, Readers)> {
    let program = std::env::current_exe()?;
    let floor = Floor::start(&program, readers, &[], bench.cores)?;
    let speaks = Speaks::Stream(Stream {
        path: "/".to_owned(),
        key: String::new(),
        secret: String::new(),
        symbols: vec!["A".to_owned()],
        msgpack: false,
    });
    let connected = Readers::connect(floor.address, speaks, readers)?;
    Ok((floor, connected))
}

fn one_at_a_time(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    let (clients, seconds) = (bench.clients(), bench.seconds());
    let (mut floor, mut readers) = floor(bench, clients)?;
    let pid = floor.process.pid();
    let mut run = |rate: u64, seconds: f64| {
        let schedule = bench.schedule(rate, 1, seconds);
        let publish = || floor.publish(&schedule).map(|()| None);
        measure(&mut readers, schedule, pid, publish, |_| Ok(()))
    };
    // The first sends warm the sockets.
    run(SINGLES.last().copied().unwrap_or(1), 1.0)?;
    let mut held = None;
    for rate in SINGLES {
        let bare = run(*rate, seconds)?;
        let holds = bare.p50 < HOLDS_MS;
        held = Some((*rate, bare));
        if holds {
            break;
        }
    }
    let (rate, bare) = held.context("no rate")?;
    let bare_half = run(rate / 2, seconds)?;
    drop((readers, floor));
    let mut readers = bench.readers("ROW2", clients)?;
    bench.run(&mut readers, "ROW2", (rate, 1), 1.0, 2)?;
    let own = bench.run(&mut readers, "ROW2", (rate, 1), seconds, 2)?;
    let own_half = bench.run(&mut readers, "ROW2", (rate / 2, 1), seconds, 2)?;
    let note = |rate: u64, own: &Run, bare: &Run| {
        let (node, loops) = (own.note(), bare.note());
        format!("{rate}/s: node p50 {:.1} ms, {node}; loop p50 {:.1} ms, {loops}", own.p50, bare.p50)
    };
    // A tick that waits for the next goes out with it: a delivery has its price where none waits.
    let (rate_of_2, own_of_2, bare_of_2) =
        if own.p50 < 1e3 / rate as f64 { (rate, &own, &bare) } else { (rate / 2, &own_half, &bare_half) };
    Ok(vec![
        measured(2, (own_of_2.cost(), bare_of_2.cost()), note(rate_of_2, own_of_2, bare_of_2)),
        measured(3, (own.last_p99, bare.last_p99), note(rate, &own, &bare)),
    ])
}

fn durable(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    let disk = fdatasync(&bench.folder)? as f64 / 1e6;
    // What the generator takes to read so much, whoever sends it.
    let (mut floor, mut readers) = floor(bench, 100)?;
    let (schedule, pid) = (bench.schedule(200, 50, bench.seconds()), floor.process.pid());
    let publish = || floor.publish(&schedule).map(|()| None);
    let bare = measure(&mut readers, schedule, pid, publish, |_| Ok(()))?;
    drop((readers, floor));
    let mut readers = bench.readers("ROW4", 100)?;
    bench.run(&mut readers, "ROW4", (200, 50), 1.0, 4)?;
    let run = bench.run(&mut readers, "ROW4", (200, 50), bench.seconds(), 4)?;
    let note = format!(
        "10,000 ticks/s in requests of 50: p99 {:.1} ms, {}; send(2) of the same, p50 {:.2} ms",
        run.p99,
        run.note(),
        bare.p50
    );
    Ok(vec![measured(4, (run.p50, disk), note)])
}

fn idle_memory(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    let pid = bench.node.process.pid();
    // What the first connections make is not of a connection.
    let mut first = bench.readers("ROW5", 50)?;
    bench.run(&mut first, "ROW5", (50, 1), 1.0, 1)?;
    let before = resident_of(pid);
    let count = bench.args.idle;
    let mut readers = bench.readers("ROW5", count)?;
    readers.pump(now() + 1_000_000_000)?;
    let each = resident_of(pid).saturating_sub(before) as f64 / count as f64 / 1e3;
    Ok(vec![measured(5, (each, 0.0), format!("{count} connections, subscribed and silent"))])
}

fn one_stalled(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    let (clients, seconds, stalled) = (bench.clients(), bench.seconds(), bench.args.stalled);
    let rate = (50, 20);
    let plain = Arc::new(bench.stream(&["ROW6"]));
    let filled = Arc::new(bench.stream(&["ROW6", "FILL6"]));
    let speaks = (0..clients).map(|at| Arc::clone(if at < stalled { &filled } else { &plain }));
    let access = bench.node.access.clone();
    let mut readers = Readers::connect_each(access.address, speaks)?;
    bench.run(&mut readers, "ROW6", rate, 1.0, 2)?;
    // What only those who stall are given, in both runs: more than the system takes for them.
    let mut beside_fill = |readers: &mut Readers, turn: u64| -> anyhow::Result<Run> {
        let fill = Schedule::new(1 + turn * FILL_NUMBERS, FILL.0, FILL.1, seconds);
        let filling = crate::publish::to_node(&access, "FILL6", fill, 1);
        let run = bench.run(readers, "ROW6", rate, seconds, 2);
        filling.join()?;
        run
    };
    let without = beside_fill(&mut readers, 0)?;
    let before = Noticed::of(&access);
    readers.stall(stalled);
    let with = beside_fill(&mut readers, 1)?;
    let until = now() + NOTICED_WITHIN;
    while Noticed::of(&access).closed - before.closed < stalled as f64 && now() < until {
        readers.pump(now() + 100_000_000)?;
    }
    let noticed = Noticed::of(&access).since(before);
    let note = format!("{stalled} of {clients} stalled at 1,000/s; {noticed}; {}", with.note());
    anyhow::ensure!(
        noticed.closed >= stalled as f64,
        "nobody stalled, so there is nothing to compare: {note}"
    );
    Ok(vec![measured(6, (with.p99, without.p99), note)])
}

/// The answer of a GET: its status, and its body.
fn get(bench: &Bench, path: &str) -> anyhow::Result<(Vec<u8>, u16, Vec<u8>)> {
    let access = &bench.node.access;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", access.headers(&access.read));
    let head = request.trim_end_matches("\r\n").to_owned() + "\r\n";
    let mut http = Http::connect(access.address)?;
    let status = http.call(&head, b"")?;
    Ok((request.into_bytes(), status, http.body().to_vec()))
}

/// A trade of each of a hundred symbols, so that there is a latest one.
fn hundred(bench: &mut Bench) -> anyhow::Result<()> {
    for symbol in 0..FEED {
        let schedule = bench.schedule(1_000, 1, 0.001);
        crate::publish::to_node(&bench.node.access, &format!("L{symbol}"), schedule, 1).join()?;
    }
    Ok(())
}

fn latest(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    hundred(bench)?;
    let (request, status, body) = get(bench, "/v2/stocks/L7/trades/latest")?;
    anyhow::ensure!(status == 200, "the latest trade was answered {status}");
    let seconds = bench.seconds();
    let (address, pid) = (bench.node.access.address, bench.node.process.pid());
    let own = per_core_second(address, &request, Answers::Http, &[pid], CONNECTIONS, seconds)?;
    let nginx = Peer::nginx(&bench.folder, &body, bench.cores)?;
    let request = b"GET /latest HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let pid = nginx.process.pid();
    let peer = per_core_second(nginx.address, request, Answers::Http, &[pid], CONNECTIONS, seconds)?;
    let note =
        format!("{CONNECTIONS} kept connections, an answer of {} B; key, limits and metrics on", body.len());
    Ok(vec![measured(7, (own, peer), note)])
}

/// A subscription to the trades of a hundred symbols, for the feed.
fn subscribe(bench: &Bench) -> anyhow::Result<()> {
    let access = &bench.node.access;
    let symbols: Vec<String> = (0..FEED).map(|symbol| format!("L{symbol}")).collect();
    let body = serde_json::json!({"symbols": symbols, "kinds": ["trades"]}).to_string();
    let head = format!(
        "POST /v1/subscriptions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{}",
        access.headers(&access.read)
    );
    let mut http = Http::connect(access.address)?;
    match http.call(&head, body.as_bytes())? {
        200 | 201 => Ok(()),
        404 => Err(Refused(404).into()),
        status => anyhow::bail!("a subscription was answered {status}: {}", http.text()),
    }
}

fn feed(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    hundred(bench)?;
    subscribe(bench)?;
    let (request, status, body) = get(bench, "/v1/feed")?;
    if status == 404 {
        return Err(Refused(404).into());
    }
    anyhow::ensure!(status == 200, "the feed was answered {status}");
    let seconds = bench.seconds();
    let (address, pid) = (bench.node.access.address, bench.node.process.pid());
    let own = per_core_second(address, &request, Answers::Http, &[pid], CONNECTIONS, seconds)?;
    let redis = Peer::redis(&bench.folder, bench.cores)?;
    let mget = fill(&redis, &body)?;
    let plain = peers::feed(&redis, FEED, bench.cores)?;
    let pids = [redis.process.pid(), plain.process.pid()];
    let request = b"GET /v1/feed HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let length = answered(plain.address, request)?;
    let peer = per_core_second(plain.address, request, Answers::Http, &pids, CONNECTIONS, seconds)?;
    let bare = per_core_second(redis.address, &mget, Answers::Redis, &pids[..1], CONNECTIONS, seconds)?;
    let note = format!(
        "{CONNECTIONS} kept connections, an answer of {} B, the peer's {length} B; a bare MGET, without HTTP \
         and the JSON, {bare:.0}/s",
        body.len()
    );
    Ok(vec![measured(8, (own, peer), note)])
}

/// Bytes of the body of an answer.
fn answered(address: SocketAddr, request: &[u8]) -> anyhow::Result<usize> {
    let mut http = Http::connect(address)?;
    let head = String::from_utf8_lossy(request.get(..request.len() - 2).unwrap_or_default());
    anyhow::ensure!(http.call(&head, b"")? == 200, "the peer answers: {}", http.text());
    Ok(http.body().len())
}

/// Sets each symbol's key to its trade as the node answers it; answers the command that gets all.
fn fill(redis: &Peer, feed: &[u8]) -> anyhow::Result<Vec<u8>> {
    use std::io::{Read as _, Write as _};
    let feed: serde_json::Value = serde_json::from_slice(feed)?;
    let (mut set, mut get) = (vec![b"MSET".to_vec()], vec![b"MGET".to_vec()]);
    for symbol in 0..FEED {
        let name = format!("L{symbol}");
        let trade = feed.get("symbols").and_then(|symbols| symbols.get(&name)?.get("trade"));
        let trade = trade.with_context(|| format!("the feed lacks the trade of {name}"))?;
        set.extend([name.clone().into_bytes(), trade.to_string().into_bytes()]);
        get.push(name.into_bytes());
    }
    let command = |words: &[Vec<u8>]| {
        let (mut out, words): (_, Vec<&[u8]>) = (Vec::new(), words.iter().map(Vec::as_slice).collect());
        wire::put_command(&mut out, &words);
        out
    };
    let mut socket = std::net::TcpStream::connect(redis.address)?;
    socket.write_all(&command(&set))?;
    socket.read_exact(&mut [0; 5])?;
    Ok(command(&get))
}
