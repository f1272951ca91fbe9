//! Tables: many ticks in few bytes, as columns. The body of every frame and every block.
//!
//! One format serves both. A table names its series in a sorted dictionary (of a block:
//! one), then holds columns: of every row its series, its time and where it came from, and
//! a kind at a time the fields of its ticks. Every field of every kind comes back exactly.
//! `docs/FORMATS.md` section 4 has the layout.
//!
//! | form | rows | origin |
//! |---|---|---|
//! | frame | many series, as one node took them in | number of the request in the frame's header, index; received-at is the frame's |
//! | block | one series in the order of history | received-at, index and request, only of rows that [`Row::needs_origin`] |
//!
//! What is read may be anything: decoding answers every input with rows or a
//! [`TableError`], looks at a count before it makes room for it, and holds at most
//! [`ROWS_MAX`] rows, [`BYTES_MAX`] bytes of columns and [`BYTES_MAX`] bytes of texts: with
//! what it works in, some 48 MiB for the worst of inputs. Whoever writes keeps to the same.
//!
//! In numbers (`docs/adr/0001-columnar-tables.md` has how they were measured): a block of
//! 1,000 trades takes 3 to 7 bytes and 75 ns a trade to write and 55 ns to read, a frame of
//! 1,000 ticks of 770 series 12 bytes, 170 ns and 126 ns a tick.

mod body;
mod bytes;
mod column;
mod events;
mod layout;
mod origins;
mod series;
#[cfg(test)]
pub(crate) mod rows;
#[cfg(test)]
mod tests;

pub use layout::{Peek, peek};

use crate::market::{Event, Nanos, RequestKey, Row};

/// The most rows a table holds. Who builds a table keeps to it: one with more is refused when read.
pub const ROWS_MAX: usize = 65_536;

/// The most bytes that a table's columns take before they are compressed, and its texts
/// once each row has its own.
pub const BYTES_MAX: usize = 8 << 20;

/// The version this build writes and reads.
pub const VERSION: u8 = 1;

/// Why bytes are no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Another version.
    #[error("table version {0} is not known; known is 1")]
    Version(u8),
    /// A frame where a block is expected, or the other way round.
    #[error("table form {0} is not the one expected (1 frame, 2 block)")]
    Form(u8),
    /// The input ends within the table.
    #[error("table is cut short")]
    Truncated,
    /// There are bytes after the table.
    #[error("{0} bytes follow the table")]
    Trailing(usize),
    /// A count is above its limit.
    #[error("table says there are {count} of something of which there are at most {most}")]
    TooLarge {
        /// What the table says.
        count: u64,
        /// The limit there.
        most: usize,
    },
    /// The texts are longer than [`BYTES_MAX`] in all.
    #[error("table holds more than 8 MiB")]
    TooManyBytes,
    /// Something else that no table says.
    #[error("table is malformed: {0}")]
    Malformed(&'static str),
}

/// Encodes the rows of a frame, in the order in which they were taken in.
///
/// `requests` are the requests of the frame's pieces; rows refer to them by number. A row's
/// received-at is taken to be the frame's and is not kept. Who sorted the rows before does
/// not matter: they are put in the order of request and index where that is possible.
///
/// More than [`ROWS_MAX`] rows, or more than [`BYTES_MAX`], are written all the same, and
/// refused by [`decode_frame`]: the caller counts, with [`row_bytes`] where rows are large.
#[must_use]
pub fn encode_frame(rows: &[Row], requests: &[RequestKey]) -> Vec<u8> {
    layout::encode(rows, layout::Form::Frame, requests)
}

/// Reads [`encode_frame`] again: rows sorted by series, those of one series in the order
/// that they were given in. `requests` and `received` come from the frame's header.
///
/// # Errors
/// [`TableError`] when the bytes are not such a table.
pub fn decode_frame(bytes: &[u8], requests: &[RequestKey], received: Nanos) -> Result<Vec<Row>, TableError> {
    layout::decode(bytes, layout::Form::Frame, requests, received)
}

/// Encodes the rows of a block: one series, in the order of history. (Rows of several series
/// are not lost, but come back sorted by series.) The limits are those of [`encode_frame`].
#[must_use]
pub fn encode_block(rows: &[Row]) -> Vec<u8> {
    layout::encode(rows, layout::Form::Block, &[])
}

/// Reads [`encode_block`] again, rows in the order given. The origin of rows that do not
/// need one is [`crate::market::Origin::UNKNOWN`].
///
/// # Errors
/// [`TableError`] when the bytes are not such a table.
pub fn decode_block(bytes: &[u8]) -> Result<Vec<Row>, TableError> {
    layout::decode(bytes, layout::Form::Block, &[], Nanos(0))
}

/// About how many bytes a row takes in memory, for budgets.
#[must_use]
pub fn row_bytes(row: &Row) -> usize {
    let apart = match &row.tick.event {
        Event::Status(status) => {
            size_of_val(&**status)
                + status.status_code.len()
                + status.status_message.len()
                + status.reason_code.len()
                + status.reason_message.len()
        }
        Event::Correction(correction) => size_of_val(&**correction),
        _ => 0,
    };
    size_of::<Row>() + apart
}
