//! History: what was stored, read back as one series in one order.
//!
//! [`merge`] makes one sequence of any copies of a series (tail and blocks, in any
//! duplication), [`amend`] applies corrections and cancels to trades, [`page`] is the token
//! by which a client reads on, and [`reader`] does the reading over the doors of `store`.
//!
//! Numbers: a page is at most 10,000 ticks over all symbols. A read holds at most twice the
//! rows it was asked for, all ticks of one nanosecond, and one page of blocks as stored
//! ([`ReadLimits::blocks_bytes_max`]).
//!
//! Promises: the tail is read before the blocks, so that no tick is missed that moves from
//! one to the other meanwhile; one tick an id; the total order (event time, order, id); a page
//! that starts inside ticks of one nanosecond goes on exactly where the last one ended; what
//! is damaged is an error by name and never a wrong price.

pub mod amend;
pub mod merge;
pub mod page;
