//! What happens: random faults, and schedules written for what chance finds seldom.

use tapeline::market::RequestKey;
use tapeline::market::{Event, Kind, Nanos, Origin, Price, Quote, Row, Symbol, Tick, Trade};

use tapeline::store::TapeId;

use crate::mutants::Rules;
use crate::node::Node;
use crate::rng::Rng;
use crate::store::REPLICAS;
use crate::world::{Bits, CLIENTS, END, INTAKE_END, Knobs, QUIET, SHARDS, Sim, WALL, bits};

const BIG: usize = 1 << 40;
/// The simulated ticks are trades and quotes.
pub const KINDS: [Kind; 2] = [Kind::Trade, Kind::Quote];

/// A schedule on top of the random one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Nothing but chance.
    Plain,
    /// A node sleeps while new tapes begin and its neighbour writes marks; clients are attached to it.
    WakesLate,
    /// A node restarts while its region cannot be read, and a client with an old cursor comes at once.
    BlindBoot,
    /// A retired list is slow to the other region; a retired writer wakes; a client goes there.
    SlowList,
    /// One node with memory for held frames, the others with none, and several writers die.
    NoMemory,
    /// Writes of which the other region gets nothing are common, and several writers die.
    Lossy,
    /// The same, and the other region never sees the retired list, which would tell of the end.
    Unlisted,
    /// A writer dies, then every node restarts before the tape counts as silent.
    Storm,
    /// A region is cut off for longer than frames live; tapes and retired entries expire.
    Expiry,
    /// A retired list is lost and begun again.
    LostList,
    /// One node, one disk that fails and recovers; tapes are unlinked.
    Embedded,
    /// Every node keeps every shard.
    TwoKeepers,
    /// The tail's budget is short: it sheds and reads back.
    ShortTail,
    /// Wall clocks are far apart and step, and whole nodes pause for long.
    Clocks,
}

impl Scenario {
    const ALL: [Self; 14] = [
        Self::Plain,
        Self::WakesLate,
        Self::BlindBoot,
        Self::SlowList,
        Self::NoMemory,
        Self::Lossy,
        Self::Unlisted,
        Self::Storm,
        Self::Expiry,
        Self::LostList,
        Self::Embedded,
        Self::TwoKeepers,
        Self::ShortTail,
        Self::Clocks,
    ];

    /// By its name, such as `WakesLate`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| format!("{scenario:?}") == name)
    }
}

/// What chance chooses from.
const DRAWN: [Scenario; 13] = [
    Scenario::Plain,
    Scenario::Plain,
    Scenario::WakesLate,
    Scenario::BlindBoot,
    Scenario::SlowList,
    Scenario::NoMemory,
    Scenario::Lossy,
    Scenario::Unlisted,
    Scenario::Storm,
    Scenario::Expiry,
    Scenario::LostList,
    Scenario::TwoKeepers,
    Scenario::ShortTail,
];

fn draw(rng: &mut Rng) -> Scenario {
    match rng.range(0, 9) {
        0 => Scenario::Embedded,
        1 => Scenario::Clocks,
        _ => rng.pick(&DRAWN),
    }
}

