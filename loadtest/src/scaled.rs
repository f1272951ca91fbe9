//! `loadtest cassandra`: a node over a real Cassandra, beside raw loops of the driver over the same one.
//!
//! Node and raw loop work in turn, a few seconds each, some rounds of it; all of it, the database
//! too, on the same processors. The raw loop appends the very frames that the node has appended. Before
//! each turn both nodes have written what they owe: no blocks of one are at the cost of another.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::database::{Database, KEYSPACE};
use crate::node::{Access, Node};
use crate::publish::Http;
use crate::report::{self, Bound, Row};
use crate::system::{Cores, Cpu, now, pause, raise_files};
use crate::work::{Done, Trade, Work, by_threads, lines};

/// Ticks of a large request.
const BATCH: u64 = 1_000;
/// Connections that post large requests, and frames that the raw loop has under way: a node has as many.
const POSTERS: usize = 8;
/// Nanoseconds from one request to the next where latency is measured.
const PACE: u64 = 20_000_000;
/// How long a node gathers ticks for a block: shorter than of itself, so that it is not waited for long.
const LINGER: &str = "history.linger_ms=2000";
/// Ticks of the symbol whose history is read: a page of the largest size.
const PAGE: u64 = 10_000;
/// Reads of it.
const READS: usize = 41;
/// The beginning of its hour: 2024-01-03T15:00:00Z.
const HOUR_MICROS: u64 = 1_704_294_000_000_000;
/// Longer than anything waited for takes.
const NEVER: u64 = 180_000_000_000;

/// Arguments of `cassandra`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  loadtest cassandra --binary target/release/tapeline
  loadtest cassandra --binary target/release/tapeline --seconds 10 --rounds 5 --json cassandra.json")]
pub(crate) struct ScaledArgs {
    /// The node's binary
    #[arg(long, value_name = "FILE", default_value = "target/release/tapeline")]
    binary: PathBuf,
    /// What starts the database
    #[arg(long, value_name = "FILE", default_value = "scripts/cassandra")]
    launcher: PathBuf,
    /// Seconds of each measurement of a round
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Rounds
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Clients that post one tick at a time
    #[arg(long, default_value_t = 128)]
    clients: usize,
    /// Another key of the node's configuration
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    sets: Vec<String>,
    /// Write the table to this file as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A node and the database below it.
struct Bench {
    args: ScaledArgs,
    database: Database,
    node: Node,
    embedded: Node,
    /// The next trade's number: no two are alike.
    next: u64,
}

/// A node's work, and the processor time that it took.
struct Spent {
    done: Done,
    cpu: u64,
}

impl Spent {
    fn nothing() -> anyhow::Result<Self> {
        Ok(Self { done: Done::nothing()?, cpu: 0 })
    }

    fn after(&mut self, other: &Self) -> anyhow::Result<()> {
        self.cpu += other.cpu;
        self.done.after(&other.done)
    }

