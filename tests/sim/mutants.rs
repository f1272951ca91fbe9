//! The rules that runs obey, and the mutants: each breaks one and must be found.

use tapeline::history::keeper::KeeperRules;
use tapeline::tape::{FollowerRules, RequestRules, ResumeRules, TailRules, ViewRules, WriterRules};

use crate::schedule::Scenario;

/// All rules, those of the machines and those of who drives them.
#[derive(Clone, Copy)]
pub struct Rules {
    pub writer: WriterRules,
    pub follower: FollowerRules,
    pub tail: TailRules,
    pub requests: RequestRules,
    pub view: ViewRules,
    pub resume: ResumeRules,
    pub keeper: KeeperRules,
    pub fold: tapeline::bars::Rules,
    /// The memory of requests does not survive a restart.
    pub memory_survives: bool,
    /// A replay has a memory of its own.
    pub replay_uses_node_memory: bool,
    /// Readers take the tail, then the blocks.
    pub tail_before_blocks: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            writer: WriterRules::default(),
            follower: FollowerRules::default(),
            tail: TailRules::default(),
            requests: RequestRules::default(),
            view: ViewRules::default(),
            resume: ResumeRules::default(),
            keeper: KeeperRules::default(),
            fold: tapeline::bars::Rules::default(),
            memory_survives: false,
            replay_uses_node_memory: false,
            tail_before_blocks: true,
        }
    }
}

/// A broken rule.
pub struct Mutant {
    pub name: &'static str,
    pub what: &'static str,
    pub break_it: fn(&mut Rules),
    /// The schedule that finds it soonest.
    pub scenario: Option<Scenario>,
    /// Whether it must be found; one is harmless by design.
    pub must_fail: bool,
}

const fn mutant(
    name: &'static str,
    what: &'static str,
    scenario: Option<Scenario>,
    break_it: fn(&mut Rules),
) -> Mutant {
    Mutant { name, what, break_it, scenario, must_fail: true }
}

/// All mutants.
pub fn mutants() -> Vec<Mutant> {
    let mut all = follower_mutants();
    all.extend(client_mutants());
    all.extend(writer_mutants());
    all.extend(history_mutants());
    all
}

fn follower_mutants() -> Vec<Mutant> {
    use Scenario::{Expiry, Lossy, NoMemory, SlowList, Storm, Unlisted, WakesLate};
    vec![
        mutant("skip", "a hole is passed without a void", None, |rules| rules.follower.void_holes = false),
        mutant("no_voids", "Positions without voids", None, |rules| rules.follower.voids_travel = false),
        mutant("no_writeback", "no write-back", None, |rules| rules.follower.write_back = false),
        mutant("no_recover", "unconfirmed frames are forgotten by a restart", Some(Storm), |rules| {
            rules.follower.recover = false;
        }),
        mutant("no_tail_ask", "a dead tape's end is never asked for at home", Some(Unlisted), |rules| {
            rules.follower.ask_home = false;
        }),
        mutant("back_here", "write-back here, not at home", Some(Lossy), |rules| {
            rules.follower.write_back_home = false;
        }),
        mutant("retire_any", "a retired tape is left out though it differs", None, |rules| {
            rules.follower.retired_equal = false;
        }),
        mutant("retire_nok", "an absent tape is retired whatever the Position has seen", None, |rules| {
            rules.follower.retired_within_k = false;
        }),
        mutant("retire_unknown", "a retired tape that was never heard of is left out", None, |rules| {
            rules.follower.retired_followed = false;
        }),
        mutant("retire_start", "a tape first heard of through the list starts at its entry", None, |rules| {
            rules.follower.retired_from_start = false;
        }),
        mutant("retire_behind", "who is behind takes absent tapes as covered", Some(SlowList), |rules| {
            rules.follower.behind_is_unknown = false;
        }),
        mutant("held_drop_advance", "a forgotten frame counts as passed", Some(NoMemory), |rules| {
            rules.follower.forgotten_is_unseen = false;
        }),
        mutant("held_top", "top forgets forgotten frames", Some(NoMemory), |rules| {
            rules.follower.top_remembers = false;
        }),
        mutant("heard_reread", "reading a forgotten frame again counts as life", Some(NoMemory), |rules| {
            rules.follower.life_is_new = false;
        }),
        mutant("mark_one", "a restart starts from one shard's mark", None, |rules| {
            rules.follower.every_mark = false;
        }),
        mutant("mark_max", "a restart starts at the furthest mark", None, |rules| {
            rules.follower.meet_of_marks = false;
        }),
        mutant("start_live", "a tape found late starts at the marks of now", Some(WakesLate), |rules| {
            rules.follower.late_from_start = false;
        }),
        mutant("gap_unwritten", "a gap is passed without its row", Some(Expiry), |rules| {
            rules.follower.gap_row_first = false;
        }),
    ]
}

