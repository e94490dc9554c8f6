//! What leaves next: the packet that has begun, acknowledgements, releases, requests, messages, ping, goodbye.
//!
//! Nothing is queued here. Each time, the parts of the session are asked what they owe; whatever is chosen counts as
//! sent when its first byte leaves, except for what may be longer than four bytes, which counts when its last byte
//! has left.

use super::outbound::{External, Piece, to_usize};
use super::{Link, Session};
use crate::log;
use crate::packet::writer::{Writer, copy};
use crate::packet::{PacketId, connect, header};
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

/// The packet that is being sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sending {
    current: Current,
    /// Bytes of it that have left.
    sent: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Current {
    Nothing,
    Connect,
    /// A packet that has only an identifier.
    Ack([u8; 4]),
    /// A packet that has nothing but its first byte.
    Bare(u8),
    /// SUBSCRIBE for filters of the static table.
    #[cfg(feature = "table")]
    Table,
    /// SUBSCRIBE or UNSUBSCRIBE for filters added at run time.
    Request(PacketId),
    Publish,
}

/// What has become of the room in `out`.
enum Filled {
    /// So many bytes were written, of a packet of so many.
    Bytes {
        copied: usize,
        total: usize,
    },
    External {
        payload: External,
        offset: usize,
    },
}

impl Sending {
    pub const fn new() -> Self {
        Self { current: Current::Nothing, sent: 0 }
    }

    /// Whether some bytes of a PUBLISH have left and others have not.
    pub fn is_publish(&self) -> bool {
        self.current == Current::Publish
    }
}

