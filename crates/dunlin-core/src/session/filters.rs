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
use crate::bytes;
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
    /// Whether a record may be unsent.
    has_unsent: bool,
    /// The first filter of the static table that is not known to be subscribed.
    table_next: usize,
    /// The SUBSCRIBE for the filters from there on.
    table_id: Option<PacketId>,
    is_table_sent: bool,
    /// The table has been subscribed to since the session began.
    is_table_known: bool,
}

/// One record: where it begins, where the next one does, and what it holds.
#[derive(Clone, Copy)]
struct Record<'a> {
    at: usize,
    next: usize,
    id: u16,
    flags: u8,
    /// Length and filter, as on the wire.
    wire: &'a [u8],
}

impl<'s> Filters<'s> {
    pub fn new(buf: &'s mut [u8]) -> Self {
        let at = State {
            len: 0,
            has_unsent: false,
            table_next: 0,
            table_id: None,
            is_table_sent: false,
            is_table_known: false,
        };
        Self { buf, at }
    }

    // Requests of the application

    /// Checks a SUBSCRIBE.
    pub fn check_subscribe(&self, filters: &[Filter<'_>]) -> Result<(), SubscribeError> {
        self.check_room(filters.iter().map(|filter| filter.text()))
    }

    /// Checks an UNSUBSCRIBE.
    pub fn check_unsubscribe(&self, filters: &[&str]) -> Result<(), SubscribeError> {
        if filters.iter().any(|filter| !topic::is_filter(filter)) {
            return Err(SubscribeError::InvalidFilter);
        }
        self.check_room(filters.iter().copied())
    }

    fn check_room<'a>(&self, filters: impl Iterator<Item = &'a str>) -> Result<(), SubscribeError> {
        let needed = filters.fold(0_usize, |sum, filter| sum.wrapping_add(RECORD_HEAD).wrapping_add(filter.len()));
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
        self.at.has_unsent = true;
    }

    /// Takes an UNSUBSCRIBE that was checked. What it names is not subscribed to again from now on.
    pub fn unsubscribe(&mut self, id: PacketId, filters: &[&str]) {
        for filter in filters {
            self.doom(|record| record.flags & LEAVING == 0 && record.text() == filter.as_bytes());
            self.append(id, LEAVING | UNSENT, filter);
        }
        self.sweep();
        self.at.has_unsent = true;
    }

    /// Takes back, after a restart, a filter that was subscribed to.
    pub fn restore(&mut self, id: PacketId, filter: &Filter<'_>) {
        self.append(id, filter.qos().bits() | LIVE, filter.text());
    }

    // The connection

    /// The stream is gone: what was not answered is asked again.
    pub fn rewind(&mut self) {
        self.set_flags(|record| if record.flags & LIVE == 0 { record.flags | UNSENT } else { record.flags });
        self.at.has_unsent = true;
        self.at.table_id = None;
        self.at.is_table_sent = false;
    }

    /// The server has no session: everything is subscribed to again.
    pub fn on_session_lost(&mut self) {
        self.set_flags(|record| (record.flags | UNSENT) & !LIVE);
        self.at.has_unsent = true;
        self.at.is_table_known = false;
    }

