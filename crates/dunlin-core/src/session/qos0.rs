//! Messages on their way out, where all are at QoS 0: stands in for `outbound`, which knows the other qualities.
//!
//! Messages leave in the order in which the application published, each is over when it has left, and none outlives its
//! connection [MQTT-4.3.1-1]. So `tx` is a queue of bytes, a slot holds nothing, and how long a message is stands in its
//! fixed header. What the other qualities ask for is answered here as for a session that has no such messages.

use super::ids::Ids;
use super::message::{Admission, Answer, External, NoRoom, Notice, Replace, Server};
use crate::bytes;
use crate::packet::publish::Outgoing;
use crate::packet::writer::Writer;
use crate::packet::{PacketId, header};

/// Room to keep track of one outgoing message: where all are at QoS 0, none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slot(());

impl Slot {
    /// An unused slot.
    pub const FREE: Self = Self(());
}

pub(crate) struct Outbound<'s> {
    tx: &'s mut [u8],
    /// Messages lie in `tx[head..tail]`, one behind the other.
    head: usize,
    tail: usize,
    count: usize,
}

impl<'s> Outbound<'s> {
    pub fn new(_: &'s mut [Slot], tx: &'s mut [u8]) -> Self {
        // More than this MQTT cannot say in one packet.
        let most = tx.len().min(header::MAX_PACKET);
        Self { tx: tx.get_mut(..most).unwrap_or_default(), head: 0, tail: 0, count: 0 }
    }

    /// Makes room for one message that takes `stored` bytes.
    pub fn make_room(&mut self, stored: usize) -> Result<(), NoRoom> {
        if stored > self.tx.len() {
            return Err(NoRoom::Ever);
        }
        if stored > self.room() {
            self.tail = self.tail.wrapping_sub(self.head);
            bytes::slide(self.tx, 0, self.head, self.tail);
            self.head = 0;
        }
        if stored > self.room() { Err(NoRoom::Now) } else { Ok(()) }
    }

    /// Bytes of `tx` behind the last message.
    fn room(&self) -> usize {
        self.tx.len().wrapping_sub(self.tail)
    }

    /// Takes a message for which [`make_room`](Self::make_room) has just found room.
    pub fn admit(&mut self, outgoing: &Outgoing<'_>, payload: &[u8], admission: &Admission, _: Option<External>) {
        outgoing.write(0, payload, self.tx, self.tail);
        self.tail = self.tail.wrapping_add(admission.stored);
        self.count = self.count.wrapping_add(1);
    }

    /// Nothing waits that could be pushed out.
    pub fn make_room_replacing(
        &mut self,
        stored: usize,
        _: Replace,
        _: &[u8],
        _: bool,
    ) -> Result<Option<PacketId>, NoRoom> {
        self.make_room(stored).map(|()| None)
    }

    /// An acknowledgement: nothing that we sent wants one.
    pub fn on_ack(&mut self, _: u8, _: PacketId, _: bool) -> Answer {
        Answer::Ignored
    }

    /// The stream is gone, and with it all messages.
    pub fn rewind(&mut self, _: Server) {
        self.head = 0;
        self.tail = 0;
        self.count = 0;
    }

    /// A message to report: there is none.
    pub fn next_notice(&mut self, _: bool) -> Option<(PacketId, Notice)> {
        None
    }

    /// The next PUBREL: there is none.
    pub fn next_release(&mut self) -> Option<PacketId> {
        None
    }

    /// Whether a PUBLISH is to leave.
    pub fn has_publish(&self, _: u16) -> bool {
        self.count > 0
    }

    /// Whether a PUBLISH waits to leave.
    pub fn may_wait(&self) -> bool {
        self.count > 0
    }

    /// Writes the PUBLISH that is being sent, all of it.
    pub fn write_publish(&self, _: usize, writer: &mut Writer<'_>) -> bool {
        let bytes = self.tx.get(self.head..).unwrap_or_default();
        writer.put(bytes.get(..packet_len(bytes)).unwrap_or_default());
        true
    }

    /// The PUBLISH that was being sent has left whole.
    pub fn publish_sent(&mut self) {
        let bytes = self.tx.get(self.head..).unwrap_or_default();
        self.head = self.head.wrapping_add(packet_len(bytes));
        self.count = self.count.wrapping_sub(1);
    }

    /// Messages that have not left.
    pub fn open_count(&self) -> usize {
        self.count
    }

    /// Marks the identifiers in use: there are none.
    pub fn mark_ids(&mut self, _: &mut Ids) {}
}

