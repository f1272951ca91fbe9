//! The tape: the durable, replicated, append-only log that everything else is a view of.
//!
//! Each boot of a node writes one tape of frames with seq 1, 2, 3 …; every node follows every
//! tape of every region. The parts are pure state machines: no I/O, no clock, no randomness but
//! what is passed in. `tests/sim` drives them through crash, pause, loss and cut, and shows for
//! each rule that breaking it is found.
//!
//! | machine | what it does | in memory |
//! |---|---|---|
//! | [`Writer`] | gathers requests into frames, few in flight, answers when durable | its queue, 32 MiB |
//! | [`Follower`] | the dense prefix of every tape, each frame once | frames above holes, 64 MiB |
//! | [`Tail`] | the ticks that blocks may not have yet, by series | 256 MiB |
//! | [`RequestMemory`] | each tick of a request delivered once; receipts | 64 MiB |
//! | [`View`] | these last three, changed in one step | |
//! | [`Resume`] | what a client that comes back lacks | a memory of requests |
//!
//! Formats: frames, Positions, rows of records are in `docs/FORMATS.md`, sections 5 and 8.
//!
//! # How an adapter drives them
//!
//! Each machine sits behind one lock, is called, and tells effects; the adapter does an effect
//! outside the lock and brings its answer back by the call that the effect names. Every effect
//! that names an answer gets exactly one, also when the call failed or timed out. A machine is
//! polled after every call and when its `due()` has come.
//!
//! **Boot.** Read the retired lists of all regions (CasRegion, key [`RETIRED_KEY`]), the marks of
//! the own region (a row a shard, [`shard_key`]); [`View::boot`] with them. Make the [`Writer`];
//! [`View::set_own`] with [`Writer::tape`] (and again whenever it changes). Then poll. The node is
//! ready when [`Follower::caught_up`] says so and [`Tail::complete`] is Ok.
//!
//! **Writer** (one lock of its own).
//! * a request: [`Writer::offer`], then poll; the answer comes as [`WriterEffect::Answer`] or
//!   [`WriterEffect::Refuse`] for its [`Token`]. Who does not wait longer says `unknown`; the
//!   frames go on.
//! * [`WriterEffect::PutRow`]: `Records::put` in [`crate::store::Space::Tapes`], part = region,
//!   key = [`tape_key`], version = max(now, seen + 1) in microseconds; [`Writer::row_put`].
//! * [`WriterEffect::Append`]: [`Frame::encode`], seal, `Store::append` with `Reach::Region`, in a
//!   task of its own; [`Writer::appended`]. Repeats come as the effect again, with the same frame.
//! * [`WriterEffect::Acknowledged`]: [`View::accept`] with the frame, and publish its bytes.
//!   Effects are handled in their order: a request is then within the Position when it is answered.
//! * [`WriterEffect::Abandon`]: stop waiting for that tape's appends; [`View::set_own`].
//!
//! **View** (one lock for follower, tail and memory of requests). After every call take
//! [`View::poll`]'s effects, [`View::take_passed`] (open streams are told) and
//! [`View::take_delivered`] (in order, for the hub and the folds).
//! * [`FollowerEffect::Read`]: `Store::frames`, open, decode; [`View::read_done`] with the frames,
//!   ascending, or `None`. A frame that does not open or decode is an error to show, and `None`.
//! * [`FollowerEffect::WriteBack`]: encode and seal again, `Store::append` with the reach told;
//!   [`View::wrote_back`].
//! * [`FollowerEffect::ScanTapes`], [`FollowerEffect::ReadList`]: `Records::scan` / `get`;
//!   [`View::tapes_scanned`], [`View::list_read`].
//! * [`FollowerEffect::PutList`]: `Records::put_if`, version = expected + 1; [`View::list_put`].
//! * [`FollowerEffect::PutGap`]: `Records::put` in `Space::Gaps`; [`View::gap_put`].
//! * [`FollowerEffect::Forgot`]: nothing, or a log line.
//! * bytes from the hot bus: open, decode, [`View::accept`].
//! * every few seconds: read the marks of the own region; [`View::mark_read`] each. And where
//!   [`View::wanted`] names shed frames: read them; [`View::restore`] each.
//! * embedded retention: frames may be unlinked where [`View::is_released`] and old enough.
//!
//! **Keeper** (module `history::keeper`), each second: owned = `Keeper::owned` with
//! [`Follower::live`]; `tick` under the view's lock, so that snapshot and Position are of one
//! instant. Blocks are encoded, sealed and put outside it.
//!
//! **Reads.** Under the view's lock [`View::snapshot`] of all series that are asked for; after it,
//! and never before, the blocks. `after=` waits until [`Follower::covers`] the wait token.

mod codec;
mod ranges;
mod time;
mod frame;
mod position;
mod registry;
mod retired;
mod marks;
mod gaps;
mod writer;
mod requests;
mod tail;
mod follower;
mod view;
mod resume;
pub mod tasks;

#[cfg(test)]
pub(crate) mod fixtures;

pub use codec::CodecError;
pub(crate) use codec::{Fields, put_text, put_varint, version};
pub use follower::{
    Follower, FollowerConfig, FollowerEffect, FollowerRules, FollowerStatus, ReadId, ScannedTape, Standing,
    TapeState, rendezvous,
};
pub use frame::{
    BodyHash, FRAME_BYTES_MAX, FRAME_PIECES_MAX, Frame, FrameError, Piece, Region, RegionError, row_weight,
    weight,
};
pub use gaps::{GapReason, GapRow};
pub use marks::{Mark, SHARDS, parse_shard_key, shard_key, shard_of};
pub use position::{
    POSITION_REGIONS_MAX, POSITION_TAPES_MAX, Position, Progress, Seen, VOIDS_MAX, WAIT_TAPES_MAX, WaitToken,
};
pub use ranges::Ranges;
pub use registry::{TapeRow, parse_tape_key, tape_key};
pub use requests::{Delivery, Receipt, Remembered, RequestConfig, RequestMemory, RequestRules};
pub use resume::{Resume, ResumeConfig, ResumeRules, ResumeStep};
pub use retired::{RETIRED_KEY, RETIRED_MAX, Retired, RetiredList, RetiredLists};
pub use tail::{Backlog, CatchingUp, Covered, Snapshot, Tail, TailConfig, TailRules};
pub use time::{Mono, Now};
pub use view::{Unreadable, View, ViewRules};
pub use writer::{
    Batch, Refusal, Rollover, Token, Writer, WriterConfig, WriterEffect, WriterRules, check_one_frame,
};
