use super::*;
use crate::tape::fixtures::{at, frame, region};
use crate::tape::{Position, Progress, TapeRow, WaitToken};

fn follower() -> Follower {
    let config = FollowerConfig::new(region("b"), vec![region("a"), region("b")]);
    let mut id = 0;
    let ids = move || {
        id += 1;
        id
    };
    Follower::new(config, Box::new(ids), at(0))
}

fn applied(follower: &mut Follower) -> Vec<u64> {
    follower.take_applied().iter().map(|frame| frame.seq).collect()
}

/// The reads among the effects.
fn reads(effects: &[FollowerEffect]) -> Vec<(ReadId, RangeInclusive<u64>, At)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            FollowerEffect::Read { id, seqs, at, .. } => Some((*id, seqs.clone(), *at)),
            _ => None,
        })
        .collect()
}

/// Polls at a time and answers every read from these frames, here and at home.
fn serve(follower: &mut Follower, ms: u64, here: &[Arc<Frame>], home: &[Arc<Frame>]) -> Vec<FollowerEffect> {
    let effects = follower.poll(at(ms));
    for (id, seqs, place) in reads(&effects) {
        let from = if place == At::Here { here } else { home };
        let answer = from.iter().filter(|frame| seqs.contains(&frame.seq)).cloned().collect();
        follower.read_done(id, Some(answer), at(ms));
    }
    effects
}

#[test]
fn the_dense_prefix_is_applied_in_order_and_once() {
    let mut follower = follower();
    for seq in [1, 3, 2, 2, 5, 4, 1] {
        follower.accept(frame(9, seq, 0, &[]), at(1));
    }
    assert_eq!(applied(&mut follower), [1, 2, 3, 4, 5]);
    assert!(follower.covers(&WaitToken([(TapeId(9), 5)].into())));
    assert!(!follower.covers(&WaitToken([(TapeId(9), 6)].into())));
}

#[test]
fn a_hole_is_fetched_from_home() {
    let mut follower = follower();
    let (first, second, third) = (frame(9, 1, 0, &[]), frame(9, 2, 1, &[]), frame(9, 3, 2, &[]));
    follower.accept(Arc::clone(&first), at(0));
    follower.accept(Arc::clone(&third), at(0));
    let mut asked_home = false;
    for ms in (0..1_000).step_by(50) {
        let effects =
            serve(&mut follower, ms, &[first.clone(), third.clone()], std::slice::from_ref(&second));
        asked_home |= reads(&effects).iter().any(|(_, seqs, place)| *place == At::Home && *seqs == (2..=3));
    }
    assert!(asked_home);
    assert_eq!(applied(&mut follower), [1, 2, 3]);
}

#[test]
fn an_acknowledged_hole_is_never_a_void() {
    let mut follower = follower();
    follower.accept(frame(9, 1, 0, &[]), at(0));
    follower.accept(frame(9, 3, 2, &[]), at(0));
    for ms in (0..50_000).step_by(100) {
        serve(&mut follower, ms, &[], &[]);
    }
    assert_eq!(follower.own_progress(TapeId(9)), Some(&Progress::at(2)));
}

#[test]
fn an_unacknowledged_hole_of_a_dead_tape_is_a_void_and_may_still_come() {
    let mut follower = follower();
    follower.accept(frame(9, 1, 0, &[]), at(0));
    follower.accept(frame(9, 3, 1, &[]), at(0));
    for ms in (0..9_000).step_by(100) {
        serve(&mut follower, ms, &[], &[]);
    }
    assert_eq!(follower.own_progress(TapeId(9)), Some(&Progress::at(2)), "the writer may be alive");
    for ms in (9_000..14_000).step_by(100) {
        serve(&mut follower, ms, &[], &[]);
    }
    assert_eq!(follower.own_progress(TapeId(9)), Some(&Progress { next: 4, voids: [2].into() }));
    assert_eq!(follower.position().tapes[&TapeId(9)].voids, [2].into());
    assert_eq!(applied(&mut follower), [1, 3]);
    let late = frame(9, 2, 1, &[]);
    for ms in (14_000..20_000).step_by(100) {
        serve(&mut follower, ms, std::slice::from_ref(&late), &[]);
    }
    assert_eq!(applied(&mut follower), [2]);
    assert_eq!(follower.own_progress(TapeId(9)), Some(&Progress::at(4)));
}

