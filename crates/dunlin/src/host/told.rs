//! What whoever traces is told.
//!
//! A subscriber may do anything, such as publish what it is told or wait for a terminal: so nothing is told while a lock
//! is held. What happens under one is noted, and told behind it.

#![cfg_attr(not(feature = "tracing"), expect(unused_variables, clippy::unused_self, reason = "for tracing only"))]

use dunlin_core::{Message, Publish};

use super::error::Reason;
use super::pump::Next;

/// Things to be told.
#[derive(Default)]
pub(super) struct Told {
    #[cfg(feature = "tracing")]
    things: Vec<Thing>,
}

#[cfg(feature = "tracing")]
enum Thing {
    Connected { resumed: bool },
    Received { topic: String, len: usize, qos: dunlin_core::QoS },
}

impl Told {
    /// The server accepted a connection.
    pub fn connected(&mut self, resumed: bool) {
        #[cfg(feature = "tracing")]
        self.things.push(Thing::Connected { resumed });
    }

    /// A message came.
    #[inline]
    pub fn received(&mut self, message: &Message<'_>) {
        #[cfg(feature = "tracing")]
        if tracing::enabled!(tracing::Level::TRACE) {
            let (topic, len, qos) = (message.topic.to_string(), message.payload.len(), message.qos);
            self.things.push(Thing::Received { topic, len, qos });
        }
    }

    /// Tells all of it about this client.
    pub fn tell(&mut self, client: &str) {
        #[cfg(feature = "tracing")]
        for thing in self.things.drain(..) {
            match thing {
                Thing::Connected { resumed } => tracing::info!(client, resumed, "connected"),
                Thing::Received { topic, len, qos } => tracing::trace!(topic, len, ?qos, "received"),
            }
        }
    }
}

/// A message was accepted.
#[inline]
pub(super) fn accepted(publish: &Publish<'_>) {
    #[cfg(feature = "tracing")]
    tracing::trace!(topic = publish.topic(), len = publish.payload().len(), qos = ?publish.qos(), "accepted");
}

/// A connection of this client ended, or could not be made.
pub(super) fn lost(client: &str, reason: &Reason, next: &Next) {
    #[cfg(feature = "tracing")]
    match next {
        Next::Retry(delay) => tracing::warn!(client, %reason, ?delay, "disconnected"),
        Next::End => tracing::info!(client, %reason, "ended"),
    }
}
