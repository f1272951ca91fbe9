//! A node: the real writer, view and keeper, and around them what an adapter would do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tapeline::history::keeper::{Keeper, KeeperConfig, KeeperEffect};
use tapeline::market::{RequestKey, Row};
use tapeline::store::{At, Reach, StoreError, TapeId};
use tapeline::tape::{
    Batch, BodyHash, Delivery, Follower, FollowerConfig, FollowerEffect, Frame, RequestConfig, RequestMemory,
    Rollover, Tail, TailConfig, Token, View, Writer, WriterConfig, WriterEffect,
};

use crate::checks::Check;
use crate::fold::Folds;
use crate::schedule;
use crate::world::{Bits, INTAKE_END, Parked, SHARDS, Sim, bits, region_name, region_number, request_key};

pub const TICK_MS: u64 = 50;

pub struct Node {
    pub region: usize,
    pub boot: u64,
    pub up: bool,
    pub paused: bool,
    pub writer_paused: bool,
    pub parked: VecDeque<Parked>,
    pub skew_ms: i64,
    pub mono_offset: u64,
    pub writer: Option<Writer>,
    pub view: Option<View>,
    pub keeper: Option<Keeper>,
    /// Survives a restart only where a rule is broken.
    pub kept_memory: Option<RequestMemory>,
    pub clients: BTreeSet<usize>,
    pub owns: BTreeSet<u8>,
    pub draining: bool,
    pub held_bytes_max: usize,
    /// What the follower of this boot has.
    pub held_limit: usize,
    pub retire_after_ms: u64,
    /// What was applied since the boot, in order.
    pub applied: BTreeSet<(TapeId, u64)>,
    pub log: Vec<(TapeId, u64)>,
    /// Up to where each tape's progress was checked, and the first of it.
    pub checked: BTreeMap<TapeId, u64>,
    pub forgotten: BTreeSet<TapeId>,
    pub folds: Folds,
    tokens: BTreeMap<Token, usize>,
}

impl Node {
    pub fn new(region: usize) -> Self {
        Self {
            region,
            boot: 0,
            up: false,
            paused: false,
            writer_paused: false,
            parked: VecDeque::new(),
            skew_ms: 0,
            mono_offset: 0,
            writer: None,
            view: None,
            keeper: None,
            kept_memory: None,
            clients: BTreeSet::new(),
            owns: BTreeSet::new(),
            draining: false,
            held_bytes_max: 0,
            held_limit: 0,
            retire_after_ms: 0,
            applied: BTreeSet::new(),
            log: Vec::new(),
            checked: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            folds: Folds::new(),
            tokens: BTreeMap::new(),
        }
    }
}

impl Sim {
    pub fn view(&mut self, node: usize) -> &mut View {
        self.nodes[node].view.as_mut().unwrap()
    }

    /// Starts a node from what is durable.
    pub fn boot(&mut self, node: usize) {
        if self.nodes[node].up {
            return;
        }
        self.counts.boots += 1;
        let region = self.nodes[node].region;
        let skew = i64::try_from(self.knobs.skew_ms).unwrap();
        let skew = if skew == 0 {
            0
        } else {
            i64::try_from(self.rng.range(0, 2 * self.knobs.skew_ms)).unwrap() - skew
        };
        let offset = self.rng.range(0, 10_000_000);
        let of = &mut self.nodes[node];
        of.boot += 1;
        (of.up, of.paused, of.writer_paused, of.draining) = (true, false, false, false);
        (of.skew_ms, of.mono_offset) = (skew, offset);
        of.parked.clear();
        of.applied.clear();
        of.log.clear();
        of.checked.clear();
        of.forgotten.clear();
        of.folds.clear();
        of.tokens.clear();
        let now = self.now(node);
        let mut ids = self.rng.fork();
        let config = self.follower_config(node);
        let follower =
            Follower::new(config, Box::new(move || ids.next()), now).with_rules(self.rules.follower);
        let tail_config =
            TailConfig { bytes_max: self.knobs.tail_bytes, keep_ms: self.knobs.tail_keep_ms, shards: SHARDS };
        let tail = Tail::new(tail_config).with_rules(self.rules.tail);
        let memory = RequestConfig { keep_ms: 600_000, bytes_max: self.knobs.memory };
        let mut memory = RequestMemory::new(memory, now.mono).with_rules(self.rules.requests);
        if let Some(kept) = self.nodes[node].kept_memory.take() {
            memory = kept;
        }
        let mut view = View::new(follower, tail, memory, SHARDS).with_rules(self.rules.view);
        let mut lists = Vec::new();
        for of in 0..self.regions() {
            let (version, list) = self.read_list(of, region, false);
            lists.push((region_name(of), version, list));
        }
        // Any older mark is as good (I6), as long as frames live much longer than marks are old.
        let short_lived = self.knobs.frame_ttl_ms < 1_000_000;
        let marks = self.read_marks(region, if short_lived { 0 } else { 2 });
        view.boot(lists, marks, Vec::new(), now);
        let started: Vec<(TapeId, u64)> =
            view.follower().followed().map(|(tape, progress)| (tape, progress.next)).collect();
        started.iter().for_each(|(tape, next)| self.trace(*tape, || format!("node {node} boots at {next}")));
        let writer = self.new_writer(node);
        view.set_own(writer.tape());
        let linger_ms = self.knobs.linger_ms;
        let keeper = KeeperConfig { shards: SHARDS, linger_ms, retry_ms: 300, ..KeeperConfig::default() };
        let keeper = Keeper::new(keeper).with_rules(self.rules.keeper);
        let of = &mut self.nodes[node];
        (of.view, of.writer, of.keeper) = (Some(view), Some(writer), Some(keeper));
        of.checked.extend(started);
        self.at_node(0, node, move |sim| sim.node_tick(node));
        self.at_node(100, node, move |sim| sim.keeper_tick(node));
        self.at_node(300, node, move |sim| sim.reader_tick(node));
        if self.t > INTAKE_END {
            self.drain(node);
        }
        self.pump(node);
    }

