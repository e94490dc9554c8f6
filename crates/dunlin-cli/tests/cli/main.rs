//! The binary, run as a user runs it, against a real mosquitto, servers that misbehave, and links that break.

mod connection;
#[cfg(feature = "demo")]
mod demo;
#[path = "../../../dunlin/tests/pki.rs"]
mod pki;
mod publish;
mod signals;
mod store;
mod subscribe;
mod tls;
mod tool;
