//! Errors, one type per decision that the caller has to take.

use core::fmt;

use super::options::InvalidOptions;
use crate::packet::Violation;
use crate::packet::connect::Refusal;

/// The connection is over. `transmit` answers [`Close`](crate::Transmit::Close); close the stream, then open a new one
/// when the fault may heal. The session itself is intact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The server sent bytes that MQTT forbids [MQTT-4.8.0-1]. Nothing to mend here; report the broker.
    Malformed(Violation),
    /// The server refused the connection and said why. [`Refusal::may_heal`] tells whether to try again.
    Refused(Refusal),
    /// No CONNACK within [`Options::answer_timeout`](crate::Options::answer_timeout). A server that finds the CONNECT
    /// malformed closes without one [MQTT-3.1.4-1].
    ConnectTimeout,
    /// A ping was due and no answer came within [`Options::answer_timeout`](crate::Options::answer_timeout), whatever
    /// else the server sent, but for a long message before it. The link is dead even if TCP does not know yet.
    Silent,
    /// A packet of `len` bytes does not fit the inbox. Enlarge the inbox, turn on `Options::stream_large`, or choose
    /// [`Oversize::Skip`](crate::Oversize::Skip).
    TooLarge {
        /// Bytes of the whole packet.
        len: usize,
    },
    /// The server has more QoS 2 messages under way than `Memory::received` can remember. Enlarge it; a server of
    /// version 3.1.1 cannot be told a limit.
    TooMany,
    /// The options cannot be expressed in MQTT; nothing was sent. See [`Options::check`](crate::Options::check).
    Options(InvalidOptions),
}

impl Fault {
    /// Whether a new connection with the same options may go better.
    #[must_use]
    pub const fn may_heal(self) -> bool {
        match self {
            Self::Malformed(_) | Self::ConnectTimeout | Self::Silent | Self::TooLarge { .. } | Self::TooMany => true,
            Self::Refused(refusal) => refusal.may_heal(),
            Self::Options(_) => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(violation) => write!(f, "the server broke the protocol: {violation}"),
            Self::Refused(Refusal::ProtocolVersion) => {
                f.write_str("connection refused: protocol version not supported")
            }
            Self::Refused(Refusal::ClientId) => f.write_str("connection refused: client identifier rejected"),
            Self::Refused(Refusal::ServerUnavailable) => f.write_str("connection refused: server unavailable"),
            Self::Refused(Refusal::Credentials) => f.write_str("connection refused: bad user name or password"),
            Self::Refused(Refusal::NotAuthorized) => f.write_str("connection refused: not authorized"),
            Self::Refused(Refusal::Reserved(code)) => write!(f, "connection refused: reserved return code {code}"),
            Self::ConnectTimeout => f.write_str("no CONNACK in time"),
            Self::Silent => f.write_str("the server does not answer pings"),
            Self::TooLarge { len } => write!(f, "a packet of {len} bytes is larger than the inbox"),
            Self::TooMany => f.write_str("the server has too many QoS 2 messages under way"),
            Self::Options(option) => write!(f, "the options cannot be expressed in MQTT: {option}"),
        }
    }
}

impl core::error::Error for Fault {}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PacketType => "it sent a packet of a type that no server sends",
            Self::Flags => "it set flag bits that the type of the packet does not allow",
            Self::Length => "it sent a packet whose length does not fit what is in it",
            Self::Text => "it sent text that is not UTF-8",
            Self::Topic => "it sent a message to a topic that is empty, or has +, # or U+0000 in it",
            Self::QoS => "it sent a message at a quality of service that does not exist here",
            Self::Duplicate => "it marked a message at QoS 0 as sent again",
            Self::PacketId => "it sent a packet with the packet identifier 0",
            Self::OutOfPlace => "it did not begin with CONNACK, or sent a second one",
            Self::SessionPresent => "it accepted with flags that are reserved, or with a session that cannot be",
            Self::ReturnCodeCount => "it answered a subscription with more or fewer return codes than filters",
            Self::ReturnCode => "it answered a subscription with a return code that does not exist",
        })
    }
}

impl fmt::Display for InvalidOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientId => "the client identifier is longer than 65535 bytes, has U+0000 in it, or is empty without a clean session",
            Self::Will => "the topic of the will is no topic name, or its payload is longer than 65535 bytes",
            Self::UserName => "the user name is longer than 65535 bytes, or has U+0000 in it",
            Self::Password => "the password is longer than 65535 bytes",
        })
    }
}

/// A message was not accepted; the session is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PublishError {
    /// No slot, packet identifier or room in `Memory::tx` now. Some appears with
    /// [`Event::Delivered`](crate::Event::Delivered), or when a QoS 0 message has left.
    Full,
    /// The message can never fit `Memory::tx`, or is longer than MQTT can say.
    TooLarge,
    /// The topic is no topic name: see [`topic::is_name`](crate::topic::is_name).
    InvalidTopic,
    /// There is no connection, and QoS 0 does not wait for one. Use QoS 1 or 2 for what must arrive.
    Offline,
    /// This build has left out the quality of service: see the cargo features `qos1` and `qos2`.
    NotSupported,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "no room for the message now",
            Self::TooLarge => "the message is larger than the memory for outgoing messages",
            Self::InvalidTopic => "not a topic name",
            Self::Offline => "QoS 0 needs a connection, and there is none",
            Self::NotSupported => "this build has left out the quality of service",
        })
    }
}

impl core::error::Error for PublishError {}

/// A subscription was not accepted; the session is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubscribeError {
    /// No room in `Memory::filters`, or no packet identifier.
    Full,
    /// No filter was given [MQTT-3.8.3-3] [MQTT-3.10.3-2].
    Empty,
    /// A text is no topic filter: see [`topic::is_filter`](crate::topic::is_filter).
    InvalidFilter,
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "no room for the filters",
            Self::Empty => "no filter given",
            Self::InvalidFilter => "not a topic filter",
        })
    }
}

impl core::error::Error for SubscribeError {}

/// What was stored does not fit this session; the session is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RestoreError {
    /// No slot, no room in `Memory::tx`, `Memory::received` or `Memory::filters`.
    Full,
    /// The packet identifier is in use already.
    PacketIdInUse,
    /// The topic name or filter is none.
    Invalid,
    /// A connection is open: restore comes before the first `open`.
    Connected,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "no room for what was stored",
            Self::PacketIdInUse => "a packet identifier was stored twice",
            Self::Invalid => "a stored topic is not well-formed",
            Self::Connected => "restore comes before the first connection",
        })
    }
}

impl core::error::Error for RestoreError {}
