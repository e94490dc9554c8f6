//! What should be subscribed to, and the requests that make it so.
//!
//! Two sources: the static table of the options, sent straight from there; and filters added at run time, one record
//! each in `Memory::filters`. A request keeps its packet identifier as long as one of its filters is subscribed, so
//! that the session can send it again, under the same name, when the server has lost the session.
//!
//! A record is: identifier (2 bytes), flags (1), length of the filter (2), filter. The last two are the bytes that
//! SUBSCRIBE wants, so requests are written straight from the records.

use super::error::SubscribeError;
use super::ids::Window;
use super::outbound::Server;
use crate::bytes;
use crate::memory::filter_len;
use crate::packet::subscribe::FAILURE;
use crate::packet::writer::Writer;
use crate::packet::{PacketId, QoS, Violation, header};
use crate::topic::{self, Filter};

/// Bytes of a record before the filter.
pub(crate) const RECORD_HEAD: usize = 5;

/// Most filters of the static table in one SUBSCRIBE; some servers take no more.
const BATCH: usize = 8;

/// Flags of a record. The two lowest bits are the quality of service.
const QOS: u8 = 0x03;
/// An UNSUBSCRIBE, not a SUBSCRIBE.
const LEAVING: u8 = 0x04;
/// To be sent on this connection.
const UNSENT: u8 = 0x08;
/// Answered: the filter is subscribed.
const LIVE: u8 = 0x10;
/// To be removed once it is answered.
const DOOMED: u8 = 0x20;

pub(crate) struct Filters<'s> {
    buf: &'s mut [u8],
    at: State,
}

/// Where things stand; plain numbers, so that a session can be taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// Records lie in `buf[..len]`.
    len: usize,
    /// The first filter of the static table that is not known to be subscribed.
    table_next: usize,
    /// The SUBSCRIBE for the filters from there on.
    table_id: Option<PacketId>,
    is_table_sent: bool,
    /// The table has been subscribed to since the session began.
    is_table_known: bool,
    /// Some record may be unsent.
    has_unsent: bool,
    /// CONNECTs that left since the last CONNACK.
    connects: u8,
}

/// A request that the session sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asking {
    /// SUBSCRIBE for filters of the static table.
    Table,
    /// SUBSCRIBE or UNSUBSCRIBE for the records with this identifier.
    Records(PacketId),
}

/// One record: where the next one begins, and what it holds.
#[derive(Clone, Copy)]
struct Record<'a> {
    next: usize,
    id: u16,
    flags: u8,
    /// Length and filter, as on the wire.
    wire: &'a [u8],
}

/// Which records: those with `id` (or any, for 0) whose flags under `mask` are `flags`.
#[derive(Clone, Copy)]
struct Which {
    id: u16,
    mask: u8,
    flags: u8,
}

impl<'s> Filters<'s> {
    pub fn new(buf: &'s mut [u8]) -> Self {
        let at = State {
            len: 0,
            table_next: 0,
            table_id: None,
            is_table_sent: false,
            is_table_known: false,
            has_unsent: false,
            connects: 0,
        };
        Self { buf, at }
    }

    // Requests of the application

