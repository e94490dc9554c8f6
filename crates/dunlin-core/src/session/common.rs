//! What is common, by a short way: for drivers of hosts, which move very many messages.
//!
//! Nothing here does what [`poll`](Session::poll) and [`transmit`](Session::transmit) would not do at that moment, and
//! what is not common is left to them untouched: faults, time, requests, large messages, whatever must wait.

use super::event::Message;
use super::incoming::Pause;
use super::message::{Answer, Verdict};
use super::options::Publish;
use super::{Link, Session, is_name, outgoing};
use crate::inbox::Inbox;
use crate::log;
use crate::packet::publish::{self, Flags, Head};
use crate::packet::{PacketId, QoS, header};
use crate::topic::Topic;

/// What [`Session::poll_common`] tells, each as the [`Event`](crate::Event) of its name. There will never be more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "closed: for loops that handle both")]
pub enum Common<'b> {
    /// A message arrived.
    Message(Message<'b>),
    /// The server has taken a message.
    Delivered(PacketId),
}

impl Session<'_> {
    /// As [`poll`](Self::poll), if the packet at the front is a whole message of less than 16 KiB, or an acknowledgement.
    /// `None` says nothing: ask `poll`, which looks at the clock as well.
    #[inline]
    pub fn poll_common<'b>(&mut self, inbox: &'b mut Inbox<'_>) -> Option<Common<'b>> {
        self.settle();
        loop {
            inbox.discard_used();
            if !self.is_common() {
                return None;
            }
            let (first, head_len, len) = packet(inbox.pending())?;
            let body = inbox.pending().get(head_len..len)?;
            if first & 0xF0 == header::PUBLISH {
                let flags = Flags::new(first);
                flags.check().ok()?;
                let head = publish::head(flags, body).ok()?;
                let is_new = self.take_note(flags, head)?;
                self.taken(first, len, inbox);
                if is_new {
                    return Some(Common::Message(self.common_message(flags, head, inbox.used(head_len))));
                }
            } else {
                let [high, low] = *body else { return None };
                let id = PacketId::new(u16::from_be_bytes([high, low]))?;
                let is_over = match first {
                    header::PUBACK | header::PUBREC | header::PUBCOMP => {
                        match self.outbound.on_ack(first, id, self.options.is_durable()) {
                            Answer::Over => true,
                            Answer::Taken => false,
                            Answer::Unknown | Answer::Ignored => return None,
                        }
                    }
                    header::PUBREL if self.inbound.on_pubrel(id, self.options.is_durable()) == Pause::GoOn => false,
                    _ => return None,
                };
                self.taken(first, len, inbox);
                if is_over {
                    return Some(Common::Delivered(id));
                }
            }
        }
    }

    /// As [`publish`](Self::publish), if the message is at QoS 1 or 2 and there is room. `None` says nothing: ask
    /// `publish`.
    #[inline]
    pub fn publish_common(&mut self, publish: &Publish<'_>) -> Option<PacketId> {
        let is_common = publish.qos != QoS::AtMostOnce && !self.options.is_durable();
        if !is_common || !is_name(publish.topic.as_bytes()) {
            return None; // [MQTT-3.3.2-2] [MQTT-4.7.3-1]
        }
        let outgoing = outgoing(publish, None);
        let len = outgoing.packet_len();
        if !self.outbound.has_room(len) {
            return None;
        }
        let id = self.allocate()?; // [MQTT-2.3.1-2]
        self.outbound.admit_common(&outgoing, id, publish.payload, len);
        self.is_quiet = false;
        Some(id)
    }

    /// As [`transmit`](Self::transmit), if what leaves next is an acknowledgement, or a message that fits into `out`: as
    /// many as fit, and how many bytes they have. Zero says nothing: ask `transmit`, which looks at the clock as well.
    #[inline]
    pub fn transmit_common(&mut self, out: &mut [u8]) -> usize {
        let may_send = self.link == Link::Up && self.sending.is_nothing();
        if !may_send || self.is_quiet {
            return 0;
        }
        let mut written = 0_usize;
        while let Some(place) = out.get_mut(written..).and_then(|room| room.first_chunk_mut()) {
            let Some((first, id)) = self.next_ack().or_else(|| Some((header::PUBREL, self.next_release()?))) else {
                written = written.wrapping_add(self.common_messages(out.get_mut(written..).unwrap_or_default()));
                break;
            };
            let [high, low] = id.get().to_be_bytes();
            *place = [first, 2, high, low]; // [MQTT-2.3.1-6]
            written = written.wrapping_add(4);
            log::sent(4);
        }
        if written > 0 {
            self.keep_alive.sent();
        }
        written
    }

    /// The messages that leave next, if no request goes before them.
    fn common_messages(&mut self, out: &mut [u8]) -> usize {
        if self.may_request() {
            return 0;
        }
        let mut written = 0_usize;
        while self.outbound.has_publish(self.options.window) {
            let n = self.outbound.send_whole(out.get_mut(written..).unwrap_or_default());
            if n == 0 {
                break;
            }
            written = written.wrapping_add(n);
            log::sent(n);
        }
        written
    }

    /// Whether nothing is to be told before the packet at the front, and it may be taken.
    fn is_common(&self) -> bool {
        #[cfg(feature = "large")]
        if !self.large.is_idle() {
            return false;
        }
        self.link == Link::Up && !self.outbound.may_tell() && !self.inbound.is_stalled()
    }

    /// Takes note of a message before it is shown. Whether it is to be shown; `None`: it must wait.
    fn take_note(&mut self, flags: Flags, head: Head) -> Option<bool> {
        let Some(id) = head.id else { return Some(true) };
        match self.inbound.on_publish(flags, id, self.options.is_durable()) {
            Verdict::Show => {
                self.inbound.shown();
                Some(true)
            }
            Verdict::Taken => Some(false),
            Verdict::Stall | Verdict::TooMany => None,
        }
    }

    fn taken(&mut self, first: u8, len: usize, inbox: &mut Inbox<'_>) {
        self.is_quiet = false;
        log::received(first, len);
        inbox.use_up(len);
    }

    /// The message of which `body` is what follows the fixed header.
    fn common_message<'b>(&self, flags: Flags, head: Head, body: &'b [u8]) -> Message<'b> {
        let (head_bytes, payload) = body.split_at_checked(head.len).unwrap_or_default();
        let name = head_bytes.get(2..head.topic_len.wrapping_add(2)).unwrap_or_default();
        Message {
            topic: Topic::new(name),
            payload,
            qos: flags.qos(),
            retain: flags.is_retain(),
            dup: flags.is_dup(),
            #[cfg(feature = "manual")]
            receipt: head.id.map(|id| self.inbound.receipt(flags.is_qos2(), id)),
        }
    }
}

/// First byte of the packet at the front, the length of its fixed header and its own; `None` if it is a long one, or
/// there is not enough of it to tell.
fn packet(pending: &[u8]) -> Option<(u8, usize, usize)> {
    let [first, low, high, ..] = *pending else { return None };
    let low_digit = usize::from(low & 0x7F);
    match (low & 0x80, high & 0x80) {
        (0, _) => Some((first, 2, low_digit.wrapping_add(2))),
        (_, 0) => Some((first, 3, (low_digit | usize::from(high).wrapping_shl(7)).wrapping_add(3))),
        _ => None,
    }
}
