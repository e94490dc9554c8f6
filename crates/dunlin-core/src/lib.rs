//! An MQTT 3.1.1 client session as a value: bytes and time in, bytes and events out.
//!
//! No heap, no unsafe code, no dependency, no clock, no socket. Memory is the caller's, so is the stream, so is time:
//! the session runs in a super-loop, under an executor, in a thread, or in a test.
//!
//! ```
//! use dunlin_core::{Event, Filter, Instant, Options, Publish, QoS, Session, Storage, Transmit};
//!
//! const COMMANDS: &[Filter] = &[Filter::literal("plant/7/valve/+/set", QoS::AtLeastOnce)];
//!
//! let mut storage: Storage<1024, 512, 4> = Storage::new();
//! let (memory, mut inbox) = storage.split();
//! let mut session = Session::new(Options::new("plant-7").subscriptions(COMMANDS), memory);
//! # let clock = || Instant::from_millis(1);
//! # let mut written = Vec::new();
//! # let mut received: &[u8] = b"\x20\x02\x00\x00";
//!
//! session.open(clock(), &mut inbox); // a TCP connection is up
//! # for _ in 0..3 {
//! // What to send?
//! let mut out = [0; 256];
//! if let Transmit::Bytes(n) = session.transmit(clock(), &mut out) {
//!     written.extend_from_slice(&out[..n]); // the stream's `write`
//! }
//! // What came?
//! let n = inbox.push(received); // the stream's `read`
//! # received = &received[n..];
//! while let Some(event) = session.poll(clock(), &mut inbox)? {
//!     match event {
//!         Event::Connected { .. } => {
//!             session.publish(&Publish::new("plant/7/status", b"online").retain())?;
//!         }
//!         Event::Message(message) => println!("{}", message.topic),
//!         _ => {}
//!     }
//! }
//! // When to ask again?
//! let deadline = session.deadline();
//! # assert!(deadline.is_some());
//! # }
//! # assert_eq!(written[..2], [0x10, 19]);
//! # assert_eq!(written[21..23], [0x82, 24]);
//! # assert_eq!(written[47..49], [0x31, 22]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it leaves to you
//! A stream (TCP or TLS), and reconnecting it. The crate `dunlin` has drivers that do.
//!
//! # Features
//! `qos2` (with `qos1`), `subscribe`, `large` and `durable` are on by default; without them the session is smaller and
//! has fewer names. Without any it publishes at QoS 0. `suspend` moves sessions to other memory; `log` and `defmt` write a
//! line per packet.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, doctest))]
extern crate std;

mod bytes;
mod inbox;
mod log;
pub mod memory;
mod packet;
mod session;
mod time;
pub mod topic;

pub use inbox::Inbox;
pub use memory::{Memory, Storage};
pub use packet::connect::Refusal;
pub use packet::subscribe::ReturnCodes;
pub use packet::{PacketId, QoS, Violation};
pub use session::Session;
#[cfg(all(feature = "qos2", feature = "subscribe"))]
pub use session::common::Common;
pub use session::error::{Fault, PublishError, RestoreError, SubscribeError};
#[cfg(feature = "large")]
pub use session::event::Chunk;
#[cfg(feature = "manual")]
pub use session::event::Receipt;
pub use session::event::{Event, Message, Ready, Request, Subscribed};
pub use session::inbound::Received;
#[cfg(feature = "durable")]
pub use session::mark::{Mark, Restored, Stage};
#[cfg(feature = "large")]
pub use session::message::External;
#[cfg(feature = "qos1")]
pub use session::message::Replace;
pub use session::next::Transmit;
#[cfg(feature = "large")]
pub use session::options::Oversize;
pub use session::options::{Client, InvalidOptions, Options, Publish};
pub use session::outbound::Slot;
#[cfg(feature = "suspend")]
pub use session::suspend::Suspended;
pub use time::Instant;
pub use topic::{Filter, InvalidFilter, Topic};
