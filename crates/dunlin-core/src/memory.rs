//! The session's memory: slices that the caller hands over, and how much is enough.

use crate::inbox::Inbox;
use crate::packet::publish::header_len;
use crate::session::filters::RECORD_HEAD;
use crate::session::inbound::Received;
use crate::session::outbound::Slot;

/// What a session keeps its state in. Sized at run time or, with [`Storage`], by the compiler.
#[derive(Debug)]
pub struct Memory<'s> {
    /// Outgoing messages, encoded, from `publish` until they need not be sent again: see [`tx_len`].
    pub tx: &'s mut [u8],
    /// One slot for each outgoing message that is not over. In a build that has only QoS 0 they take no memory and limit
    /// nothing; but a feature that another crate asks for makes them count.
    pub slots: &'s mut [Slot],
    /// One entry for each incoming message at QoS 1 or 2 whose exchange is not over. Must hold as many as the server
    /// may have under way at QoS 2, and one more. mosquitto's default is 20, but 2.0.11 answers each PUBCOMP with two
    /// messages as long as its queue is not empty: a table of 21 then costs a connection ([`Fault::TooMany`]) for every
    /// dozen messages of a backlog, and one with as many entries as the backlog has messages costs none.
    ///
    /// [`Fault::TooMany`]: crate::Fault::TooMany
    pub received: &'s mut [Received],
    /// Filters subscribed to at run time, and (un)subscriptions under way: see [`filter_len`].
    pub filters: &'s mut [u8],
}

/// Memory for one session and its inbox, sized at compile time.
///
/// `TX`: bytes for outgoing messages. `RX`: bytes of the inbox, the largest packet received whole. `SLOTS`: outgoing
/// messages at a time. `RECEIVED`: see [`Memory::received`]. `FILTERS`: bytes for filters added at run time.
///
/// ```
/// # use dunlin_core::{Options, Session, Storage};
/// let mut storage: Storage<1024, 512, 4> = Storage::new();
/// let (memory, inbox) = storage.split();
/// let session = Session::new(Options::new("plant-7"), memory);
/// ```
#[derive(Debug)]
pub struct Storage<
    const TX: usize,
    const RX: usize,
    const SLOTS: usize,
    const RECEIVED: usize = 21,
    const FILTERS: usize = 128,
> {
    tx: [u8; TX],
    rx: [u8; RX],
    slots: [Slot; SLOTS],
    received: [Received; RECEIVED],
    filters: [u8; FILTERS],
}

impl<const TX: usize, const RX: usize, const SLOTS: usize, const RECEIVED: usize, const FILTERS: usize>
    Storage<TX, RX, SLOTS, RECEIVED, FILTERS>
{
    /// Unused memory; all zeros or close to it, so that a `static` of it costs no flash.
    #[must_use]
    pub const fn new() -> Self {
        const {
            assert!(RX >= 16, "the inbox must hold at least 16 bytes");
            assert!(RECEIVED >= 2, "at least two entries are needed to receive at QoS 1 and 2");
        }
        Self {
            tx: [0; TX],
            rx: [0; RX],
            slots: [Slot::FREE; SLOTS],
            received: [Received::FREE; RECEIVED],
            filters: [0; FILTERS],
        }
    }

    /// The memory for the session, and the inbox.
    #[must_use]
    pub const fn split(&mut self) -> (Memory<'_>, Inbox<'_>) {
        let memory = Memory {
            tx: &mut self.tx,
            slots: &mut self.slots,
            received: &mut self.received,
            filters: &mut self.filters,
        };
        (memory, Inbox::new(&mut self.rx))
    }
}

impl<const TX: usize, const RX: usize, const SLOTS: usize, const RECEIVED: usize, const FILTERS: usize> Default
    for Storage<TX, RX, SLOTS, RECEIVED, FILTERS>
{
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes of [`Memory::tx`] that a message with a topic and payload of these lengths takes, at QoS 1 or 2.
///
/// ```
/// # use dunlin_core::{Storage, memory::tx_len};
/// // Room for eight readings of 32 bytes while the link is down.
/// static STORAGE: Storage<{ 8 * tx_len(22, 32) }, 256, 8> = Storage::new();
/// ```
#[must_use]
pub const fn tx_len(topic: usize, payload: usize) -> usize {
    let remaining = topic.saturating_add(payload).saturating_add(4);
    header_len(remaining).saturating_add(remaining)
}

/// Bytes of [`Memory::filters`] that a filter of this length takes.
#[must_use]
pub const fn filter_len(filter: usize) -> usize {
    filter.saturating_add(RECORD_HEAD)
}

/// Bytes of an inbox that receives messages with a topic and payload of these lengths whole, at any quality of service.
#[must_use]
pub const fn rx_len(topic: usize, payload: usize) -> usize {
    tx_len(topic, payload)
}
