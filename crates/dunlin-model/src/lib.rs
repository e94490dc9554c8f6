//! Model checking of the session that ships: every order of events within bounds, not a sample of them.
//!
//! A [`World`] is the real `Session` with its memory, a store, a stream of packets in each direction, and a broker
//! written from the standard. Its actions are everything that can happen next: the application publishes, a mark is
//! stored or not, a packet leaves or arrives, the stream is cut between two packets or inside one, the client loses
//! its power with a store half done, the broker restarts and forgets the session. The referee sees packets and
//! what the application is told, never the session's own state, and names what must not happen.
//!
//! A [`Fault`] makes the driver, the store or the wire do something wrong; each must be found, or the model would be
//! blind.

#![forbid(unsafe_code)]

mod bounds;
mod broker;
mod client;
mod fault;
mod packet;
mod referee;
mod stored;
mod world;

pub use bounds::{Named, find, long, seeded, short};
pub use fault::Fault;
pub use referee::Verdict;
pub use world::{Action, Bounds, Model, World};
