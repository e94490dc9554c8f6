//! Outgoing messages as the session and those who keep them, `outbound` or its stand-in, speak of them.

use crate::packet::PacketId;

/// What a message may push out when there is no room for it. Only messages that were themselves published with the
/// same policy and have never been sent can be pushed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Replace {
    /// Nothing: no room is [`PublishError::Full`](crate::PublishError::Full).
    Nothing,
    /// The waiting message with the same topic, room or not: newest wins.
    #[cfg(feature = "qos1")]
    SameTopic,
    /// As many of the oldest waiting messages as it takes.
    Oldest,
}

/// A payload that stays with the application: see
/// [`Session::publish_external`](crate::Session::publish_external).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct External {
    /// The application's own name for the payload.
    pub key: u32,
    /// Its length in bytes.
    pub len: u32,
}

impl External {
    /// What is stored in the place of the payload.
    pub(crate) fn to_bytes(self) -> [u8; EXTERNAL_LEN] {
        let ([k0, k1, k2, k3], [l0, l1, l2, l3]) = (self.key.to_be_bytes(), self.len.to_be_bytes());
        [k0, k1, k2, k3, l0, l1, l2, l3]
    }
}

/// Bytes in `tx` that say where an external payload is.
pub(crate) const EXTERNAL_LEN: usize = 8;

/// Why a message was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    Now,
    Ever,
}

/// How a message is admitted: where it stands and under which identifier.
pub(crate) struct Admission {
    pub id: Option<PacketId>,
    /// Bytes of `tx` that it takes.
    pub stored: usize,
    pub replaces: Replace,
    pub wants_mark: bool,
}

/// Whether the server still has the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    MayRemember,
    HasForgotten,
}

/// What is to be reported of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    Forgotten,
    Replaced,
}

/// What an acknowledgement is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It ends a message.
    Over,
    Taken,
    /// We know no message of this identifier; after PUBREC the server wants PUBREL all the same.
    Unknown,
    /// It fits nothing we sent.
    Ignored,
}

/// Whether `poll` left a packet in the inbox because something must leave first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stall {
    No,
    Waiting,
    Over,
}

/// What to do with a packet that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// New: show it.
    Show,
    /// Taken; there is nothing to show [MQTT-4.3.3-2].
    Taken,
    /// Not now: something must leave first.
    Stall,
    /// No room, and nothing that leaves would make some.
    TooMany,
}

/// Lengths of 32 bits fit the address space of every target with 32 bits or more.
pub(crate) fn to_usize(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