    /// Checks a SUBSCRIBE.
    pub fn check_subscribe(&self, filters: &[Filter<'_>]) -> Result<(), SubscribeError> {
        let needed = filters.iter().fold(0_usize, |sum, filter| sum.wrapping_add(filter_len(filter.text().len())));
        self.check_room(needed)
    }

    /// Checks an UNSUBSCRIBE.
    pub fn check_unsubscribe(&self, filters: &[&str]) -> Result<(), SubscribeError> {
        if filters.iter().any(|filter| !topic::is_filter(filter)) {
            return Err(SubscribeError::InvalidFilter);
        }
        self.check_room(filters.iter().fold(0_usize, |sum, filter| sum.wrapping_add(filter_len(filter.len()))))
    }

    fn check_room(&self, needed: usize) -> Result<(), SubscribeError> {
        if needed == 0 {
            return Err(SubscribeError::Empty); // [MQTT-3.8.3-3] [MQTT-3.10.3-2]
        }
        if needed > self.buf.len().wrapping_sub(self.at.len) { Err(SubscribeError::Full) } else { Ok(()) }
    }

    /// Takes a SUBSCRIBE that was checked.
    pub fn subscribe(&mut self, id: PacketId, filters: &[Filter<'_>]) {
        for filter in filters {
            self.append(id, filter.qos().bits() | UNSENT, filter.text());
        }
    }

    /// Takes an UNSUBSCRIBE that was checked. What it names is not subscribed to again from now on.
    pub fn unsubscribe(&mut self, id: PacketId, filters: &[&str]) {
        for filter in filters {
            let at = self.at.len;
            self.append(id, LEAVING | UNSENT, filter);
            self.doom_same(at, 0);
        }
        self.sweep();
    }

    /// Takes back, after a restart, a filter that was subscribed to. It is subscribed to again: the server may have
    /// lost the session, and the power failed before that was heard.
    pub fn restore(&mut self, id: PacketId, filter: &Filter<'_>) {
        self.append(id, filter.qos().bits() | UNSENT, filter.text());
    }

    // The connection

    /// What was not answered is asked again. When the server has forgotten the session, everything is.
    pub fn rewind(&mut self, server: Server) {
        match server {
            Server::MayRemember => self.change(Which { id: 0, mask: LIVE, flags: 0 }, UNSENT, 0),
            Server::HasForgotten => {
                self.at.is_table_known = false;
                self.change(Which { id: 0, mask: 0, flags: 0 }, UNSENT, LIVE)
            }
        };
        self.at.has_unsent = true;
        self.at.table_id = None;
        self.at.is_table_sent = false;
    }

    /// CONNECT has left whole.
    pub fn on_connect_sent(&mut self) {
        self.at.connects = self.at.connects.saturating_add(1);
    }

    /// The server accepted the connection. A table that this session has never seen answered is subscribed to even
    /// if the server has a session: the program may be newer than that. And when an earlier CONNECT was not answered,
    /// that session may be one that the server made then, without subscriptions.
    pub fn on_connected(&mut self) {
        if self.at.connects > 1 {
            self.rewind(Server::HasForgotten);
        }
        self.at.connects = 0;
        if !self.at.is_table_known {
            self.at.is_table_known = true;
            self.at.table_next = 0;
        }
    }

    // Packets that came

    /// A SUBACK for filters of the static table: index of the first of them.
    pub fn on_table_suback(
        &mut self,
        id: PacketId,
        count: usize,
        table: &[Filter<'_>],
    ) -> Result<Option<usize>, Violation> {
        if self.at.table_id != Some(id) || !self.at.is_table_sent {
            return Ok(None);
        }
        let first = self.at.table_next;
        if count != self.batch(table).len() {
            return Err(Violation::ReturnCodeCount);
        }
        self.at.table_id = None;
        self.at.is_table_sent = false;
        self.at.table_next = first.wrapping_add(count);
        Ok(Some(first))
    }

    /// A SUBACK for filters added at run time. `true` when it answers a request [MQTT-3.8.4-2].
    pub fn on_suback(&mut self, id: PacketId, codes: &[u8]) -> Result<bool, Violation> {
        let answered = Which { id: id.get(), mask: LEAVING | UNSENT | LIVE, flags: 0 };
        let count = self.change(answered, 0, 0);
        if count == 0 {
            return Ok(false);
        }
        if count != codes.len() {
            return Err(Violation::ReturnCodeCount); // [MQTT-3.8.4-5]
        }
        let mut codes = codes.iter();
        let mut at = 0;
        while let Some(record) = self.record(at) {
            let (place, next) = (at, record.next);
            if answered.is(&record) {
                let is_refused = codes.next() == Some(&FAILURE);
                let flags = record.flags | LIVE | if is_refused { DOOMED } else { 0 };
                self.set_flags(place, flags);
                self.doom_same(place, LIVE); // a newer subscription replaces an older one [MQTT-3.8.4-3]
            }
            at = next;
        }
        self.sweep();
        Ok(true)
    }

    /// An UNSUBACK. `true` when it answers a request.
    pub fn on_unsuback(&mut self, id: PacketId) -> bool {
        let answered = Which { id: id.get(), mask: LEAVING | UNSENT, flags: LEAVING };
        let is_known = self.change(answered, LIVE | DOOMED, 0) > 0;
        self.sweep();
        is_known
    }

    // What leaves

    /// The request for records that is to leave next, if any.
    pub fn next_request(&mut self) -> Option<PacketId> {
        if !self.at.has_unsent {
            return None;
        }
        let mut at = 0;
        while let Some(record) = self.record(at) {
            if record.flags & UNSENT != 0 {
                return PacketId::new(record.id);
            }
            at = record.next;
        }
        self.at.has_unsent = false;
        None
    }

    /// Whether a SUBSCRIBE for filters of the static table is to leave.
    pub fn wants_table(&self, table: &[Filter<'_>]) -> bool {
        !self.at.is_table_sent && self.at.table_next < table.len()
    }

    /// Its identifier, if it has one already.
    pub fn table_id(&self) -> Option<PacketId> {
        self.at.table_id
    }

    /// Gives it its identifier.
    pub fn name_table(&mut self, id: PacketId) {
        self.at.table_id = Some(id);
    }

    /// First byte of a request.
    pub fn first_byte(&self, asking: Asking) -> u8 {
        let Asking::Records(id) = asking else { return header::SUBSCRIBE };
        let mut at = 0;
        while let Some(record) = self.record(at) {
            if record.id == id.get() && record.flags & LEAVING != 0 {
                return header::UNSUBSCRIBE;
            }
            at = record.next;
        }
        header::SUBSCRIBE
    }

    /// Writes a request, without its fixed header.
    pub fn write(&self, asking: Asking, table: &[Filter<'_>], writer: &mut Writer<'_>) {
        match asking {
            Asking::Table => {
                writer.put_u16(self.at.table_id.map_or(0, PacketId::get));
                for filter in self.batch(table) {
                    writer.put_binary(filter.text().as_bytes()); // [MQTT-3.8.3-1]
                    writer.put(&[filter.qos().bits()]);
                }
            }
            Asking::Records(id) => {
                writer.put_u16(id.get());
                let mut at = 0;
                while let Some(record) = self.record(at) {
                    if record.id == id.get() {
                        writer.put(record.wire); // [MQTT-3.8.3-1] [MQTT-3.10.3-1]
                        if record.flags & LEAVING == 0 {
                            writer.put(&[record.flags & QOS]);
                        }
                    }
                    at = record.next;
                }
            }
        }
    }

    /// A request has left whole.
    pub fn sent(&mut self, asking: Asking) {
        match asking {
            Asking::Table => self.at.is_table_sent = true,
            Asking::Records(id) => {
                self.change(Which { id: id.get(), mask: 0, flags: 0 }, 0, UNSENT);
            }
        }
    }

    // Questions

    /// Marks the identifiers in use.
    pub fn mark_ids(&self, window: &mut Window) {
        window.mark(self.at.table_id.map_or(0, PacketId::get));
        let mut at = 0;
        while let Some(record) = self.record(at) {
            window.mark(record.id);
            at = record.next;
        }
    }

    /// Whether `id` is in use.
    #[cfg(feature = "durable")]
    pub fn uses(&self, id: PacketId) -> bool {
        let mut at = 0;
        while let Some(record) = self.record(at) {
            if record.id == id.get() {
                return true;
            }
            at = record.next;
        }
        self.at.table_id == Some(id)
    }

    /// Whether a request waits to be sent or answered.
    pub fn is_waiting(&self, table: &[Filter<'_>]) -> bool {
        let mut at = 0;
        while let Some(record) = self.record(at) {
            if record.flags & LIVE == 0 {
                return true;
            }
            at = record.next;
        }
        self.at.table_next < table.len()
    }

    // Helpers

    fn batch<'t, 'f>(&self, table: &'t [Filter<'f>]) -> &'t [Filter<'f>] {
        let rest = table.get(self.at.table_next..).unwrap_or_default();
        rest.get(..BATCH).unwrap_or(rest)
    }

    fn append(&mut self, id: PacketId, flags: u8, filter: &str) {
        let free = self.buf.get_mut(self.at.len..).unwrap_or_default();
        let mut writer = Writer::new(0, free);
        writer.put_u16(id.get());
        writer.put(&[flags]);
        writer.put_binary(filter.as_bytes());
        self.at.len = self.at.len.wrapping_add(writer.written());
        self.at.has_unsent = true;
    }

    fn record(&self, at: usize) -> Option<Record<'_>> {
        let bytes = self.buf.get(at..self.at.len)?;
        let ([id_high, id_low, flags, len_high, len_low], _) = bytes.split_first_chunk::<RECORD_HEAD>()?;
        let len = filter_len(usize::from(u16::from_be_bytes([*len_high, *len_low])));
        let wire = bytes.get(RECORD_HEAD.wrapping_sub(2)..len)?;
        Some(Record { next: at.wrapping_add(len), id: u16::from_be_bytes([*id_high, *id_low]), flags: *flags, wire })
    }

    fn set_flags(&mut self, at: usize, flags: u8) {
        if let Some(place) = self.buf.get_mut(at.wrapping_add(2)) {
            *place = flags;
        }
    }

    /// Sets and clears flags of the records that `which` names, and counts them.
    fn change(&mut self, which: Which, set: u8, clear: u8) -> usize {
        let mut count = 0_usize;
        let mut at = 0;
        while let Some(record) = self.record(at) {
            let next = record.next;
            if which.is(&record) {
                let flags = record.flags & !clear | set;
                count = count.wrapping_add(1);
                self.set_flags(at, flags);
            }
            at = next;
        }
        count
    }

    /// Dooms the SUBSCRIBEs of other requests for the filter of the record at `newer`: all of them, or those with all
    /// of `flags`.
    fn doom_same(&mut self, newer: usize, flags: u8) {
        let mut at = 0;
        while let (Some(record), Some(new)) = (self.record(at), self.record(newer)) {
            let (next, new_flags) = (record.next, record.flags | DOOMED);
            let is_meant = record.id != new.id && record.flags & (flags | LEAVING) == flags;
            if is_meant && record.wire == new.wire {
                self.set_flags(at, new_flags);
            }
            at = next;
        }
    }

    /// Removes what is doomed and answered.
    fn sweep(&mut self) {
        let mut at = 0;
        while let Some(record) = self.record(at) {
            let from = record.next;
            if record.flags & (LIVE | DOOMED) == LIVE | DOOMED {
                let rest = self.at.len.wrapping_sub(from);
                bytes::slide(self.buf, at, from, rest);
                self.at.len = at.wrapping_add(rest);
            } else {
                at = from;
            }
        }
    }
}

#[cfg(feature = "verify")]
impl<'s> Filters<'s> {
    /// State and memory apart, what is unused cleared.
    pub fn into_parts(mut self) -> (State, &'s mut [u8]) {
        self.buf.get_mut(self.at.len..).unwrap_or_default().fill(0);
        self.at.has_unsent = self.next_request().is_some();
        (self.at, self.buf)
    }

    pub fn from_parts(at: State, buf: &'s mut [u8]) -> Self {
        Self { buf, at }
    }

    /// One identifier per request.
    pub fn request_ids(&self) -> impl Iterator<Item = u16> + '_ {
        let mut at = 0;
        let mut last = 0;
        let records = core::iter::from_fn(move || {
            let record = self.record(at)?;
            at = record.next;
            Some(record.id)
        });
        records.filter(move |id| core::mem::replace(&mut last, *id) != *id).chain(self.at.table_id.map(PacketId::get))
    }
}

impl Which {
    fn is(self, record: &Record<'_>) -> bool {
        let is_id = self.id == 0 || self.id == record.id;
        is_id && record.flags & self.mask == self.flags
    }
}

const _: () = assert!(QOS == QoS::ExactlyOnce.bits() | QoS::AtLeastOnce.bits());
