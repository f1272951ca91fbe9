use super::*;
use crate::market::Nanos;
use crate::tape::fixtures::{at, region, row};

fn writer(config: WriterConfig) -> Writer {
    let mut id = 0;
    let ids = move || {
        id += 1;
        id
    };
    Writer::new(region("a"), ("node".into(), String::new()), Box::new(ids), config, at(0))
}

/// A writer whose registry row is durable.
fn open(config: WriterConfig) -> Writer {
    let mut writer = writer(config);
    assert!(matches!(writer.poll(at(0))[..], [WriterEffect::PutRow { .. }]));
    writer.row_put(writer.tape(), Ok(()), at(1));
    writer
}

fn batch(token: u64, rows: u32) -> Batch {
    Batch {
        token: Token(token),
        request: RequestKey([u8::try_from(token).unwrap(); 16]),
        body: BodyHash([1; 16]),
        backfill: false,
        atomic: false,
        rows: (0..rows).map(|index| row("AAPL", index)).collect(),
    }
}

fn appends(effects: &[WriterEffect]) -> Vec<Arc<Frame>> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            WriterEffect::Append(frame) => Some(Arc::clone(frame)),
            _ => None,
        })
        .collect()
}

fn answers(effects: &[WriterEffect]) -> Vec<(u64, Vec<u64>)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            WriterEffect::Answer { token, position } => {
                Some((token.0, position.0.values().copied().collect()))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn no_frame_before_the_row_is_durable() {
    let mut writer = writer(WriterConfig::default());
    writer.offer(batch(1, 3)).unwrap();
    assert!(appends(&writer.poll(at(0))).is_empty());
    writer.row_put(writer.tape(), Err(StoreError::refused("the disk is full")), at(1));
    let effects = writer.poll(at(2));
    assert!(appends(&effects).is_empty());
    let refused = |effect: &WriterEffect| matches!(effect, WriterEffect::Refuse { refusal: Refusal::Stopped(why), .. } if why == "the disk is full");
    assert!(effects.iter().any(refused), "on one disk it has nowhere to go: {effects:?}");
    assert_eq!(writer.offer(batch(2, 3)), Err(Refusal::Stopped("the disk is full".into())));
    assert!(writer.due() > at(2).mono, "nothing is to be done before the row is put again");
    let effects = writer.poll(at(1_000));
    assert!(matches!(effects[..], [WriterEffect::PutRow { .. }]), "the row is put again: {effects:?}");
    writer.row_put(writer.tape(), Ok(()), at(1_001));
    assert_eq!(appends(&writer.poll(at(1_001))).len(), 1);
}

#[test]
fn requests_share_frames_and_are_answered_in_the_order_of_seqs() {
    let mut writer = open(WriterConfig { eager_below: 1, ..WriterConfig::default() });
    for token in 1..=3 {
        writer.offer(batch(token, 4)).unwrap();
    }
    let first = appends(&writer.poll(at(1)));
    assert_eq!((first.len(), first[0].rows.len(), first[0].pieces.len()), (1, 12, 3));
    writer.offer(batch(4, 1)).unwrap();
    assert!(writer.poll(at(2)).is_empty(), "one is in flight, and little waits");
    writer.appended(writer.tape(), 1, Ok(()), at(3));
    let effects = writer.poll(at(3));
    assert_eq!(answers(&effects), [(1, vec![1]), (2, vec![1]), (3, vec![1])]);
    assert!(matches!(effects[0], WriterEffect::Acknowledged(_)), "the follower has it before the answer");
    assert_eq!(appends(&effects)[0].low, 1);
}

#[test]
fn a_later_frame_waits_for_the_one_before() {
    let mut writer = open(WriterConfig::default());
    writer.offer(batch(1, 1)).unwrap();
    let tape = writer.tape();
    assert_eq!(appends(&writer.poll(at(1))).len(), 1);
    writer.offer(batch(2, 1)).unwrap();
    assert_eq!(appends(&writer.poll(at(2))).len(), 1);
    writer.appended(tape, 2, Ok(()), at(3));
    assert!(answers(&writer.poll(at(3))).is_empty());
    writer.appended(tape, 1, Ok(()), at(4));
    assert_eq!(answers(&writer.poll(at(4))), [(1, vec![1]), (2, vec![2])]);
}

#[test]
fn a_large_request_is_split_and_holes_in_positions_make_pieces() {
    let mut writer = open(WriterConfig { frame_bytes_max: 1_000, ..WriterConfig::default() });
    let mut large = batch(1, 40);
    large.rows.remove(5);
    writer.offer(large).unwrap();
    let mut frames = appends(&writer.poll(at(1)));
    for seq in 1..20 {
        writer.appended(writer.tape(), seq, Ok(()), at(seq + 1));
        let effects = writer.poll(at(seq + 1));
        frames.extend(appends(&effects));
        if !answers(&effects).is_empty() {
            assert_eq!(answers(&effects), [(1, vec![seq])]);
            break;
        }
    }
    let pieces: Vec<(u32, u32)> =
        frames.iter().flat_map(|frame| &frame.pieces).map(|piece| (piece.first, piece.count)).collect();
    assert_eq!(pieces[0], (0, 5));
    assert_eq!(pieces[1].0, 6);
    assert_eq!(pieces.iter().map(|piece| piece.1).sum::<u32>(), 39);
    assert!(frames.iter().all(|frame| frame.encode().len() <= 1_000 && frame.rows.len() < 20));
}

#[test]
fn no_more_than_eight_frames_are_unacknowledged() {
    let mut writer = open(WriterConfig { frame_bytes_max: 1_000, send_bytes: 1, ..WriterConfig::default() });
    writer.offer(batch(1, 200)).unwrap();
    assert_eq!(appends(&writer.poll(at(1))).len(), 8);
    writer.appended(writer.tape(), 8, Ok(()), at(2));
    assert_eq!(appends(&writer.poll(at(2))).len(), 0, "durable out of order is not acknowledged");
    writer.appended(writer.tape(), 1, Ok(()), at(3));
    assert_eq!(appends(&writer.poll(at(3))).len(), 1);
}

#[test]
fn a_full_queue_and_a_large_atomic_request_are_refused_before_anything_is_taken() {
    let config = WriterConfig { queue_bytes_max: 5_000, frame_bytes_max: 4_000, ..WriterConfig::default() };
    let mut writer = writer(config);
    let atomic = Batch { atomic: true, ..batch(1, 100) };
    assert!(matches!(writer.offer(atomic), Err(Refusal::TooLarge { .. })));
    writer.offer(batch(2, 40)).unwrap();
    assert!(matches!(writer.offer(batch(3, 40)), Err(Refusal::Full { .. })));
    let before = writer.queued_bytes();
    assert!(writer.offer(batch(4, 40)).is_err());
    assert_eq!(writer.queued_bytes(), before);
}

#[test]
fn an_atomic_request_is_one_frame() {
    let mut writer = open(WriterConfig { frame_bytes_max: 4_000, ..WriterConfig::default() });
    writer.offer(batch(1, 30)).unwrap();
    writer.offer(Batch { atomic: true, ..batch(2, 30) }).unwrap();
    let frames = appends(&writer.poll(at(1)));
    let holding = frames.iter().filter(|frame| frame.pieces.iter().any(|piece| piece.request.0[0] == 2));
    assert_eq!(holding.map(|frame| frame.rows.len()).collect::<Vec<_>>(), [30]);
}

#[test]
fn a_failing_disk_stops_the_intake_and_the_same_bytes_are_written_again() {
    let mut writer = open(WriterConfig { eager_below: 1, ..WriterConfig::default() });
    writer.offer(batch(1, 2)).unwrap();
    let first = appends(&writer.poll(at(1)));
    writer.offer(batch(2, 2)).unwrap();
    writer.appended(writer.tape(), 1, Err(StoreError::refused("disk /data is full")), at(2));
    let effects = writer.poll(at(2));
    assert!(
        matches!(&effects[..], [WriterEffect::Refuse { token: Token(2), refusal: Refusal::Stopped(detail) }] if detail.contains("/data")),
        "what was not begun is refused: {effects:?}"
    );
    assert!(matches!(writer.offer(batch(3, 1)), Err(Refusal::Stopped(_))));
    let again = appends(&writer.poll(at(60)));
    assert_eq!(again, first, "verbatim");
    writer.appended(writer.tape(), 1, Ok(()), at(61));
    assert_eq!(answers(&writer.poll(at(61))), [(1, vec![1])]);
    assert_eq!(writer.stopped(), None);
    writer.offer(batch(4, 1)).unwrap();
}

#[test]
fn an_idle_writer_confirms_its_last_frame() {
    let mut writer = open(WriterConfig::default());
    let tape = writer.tape();
    let mut seen = Vec::new();
    for ms in (1..3_500).step_by(100) {
        for frame in appends(&writer.poll(at(ms))) {
            seen.push((frame.seq, frame.low, frame.rows.len()));
            writer.appended(tape, frame.seq, Ok(()), at(ms));
        }
    }
    assert_eq!(seen, [(1, 0, 0), (2, 1, 0), (3, 2, 0), (4, 3, 0)]);
}

#[test]
fn a_stuck_writer_goes_to_a_new_tape_and_carries_what_was_unacknowledged() {
    let mut writer = open(WriterConfig { rollover: Some(Rollover::default()), ..WriterConfig::default() });
    let old = writer.tape();
    writer.offer(batch(1, 3)).unwrap();
    assert_eq!(appends(&writer.poll(at(1))).len(), 1);
    let effects = writer.poll(at(2_100));
    let new = effects.iter().find_map(|effect| match effect {
        WriterEffect::PutRow { tape, row } if *tape != old => Some((*tape, row.closes)),
        _ => None,
    });
    assert_eq!(new.map(|(_, closes)| closes), Some(None), "the trial names nothing yet");
    let (new, _) = new.unwrap();
    writer.row_put(new, Ok(()), at(2_110));
    let trial = appends(&writer.poll(at(2_110)));
    assert!(trial.iter().any(|frame| frame.tape == new && frame.seq == 1 && frame.rows.is_empty()));
    writer.appended(new, 1, Ok(()), at(2_120));
    let effects = writer.poll(at(2_120));
    assert_eq!(writer.tape(), new);
    let closes = effects.iter().find_map(|effect| match effect {
        WriterEffect::PutRow { row, .. } => row.closes,
        _ => None,
    });
    assert_eq!(closes, Some((old, 0)));
    let carried = appends(&effects);
    assert_eq!((carried.len(), carried[0].rows.len(), carried[0].pieces[0].count), (1, 3, 3));
    writer.appended(old, 1, Ok(()), at(2_125));
    assert!(answers(&writer.poll(at(2_125))).is_empty(), "the old tape is left as it was known");
    writer.appended(new, 2, Ok(()), at(2_130));
    assert_eq!(answers(&writer.poll(at(2_130))), [(1, vec![2])]);
}

#[test]
fn a_trial_that_is_too_slow_is_forgotten() {
    let mut writer = open(WriterConfig { rollover: Some(Rollover::default()), ..WriterConfig::default() });
    let old = writer.tape();
    writer.offer(batch(1, 3)).unwrap();
    writer.poll(at(1));
    writer.poll(at(2_100));
    let effects = writer.poll(at(3_200));
    assert!(effects.iter().any(|effect| matches!(effect, WriterEffect::Abandon(tape) if *tape != old)));
    assert_eq!(writer.tape(), old);
    writer.appended(old, 1, Ok(()), at(3_300));
    assert_eq!(answers(&writer.poll(at(3_300))), [(1, vec![1])]);
}

#[test]
fn a_drain_answers_everything_and_finishes_the_tape() {
    let mut writer = open(WriterConfig::default());
    let tape = writer.tape();
    writer.offer(batch(1, 3)).unwrap();
    writer.drain(at(1));
    assert_eq!(writer.offer(batch(2, 1)), Err(Refusal::Draining));
    let mut fin = None;
    let mut drained = None;
    for ms in 2..40 {
        for effect in writer.poll(at(ms)) {
            match effect {
                WriterEffect::Append(frame) => {
                    if frame.fin {
                        fin = Some((frame.seq, frame.low));
                    }
                    writer.appended(tape, frame.seq, Ok(()), at(ms));
                }
                WriterEffect::PutRow { tape, row } => {
                    if let Some(seq) = row.fin {
                        assert_eq!(Some((seq, seq - 1)), fin, "the row tells of the last frame, after it");
                    }
                    writer.row_put(tape, Ok(()), at(ms));
                }
                WriterEffect::Drained { clean } => drained = Some(clean),
                _ => {}
            }
        }
    }
    assert_eq!(drained, Some(true));
    assert!(fin.is_some());
}

#[test]
fn a_drain_that_takes_too_long_ends() {
    let mut writer = open(WriterConfig::default());
    writer.offer(batch(1, 3)).unwrap();
    writer.poll(at(1));
    writer.drain(at(2));
    assert!(!writer.poll(at(3)).iter().any(|effect| matches!(effect, WriterEffect::Drained { .. })));
    let effects = writer.poll(at(20_003));
    assert!(effects.iter().any(|effect| matches!(effect, WriterEffect::Drained { clean: false })));
}

#[test]
fn received_is_the_time_of_sealing_in_all_rows() {
    let mut writer = open(WriterConfig::default());
    writer.offer(batch(1, 2)).unwrap();
    let frame = appends(&writer.poll(at(5))).remove(0);
    assert_eq!(frame.received, Nanos(5_000_000));
    assert!(
        frame.rows.iter().all(|row| row.origin.received == frame.received && row.origin.request.0[0] == 1)
    );
}
