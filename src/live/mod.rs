//! What streaming clients are given.
