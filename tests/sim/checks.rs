//! What must be true, and when it is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use tapeline::market::Series;
use tapeline::store::TapeId;
use tapeline::tape::{Frame, GapReason, Position, Progress, WaitToken, shard_of};

use crate::node::row_bits;
use crate::schedule::{KINDS, symbol_of, symbols};
use crate::world::{Bits, SHARDS, Sim, piece_bits, region_number};

/// A kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// A frame is applied twice in one boot.
    AppliedTwice,
    /// At the end an acknowledged frame is not covered by a node's Position.
    Follow,
    /// At the end nodes cover different frames (I5).
    Equal,
    /// A cursor covers a tick that the client never got (I4, I9).
    Cursor,
    /// At the end a client misses a tick of an acknowledged request.
    Client,
    /// A client that never resumed got a tick twice.
    Once,
    /// A mark covers a tick that is in no block (I6).
    Mark,
    /// At the end blocks miss a tick of an acknowledged request.
    Blocks,
    /// A read has a hole (I7).
    Read,
    /// History has what was never sent.
    History,
    /// The bytes of a seq changed, or a tape id was used again.
    Bytes,
    /// More than eight frames are unacknowledged (I2).
    Window,
    /// A frame was appended before its tape's registry row was durable (I1).
    Registered,
    /// A frame was acknowledged that is not durable.
    Durable,
    /// `low` is ahead of what is acknowledged, or not in order (I3).
    Low,
    /// A request was answered with ticks unacknowledged, or out of reach of its wait token.
    Answered,
    /// A Position passed a seq that is neither applied, nor void, nor a durable gap (I4).
    Passed,
    /// Acknowledged frames that the database has count as lost.
    Lost,
    /// An entry of a retired list was changed.
    RetiredList,
    /// A memory is larger than its budget (I10).
    Bounds,
    /// A request is taken for another.
    Receipts,
    /// A frame was unlinked whose ticks are in no block, or is never unlinked.
    Unlinked,
    /// A bar folds a tick twice, or not at all.
    Fold,
}

/// A failed check.
#[derive(Clone, Debug)]
pub struct Failure {
    pub check: Check,
    pub what: String,
    pub at: u64,
}

impl Sim {
    // ---- the writer

    pub fn note_append(&mut self, region: usize, frame: &Arc<Frame>) {
        let (tape, seq) = (frame.tape, frame.seq);
        if !self.is_registered(tape) {
            self.fail(Check::Registered, format!("frame {seq} of {tape} before its registry row"));
        }
        if seq == 1 && !self.ledger.frames.contains_key(&tape) && !self.ledger.tapes.insert(tape) {
            self.fail(Check::Bytes, format!("tape id {tape} is used again"));
        }
        self.ledger.home.insert(tape, region);
        let frames = self.ledger.frames.entry(tape).or_default();
        if let Some(first) = frames.get(&seq) {
            if first != frame {
                self.fail(Check::Bytes, format!("seq {seq} of {tape} is sent with other bytes"));
            }
            return;
        }
        frames.insert(seq, Arc::clone(frame));
        self.ledger.sealed_at.insert((tape, seq), self.t);
        for region in 0..self.regions() {
            for shard in 0..SHARDS {
                self.unproven.entry((region, shard)).or_default().entry(tape).or_default().insert(seq);
            }
        }
        let low = self.low(tape);
        if seq - low > 8 {
            self.fail(Check::Window, format!("{} frames of {tape} are unacknowledged", seq - low));
        }
        if frame.low > low {
            self.fail(
                Check::Low,
                format!("frame {seq} of {tape} says low {}, acknowledged is {low}", frame.low),
            );
        }
    }

    fn low(&self, tape: TapeId) -> u64 {
        let acked = self.ledger.acked.range((tape, 0)..=(tape, u64::MAX)).next_back();
        acked.map_or(0, |(_, seq)| *seq)
    }

