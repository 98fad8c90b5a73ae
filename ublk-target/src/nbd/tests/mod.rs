//! Tests of the NBD protocol.
