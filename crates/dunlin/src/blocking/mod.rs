//! Clients that block: a driver for devices and single-threaded programs, and, with `std`, a client whose socket has a
//! thread of its own.

#[cfg(feature = "std")]
mod client;
mod link;
#[cfg(feature = "std")]
mod socket;
#[cfg(feature = "std")]
mod wait;

#[cfg(feature = "std")]
pub use client::Client;
pub use link::{Link, LinkError};

#[cfg(feature = "std")]
pub use crate::host::{Builder, Delivery, Error, Event, Message, Outcome, Payload, Pending, Reason, Stats};
