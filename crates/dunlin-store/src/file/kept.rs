//! What a log amounts to: the messages that are not over, the identifiers, the filters.

use std::collections::{BTreeMap, HashMap};

use dunlin_core::{Mark, PacketId, QoS, Stage};

use super::log::{MARK, STAGES, filter_len, kind};
use super::{FileStore, Found};

/// What the log amounts to.
#[derive(Debug, Default)]
pub struct Kept {
    /// By their place in the order, which is widened since it comes round.
    pub messages: BTreeMap<u64, Message>,
    names: HashMap<PacketId, u64>,
    pub released: Vec<PacketId>,
    pub received: Vec<PacketId>,
    pub filters: Vec<(String, QoS)>,
    pub last: Option<(PacketId, u64)>,
    /// Bytes of the messages and filters that are still needed.
    pub live: u64,
}

#[derive(Debug)]
pub struct Message {
    pub id: PacketId,
    pub topic: String,
    pub qos: QoS,
    pub retain: bool,
    /// Where its payload lies in the log.
    pub at: u64,
    pub len: u32,
}

impl Kept {
    /// The order as a number that does not come round: the one closest to the last.
    pub fn widen(&self, order: u32) -> u64 {
        let last = self.last.map_or(u64::from(order) + (1 << 32), |(_, last)| last);
        let distance = order.wrapping_sub(last as u32).cast_signed();
        last.wrapping_add_signed(i64::from(distance))
    }

    /// Bytes that a log takes which holds this and nothing else.
    pub fn needed(&self) -> u64 {
        self.live + ((self.released.len() + self.received.len()) * MARK) as u64
    }

    pub fn put(&mut self, order: u32, message: Message) {
        let order = self.widen(order);
        if self.last.is_none_or(|(_, last)| order > last) {
            self.last = Some((message.id, order));
        }
        self.live += size(&message);
        if let Some(older) = self.names.insert(message.id, order) {
            self.forget(older);
        }
        self.messages.insert(order, message);
    }

    fn forget(&mut self, order: u64) {
        if let Some(message) = self.messages.remove(&order) {
            self.live -= size(&message);
        }
    }

    pub fn mark(&mut self, mark: &Mark) {
        match mark.stage {
            Stage::Released => {
                if let Some(order) = self.names.remove(&mark.id) {
                    self.forget(order);
                }
                if !self.released.contains(&mark.id) {
                    self.released.push(mark.id);
                }
            }
            Stage::Done => {
                if let Some(order) = self.names.remove(&mark.id) {
                    self.forget(order);
                }
                self.released.retain(|id| *id != mark.id);
            }
            Stage::Received if !self.received.contains(&mark.id) => self.received.push(mark.id),
            Stage::Forgotten => self.received.retain(|id| *id != mark.id),
            _ => {}
        }
    }

    pub fn subscribe(&mut self, text: &str, qos: QoS) {
        self.unsubscribe(text);
        self.filters.push((text.to_owned(), qos));
        self.live += filter_len(text) as u64;
    }

    pub fn unsubscribe(&mut self, text: &str) {
        if let Some(at) = self.filters.iter().position(|(other, _)| other == text) {
            let (text, _) = self.filters.remove(at);
            self.live -= filter_len(&text) as u64;
        }
    }

    /// The entry with this index, as `Store::seek` counts them.
    pub fn nth(&self, index: usize) -> Option<Found> {
        let received = self.received.iter().map(|id| Found::Received(*id));
        let released = self.released.iter().map(|id| Found::Released(*id));
        let messages = self.messages.iter().map(|(order, message)| Found::Message {
            id: message.id,
            order: *order as u32,
            topic: message.topic.clone(),
            qos: message.qos,
            retain: message.retain,
            len: message.len,
        });
        let filters = self.filters.iter().map(|(text, qos)| Found::Filter(text.clone(), *qos));
        received.chain(released).chain(messages).chain(filters).nth(index)
    }

    /// Takes the contents of a record that lie at this place. `false`: they make no sense.
    pub fn replay(&mut self, body: &[u8], at: u64) -> bool {
        self.try_replay(body, at).is_some()
    }

    fn try_replay(&mut self, body: &[u8], at: u64) -> Option<()> {
        let (kind, rest) = body.split_first()?;
        match *kind {
            kind::PUT => {
                let ([i1, i2, o1, o2, o3, o4, flags, t1, t2], rest) = rest.split_first_chunk::<9>()?;
                let (topic, payload) = rest.split_at_checked(usize::from(u16::from_be_bytes([*t1, *t2])))?;
                let message = Message {
                    id: PacketId::new(u16::from_be_bytes([*i1, *i2]))?,
                    topic: std::str::from_utf8(topic).ok()?.to_owned(),
                    qos: QoS::from_bits(flags & 3)?,
                    retain: flags & 4 != 0,
                    at: at + (body.len() - payload.len()) as u64,
                    len: payload.len() as u32,
                };
                self.put(u32::from_be_bytes([*o1, *o2, *o3, *o4]), message);
            }
            kind::MARK => {
                let ([stage, i1, i2], _) = rest.split_first_chunk::<3>()?;
                let stage = STAGES.iter().find(|(number, _)| number == stage).map(|(_, stage)| *stage)?;
                self.mark(&Mark { id: PacketId::new(u16::from_be_bytes([*i1, *i2]))?, stage });
            }
            kind::LAST => {
                let ([i1, i2, o1, o2, o3, o4], _) = rest.split_first_chunk::<6>()?;
                let order = self.widen(u32::from_be_bytes([*o1, *o2, *o3, *o4]));
                self.last = Some((PacketId::new(u16::from_be_bytes([*i1, *i2]))?, order));
            }
            kind::SUBSCRIBE => {
                let (qos, text) = rest.split_first()?;
                self.subscribe(std::str::from_utf8(text).ok()?, QoS::from_bits(*qos)?);
            }
            kind::UNSUBSCRIBE => self.unsubscribe(std::str::from_utf8(rest).ok()?),
            _ => return None,
        }
        Some(())
    }
}

fn size(message: &Message) -> u64 {
    FileStore::size(message.topic.len(), message.len as usize)
}
