//! The market's vocabulary: ticks, prices, times, symbols, and what is computed from them.
//!
//! Nothing here does I/O, reads a clock or knows serde. A tick is a trade, a quote, a
//! bar, a trading status, a LULD band, a correction or a cancel, with the fields that
//! Alpaca Market Data v2 gives it. Prices are integers of 1e-9 dollars and times are
//! integers of nanoseconds, so that nothing is ever rounded between the wire and the disk.
//!
//! Beside the ticks: the New York calendar ([`calendar`]), what the codes mean ([`meta`]), and a
//! market from a seed for demo and tests ([`synthetic`]).
//!
//! What is stored or compared is defined in bytes in `docs/FORMATS.md`: canonical bytes
//! ([`canonical`]), tick ids ([`TickId`]) and the total order of history ([`Place`]).

mod price;
mod nanos;
mod symbol;
mod codes;
mod tick;
pub mod canonical;
mod fakepaca;
mod identity;
pub mod calendar;
mod bucket;
pub mod meta;
pub mod synthetic;
#[cfg(test)]
pub(crate) mod golden;
pub mod table;

pub use bucket::{Bucket, BucketWidth};
pub use codes::{Code, CodeError, Conditions, Exchange, SipTape};
pub use fakepaca::{FAKE_EVERY_NANOS, FAKEPACA, fakepaca};
pub use identity::{Ordinal, Origin, Place, RequestKey, Row, TickId};
pub use nanos::{Nanos, TimeError};
pub use price::{Price, PriceError};
pub use symbol::{Symbol, SymbolError};
pub use tick::{Bar, Cancel, Correction, Event, Kind, Luld, Quote, Series, Status, Tick, Trade};