fn knobs(rng: &mut Rng, scenario: Scenario) -> Knobs {
    let memory = rng.pick(&[BIG, BIG, BIG, 1_500, 8_000]);
    let mut knobs = Knobs {
        embedded: false,
        rollover_ms: rng.pick(&[2_000, 4_000, 6_000]),
        memory,
        big_memory: memory == BIG,
        held: vec![6_000, 6_000, 1_500, 0, BIG],
        held_full_stops: rng.chance(50),
        lost: rng.pick(&[0, 3, 30]),
        slow_list_ms: 0,
        silent_ms: rng.pick(&[10_000, 10_000, 300]),
        frame_ttl_ms: 48 * 3_600_000,
        ttl_margin_ms: 3_600_000,
        row_ttl_ms: 96 * 3_600_000,
        skew_ms: rng.pick(&[0, 2_000, 600_000]),
        read_bytes: rng.pick(&[2_000, 20_000, 4 << 20]),
        tail_bytes: BIG,
        tail_keep_ms: rng.pick(&[0, 3_000, 20_000]),
        linger_ms: rng.pick(&[500, 2_000, 4_000]),
    };
    match scenario {
        Scenario::SlowList => knobs.slow_list_ms = 30_000,
        Scenario::NoMemory => knobs.held = vec![0],
        Scenario::Storm => (knobs.silent_ms, knobs.linger_ms) = (10_000, 500),
        Scenario::Lossy => knobs.lost = 70,
        Scenario::Unlisted => (knobs.lost, knobs.slow_list_ms) = (70, 400_000),
        Scenario::Expiry => {
            (knobs.frame_ttl_ms, knobs.ttl_margin_ms, knobs.row_ttl_ms) = (60_000, 8_000, 130_000);
            knobs.skew_ms = 2_000;
            knobs.silent_ms = 4_000;
        }
        Scenario::Embedded => {
            knobs.embedded = true;
            (knobs.frame_ttl_ms, knobs.row_ttl_ms) = (rng.pick(&[5_000, 20_000]), 96 * 3_600_000);
        }
        Scenario::ShortTail => knobs.tail_bytes = rng.pick(&[60_000, 150_000]),
        Scenario::Clocks => knobs.skew_ms = 600_000,
        _ => {}
    }
    knobs
}

pub fn symbols() -> [Symbol; 6] {
    ["AAA", "BBB", "CCC", "DD", "EE.A", "F"].map(|text| Symbol::parse(text.as_bytes()).unwrap())
}

pub fn symbol_of(request: usize, index: u32) -> Symbol {
    symbols()[(request + index as usize) % 6]
}

/// The ticks of a request.
pub fn rows_of(request: usize, ticks: Bits) -> Vec<Row> {
    let indexes = (0..64_u32).filter(|index| ticks & bits(*index, 1) != 0);
    let row = |index: u32| {
        let number = request as u64 * 64 + u64::from(index);
        let size = u32::try_from(number % 900 + 1).unwrap();
        let event = if index % 5 == 4 {
            Event::Quote(Quote { ask_price: Price(5), ask_size: size, ..Quote::default() })
        } else {
            let id = (!number.is_multiple_of(3)).then_some(number);
            Event::Trade(Trade { id, price: Price(1_000_000_000), size, ..Trade::default() })
        };
        let time = Nanos(WALL + i64::try_from(number).unwrap());
        let origin = Origin { received: Nanos(0), index, request: RequestKey::default() };
        Row { tick: Tick { symbol: symbol_of(request, index), time, event }, origin }
    };
    indexes.map(row).collect()
}

/// One run. Returns the world as it ended: at its end, or at the first failed check.
pub fn run(seed: u64, scenario: Option<Scenario>, rules: Rules, trace: Option<TapeId>) -> (Scenario, Sim) {
    let mut rng = Rng::new(seed ^ 0x7a9e_11ce);
    let drawn = draw(&mut rng);
    let scenario = scenario.unwrap_or(drawn);
    let knobs = knobs(&mut rng, scenario);
    let mut sim = Sim::new(seed, knobs, rules);
    sim.trace = trace;
    let regions: &[usize] = if sim.knobs.embedded { &[0] } else { &[0, 0, 1, 1] };
    for region in regions {
        sim.nodes.push(Node::new(*region));
    }
    for node in 0..sim.nodes.len() {
        sim.boot(node);
    }
    for _ in 0..CLIENTS {
        sim.new_client();
    }
    sim.faults(scenario);
    sim.direct(scenario);
    sim.run(INTAKE_END);
    for node in 0..sim.nodes.len() {
        if sim.nodes[node].up {
            sim.drain(node);
        }
    }
    sim.run(QUIET);
    sim.cut = false;
    sim.disk_bad = false;
    for up in &mut sim.replicas.up {
        *up = [true; REPLICAS];
    }
    sim.run(END);
    if sim.failures.is_empty() {
        sim.check_end();
    }
    (scenario, sim)
}

