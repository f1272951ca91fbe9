//! `--profile churn`: clients come and go, some read slowly, the node is killed and started again,
//! and at the end each client has what history has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::bail;

use crate::connection::{Pipe, Speaks, Stream};
use crate::followers::{Follower, Followers};
use crate::live::LiveArgs;
use crate::node::{Access, Node};
use crate::progress::Progress;
use crate::random::Random;
use crate::stubborn::{Acked, Stubborn, history, stubbornly};
use crate::system::{Cores, now, pause};

const SECOND: u64 = 1_000_000_000;
/// The first number: no tick of another profile has one as high.
const FIRST: u64 = 1_000_000_001;
/// Symbols, and of how many of them a client is given the trades.
const SYMBOLS: u64 = 20;
const EACH: usize = 4;
/// Publishers, each of symbols of its own, and what one of their requests holds.
const PUBLISHERS: u64 = 4;
const BATCH: u64 = 10;
/// Of so many clients one is a slow reader, of all symbols.
const SLOW_EACH: usize = 10;
/// How long nothing may come, at the end, while a client lacks something.
const DRAIN: u64 = 30 * SECOND;
/// What the node is run with: cursors often, and outboxes that slow readers fill.
const SETS: &[&str] = &["live.heartbeat_ms=1000", "live.outbox_bytes_max=65536"];

/// The symbol of a number: those of a publisher are its own.
fn symbol_of(number: u64) -> u64 {
    let publisher = (number - FIRST.min(number)) / BATCH % PUBLISHERS;
    publisher + PUBLISHERS * (number % (SYMBOLS / PUBLISHERS))
}

fn name_of(symbol: u64) -> String {
    format!("CHURN{symbol}")
}

/// Runs it.
pub(crate) fn run(args: &LiveArgs, cores: Cores, folder: &Path) -> anyhow::Result<()> {
    let sets: Vec<String> = SETS.iter().map(|set| (*set).to_owned()).chain(args.sets.clone()).collect();
    let mut node = Node::start(&args.binary, &folder.join("node"), &sets, cores)?;
    let ended = against(args, &mut node, cores);
    node.process.stop()?;
    ended
}

fn against(args: &LiveArgs, node: &mut Node, cores: Cores) -> anyhow::Result<()> {
    let (count, seconds) = (args.clients.unwrap_or(500), args.seconds.unwrap_or(600.0));
    let access = node.access.clone();
    let mut followers =
        Followers::new(access.address, args.seed, FIRST, symbol_of, clients(&access, args.seed, count))?;
    let until = now() + 60 * SECOND;
    while !followers.have_cursors() {
        if now() > until {
            let problem = followers.seen.problem.unwrap_or_default();
            bail!("clients have no first cursor: {problem}");
        }
        followers.pump(now() + SECOND / 10)?;
    }
    let stopping = AtomicBool::new(false);
    let left = Mutex::new(BTreeMap::new());
    let stubborn = Stubborn {
        access: access.clone(),
        first: FIRST,
        batch: BATCH,
        publishers: PUBLISHERS,
        symbol: |number| name_of(symbol_of(number)),
        per_second: args.rate,
        until: now() + (seconds * 1e9) as u64,
    };
    let (acked, kills) = std::thread::scope(|scope| {
        let publishing: Vec<_> = (0..PUBLISHERS)
            .map(|own| {
                let stubborn = &stubborn;
                scope.spawn(move || stubbornly(stubborn, own))
            })
            .collect();
        let (stopping, left) = (&stopping, &left);
        let node = &mut *node;
        let killing = scope.spawn(move || kill_now_and_then(args, node, cores, stopping, left));
        let pumped = churn(args, &mut followers, seconds, || publishing.iter().all(|own| own.is_finished()));
        stopping.store(true, Ordering::Relaxed);
        let kills = killing.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        let mut acked = Acked::default();
        for own in publishing {
            acked.add(own.join().map_err(|_| anyhow::anyhow!("a publisher panicked"))??);
        }
        pumped?;
        anyhow::Ok((acked, kills))
    })?;
    let histories: BTreeMap<u64, Vec<u64>> = (0..SYMBOLS)
        .map(|symbol| Ok((symbol, history(&access, &name_of(symbol))?)))
        .collect::<anyhow::Result<_>>()?;
    drain(&mut followers, &histories)?;
    note_left(&node.access, &left);
    let left = left.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{kills} kills; what the node counted: {left:?}");
    audit(&followers, &histories, &stubborn, &acked)
}