    /// The server accepted the connection. A table that this session has never seen answered is subscribed to even
    /// if the server has a session: the program may be newer than that.
    pub fn on_connected(&mut self) {
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
        codes: &[u8],
        table: &[Filter<'_>],
    ) -> Result<Option<usize>, Violation> {
        if self.at.table_id != Some(id) || !self.at.is_table_sent {
            return Ok(None);
        }
        let first = self.at.table_next;
        if codes.len() != self.batch(table).len() {
            return Err(Violation::ReturnCodeCount);
        }
        self.at.table_id = None;
        self.at.is_table_sent = false;
        self.at.table_next = first.wrapping_add(codes.len());
        Ok(Some(first))
    }

    /// A SUBACK for filters added at run time. `true` when it answers a request [MQTT-3.8.4-2].
    pub fn on_suback(&mut self, id: PacketId, codes: &[u8]) -> Result<bool, Violation> {
        let is_answered = |record: &Record<'_>| record.id == id.get() && record.flags & (LEAVING | UNSENT | LIVE) == 0;
        let count = self.records().filter(is_answered).fold(0_usize, |count, _| count.wrapping_add(1));
        if count == 0 {
            return Ok(false);
        }
        if count != codes.len() {
            return Err(Violation::ReturnCodeCount); // [MQTT-3.8.4-5]
        }
        let mut codes = codes.iter();
        self.set_flags(|record| {
            if !is_answered(record) {
                return record.flags;
            }
            let is_refused = codes.next() == Some(&FAILURE);
            record.flags | LIVE | if is_refused { DOOMED } else { 0 }
        });
        self.doom_older(id);
        self.sweep();
        Ok(true)
    }

    /// An UNSUBACK. `true` when it answers a request.
    pub fn on_unsuback(&mut self, id: PacketId) -> bool {
        let is_answered = |record: &Record<'_>| record.id == id.get() && record.flags & (LEAVING | UNSENT) == LEAVING;
        let is_known = self.records().any(|record| is_answered(&record));
        if is_known {
            self.set_flags(|record| if is_answered(record) { record.flags | LIVE | DOOMED } else { record.flags });
            self.sweep();
        }
        is_known
    }

    // What leaves

    /// The request that is to leave next, if any.
    pub fn next_request(&mut self) -> Option<PacketId> {
        if !self.at.has_unsent {
            return None;
        }
        let next = self.records().find(|record| record.flags & UNSENT != 0).and_then(|record| PacketId::new(record.id));
        self.at.has_unsent = next.is_some();
        next
    }

    /// Bytes `sent..` of the request `id`, as many as fit `out`; gives how many, and the length of the whole packet.
    pub fn encode(&self, id: PacketId, sent: usize, out: &mut [u8]) -> (usize, usize) {
        let records = || self.records().filter(move |record| record.id == id.get());
        let is_leaving = records().any(|record| record.flags & LEAVING != 0);
        let first = if is_leaving { header::UNSUBSCRIBE } else { header::SUBSCRIBE };
        let write = |writer: &mut Writer<'_>| {
            for record in records() {
                writer.put(record.wire); // [MQTT-3.8.3-1] [MQTT-3.10.3-1]
                if !is_leaving {
                    writer.put(&[record.flags & QOS]);
                }
            }
        };
        encode(first, id, write, sent, out)
    }

    /// The request `id` has left whole.
    pub fn request_sent(&mut self, id: PacketId) {
        self.set_flags(|record| if record.id == id.get() { record.flags & !UNSENT } else { record.flags });
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

    /// As [`encode`](Self::encode), for the static table.
    pub fn encode_table(&self, table: &[Filter<'_>], sent: usize, out: &mut [u8]) -> (usize, usize) {
        let Some(id) = self.at.table_id else { return (0, 0) };
        let write = |writer: &mut Writer<'_>| {
            for filter in self.batch(table) {
                writer.put_binary(filter.text().as_bytes());
                writer.put(&[filter.qos().bits()]);
            }
        };
        encode(header::SUBSCRIBE, id, write, sent, out)
    }

    /// It has left whole.
    pub fn table_sent(&mut self) {
        self.at.is_table_sent = true;
    }

    // Questions

    /// Marks the identifiers in use.
    pub fn mark_ids(&self, window: &mut Window) {
        window.mark(self.at.table_id.map_or(0, PacketId::get));
        for record in self.records() {
            window.mark(record.id);
        }
    }

    /// The identifiers in use.
    #[cfg(any(feature = "durable", feature = "verify"))]
    pub fn ids(&self) -> impl Iterator<Item = u16> + '_ {
        self.records().map(|record| record.id).chain(self.at.table_id.map(PacketId::get))
    }

