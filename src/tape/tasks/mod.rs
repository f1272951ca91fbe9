//! The tasks around the tape's state machines: they move bytes and answers, and decide nothing.
//!
//! | task | drives | queue |
//! |---|---|---|
//! | [`spawn_writer`] | [`super::Writer`] | batches of requests, at most [`super::WriterConfig::queue_bytes_max`] of ticks |
//! | [`run_push`], [`run_hints`] | frames handed from node to node, ahead of the poll | [`Push`], bounded in bytes |
//! | [`run_view`] | [`super::View`] | the reads and puts that the follower has asked for, a few a tape |
//!
//! A row's full key is sealed with it; the keys are built here and nowhere else.

mod everywhere;
mod push;
mod sealed;
#[cfg(test)]
mod tests;
mod view;
mod writer;

pub use push::{Push, PushStats, run_hints, run_push};
pub use sealed::{Sealed, frame_seal_key};
pub use view::{Listener, NowFn, SharedView, ViewWorld, boot_view, run_view};
pub use writer::{AppendError, Appended, WriterHandle, WriterStatus, WriterWorld, spawn_writer};
