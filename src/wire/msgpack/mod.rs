//! Ticks as MessagePack.
//!
//! What SDKs need (each rule broke one when violated): `T` is the first key, times are the
//! timestamp extension (type -1), sizes, volumes and ids are integers. Prices are doubles.

mod read;
mod write;

pub(super) use read::Reader;
pub use read::read_tick;
pub use write::{write_stream, write_stream_with_origin};