fn client_mutants() -> Vec<Mutant> {
    let mut no_filter =
        mutant("no_filter", "no filter of what a cursor covers: copies only", None, |rules| {
            rules.resume.filter = false;
        });
    no_filter.must_fail = false;
    vec![
        mutant("seen_whole", "delivery knows requests, not their ticks", None, |rules| {
            rules.requests.by_position = false;
        }),
        mutant("seen_tape", "delivery knows requests by tape", None, |rules| {
            rules.requests.across_tapes = false;
        }),
        mutant("replay_seen", "a replay uses the node's memory", None, |rules| {
            rules.replay_uses_node_memory = true;
        }),
        mutant("seen_kept", "the memory survives a restart", Some(Scenario::BlindBoot), |rules| {
            rules.memory_survives = true;
        }),
        mutant("cursor_early", "the cursor moves while the replay runs", None, |rules| {
            rules.resume.cursor_waits = false;
        }),
        mutant("joins_early", "a client joins without what came while it replayed", None, |rules| {
            rules.resume.catches_up = false;
        }),
        mutant(
            "partial_whole",
            "a cursor in the middle of a replay covers what is still wanted",
            None,
            |rules| {
                rules.resume.partial_waits = false;
            },
        ),
        no_filter,
    ]
}

fn writer_mutants() -> Vec<Mutant> {
    vec![
        mutant("ack_early", "acknowledged before durable", None, |rules| rules.writer.durable_first = false),
        mutant("ack_any_order", "acknowledged out of order", None, |rules| rules.writer.in_order = false),
        mutant("not_verbatim", "a repeated append has other bytes", None, |rules| {
            rules.writer.verbatim = false;
        }),
        mutant("no_window", "any number of unacknowledged frames", None, |rules| rules.writer.window = false),
        mutant("no_carry", "a new tape does not carry what was unacknowledged", None, |rules| {
            rules.writer.carry = false;
        }),
        mutant("row_late", "frame 1 before the registry row", None, |rules| rules.writer.row_first = false),
    ]
}

fn history_mutants() -> Vec<Mutant> {
    use Scenario::{Embedded, ShortTail};
    vec![
        mutant("mark_first", "the mark before its blocks", None, |rules| rules.keeper.blocks_first = false),
        mutant("takeover_skip", "a new owner writes only what came since", None, |rules| {
            rules.keeper.whole_tail = false;
        }),
        mutant("blocks_before_tail", "readers take blocks, then the tail", None, |rules| {
            rules.tail_before_blocks = false;
        }),
        mutant("trim_early", "the tail is trimmed before marks cover it", None, |rules| {
            rules.tail.trim_by_marks = false;
        }),
        mutant("mark_passes_shed", "a mark passes what the tail has shed", Some(ShortTail), |rules| {
            rules.tail.limit_marks = false;
        }),
        mutant("fold_twice", "a fold counts one id twice", None, |rules| rules.fold.one_tick_an_id = false),
        mutant("unlink_early", "a tape is unlinked before every mark covers it", Some(Embedded), |rules| {
            rules.view.release_by_every_mark = false;
        }),
        mutant("void_holds_back", "no frame after a void is ever unlinked", Some(Embedded), |rules| {
            rules.view.release_past_voids = false;
        }),
    ]
}
