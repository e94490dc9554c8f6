//! All of a session: with marks, payloads outside, and filters from a table.

use dunlin_core::{External, Filter, Options, PacketId, Publish, PublishError, QoS, Restored, Session, Topic};

use super::{Client, qos, qos_of};
use crate::packet::TOPIC;
use crate::stored::{Mark, Stored};

/// Bytes for filters added at run time: there are none.
pub const FILTERS: usize = 0;

const TABLE: &[Filter<'static>] = &[Filter::literal(TOPIC, QoS::ExactlyOnce)];
pub const OPTIONS: Options<'static> = Options::new("c").durable().keep_alive(0).subscriptions(TABLE);

impl Client {
    /// Whether there are marks, and a store for them.
    pub const IS_DURABLE: bool = true;

    /// The power is on: a new session, with what the store kept. Gives the names of the messages that came back.
    pub fn boot(stored: &Stored, external: bool) -> Result<Self, &'static str> {
        let mut client = Self::new();
        client.with(|session, _| {
            for id in &stored.released {
                session.restore(Restored::Released(*id)).map_err(|_| "a released message cannot be restored")?;
            }
            for (id, message) in &stored.messages {
                let payload = [*message];
                let publish = Publish::new(TOPIC, &payload).with_qos(qos(qos_of(*message)));
                let payload = External { key: u32::from(*message), len: 1 };
                let entry = if external {
                    let (topic, qos) = (Topic::from_store(TOPIC.as_bytes()), publish.qos());
                    Restored::External { id: *id, topic, qos, retain: false, payload }
                } else {
                    Restored::Message { id: *id, publish }
                };
                session.restore(entry).map_err(|_| "a message cannot be restored")?;
            }
            for id in &stored.received {
                session.restore(Restored::Received(*id)).map_err(|_| "a received identifier cannot be restored")?;
            }
            Ok::<(), &str>(())
        })?;
        Ok(client)
    }

    pub fn publish(&mut self, message: u8, external: bool) -> Result<PacketId, PublishError> {
        let payload = [message];
        let publish = Publish::new(TOPIC, &payload).with_qos(qos(qos_of(message)));
        let id = self.with(|session, _| match external {
            true => session.publish_external(&publish, External { key: u32::from(message), len: 1 }),
            false => session.publish(&publish),
        })?;
        Ok(id.expect("QoS 1 and 2 have an identifier"))
    }

    pub fn marks(&mut self) -> Vec<Mark> {
        self.with(|session, _| session.marks().collect())
    }

    pub fn mark_stored(&mut self, mark: Mark) {
        self.with(|session, _| session.mark_stored(mark));
    }
}

/// As if 65,535 messages had gone by: identifiers come round as early as possible.
pub fn reuse_ids(session: &mut Session<'_>) {
    if let Some(id) = PacketId::new(1) {
        let _ = session.restore(Restored::NextId(id));
    }
}
