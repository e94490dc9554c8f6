//! Streams to a server.

pub(crate) mod tcp;