#[test]
fn unconfirmed_frames_of_a_dead_tape_are_written_back_at_home_until_it_is_known() {
    let mut follower = follower();
    follower.accept(frame(9, 1, 0, &[]), at(0));
    follower.accept(frame(9, 2, 1, &[]), at(0));
    let mut written = Vec::new();
    for ms in (0..20_000).step_by(100) {
        for effect in serve(&mut follower, ms, &[], &[]) {
            if let FollowerEffect::WriteBack { frame, reach } = effect {
                assert_eq!(reach, Reach::Home);
                written.push((ms, frame.seq));
                follower.wrote_back(TapeId(9), frame.seq, written.len() > 1, at(ms));
            }
        }
    }
    assert_eq!(written.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), [2, 2], "1 is acknowledged");
    assert!(written[0].0 > 10_000);
}

#[test]
fn a_restart_reads_what_may_be_unconfirmed_though_answers_are_short() {
    let mut follower = follower();
    let mark = Position { tapes: [(TapeId(9), Progress::at(21))].into(), ..Position::default() };
    follower.boot(Vec::new(), &[mark], at(0));
    let mut written = Vec::new();
    for ms in (0..20_000).step_by(100) {
        let effects = follower.poll(at(ms));
        for effect in &effects {
            if let FollowerEffect::WriteBack { frame, .. } = effect {
                written.push(frame.seq);
            }
        }
        for (id, seqs, _) in reads(&effects) {
            // One frame an answer: the store's least.
            let answer = seqs.filter(|seq| *seq <= 20).take(1).map(|seq| frame(9, seq, seq.min(18) - 1, &[]));
            follower.read_done(id, Some(answer.collect()), at(ms));
        }
    }
    assert_eq!(written, [18, 19, 20]);
}

#[test]
fn expired_frames_become_a_gap_whose_row_comes_first() {
    let mut follower = follower();
    let hours = 3_600_000;
    let row = TapeRow { low: 7, ..TapeRow::default() };
    let written = at(0).wall;
    let mut gaps = Vec::new();
    for ms in (60 * hours..60 * hours + 5_000).step_by(100) {
        for effect in serve(&mut follower, ms, &[], &[]) {
            match effect {
                FollowerEffect::ScanTapes(of) => {
                    let rows = vec![ScannedTape { tape: TapeId(9), row: row.clone(), written }];
                    follower.tapes_scanned(of, (of == region("a")).then_some(rows), at(ms));
                }
                FollowerEffect::PutGap(gap) => {
                    assert_eq!(follower.own_progress(TapeId(9)), Some(&Progress::at(1)));
                    gaps.push((gap.first, gap.last));
                    follower.gap_put(&gap, gaps.len() > 1, at(ms));
                }
                _ => {}
            }
        }
    }
    assert_eq!(gaps, [(1, 7), (1, 7)], "put again until it is durable");
    assert_eq!(follower.own_progress(TapeId(9)), Some(&Progress::at(8)));
}

