//! Filters subscribed to at run time, and the requests that make it so. Those of the static table are in `table`.
//!
//! Each filter has one record in `Memory::filters`. A request keeps its packet identifier as long as one of its filters is subscribed, so
//! that the session can send it again, under the same name, when the server has lost the session.
//!
//! A record is: identifier (2 bytes), flags (1), length of the filter (2), filter. The last two are the bytes that
//! SUBSCRIBE wants, so requests are written straight from the records.

#[cfg(any(feature = "durable", feature = "subscribe"))]
use super::error::SubscribeError;
use super::ids::Ids;
use super::message::Server;
use crate::bytes;
use crate::memory::filter_len;
use crate::packet::subscribe::FAILURE;
use crate::packet::writer::Writer;
use crate::packet::{PacketId, QoS, Violation, header};
#[cfg(feature = "subscribe")]
use crate::topic;
#[cfg(feature = "subscribe")]
use crate::topic::Filter;

/// Bytes of a record before the filter.
pub(crate) const RECORD_HEAD: usize = 5;

/// Flags of a record. The two lowest bits are the quality of service, and all that leaves of them [MQTT-3.8.3-4].
const QOS: u8 = 0x03;
/// To be sent on this connection.
const UNSENT: u8 = 0x04;
/// Answered: the filter is subscribed.
const LIVE: u8 = 0x08;
/// To be removed once it is answered.
const DOOMED: u8 = 0x10;
/// An UNSUBSCRIBE, not a SUBSCRIBE: what their first bytes differ in.
const LEAVING: u8 = header::SUBSCRIBE ^ header::UNSUBSCRIBE;

pub(crate) struct Filters<'s> {
    buf: &'s mut [u8],
    at: State,
}