    fn follower_config(&mut self, node: usize) -> FollowerConfig {
        let regions = (0..self.regions()).map(region_name).collect();
        let mut config = FollowerConfig::new(region_name(self.nodes[node].region), regions);
        config.silent_ms = self.rng.pick(&[10_000, 10_000, 4_000, self.knobs.silent_ms]);
        config.long_silent_ms = 60_000;
        config.poll_long_silent_ms = 4_000;
        config.retire_after_ms = self.rng.pick(&[15_000, 6_000, self.knobs.silent_ms + 1_000]);
        if self.nodes[node].retire_after_ms > 0 {
            config.retire_after_ms = self.nodes[node].retire_after_ms;
        }
        config.retire_each_ms = 3_000;
        config.held_bytes_max = self.rng.pick(&self.knobs.held.clone());
        if self.nodes[node].held_bytes_max > 0 {
            config.held_bytes_max = self.nodes[node].held_bytes_max - 1;
        }
        self.nodes[node].held_limit = config.held_bytes_max;
        config.held_full_stops = self.knobs.held_full_stops;
        config.void_ms = (5_000, 20_000, 20_000);
        config.missing_ms = 60_000;
        config.frame_ttl_ms = self.knobs.frame_ttl_ms;
        config.ttl_margin_ms = self.knobs.ttl_margin_ms;
        config.read_bytes_max = self.knobs.read_bytes;
        config
    }

    fn new_writer(&mut self, node: usize) -> Writer {
        let mut ids = self.rng.fork();
        let rollover = Rollover {
            stuck_ms: self.knobs.rollover_ms,
            trial_ms: 1_000,
            pause_ms: (500, 8_000),
            tapes_max: 6,
            window_ms: 60_000,
        };
        let config = WriterConfig {
            send_bytes: self.rng.pick(&[1_500, 64 * 1024]),
            frame_bytes_max: self.rng.pick(&[700, 1_500, 4_000]),
            queue_bytes_max: 200_000,
            refresh_ms: self.knobs.row_ttl_ms / 4,
            rollover: (!self.knobs.embedded).then_some(rollover),
            ..WriterConfig::default()
        };
        let name = (format!("node{node}"), String::new());
        let region = region_name(self.nodes[node].region);
        let now = self.now(node);
        Writer::new(region, name, Box::new(move || ids.next()), config, now).with_rules(self.rules.writer)
    }

    pub fn crash(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        let of = &mut self.nodes[node];
        of.up = false;
        of.boot += 1;
        (of.paused, of.writer_paused) = (false, false);
        of.writer = None;
        of.keeper = None;
        if let Some(mut view) = of.view.take()
            && self.rules.memory_survives
        {
            let config = RequestConfig { keep_ms: 600_000, bytes_max: self.knobs.memory };
            let mut memory = RequestMemory::new(config, tapeline::tape::Mono(0));
            std::mem::swap(&mut memory, view.requests_mut());
            of.kept_memory = Some(memory);
        }
        for client in std::mem::take(&mut self.nodes[node].clients) {
            self.drop_client(client, true);
        }
    }

