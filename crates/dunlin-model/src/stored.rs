//! What survives a power cut: the contract of a store, in the fewest lines that keep it.

use dunlin_core::PacketId;
#[cfg(feature = "whole")]
pub use dunlin_core::{Mark, Stage};

/// What a session without marks never asks for.
#[cfg(not(feature = "whole"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    pub id: PacketId,
    pub stage: Stage,
}

/// As [`Mark`].
#[cfg(not(feature = "whole"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(dead_code)]
pub enum Stage {
    Accepted,
    Released,
    Done,
    Received,
    Forgotten,
}

/// The contents of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stored {
    /// Outgoing messages in the order in which they were accepted: identifier and number.
    pub messages: Vec<(PacketId, u8)>,
    /// Outgoing messages past PUBREC, in the order of their marks.
    pub released: Vec<PacketId>,
    /// Incoming QoS 2 messages that were handled.
    pub received: Vec<PacketId>,
}

impl Stored {
    /// Keeps a message. Several publishers may store at the same time, so the order is that of the numbers.
    pub fn put(&mut self, id: PacketId, message: u8) {
        let at = self.messages.partition_point(|(_, other)| *other < message);
        self.messages.insert(at, (id, message));
    }

    /// Keeps what became of a message.
    pub fn apply(&mut self, mark: Mark) {
        match mark.stage {
            Stage::Released => {
                self.messages.retain(|(id, _)| *id != mark.id);
                if !self.released.contains(&mark.id) {
                    self.released.push(mark.id);
                }
            }
            Stage::Done => {
                self.messages.retain(|(id, _)| *id != mark.id);
                self.released.retain(|id| *id != mark.id);
            }
            Stage::Received if !self.received.contains(&mark.id) => {
                self.received.push(mark.id);
                self.received.sort();
            }
            Stage::Forgotten => self.received.retain(|id| *id != mark.id),
            _ => {}
        }
    }

    /// The message that is kept under this number, payload and all.
    pub fn has_payload(&self, message: u8) -> bool {
        self.messages.iter().any(|(_, other)| *other == message)
    }
}