impl Sim {
    pub fn crash_and_boot(&mut self, node: usize) {
        if self.nodes[node].up {
            self.crash(node);
            let delay = self.rng.pick(&[300, 3_000, 20_000]);
            self.at(delay, move |sim| sim.boot(node));
        }
    }

    /// SIGTERM: the tape is finished, then the node ends.
    fn stop(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        self.drain(node);
        let boot = self.nodes[node].boot;
        let delay = self.rng.range(2_000, 8_000);
        self.at(delay, move |sim| {
            if sim.nodes[node].boot == boot {
                sim.crash_and_boot(node);
            }
        });
    }

    fn pause(&mut self, node: usize, whole: bool, length: u64) {
        let of = &mut self.nodes[node];
        if !of.up {
            return;
        }
        of.writer_paused = true;
        of.paused |= whole;
        let boot = of.boot;
        self.at(length, move |sim| {
            if sim.nodes[node].boot == boot {
                sim.nodes[node].paused = false;
                sim.nodes[node].writer_paused = false;
                sim.unpark(node);
            }
        });
    }

    fn some_node(&mut self) -> usize {
        self.rng.index(self.nodes.len())
    }

    /// Random faults, producers, owners of shards, clients that are cut.
    fn faults(&mut self, scenario: Scenario) {
        let longest = if scenario == Scenario::Clocks { 40_000 } else { 60_000 };
        for _ in 0..self.rng.range(2, 7) {
            let (node, at, kind) = (self.some_node(), self.rng.range(1_000, 40_000), self.rng.range(0, 99));
            let (whole, length) = (self.rng.chance(40), self.rng.range(1_000, longest));
            self.at(at, move |sim| match kind {
                0..40 => sim.crash_and_boot(node),
                40..50 => sim.stop(node),
                _ => sim.pause(node, whole, length),
            });
        }
        for _ in 0..self.rng.range(0, 3) {
            let (node, at) = (self.some_node(), self.rng.range(40_000, 110_000));
            self.at(at, move |sim| sim.crash_and_boot(node));
        }
        if self.knobs.skew_ms > 0 {
            for _ in 0..self.rng.range(0, 4) {
                let (node, at) = (self.some_node(), self.rng.range(1_000, 110_000));
                let step = i64::try_from(self.rng.range(0, 2 * self.knobs.skew_ms)).unwrap();
                let most = i64::try_from(self.knobs.skew_ms).unwrap();
                self.at(at, move |sim| sim.nodes[node].skew_ms = step - most);
            }
        }
        self.store_faults();
        for client in 0..CLIENTS - 1 {
            // The last client is cut only by crashes.
            for _ in 0..self.rng.range(1, 4) {
                let most = self.rng.pick(&[40_000, QUIET]);
                let at = self.rng.range(1_000, most);
                self.at(at, move |sim| sim.drop_client(client, false));
            }
        }
        self.owners(scenario == Scenario::TwoKeepers);
        let mut at = 0;
        while at < INTAKE_END {
            at += self.rng.range(20, 260);
            let request = self.ledger.full.len();
            let ticks = bits(0, u32::try_from(self.rng.range(1, 20)).unwrap());
            // Some ticks of a body are refused: positions have holes.
            let refused = if self.rng.chance(15) { 1 << self.rng.range(0, 19) } else { 0 };
            self.ledger.full.push(if ticks & !refused == 0 { ticks } else { ticks & !refused });
            self.at(at, move |sim| sim.post(request, 3));
        }
    }