/// The clients, each of some symbols.
fn clients(access: &Access, seed: u64, count: usize) -> Vec<(Arc<Speaks>, Pipe)> {
    let mut random = Random::new(seed ^ 0x5eed);
    let client = |at: usize| {
        let is_slow = at.is_multiple_of(SLOW_EACH);
        let mut symbols = BTreeSet::new();
        while symbols.len() < EACH {
            symbols.insert(random.of(0..SYMBOLS));
        }
        if is_slow {
            symbols.extend(0..SYMBOLS);
        }
        let stream = Stream {
            path: "/v2/sip?ext=1".to_owned(),
            key: access.read.id.clone(),
            secret: access.read.secret.clone(),
            symbols: symbols.into_iter().map(name_of).collect(),
            msgpack: false,
        };
        let pipe = if is_slow { Pipe::Narrow } else { Pipe::Wide };
        (Arc::new(Speaks::Stream(stream)), pipe)
    };
    (0..count).map(client).collect()
}

/// Drops clients until all is published.
fn churn(
    args: &LiveArgs,
    followers: &mut Followers,
    seconds: f64,
    is_over: impl Fn() -> bool,
) -> anyhow::Result<()> {
    let mut progress = Progress::new(seconds);
    let mut due = now();
    while !is_over() {
        followers.pump(now() + SECOND / 100)?;
        while args.churn > 0 && now() > due {
            due += SECOND / args.churn;
            followers.drop_one();
        }
        progress.show(|| {
            let (live, seen) = (followers.live(), &followers.seen);
            format!(
                "{live} of {} connected, {} deliveries, {} drops, {} cut, closed {:?}",
                followers.all.len(),
                seen.deliveries,
                seen.drops,
                seen.cut,
                seen.closed
            )
        });
    }
    followers.end();
    Ok(())
}

/// Kills the node and starts it again; answers how often.
fn kill_now_and_then(
    args: &LiveArgs,
    node: &mut Node,
    cores: Cores,
    stopping: &AtomicBool,
    left: &Mutex<BTreeMap<String, f64>>,
) -> anyhow::Result<u64> {
    let mut kills = 0;
    let mut due = now() + args.kill_every * SECOND;
    while !stopping.load(Ordering::Relaxed) {
        pause(std::time::Duration::from_millis(50));
        if args.kill_every > 0 && now() >= due {
            note_left(&node.access, left);
            node.kill_and_start(cores)?;
            kills += 1;
            due = now() + args.kill_every * SECOND;
        }
    }
    Ok(kills)
}

/// Adds what this life of the node counted of clients that did not keep up.
fn note_left(access: &Access, left: &Mutex<BTreeMap<String, f64>>) {
    let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
    for name in [
        "tapeline_live_left_total",
        "tapeline_live_overruns_total",
        "tapeline_live_scans_total",
        "tapeline_live_closed_total{code=\"1008\"}",
    ] {
        if let Some(value) = access.metric(name) {
            *left.entry(name.to_owned()).or_default() += value;
        }
    }
}

/// The numbers that a client is to have.
fn wanted<'a>(own: &Follower, histories: &'a BTreeMap<u64, Vec<u64>>) -> impl Iterator<Item = &'a u64> {
    let symbols = own.symbols().to_vec();
    histories.iter().filter(move |(symbol, _)| symbols.contains(&name_of(**symbol))).flat_map(|(_, of)| of)
}

