//! What leaves next: the packet that has begun, acknowledgements, releases, requests, messages, ping, goodbye.
//!
//! Nothing is queued here. Each time, the parts of the session are asked what they owe; whatever is chosen counts as
//! sent when its first byte leaves, except for DISCONNECT and what may be longer than four bytes, which count when their
//! last byte has left.

use super::error::PublishError;
#[cfg(feature = "large")]
use super::message::{External, to_usize};
use super::options::Publish;
use super::{Link, Session, is_name, outgoing};
use crate::log;
use crate::packet::writer::Writer;
use crate::packet::{PacketId, QoS, connect, header};
use crate::time::Instant;

/// What to do now, as [`Session::transmit`] sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum Transmit {
    /// Nothing to send now.
    Idle,
    /// Write so many bytes of `out` to the stream, all of them and in order.
    Bytes(usize),
    /// Write bytes of an external payload to the stream: those from `offset` on, as many as there is room for, at most
    /// `len`; then say how many with [`Session::supplied`].
    #[cfg(feature = "large")]
    Payload {
        /// The payload, as named to [`Session::publish_external`].
        key: u32,
        /// The first byte to write.
        offset: usize,
        /// How many bytes are missing from there to the end.
        len: usize,
    },
    /// Close the stream, then call [`Session::lost`]. [`Session::fault`] tells why.
    Close,
}

/// A packet to send: its first byte, zero for none, and its identifier, where it has one and has not been encoded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Packet {
    first: u8,
    id: u16,
}

/// Whether there are packets with an identifier.
const NAMES_PACKETS: bool = cfg!(any(feature = "qos1", feature = "subscribe"));

impl Packet {
    const NONE: Self = Self::bare(0);

    /// Without an identifier, or with one that is known elsewhere.
    const fn bare(first: u8) -> Self {
        Self { first, id: 0 }
    }

    const fn with_id(first: u8, id: PacketId) -> Self {
        Self { first, id: id.get() }
    }
}

/// The packet that is being sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sending {
    packet: Packet,
    /// Bytes of it that have left.
    sent: usize,
}

impl Sending {
    pub const fn new() -> Self {
        Self { packet: Packet::NONE, sent: 0 }
    }

    /// Whether no packet has begun to leave that has not left whole.
    pub fn is_nothing(&self) -> bool {
        self.packet.first == 0
    }

    /// Whether some bytes of a PUBLISH have left and others have not.
    pub fn is_publish(&self) -> bool {
        self.packet.first == header::PUBLISH
    }
}

