//! Clients: each follows everything from the start, is cut, and resumes anywhere with its cursor.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use tapeline::store::{At, TapeId};
use tapeline::tape::{Delivery, Position, RequestConfig, Resume, ResumeConfig, ResumeStep};

use crate::checks::Check;
use crate::world::{Bits, QUIET, Sim, piece_bits};

#[derive(Default)]
pub struct Client {
    pub got: BTreeMap<usize, Bits>,
    /// Ticks that the client was told it will not get.
    pub told: BTreeMap<usize, Bits>,
    pub cursor: Position,
    pub node: Option<usize>,
    pub session: u64,
    pub resume: Option<Resume>,
    pub replaying: bool,
    pub resumes: u64,
    goto: Option<usize>,
    hold_until: u64,
}

impl Sim {
    pub fn new_client(&mut self) {
        let client = self.clients.len();
        self.clients.push(Client::default());
        let node = self.rng.index(self.nodes.len());
        self.attach(client, node);
        let delay = self.rng.range(0, 500);
        self.at(delay, move |sim| sim.cursor_tick(client));
    }

    fn give(&mut self, client: usize, request: usize, ticks: Bits) {
        let of = &mut self.clients[client];
        let got = of.got.entry(request).or_default();
        let twice = *got & ticks;
        *got |= ticks;
        if twice != 0 {
            self.counts.duplicates += u64::from(twice.count_ones());
            if of.resumes == 0 && self.knobs.big_memory {
                self.fail(Check::Once, format!("client {client} got a tick of request {request} twice"));
            }
        }
    }

    pub fn give_from_hub(&mut self, client: usize, delivery: &Delivery) {
        let of = &mut self.clients[client];
        let Some(resume) = &of.resume else { return };
        if !resume.admits(&delivery.frame) {
            self.counts.filtered += 1;
            return;
        }
        // Who replays has not joined: it will want this too.
        if !of.replaying {
            for (request, ticks) in delivery.new.iter().map(piece_bits) {
                self.give(client, request, ticks);
            }
        }
    }

    pub fn attach(&mut self, client: usize, node: usize) {
        self.check_cursor(client);
        let region = self.nodes[node].region;
        let cursor = self.clients[client].cursor.clone();
        let now = self.now(node);
        // A Position from who has seen more of a list: read it at home; where home does not answer
        // the Position stays safe.
        for of in self.view(node).follower().behind(&cursor) {
            let number = crate::world::region_number(of);
            if (number == region || !self.cut) && self.rng.chance(60) {
                let list = self.read_list(number, region, true);
                self.view(node).list_read(of, Some(list), now);
            }
        }
        let memory = RequestConfig { keep_ms: 600_000, bytes_max: self.knobs.memory };
        let config = ResumeConfig { read_seqs_max: 20, missing_ms: 20_000, requests: memory };
        let rules = self.rules.resume;
        let resume = Resume::new(self.view(node).follower(), cursor, config, now.mono).with_rules(rules);
        let of = &mut self.clients[client];
        of.node = Some(node);
        of.session += 1;
        of.resume = Some(resume);
        of.replaying = true;
        let session = of.session;
        self.nodes[node].clients.insert(client);
        self.replay(client, session);
    }

    /// One step of a replay after the other, until nothing is lacking.
    fn replay(&mut self, client: usize, session: u64) {
        let of = &self.clients[client];
        let Some(node) = of.node.filter(|_| of.session == session) else { return };
        let now = self.now(node);
        let region = self.nodes[node].region;
        let Some(mut resume) = self.clients[client].resume.take() else { return };
        if self.rules.replay_uses_node_memory {
            resume.swap_memory(self.view(node).requests_mut());
        }
        let step = resume.step(self.view(node).tail(), now.mono);
        if self.rules.replay_uses_node_memory {
            resume.swap_memory(self.view(node).requests_mut());
        }
        self.clients[client].resume = Some(resume);
        match step {
            ResumeStep::Deliver(delivery) => {
                for (request, ticks) in delivery.new.iter().map(piece_bits) {
                    self.give(client, request, ticks);
                }
                let delay = u64::from(self.rng.chance(10)) * self.rng.range(5, 60);
                self.at_node(delay, node, move |sim| sim.replay(client, session));
            }
            ResumeStep::Read { tape, seqs, at } => {
                let of = match at {
                    At::Here => region,
                    At::Home => self.ledger.home.get(&tape).copied().unwrap_or(region),
                };
                let delay = self.rng.range(5, 60);
                let bytes_max = self.knobs.read_bytes;
                self.at_node(delay, node, move |sim| {
                    let answer = sim.read(of, region, tape, &seqs, bytes_max);
                    sim.replayed(client, session, answer);
                });
            }
            ResumeStep::Gap { tape, seqs } => {
                self.tell(client, tape, seqs);
                self.at_node(0, node, move |sim| sim.replay(client, session));
            }
            ResumeStep::Wait(until) => {
                let delay = until.since(now.mono).max(1);
                self.at_node(delay, node, move |sim| sim.replay(client, session));
            }
            ResumeStep::Done => {
                let Some(mut resume) = self.clients[client].resume.take() else { return };
                let lacking = resume.extend(self.view(node).follower(), now.mono);
                self.clients[client].resume = Some(resume);
                if lacking > 0 {
                    let delay = self.rng.range(0, 20);
                    self.at_node(delay, node, move |sim| sim.replay(client, session));
                } else {
                    self.clients[client].replaying = false;
                    self.move_cursor(client);
                }
            }
        }
        if self.clients[client].replaying && self.rng.chance(20) {
            self.keep_partial_cursor(client);
        }
        if !self.rules.resume.cursor_waits {
            self.move_cursor(client);
        }
    }