/// Reads until each client has as many as it is to have, or too long.
fn drain(followers: &mut Followers, histories: &BTreeMap<u64, Vec<u64>>) -> anyhow::Result<()> {
    let wanted: Vec<u64> = followers.all.iter().map(|own| wanted(own, histories).count() as u64).collect();
    let lacks = |followers: &Followers| {
        followers.all.iter().zip(&wanted).any(|(own, wanted)| own.transcript.count < *wanted)
    };
    // What comes again is no progress.
    let had = |followers: &Followers| followers.all.iter().map(|own| own.transcript.count).sum::<u64>();
    let (mut until, mut before) = (now() + DRAIN, had(followers));
    while now() < until && lacks(followers) {
        followers.pump(now() + SECOND / 10)?;
        let count = had(followers);
        if count > before {
            (until, before) = (now() + DRAIN, count);
        }
    }
    // What comes twice comes now.
    followers.pump(now() + 2 * SECOND)
}

/// Holds each client against history, and history against what was acknowledged.
fn audit(
    followers: &Followers,
    histories: &BTreeMap<u64, Vec<u64>>,
    stubborn: &Stubborn,
    acked: &Acked,
) -> anyhow::Result<()> {
    let mut of_history: Vec<u64> = histories.values().flatten().copied().collect();
    let rows = of_history.len();
    of_history.sort_unstable();
    of_history.dedup();
    let twice = rows - of_history.len();
    let of_history: BTreeSet<u64> = of_history.into_iter().collect();
    let absent = acked.numbers(stubborn).filter(|number| !of_history.contains(number)).count();
    let (mut lost, mut foreign, mut resumed, mut named) = (0, 0, 0, BTreeSet::new());
    let (mut repeated, mut repeated_retried, mut disordered) = (0_usize, 0_usize, 0_usize);
    for own in &followers.all {
        let difference = own.transcript.against(wanted(own, histories));
        lost += difference.lost;
        foreign += difference.foreign;
        named.extend(difference.named);
        resumed += own.transcript.resumed;
        let is_retried = |number: &&u64| acked.retried.contains(&((**number - FIRST) / BATCH));
        // Once more, for a request that was sent again is in two frames.
        let retried: BTreeSet<u64> = own.transcript.repeated.iter().filter(is_retried).copied().collect();
        repeated_retried += retried.len();
        repeated += own.transcript.repeated.len() - retried.len();
        disordered += own.transcript.disordered.len();
    }
    let seen = &followers.seen;
    println!(
        "{} ticks acknowledged in {} requests, {} of them sent again; history has {rows} rows, {twice} twice, \
         lacks {absent}",
        acked.requests() * BATCH,
        acked.requests(),
        acked.retried.len()
    );
    println!(
        "{} clients, {} deliveries: {} drops, {} cut, {} resumes, {} unanswered, {} pauses in reading, closed {:?}",
        followers.all.len(),
        seen.deliveries,
        seen.drops,
        seen.cut,
        seen.resumes,
        seen.unanswered,
        seen.sleeps,
        seen.closed
    );
    println!(
        "lost {lost}, not in history {foreign}, twice {repeated} (as stated, of requests sent again \
         {repeated_retried} and after a resume {resumed}), out of order {disordered}, gaps {}",
        seen.gaps
    );
    let clean = [lost, foreign, seen.gaps].iter().all(|count| *count == 0)
        && [repeated, disordered, twice, absent].iter().all(|count| *count == 0);
    if !clean || seen.problem.is_some() {
        for (at, own) in followers.all.iter().enumerate() {
            let Follower { transcript, .. } = own;
            if !transcript.repeated.is_empty() || !transcript.disordered.is_empty() {
                let again: Vec<u64> = transcript.repeated.iter().take(10).copied().collect();
                let back: Vec<(u64, u64)> = transcript.disordered.iter().take(10).copied().collect();
                eprintln!("client {at}: twice {again:?}, out of order {back:?}");
            }
        }
        let problem = seen.problem.as_deref().unwrap_or("see above");
        let named: Vec<u64> = named.into_iter().take(20).collect();
        bail!("the audit failed: {problem}; lost are {named:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_symbol_has_one_publisher() {
        let mut publishers: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for number in FIRST..FIRST + 10_000 {
            let publisher = (number - FIRST) / BATCH % PUBLISHERS;
            publishers.entry(symbol_of(number)).or_default().insert(publisher);
        }
        assert_eq!(publishers.len() as u64, SYMBOLS);
        assert!(publishers.values().all(|of| of.len() == 1));
    }
}
