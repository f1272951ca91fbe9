//! `loadtest live`: one run, one table.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use crate::connection::{Refused, Speaks, Stream};
use crate::node::{Access, Node, Noticed};
use crate::publish::{Publishing, to_node};
use crate::readers::{Audit, Readers, Schedule};
use crate::system::{Cores, Cpu, now, raise_files, thread_cpu};
use crate::{churn, report, rows, storm};

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// Ten seconds with readers that drop and stall: nothing lost, nothing twice. No time counts.
    Smoke,
    /// The table.
    Full,
    /// Clients that drop and come back by their cursors, slow readers, a node that is killed now and
    /// then: at the end each has what history has. No time counts.
    Churn,
    /// All are away for a while and come back by their cursors at once, beside 50 that stay: nobody
    /// lacks anything; latency and memory are printed.
    Storm,
}

/// Arguments of `live`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  loadtest live --binary target/release/tapeline
  loadtest live --binary target/release/tapeline --rows 1,2,3 --seconds 10 --json live.json
  loadtest live --binary target/release/tapeline --profile smoke --churn 50 --stalled 5
  loadtest live --binary target/release/tapeline --profile churn --seconds 600 --kill-every 60
  loadtest live --binary target/release/tapeline --profile storm --clients 1000 --away 60")]
pub(crate) struct LiveArgs {
    /// The node's binary
    #[arg(long, value_name = "FILE", default_value = "target/release/tapeline")]
    pub(crate) binary: PathBuf,
    /// Folder in which a folder of this run is made; without it the system's
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data: Option<PathBuf>,
    /// What is run
    #[arg(long, value_enum, default_value_t = Profile::Full)]
    pub(crate) profile: Profile,
    /// Rows of the table, such as 1,2,5; without it all
    #[arg(long, value_delimiter = ',')]
    pub(crate) rows: Vec<u8>,
    /// WebSocket readers: 1,000, of smoke 200, of churn 500
    #[arg(long)]
    pub(crate) clients: Option<usize>,
    /// Idle connections of row 5
    #[arg(long, default_value_t = 5_000)]
    pub(crate) idle: usize,
    /// Seconds of a measurement: 5, of churn 600
    #[arg(long)]
    pub(crate) seconds: Option<f64>,
    /// Seconds between two kills of the node; 0: none (churn)
    #[arg(long, default_value_t = 60)]
    pub(crate) kill_every: u64,
    /// Seconds for which all are away (storm)
    #[arg(long, default_value_t = 60)]
    pub(crate) away: u64,
    /// Ticks a second (churn, storm)
    #[arg(long, default_value_t = 500)]
    pub(crate) rate: u64,
    /// Seed of who drops when, and for how long (churn)
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Readers that drop, a second, and resume by their cursor (smoke, churn)
    #[arg(long, default_value_t = 20)]
    pub(crate) churn: u64,
    /// Readers that read nothing and for which the system holds little (smoke, row 6)
    #[arg(long, default_value_t = 1)]
    pub(crate) stalled: usize,
    /// MessagePack instead of JSON
    #[arg(long)]
    pub(crate) msgpack: bool,
    /// Without the stream's extensions: no cursors, and so no resume
    #[arg(long)]
    pub(crate) plain: bool,
    /// Another key of the node's configuration
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) sets: Vec<String>,
    /// Write the table to this file as JSON too
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// How long after the last tick was due readers wait for what is missing.
const DRAIN: u64 = 20_000_000_000;

/// What the rows work with.
pub(crate) struct Bench {
    pub(crate) args: LiveArgs,
    pub(crate) cores: Cores,
    pub(crate) folder: PathBuf,
    pub(crate) node: Node,
    /// The next trade's number: no two runs share one.
    next: u64,
}

/// What one run of readers and a publisher gave.
pub(crate) struct Run {
    pub(crate) deliveries: u64,
    /// Processor time of the server.
    pub(crate) server: Cpu,
    /// What this thread could have read in a second of its processor.
    pub(crate) ceiling: f64,
    /// Milliseconds from the scheduled instant: median and 99th percentile of all deliveries.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// The 99th percentile of the last reader of each tick.
    pub(crate) last_p99: f64,
    pub(crate) audit: Audit,
}