    /// The intake ends for good; the tape is finished.
    pub fn drain(&mut self, node: usize) {
        let now = self.now(node);
        let of = &mut self.nodes[node];
        of.draining = true;
        if let Some(writer) = &mut of.writer {
            writer.drain(now);
        }
    }

    fn node_tick(&mut self, node: usize) {
        self.pump(node);
        self.check_progress(node);
        self.at_node(TICK_MS, node, move |sim| sim.node_tick(node));
    }

    /// Does what the machines ask for.
    pub fn pump(&mut self, node: usize) {
        if !self.nodes[node].writer_paused {
            self.pump_writer(node);
        }
        let now = self.now(node);
        let effects = self.view(node).poll(now);
        for effect in effects {
            self.follow(node, effect);
        }
        for row in self.view(node).take_passed() {
            self.counts.gaps += 1;
            self.tell_gap(node, row.tape, row.first..=row.last);
        }
        for delivery in self.view(node).take_delivered() {
            self.deliver(node, &delivery);
        }
    }

    pub fn pump_writer(&mut self, node: usize) {
        let now = self.now(node);
        let Some(writer) = &mut self.nodes[node].writer else { return };
        let effects = writer.poll(now);
        let tape = writer.tape();
        self.view(node).set_own(tape);
        for effect in effects {
            self.write_effect(node, effect);
        }
    }

    fn write_effect(&mut self, node: usize, effect: WriterEffect) {
        let region = self.nodes[node].region;
        match effect {
            WriterEffect::PutRow { tape, row } => {
                let (delay, back) = (self.rng.range(2, 40), self.rng.range(1, 10));
                let known = self.rng.chance(95);
                self.at_writer(delay, node, move |sim| {
                    sim.put_tape_row(region, tape, row);
                    sim.at_writer(back, node, move |sim| {
                        let now = sim.now(node);
                        if let Some(writer) = &mut sim.nodes[node].writer {
                            let result = if known { Ok(()) } else { Err(StoreError::unknown("no answer")) };
                            writer.row_put(tape, result, now);
                        }
                        sim.pump(node);
                    });
                });
            }
            WriterEffect::Append(frame) => {
                self.note_append(region, &frame);
                let (tape, seq) = (frame.tape, frame.seq);
                self.write(region, frame, move |sim, result| {
                    sim.at_writer(0, node, move |sim| {
                        let now = sim.now(node);
                        if let Some(writer) = &mut sim.nodes[node].writer {
                            writer.appended(tape, seq, result, now);
                        }
                        sim.pump(node);
                    });
                });
            }
            WriterEffect::Abandon(_) => self.counts.rollovers += 1,
            WriterEffect::Acknowledged(frame) => {
                self.note_acknowledged(region, &frame);
                let now = self.now(node);
                self.view(node).accept(Arc::clone(&frame), now);
                self.publish(node, &frame);
            }
            WriterEffect::Answer { token, position } => {
                if let Some(request) = self.nodes[node].tokens.remove(&token) {
                    self.note_answered(node, request, &position);
                }
            }
            WriterEffect::Refuse { token, .. } => {
                if let Some(request) = self.nodes[node].tokens.remove(&token) {
                    self.note_refused(node, request);
                }
            }
            WriterEffect::Drained { clean: true } => self.note_drained(node),
            // The process ends without having finished its tape.
            WriterEffect::Drained { clean: false } => {
                self.at_node(1, node, move |sim| sim.crash_and_boot(node));
            }
        }
    }

    /// The bus of the region may lose, repeat and delay.
    fn publish(&mut self, node: usize, frame: &Arc<Frame>) {
        for other in self.of_region(self.nodes[node].region) {
            if other == node || !self.rng.chance(70) {
                continue;
            }
            for _ in 0..1 + u64::from(self.rng.chance(10)) {
                let delay = if self.rng.chance(5) { 5_000 } else { self.rng.range(1, 20) };
                let frame = Arc::clone(frame);
                self.at(delay, move |sim| {
                    let (of, now) = (&mut sim.nodes[other], frame);
                    if of.up && !of.paused {
                        let at = sim.now(other);
                        sim.view(other).accept(now, at);
                        sim.pump(other);
                    }
                });
            }
        }
    }

