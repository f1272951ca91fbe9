//! Configuration: compiled-in defaults, then file, environment and flags.