impl Session<'_> {
    /// Fills `out` with what is to be sent next.
    ///
    /// Packets leave whole where `out` allows, and as many as fit, so that one write carries a batch. Call it again
    /// until it says [`Transmit::Idle`]; then `poll` may have more to do, too: see [`poll`](Session::poll).
    /// With an empty `out`, `Idle` says only that nothing could leave.
    /// Costs one copy of what is sent, and no other work that grows with the number of messages waiting.
    pub fn transmit(&mut self, now: Instant, out: &mut [u8]) -> Transmit {
        self.tick(now);
        let mut writer = Writer::new(out);
        let mut written = 0_usize;
        // Each turn writes a packet, or is the last one: what does not fit behind others leaves with the next buffer.
        loop {
            if self.sending.is_nothing() {
                self.sending.packet = self.choose();
                if self.sending.is_nothing() {
                    break;
                }
            }
            let is_all = self.fill(written, &mut writer);
            if is_all && writer.at() <= writer.len() {
                self.advance(writer.at().wrapping_sub(written), true);
                written = writer.at();
                continue;
            }
            if written == 0 {
                written = writer.at().min(writer.len());
                self.advance(written, false);
            }
            break;
        }
        if written > 0 {
            self.keep_alive.sent();
            return Transmit::Bytes(written);
        }
        #[cfg(feature = "large")]
        if let Some((payload, offset)) = self.external() {
            self.keep_alive.sent();
            return Transmit::Payload { key: payload.key, offset, len: to_usize(payload.len).wrapping_sub(offset) };
        }
        if self.link == Link::Closed { Transmit::Close } else { Transmit::Idle }
    }

    /// As [`publish`](Session::publish) for a message at QoS 0, but writes it to `out`, past the session's memory. Says
    /// how many bytes it has; they are to leave before what `transmit` gives next.
    ///
    /// `None` when that could overtake something, or `out` is too short, or its quality of service is another: nothing
    /// has changed then, and [`publish`](Session::publish) is the way.
    ///
    /// For a device whose stream lends its buffer, as smoltcp's sockets do with `send`: a message is copied once, takes no
    /// slot, and costs a third of what `publish` and `transmit` take. And for drivers that gather what many threads
    /// publish.
    ///
    /// ```
    /// # use dunlin_core::{Publish, PublishError, Session};
    /// /// `window` is what the socket lends. Says how many bytes of it to send.
    /// fn report(session: &mut Session<'_>, reading: &[u8], window: &mut [u8]) -> Result<usize, PublishError> {
    ///     let message = Publish::new("plant/7/pressure", reading);
    ///     if let Some(len) = session.publish_past(&message, window)? {
    ///         return Ok(len);
    ///     }
    ///     session.publish(&message)?; // leaves with `transmit`, behind what goes first
    ///     Ok(0)
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`publish`](Session::publish).
    pub fn publish_past(&mut self, publish: &Publish<'_>, out: &mut [u8]) -> Result<Option<usize>, PublishError> {
        if !is_name(publish.topic.as_bytes()) {
            return Err(PublishError::InvalidTopic); // [MQTT-3.3.2-2] [MQTT-4.7.3-1]
        }
        if publish.qos != QoS::AtMostOnce {
            return Ok(None);
        }
        if self.link != Link::Up {
            return Err(PublishError::Offline);
        }
        let outgoing = outgoing(publish, None);
        let len = outgoing.packet_len();
        if len > out.len().min(header::MAX_PACKET) || self.may_overtake() {
            return Ok(None);
        }
        outgoing.write(0, publish.payload, out, 0);
        self.keep_alive.sent();
        Ok(Some(len))
    }

    /// Writes a ping to `out` although none is due, and says how many bytes it has; they are to leave before what
    /// [`transmit`](Session::transmit) gives next. Zero without a connection, behind a packet that has begun to leave, and
    /// where `out` is too short.
    ///
    /// For drivers that doubt whether the server is there: the session pings when nothing else has left, and a server need
    /// not answer messages at QoS 0 that have. What it says, or does not, is for the driver to judge: the session waits for
    /// no answer.
    pub fn ping_past(&mut self, out: &mut [u8]) -> usize {
        let may_leave = self.link == Link::Up && self.sending.is_nothing();
        let Some(place) = out.first_chunk_mut().filter(|_| may_leave) else { return 0 };
        *place = [header::PINGREQ, 0];
        self.keep_alive.sent();
        place.len()
    }

    /// Whether something has begun to leave, or a request or message may wait to, as far as the last `transmit` knew:
    /// acknowledgements stand in no order to messages.
    fn may_overtake(&self) -> bool {
        !self.sending.is_nothing() || self.may_request() || self.outbound.may_wait()
    }

    /// Whether a request may wait to leave.
    pub(super) fn may_request(&self) -> bool {
        #[cfg(feature = "table")]
        if self.table.wants(self.options.subscriptions) {
            return true;
        }
        #[cfg(feature = "subscribe")]
        if self.filters.may_request() {
            return true;
        }
        false
    }

    /// The external payload that is to be sent now, and how much of it has left.
    #[cfg(feature = "large")]
    fn external(&self) -> Option<(External, usize)> {
        if self.sending.is_publish() { self.outbound.external(self.sending.sent) } else { None }
    }

    /// Says that `n` bytes of the payload that [`Transmit::Payload`] asked for were written. A payload that turns out
    /// shorter than announced can only be ended by closing the stream.
    #[cfg(feature = "large")]
    pub fn supplied(&mut self, n: usize) {
        if let Some((payload, offset)) = self.external() {
            let left = to_usize(payload.len).wrapping_sub(offset);
            self.advance(n.min(left), n >= left);
        }
    }

    /// The payload that [`Transmit::Payload`] asked for cannot be had any more. Its message is given up, and reported as
    /// [`Event::Forgotten`](crate::Event::Forgotten), since it may have been sent before; at QoS 0 nothing is reported.
    /// The connection is [`lost`](Session::lost): a part of the message has left. `false` when another payload, or none, is
    /// being sent; nothing has changed then.
    #[cfg(feature = "large")]
    pub fn give_up(&mut self, key: u32) -> bool {
        let is_sent = self.external().is_some_and(|(payload, _)| payload.key == key);
        if is_sent {
            self.outbound.give_up();
            self.lost();
        }
        is_sent
    }

    /// What is owed first.
    fn choose(&mut self) -> Packet {
        match self.link {
            Link::Handshake => return Packet::bare(header::CONNECT), // [MQTT-3.1.0-1]
            Link::Up | Link::Closing => {}
            // Until CONNACK, nothing: a server that refuses would ignore it [MQTT-3.1.4-5].
            Link::Down | Link::Await | Link::Closed => return Packet::NONE,
        }
        if self.is_quiet && !self.keep_alive.is_ping_due() {
            return Packet::NONE;
        }
        if let Some((first, id)) = self.next_ack() {
            return Packet::with_id(first, id);
        }
        if self.link == Link::Closing {
            return Packet::bare(header::DISCONNECT);
        }
        if let Some(id) = self.next_release() {
            return Packet::with_id(header::PUBREL, id);
        }
        if let Some(request) = self.next_request() {
            return request;
        }
        if self.outbound.has_publish(self.options.window) {
            return Packet::bare(header::PUBLISH);
        }
        if self.keep_alive.take_ping() {
            return Packet::bare(header::PINGREQ);
        }
        self.is_quiet = true;
        Packet::NONE
    }

    /// An acknowledgement never leaves before the last byte of its message has come. A message that passes by without
    /// being shown, since it is known, is owed one from its head on: while it does, they all wait.
    pub(super) fn next_ack(&mut self) -> Option<(u8, PacketId)> {
        #[cfg(feature = "large")]
        if self.large.is_repeated() {
            return None;
        }
        if cfg!(feature = "subscribe") || cfg!(feature = "qos2") { self.inbound.next_ack() } else { None }
    }

    pub(super) fn next_release(&mut self) -> Option<PacketId> {
        if cfg!(feature = "qos2") { self.outbound.next_release() } else { None }
    }

    /// Requests go before messages, so that the answer to a message finds its subscription. While an identifier of
    /// a lost session is still on stable storage, nothing is subscribed to that could bring a new message under it.
    #[cfg(feature = "subscribe")]
    fn next_request(&mut self) -> Option<Packet> {
        if self.inbound.has_stale() {
            return None;
        }
        #[cfg(feature = "table")]
        if self.table.wants(self.options.subscriptions) {
            if self.table.id().is_none() {
                let id = self.allocate()?;
                self.table.name(id);
            }
            return self.table.id().map(|id| Packet::with_id(header::SUBSCRIBE, id));
        }
        self.filters.next_request().map(|(first, id)| Packet::with_id(first, id))
    }

    #[cfg(not(feature = "subscribe"))]
    fn next_request(&mut self) -> Option<Packet> {
        None
    }

    /// Writes what is being sent from where it stopped, behind the first `written` bytes of the window. `false` if
    /// somebody else writes the rest.
    fn fill(&mut self, written: usize, writer: &mut Writer<'_>) -> bool {
        let Sending { packet: Packet { first, id }, sent } = self.sending;
        let id = if NAMES_PACKETS { id } else { 0 };
        let start = written.wrapping_sub(sent);
        let is_request = NAMES_PACKETS && matches!(first, header::SUBSCRIBE | header::UNSUBSCRIBE);
        if first == header::CONNECT || is_request {
            // Measured by the very code that writes it, behind the window.
            writer.begin(writer.len());
            self.write_body(writer);
            let remaining = writer.at().wrapping_sub(writer.len());
            writer.begin(start);
            writer.put_header(first, remaining);
            self.write_body(writer);
            return true;
        }
        writer.begin(start);
        if first == header::PUBLISH {
            return self.outbound.write_publish(sent, writer);
        }
        // Put together in a register: the first byte, the length of the identifier, the identifier [MQTT-2.3.1-6].
        let (id_len, len) = if id == 0 { (0, 2) } else { (2, 4) };
        let packet = u32::from(first) | id_len << 8 | u32::from(id.swap_bytes()) << 16;
        writer.put(packet.to_le_bytes().get(..len).unwrap_or_default());
        true
    }

    /// What follows the fixed header of a CONNECT or request.
    fn write_body(&self, writer: &mut Writer<'_>) {
        let Packet { first, id } = self.sending.packet;
        if first == header::CONNECT || cfg!(not(feature = "subscribe")) {
            return connect::write(&self.options, writer);
        }
        writer.put_u16(id);
        #[cfg(feature = "table")]
        if self.table.is_named(id) {
            return self.table.write(self.options.subscriptions, writer);
        }
        self.filters.write(id, writer);
    }

    /// `copied` more bytes of the packet have left, the last of them if `is_whole`.
    #[inline(never)]
    fn advance(&mut self, copied: usize, is_whole: bool) {
        self.sending.sent = self.sending.sent.wrapping_add(copied);
        if !is_whole {
            return;
        }
        log::sent(self.sending.sent);
        let Packet { first, id } = self.sending.packet;
        match first {
            header::PUBLISH => self.outbound.publish_sent(),
            header::CONNECT => {
                self.connects = self.connects.saturating_add(1);
                self.link = Link::Await;
            }
            header::DISCONNECT => self.link = Link::Closed, // [MQTT-3.14.4-2]
            header::SUBSCRIBE | header::UNSUBSCRIBE if cfg!(feature = "subscribe") => self.request_sent(id),
            _ => {}
        }
        self.sending = Sending::new();
    }

    fn request_sent(&mut self, id: u16) {
        #[cfg(feature = "table")]
        if self.table.is_named(id) {
            return self.table.sent();
        }
        self.filters.sent(id);
    }
}
