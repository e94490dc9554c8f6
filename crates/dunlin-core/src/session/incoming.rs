//! Packets that came, told apart: each goes to the part of the session that it is about.

use super::event::{Kind, Request};
use super::inbound::Verdict;
use super::outbound::{Answer, Server};
use super::{Fault, Link, Session};
use crate::inbox::Inbox;
use crate::log;
use crate::packet::connect::{self, Connack};
use crate::packet::header::{self, Header};
use crate::packet::publish::{self, Flags};
use crate::packet::{PacketId, Violation, reader, subscribe};

/// Why nothing more is taken from the inbox.
pub(super) enum Stop {
    /// More bytes must come, or something must leave first.
    Wait,
    Fault(Fault),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Self::Fault(Fault::Malformed(violation))
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Session<'_> {
    /// Takes one packet from the front of the inbox, or a piece of a large one. `None`: there is nothing to tell.
    pub(super) fn step(&mut self, inbox: &mut Inbox<'_>) -> Result<Option<Kind>, Stop> {
        #[cfg(feature = "large")]
        if !self.large.is_idle() {
            return self.go_on_large(inbox);
        }
        let header = header::read(inbox.pending())?.ok_or(Stop::Wait)?;
        self.check_place(header)?;
        let len = header.len.wrapping_add(header.remaining);
        if len > inbox.capacity() {
            return self.too_large(header, len, inbox);
        }
        let body = inbox.pending().get(header.len..len).ok_or(Stop::Wait)?;
        log::received(header.first, len);
        if cfg!(feature = "subscribe") && header.is_publish() {
            let flags = Flags::new(header.first);
            let head = publish::head(flags, body)?;
            let payload_len = header.remaining.wrapping_sub(head.len);
            let is_new = self.admit_received(flags, head.id)?;
            inbox.take(len, payload_len, header.len.wrapping_add(2), head.topic_len);
            return Ok(if is_new { Some(self.message(flags, head.id)) } else { None });
        }
        let is_suback = cfg!(feature = "subscribe") && header.first == header::SUBACK;
        let kind = if is_suback { self.on_suback(body) } else { self.on_short(header.first, body) };
        if !matches!(kind, Err(Stop::Wait)) {
            inbox.take(len, header.remaining.wrapping_sub(2), 0, 0);
        }
        kind
    }

    /// Takes note of a message before it is shown. Whether it is to be shown.
    pub(super) fn admit_received(&mut self, flags: Flags, id: Option<PacketId>) -> Result<bool, Stop> {
        let Some(id) = id else { return Ok(true) };
        match self.inbound.on_publish(flags, id, self.options.is_durable()) {
            Verdict::Show => Ok(true),
            Verdict::Taken => Ok(false),
            Verdict::Stall => Err(Stop::Wait),
            Verdict::TooMany => Err(Stop::Fault(Fault::TooMany)),
        }
    }

    /// A whole message is shown.
    fn message(&mut self, flags: Flags, id: Option<PacketId>) -> Kind {
        if id.is_some() {
            self.inbound.shown();
        }
        Kind::Message {
            flags,
            #[cfg(feature = "manual")]
            receipt: id.map(|id| self.inbound.receipt(flags.is_qos2(), id)),
        }
    }

    #[cfg(not(feature = "large"))]
    #[allow(clippy::unused_self)]
    fn too_large(&mut self, _: Header, len: usize, _: &mut Inbox<'_>) -> Result<Option<Kind>, Stop> {
        Err(Stop::Fault(Fault::TooLarge { len }))
    }

    /// CONNACK comes first and once [MQTT-3.2.0-1], and messages may come before the SUBACK of the filter that brought
    /// them [MQTT-3.3.1-6]; what this build never asks for does not come.
    fn check_place(&self, header: Header) -> Result<(), Violation> {
        let time = if header.first == header::CONNACK { Link::Await } else { Link::Up };
        let is_asked_for = cfg!(feature = "subscribe") || !header.is_publish();
        if self.link == time && is_asked_for { Ok(()) } else { Err(Violation::OutOfPlace) }
    }

