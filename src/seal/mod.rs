//! The envelope around all stored bytes, and MACed tokens.
