//! Taking a session apart and putting it together again: in larger memory, or many times, as model checkers do.
//!
//! A session borrows its memory, so it cannot be cloned. Suspended, its state is plain numbers beside that memory, and
//! both can be copied, compared and hashed; unused memory is cleared, so that equal sessions are equal bytes.

use super::Session;
use super::filters::{Filters, State as FiltersState};
use super::ids::Ids;
use super::inbound::{Inbound, State as InboundState};
use super::keep_alive::KeepAlive;
#[cfg(feature = "large")]
use super::large::Large;
use super::next::Sending;
use super::options::Options;
use super::outbound::{Outbound, State as OutboundState};
use crate::memory::Memory;

/// A session without its memory and options.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Suspended {
    outbound: OutboundState,
    slots: usize,
    inbound: InboundState,
    received: usize,
    filters: FiltersState,
    #[cfg(feature = "table")]
    table: super::table::Table,
    ids: Ids,
    connects: u8,
    link: super::Link,
    is_quiet: bool,
    fault: Option<super::Fault>,
    sending: Sending,
    #[cfg(feature = "large")]
    large: Large,
    keep_alive: KeepAlive,
    ignored: u32,
    #[cfg(feature = "large")]
    skipped: u32,
}

impl<'s> Session<'s> {
    /// Says whether the session will be moved to memory with a longer [`Memory::received`] when
    /// [`wants_received`](Self::wants_received) says so; no, unless you say so. It need not fear then that more messages
    /// are under way than fit, and waits where it would end the connection.
    pub fn set_growing(&mut self, is_growing: bool) {
        self.inbound.set_growing(is_growing);
    }

    /// Whether `poll` has left a packet in the inbox until [`Memory::received`] is longer. To be asked when it has found
    /// nothing more to tell; then [`suspend`](Self::suspend), [`resume`](Self::resume), and poll again.
    #[must_use]
    pub fn wants_received(&self) -> bool {
        self.inbound.wants_space()
    }

    /// Takes the session apart, at any time, also between the bytes of a packet. Unused memory is cleared.
    #[must_use]
    pub fn suspend(mut self) -> (Suspended, Memory<'s>) {
        self.ids.look_again();
        let (outbound, slots, tx, slot_count) = self.outbound.into_parts();
        let (inbound, received, received_count) = self.inbound.into_parts();
        let (filters, filters_buf) = self.filters.into_parts();
        let suspended = Suspended {
            outbound,
            slots: slot_count,
            inbound,
            received: received_count,
            filters,
            #[cfg(feature = "table")]
            table: self.table,
            ids: self.ids,
            connects: self.connects,
            link: self.link,
            is_quiet: self.is_quiet,
            fault: self.fault,
            sending: self.sending,
            #[cfg(feature = "large")]
            large: self.large,
            keep_alive: self.keep_alive,
            ignored: self.ignored,
            #[cfg(feature = "large")]
            skipped: self.skipped,
        };
        (suspended, Memory { tx, slots, received, filters: filters_buf })
    }

    /// Puts a session together again, with the options it had and memory that holds what [`suspend`](Self::suspend) left
    /// there. Each slice may be longer than it was: what is behind does not matter.
    #[must_use]
    pub fn resume(options: Options<'s>, suspended: Suspended, memory: Memory<'s>) -> Self {
        Self {
            options,
            outbound: Outbound::from_parts(suspended.outbound, memory.slots, memory.tx, suspended.slots),
            inbound: Inbound::from_parts(suspended.inbound, memory.received, suspended.received),
            filters: Filters::from_parts(suspended.filters, memory.filters),
            #[cfg(feature = "table")]
            table: suspended.table,
            ids: suspended.ids,
            connects: suspended.connects,
            link: suspended.link,
            is_quiet: suspended.is_quiet,
            fault: suspended.fault,
            sending: suspended.sending,
            #[cfg(feature = "large")]
            large: suspended.large,
            keep_alive: suspended.keep_alive,
            ignored: suspended.ignored,
            #[cfg(feature = "large")]
            skipped: suspended.skipped,
        }
    }
}