    /// Nanoseconds of the processor a request.
    fn each(&self) -> f64 {
        self.cpu as f64 / self.done.count.max(1) as f64
    }
}

/// Runs it.
pub(crate) fn run(args: &ScaledArgs) -> anyhow::Result<()> {
    raise_files();
    let folder = tempfile::tempdir()?;
    eprintln!("starting Cassandra");
    let database = Database::start(&args.launcher)?;
    let mut sets = vec![
        "store.backend=cassandra".to_owned(),
        format!("store.seal_key={}", "A".repeat(43)),
        format!("cassandra.nodes={}", database.address),
        "cassandra.regions=local=dc1:1".to_owned(),
        format!("cassandra.keyspace={KEYSPACE}"),
        LINGER.to_owned(),
    ];
    sets.extend(args.sets.iter().cloned());
    migrate(&args.binary, &sets)?;
    database.make_rows()?;
    let node = Node::start(&args.binary, &folder.path().join("node"), &sets, Cores::any())?;
    let mut of_embedded = vec![LINGER.to_owned()];
    of_embedded.extend(args.sets.iter().cloned());
    let embedded = Node::start(&args.binary, &folder.path().join("embedded"), &of_embedded, Cores::any())?;
    let mut bench = Bench { args: args.clone(), database, node, embedded, next: 1_000_000_001 };
    let mut rows = vec![bench.latency()?];
    rows.extend(bench.throughput()?);
    rows.push(bench.singles()?);
    rows.push(bench.history()?);
    rows.sort_by_key(|row| row.number);
    bench.node.process.stop()?;
    bench.embedded.process.stop()?;
    print!("{}", report::text(&rows));
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", report::to_json(&rows));
        std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

fn migrate(binary: &Path, sets: &[String]) -> anyhow::Result<()> {
    let mut command = std::process::Command::new(binary);
    command.args(["migrate", "apply"]).args(sets.iter().flat_map(|set| ["--set", set]));
    let output = command.output()?;
    if !output.status.success() {
        bail!("the tables cannot be made: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn row(number: &'static str, figures: (f64, f64), note: String) -> Row {
    use Bound::{Above, AtLeast, AtMost};
    let (name, unit, peer, accept, aim) = match number {
        "1" => {
            ("ingest, 1,000-tick requests", "ticks/s", "the same frames appended", AtLeast(0.7), AtLeast(0.9))
        }
        "2" => ("ingest, single-tick clients", "ticks/s", "a row a tick", AtLeast(3.0), AtLeast(10.0)),
        "3" => ("acknowledgement, p99", "ms", "the same frames appended", Above(7.0), Above(3.0)),
        "4" => ("history page, cold blocks", "ms", "the same bytes read", AtMost(1.5), AtMost(1.2)),
        _ => ("CPU a tick", "us", "embedded", AtMost(1.5), AtMost(1.2)),
    };
    Row { number, name, unit, figures: Some(figures), peer, accept, aim, note }
}

/// Posts requests of so many trades by as many threads as the work says. The processor's time is up to
/// where all of it is in blocks.
fn post(node: &Node, first: u64, batch: u64, work: Work) -> anyhow::Result<Spent> {
    let access = &node.access;
    let head = head_of(access);
    let before = Cpu::of(node.process.pid());
    let done = by_threads(
        work,
        || Http::connect(access.address),
        |number| {
            let from = first + number * batch;
            lines((from..from + batch).map(Trade::now))
        },
        |http, body| send(http, &head, &body),
    )?;
    wait_until_kept(access)?;
    Ok(Spent { done, cpu: Cpu::of(node.process.pid()).since(before).all() })
}

/// Waits until all that a node was given is in blocks.
fn wait_until_kept(access: &Access) -> anyhow::Result<()> {
    let until = now() + NEVER;
    while access.metric("tapeline_history_unkept_ticks").is_none_or(|ticks| ticks > 0.0) {
        anyhow::ensure!(now() < until, "the keeper does not end");
        pause(Duration::from_millis(200));
    }
    Ok(())
}

fn head_of(access: &Access) -> String {
    let key = access.headers(&access.write);
    format!("POST /v1/ticks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n{key}")
}

fn send(http: &mut Http, head: &str, body: &[u8]) -> anyhow::Result<()> {
    let status = http.call(head, body)?;
    if status != 200 {
        bail!("POST /v1/ticks was answered {status}: {}", http.text());
    }
    Ok(())
}

impl Bench {
    fn work(&self, workers: usize) -> Work {
        Work::closed(workers, self.args.seconds)
    }

    /// Posts to the node, or to the embedded one, with numbers of their own.
    fn post(&mut self, is_embedded: bool, batch: u64, work: Work) -> anyhow::Result<Spent> {
        let node = if is_embedded { &self.embedded } else { &self.node };
        let spent = post(node, self.next, batch, work)?;
        self.next += (spent.done.count + work.workers as u64) * batch;
        Ok(spent)
    }

    /// Row 3: one request at a time, at an easy pace.
    fn latency(&mut self) -> anyhow::Result<Row> {
        let work = Work { workers: 1, seconds: self.args.seconds, every: PACE };
        self.post(false, BATCH, Work { seconds: 1.0, ..work })?;
        let frames = Arc::new(self.database.frames(1)?.0);
        let (mut posts, mut appends) = (Done::nothing()?, Done::nothing()?);
        for _ in 0..self.args.rounds {
            posts.after(&self.post(false, BATCH, work)?.done)?;
            appends.after(&self.database.append(&frames, work)?)?;
        }
        let note = format!(
            "{} requests and {} appends, one at a time, one each 20 ms; p50 {:.1} and {:.1} ms",
            posts.count,
            appends.count,
            posts.ms(0.5),
            appends.ms(0.5)
        );
        Ok(row("3", (posts.ms(0.99), appends.ms(0.99)), note))
    }

    /// Rows 1 and 5: as fast as it goes.
    fn throughput(&mut self) -> anyhow::Result<Vec<Row>> {
        let work = self.work(POSTERS);
        for is_embedded in [false, true] {
            self.post(is_embedded, BATCH, Work { seconds: 1.0, ..work })?;
        }
        let (_, mut from) = self.database.frames(1)?;
        let (mut posts, mut appends, mut embedded) = (Spent::nothing()?, Done::nothing()?, Spent::nothing()?);
        let (mut written, mut bytes) = (0, 0);
        for _ in 0..self.args.rounds {
            posts.after(&self.post(false, BATCH, work)?)?;
            let frames;
            (frames, from) = self.database.frames(from)?;
            anyhow::ensure!(!frames.is_empty(), "the node has appended no frames");
            written += frames.len();
            bytes += frames.iter().map(Vec::len).sum::<usize>();
            appends.after(&self.database.append(&Arc::new(frames), work)?)?;
            embedded.after(&self.post(true, BATCH, work)?)?;
        }
        let each = posts.done.count as f64 * BATCH as f64 / written as f64;
        let note = format!(
            "{written} frames of {each:.0} ticks, {:.1} kB; {} appended raw",
            bytes as f64 / written as f64 / 1e3,
            appends.count
        );
        let figures = (posts.done.per_second() * BATCH as f64, appends.per_second() * each);
        let cpu = [&posts, &embedded].map(|spent| spent.each() / BATCH as f64 / 1e3);
        let beside = format!("embedded took {:.0} ticks/s", embedded.done.per_second() * BATCH as f64);
        Ok(vec![row("1", figures, note), row("5", (cpu[0], cpu[1]), beside)])
    }

    /// Row 2: many clients, each with one tick at a time.
    fn singles(&mut self) -> anyhow::Result<Row> {
        let work = self.work(self.args.clients);
        let (mut posts, mut rows) = (Done::nothing()?, Done::nothing()?);
        for _ in 0..self.args.rounds {
            posts.after(&self.post(false, 1, work)?.done)?;
            rows.after(&self.database.insert_rows(self.next, work)?)?;
            self.next += rows.count;
        }
        let note = format!(
            "{} clients; p50 {:.1} ms, of a row {:.1} ms",
            self.args.clients,
            posts.ms(0.5),
            rows.ms(0.5)
        );
        Ok(row("2", (posts.per_second(), rows.per_second()), note))
    }

    /// Row 4: a node that has nothing of it in memory gives a page of a symbol.
    fn history(&mut self) -> anyhow::Result<Row> {
        let head = head_of(&self.node.access);
        let mut http = Http::connect(self.node.access.address)?;
        for first in (0..PAGE).step_by(BATCH as usize) {
            let trade =
                |number| Trade::at(self.next + number, "COLD".to_owned(), HOUR_MICROS + number * 1_000);
            send(&mut http, &head, &lines((first..first + BATCH).map(trade)))?;
        }
        self.next += PAGE;
        wait_until_kept(&self.node.access)?;
        self.node.kill_and_start(Cores::any())?;
        let (access, mut pages, mut raw) = (&self.node.access, Done::nothing()?, Done::nothing()?);
        let buckets = self.database.buckets("COLD")?;
        let mut http = Http::connect(access.address)?;
        let head = format!(
            "GET /v2/stocks/COLD/trades?start=2024-01-03&limit={PAGE} HTTP/1.1\r\nHost: localhost\r\n{}",
            access.headers(&access.read)
        );
        let mut bytes = 0;
        for _ in 0..READS {
            let (read, nanos) = self.database.blocks("COLD", &buckets)?;
            raw.one(nanos)?;
            bytes = read;
            let begun = now();
            let status = http.call(&head, b"")?;
            pages.one(now() - begun)?;
            let ticks = memchr::memmem::find_iter(http.body(), b"\"i\":").count() as u64;
            anyhow::ensure!((status, ticks) == (200, PAGE), "{status}, {ticks} ticks");
        }
        let note = format!(
            "{PAGE} ticks, {:.0} kB of JSON of {:.0} kB of blocks; p99 {:.1} ms",
            http.body().len() as f64 / 1e3,
            bytes as f64 / 1e3,
            pages.ms(0.99)
        );
        Ok(row("4", (pages.ms(0.5), raw.ms(0.5)), note))
    }
}