    pub fn note_acknowledged(&mut self, region: usize, frame: &Arc<Frame>) {
        let (tape, seq) = (frame.tape, frame.seq);
        let sealed = self.ledger.sealed_at.get(&(tape, seq)).copied().unwrap_or(0);
        let young = self.t - sealed < self.knobs.frame_ttl_ms;
        if young && self.replicas.copies(region, tape, seq) < 2 {
            self.fail(Check::Durable, format!("frame {seq} of {tape} is acknowledged and not durable"));
        }
        let low = self.low(tape);
        if seq != low + 1 {
            self.fail(Check::Low, format!("frame {seq} of {tape} is acknowledged after {low}"));
        }
        self.trace(tape, || format!("frame {seq} is acknowledged"));
        self.ledger.acked.insert((tape, seq));
        for (request, ticks) in frame.pieces.iter().map(piece_bits) {
            *self.ledger.acked_bits.entry(request).or_default() |= ticks;
        }
    }

    pub fn note_answered(&mut self, node: usize, request: usize, position: &WaitToken) {
        let acked = self.ledger.acked_bits.get(&request).copied().unwrap_or(0);
        if self.ledger.full[request] & !acked != 0 {
            self.fail(Check::Answered, format!("request {request} is answered before all its ticks are"));
        }
        if !self.view(node).follower().covers(position) {
            self.fail(Check::Answered, format!("the answer of request {request} is beyond this node"));
        }
        self.ledger.acked_requests.insert(request);
    }

    pub fn note_refused(&mut self, node: usize, request: usize) {
        if !self.knobs.embedded {
            self.fail(Check::Answered, format!("request {request} is refused after it was taken, by {node}"));
        }
    }

    // ---- the follower

    pub fn note_applied(&mut self, node: usize, frame: &Arc<Frame>) {
        let name = (frame.tape, frame.seq);
        let checked = self.nodes[node].checked.get(&frame.tape).copied().unwrap_or(1);
        self.counts.late += u64::from(frame.seq < checked);
        if !self.nodes[node].applied.insert(name) {
            self.fail(Check::AppliedTwice, format!("frame {} of {} at node {node}", frame.seq, frame.tape));
        }
        self.trace(frame.tape, || format!("node {node} applies {}", frame.seq));
        self.nodes[node].log.push(name);
        self.fold(node, frame);
    }

    /// A seq is passed only by a frame that was applied, a void, or a durable gap.
    pub fn check_progress(&mut self, node: usize) {
        let region = self.nodes[node].region;
        let Some(view) = &self.nodes[node].view else { return };
        let mut wrong = None;
        let mut checked = Vec::new();
        for (tape, progress) in view.follower().followed() {
            let from = self.nodes[node].checked.get(&tape).copied().unwrap_or(1);
            if from >= progress.next {
                continue;
            }
            for seq in from..progress.next {
                let seen = self.nodes[node].applied.contains(&(tape, seq));
                if !seen && !progress.voids.contains(&seq) && !self.in_gap(region, tape, seq) {
                    wrong = Some(format!("node {node} passed frame {seq} of {tape} unseen"));
                }
            }
            self.counts.voids += progress.voids.range(from..).count() as u64;
            checked.push((tape, progress.next));
        }
        let held = view.follower().status(self.now(node).mono).held_bytes;
        let bounds = [
            ("held", held, self.nodes[node].held_limit),
            ("tail", view.tail().bytes(), self.knobs.tail_bytes),
            ("requests", view.requests().bytes(), self.knobs.memory),
        ];
        let over = bounds.into_iter().find(|(_, bytes, max)| bytes > max);
        self.nodes[node].checked.extend(checked);
        if let Some(what) = wrong {
            self.fail(Check::Passed, what);
        }
        if let Some((name, bytes, max)) = over {
            self.fail(Check::Bounds, format!("{name} of node {node} has {bytes} bytes of {max}"));
        }
    }

    pub fn in_gap(&self, region: usize, tape: TapeId, seq: u64) -> bool {
        let holds = |gap: &tapeline::tape::GapRow| gap.tape == tape && gap.first <= seq && seq <= gap.last;
        self.records.gaps[region].iter().any(holds)
    }

    /// Whether readers are told that this frame may be missing: they are told the span of time of a
    /// gap, which reaches further than its seqs where nobody is left who knows the last of them.
    fn told(&self, region: usize, frame: &Frame) -> bool {
        let skew = i64::try_from(self.knobs.skew_ms).unwrap() * 1_000_000;
        let span = |gap: &tapeline::tape::GapRow| gap.from.0..=gap.to.0 + 2 * skew;
        let tells =
            |gap: &tapeline::tape::GapRow| gap.tape == frame.tape && span(gap).contains(&frame.received.0);
        self.records.gaps[region].iter().any(tells)
    }