impl Session<'_> {
    /// Fills `out` with what is to be sent next.
    ///
    /// Packets leave whole where `out` allows, and as many as fit, so that one write carries a batch. Call it again
    /// until it says [`Transmit::Idle`]; then `poll` may have more to do, too: see [`poll`](Session::poll).
    /// Costs one copy of what is sent, and no other work that grows with the number of messages waiting.
    pub fn transmit(&mut self, now: Instant, out: &mut [u8]) -> Transmit {
        self.tick(now);
        let mut written = 0_usize;
        // Each turn writes at least a byte, or ends the loop.
        loop {
            if self.sending.current == Current::Nothing {
                self.sending = Sending { current: self.choose(), sent: 0 };
            }
            if self.sending.current == Current::Nothing {
                break;
            }
            let room = out.get_mut(written..).unwrap_or_default();
            let room_len = room.len();
            let (copied, total) = match self.fill(room) {
                Filled::Bytes { copied, total } => (copied, total),
                Filled::External { .. } if written > 0 => break,
                Filled::External { payload, offset } => return self.ask_for(now, payload, offset),
            };
            let is_cut = self.sending.sent == 0 && total > room_len;
            if copied == 0 || (is_cut && written > 0) {
                break;
            }
            written = written.wrapping_add(copied);
            self.advance(copied, total);
        }
        if written > 0 {
            self.keep_alive.sent(now);
            return Transmit::Bytes(written);
        }
        if self.link == Link::Closed { Transmit::Close } else { Transmit::Idle }
    }

    #[cfg(feature = "large")]
    fn ask_for(&mut self, now: Instant, payload: External, offset: usize) -> Transmit {
        self.keep_alive.sent(now);
        let total = to_usize(payload.len);
        Transmit::Payload { key: payload.key, offset, len: total.wrapping_sub(offset) }
    }

    /// Without `large` there are no external payloads.
    #[cfg(not(feature = "large"))]
    fn ask_for(&mut self, _: Instant, _: External, _: usize) -> Transmit {
        Transmit::Idle
    }

    /// Says that `n` bytes of the payload that [`Transmit::Payload`] asked for were written. A payload that turns out
    /// shorter than announced can only be ended by closing the stream.
    #[cfg(feature = "large")]
    pub fn supplied(&mut self, n: usize) {
        if let Filled::External { payload, offset } = self.fill(&mut []) {
            let total = to_usize(payload.len);
            let left = total.wrapping_sub(offset);
            let head = self.sending.sent.wrapping_sub(offset);
            self.advance(n.min(left), head.wrapping_add(total));
        }
    }

    /// What is owed first.
    fn choose(&mut self) -> Current {
        match self.link {
            Link::Handshake => return Current::Connect, // [MQTT-3.1.0-1]
            Link::Up | Link::Closing => {}
            // Until CONNACK, nothing: a server that refuses would ignore it [MQTT-3.1.4-5].
            Link::Down | Link::Await | Link::Closed => return Current::Nothing,
        }
        if let Some(ack) = self.next_ack() {
            return Current::Ack(ack);
        }
        if self.link == Link::Closing {
            self.link = Link::Closed; // [MQTT-3.14.4-2]
            return Current::Bare(header::DISCONNECT);
        }
        if let Some(id) = self.outbound.next_release() {
            let [high, low] = id.get().to_be_bytes();
            return Current::Ack([header::PUBREL, 2, high, low]);
        }
        if let Some(request) = self.choose_request() {
            return request;
        }
        if self.outbound.has_publish(self.options.window) {
            return Current::Publish;
        }
        if self.keep_alive.take_ping() {
            return Current::Bare(header::PINGREQ);
        }
        Current::Nothing
    }

    /// An acknowledgement never leaves before the last byte of its message has come. A message that passes by without
    /// being shown, since it is known, is owed one from its head on: while it does, they all wait.
    fn next_ack(&mut self) -> Option<[u8; 4]> {
        #[cfg(feature = "large")]
        if self.large.is_repeated() {
            return None;
        }
        self.inbound.next_ack()
    }

    /// Requests go before messages, so that the answer to a message finds its subscription. While an identifier of
    /// a lost session is still on stable storage, nothing is subscribed to that could bring a new message under it.
    #[cfg(feature = "subscribe")]
    fn choose_request(&mut self) -> Option<Current> {
        if self.inbound.has_stale() {
            return None;
        }
        #[cfg(feature = "table")]
        if self.table.wants(self.options.subscriptions) {
            if self.table.id().is_none() {
                let id = self.allocate()?;
                self.table.name(id);
            }
            return Some(Current::Table);
        }
        self.filters.next_request().map(Current::Request)
    }

    #[cfg(not(feature = "subscribe"))]
    fn choose_request(&mut self) -> Option<Current> {
        None
    }

    /// Writes what is being sent from where it stopped.
    fn fill(&self, out: &mut [u8]) -> Filled {
        let sent = self.sending.sent;
        match self.sending.current {
            Current::Nothing => Filled::Bytes { copied: 0, total: 0 },
            Current::Ack(bytes) => copy_small(&bytes, sent, out),
            Current::Bare(first) => copy_small(&[first, 0], sent, out),
            Current::Publish => match self.outbound.copy_publish(sent, out) {
                Piece::Bytes { copied, total } => Filled::Bytes { copied, total },
                Piece::External { payload, offset } => Filled::External { payload, offset },
            },
            _ => {
                let mut measure = Writer::new(usize::MAX, &mut []);
                self.write_body(&mut measure);
                let mut writer = Writer::new(sent, out);
                writer.put_header(self.first_byte(), measure.total());
                self.write_body(&mut writer);
                Filled::Bytes { copied: writer.written(), total: writer.total() }
            }
        }
    }

    /// First byte of a CONNECT or request.
    fn first_byte(&self) -> u8 {
        match self.sending.current {
            #[cfg(feature = "table")]
            Current::Table => header::SUBSCRIBE,
            Current::Request(id) if cfg!(feature = "subscribe") => self.filters.first_byte(id),
            _ => header::CONNECT,
        }
    }

    /// What follows the fixed header of a CONNECT or request.
    fn write_body(&self, writer: &mut Writer<'_>) {
        match self.sending.current {
            #[cfg(feature = "table")]
            Current::Table => self.table.write(self.options.subscriptions, writer),
            Current::Request(id) if cfg!(feature = "subscribe") => self.filters.write(id, writer),
            _ => connect::write(&self.options, writer),
        }
    }

    /// `copied` more bytes of a packet of `total` have left.
    fn advance(&mut self, copied: usize, total: usize) {
        self.sending.sent = self.sending.sent.wrapping_add(copied);
        if self.sending.sent < total {
            return;
        }
        match self.sending.current {
            Current::Nothing | Current::Ack(_) | Current::Bare(_) => {}
            Current::Connect => {
                self.connects = self.connects.saturating_add(1);
                self.link = Link::Await;
            }
            #[cfg(feature = "table")]
            Current::Table => self.table.sent(),
            Current::Request(id) => self.filters.sent(id),
            Current::Publish => self.outbound.publish_sent(),
        }
        log::sent(total);
        self.sending = Sending::new();
    }
}

fn copy_small(packet: &[u8], sent: usize, out: &mut [u8]) -> Filled {
    Filled::Bytes { copied: copy(out, packet.get(sent..).unwrap_or_default()), total: packet.len() }
}
