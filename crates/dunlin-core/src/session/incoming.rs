//! Packets that came, told apart: each goes to the part of the session that it is about.

use super::event::{Event, Kind, Parts, Request};
use super::inbound::Verdict;
use super::outbound::Answer;
use super::{Fault, Link, Session, Step};
use crate::inbox::Inbox;
use crate::log;
use crate::packet::connect::{self, Connack};
use crate::packet::header::{self, Header, Kind as Packet};
use crate::packet::publish::{self, Flags};
use crate::packet::{PacketId, Violation, reader, subscribe};

impl Session<'_> {
    /// Takes one packet from the front of the inbox, or a piece of a large one.
    pub(super) fn step(&mut self, inbox: &mut Inbox<'_>) -> Result<Step, Fault> {
        if cfg!(feature = "subscribe") && !self.large.is_idle() {
            return self.go_on_large(inbox);
        }
        let Some(header) = header::read(inbox.pending()).map_err(Fault::Malformed)? else { return Ok(Step::Wait) };
        self.check_place(header)?;
        let len = header.len.wrapping_add(header.remaining);
        if len > inbox.capacity() {
            return self.refuse_large(header, len, inbox);
        }
        let Some(body) = inbox.pending().get(header.len..len) else { return Ok(Step::Wait) };
        log::received(header.first, len);
        let step = self.take(header, body, inbox)?;
        match step {
            Step::Tell(_) => inbox.take(len),
            Step::Again => self.drop_front(inbox, len),
            Step::Wait => {}
        }
        Ok(step)
    }

    #[cfg(feature = "subscribe")]
    fn refuse_large(&mut self, header: Header, _: usize, inbox: &mut Inbox<'_>) -> Result<Step, Fault> {
        self.begin_large(header, inbox)
    }

    #[cfg(not(feature = "subscribe"))]
    fn refuse_large(&mut self, _: Header, len: usize, _: &mut Inbox<'_>) -> Result<Step, Fault> {
        Err(Fault::TooLarge { len })
    }

    /// CONNACK comes first and once [MQTT-3.2.0-1]; what this build never asked for does not come.
    fn check_place(&self, header: Header) -> Result<(), Fault> {
        let is_expected = match header.kind {
            Packet::Connack => self.link == Link::Await,
            Packet::Publish | Packet::Suback | Packet::Unsuback | Packet::Pubrel => {
                cfg!(feature = "subscribe") && self.link == Link::Up
            }
            Packet::Puback | Packet::Pubrec | Packet::Pubcomp | Packet::Pingresp => self.link == Link::Up,
        };
        if !is_expected {
            return Err(Fault::Malformed(Violation::OutOfPlace));
        }
        if header.kind == Packet::Publish {
            Flags::read(header.first).map_err(Fault::Malformed)?;
        }
        Ok(())
    }

    fn take(&mut self, header: Header, body: &[u8], inbox: &Inbox<'_>) -> Result<Step, Fault> {
        let durable = self.options.is_durable();
        match header.kind {
            Packet::Connack => self.on_connack(body),
            Packet::Pingresp => {
                self.keep_alive.on_pingresp();
                Ok(Step::Again)
            }
            Packet::Publish => self.on_publish(header, body, inbox),
            Packet::Suback => self.on_suback(header, body, inbox),
            Packet::Unsuback => {
                let id = id(body)?;
                let is_known = cfg!(feature = "subscribe") && self.filters.on_unsuback(id);
                Ok(self.tell_or_ignore(is_known, Event::Unsubscribed(id)))
            }
            Packet::Puback => {
                let id = id(body)?;
                let is_known = cfg!(feature = "qos1") && self.outbound.on_puback(id, durable);
                Ok(self.tell_or_ignore(is_known, Event::Delivered(id)))
            }
            Packet::Pubcomp => {
                let id = id(body)?;
                let is_known = cfg!(feature = "qos2") && self.outbound.on_pubcomp(id, durable);
                Ok(self.tell_or_ignore(is_known, Event::Delivered(id)))
            }
            Packet::Pubrec => self.on_pubrec(id(body)?),
            Packet::Pubrel => {
                let verdict = self.inbound.on_pubrel(id(body)?, durable);
                Ok(answered(verdict))
            }
        }
    }

    fn on_connack(&mut self, body: &[u8]) -> Result<Step, Fault> {
        let resumed = match connect::connack(body).map_err(Fault::Malformed)? {
            Connack::Accepted { session_present } => session_present,
            Connack::Refused(refusal) => return Err(Fault::Refused(refusal)), // [MQTT-3.2.2-5]
        };
        if resumed && self.options.clean_session() {
            return Err(Fault::Malformed(Violation::SessionPresent)); // [MQTT-3.2.2-1]
        }
        if !resumed {
            self.outbound.on_session_lost(); // [MQTT-3.2.2-3]
            self.inbound.on_session_lost(self.options.is_durable());
            self.filters.on_session_lost();
        }
        self.filters.on_connected();
        self.keep_alive.on_connack();
        self.link = Link::Up;
        Ok(Step::Tell(Kind::Plain(Event::Connected { resumed })))
    }

    fn on_publish(&mut self, header: Header, body: &[u8], inbox: &Inbox<'_>) -> Result<Step, Fault> {
        let flags = Flags::read(header.first).map_err(Fault::Malformed)?;
        let head = publish::head(flags, body).map_err(Fault::Malformed)?;
        let receipt = match self.inbound.on_publish(flags, head.id) {
            Verdict::Show(receipt) => receipt,
            Verdict::Repeat => return Ok(Step::Again),
            Verdict::Stall => return Ok(Step::Wait),
            Verdict::TooMany => return Err(Fault::TooMany),
        };
        self.inbound.shown();
        Ok(Step::Tell(Kind::Message(Parts {
            topic: inbox.span(header.len.wrapping_add(2), head.topic_len),
            payload: inbox.span(header.len.wrapping_add(head.len), body.len().wrapping_sub(head.len)),
            qos: flags.qos,
            retain: flags.retain,
            dup: flags.dup,
            receipt,
        })))
    }

    fn on_suback(&mut self, header: Header, body: &[u8], inbox: &Inbox<'_>) -> Result<Step, Fault> {
        let (id, codes) = reader::packet_id(body).map_err(Fault::Malformed)?;
        subscribe::check_codes(codes).map_err(Fault::Malformed)?;
        let first = self.filters.on_table_suback(id, codes, self.options.subscriptions).map_err(Fault::Malformed)?;
        let request = match first {
            Some(first) => Request::Table { first },
            None if self.filters.on_suback(id, codes).map_err(Fault::Malformed)? => Request::Filters(id),
            None => return Ok(self.ignore()),
        };
        let codes = inbox.span(header.len.wrapping_add(2), codes.len());
        Ok(Step::Tell(Kind::Subscribed { request, codes }))
    }

    fn on_pubrec(&mut self, id: PacketId) -> Result<Step, Fault> {
        if !cfg!(feature = "qos2") {
            return Ok(self.ignore());
        }
        match self.outbound.on_pubrec(id, self.options.is_durable()) {
            Answer::Taken => Ok(Step::Again),
            Answer::Ignored => Ok(self.ignore()),
            Answer::Unknown => {
                let step = answered(self.inbound.on_stray_pubrec(id));
                if let Step::Again = step {
                    self.ignored = self.ignored.wrapping_add(1);
                }
                Ok(step)
            }
        }
    }

    fn tell_or_ignore(&mut self, is_known: bool, event: Event<'static>) -> Step {
        if is_known { Step::Tell(Kind::Plain(event)) } else { self.ignore() }
    }

    /// Counts a packet that fits nothing; harmless.
    fn ignore(&mut self) -> Step {
        self.ignored = self.ignored.wrapping_add(1);
        Step::Again
    }
}

fn id(body: &[u8]) -> Result<PacketId, Fault> {
    let (id, _) = reader::packet_id(body).map_err(Fault::Malformed)?;
    Ok(id)
}

/// A packet that has only an answer was taken, or must wait for its turn.
fn answered(verdict: Verdict) -> Step {
    match verdict {
        Verdict::Stall => Step::Wait,
        Verdict::Show(_) | Verdict::Repeat | Verdict::TooMany => Step::Again,
    }
}
