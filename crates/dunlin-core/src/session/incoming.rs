//! Packets that came, told apart: each goes to the part of the session that it is about.

use super::event::{Kind, Request};
use super::message::{Answer, Server, Verdict};
use super::{Fault, Link, Session};
use crate::inbox::Inbox;
use crate::log;
use crate::packet::connect::{self, Connack};
use crate::packet::header::{self, Header};
use crate::packet::publish::{self, Flags};
use crate::packet::{PacketId, Violation, reader, subscribe};

/// Why there is nothing to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// More bytes must come, or something must leave first.
    Wait,
    /// A packet was taken, or the connection is over: see what follows.
    GoOn,
}

impl Session<'_> {
    /// Takes one packet from the front of the inbox, or a piece of a large one, and says what there is to tell.
    #[cfg_attr(feature = "subscribe", inline(never))] // without, it has few ways out
    pub(super) fn step(&mut self, inbox: &mut Inbox<'_>) -> Result<Kind, Pause> {
        #[cfg(feature = "large")]
        if !self.large.is_idle() {
            self.is_quiet = false;
            return self.go_on_large(inbox);
        }
        let Some(pending) = inbox.front() else { return Err(Pause::Wait) };
        let header = self.checked(header::read(pending))?.ok_or(Pause::Wait)?;
        self.checked(self.check_place(header))?;
        let len = header.len.wrapping_add(header.remaining);
        if len > inbox.capacity() {
            return self.too_large(header, len, inbox); // what it is owed, it is owed as it passes
        }
        let body = pending.get(header.len..len).ok_or(Pause::Wait)?;
        self.is_quiet = false;
        log::received(header.first, len);
        if cfg!(feature = "subscribe") && header.is_publish() {
            let flags = Flags::new(header.first);
            let head = self.checked(publish::head(flags, body))?;
            let payload_len = header.remaining.wrapping_sub(head.len);
            inbox.take(len, payload_len, header.len.wrapping_add(2), head.topic_len);
            let is_new = self.admit_received(flags, head.id)?;
            return if is_new { Ok(self.message(flags, head.id)) } else { Err(Pause::GoOn) };
        }
        let number = reader::number(body, 0).unwrap_or_default();
        inbox.take(len, header.remaining.wrapping_sub(2), 0, 0);
        self.on_answer(header.first, number, inbox)
    }

    /// Takes note of a message before it is shown. Whether it is to be shown.
    pub(super) fn admit_received(&mut self, flags: Flags, id: Option<PacketId>) -> Result<bool, Pause> {
        let Some(id) = id else { return Ok(true) };
        match self.inbound.on_publish(flags, id, self.options.is_durable()) {
            Verdict::Show => Ok(true),
            Verdict::Taken => Ok(false),
            Verdict::Stall => Err(Pause::Wait),
            Verdict::TooMany => Err(self.fail(Fault::TooMany)),
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
    fn too_large(&mut self, _: Header, len: usize, _: &mut Inbox<'_>) -> Result<Kind, Pause> {
        Err(self.fail(Fault::TooLarge { len }))
    }

    /// What was read, or the end of the connection.
    pub(super) fn checked<T>(&mut self, read: Result<T, Violation>) -> Result<T, Pause> {
        read.map_err(|violation| self.fail(Fault::Malformed(violation)))
    }

    /// CONNACK comes first and once [MQTT-3.2.0-1], and messages may come before the SUBACK of the filter that brought
    /// them [MQTT-3.3.1-6]; what this build never asks for does not come.
    fn check_place(&self, header: Header) -> Result<(), Violation> {
        let time = if header.first == header::CONNACK { Link::Await } else { Link::Up };
        let is_asked_for = cfg!(feature = "subscribe") || !header.is_publish();
        if self.link == time && is_asked_for { Ok(()) } else { Err(Violation::OutOfPlace) }
    }

    /// All but PUBLISH: a number of two bytes, where there is one, and return codes after that of a SUBACK.
    #[cfg_attr(feature = "qos1", inline(never))] // many ways out, apart from those of `step`
    fn on_answer(&mut self, first: u8, number: u16, inbox: &Inbox<'_>) -> Result<Kind, Pause> {
        match first {
            header::CONNACK => return self.on_connack(number),
            header::PINGRESP => {
                self.keep_alive.on_answer(); // [MQTT-3.12.4-1]
                return Err(Pause::GoOn);
            }
            _ => {}
        }
        let Some(id) = PacketId::new(number) else {
            return Err(self.fail(Fault::Malformed(Violation::PacketId))); // [MQTT-2.3.1-1]
        };
        match first {
            header::PUBACK | header::PUBREC | header::PUBCOMP => return self.on_ack(first, id),
            header::PUBREL if cfg!(feature = "qos2") => {
                return Err(self.inbound.on_pubrel(id, self.options.is_durable()));
            }
            header::SUBACK if cfg!(feature = "subscribe") => return self.on_suback(id, inbox.body()),
            header::UNSUBACK if cfg!(feature = "subscribe") && self.filters.on_unsuback(id) => {
                return Ok(Kind::Unsubscribed(id));
            }
            _ => {}
        }
        Err(self.ignore())
    }

    fn on_ack(&mut self, first: u8, id: PacketId) -> Result<Kind, Pause> {
        if !cfg!(feature = "qos1") {
            return Err(self.ignore());
        }
        match self.outbound.on_ack(first, id, self.options.is_durable()) {
            Answer::Over => return Ok(Kind::Delivered(id)),
            Answer::Taken => return Err(Pause::GoOn),
            Answer::Unknown if cfg!(feature = "qos2") && first == header::PUBREC => {
                if self.inbound.on_stray_pubrec(id) == Pause::Wait {
                    return Err(Pause::Wait);
                }
            }
            Answer::Unknown | Answer::Ignored => {}
        }
        Err(self.ignore())
    }

    /// Counts an acknowledgement that fits nothing; it is harmless.
    fn ignore(&mut self) -> Pause {
        self.ignored = self.ignored.wrapping_add(1);
        Pause::GoOn
    }

    fn on_connack(&mut self, number: u16) -> Result<Kind, Pause> {
        let resumed = match self.checked(connect::connack(number))? {
            Connack::Accepted { session_present } => session_present,
            Connack::Refused(refusal) => return Err(self.fail(Fault::Refused(refusal))), // [MQTT-3.2.2-5]
        };
        if resumed && self.options.clean_session() {
            return Err(self.fail(Fault::Malformed(Violation::SessionPresent))); // [MQTT-3.2.2-1]
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
        Ok(Kind::Connected { resumed })
    }

    fn on_suback(&mut self, id: PacketId, codes: &[u8]) -> Result<Kind, Pause> {
        self.checked(subscribe::check_codes(codes))?;
        #[cfg(feature = "table")]
        {
            let answered = self.table.on_suback(id, codes.len(), self.options.subscriptions);
            if let Some(first) = self.checked(answered)? {
                return Ok(Kind::Subscribed(Request::Table { first }));
            }
        }
        let answered = self.filters.on_suback(id, codes);
        if self.checked(answered)? { Ok(Kind::Subscribed(Request::Filters(id))) } else { Err(self.ignore()) }
    }
}
