//! What a session tells: [`Event`], and [`Ready`], the same by index.

use crate::inbox::Inbox;
use crate::packet::publish::Flags;
use crate::packet::subscribe::ReturnCodes;
use crate::packet::{PacketId, QoS};
use crate::topic::{Levels, Topic};

/// What happened. Borrows the inbox where it carries bytes, never the session: one may publish while holding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'b> {
    /// The server accepted the connection.
    Connected {
        /// Session present: the server went on with the session of an earlier connection. If not, the session
        /// subscribes by itself to everything it should be subscribed to.
        resumed: bool,
    },
    /// A message arrived, whole, whether or not a filter of ours is known to match it [MQTT-3.3.2-3], and in the order
    /// in which the server sent it [MQTT-4.6.0-6]. It counts as handled when `poll` is called again (with
    /// [`Options::manual_acks`](crate::Options::manual_acks): when it is acknowledged).
    Message(Message<'b>),
    /// A piece of a message that is larger than the inbox; only with `Options::stream_large`.
    #[cfg(feature = "large")]
    Chunk(Chunk<'b>),
    /// A message did not fit the inbox. Its bytes passed by, its acknowledgement goes out: see
    /// [`Oversize`](crate::Oversize).
    #[cfg(feature = "large")]
    Skipped {
        /// Quality of service of the message.
        qos: QoS,
        /// Bytes of the whole packet.
        len: usize,
    },
    /// The server has taken the message that [`publish`](crate::Session::publish) returned this identifier for:
    /// PUBACK or PUBCOMP came.
    Delivered(PacketId),
    /// The message was replaced before it was ever sent, by one published with
    /// [`publish_replacing`](crate::Session::publish_replacing).
    Replaced(PacketId),
    /// The server lost the session after it had taken this QoS 2 message and before it said PUBCOMP; or the message was
    /// given up ([`give_up`](crate::Session::give_up)). Whether it reached its subscribers is unknown; repeating it could
    /// double it.
    Forgotten(PacketId),
    /// The server answered a SUBSCRIBE.
    Subscribed(Subscribed<'b>),
    /// The server answered the [`unsubscribe`](crate::Session::unsubscribe) of this identifier.
    Unsubscribed(PacketId),
}

/// The answer to a SUBSCRIBE, its own or the session's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed<'b> {
    /// What was answered.
    pub request: Request,
    /// One return code per filter, in the order of the request.
    pub codes: ReturnCodes<'b>,
}

/// Which filters a [`Subscribed`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Request {
    /// Those of the [`subscribe`](crate::Session::subscribe) that returned this identifier. Comes again when the
    /// session had to subscribe again, with the filters that the server granted the first time.
    Filters(PacketId),
    /// Those of [`Options::subscriptions`](crate::Options::subscriptions) from this index on.
    #[cfg(feature = "table")]
    Table {
        /// Index of the first filter answered.
        first: usize,
    },
}

/// A message that arrived.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message<'b> {
    /// The topic name it was published to.
    pub topic: Topic<'b>,
    /// Its payload, possibly empty [MQTT-3.3.1-10].
    pub payload: &'b [u8],
    /// The quality of service it came with, at most what was subscribed.
    pub qos: QoS,
    /// Set when the server had kept it before this client subscribed [MQTT-3.3.1-8]; clear on what is new to everybody
    /// [MQTT-3.3.1-9].
    pub retain: bool,
    /// Set when the server may have sent it before (MQTT 3.3.1.1). At QoS 1 it may have been handled already.
    pub dup: bool,
    #[cfg(feature = "manual")]
    pub(crate) receipt: Option<Receipt>,
}

impl<'b> Message<'b> {
    /// The levels of the topic name, for a slice pattern.
    #[must_use]
    pub fn levels(&self) -> Levels<'b> {
        self.topic.levels()
    }

    /// The payload as text, if it is UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&'b str> {
        core::str::from_utf8(self.payload).ok()
    }

    /// What [`acknowledge`](crate::Session::acknowledge) takes; `None` at QoS 0, which has nothing to acknowledge.
    #[cfg(feature = "manual")]
    #[must_use]
    pub const fn receipt(&self) -> Option<Receipt> {
        self.receipt
    }
}

/// Shows how long the payload is, not what is in it.
impl core::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic)
            .field("payload_len", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("dup", &self.dup)
            .finish()
    }
}