    /// A frame that another region wrote and that expired before a cut healed, or while the nodes
    /// were down right after: this region never
    /// had a way to it, and where nothing that outlived it tells of it (its tape was retired before,
    /// its row says less) only a rebuild brings it.
    fn beyond_reach(&self, region: usize, tape: TapeId, seq: u64) -> bool {
        let sealed = self.ledger.sealed_at.get(&(tape, seq)).copied().unwrap_or(0);
        let foreign = self.ledger.home.get(&tape).is_some_and(|home| *home != region);
        let (from, to) = self.long_cut;
        foreign && sealed + 5_000 > from && sealed + self.knobs.frame_ttl_ms < to + 30_000
    }

    pub fn note_forgot(&mut self, node: usize, tape: TapeId) {
        self.counts.forgot += 1;
        self.trace(tape, || format!("node {node} forgets"));
        let region = self.nodes[node].region;
        let low = self.low(tape);
        let reached = self.nodes[node].checked.get(&tape).copied().unwrap_or(1);
        // What this boot never saw may be in blocks: a node that starts from an old mark does not
        // read again what has expired since.
        let kept =
            |seq: u64| {
                self.ledger.frames[&tape][&seq].pieces.iter().map(piece_bits).all(|(request, ticks)| {
                    ticks & !self.blocks[region].get(&request).copied().unwrap_or(0) == 0
                })
            };
        let told = |seq: u64| self.told(region, &self.ledger.frames[&tape][&seq]);
        if (reached..=low).any(|seq| !self.beyond_reach(region, tape, seq) && !told(seq) && !kept(seq)) {
            self.fail(
                Check::Follow,
                format!("node {node} forgot {tape} at {reached}, acknowledged is {low}"),
            );
        }
        self.nodes[node].forgotten.insert(tape);
    }

    // ---- Positions

    /// A Position decoded by one who knows every retired list to its end.
    pub fn truth(&self, position: &Position, tape: TapeId) -> Progress {
        if let Some(progress) = position.tapes.get(&tape) {
            return progress.clone();
        }
        for (region, seen) in &position.seen {
            if let Some((of, k, progress)) = self.records.ever_retired.get(&(tape, seen.list))
                && *of == region_number(*region)
                && *k <= seen.k
                && !self.is_dropped(tape, seen.list)
            {
                return progress.clone();
            }
        }
        Progress::default()
    }

    pub fn check_cursor(&mut self, client: usize) {
        let of = &self.clients[client];
        let mut wrong = None;
        for (tape, frames) in &self.ledger.frames {
            let progress = self.truth(&of.cursor, *tape);
            for (seq, frame) in frames.range(..progress.next).filter(|(seq, _)| progress.covers(**seq)) {
                for (request, ticks) in frame.pieces.iter().map(piece_bits) {
                    let has = of.got.get(&request).copied().unwrap_or(0)
                        | of.told.get(&request).copied().unwrap_or(0);
                    if ticks & !has != 0 {
                        wrong = Some(format!(
                            "client {client} lacks frame {seq} of {tape}, which its cursor covers"
                        ));
                    }
                }
            }
        }
        if let Some(what) = wrong {
            self.fail(Check::Cursor, what);
        }
    }

    // ---- history

    pub fn check_mark(&mut self, region: usize, shard: u8, position: &Position) {
        if let Some(tape) = self.trace {
            self.trace(tape, || {
                format!(
                    "mark of shard {shard} at {region}: {:?} {:?} {:?}",
                    self.truth(position, tape),
                    position.tapes.get(&tape),
                    position.seen
                )
            });
        }
        let mut proven = Vec::new();
        let mut wrong = None;
        let Some(unproven) = self.unproven.get(&(region, shard)) else { return };
        for (tape, seqs) in unproven.iter().filter(|(_, seqs)| !seqs.is_empty()) {
            let progress = self.truth(position, *tape);
            for seq in seqs.range(..progress.next).filter(|seq| progress.covers(**seq)) {
                let frame = &self.ledger.frames[tape][seq];
                let in_blocks = frame.pieces.iter().map(piece_bits).all(|(request, ticks)| {
                    let of_shard = ticks & shard_bits(request, shard);
                    of_shard & !self.blocks[region].get(&request).copied().unwrap_or(0) == 0
                });
                if in_blocks {
                    proven.push((*tape, *seq));
                } else if !self.in_gap(region, *tape, *seq) {
                    wrong =
                        Some(format!("mark of shard {shard} covers frame {seq} of {tape} before its blocks"));
                }
            }
        }
        if let Some(unproven) = self.unproven.get_mut(&(region, shard)) {
            for (tape, seq) in proven {
                unproven.entry(tape).or_default().remove(&seq);
            }
        }
        if let Some(what) = wrong {
            self.fail(Check::Mark, what);
        }
    }

