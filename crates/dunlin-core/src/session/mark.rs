//! What must be on stable storage before what may leave.
//!
//! Marks are states, not messages: [`Session::next_mark`](crate::Session::next_mark) asks the slots what they are
//! waiting for, so that asking twice gives the same answer and none can be lost between two stores.

use super::options::Publish;
use crate::packet::{PacketId, QoS};
use crate::topic::Topic;

/// A fact to store before the session goes on: packet identifier and stage. Only with `Options::durable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The message.
    pub id: PacketId,
    /// What became of it.
    pub stage: Stage,
}

/// What became of a message, as far as a store has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Outgoing: accepted. Store topic, payload, quality of service and RETAIN; then PUBLISH may leave.
    Accepted,
    /// Outgoing: the store did not take it. Never asked for; told to
    /// [`mark_stored`](crate::Session::mark_stored) in the place of [`Accepted`](Self::Accepted), it takes the message back.
    Refused,
    /// Outgoing: PUBREC came. The payload is no longer needed; once this is stored, PUBREL may leave.
    Released,
    /// Outgoing: PUBACK or PUBCOMP came, or the message was given up. Forget it; then its identifier is free.
    Done,
    /// Incoming, QoS 2: handled by the application. Remember the identifier; then PUBREC may leave.
    Received,
    /// Incoming, QoS 2: PUBREL came, or the server lost the session. Forget the identifier; then PUBCOMP may leave.
    Forgotten,
}

/// What a store gives back after a restart, one call of [`Session::restore`](crate::Session::restore) each, outgoing
/// messages in the order in which they were accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Restored<'a> {
    /// An outgoing message that was accepted and whose PUBREC or PUBACK had not come. It goes out with DUP, since
    /// nobody knows whether it had been sent.
    Message {
        /// Its packet identifier.
        id: PacketId,
        /// The message.
        publish: Publish<'a>,
    },
    /// The same, with its payload outside the session: see
    /// [`Session::publish_external`](crate::Session::publish_external).
    #[cfg(feature = "large")]
    External {
        /// Its packet identifier.
        id: PacketId,
        /// Its topic name.
        topic: Topic<'a>,
        /// Its quality of service.
        qos: QoS,
        /// Whether the server is to keep it.
        retain: bool,
        /// The payload.
        payload: super::message::External,
    },
    /// An outgoing QoS 2 message whose PUBREC had come. In the order in which the PUBRECs came, before the messages.
    Released(PacketId),
    /// An incoming QoS 2 message that the application has handled.
    Received(PacketId),
    /// A filter that was subscribed to at run time; it is subscribed to again on the first connection. Costs one
    /// packet identifier as long as it is subscribed.
    Subscription {
        /// The filter, as it was accepted: but for its length it is not checked again.
        filter: Topic<'a>,
        /// The quality of service to ask for.
        qos: QoS,
    },
    /// The next packet identifier to use, so that identifiers come round as late as possible.
    NextId(PacketId),
}
