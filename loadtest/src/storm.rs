//! `--profile storm`: all clients are away for a while and come back by their cursors at once,
//! beside a few that stay. Nobody lacks anything; what it costs those who stay is printed.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::bail;
use hdrhistogram::Histogram;

use crate::live::Bench;
use crate::progress::Progress;
use crate::publish::to_node;
use crate::readers::{Audit, Readers};
use crate::system::{now, pause, resident_of};

const SECOND: u64 = 1_000_000_000;
/// Clients that stay.
const STAY: usize = 50;
const SYMBOL: &str = "STORM";
/// Ticks of a request.
const BATCH: u64 = 5;
/// How long the load goes on before all drop, and after they came back.
const BEFORE: f64 = 10.0;
const AFTER: f64 = 10.0;
/// How long all may take for what they lack.
const DRAIN: u64 = 120 * SECOND;
/// Reads of tapes.
const SCANS: &str = "tapeline_live_scans_total";

/// Resident memory of the node: before, at its peak, after.
struct Memory {
    before: u64,
    peak: AtomicU64,
}

/// Runs it.
pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let count = bench.clients();
    let mut staying = bench.readers(SYMBOL, STAY)?;
    let mut leaving = bench.readers(SYMBOL, count)?;
    while !leaving.have_cursors() {
        leaving.pump(now() + SECOND / 10)?;
    }
    let away = bench.args.away as f64;
    let seconds = BEFORE + away + AFTER;
    let per_second = (bench.args.rate / BATCH).max(1);
    let schedule = bench.schedule(per_second, BATCH, seconds);
    staying.begin(schedule);
    leaving.begin(schedule);
    let (pid, access) = (bench.node.process.pid(), bench.node.access.clone());
    let publishing = to_node(&access, SYMBOL, schedule, 2);
    let (drop_at, back_at) = (after(schedule.start, BEFORE), after(schedule.start, BEFORE + away));
    let memory = Memory { before: resident_of(pid), peak: AtomicU64::new(0) };
    let scans = access.metric(SCANS);
    let mut progress = Progress::new(seconds);
    // Those who leave have a thread of their own, so that who stays is not measured behind them.
    let (quiet, calm, storm, back_in) = std::thread::scope(|scope| {
        let memory = &memory;
        let comers = scope.spawn(|| come_and_go(&mut leaving, drop_at, back_at, schedule.last()));
        let mut watched = |staying: &mut Readers, until: u64| -> anyhow::Result<Histogram<u64>> {
            while now() < until {
                staying.pump((now() + SECOND / 10).min(until))?;
                let resident = resident_of(pid);
                memory.peak.fetch_max(resident, Ordering::Relaxed);
                progress.show(|| format!("{} MB resident", resident / 1_000_000));
            }
            Ok(staying.take_latency())
        };
        let quiet = watched(&mut staying, drop_at)?;
        let calm = watched(&mut staying, back_at)?;
        let storm = watched(&mut staying, schedule.last())?;
        staying.finish(schedule.last() + DRAIN)?;
        let back_in = comers.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        anyhow::Ok((quiet, calm, storm, back_in))
    })?;
    drop(progress);
    publishing.join()?;
    pause(std::time::Duration::from_secs(2));
    let after_all = resident_of(pid);
    let ms = |latency: &Histogram<u64>| latency.value_at_quantile(0.99) as f64 / 1e6;
    println!(
        "p99 of the {STAY} that stay: {:.1} ms with all, {:.1} ms while {count} are away, {:.1} ms from when they come back",
        ms(&quiet),
        ms(&calm),
        ms(&storm)
    );
    println!("{count} are subscribed again {:.1} s after they came back", back_in as f64 / 1e9);
    let peak = memory.peak.load(Ordering::Relaxed).max(after_all);
    let mb = |bytes: u64| bytes / 1_000_000;
    println!(
        "node resident: {} MB before, {} MB peak, {} MB after",
        mb(memory.before),
        mb(peak),
        mb(after_all)
    );
    match access.metric(SCANS) {
        Some(now) => {
            println!("reads of tapes: {}, at most live.scans_max at once", now - scans.unwrap_or(0.0));
        }
        None => println!("reads of tapes: this node does not tell ({SCANS})"),
    }
    verdict("who stayed", &staying)?;
    verdict("who came back", &leaving)
}

fn after(start: u64, seconds: f64) -> u64 {
    start + (seconds * 1e9) as u64
}

/// Reads, drops all, and comes back; answers how long that took.
fn come_and_go(leaving: &mut Readers, drop_at: u64, back_at: u64, last: u64) -> anyhow::Result<u64> {
    leaving.pump(drop_at)?;
    leaving.drop_all();
    leaving.pump(back_at)?;
    leaving.open_all(usize::MAX)?;
    let back_in = now() - back_at;
    leaving.pump(last)?;
    leaving.finish(last + DRAIN)?;
    Ok(back_in)
}

fn verdict(who: &str, readers: &Readers) -> anyhow::Result<()> {
    let Audit { lost, repeated, resumed, disordered, other_order, closed } = readers.audit();
    let (gaps, deliveries) = (readers.tally().gaps, readers.tally().deliveries);
    println!(
        "{who}: {deliveries} deliveries, lost {lost}, twice {repeated} (and {resumed} after a resume), \
         out of order {disordered}, other order {other_order}, closed {closed}, gaps {gaps}"
    );
    if !readers.audit().is_clean() || gaps > 0 || closed > 0 {
        bail!("the audit failed: {}", readers.problem().unwrap_or("see above"));
    }
    Ok(())
}
