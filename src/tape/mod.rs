//! The tape.

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

pub use codec::CodecError;
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
pub use requests::{Delivery, Receipt, RequestConfig, RequestMemory, RequestRules};
pub use retired::{RETIRED_KEY, RETIRED_MAX, Retired, RetiredList, RetiredLists};
pub use tail::{Backlog, CatchingUp, Covered, Tail, TailConfig, TailRules};
pub use time::{Mono, Now};
pub use writer::{Batch, Refusal, Rollover, Token, Writer, WriterConfig, WriterEffect, WriterRules};
