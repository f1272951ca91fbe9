//! Ticks as JSON and MessagePack, both ways. No HTTP.