    /// Whether a request waits to be sent or answered.
    pub fn is_waiting(&self, table: &[Filter<'_>]) -> bool {
        self.at.table_next < table.len() || self.records().any(|record| record.flags & LIVE == 0)
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
    }

    fn records(&self) -> impl Iterator<Item = Record<'_>> + '_ {
        let mut at = 0;
        core::iter::from_fn(move || {
            let record = self.record(at)?;
            at = record.next;
            Some(record)
        })
    }

    fn record(&self, at: usize) -> Option<Record<'_>> {
        let bytes = self.buf.get(at..self.at.len)?;
        let ([id_high, id_low, flags], rest) = bytes.split_first_chunk()?;
        let (len, _) = rest.split_first_chunk()?;
        let wire = rest.get(..usize::from(u16::from_be_bytes(*len)).wrapping_add(2))?;
        let next = at.wrapping_add(3).wrapping_add(wire.len());
        Some(Record { at, next, id: u16::from_be_bytes([*id_high, *id_low]), flags: *flags, wire })
    }

    fn set_flags(&mut self, mut flags: impl FnMut(&Record<'_>) -> u8) {
        let mut at = 0;
        while let Some(record) = self.record(at) {
            let (next, new) = (record.next, flags(&record));
            if let Some(place) = self.buf.get_mut(at.wrapping_add(2)) {
                *place = new;
            }
            at = next;
        }
    }

    fn doom(&mut self, doomed: impl Fn(&Record<'_>) -> bool) {
        self.set_flags(|record| if doomed(record) { record.flags | DOOMED } else { record.flags });
    }

    /// A filter that is subscribed to again replaces the older subscription [MQTT-3.8.4-3].
    fn doom_older(&mut self, id: PacketId) {
        let mut at = 0;
        while let Some(record) = self.record(at) {
            at = record.next;
            let is_replaced = record.id != id.get()
                && record.flags & LIVE != 0
                && self.records().any(|newer| newer.id == id.get() && newer.text() == record.text());
            let (place, flags) = (record.at.wrapping_add(2), record.flags);
            if let (true, Some(place)) = (is_replaced, self.buf.get_mut(place)) {
                *place = flags | DOOMED;
            }
        }
    }

    /// Removes what is doomed and answered.
    fn sweep(&mut self) {
        let mut at = 0;
        while let Some(record) = self.record(at) {
            if record.flags & (LIVE | DOOMED) == LIVE | DOOMED {
                let (from, rest) = (record.next, self.at.len.wrapping_sub(record.next));
                bytes::slide(self.buf, at, from, rest);
                self.at.len = at.wrapping_add(rest);
            } else {
                at = record.next;
            }
        }
    }
}

#[cfg(feature = "verify")]
impl<'s> Filters<'s> {
    /// State and memory apart, what is unused cleared.
    pub fn into_parts(self) -> (State, &'s mut [u8]) {
        self.buf.get_mut(self.at.len..).unwrap_or_default().fill(0);
        (self.at, self.buf)
    }

    pub fn from_parts(at: State, buf: &'s mut [u8]) -> Self {
        Self { buf, at }
    }

    /// One identifier per request.
    pub fn request_ids(&self) -> impl Iterator<Item = u16> + '_ {
        let mut last = 0;
        self.ids().filter(move |id| core::mem::replace(&mut last, *id) != *id)
    }
}

impl<'a> Record<'a> {
    fn text(&self) -> &'a [u8] {
        self.wire.get(2..).unwrap_or_default()
    }
}

/// Fixed header, identifier, and what `write` writes, measured with the code that writes it.
fn encode(first: u8, id: PacketId, write: impl Fn(&mut Writer<'_>), sent: usize, out: &mut [u8]) -> (usize, usize) {
    let mut measure = Writer::new(usize::MAX, &mut []);
    write(&mut measure);
    let mut writer = Writer::new(sent, out);
    writer.put_header(first, measure.total().wrapping_add(2));
    writer.put_u16(id.get());
    write(&mut writer);
    (writer.written(), writer.total())
}

const _: () = assert!(QOS == QoS::ExactlyOnce.bits() | QoS::AtLeastOnce.bits());
