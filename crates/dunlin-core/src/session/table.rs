//! The static table of filters: subscribed to straight from flash, a few at a time.
//!
//! All that is remembered is how far the table is known to be subscribed, and the SUBSCRIBE under way.

use super::message::Server;
use crate::packet::writer::Writer;
use crate::packet::{PacketId, Violation};
use crate::topic::Filter;

/// Most filters in one SUBSCRIBE; some servers take no more.
const BATCH: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Table {
    /// The first filter that is not known to be subscribed.
    next: usize,
    /// The SUBSCRIBE for the filters from there on.
    id: Option<PacketId>,
    is_sent: bool,
    /// Whether the server is known to have begun with an empty table in the life of this value.
    is_begun: bool,
}

impl Table {
    pub const fn new() -> Self {
        Self { next: 0, id: None, is_sent: false, is_begun: false }
    }

    /// What was not answered is asked again. When the server has forgotten the session, everything is.
    pub fn rewind(&mut self, server: Server) {
        self.id = None;
        self.is_sent = false;
        if server == Server::HasForgotten {
            self.is_begun = false;
        }
    }

    /// The server accepted the connection. A table that this session has never asked for is subscribed to even if
    /// the server has a session: the program may be newer than that.
    pub fn on_connected(&mut self) {
        if !self.is_begun {
            self.is_begun = true;
            self.next = 0;
        }
    }

    /// A SUBACK with `count` return codes: the index of the first filter that it answers, if any.
    pub fn on_suback(&mut self, id: PacketId, count: usize, table: &[Filter<'_>]) -> Result<Option<usize>, Violation> {
        if self.id != Some(id) || !self.is_sent {
            return Ok(None);
        }
        if count != self.batch(table).len() {
            return Err(Violation::ReturnCodeCount); // [MQTT-3.8.4-5]
        }
        let first = self.next;
        self.next = first.wrapping_add(count);
        self.id = None;
        self.is_sent = false;
        Ok(Some(first))
    }

    /// Whether a SUBSCRIBE is to leave.
    pub fn wants(&self, table: &[Filter<'_>]) -> bool {
        !self.is_sent && self.is_waiting(table)
    }

    /// Whether a filter waits to be subscribed to.
    pub fn is_waiting(&self, table: &[Filter<'_>]) -> bool {
        self.next < table.len()
    }

    /// The identifier of the SUBSCRIBE that is to leave, or has left and waits for its answer.
    pub fn id(&self) -> Option<PacketId> {
        self.id
    }

    /// Gives the SUBSCRIBE that is to leave its identifier.
    pub fn name(&mut self, id: PacketId) {
        self.id = Some(id);
    }

    /// Whether `id` is that identifier.
    pub fn is_named(&self, id: u16) -> bool {
        self.id.is_some_and(|own| own.get() == id)
    }

    /// Writes the SUBSCRIBE, without its fixed header and identifier.
    pub fn write(&self, table: &[Filter<'_>], writer: &mut Writer<'_>) {
        for filter in self.batch(table) {
            writer.put_binary(filter.text().as_bytes()); // [MQTT-3.8.3-1]
            writer.put(&[filter.qos().bits()]);
        }
    }

    /// The SUBSCRIBE has left whole.
    pub fn sent(&mut self) {
        self.is_sent = true;
    }

    fn batch<'t, 'f>(&self, table: &'t [Filter<'f>]) -> &'t [Filter<'f>] {
        let rest = table.get(self.next..).unwrap_or_default();
        rest.get(..BATCH).unwrap_or(rest)
    }
}