/// Bytes of the packet at the front of `bytes`.
fn packet_len(bytes: &[u8]) -> usize {
    match header::read(bytes) {
        Ok(Some(header)) => header.len.wrapping_add(header.remaining),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::VecDeque;
    use std::vec::Vec;

    use super::*;
    use crate::packet::QoS;
    use crate::packet::publish::Flags;

    /// Publishes a message for which there is room.
    fn publish(outbound: &mut Outbound<'_>, outgoing: &Outgoing<'_>, payload: &[u8]) {
        let stored = outgoing.packet_len();
        let admission = Admission { id: None, stored, replaces: Replace::Nothing, wants_mark: false };
        outbound.admit(outgoing, payload, &admission, None);
    }

    /// What leaves next, in pieces of up to `piece` bytes.
    fn send(outbound: &mut Outbound<'_>, piece: usize) -> Vec<u8> {
        let mut sent = Vec::new();
        loop {
            let mut out = [0; 200];
            let mut writer = Writer::new(&mut out[..piece]);
            writer.begin(0_usize.wrapping_sub(sent.len()));
            assert!(outbound.write_publish(sent.len(), &mut writer));
            let left = writer.at();
            sent.extend_from_slice(&out[..left.min(piece)]);
            if left <= piece {
                outbound.publish_sent();
                return sent;
            }
        }
    }

    /// Publishes and sends messages of many lengths: they leave as they came, and there is room for one whenever those
    /// that wait leave enough of `tx`.
    fn publish_and_send(tx_len: usize, piece: usize) {
        let mut tx = std::vec![0; tx_len];
        let mut outbound = Outbound::new(&mut [], &mut tx);
        let mut waiting: VecDeque<Vec<u8>> = VecDeque::new();
        for turn in 0..300_usize {
            let payload = std::vec![u8::try_from(turn % 251).unwrap(); turn * 37 % 149];
            let outgoing = Outgoing::new(Flags::of(QoS::AtMostOnce, turn % 2 == 0), b"a/b", payload.len());
            let len = outgoing.packet_len();
            let left = tx_len - waiting.iter().map(Vec::len).sum::<usize>();
            let room = outbound.make_room(len);
            let expected = match len {
                _ if len > tx_len => Err(NoRoom::Ever),
                _ if len > left => Err(NoRoom::Now),
                _ => Ok(()),
            };
            assert_eq!(room, expected, "{len} of {tx_len}, {left} left");
            if room.is_ok() {
                publish(&mut outbound, &outgoing, &payload);
                let mut packet = std::vec![0; len];
                outgoing.write(0, &payload, &mut packet, 0);
                waiting.push_back(packet);
            }
            let sends = if room.is_ok() { turn % 3 } else { 1 + turn % 3 };
            for _ in 0..sends.min(waiting.len()) {
                assert!(outbound.has_publish(20) && outbound.may_wait());
                assert_eq!(Some(send(&mut outbound, piece)), waiting.pop_front());
            }
            if turn % 83 == 0 {
                outbound.rewind(Server::MayRemember); // [MQTT-4.3.1-1]
                waiting.clear();
            }
            assert_eq!(outbound.open_count(), waiting.len());
            assert_eq!((outbound.has_publish(20), outbound.may_wait()), (!waiting.is_empty(), !waiting.is_empty()));
        }
    }

    #[test]
    fn tx_is_a_queue_of_messages() {
        for tx_len in [0, 5, 6, 20, 61, 150, 400] {
            for piece in [1, 2, 7, 200] {
                publish_and_send(tx_len, piece);
            }
        }
    }

    #[test]
    fn there_is_nothing_that_other_qualities_of_service_could_want() {
        let (mut slots, mut tx) = ([Slot::FREE], [0; 20]);
        let mut outbound = Outbound::new(&mut slots, &mut tx);
        let outgoing = Outgoing::new(Flags::of(QoS::AtMostOnce, false), b"a", 1);
        assert_eq!(outbound.make_room_replacing(outgoing.packet_len(), Replace::Oldest, b"a", false), Ok(None));
        publish(&mut outbound, &outgoing, b"x");
        assert_eq!(outbound.make_room_replacing(20, Replace::Oldest, b"a", false), Err(NoRoom::Now));
        for first in [header::PUBACK, header::PUBREC, header::PUBCOMP] {
            assert_eq!(outbound.on_ack(first, PacketId::new(1).unwrap(), false), Answer::Ignored);
        }
        assert_eq!((outbound.next_notice(false), outbound.next_release()), (None, None));
        let mut ids = Ids::new();
        assert_eq!(ids.allocate(|ids| outbound.mark_ids(ids)), PacketId::new(1));
        assert_eq!(send(&mut outbound, 20), b"\x30\x04\0\x01ax");
    }
}
