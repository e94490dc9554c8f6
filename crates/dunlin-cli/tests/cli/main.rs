//! The binary, run as a user runs it, against a real mosquitto, servers that misbehave, and links that break.

mod connection;
#[cfg(feature = "demo")]
mod demo;
mod publish;
mod signals;
mod subscribe;
mod tool;
