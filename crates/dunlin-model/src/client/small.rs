//! The session of a small device: in RAM, with a filter that it subscribed to at run time.

use dunlin_core::{Filter, Options, PacketId, Publish, PublishError, QoS, Session};

use super::{Client, qos, qos_of};
use crate::packet::TOPIC;
use crate::stored::{Mark, Stored};

/// Bytes for filters added at run time: room for the one.
pub const FILTERS: usize = dunlin_core::memory::filter_len(TOPIC.len());

pub const OPTIONS: Options<'static> = Options::new("c").persistent().keep_alive(0);

impl Client {
    /// Whether there are marks, and a store for them.
    pub const IS_DURABLE: bool = false;

    /// The power is on. There is no store: what a session had is gone with it.
    pub fn boot(_: &Stored, _: bool) -> Result<Self, &'static str> {
        let mut client = Self::new();
        let filter = Filter::new(TOPIC, QoS::ExactlyOnce).expect("a topic name is a filter");
        client.with(|session, _| session.subscribe(&[filter])).expect("there is room for one");
        Ok(client)
    }

    pub fn publish(&mut self, message: u8, _: bool) -> Result<PacketId, PublishError> {
        let payload = [message];
        let publish = Publish::new(TOPIC, &payload).with_qos(qos(qos_of(message)));
        let id = self.with(|session, _| session.publish(&publish))?;
        Ok(id.expect("QoS 1 and 2 have an identifier"))
    }

    #[expect(clippy::unused_self, reason = "stands in for the one of a durable session")]
    pub fn marks(&mut self) -> Vec<Mark> {
        Vec::new()
    }

    #[expect(clippy::unused_self, reason = "as above")]
    pub fn mark_stored(&mut self, _: Mark) {}
}

/// Identifiers rise: nothing sets them back.
pub fn reuse_ids(_: &mut Session<'_>) {}