    pub fn check_unlinked(&mut self, gone: &[(TapeId, u64)]) {
        for (tape, seq) in gone {
            let frame = &self.ledger.frames[tape][seq];
            let kept = frame
                .pieces
                .iter()
                .map(piece_bits)
                .all(|(request, ticks)| ticks & !self.blocks[0].get(&request).copied().unwrap_or(0) == 0);
            if !kept {
                self.fail(Check::Unlinked, format!("frame {seq} of {tape} is in no block"));
                return;
            }
        }
    }

    /// A read as a client does it: the tail, then the blocks. What this node covered when it began
    /// must be in one of the two.
    pub fn reader_tick(&mut self, node: usize) {
        let frames = self.readable(node);
        let delay = self.rng.pick(&[0, 1, 20, 300, 2_000]);
        let region = self.nodes[node].region;
        if self.rules.tail_before_blocks {
            if let Some(tail) = self.snapshot(node) {
                self.at_node(delay, node, move |sim| {
                    let blocks = &sim.blocks[region];
                    let wrong = sim.hole(&frames, &tail, blocks);
                    sim.read_checked(node, wrong);
                });
            }
        } else {
            let blocks = self.blocks[region].clone();
            self.at_node(delay, node, move |sim| {
                if let Some(tail) = sim.snapshot(node) {
                    let wrong = sim.hole(&frames, &tail, &blocks);
                    sim.read_checked(node, wrong);
                }
            });
        }
        let next = self.rng.range(200, 1_500);
        self.at_node(next, node, move |sim| sim.reader_tick(node));
    }

    fn read_checked(&mut self, node: usize, wrong: Option<String>) {
        self.counts.reads += 1;
        if let Some(what) = wrong {
            self.fail(Check::Read, format!("a read at node {node} misses {what}"));
        }
    }

    /// Frames that this node covers: those applied last, and some of the acknowledged.
    fn readable(&mut self, node: usize) -> Vec<(TapeId, u64)> {
        let of = &self.nodes[node];
        // What another node of the region has passed by a gap is shown as one, also where this node
        // has it.
        let shown = |(tape, seq): &(TapeId, u64)| !self.in_gap(of.region, *tape, *seq);
        let mut frames: Vec<(TapeId, u64)> = of.log.iter().rev().take(120).copied().filter(shown).collect();
        let acked: Vec<(TapeId, u64)> = self.ledger.acked.iter().copied().collect();
        for _ in 0..40 {
            if acked.is_empty() {
                break;
            }
            let (tape, seq) = self.rng.pick(&acked);
            let covered = self.view(node).follower().own_progress(tape).is_some_and(|own| own.covers(seq));
            if covered && !self.in_gap(self.nodes[node].region, tape, seq) {
                frames.push((tape, seq));
            }
        }
        frames
    }

    fn snapshot(&mut self, node: usize) -> Option<BTreeMap<usize, Bits>> {
        let mut found: BTreeMap<usize, Bits> = BTreeMap::new();
        for symbol in symbols() {
            for kind in KINDS {
                for row in self.view(node).snapshot(Series { symbol, kind }).ok()?.rows() {
                    let (request, tick) = row_bits(row);
                    *found.entry(request).or_default() |= tick;
                }
            }
        }
        Some(found)
    }

