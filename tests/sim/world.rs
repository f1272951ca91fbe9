//! The world: virtual time, everything that exists, and what is known to be true of it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;

use tapeline::market::{Nanos, RequestKey};
use tapeline::store::TapeId;
use tapeline::tape::{Frame, Mono, Now, Piece, Region};

use crate::checks::{Check, Failure};
use crate::client::Client;
use crate::mutants::Rules;
use crate::node::Node;
use crate::rng::Rng;
use crate::store::{Records, Replicas};

/// Producers stop; then faults and cuts stop; then the simulation ends.
pub const INTAKE_END: u64 = 45_000;
pub const QUIET: u64 = 125_000;
pub const END: u64 = 300_000;
pub const CLIENTS: usize = 6;
pub const SHARDS: u8 = 2;
/// 2026-01-05T15:00:00Z, in nanoseconds: where the wall clocks stand at the start.
pub const WALL: i64 = 1_767_625_200_000_000_000;

/// A set of up to 64 ticks of a request.
pub type Bits = u64;

pub fn bits(first: u32, count: u32) -> Bits {
    let run = if count >= 64 { Bits::MAX } else { (1 << count) - 1 };
    run << first
}

pub fn request_key(request: usize) -> RequestKey {
    let mut key = [0x5a; 16];
    key[..8].copy_from_slice(&(request as u64).to_be_bytes());
    RequestKey(key)
}

pub fn request_of(key: RequestKey) -> usize {
    let mut number = [0; 8];
    number.copy_from_slice(&key.0[..8]);
    usize::try_from(u64::from_be_bytes(number)).unwrap()
}

pub fn piece_bits(piece: &Piece) -> (usize, Bits) {
    (request_of(piece.request), bits(piece.first, piece.count))
}

/// What differs between runs.
#[derive(Clone, Debug)]
pub struct Knobs {
    /// One region, one node, one disk that may fail; tapes are unlinked.
    pub embedded: bool,
    pub rollover_ms: u64,
    /// Bytes of the memory of requests.
    pub memory: usize,
    pub big_memory: bool,
    /// Choices for the frames that a node holds above holes, in bytes.
    pub held: Vec<usize>,
    pub held_full_stops: bool,
    /// Percent of writes of which the other region gets nothing.
    pub lost: u64,
    pub slow_list_ms: u64,
    pub silent_ms: u64,
    pub frame_ttl_ms: u64,
    pub ttl_margin_ms: u64,
    pub row_ttl_ms: u64,
    /// How far wall clocks are apart and step, in milliseconds.
    pub skew_ms: u64,
    pub read_bytes: usize,
    pub tail_bytes: usize,
    pub tail_keep_ms: u64,
    pub linger_ms: u64,
}

type Job = Box<dyn FnOnce(&mut Sim)>;

struct Entry {
    at: u64,
    number: u64,
    job: Job,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// What is true, whoever knows it.
#[derive(Default)]
pub struct Ledger {
    /// Every frame that was ever sealed.
    pub frames: BTreeMap<TapeId, BTreeMap<u64, Arc<Frame>>>,
    pub sealed_at: BTreeMap<(TapeId, u64), u64>,
    pub home: BTreeMap<TapeId, usize>,
    pub acked: BTreeSet<(TapeId, u64)>,
    pub acked_bits: BTreeMap<usize, Bits>,
    /// The ticks of each request.
    pub full: Vec<Bits>,
    pub acked_requests: BTreeSet<usize>,
    pub tapes: BTreeSet<TapeId>,
}

#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub events: u64,
    pub late: u64,
    pub voids: u64,
    pub retired: u64,
    pub resumes: u64,
    pub duplicates: u64,
    pub filtered: u64,
    pub marks: u64,
    pub boots: u64,
    pub rollovers: u64,
    pub gaps: u64,
    pub forgot: u64,
    pub reads: u64,
    pub catching_up: u64,
    pub longest: usize,
}

pub struct Sim {
    pub rng: Rng,
    pub t: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    number: u64,
    pub knobs: Knobs,
    pub rules: Rules,
    pub replicas: Replicas,
    pub records: Records,
    pub cut: bool,
    /// From when to when regions are cut for longer than frames live.
    pub long_cut: (u64, u64),
    pub disk_bad: bool,
    /// Percent of writes of which the own region gets nothing, and the other all.
    pub far_only: u64,
    pub nodes: Vec<Node>,
    pub clients: Vec<Client>,
    pub ledger: Ledger,
    pub failures: Vec<Failure>,
    pub counts: Counts,
    /// Ticks of which a region's blocks have a copy: request -> ticks.
    pub blocks: [BTreeMap<usize, Bits>; 2],
    /// Frames that a region's and shard's blocks are not known to have.
    pub unproven: BTreeMap<(usize, u8), BTreeMap<TapeId, BTreeSet<u64>>>,
    pub tokens: u64,
    /// What happens to this tape is printed.
    pub trace: Option<TapeId>,
}

