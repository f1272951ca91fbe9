//! Ticks as bytes: JSON, NDJSON and MessagePack, both ways, by hand.
//!
//! The shape is Alpaca's stream message: an object whose `T` tells the kind and whose other
//! keys are one or two letters. One table a kind names the keys, what
//! each holds and whether it may be left out; both readers fill a tick through it, so that
//! JSON and MessagePack accept and refuse the same.
//!
//! Reading tells two failures apart:
//! - [`Malformed`]: the bytes are not JSON or MessagePack, from there on nothing can be
//!   read. It has a position. The whole body is refused.
//! - [`Refusal`]: one value, well formed, is not a good tick. It names the field, the value,
//!   why, and what would be right. The others go on.
//!
//! In numbers: a tick is at most 64 KiB of text and 32 levels deep, a body at most 100,000
//! ticks ([`ReadLimits`]). [`BodyReader`] takes a body in pieces of any size and gives each
//! tick as it completes; it holds at most one unfinished tick and one piece. Numbers are exact:
//! a price goes from its text into units of 1e-9 and back without a float between. What has
//! no decimals, MessagePack's doubles, is read as the shortest decimal that names the double.
//!
//! | field | JSON | MessagePack |
//! |---|---|---|
//! | time | RFC 3339 text, at most nine fraction digits  | timestamp extension -1, or that text |
//! | price | number | integer or float |
//! | size, id, volume, count | number without a fraction (`10.0` is 10) | integer, or a float without a fraction |
//! | conditions | array of one-character texts, or null | the same |
//!
//! Left out may be: of a trade `i`, `x`, `c`, `z`; of a quote `ax`, `bx`, `c`, `z`; of a bar
//! `n`, `vw`; of a status `sm`, `rc`, `rm`, `z`; of the others `x`, the conditions and `z`. A
//! null stands for a field that may be left out, and for no other.

mod refusal;
mod table;
mod fields;
mod number;
mod shape;
mod body;
pub mod json;
pub mod msgpack;

pub use body::{BodyError, BodyReader, Format, ReadLimits};
pub use refusal::{Malformed, Refusal, Verdict, beginning};
pub use shape::Mark;

#[cfg(test)]
mod tests;