/// A piece of a message. If the connection ends in between, the message starts again at offset 0 on a later one.
#[cfg(feature = "large")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Chunk<'b> {
    /// The topic name, with the first chunk only.
    pub topic: Option<Topic<'b>>,
    /// This piece of the payload.
    pub bytes: &'b [u8],
    /// Where in the payload it belongs.
    pub offset: usize,
    /// Length of the whole payload.
    pub total: usize,
    /// The quality of service of the message.
    pub qos: QoS,
    /// As in [`Message::retain`].
    pub retain: bool,
    /// As in [`Message::dup`].
    pub dup: bool,
    #[cfg(feature = "manual")]
    pub(crate) receipt: Option<Receipt>,
}

#[cfg(feature = "large")]
impl Chunk<'_> {
    /// Whether the message is complete with this chunk.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        self.offset.saturating_add(self.bytes.len()) >= self.total
    }

    /// With the last chunk, what [`acknowledge`](crate::Session::acknowledge) takes.
    #[cfg(feature = "manual")]
    #[must_use]
    pub const fn receipt(&self) -> Option<Receipt> {
        if self.is_last() { self.receipt } else { None }
    }
}

/// Stands for a received message until it is acknowledged. One from an earlier session or, at QoS 1, an earlier
/// connection acknowledges nothing: the server sends such a message again.
#[cfg(feature = "manual")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    pub(crate) id: PacketId,
    pub(crate) is_qos2: bool,
    pub(crate) epoch: u8,
}

#[cfg(feature = "manual")]
impl Receipt {
    /// The packet identifier that the server gave the message.
    #[must_use]
    pub const fn packet_id(&self) -> PacketId {
        self.id
    }

    /// It in four bytes, for programs in other languages.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 4] {
        let [high, low] = self.id.get().to_be_bytes();
        [high, low, if self.is_qos2 { 1 } else { 0 }, self.epoch]
    }

    /// The receipt of which [`to_bytes`](Self::to_bytes) gave these bytes; `None` if it never gave them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 4]) -> Option<Self> {
        let [high, low, is_qos2, epoch] = bytes;
        match PacketId::new(u16::from_be_bytes([high, low])) {
            Some(id) if is_qos2 <= 1 => Some(Self { id, is_qos2: is_qos2 == 1, epoch }),
            _ => None,
        }
    }
}

/// An event by index: what [`poll_ready`](crate::Session::poll_ready) gives to drivers that loop and return.
///
/// Turn it into the event with [`Inbox::event`] before anything else is done with the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready(pub(crate) Kind);

/// An event without its bytes: the inbox knows where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Connected {
        resumed: bool,
    },
    Message {
        flags: Flags,
        #[cfg(feature = "manual")]
        receipt: Option<Receipt>,
    },
    #[cfg(feature = "large")]
    Chunk {
        flags: Flags,
        #[cfg(feature = "manual")]
        receipt: Option<Receipt>,
        offset: usize,
        total: usize,
    },
    #[cfg(feature = "large")]
    Skipped {
        qos: QoS,
        len: usize,
    },
    Delivered(PacketId),
    Replaced(PacketId),
    Forgotten(PacketId),
    Subscribed(Request),
    Unsubscribed(PacketId),
}

impl Inbox<'_> {
    /// The event that `ready` stands for.
    #[must_use]
    pub fn event(&self, ready: Ready) -> Event<'_> {
        match ready.0 {
            Kind::Connected { resumed } => Event::Connected { resumed },
            Kind::Message {
                flags,
                #[cfg(feature = "manual")]
                receipt,
            } => Event::Message(Message {
                topic: self.topic(),
                payload: self.body(),
                qos: flags.qos(),
                retain: flags.is_retain(),
                dup: flags.is_dup(),
                #[cfg(feature = "manual")]
                receipt,
            }),
            #[cfg(feature = "large")]
            Kind::Chunk {
                flags,
                #[cfg(feature = "manual")]
                receipt,
                offset,
                total,
            } => Event::Chunk(Chunk {
                topic: Some(self.topic()).filter(|topic| !topic.as_bytes().is_empty()),
                bytes: self.body(),
                offset,
                total,
                qos: flags.qos(),
                retain: flags.is_retain(),
                dup: flags.is_dup(),
                #[cfg(feature = "manual")]
                receipt,
            }),
            #[cfg(feature = "large")]
            Kind::Skipped { qos, len } => Event::Skipped { qos, len },
            Kind::Delivered(id) => Event::Delivered(id),
            Kind::Replaced(id) => Event::Replaced(id),
            Kind::Forgotten(id) => Event::Forgotten(id),
            Kind::Subscribed(request) => {
                Event::Subscribed(Subscribed { request, codes: ReturnCodes::new(self.body()) })
            }
            Kind::Unsubscribed(id) => Event::Unsubscribed(id),
        }
    }
}