impl Run {
    pub(crate) fn per_core_second(&self) -> f64 {
        self.deliveries as f64 * 1e9 / self.server.all().max(1) as f64
    }

    /// Microseconds of the server's processor a delivery.
    pub(crate) fn cost(&self) -> f64 {
        self.server.all() as f64 / 1e3 / self.deliveries.max(1) as f64
    }

    /// For a note: how much of the server's time is its own, what the generator could take, and
    /// what was wrong.
    pub(crate) fn note(&self) -> String {
        let Audit { lost, repeated, disordered, other_order, closed, .. } = self.audit;
        let share = self.server.user as f64 * 100.0 / self.server.all().max(1) as f64;
        let mut note = format!("{share:.0} % user, generator {:.0} k/s", self.ceiling / 1e3);
        if !self.audit.is_clean() || closed > 0 {
            note.push_str(&format!(
                ", lost {lost}, twice {repeated}, out of order {disordered}, other order {other_order}, closed {closed}"
            ));
        }
        note
    }
}

/// Runs a schedule: `publish` begins it, `each` is called every 10 ms while it lasts.
pub(crate) fn measure(
    readers: &mut Readers,
    schedule: Schedule,
    pid: u32,
    publish: impl FnOnce() -> anyhow::Result<Option<Publishing>>,
    mut each: impl FnMut(&mut Readers) -> anyhow::Result<()>,
) -> anyhow::Result<Run> {
    readers.begin(schedule);
    let publishing = publish()?;
    readers.pump(schedule.start.saturating_sub(20_000_000))?;
    let (server, own) = (Cpu::of(pid), thread_cpu());
    while now() < schedule.last() {
        readers.pump((now() + 10_000_000).min(schedule.last()))?;
        each(readers)?;
    }
    readers.finish(schedule.last() + DRAIN)?;
    let (server, own) = (Cpu::of(pid).since(server), thread_cpu().saturating_sub(own));
    if let Some(publishing) = publishing {
        publishing.join()?;
    }
    let tally = readers.tally();
    let ms = |nanos: u64| nanos as f64 / 1e6;
    Ok(Run {
        deliveries: tally.deliveries,
        server,
        ceiling: tally.deliveries as f64 * 1e9 / own.max(1) as f64,
        p50: ms(tally.latency.value_at_quantile(0.5)),
        p99: ms(tally.latency.value_at_quantile(0.99)),
        last_p99: ms(tally.last.value_at_quantile(0.99)),
        audit: readers.audit(),
    })
}

impl Bench {
    pub(crate) fn clients(&self) -> usize {
        self.args.clients.unwrap_or(1_000)
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.args.seconds.unwrap_or(5.0)
    }

    /// What the node's readers of these symbols speak.
    pub(crate) fn stream(&self, symbols: &[&str]) -> Speaks {
        let Access { read, .. } = &self.node.access;
        let path = if self.args.plain { "/v2/sip" } else { "/v2/sip?ext=1" };
        Speaks::Stream(Stream {
            path: path.to_owned(),
            key: read.id.clone(),
            secret: read.secret.clone(),
            symbols: symbols.iter().map(|symbol| (*symbol).to_owned()).collect(),
            msgpack: self.args.msgpack,
        })
    }

    /// Readers of the node.
    pub(crate) fn readers(&self, symbol: &str, count: usize) -> anyhow::Result<Readers> {
        Readers::connect(self.node.access.address, self.stream(&[symbol]), count)
    }

    /// The next schedule, with numbers of its own.
    pub(crate) fn schedule(&mut self, per_second: u64, batch: u64, seconds: f64) -> Schedule {
        let schedule = Schedule::new(self.next, per_second, batch, seconds);
        self.next = schedule.end() + 1_000;
        schedule
    }

