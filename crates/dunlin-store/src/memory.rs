//! A store in memory, for tests: what it holds is what a power cut would leave.

use std::convert::Infallible;

use dunlin_core::{Filter, Mark, PacketId, Publish, QoS, Stage, Topic};

use crate::store::{Damage, Entry, Store, StoreError};

/// Keeps everything in memory. Clone it to see what a power cut at this moment would leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStore {
    released: Vec<PacketId>,
    messages: Vec<Message>,
    received: Vec<PacketId>,
    filters: Vec<(String, QoS)>,
    last: Option<(PacketId, u32)>,
    /// The entry that was looked for.
    index: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    id: PacketId,
    order: u32,
    topic: String,
    payload: Vec<u8>,
    qos: QoS,
    retain: bool,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Store for MemoryStore {
    type Error = Infallible;

    async fn put(&mut self, id: PacketId, order: u32, publish: &Publish<'_>) -> Result<(), StoreError<Infallible>> {
        self.messages.push(Message {
            id,
            order,
            topic: publish.topic().to_owned(),
            payload: publish.payload().to_vec(),
            qos: publish.qos(),
            retain: publish.is_retain(),
        });
        self.last = Some((id, order));
        Ok(())
    }

    async fn mark(&mut self, marks: &[Mark]) -> Result<(), StoreError<Infallible>> {
        for mark in marks {
            match mark.stage {
                Stage::Released => {
                    let before = self.messages.len();
                    self.messages.retain(|message| message.id != mark.id);
                    if self.messages.len() < before {
                        self.released.push(mark.id);
                    }
                }
                Stage::Done => {
                    self.messages.retain(|message| message.id != mark.id);
                    self.released.retain(|id| *id != mark.id);
                }
                Stage::Received if !self.received.contains(&mark.id) => self.received.push(mark.id),
                Stage::Forgotten => self.received.retain(|id| *id != mark.id),
                _ => {}
            }
        }
        Ok(())
    }

    async fn read(&mut self, order: u32, offset: usize, out: &mut [u8]) -> Result<(), StoreError<Infallible>> {
        let message = self.messages.iter().find(|message| message.order == order);
        let bytes = message.and_then(|message| message.payload.get(offset..)?.get(..out.len()));
        out.copy_from_slice(bytes.ok_or(StoreError::Unreliable)?);
        Ok(())
    }

    async fn subscribe(&mut self, filter: &Filter<'_>) -> Result<(), StoreError<Infallible>> {
        self.unsubscribe(filter.text()).await?;
        self.filters.push((filter.text().to_owned(), filter.qos()));
        Ok(())
    }

    async fn unsubscribe(&mut self, filter: &str) -> Result<(), StoreError<Infallible>> {
        self.filters.retain(|(text, _)| text != filter);
        Ok(())
    }

    async fn seek(&mut self, index: usize) -> Result<(), StoreError<Infallible>> {
        self.index = index;
        Ok(())
    }

    fn found(&self) -> Option<Entry<'_>> {
        let released = self.released.iter().map(|id| Entry::Released(*id));
        let messages = self.messages.iter().map(|message| {
            let len = u32::try_from(message.payload.len()).unwrap_or(u32::MAX);
            let topic = Topic::from_store(message.topic.as_bytes());
            let (qos, retain) = (message.qos, message.retain);
            Entry::Message { id: message.id, order: message.order, topic, qos, retain, len }
        });
        let received = self.received.iter().map(|id| Entry::Received(*id));
        let filters = self.filters.iter().map(|(text, qos)| {
            let filter = Topic::from_store(text.as_bytes());
            Entry::Subscription { filter, qos: *qos }
        });
        received.chain(released).chain(messages).chain(filters).nth(self.index)
    }

    fn last(&self) -> Option<(PacketId, u32)> {
        self.last
    }

    fn damage(&self) -> Damage {
        Damage::default()
    }
}