    fn store_faults(&mut self) {
        if self.knobs.embedded {
            for _ in 0..self.rng.range(0, 3) {
                let (at, length) = (self.rng.range(1_000, 40_000), self.rng.range(100, 12_000));
                self.at(at, |sim| sim.disk_bad = true);
                self.at(at + length, |sim| sim.disk_bad = false);
            }
            return;
        }
        for _ in 0..self.rng.range(0, 3) {
            let (region, replica) = (self.rng.index(2), self.rng.index(REPLICAS));
            let (at, length) = (self.rng.range(1_000, 40_000), self.rng.range(1_000, 20_000));
            self.at(at, move |sim| sim.replicas.up[region][replica] = false);
            self.at(at + length, move |sim| sim.replicas.up[region][replica] = true);
        }
        if self.rng.chance(40) {
            let (at, length) = (self.rng.range(1_000, 40_000), self.rng.range(2_000, 30_000));
            self.at(at, |sim| sim.cut = true);
            self.at(at + length, |sim| sim.cut = false);
        }
    }

    /// Shards change hands, and have two owners for a while.
    fn owners(&mut self, all: bool) {
        for region in 0..self.regions() {
            let mine = self.of_region(region);
            for shard in 0..SHARDS {
                if all {
                    for node in mine.iter().copied() {
                        self.nodes[node].owns.insert(shard);
                    }
                    continue;
                }
                let mut times = vec![0];
                for _ in 0..self.rng.range(0, 5) {
                    times.push(self.rng.range(1_000, 110_000));
                }
                for at in times {
                    let mine = mine.clone();
                    self.at(at, move |sim| sim.move_shard(shard, &mine));
                }
                let last = mine[0];
                self.at(QUIET, move |sim| {
                    sim.nodes[last].owns.insert(shard);
                });
            }
        }
    }

    fn move_shard(&mut self, shard: u8, mine: &[usize]) {
        let node = self.rng.pick(mine);
        self.nodes[node].owns.insert(shard);
        for other in mine.iter().copied().filter(|other| *other != node) {
            let delay = self.rng.pick(&[0, 4_000, 15_000]);
            self.at(delay, move |sim| {
                if sim.nodes[node].owns.contains(&shard) {
                    sim.nodes[other].owns.remove(&shard);
                }
            });
        }
    }

    /// A producer: the whole request to any node; again, perhaps elsewhere, when no answer came.
    fn post(&mut self, request: usize, tries: u32) {
        let takes = |node: &usize| self.nodes[*node].up && !self.nodes[*node].draining;
        let up: Vec<usize> = (0..self.nodes.len()).filter(takes).collect();
        if !up.is_empty() {
            let node = self.rng.pick(&up);
            if self.nodes[node].paused {
                self.at_node(0, node, move |sim| sim.offer(node, request));
            } else {
                self.offer(node, request);
            }
        }
        self.at(4_000, move |sim| {
            let answer_lost = sim.rng.chance(3);
            if tries > 0 && (!sim.ledger.acked_requests.contains(&request) || answer_lost) {
                sim.post(request, tries - 1);
            }
        });
    }

