//! The tasks around the tape's state machines: they move bytes and answers, and decide nothing.
//!
//! | task | drives | queue |
//! |---|---|---|
//! | [`writer`] | [`super::Writer`] | batches of requests, at most [`WriterConfig::queue_bytes_max`](super::WriterConfig) of ticks |
//!
//! A row's full key is sealed with it; the keys are built here and nowhere else.

mod sealed;
mod writer;

pub use sealed::{Sealed, frame_key, record_key};
pub use writer::{AppendError, Appended, WriterHandle, WriterStatus, WriterWorld, mono_since, spawn_writer};