    fn hole(
        &self,
        frames: &[(TapeId, u64)],
        tail: &BTreeMap<usize, Bits>,
        blocks: &BTreeMap<usize, Bits>,
    ) -> Option<String> {
        for (tape, seq) in frames {
            for (request, ticks) in self.ledger.frames[tape][seq].pieces.iter().map(piece_bits) {
                let of = |found: &BTreeMap<usize, Bits>| found.get(&request).copied().unwrap_or(0);
                if ticks & !(of(tail) | of(blocks)) != 0 {
                    let acked = self.ledger.acked.contains(&(*tape, *seq));
                    let by: Vec<usize> = (0..self.nodes.len())
                        .filter(|node| self.nodes[*node].applied.contains(&(*tape, *seq)))
                        .collect();
                    return Some(format!(
                        "ticks of request {request} in frame {seq} of {tape} (acknowledged {acked}, applied by {by:?})"
                    ));
                }
            }
        }
        None
    }

    // ---- the end

    pub fn check_end(&mut self) {
        self.check_end_followers();
        if self.knobs.embedded {
            self.check_end_disk();
        }
        self.check_end_clients();
        self.check_end_history();
        for node in self.alive() {
            self.check_fold(node);
        }
        let missing = |gap: &tapeline::tape::GapRow| gap.reason == GapReason::Missing;
        if self.knobs.embedded && self.records.gaps.iter().any(|gaps| !gaps.is_empty()) {
            self.fail(Check::Lost, format!("a gap where one disk has everything: {:?}", self.records.gaps));
        }
        if self.records.gaps.iter().flatten().any(missing) {
            self.fail(Check::Lost, "a gap says that the database lost acknowledged frames".into());
        }
    }

    /// What has been old and in blocks for long is gone: nothing fills the disk for ever.
    fn check_end_disk(&mut self) {
        let sealed = |name: &(TapeId, u64)| self.ledger.sealed_at.get(name).copied().unwrap_or(self.t);
        let long = self.knobs.frame_ttl_ms + 60_000;
        let left = self.replicas.on_disk(0).find(|name| self.t - sealed(name) > long);
        if let Some((tape, seq)) = left {
            let knows = self.nodes.first().and_then(|node| node.view.as_ref());
            let knows = knows.map(|view| view.follower().describe(tape)).unwrap_or_default();
            self.fail(Check::Unlinked, format!("frame {seq} of {tape} is never unlinked: {knows}"));
        }
    }

    fn check_end_followers(&mut self) {
        let mut sets: Vec<(usize, BTreeSet<(TapeId, u64)>)> = Vec::new();
        let mut wrong = Vec::new();
        for (node, of) in self.nodes.iter().enumerate() {
            let Some(view) = &of.view else {
                wrong.push((Check::Follow, format!("node {node} is down at the end")));
                continue;
            };
            let own = |tape: TapeId| view.follower().own_progress(tape);
            let misses = |(tape, seq): &&(TapeId, u64)| match own(*tape) {
                // What has expired is looked for in blocks.
                _ if !self.is_alive_row(*tape) || self.in_gap(of.region, *tape, *seq) => false,
                _ if self.beyond_reach(of.region, *tape, *seq) => false,
                Some(progress) => !progress.covers(*seq),
                None => true,
            };
            let missed: Vec<&(TapeId, u64)> = self.ledger.acked.iter().filter(misses).collect();
            if let Some((tape, seq)) = missed.first() {
                let what = format!("node {node} lacks {} frames, such as {seq} of {tape}", missed.len());
                let what = format!("{what}; it knows {}", view.follower().describe(*tape));
                wrong.push((Check::Follow, what));
            }
            let covered = self.ledger.frames.iter().flat_map(|(tape, frames)| {
                let progress = own(*tape).filter(|_| self.is_alive_row(*tape));
                frames
                    .keys()
                    .map(move |seq| (*tape, *seq))
                    .filter(move |(_, seq)| progress.is_some_and(|progress| progress.covers(*seq)))
            });
            sets.push((node, covered.collect()));
        }
        if let Some((_, first)) = sets.first() {
            for (node, set) in &sets {
                let explained = |(tape, seq): &&(TapeId, u64)| {
                    (0..2).any(|of| self.in_gap(of, *tape, *seq) || self.beyond_reach(of, *tape, *seq))
                };
                let differs = set.symmetric_difference(first).find(|name| !explained(name));
                if let Some((tape, seq)) = differs {
                    let knows = |node: usize| {
                        self.nodes[node]
                            .view
                            .as_ref()
                            .map(|view| view.follower().describe(*tape))
                            .unwrap_or_default()
                    };
                    let copies: Vec<usize> =
                        (0..self.regions()).map(|region| self.replicas.copies(region, *tape, *seq)).collect();
                    wrong.push((
                        Check::Equal,
                        format!(
                            "node {node} and node 0 differ in frame {seq} of {tape} ({copies:?} copies): {} and {}",
                            knows(*node),
                            knows(0)
                        ),
                    ));
                }
            }
        }
        for (check, what) in wrong {
            self.fail(check, what);
        }
    }