#[test]
fn held_frames_are_bounded_and_read_again() {
    let mut config = FollowerConfig::new(region("b"), vec![region("a"), region("b")]);
    let all: Vec<Arc<Frame>> = (1..=9).map(|seq| frame(9, seq, seq - 1, &["AAPL"])).collect();
    config.held_bytes_max = 3 * all[0].memory();
    let mut follower = Follower::new(config, Box::new(|| 1), at(0));
    for one in &all[1..] {
        follower.accept(one.clone(), at(0));
    }
    assert!(follower.status(at(0).mono).held_bytes <= 3 * all[0].memory());
    for ms in (0..2_000).step_by(100) {
        serve(&mut follower, ms, &all, &all);
    }
    assert_eq!(applied(&mut follower), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_retired_tape_is_left_out_only_where_it_equals_its_entry() {
    let mut follower = follower();
    for seq in 1..=3 {
        follower.accept(frame(9, seq, seq - 1, &[]), at(0));
    }
    let list = RetiredList { id: 5, ..RetiredList::default() };
    let list = list.with(TapeId(9), Progress::at(4)).with(TapeId(8), Progress::at(2));
    follower.list_read(region("a"), Some((2, list)), at(1));
    let position = follower.position();
    assert_eq!(position.seen[&region("a")].k, 2);
    assert_eq!(position.tapes, [(TapeId(8), Progress::at(1))].into(), "heard of through the list alone");
    assert_eq!(follower.progress(&position, TapeId(9)), Progress::at(4));
    follower.accept(frame(9, 4, 3, &[]), at(2));
    assert_eq!(follower.position().tapes[&TapeId(9)], Progress::at(5), "a late frame names it again");
}

#[test]
fn a_tape_that_ends_while_it_cannot_be_read_waits_for_nothing() {
    let mut follower = follower();
    let last = Frame { fin: true, ..Frame::clone(&frame(9, 3, 2, &[])) };
    follower.accept(frame(9, 1, 0, &[]), at(0));
    follower.accept(Arc::new(last), at(0));
    let why = |follower: &Follower, ms| follower.standings(Mono(ms))[0].why();
    let fail = |follower: &mut Follower, ms| {
        for (id, _, _) in reads(&follower.poll(at(ms))) {
            follower.read_done(id, None, at(ms));
        }
    };
    fail(&mut follower, 10);
    assert!(why(&follower, 20).unwrap().contains("the store does not answer"));
    assert_eq!(follower.status(Mono(20)).holes, 1);
    // What is missing comes by another way, so that nothing is left to read.
    follower.accept(frame(9, 2, 1, &[]), at(30));
    fail(&mut follower, 10_000);
    assert_eq!(why(&follower, 10_000), None);
    assert_eq!(follower.status(Mono(10_000)).holes, 0);
}

#[test]
fn silent_tapes_of_the_own_region_are_retired_together() {
    let config = FollowerConfig::new(region("a"), vec![region("a")]);
    let mut follower = Follower::new(config, Box::new(|| 77), at(0));
    follower.set_own(TapeId(1));
    follower.accept(frame(8, 1, 0, &[]), at(0));
    follower.accept(frame(9, 1, 0, &[]), at(0));
    let (mut version, mut stored) = (0, RetiredList::default());
    for ms in (0..700_000).step_by(500) {
        for effect in serve(&mut follower, ms, &[], &[]) {
            match effect {
                FollowerEffect::ScanTapes(of) => {
                    let row = |tape| ScannedTape { tape, row: TapeRow::default(), written: at(ms).wall };
                    follower.tapes_scanned(of, Some(vec![row(TapeId(8)), row(TapeId(9))]), at(ms));
                }
                FollowerEffect::ReadList(of) => {
                    follower.list_read(of, Some((version, stored.clone())), at(ms));
                }
                FollowerEffect::PutList { list, expected } => {
                    assert_eq!(expected, version);
                    (version, stored) = (expected + 1, list);
                    follower.list_put(Some(true), at(ms));
                }
                _ => {}
            }
        }
    }
    assert_eq!((stored.id, stored.k, version), (77, 2, 1));
    assert!(follower.position().tapes.is_empty());
}

#[test]
fn boot_starts_at_what_every_mark_covers() {
    let mut follower = follower();
    let mark = |next| Position { tapes: [(TapeId(9), Progress::at(next))].into(), ..Position::default() };
    follower.boot(Vec::new(), &[mark(7), mark(4), mark(9)], at(0));
    assert_eq!(follower.own_progress(TapeId(9)), Some(&Progress::at(4)));
}

#[test]
fn an_expired_tape_is_retired_neither_first_nor_again() {
    let config = FollowerConfig::new(region("a"), vec![region("a")]);
    let mut follower = Follower::new(config, Box::new(|| 77), at(0));
    follower.set_own(TapeId(1));
    follower.accept(frame(8, 1, 0, &[]), at(0));
    follower.accept(frame(9, 1, 0, &[]), at(0));
    // 8 was retired and its entry dropped by a node that has forgotten it; the row of 9 has expired.
    let with = RetiredList { id: 77, ..RetiredList::default() }.with(TapeId(8), Progress::at(2));
    let without = with.without(|_| true);
    follower.list_read(region("a"), Some((1, with)), at(0));
    let mut put = 0;
    for ms in (500..700_000).step_by(500) {
        for effect in serve(&mut follower, ms, &[], &[]) {
            match effect {
                FollowerEffect::ScanTapes(of) => {
                    let row = ScannedTape { tape: TapeId(8), row: TapeRow::default(), written: at(ms).wall };
                    follower.tapes_scanned(of, Some(vec![row]), at(ms));
                }
                FollowerEffect::ReadList(of) => {
                    follower.list_read(of, Some((2, without.clone())), at(ms));
                }
                FollowerEffect::PutList { .. } => put += 1,
                _ => {}
            }
        }
    }
    assert_eq!(put, 0);
    let named: Vec<TapeId> = follower.position().tapes.into_keys().collect();
    assert_eq!(named, [TapeId(8), TapeId(9)], "a Position names both for as long as they are followed");
}