    /// The schedules that are written for something.
    fn direct(&mut self, scenario: Scenario) {
        let at = self.rng.range(12_000, 30_000);
        let region = self.rng.index(self.regions());
        let mut mine = self.of_region(region);
        self.rng.shuffle(&mut mine);
        let far: Vec<usize> = (0..self.nodes.len()).filter(|node| !mine.contains(node)).collect();
        let (a, b) = (mine[0], *mine.last().unwrap());
        match scenario {
            Scenario::WakesLate => self.wakes_late(at, a, b, far),
            Scenario::BlindBoot => self.blind_boot(at, region, b),
            Scenario::SlowList => self.slow_list(at, a, b, far),
            Scenario::NoMemory => {
                for node in 0..self.nodes.len() {
                    self.nodes[node].held_bytes_max = if node == a { BIG } else { 1 };
                }
                self.crashes(at, move |node| node != a);
            }
            Scenario::Lossy | Scenario::Unlisted => self.crashes(at, |_| true),
            Scenario::Storm => {
                // The last frames are on no replica of their home, and marks elsewhere cover them.
                self.at(at - 1_500, |sim| sim.far_only = 80);
                self.at(at, move |sim| {
                    sim.crash_and_boot(a);
                    sim.far_only = 0;
                });
                let delay = self.rng.range(2_500, 4_000);
                for node in (0..self.nodes.len()).filter(|node| *node != a) {
                    self.at(at + delay, move |sim| sim.crash_and_boot(node));
                }
            }
            Scenario::Expiry => {
                let at = self.rng.range(8_000, 20_000);
                let heals = self.rng.range(85_000, 110_000);
                for later in (at..heals).step_by(1_000) {
                    self.at(later, |sim| sim.cut = true);
                }
                self.at(heals, |sim| sim.cut = false);
                self.long_cut = (at, heals);
                self.at(heals / 2, move |sim| sim.crash_and_boot(a));
            }
            Scenario::LostList => {
                for node in 0..self.nodes.len() {
                    self.nodes[node].retire_after_ms = 3_000;
                }
                self.crashes(at, |_| true);
                let when = self.rng.range(at, 100_000);
                self.at(when, move |sim| sim.lose_list(region));
            }
            Scenario::Embedded => {
                let mut when = at - 8_000;
                for _ in 0..self.rng.range(1, 4) {
                    self.at(when, move |sim| sim.crash_and_boot(a));
                    when += self.rng.range(3_000, 15_000);
                }
            }
            Scenario::Plain | Scenario::TwoKeepers | Scenario::ShortTail | Scenario::Clocks => {}
        }
    }

    /// Eight crashes, two seconds apart.
    fn crashes(&mut self, at: u64, may: impl Fn(usize) -> bool + Copy + 'static) {
        for number in 0..8 {
            self.at(at - 8_000 + 2_000 * number, move |sim| {
                let nodes: Vec<usize> = (0..sim.nodes.len()).filter(|node| may(*node)).collect();
                let node = sim.rng.pick(&nodes);
                sim.crash_and_boot(node);
            });
        }
    }

    fn wakes_late(&mut self, at: u64, a: usize, b: usize, far: Vec<usize>) {
        self.at(at - 3_000, move |sim| {
            for shard in 0..SHARDS {
                sim.nodes[a].owns.insert(shard);
                sim.nodes[b].owns.remove(&shard);
            }
        });
        self.at(at - 2_000, move |sim| (0..3).for_each(|client| sim.send_client(client, b, 0)));
        self.at(at, move |sim| {
            let length = sim.rng.range(12_000, 20_000);
            sim.pause(b, true, length);
        });
        self.at(at + 300, move |sim| {
            let node = sim.rng.pick(&far);
            sim.crash_and_boot(node);
        });
    }

    fn blind_boot(&mut self, at: u64, region: usize, b: usize) {
        self.at(at - 4_000, move |sim| (0..3).for_each(|client| sim.send_client(client, b, 4_500)));
        self.at(at, move |sim| {
            if !sim.nodes[b].up {
                return;
            }
            sim.crash(b);
            sim.at(400, move |sim| sim.boot(b));
            for replica in 0..2 {
                sim.replicas.up[region][replica] = false;
                sim.at(4_000, move |sim| sim.replicas.up[region][replica] = true);
            }
        });
    }

    fn slow_list(&mut self, at: u64, a: usize, b: usize, far: Vec<usize>) {
        for node in [a, b] {
            self.nodes[node].retire_after_ms = 3_000;
        }
        let length = self.rng.range(9_000, 14_000);
        self.at(at, move |sim| sim.pause(a, false, length));
        self.at(at + length - 3_000, move |sim| (0..3).for_each(|client| sim.send_client(client, b, 0)));
        self.at(at + length - 300, move |sim| {
            for client in 0..3 {
                let node = sim.rng.pick(&far);
                sim.send_client(client, node, 6_000);
            }
        });
    }
}
