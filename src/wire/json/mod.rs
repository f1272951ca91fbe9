//! Ticks as JSON.

mod read;
mod write;

pub(super) use read::Scanner;
pub use read::read_tick;
pub use write::{write_history, write_line, write_stream, write_stream_with_origin, write_text};