    fn check_end_clients(&mut self) {
        let mut beyond: BTreeMap<usize, Bits> = BTreeMap::new();
        for (tape, frames) in self.ledger.frames.iter().filter(|_| self.long_cut.1 > 0) {
            let of = frames.values().filter(|frame| (0..2).any(|of| self.beyond_reach(of, *tape, frame.seq)));
            for (request, ticks) in of.flat_map(|frame| frame.pieces.iter().map(piece_bits)) {
                *beyond.entry(request).or_default() |= ticks;
            }
        }
        for client in 0..self.clients.len() {
            let of = &self.clients[client];
            if of.node.is_none() || of.replaying {
                self.fail(Check::Client, format!("client {client} is not live at the end"));
                continue;
            }
            let missed: Vec<usize> = self
                .ledger
                .acked_requests
                .iter()
                .copied()
                .filter(|request| {
                    let has = |of: &BTreeMap<usize, Bits>| of.get(request).copied().unwrap_or(0);
                    self.ledger.full[*request] & !(has(&of.got) | has(&of.told) | has(&beyond)) != 0
                })
                .collect();
            if let Some(first) = missed.first() {
                let what =
                    format!("client {client} misses ticks of {} requests, such as {first}", missed.len());
                self.fail(Check::Client, what);
            }
        }
    }

    fn check_end_history(&mut self) {
        for region in 0..self.regions() {
            let mut exempt: BTreeMap<usize, Bits> = BTreeMap::new();
            for gap in &self.records.gaps[region] {
                let seqs: RangeInclusive<u64> = gap.first..=gap.last;
                let frames = self
                    .ledger
                    .frames
                    .get(&gap.tape)
                    .into_iter()
                    .flat_map(|frames| frames.range(seqs.clone()));
                for (request, ticks) in frames.flat_map(|(_, frame)| frame.pieces.iter().map(piece_bits)) {
                    *exempt.entry(request).or_default() |= ticks;
                }
            }
            for (tape, frames) in &self.ledger.frames {
                let beyond = frames.values().filter(|frame| self.beyond_reach(region, *tape, frame.seq));
                for (request, ticks) in beyond.flat_map(|frame| frame.pieces.iter().map(piece_bits)) {
                    *exempt.entry(request).or_default() |= ticks;
                }
            }
            let of = |found: &BTreeMap<usize, Bits>, request| found.get(&request).copied().unwrap_or(0);
            let blocks = &self.blocks[region];
            let lost = self.ledger.acked_requests.iter().find(|request| {
                self.ledger.full[**request] & !(of(blocks, **request) | of(&exempt, **request)) != 0
            });
            let strange = blocks.iter().find(|(request, ticks)| **ticks & !self.ledger.full[**request] != 0);
            let of_request = |request: usize| -> Vec<(TapeId, u64)> {
                let frames = self
                    .ledger
                    .frames
                    .iter()
                    .flat_map(|(tape, frames)| frames.values().map(move |f| (*tape, f)));
                let holds =
                    |frame: &Arc<Frame>| frame.pieces.iter().any(|piece| piece_bits(piece).0 == request);
                frames.filter(|(_, frame)| holds(frame)).map(|(tape, frame)| (tape, frame.seq)).collect()
            };
            let lost = lost.map(|request| {
                format!(
                    "region {region} lacks ticks of request {request}, of frames {:?}",
                    of_request(*request)
                )
            });
            let strange = strange
                .map(|(request, _)| format!("region {region} has more of request {request} than was sent"));
            if let Some(what) = lost {
                self.fail(Check::Blocks, what);
            }
            if let Some(what) = strange {
                self.fail(Check::History, what);
            }
        }
    }
}

/// The ticks of a request that belong to a shard.
pub fn shard_bits(request: usize, shard: u8) -> Bits {
    (0..64)
        .filter(|index| shard_of(symbol_of(request, *index), SHARDS) == shard)
        .map(|index| 1 << index)
        .sum()
}