/// Where things stand; plain numbers, so that a session can be taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// Records lie in `buf[..len]`.
    len: usize,
    /// Some record may be unsent.
    has_unsent: bool,
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
        Self { buf, at: State { len: 0, has_unsent: false } }
    }

    // Requests of the application

    /// Checks a SUBSCRIBE.
    #[cfg(feature = "subscribe")]
    pub fn check_subscribe(&self, filters: &[Filter<'_>]) -> Result<(), SubscribeError> {
        self.check_room(room(filters.iter().map(Filter::text)))
    }

    /// Checks an UNSUBSCRIBE.
    #[cfg(feature = "subscribe")]
    pub fn check_unsubscribe(&self, filters: &[&str]) -> Result<(), SubscribeError> {
        if filters.iter().any(|filter| !topic::is_filter(filter)) {
            return Err(SubscribeError::InvalidFilter);
        }
        self.check_room(room(filters.iter().copied()))
    }

    #[cfg(any(feature = "durable", feature = "subscribe"))]
    pub fn check_room(&self, needed: usize) -> Result<(), SubscribeError> {
        if needed == 0 {
            return Err(SubscribeError::Empty); // [MQTT-3.8.3-3] [MQTT-3.10.3-2]
        }
        if needed > self.buf.len().wrapping_sub(self.at.len) { Err(SubscribeError::Full) } else { Ok(()) }
    }

    /// Takes a SUBSCRIBE that was checked. It replaces older ones for the same filters [MQTT-3.8.4-3].
    #[cfg(feature = "subscribe")]
    pub fn subscribe(&mut self, id: PacketId, filters: &[Filter<'_>]) {
        for filter in filters {
            self.subscribe_to(id, filter.text().as_bytes(), filter.qos());
        }
    }

    /// The same for one filter.
    #[cfg(any(feature = "durable", feature = "subscribe"))]
    pub fn subscribe_to(&mut self, id: PacketId, filter: &[u8], qos: QoS) {
        self.append(id, qos.bits() | UNSENT, filter);
    }

    /// Takes an UNSUBSCRIBE that was checked. What it names is not subscribed to again from now on.
    #[cfg(feature = "subscribe")]
    pub fn unsubscribe(&mut self, id: PacketId, filters: &[&str]) {
        for filter in filters {
            self.unsubscribe_from(id, filter.as_bytes());
        }
    }

    /// The same for one filter.
    #[cfg(feature = "subscribe")]
    pub fn unsubscribe_from(&mut self, id: PacketId, filter: &[u8]) {
        self.append(id, LEAVING | UNSENT, filter);
    }

    // The connection

    /// What was not answered is asked again. When the server has forgotten the session, everything is.
    pub fn rewind(&mut self, server: Server) {
        let (mask, clear) = match server {
            Server::MayRemember => (LIVE, 0),
            Server::HasForgotten => (0, LIVE),
        };
        self.change(Which { id: 0, mask, flags: 0 }, UNSENT, clear, &[]);
        self.at.has_unsent = true;
    }

    // Packets that came

    /// A SUBACK for filters added at run time. `true` when it answers a request [MQTT-3.8.4-2]. Until one comes the
    /// request stays open, and goes out again on the next connection [MQTT-3.8.4-1].
    pub fn on_suback(&mut self, id: PacketId, codes: &[u8]) -> Result<bool, Violation> {
        let answered = Which { id: id.get(), mask: LEAVING | UNSENT | LIVE, flags: 0 };
        let count = self.change(answered, 0, 0, &[]);
        if count == 0 {
            return Ok(false);
        }
        if count != codes.len() {
            return Err(Violation::ReturnCodeCount); // [MQTT-3.8.4-5]
        }
        self.change(answered, LIVE, 0, codes);
        Ok(true)
    }

    /// An UNSUBACK. `true` when it answers a request [MQTT-3.10.4-4].
    pub fn on_unsuback(&mut self, id: PacketId) -> bool {
        let answered = Which { id: id.get(), mask: LEAVING | UNSENT, flags: LEAVING };
        self.change(answered, LIVE | DOOMED, 0, &[]) > 0
    }

    // What leaves

    /// Whether there may be a request that is to leave.
    #[cfg(feature = "subscribe")]
    pub fn may_request(&self) -> bool {
        self.at.has_unsent
    }

    /// The request for records that is to leave next, if any: its first byte and identifier.
    #[cfg(any(feature = "subscribe", feature = "suspend"))]
    pub fn next_request(&mut self) -> Option<(u8, PacketId)> {
        if !self.at.has_unsent {
            return None;
        }
        let mut at = 0;
        while let Some(record) = self.record(at) {
            if record.flags & UNSENT != 0 {
                let first = header::SUBSCRIBE ^ (record.flags & LEAVING);
                return PacketId::new(record.id).map(|id| (first, id));
            }
            at = record.next;
        }
        self.at.has_unsent = false;
        None
    }

    /// Writes the request `id`, without its fixed header and identifier.
    pub fn write(&self, id: u16, writer: &mut Writer<'_>) {
        let mut at = 0;
        while let Some(record) = self.record(at) {
            if record.id == id {
                writer.put(record.wire); // [MQTT-3.8.3-1] [MQTT-3.10.3-1]
                if record.flags & LEAVING == 0 {
                    writer.put_byte(record.flags & QOS);
                }
            }
            at = record.next;
        }
    }

    /// The request `id` has left whole.
    pub fn sent(&mut self, id: u16) {
        self.change(Which { id, mask: 0, flags: 0 }, 0, UNSENT, &[]);
    }

    // Questions

    /// Marks the identifiers in use.
    pub fn mark_ids(&self, ids: &mut Ids) {
        let mut at = 0;
        while let Some(record) = self.record(at) {
            ids.mark(record.id);
            at = record.next;
        }
    }

    /// Whether a request waits to be sent or answered.
    pub fn is_waiting(&self) -> bool {
        let mut at = 0;
        while let Some(record) = self.record(at) {
            if record.flags & LIVE == 0 {
                return true;
            }
            at = record.next;
        }
        false
    }

    // Helpers

    /// Adds a record, and dooms the SUBSCRIBEs before it for the same filter.
    #[cfg(any(feature = "durable", feature = "subscribe"))]
    fn append(&mut self, id: PacketId, flags: u8, filter: &[u8]) {
        let mut at = 0;
        while let Some(record) = self.record(at) {
            let next = record.next;
            let is_same = matches!(record.wire, [_, _, text @ ..] if is_same(text, filter));
            let flags = if is_same && record.flags & LEAVING == 0 { record.flags | DOOMED } else { record.flags };
            at = self.update(at, next, flags);
        }
        let mut writer = Writer::new(self.buf);
        writer.begin(self.at.len);
        writer.put_u16(id.get());
        writer.put_byte(flags);
        writer.put_binary(filter);
        self.at.len = writer.at();
        self.at.has_unsent = true;
    }

    #[inline(always)] // so that only what is looked at is read
    fn record(&self, at: usize) -> Option<Record<'_>> {
        let bytes = self.record_bytes(at);
        let [id_high, id_low, flags, wire @ ..] = bytes else { return None };
        let id = u16::from_be_bytes([*id_high, *id_low]);
        Some(Record { next: at.wrapping_add(bytes.len()), id, flags: *flags, wire })
    }

    /// The bytes of the record at `at`, none if there is none.
    #[inline(never)] // for many loops
    fn record_bytes(&self, at: usize) -> &[u8] {
        let bytes = self.buf.get(at..self.at.len).unwrap_or_default();
        let Some((head, _)) = bytes.split_first_chunk::<RECORD_HEAD>() else { return &[] };
        let [_, _, _, len_high, len_low] = *head;
        let len = filter_len(usize::from(u16::from_be_bytes([len_high, len_low])));
        bytes.get(..len).unwrap_or_default()
    }

    /// Sets and clears flags of the records that `which` names, and counts them. Those that `codes` refuse, in their
    /// order, are doomed; what is doomed and answered is removed.
    fn change(&mut self, which: Which, set: u8, clear: u8, codes: &[u8]) -> usize {
        let mut codes = codes.iter();
        let mut count = 0_usize;
        let mut at = 0;
        while let Some(record) = self.record(at) {
            let next = record.next;
            let mut flags = record.flags;
            if which.is(&record) {
                flags = flags & !clear | set;
                if codes.next() == Some(&FAILURE) {
                    flags |= DOOMED;
                }
                count = count.wrapping_add(1);
            }
            at = self.update(at, next, flags);
        }
        count
    }

    /// Gives the record from `at` to `next` these flags, or removes it when it is doomed and answered. Says where the
    /// next one is now.
    fn update(&mut self, at: usize, next: usize, flags: u8) -> usize {
        if flags & (LIVE | DOOMED) == LIVE | DOOMED {
            let rest = self.at.len.wrapping_sub(next);
            bytes::slide(self.buf, at, next, rest);
            self.at.len = at.wrapping_add(rest);
            return at;
        }
        if let Some(place) = self.buf.get_mut(at.wrapping_add(2)) {
            *place = flags;
        }
        next
    }
}

#[cfg(feature = "suspend")]
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
    #[cfg(feature = "verify")]
    pub fn request_ids(&self) -> impl Iterator<Item = u16> + '_ {
        let mut at = 0;
        let mut last = 0;
        let records = core::iter::from_fn(move || {
            let record = self.record(at)?;
            at = record.next;
            Some(record.id)
        });
        records.filter(move |id| core::mem::replace(&mut last, *id) != *id)
    }
}

/// Bytes that the records of these filters take.
#[cfg(feature = "subscribe")]
pub(crate) fn room<'f>(filters: impl Iterator<Item = &'f str>) -> usize {
    filters.fold(0, |sum, filter| sum.wrapping_add(filter_len(filter.len())))
}

/// Not by `==`, which would call `memcmp`: in many a program it would be the only one who does.
#[cfg(any(feature = "durable", feature = "subscribe"))]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b)
}

impl Which {
    fn is(self, record: &Record<'_>) -> bool {
        let is_id = self.id == 0 || self.id == record.id;
        is_id && record.flags & self.mask == self.flags
    }
}

const _: () = assert!(QOS == QoS::ExactlyOnce.bits() | QoS::AtLeastOnce.bits());