    fn follow(&mut self, node: usize, effect: FollowerEffect) {
        let region = self.nodes[node].region;
        match effect {
            FollowerEffect::Read { id, tape, seqs, bytes_max, at } => {
                let of = match at {
                    At::Here => region,
                    At::Home => self.ledger.home.get(&tape).copied().unwrap_or(region),
                };
                let ask = if of == region { self.rng.range(1, 5) } else { self.rng.range(30, 120) };
                let back = if of == region { self.rng.range(1, 5) } else { self.rng.range(30, 120) };
                self.at_node(ask, node, move |sim| {
                    let answer = sim.read(of, region, tape, &seqs, bytes_max);
                    sim.at_node(back, node, move |sim| {
                        let now = sim.now(node);
                        sim.view(node).read_done(id, answer, now);
                        sim.pump(node);
                    });
                });
            }
            FollowerEffect::WriteBack { frame, reach } => self.write_back(node, frame, reach),
            FollowerEffect::PutGap(row) => {
                let (delay, known) = (self.rng.range(5, 200), self.rng.chance(80));
                self.at_node(delay, node, move |sim| {
                    sim.trace(row.tape, || format!("gap at {region}: {row:?}"));
                    sim.records.gaps[region].push(row);
                    let now = sim.now(node);
                    sim.view(node).gap_put(&row, known, now);
                    sim.pump(node);
                });
            }
            FollowerEffect::ScanTapes(of) => {
                let delay = self.rng.range(2, 30);
                self.at_node(delay, node, move |sim| {
                    let rows = sim.scan_tapes(region_number(of), region);
                    let (now, answer) = (sim.now(node), sim.rng.chance(97).then_some(rows));
                    sim.view(node).tapes_scanned(of, answer, now);
                    sim.pump(node);
                });
            }
            FollowerEffect::ReadList(of) => {
                let delay = self.rng.range(2, 30);
                self.at_node(delay, node, move |sim| {
                    let list = sim.read_list(region_number(of), region, false);
                    let (now, answer) = (sim.now(node), sim.rng.chance(97).then_some(list));
                    sim.view(node).list_read(of, answer, now);
                    sim.pump(node);
                });
            }
            FollowerEffect::PutList { list, expected } => {
                let (delay, known) = (self.rng.range(3, 60), self.rng.chance(90));
                self.at_node(delay, node, move |sim| {
                    let written = sim.put_list(region, list, expected);
                    let now = sim.now(node);
                    sim.view(node).list_put(known.then_some(written), now);
                    sim.pump(node);
                });
            }
            FollowerEffect::Forgot(tape) => self.note_forgot(node, tape),
        }
    }

    /// Everything that this boot's writer took is answered when its tape is finished.
    fn note_drained(&mut self, node: usize) {
        let left = self.nodes[node].tokens.values().next().copied();
        if let Some(request) = left {
            self.fail(
                Check::Answered,
                format!("request {request} is taken by node {node} and never answered"),
            );
        }
    }

    fn write_back(&mut self, node: usize, frame: Arc<Frame>, reach: Reach) {
        let region = self.nodes[node].region;
        let to = match reach {
            Reach::Home => self.ledger.home.get(&frame.tape).copied().unwrap_or(region),
            Reach::Region | Reach::All => region,
        };
        let (tape, seq) = (frame.tape, frame.seq);
        let answer = move |sim: &mut Self, durable: bool| {
            sim.at_node(0, node, move |sim| {
                let now = sim.now(node);
                sim.view(node).wrote_back(tape, seq, durable, now);
            });
        };
        if self.cut && to != region {
            self.at(1_000, move |sim| answer(sim, false));
        } else {
            self.write(to, frame, move |sim, result| answer(sim, result.is_ok()));
        }
    }

    fn deliver(&mut self, node: usize, delivery: &Delivery) {
        self.note_applied(node, &delivery.frame);
        let clients: Vec<usize> = self.nodes[node].clients.iter().copied().collect();
        for client in clients {
            self.give_from_hub(client, delivery);
        }
    }

    /// A producer's request arrives.
    pub fn offer(&mut self, node: usize, request: usize) {
        self.tokens += 1;
        let token = Token(self.tokens);
        let atomic = request % 17 == 3;
        let lines = request % 11 == 5;
        let rows = schedule::rows_of(request, self.ledger.full[request]);
        let body = if lines { BodyHash::LINES } else { BodyHash([1; 16]) };
        let key: RequestKey = request_key(request);
        let batch = Batch { token, request: key, body, backfill: false, atomic, rows };
        if self.view(node).requests().is_reused(key, body) {
            self.fail(Check::Receipts, format!("request {request} counts as another body"));
        }
        let Some(writer) = &mut self.nodes[node].writer else { return };
        if writer.offer(batch).is_ok() {
            self.nodes[node].tokens.insert(token, request);
        }
        if !self.nodes[node].writer_paused {
            self.pump(node);
        }
    }

