//! A strict model broker, a wire that cuts, and flash that loses power: what dunlin's tests stand on.
//!
//! Nothing here shares code with what it judges: packets, matching and the rules of the exchanges are written once more
//! from the standard. Everything runs in virtual time and from printed seeds, so a failure can be seen again.

#![forbid(unsafe_code)]

pub mod broker;
pub mod flash;
pub mod mosquitto;
pub mod packet;
pub mod pair;
pub mod proxy;
pub mod referee;
pub mod seed;
pub mod wire;

pub use broker::{Broker, LinkId, Persistence, Then};
pub use mosquitto::Mosquitto;
pub use packet::kinds::*;
pub use packet::{Breach, Connect, Kind, Message, Packet, raw};
pub use pair::{CLEAN, CLIENT, DURABLE, Marks, Pair, RESUMING, Seen, Sizes, Store};
pub use proxy::Proxy;
pub use referee::{Referee, View};
pub use seed::{Rng, seeds};
pub use wire::{Pipe, Split, Wire};
