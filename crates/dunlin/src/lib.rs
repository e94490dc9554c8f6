//! An MQTT client for devices, gateways and services.
//!
//! Which page is yours?
//! - **A program with threads**: `blocking::Client`. Connect, subscribe, publish, receive in ten lines; the socket has
//!   a thread of its own.
//! - **An asynchronous program**: `client::Client`, with the feature `tokio`.
//! - **A device, or a program that wants to see each step**: [`blocking::Link`], a [`Session`] on any stream of
//!   `embedded-io`. Without `std` there is nothing else in this crate, and no heap.
//! - **Something else** (interrupts, an RTOS, a test): [`Session`] itself, which is a value without a stream.
//!
//! # Features
//! `std` is on by default. Without it, `qos1`, `qos2`, `subscribe`, `table`, `large` and `durable` say what is in the
//! session, as in `dunlin-core`. `tokio` brings the asynchronous client. `log` or `defmt` writes a line per packet.
#![cfg_attr(not(feature = "std"), no_std)]

pub use dunlin_core::*;

#[cfg(feature = "async")]
pub mod asynch;
pub mod blocking;
#[cfg(feature = "tokio")]
pub mod client;
#[cfg(feature = "std")]
pub mod host;
pub mod reconnect;
#[cfg(feature = "std")]
mod transport;
#[cfg(feature = "std")]
pub mod url;
