//! One binary, one file per subject.

#[cfg(feature = "tokio")]
mod client;
mod common;
mod hostile;
mod link;
mod mosquitto;