    /// The packets of two bytes after the header, and of none.
    fn on_short(&mut self, first: u8, body: &[u8]) -> Result<Option<Kind>, Stop> {
        let durable = self.options.is_durable();
        match first {
            header::CONNACK => return self.on_connack(body),
            // [MQTT-3.12.4-1]
            header::PINGRESP => {
                self.keep_alive.on_answer(); // [MQTT-3.12.4-1]
                return Ok(None);
            }
            _ => {}
        }
        let id = reader::packet_id(body, 0)?;
        match first {
            header::PUBACK | header::PUBREC | header::PUBCOMP => return self.on_ack(first, id),
            header::PUBREL if cfg!(feature = "qos2") => return taken(self.inbound.on_pubrel(id, durable)),
            header::UNSUBACK if cfg!(feature = "subscribe") && self.filters.on_unsuback(id) => {
                return Ok(Some(Kind::Unsubscribed(id)));
            }
            _ => {}
        }
        Ok(self.ignore())
    }

    fn on_ack(&mut self, first: u8, id: PacketId) -> Result<Option<Kind>, Stop> {
        if !cfg!(feature = "qos1") {
            return Ok(self.ignore());
        }
        match self.outbound.on_ack(first, id, self.options.is_durable()) {
            Answer::Over => return Ok(Some(Kind::Delivered(id))),
            Answer::Taken => return Ok(None),
            Answer::Unknown if cfg!(feature = "qos2") && first == header::PUBREC => {
                taken(self.inbound.on_stray_pubrec(id))?;
            }
            Answer::Unknown | Answer::Ignored => {}
        }
        Ok(self.ignore())
    }

    /// Counts an acknowledgement that fits nothing; it is harmless.
    fn ignore(&mut self) -> Option<Kind> {
        self.ignored = self.ignored.wrapping_add(1);
        None
    }

    fn on_connack(&mut self, body: &[u8]) -> Result<Option<Kind>, Stop> {
        let resumed = match connect::connack(body)? {
            Connack::Accepted { session_present } => session_present,
            Connack::Refused(refusal) => return Err(Stop::Fault(Fault::Refused(refusal))), // [MQTT-3.2.2-5]
        };
        if resumed && self.options.clean_session() {
            return Err(Stop::from(Violation::SessionPresent)); // [MQTT-3.2.2-1]
        }
        let server = if resumed { Server::MayRemember } else { Server::HasForgotten };
        if !resumed {
            self.outbound.rewind(server); // [MQTT-3.2.2-3]
        }
        // The session may be one that the server made for a CONNECT whose answer was lost: without subscriptions.
        if !resumed || self.connects > 1 {
            self.renew(server);
        }
        self.connects = 0;
        #[cfg(feature = "table")]
        self.table.on_connected();
        self.keep_alive.on_answer();
        self.link = Link::Up;
        Ok(Some(Kind::Connected { resumed }))
    }

    fn on_suback(&mut self, body: &[u8]) -> Result<Option<Kind>, Stop> {
        let id = reader::packet_id(body, 0)?;
        let codes = body.get(2..).unwrap_or_default();
        subscribe::check_codes(codes)?;
        #[cfg(feature = "table")]
        if let Some(first) = self.table.on_suback(id, codes.len(), self.options.subscriptions)? {
            return Ok(Some(Kind::Subscribed(Request::Table { first })));
        }
        if self.filters.on_suback(id, codes)? {
            return Ok(Some(Kind::Subscribed(Request::Filters(id))));
        }
        Ok(self.ignore())
    }
}

/// A packet that has only an answer was taken, or must wait for its turn.
fn taken(verdict: Verdict) -> Result<Option<Kind>, Stop> {
    if verdict == Verdict::Stall { Err(Stop::Wait) } else { Ok(None) }
}