    /// A run against the node.
    pub(crate) fn run(
        &mut self,
        readers: &mut Readers,
        symbol: &str,
        rate: (u64, u64),
        seconds: f64,
        connections: u64,
    ) -> anyhow::Result<Run> {
        let schedule = self.schedule(rate.0, rate.1, seconds);
        let access = self.node.access.clone();
        let publish = || Ok(Some(to_node(&access, symbol, schedule, connections)));
        measure(readers, schedule, self.node.process.pid(), publish, |_| Ok(()))
    }
}

/// Runs it.
pub(crate) fn run(args: &LiveArgs) -> anyhow::Result<()> {
    let cores = Cores::pick();
    cores.bind_load()?;
    let files = raise_files();
    let temporary = match &args.data {
        Some(data) => tempfile::tempdir_in(data)?,
        None => tempfile::tempdir()?,
    };
    let folder = temporary.path().to_path_buf();
    if args.profile == Profile::Churn {
        return churn::run(args, cores, &folder);
    }
    let mut sets = args.sets.clone();
    if args.profile == Profile::Storm {
        // What they lack is more than the tail holds.
        sets.push("tape.tail_bytes_max=1048576".to_owned());
    }
    if matches!(args.profile, Profile::Smoke | Profile::Storm) {
        // A reader can drop as soon as it has a cursor.
        sets.push("live.heartbeat_ms=500".to_owned());
    }
    let node = Node::start(&args.binary, &folder.join("node"), &sets, cores)?;
    println!(
        "node on core {}, load on core {}, {files} files, {}",
        cores.server,
        cores.load,
        folder.display()
    );
    let mut bench = Bench { args: args.clone(), cores, folder, node, next: 1_000_000_001 };
    let ended = match args.profile {
        Profile::Smoke => smoke(&mut bench),
        Profile::Storm => storm::run(&mut bench),
        Profile::Full | Profile::Churn => table(&mut bench, args.json.as_deref()),
    };
    bench.node.process.stop()?;
    ended
}

/// Readers that drop, resume and stall: whatever else, nothing is lost and nothing comes twice.
fn smoke(bench: &mut Bench) -> anyhow::Result<()> {
    let count = bench.args.clients.unwrap_or(200);
    let mut readers = match bench.readers("AAPL", count) {
        Err(error) if error.downcast_ref::<Refused>().is_some_and(|Refused(status)| *status == 404) => {
            bail!("streams are not offered by this node")
        }
        readers => readers?,
    };
    readers.stall(bench.args.stalled.min(count));
    let schedule = bench.schedule(100, 5, 8.0);
    let (access, churn) = (bench.node.access.clone(), bench.args.churn);
    let (mut due, mut turn) = (schedule.start, 0_usize);
    let run = measure(
        &mut readers,
        schedule,
        bench.node.process.pid(),
        || Ok(Some(to_node(&access, "AAPL", schedule, 2))),
        |readers| {
            while churn > 0 && now() > due {
                due += 1_000_000_000 / churn;
                // Every reader in turn, in steps that reach them all.
                turn = (turn + 7_919) % count;
                readers.drop_and_resume(turn)?;
            }
            Ok(())
        },
    )?;
    let Audit { lost, repeated, resumed, disordered, other_order, closed } = run.audit;
    let gaps = readers.tally().gaps;
    if bench.args.stalled > 0 {
        println!("{} stalled: {}", bench.args.stalled.min(count), Noticed::of(&access));
    }
    println!(
        "{} deliveries to {count} readers: lost {lost}, twice {repeated} (and {resumed} after a resume), \
         out of order {disordered}, other order {other_order}, closed {closed}, gaps {gaps}",
        run.deliveries
    );
    if !run.audit.is_clean() || gaps > 0 || closed > bench.args.stalled as u64 {
        bail!("the audit failed: {}", readers.problem().unwrap_or("see above"));
    }
    Ok(())
}

fn table(bench: &mut Bench, json: Option<&Path>) -> anyhow::Result<()> {
    let table = rows::all(bench)?;
    print!("{}", report::text(&table));
    if let Some(path) = json {
        let text = format!("{:#}\n", report::to_json(&table));
        std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}
