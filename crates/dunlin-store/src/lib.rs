//! Durable MQTT sessions for dunlin: QoS 1 and 2 that keep their promise when the power goes, at any instruction.
//!
//! [`Durable`] puts a [`Store`] under a session and keeps the one order that matters: store first, then send. A store
//! is a [`FlashStore`] on a few pages of NOR flash, or on hosts a `FileStore`.
//!
//! What survives, what does not and what it costs: `docs/durability.md` in the repository.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

mod block;
mod durable;
#[cfg(feature = "std")]
mod file;
mod flash;
#[cfg(feature = "std")]
mod memory;
mod shared;
mod store;

pub use durable::{Durable, FilterError, PublishError, Recovery};
#[cfg(feature = "std")]
pub use file::{FileStore, KeptMessage, Snapshot};
pub use flash::{Blocking, FlashStore};
#[cfg(feature = "std")]
pub use memory::MemoryStore;
pub use shared::{Kept, Lock, Shared, SharedStore};
pub use store::{Damage, Entry, Job, Store, StoreError};
