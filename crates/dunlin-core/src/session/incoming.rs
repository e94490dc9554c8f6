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
        let kind = if header.is_publish() {
            let flags = Flags::read(header.first)?;
            let head = publish::head(flags, body)?;
            let receipt = match self.inbound.on_publish(flags.qos, head.id) {
                Verdict::Show(receipt) => Some(receipt),
                Verdict::Taken => None,
                Verdict::Stall => return Err(Stop::Wait),
                Verdict::TooMany => return Err(Stop::Fault(Fault::TooMany)),
            };
            let Some(receipt) = receipt else {
                inbox.drop_front(len);
                return Ok(None);
            };
            self.inbound.shown();
            inbox.take(len, head.payload_len, header.len.wrapping_add(2), head.topic_len);
            return Ok(Some(Kind::Message { flags, receipt }));
        } else if header.first == header::SUBACK {
            self.on_suback(body)?
        } else {
            self.on_short(header.first, body)?
        };
        match kind {
            Some(_) => inbox.take(len, header.remaining.wrapping_sub(2), 0, 0),
            None => inbox.drop_front(len),
        }
        Ok(kind)
    }

    #[cfg(not(feature = "large"))]
    #[allow(clippy::unused_self)]
    fn too_large(&mut self, _: Header, len: usize, _: &mut Inbox<'_>) -> Result<Option<Kind>, Stop> {
        Err(Stop::Fault(Fault::TooLarge { len }))
    }

    /// CONNACK comes first and once [MQTT-3.2.0-1], and messages may come before the SUBACK of the filter that brought
    /// them [MQTT-3.3.1-6]; what this build never asks for does not come.
    fn check_place(&self, header: Header) -> Result<(), Violation> {
        let is_connack = header.first == header::CONNACK;
        let is_asked_for = cfg!(feature = "subscribe") || !header.is_publish();
        let is_time = self.link == if is_connack { Link::Await } else { Link::Up };
        if !is_time || !is_asked_for {
            return Err(Violation::OutOfPlace);
        }
        if header.is_publish() {
            Flags::read(header.first)?;
        }
        Ok(())
    }

    /// The packets of two bytes after the header, and of none.
    fn on_short(&mut self, first: u8, body: &[u8]) -> Result<Option<Kind>, Stop> {
        let durable = self.options.is_durable();
        match first {
            header::CONNACK => return self.on_connack(body),
            // [MQTT-3.12.4-1]
            header::PINGRESP => {
                self.keep_alive.on_pingresp();
                return Ok(None);
            }
            _ => {}
        }
        let (id, _) = reader::packet_id(body)?;
        let (is_known, kind) = match first {
            header::PUBACK => (cfg!(feature = "qos1") && self.outbound.on_puback(id, durable), Kind::Delivered(id)),
            header::PUBCOMP => (cfg!(feature = "qos2") && self.outbound.on_pubcomp(id, durable), Kind::Delivered(id)),
            header::UNSUBACK => (cfg!(feature = "subscribe") && self.filters.on_unsuback(id), Kind::Unsubscribed(id)),
            header::PUBREC if cfg!(feature = "qos2") => return self.on_pubrec(id),
            header::PUBREL if cfg!(feature = "qos2") => return taken(self.inbound.on_pubrel(id, durable)),
            _ => (false, Kind::Delivered(id)),
        };
        if is_known {
            return Ok(Some(kind));
        }
        self.ignored = self.ignored.wrapping_add(1); // it fits nothing; harmless
        Ok(None)
    }

    fn on_connack(&mut self, body: &[u8]) -> Result<Option<Kind>, Stop> {
        let resumed = match connect::connack(body)? {
            Connack::Accepted { session_present } => session_present,
            Connack::Refused(refusal) => return Err(Stop::Fault(Fault::Refused(refusal))), // [MQTT-3.2.2-5]
        };
        if resumed && self.options.clean_session() {
            return Err(Stop::from(Violation::SessionPresent)); // [MQTT-3.2.2-1]
        }
        if !resumed {
            self.rewind(Server::HasForgotten); // [MQTT-3.2.2-3]
        }
        // The session may be one that the server made for a CONNECT whose answer was lost: without subscriptions.
        if self.connects > 1 {
            self.rewind_requests(Server::HasForgotten);
        }
        self.connects = 0;
        #[cfg(feature = "table")]
        self.table.on_connected();
        self.keep_alive.on_connack();
        self.link = Link::Up;
        Ok(Some(Kind::Connected { resumed }))
    }

    fn on_suback(&mut self, body: &[u8]) -> Result<Option<Kind>, Stop> {
        let (id, codes) = reader::packet_id(body)?;
        subscribe::check_codes(codes)?;
        if !cfg!(feature = "subscribe") {
            return Ok(None);
        }
        #[cfg(feature = "table")]
        if let Some(first) = self.table.on_suback(id, codes.len(), self.options.subscriptions)? {
            return Ok(Some(Kind::Subscribed(Request::Table { first })));
        }
        if self.filters.on_suback(id, codes)? {
            return Ok(Some(Kind::Subscribed(Request::Filters(id))));
        }
        self.ignored = self.ignored.wrapping_add(1);
        Ok(None)
    }

    fn on_pubrec(&mut self, id: PacketId) -> Result<Option<Kind>, Stop> {
        let answer = self.outbound.on_pubrec(id, self.options.is_durable());
        if answer == Answer::Unknown {
            taken(self.inbound.on_stray_pubrec(id))?;
        }
        if answer != Answer::Taken {
            self.ignored = self.ignored.wrapping_add(1);
        }
        Ok(None)
    }
}

/// A packet that has only an answer was taken, or must wait for its turn.
fn taken(verdict: Verdict) -> Result<Option<Kind>, Stop> {
    if verdict == Verdict::Stall { Err(Stop::Wait) } else { Ok(None) }
}