    /// Reads the marks, keeps the own shards, reads back what was shed.
    fn keeper_tick(&mut self, node: usize) {
        let region = self.nodes[node].region;
        let now = self.now(node);
        for (shard, mark) in self.read_marks(region, 0) {
            self.view(node).mark_read(shard, mark, now);
        }
        let of = &mut self.nodes[node];
        let owned: Vec<u8> = of.owns.iter().copied().collect();
        if let (Some(keeper), Some(view)) = (&mut of.keeper, &of.view) {
            let effects = keeper.tick(view, &owned, false, now);
            self.keep(node, effects);
        }
        self.read_shed(node);
        if self.knobs.embedded {
            self.unlink(node);
        }
        let delay = self.rng.range(300, 1_500);
        self.at_node(delay, node, move |sim| sim.keeper_tick(node));
    }

    fn read_shed(&mut self, node: usize) {
        let region = self.nodes[node].region;
        let Some((tape, seqs)) = self.view(node).wanted() else { return };
        self.counts.catching_up += 1;
        self.at_node(5, node, move |sim| {
            let home = sim.ledger.home.get(&tape).copied().unwrap_or(region);
            let bytes_max = sim.knobs.read_bytes;
            let mut frames = sim.read(region, region, tape, &seqs, bytes_max).unwrap_or_default();
            frames.extend(sim.read(home, region, tape, &seqs, bytes_max).unwrap_or_default());
            let now = sim.now(node);
            let found = !frames.is_empty();
            for frame in frames {
                sim.view(node).restore(frame, now);
            }
            if found {
                sim.read_shed(node);
            }
        });
    }

    /// The embedded store unlinks what is old and released.
    fn unlink(&mut self, node: usize) {
        let ttl = self.knobs.frame_ttl_ms;
        let old: Vec<(TapeId, u64)> = self
            .replicas
            .on_disk(0)
            .filter(|name| self.t - self.ledger.sealed_at.get(name).copied().unwrap_or(self.t) > ttl)
            .collect();
        let view = self.nodes[node].view.as_ref().unwrap();
        let gone: Vec<(TapeId, u64)> =
            old.into_iter().filter(|(tape, seq)| view.is_released(*tape, &[*seq])).collect();
        gone.iter().for_each(|(tape, seq)| self.trace(*tape, || format!("node {node} unlinks {seq}")));
        self.check_unlinked(&gone);
        self.replicas.unlink(0, &gone);
    }

    fn keep(&mut self, node: usize, effects: Vec<KeeperEffect>) {
        let region = self.nodes[node].region;
        for effect in effects {
            match effect {
                KeeperEffect::PutBlocks { shard, put, buckets, .. } => {
                    let (delay, known) = (self.rng.range(5, 300), self.rng.chance(95));
                    let rows: Vec<(usize, Bits)> = buckets
                        .iter()
                        .flat_map(|(_, blocks)| blocks)
                        .flat_map(|block| &block.rows)
                        .map(row_bits)
                        .collect();
                    self.at_node(delay, node, move |sim| {
                        for (request, ticks) in rows {
                            *sim.blocks[region].entry(request).or_default() |= ticks;
                        }
                        sim.keeper_answer(node, move |keeper, now| keeper.blocks_put(shard, put, known, now));
                    });
                }
                KeeperEffect::PutMark { shard, mark } => {
                    // An old mark may land after a newer one of another owner.
                    let delay = self.rng.pick(&[2, 50, 2_000]);
                    let (known, written) = (self.rng.chance(95), self.t);
                    let boot = self.nodes[node].boot;
                    self.at(delay, move |sim| {
                        // On one disk nothing lands after the process that wrote it.
                        let killed = sim.nodes[node].boot != boot || !sim.nodes[node].up;
                        if sim.knobs.embedded && killed {
                            return;
                        }
                        sim.put_mark(region, shard, mark.clone(), written);
                        sim.check_mark(region, shard, &mark.position);
                        sim.at_node(1, node, move |sim| {
                            if known {
                                let now = sim.now(node);
                                sim.view(node).mark_read(shard, mark, now);
                            }
                            sim.keeper_answer(node, move |keeper, now| keeper.mark_put(shard, known, now));
                        });
                    });
                }
            }
        }
    }

    fn keeper_answer(
        &mut self,
        node: usize,
        answer: impl FnOnce(&mut Keeper, tapeline::tape::Now) -> Vec<KeeperEffect>,
    ) {
        let now = self.now(node);
        let Some(keeper) = &mut self.nodes[node].keeper else { return };
        let effects = answer(keeper, now);
        self.keep(node, effects);
    }
}

pub fn row_bits(row: &Row) -> (usize, Bits) {
    (crate::world::request_of(row.origin.request), bits(row.origin.index, 1))
}