    fn replayed(
        &mut self,
        client: usize,
        session: u64,
        answer: Option<Vec<std::sync::Arc<tapeline::tape::Frame>>>,
    ) {
        let of = &mut self.clients[client];
        let Some(node) = of.node.filter(|_| of.session == session) else { return };
        let Some(mut resume) = of.resume.take() else { return };
        let now = self.now(node);
        if self.rules.replay_uses_node_memory {
            resume.swap_memory(self.view(node).requests_mut());
        }
        let delivered = resume.answered(answer, now.mono);
        if self.rules.replay_uses_node_memory {
            resume.swap_memory(self.view(node).requests_mut());
        }
        self.clients[client].resume = Some(resume);
        for delivery in delivered {
            for (request, ticks) in delivery.new.iter().map(piece_bits) {
                self.give(client, request, ticks);
            }
        }
        let delay = self.rng.range(0, 20);
        self.at_node(delay, node, move |sim| sim.replay(client, session));
    }

    /// A cursor in the middle of a replay.
    fn keep_partial_cursor(&mut self, client: usize) {
        let of = &mut self.clients[client];
        let Some(node) = of.node else { return };
        let (Some(resume), Some(view)) = (&of.resume, &self.nodes[node].view) else { return };
        of.cursor = resume.partial_cursor(view.follower(), None);
    }

    fn move_cursor(&mut self, client: usize) {
        let of = &mut self.clients[client];
        let Some(node) = of.node else { return };
        let (Some(resume), Some(view)) = (&mut of.resume, &self.nodes[node].view) else { return };
        of.cursor = resume.cursor(view.follower());
        let named = of.cursor.tapes.len();
        self.counts.longest = self.counts.longest.max(named);
    }

    fn cursor_tick(&mut self, client: usize) {
        let of = &self.clients[client];
        if let Some(node) = of.node.filter(|node| !of.replaying && !self.nodes[*node].paused) {
            debug_assert!(self.nodes[node].up);
            self.move_cursor(client);
        }
        let delay = self.rng.pick(&[200, 500, 2_000]);
        self.at(delay, move |sim| sim.cursor_tick(client));
    }

    /// A connection ends; the client comes again somewhere.
    pub fn drop_client(&mut self, client: usize, node_gone: bool) {
        let of = &self.clients[client];
        let Some(node) = of.node else { return };
        if !of.replaying && !node_gone && self.rng.chance(50) {
            self.move_cursor(client);
        }
        self.nodes[node].clients.remove(&client);
        let of = &mut self.clients[client];
        of.node = None;
        of.session += 1;
        of.resume = None;
        let delay = if of.goto.is_some() { 10 } else { self.rng.pick(&[10, 500, 3_000, 15_000]) };
        self.at(delay, move |sim| sim.come_again(client));
    }

    fn come_again(&mut self, client: usize) {
        let alive = self.alive();
        let of = &mut self.clients[client];
        if of.node.is_some() {
            return;
        }
        if alive.is_empty() || of.hold_until > self.t {
            self.at(300, move |sim| sim.come_again(client));
            return;
        }
        of.resumes += 1;
        self.counts.resumes += 1;
        let goto = of.goto.take().filter(|node| alive.contains(node));
        let node = goto.unwrap_or_else(|| self.rng.pick(&alive));
        self.attach(client, node);
        if self.t < QUIET && self.rng.chance(25) {
            // Cut again, perhaps in the middle of the replay.
            let delay = self.rng.range(0, 400);
            self.at(delay, move |sim| sim.drop_client(client, false));
        }
    }

    pub fn send_client(&mut self, client: usize, node: usize, hold_ms: u64) {
        let of = &mut self.clients[client];
        of.goto = Some(node);
        of.hold_until = self.t + hold_ms;
        self.drop_client(client, false);
    }

    /// An explicit gap.
    fn tell(&mut self, client: usize, tape: TapeId, seqs: RangeInclusive<u64>) {
        let frames = self.ledger.frames.get(&tape).into_iter().flat_map(|frames| frames.range(seqs.clone()));
        let ticks: Vec<(usize, Bits)> =
            frames.flat_map(|(_, frame)| frame.pieces.iter().map(piece_bits)).collect();
        for (request, ticks) in ticks {
            *self.clients[client].told.entry(request).or_default() |= ticks;
        }
    }

    pub fn tell_gap(&mut self, node: usize, tape: TapeId, seqs: RangeInclusive<u64>) {
        let clients: Vec<usize> = self.nodes[node].clients.iter().copied().collect();
        for client in clients {
            self.tell(client, tape, seqs.clone());
        }
    }
}
