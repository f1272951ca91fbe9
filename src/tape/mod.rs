//! The tape: frames, writer, follower, positions, retired lists, tail.