impl Sim {
    pub fn new(seed: u64, knobs: Knobs, rules: Rules) -> Self {
        let regions = if knobs.embedded { 1 } else { 2 };
        Self {
            rng: Rng::new(seed),
            t: 0,
            queue: BinaryHeap::new(),
            number: 0,
            replicas: Replicas::new(regions),
            records: Records::default(),
            cut: false,
            long_cut: (0, 0),
            disk_bad: false,
            far_only: 0,
            nodes: Vec::new(),
            clients: Vec::new(),
            ledger: Ledger::default(),
            failures: Vec::new(),
            counts: Counts::default(),
            blocks: [BTreeMap::new(), BTreeMap::new()],
            unproven: BTreeMap::new(),
            tokens: 0,
            trace: None,
            knobs,
            rules,
        }
    }

    pub fn regions(&self) -> usize {
        if self.knobs.embedded { 1 } else { 2 }
    }

    pub fn at(&mut self, delay: u64, job: impl FnOnce(&mut Self) + 'static) {
        self.number += 1;
        let entry = Entry { at: self.t + delay, number: self.number, job: Box::new(job) };
        self.queue.push(Reverse(entry));
    }

    /// A job of a node's process: a crash ends it, a pause delays it.
    pub fn at_node(&mut self, delay: u64, node: usize, job: impl FnOnce(&mut Self) + 'static) {
        let boot = self.nodes[node].boot;
        self.at(delay, move |sim| sim.run_at_node(node, boot, false, Box::new(job)));
    }

    /// A job of a node's writer: it is also delayed where only the writer is paused.
    pub fn at_writer(&mut self, delay: u64, node: usize, job: impl FnOnce(&mut Self) + 'static) {
        let boot = self.nodes[node].boot;
        self.at(delay, move |sim| sim.run_at_node(node, boot, true, Box::new(job)));
    }

    fn run_at_node(&mut self, node: usize, boot: u64, writer: bool, job: Job) {
        let of = &mut self.nodes[node];
        if of.boot != boot || !of.up {
            return;
        }
        if of.paused || (writer && of.writer_paused) {
            of.parked.push_back((boot, writer, job));
        } else {
            job(self);
        }
    }

    /// Runs what was delayed by a pause, in order.
    pub fn unpark(&mut self, node: usize) {
        let parked: VecDeque<Parked> = std::mem::take(&mut self.nodes[node].parked);
        for (boot, writer, job) in parked {
            self.run_at_node(node, boot, writer, job);
        }
    }

    /// Runs until the time, or until the first failed check.
    pub fn run(&mut self, until: u64) {
        while self.failures.is_empty() {
            let Some(Reverse(next)) = self.queue.peek() else { break };
            if next.at > until {
                break;
            }
            let Some(Reverse(entry)) = self.queue.pop() else { break };
            self.t = entry.at;
            self.counts.events += 1;
            (entry.job)(self);
        }
        self.t = until;
    }

    pub fn now(&self, node: usize) -> Now {
        let of = &self.nodes[node];
        let wall_ms = i64::try_from(self.t).unwrap() + of.skew_ms;
        Now { mono: Mono(self.t + of.mono_offset), wall: Nanos(WALL + wall_ms * 1_000_000) }
    }

    pub fn fail(&mut self, check: Check, what: String) {
        self.failures.push(Failure { check, what, at: self.t });
    }

    /// Prints what happened to a tape, where it is the one that is looked at.
    pub fn trace(&self, tape: TapeId, what: impl FnOnce() -> String) {
        if self.trace == Some(tape) {
            println!("{:>7} ms {}", self.t, what());
        }
    }

    pub fn alive(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].up && !self.nodes[*node].paused).collect()
    }

    pub fn of_region(&self, region: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].region == region).collect()
    }
}

pub type Parked = (u64, bool, Box<dyn FnOnce(&mut Sim)>);

pub fn region_name(region: usize) -> Region {
    Region::parse(["east", "west"][region]).unwrap()
}

pub fn region_number(region: Region) -> usize {
    usize::from(region.as_str() == "west")
}
