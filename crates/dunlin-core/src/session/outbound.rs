//! Messages on their way out.
//!
//! A message holds one [`Slot`] from `admit` until PUBACK or PUBCOMP, and its encoded packet lies in `tx` until it
//! need not be sent again. Two orders matter and both are kept by position: released messages come first, in the
//! order of their PUBRECs [MQTT-4.6.0-4]; the others follow in the order in which the application published, and
//! that is the order of their bytes in `tx` as well [MQTT-4.6.0-1]. Never reads time: see `keep_alive`.
//!
//! Slots and bytes that have become free stay where they are until room is needed; then both are closed up. What
//! happens once in a connection walks over all slots; what happens once in a message uses the cursors.

use super::ids::Window;
use super::mark::{Mark, Stage as MarkStage};
use crate::bytes;
use crate::packet::publish::{DUP, Outgoing};
use crate::packet::writer::{Writer, copy};
use crate::packet::{PacketId, QoS};

/// Room to keep track of one outgoing message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    at: usize,
    len: usize,
    id: u16,
    qos: QoS,
    stage: Stage,
    replaces: Replace,
    is_external: bool,
}

/// What has become of the message in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Free,
    /// Accepted; PUBLISH waits for its mark.
    Unstored,
    /// PUBLISH is to leave on this connection.
    Queued,
    /// PUBLISH has left; PUBACK or PUBREC is awaited.
    Sent,
    /// PUBREC came; PUBREL waits for its mark.
    Unmarked,
    /// PUBREL is to leave on this connection.
    Release,
    /// PUBREL has left; PUBCOMP is awaited.
    Released,
    /// To be reported as forgotten.
    Forgotten,
    /// To be reported as replaced.
    Replaced,
    /// Over; the slot waits for its mark.
    Ended,
}

/// What a message may push out when there is no room for it. Only messages that were themselves published with the
/// same policy and have never been sent can be pushed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Replace {
    /// Nothing: no room is [`PublishError::Full`](crate::PublishError::Full).
    Nothing,
    /// The waiting message with the same topic, room or not: newest wins.
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

/// Bytes in `tx` that say where an external payload is.
const EXTERNAL_LEN: usize = 8;

impl Slot {
    /// An unused slot.
    pub const FREE: Self = Self {
        at: 0,
        len: 0,
        id: 0,
        qos: QoS::AtMostOnce,
        stage: Stage::Free,
        replaces: Replace::Nothing,
        is_external: false,
    };

    fn is_live(&self) -> bool {
        self.stage != Stage::Free
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self::FREE
    }
}

/// Why a message was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    Now,
    Ever,
}

pub(crate) struct Outbound<'s> {
    slots: &'s mut [Slot],
    tx: &'s mut [u8],
    at: State,
}

/// Where things stand; plain numbers, so that a session can be taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// Live slots lie in `first..end`.
    first: u16,
    end: u16,
    /// Released messages lie before this index.
    released: u16,
    /// No PUBREL is owed before this index.
    next_release: u16,
    /// No PUBLISH is owed before this index.
    next_publish: u16,
    /// Bytes of `tx` from here on are free.
    tail: usize,
    /// Some slot may have something to report.
    has_notice: bool,
    /// Some slot may wait for a mark.
    has_mark: bool,
}

/// How a message is admitted: where it stands and under which identifier.
pub(crate) struct Admission {
    pub id: Option<PacketId>,
    pub replaces: Replace,
    pub wants_mark: bool,
}

/// Whether the server still has the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    MayRemember,
    HasForgotten,
}

/// What to copy next of the PUBLISH that is being sent.
pub(crate) enum Piece {
    /// This many bytes were copied, and the packet has so many in all.
    Bytes { copied: usize, total: usize },
    /// The payload is elsewhere; `offset` of it has been sent.
    External { payload: External, offset: usize },
}

impl<'s> Outbound<'s> {
    pub fn new(slots: &'s mut [Slot], tx: &'s mut [u8]) -> Self {
        // Sixteen bits count the slots, as they do packet identifiers.
        let count = slots.len().min(usize::from(u16::MAX));
        let slots = slots.get_mut(..count).unwrap_or_default();
        for slot in slots.iter_mut() {
            slot.stage = Stage::Free;
        }
        Self { slots, tx, at: State::new() }
    }

    // Requests of the application

    /// Makes room for one message that takes `stored` bytes.
    pub fn make_room(&mut self, stored: usize) -> Result<(), NoRoom> {
        if stored > self.tx.len() {
            return Err(NoRoom::Ever);
        }
        self.drop_free_front();
        if usize::from(self.at.end) >= self.slots.len() {
            self.close_up_slots();
        }
        if stored > self.room() {
            self.close_up_bytes();
        }
        if stored > self.room() || usize::from(self.at.end) >= self.slots.len() { Err(NoRoom::Now) } else { Ok(()) }
    }

    /// Bytes of `tx` behind the last message.
    fn room(&self) -> usize {
        self.tx.len().wrapping_sub(self.at.tail)
    }

    /// As [`make_room`](Self::make_room), pushing out messages where `policy` allows. Gives the identifier that the
    /// new message takes over, if any. Nothing is pushed out unless that makes enough room.
    pub fn make_room_replacing(
        &mut self,
        stored: usize,
        policy: Replace,
        topic: &str,
        sending: bool,
    ) -> Result<Option<PacketId>, NoRoom> {
        if stored > self.tx.len() {
            return Err(NoRoom::Ever);
        }
        if policy == Replace::Oldest && self.make_room(stored).is_ok() {
            return Ok(None);
        }
        // What would be gained if all that may be pushed out were? For the same topic that is one message.
        let mut gained = 0_usize;
        let mut victims = 0_usize;
        for index in self.at.first..self.at.end {
            if let (true, Some(slot)) =
                (self.is_victim(index, policy, topic, sending), self.slots.get(usize::from(index)))
            {
                if victims == 0 || policy == Replace::Oldest {
                    gained = gained.wrapping_add(slot.len);
                }
                victims = victims.wrapping_add(1);
            }
        }
        if victims == 0 {
            return self.make_room(stored).map(|()| None);
        }
        self.close_up_bytes();
        if stored > self.room().wrapping_add(gained) {
            return Err(NoRoom::Now);
        }
        // The first hands its identifier on, and its slot.
        let handed_on = self.push_out(policy, topic, Stage::Free, sending);
        while self.make_room(stored).is_err() {
            if self.push_out(policy, topic, Stage::Replaced, sending).is_none() {
                break;
            }
        }
        Ok(handed_on)
    }

    /// Bytes of `tx` that a message takes: its packet, or its head and where its payload is.
    pub fn stored_len(outgoing: &Outgoing<'_>, external: Option<External>) -> Option<usize> {
        let packet = outgoing.packet_len()?;
        match external {
            None => Some(packet),
            Some(_) => Some(packet.wrapping_sub(outgoing.payload_len).wrapping_add(EXTERNAL_LEN)),
        }
    }

    /// Takes a message for which [`make_room`](Self::make_room) has just found room.
    pub fn admit(
        &mut self,
        outgoing: &Outgoing<'_>,
        payload: &[u8],
        admission: &Admission,
        external: Option<External>,
    ) {
        let at = self.at.tail;
        let mut writer = Writer::new(0, self.tx.get_mut(at..).unwrap_or_default());
        let id = admission.id.map_or(0, PacketId::get);
        outgoing.write_head(id, &mut writer);
        match external {
            None => writer.put(payload),
            Some(payload) => {
                writer.put(&payload.key.to_be_bytes());
                writer.put(&payload.len.to_be_bytes());
            }
        }
        let len = writer.written();
        let Some(slot) = self.slots.get_mut(usize::from(self.at.end)) else { return };
        let stage = if admission.wants_mark { Stage::Unstored } else { Stage::Queued };
        let (qos, replaces) = (outgoing.qos, admission.replaces);
        *slot = Slot { at, len, id, qos, stage, replaces, is_external: external.is_some() };
        self.at.end = self.at.end.wrapping_add(1);
        self.at.tail = at.wrapping_add(len);
        self.at.has_mark |= admission.wants_mark;
    }

    /// Takes back a released message after a restart, behind the released ones that are there.
    pub fn admit_released(&mut self, id: PacketId) -> Result<(), NoRoom> {
        self.make_room(0)?;
        let end = self.at.end;
        let Some(slot) = self.slots.get_mut(usize::from(end)) else { return Err(NoRoom::Now) };
        *slot = Slot { id: id.get(), qos: QoS::ExactlyOnce, stage: Stage::Release, ..Slot::FREE };
        self.at.end = end.wrapping_add(1);
        self.move_down(end);
        Ok(())
    }

    /// Marks a restored message as one that may have been sent before [MQTT-3.3.1-1].
    pub fn set_dup_on_last(&mut self) {
        if let Some(slot) = self.slots.get(usize::from(self.at.end.wrapping_sub(1))) {
            set_dup(self.tx, slot.at, DUP);
        }
    }

    /// Whether a new message with `policy` may push out the one at `index`. One that is being sent is safe.
    fn is_victim(&self, index: u16, policy: Replace, topic: &str, sending: bool) -> bool {
        let Some(slot) = self.slots.get(usize::from(index)) else { return false };
        let is_same = policy == Replace::Oldest || self.topic_of(slot) == topic.as_bytes();
        let is_safe = sending && index == self.at.next_publish;
        is_same && !is_safe && slot.replaces == policy && self.is_unsent(slot)
    }

    /// Pushes out a waiting message for a new one with the same policy and gives its identifier, which is handed on
    /// to the new message (`then` is `Free`) or reported as replaced.
    fn push_out(&mut self, policy: Replace, topic: &str, then: Stage, sending: bool) -> Option<PacketId> {
        let index = (self.at.first..self.at.end).find(|index| self.is_victim(*index, policy, topic, sending))?;
        let slot = self.slots.get_mut(usize::from(index))?;
        slot.len = 0;
        slot.stage = then;
        self.at.has_notice = true;
        PacketId::new(slot.id)
    }

    /// Takes back a message that has never been sent. `false` when it may have been: it goes its way.
    pub fn withdraw(&mut self, id: PacketId, sending: bool, wants_mark: bool) -> bool {
        let Some(index) = self.find(id) else { return false };
        let Some(slot) = self.slots.get(usize::from(index)) else { return false };
        let is_leaving = sending && index == self.at.next_publish;
        if is_leaving || !self.is_unsent(slot) {
            return false;
        }
        let is_stored = slot.stage != Stage::Unstored;
        self.end(index, is_stored && wants_mark);
        true
    }

    // Packets that came

    /// PUBACK. `true` when it ends a message.
    pub fn on_puback(&mut self, id: PacketId, wants_mark: bool) -> bool {
        self.on_last_ack(id, QoS::AtLeastOnce, Stage::Sent, wants_mark)
    }

    /// PUBCOMP. `true` when it ends a message.
    pub fn on_pubcomp(&mut self, id: PacketId, wants_mark: bool) -> bool {
        self.on_last_ack(id, QoS::ExactlyOnce, Stage::Released, wants_mark)
    }

    fn on_last_ack(&mut self, id: PacketId, qos: QoS, stage: Stage, wants_mark: bool) -> bool {
        let Some(index) = self.find(id) else { return false };
        let Some(slot) = self.slots.get(usize::from(index)) else { return false };
        let is_last = slot.qos == qos && slot.stage == stage;
        if is_last {
            self.end(index, wants_mark);
        }
        is_last
    }

    /// PUBREC: the message is the server's now, its bytes are free [MQTT-4.3.3-1].
    pub fn on_pubrec(&mut self, id: PacketId, wants_mark: bool) -> Answer {
        let Some(index) = self.find(id) else { return Answer::Unknown };
        let Some(slot) = self.slots.get_mut(usize::from(index)) else { return Answer::Unknown };
        if slot.qos != QoS::ExactlyOnce {
            return Answer::Ignored;
        }
        match slot.stage {
            Stage::Sent => {
                slot.len = 0;
                slot.stage = if wants_mark { Stage::Unmarked } else { Stage::Release };
                self.at.has_mark |= wants_mark;
                self.move_down(index);
                Answer::Taken
            }
            Stage::Released => {
                slot.stage = Stage::Release; // each PUBREC is answered
                self.at.next_release = self.at.next_release.min(index);
                Answer::Taken
            }
            Stage::Unmarked | Stage::Release => Answer::Taken,
            Stage::Ended | Stage::Forgotten => Answer::Unknown,
            Stage::Free | Stage::Unstored | Stage::Queued | Stage::Replaced => Answer::Ignored,
        }
    }

    // The connection

    /// What has left may not have arrived: it is to leave again, the only path that sends anything twice
    /// [MQTT-4.4.0-1]. When the server has forgotten the session, what it had not taken goes out as new, and what it
    /// had taken is reported.
    pub fn rewind(&mut self, server: Server) {
        for slot in self.slots.iter_mut() {
            slot.stage = match slot.stage {
                Stage::Queued if slot.qos == QoS::AtMostOnce => Stage::Free, // [MQTT-4.3.1-1]
                Stage::Sent => {
                    set_dup(self.tx, slot.at, DUP); // [MQTT-3.3.1-1]
                    Stage::Queued
                }
                Stage::Queued | Stage::Unstored if server == Server::HasForgotten => {
                    set_dup(self.tx, slot.at, 0); // [MQTT-3.1.2-6]
                    slot.stage
                }
                Stage::Unmarked | Stage::Release if server == Server::HasForgotten => Stage::Forgotten,
                Stage::Released => Stage::Release,
                stage => stage,
            };
        }
        self.at.next_release = 0;
        self.at.next_publish = 0;
        self.at.has_notice = true;
    }

    /// A message to report: its identifier, and why.
    pub fn next_notice(&mut self, wants_mark: bool) -> Option<(PacketId, Notice)> {
        if !self.at.has_notice {
            return None;
        }
        for (index, slot) in (0_u16..).zip(self.slots.iter()) {
            let notice = match slot.stage {
                Stage::Forgotten => Notice::Forgotten,
                Stage::Replaced => Notice::Replaced,
                _ => continue,
            };
            let id = PacketId::new(slot.id)?;
            self.end(index, wants_mark);
            return Some((id, notice));
        }
        self.at.has_notice = false;
        None
    }

    // What leaves

    /// The next PUBREL, in the order of the PUBRECs [MQTT-4.6.0-4]; it counts as sent.
    pub fn next_release(&mut self) -> Option<PacketId> {
        while self.at.next_release < self.at.released {
            let slot = self.slots.get_mut(usize::from(self.at.next_release))?;
            if slot.stage == Stage::Unmarked {
                return None;
            }
            self.at.next_release = self.at.next_release.wrapping_add(1);
            if slot.stage == Stage::Release {
                slot.stage = Stage::Released;
                return PacketId::new(slot.id);
            }
        }
        None
    }

    /// Whether a PUBLISH is to leave, with at most `window` unacknowledged; [`copy_publish`](Self::copy_publish) then
    /// copies it.
    pub fn has_publish(&mut self, window: u16) -> bool {
        while self.at.next_publish < self.at.end {
            match self.slots.get(usize::from(self.at.next_publish)).map(|slot| slot.stage) {
                Some(Stage::Queued) => return self.lets_through(usize::from(window)),
                Some(Stage::Unstored) => return false,
                _ => self.at.next_publish = self.at.next_publish.wrapping_add(1),
            }
        }
        false
    }

    /// Copies what follows the first `sent` bytes of the PUBLISH that is being sent.
    pub fn copy_publish(&self, sent: usize, out: &mut [u8]) -> Piece {
        let Some(slot) = self.slots.get(usize::from(self.at.next_publish)) else {
            return Piece::Bytes { copied: 0, total: 0 };
        };
        let stored = self.stored(slot);
        if cfg!(feature = "large") && slot.is_external {
            return copy_external(stored, sent, out);
        }
        Piece::Bytes { copied: copy(out, stored.get(sent..).unwrap_or_default()), total: stored.len() }
    }

    /// The PUBLISH that was being sent has left whole.
    pub fn publish_sent(&mut self) {
        let Some(slot) = self.slots.get_mut(usize::from(self.at.next_publish)) else { return };
        slot.stage = if slot.qos == QoS::AtMostOnce { Stage::Free } else { Stage::Sent };
        self.at.next_publish = self.at.next_publish.wrapping_add(1);
    }

    // Marks

    pub fn next_mark(&mut self) -> Option<Mark> {
        if !self.at.has_mark {
            return None;
        }
        let mark = self.marks().next();
        self.at.has_mark = mark.is_some();
        mark
    }

    pub fn marks(&self) -> impl Iterator<Item = Mark> + '_ {
        self.slots.iter().filter_map(|slot| {
            let stage = match slot.stage {
                Stage::Unstored => MarkStage::Accepted,
                Stage::Unmarked => MarkStage::Released,
                Stage::Ended => MarkStage::Done,
                _ => return None,
            };
            Some(Mark { id: PacketId::new(slot.id)?, stage })
        })
    }

    /// A mark is on stable storage. One that no slot waits for (any more) changes nothing.
    pub fn mark_stored(&mut self, mark: Mark) {
        let Some(index) = self.find(mark.id) else { return };
        let Some(slot) = self.slots.get_mut(usize::from(index)) else { return };
        slot.stage = match (mark.stage, slot.stage) {
            (MarkStage::Accepted, Stage::Unstored) => Stage::Queued,
            (MarkStage::Released, Stage::Unmarked) => Stage::Release,
            (MarkStage::Done, Stage::Ended) => Stage::Free,
            (_, stage) => stage,
        };
    }

    // Questions

    /// Messages that are not over: what `publish` accepted and no acknowledgement has ended.
    pub fn open_count(&self) -> usize {
        let is_open = |slot: &&Slot| !matches!(slot.stage, Stage::Free | Stage::Ended);
        self.slots.iter().filter(is_open).fold(0, |count: usize, _| count.wrapping_add(1))
    }

    /// Marks the identifiers in use.
    pub fn mark_ids(&self, window: &mut Window) {
        for slot in self.slots.iter().filter(|slot| slot.is_live()) {
            window.mark(slot.id);
        }
    }

    /// The identifiers in use.
    #[cfg(any(feature = "durable", feature = "verify"))]
    pub fn ids(&self) -> impl Iterator<Item = u16> + '_ {
        self.slots.iter().filter(|slot| slot.is_live()).map(|slot| slot.id)
    }

    // Helpers

    /// Whether the window lets the message at `next_publish` leave. Those in flight lie before it.
    fn lets_through(&self, window: usize) -> bool {
        let is_qos0 = |slot: &Slot| slot.qos == QoS::AtMostOnce;
        let before = self.slots.get(usize::from(self.at.first)..usize::from(self.at.next_publish)).unwrap_or_default();
        if before.len() < window || self.slots.get(usize::from(self.at.next_publish)).is_some_and(is_qos0) {
            return true;
        }
        let flies =
            |slot: &&Slot| matches!(slot.stage, Stage::Sent | Stage::Unmarked | Stage::Release | Stage::Released);
        before.iter().filter(flies).fold(0, |count: usize, _| count.wrapping_add(1)) < window
    }

    fn find(&mut self, id: PacketId) -> Option<u16> {
        self.drop_free_front();
        let mut index = self.at.first;
        while index < self.at.end {
            let slot = self.slots.get(usize::from(index))?;
            if slot.id == id.get() && slot.is_live() {
                return Some(index);
            }
            index = index.wrapping_add(1);
        }
        None
    }

    fn stored(&self, slot: &Slot) -> &[u8] {
        self.tx.get(slot.at..slot.at.wrapping_add(slot.len)).unwrap_or_default()
    }

    /// Never sent on any connection: then the server cannot know of it.
    fn is_unsent(&self, slot: &Slot) -> bool {
        let is_waiting = matches!(slot.stage, Stage::Queued | Stage::Unstored);
        is_waiting && slot.qos != QoS::AtMostOnce && self.stored(slot).first().is_some_and(|first| first & DUP == 0)
    }

    fn topic_of(&self, slot: &Slot) -> &[u8] {
        // Over the first byte and Remaining Length, whose last byte has its top bit clear.
        let mut rest = self.stored(slot).get(1..).unwrap_or_default();
        while let [byte, tail @ ..] = rest {
            rest = tail;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let Some((len, rest)) = rest.split_first_chunk() else { return &[] };
        rest.get(..usize::from(u16::from_be_bytes(*len))).unwrap_or_default()
    }

    /// The message is over. Its slot is free at once, or as soon as its mark is stored.
    fn end(&mut self, index: u16, wants_mark: bool) {
        if let Some(slot) = self.slots.get_mut(usize::from(index)) {
            slot.len = 0;
            slot.stage = if wants_mark { Stage::Ended } else { Stage::Free };
            self.at.has_mark |= wants_mark;
        }
    }

    /// Moves the slot at `from` down behind the released ones; those between move up by one.
    fn move_down(&mut self, from: u16) {
        let to = self.at.released.max(self.at.first);
        let mut index = from;
        while index > to {
            bytes::exchange(self.slots, usize::from(index.wrapping_sub(1)), usize::from(index));
            index = index.wrapping_sub(1);
        }
        self.at.next_release = self.at.next_release.min(to);
        self.at.released = to.wrapping_add(1);
    }

    fn drop_free_front(&mut self) {
        while self.at.first < self.at.end {
            if self.slots.get(usize::from(self.at.first)).is_some_and(Slot::is_live) {
                return;
            }
            self.at.first = self.at.first.wrapping_add(1);
        }
        self.at.tail = 0;
    }

    fn close_up_slots(&mut self) {
        let mut kept = 0_u16;
        for index in 0..self.at.end {
            if self.slots.get(usize::from(index)).is_some_and(Slot::is_live) {
                bytes::exchange(self.slots, usize::from(kept), usize::from(index));
                kept = kept.wrapping_add(1);
                continue;
            }
            // The slots above move down by one, and the cursors among them.
            for cursor in [&mut self.at.released, &mut self.at.next_release, &mut self.at.next_publish] {
                if *cursor > kept {
                    *cursor = cursor.wrapping_sub(1);
                }
            }
        }
        self.at.first = 0;
        self.at.end = kept;
    }

    fn close_up_bytes(&mut self) {
        let mut tail = 0_usize;
        for slot in self.slots.iter_mut().filter(|slot| slot.is_live()) {
            bytes::slide(self.tx, tail, slot.at, slot.len);
            slot.at = tail;
            tail = tail.wrapping_add(slot.len);
        }
        self.at.tail = tail;
    }
}

#[cfg(feature = "verify")]
impl<'s> Outbound<'s> {
    /// State and memory apart, what is unused cleared.
    pub fn into_parts(mut self) -> (State, &'s mut [Slot], &'s mut [u8]) {
        self.close_up_slots();
        self.close_up_bytes();
        self.drop_free_front();
        self.slots.get_mut(usize::from(self.at.end)..).unwrap_or_default().fill(Slot::FREE);
        self.tx.get_mut(self.at.tail..).unwrap_or_default().fill(0);
        for slot in self.slots.iter_mut().filter(|slot| slot.len == 0) {
            slot.at = 0;
        }
        self.at.has_notice = self.slots.iter().any(|slot| matches!(slot.stage, Stage::Forgotten | Stage::Replaced));
        self.at.has_mark =
            self.slots.iter().any(|slot| matches!(slot.stage, Stage::Unstored | Stage::Unmarked | Stage::Ended));
        (self.at, self.slots, self.tx)
    }

    pub fn from_parts(at: State, slots: &'s mut [Slot], tx: &'s mut [u8]) -> Self {
        Self { slots, tx, at }
    }

    pub fn invariant(&self) -> Result<(), &'static str> {
        let live = self
            .slots
            .get(usize::from(self.at.first)..usize::from(self.at.end))
            .ok_or("slots in use lie outside the slots")?;
        if self.slots.iter().filter(|slot| slot.is_live()).count() != live.iter().filter(|slot| slot.is_live()).count()
        {
            return Err("a live slot lies outside the slots in use");
        }
        let mut floor = 0_usize;
        for slot in live.iter().filter(|slot| slot.len > 0) {
            if slot.at < floor {
                return Err("messages lie in another order than their slots");
            }
            floor = slot.at.saturating_add(slot.len);
        }
        if floor > self.at.tail {
            return Err("a message lies in free memory");
        }
        for (index, slot) in
            self.slots.iter().enumerate().take(usize::from(self.at.end)).skip(usize::from(self.at.first))
        {
            let is_released = matches!(slot.stage, Stage::Unmarked | Stage::Release | Stage::Released);
            if is_released && index >= usize::from(self.at.released) {
                return Err("a released message stands behind the released ones");
            }
            if slot.stage == Stage::Release && index < usize::from(self.at.next_release) {
                return Err("a PUBREL that is owed stands before its cursor");
            }
            if matches!(slot.stage, Stage::Queued | Stage::Unstored) && index < usize::from(self.at.next_publish) {
                return Err("a PUBLISH that is owed stands before its cursor");
            }
            if matches!(slot.stage, Stage::Queued | Stage::Unstored | Stage::Sent)
                && index < usize::from(self.at.released)
            {
                return Err("an unreleased message stands among the released ones");
            }
            let is_notice = matches!(slot.stage, Stage::Forgotten | Stage::Replaced);
            if is_notice && !self.at.has_notice {
                return Err("something to report would not be found");
            }
            let is_unmarked = matches!(slot.stage, Stage::Unstored | Stage::Unmarked | Stage::Ended);
            if is_unmarked && !self.at.has_mark {
                return Err("a mark that is waited for would not be found");
            }
        }
        Ok(())
    }
}

/// What is to be reported of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    Forgotten,
    Replaced,
}

/// What a PUBREC is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Taken,
    /// We know no message of this identifier; the server wants PUBREL all the same.
    Unknown,
    /// It fits nothing we sent.
    Ignored,
}

impl State {
    pub const fn new() -> Self {
        Self {
            first: 0,
            end: 0,
            released: 0,
            next_release: 0,
            next_publish: 0,
            tail: 0,
            has_notice: true,
            has_mark: true,
        }
    }
}

/// Sets DUP in the packet at `at` to `dup`; nothing else does [MQTT-3.3.1-3].
fn set_dup(tx: &mut [u8], at: usize, dup: u8) {
    if let Some(first) = tx.get_mut(at) {
        *first = *first & !DUP | dup;
    }
}

fn copy_external(stored: &[u8], sent: usize, out: &mut [u8]) -> Piece {
    // `split_last_chunk` would do, but for a panic that the standard library leaves in it.
    let (head, place) = stored.split_at_checked(stored.len().wrapping_sub(EXTERNAL_LEN)).unwrap_or((stored, &[]));
    let [k0, k1, k2, k3, l0, l1, l2, l3] = *place.first_chunk().unwrap_or(&[0; EXTERNAL_LEN]);
    let payload = External { key: u32::from_be_bytes([k0, k1, k2, k3]), len: u32::from_be_bytes([l0, l1, l2, l3]) };
    if sent >= head.len() {
        return Piece::External { payload, offset: sent.wrapping_sub(head.len()) };
    }
    let total = head.len().wrapping_add(to_usize(payload.len));
    Piece::Bytes { copied: copy(out, head.get(sent..).unwrap_or_default()), total }
}

/// Lengths of 32 bits fit the address space of every target with 32 bits or more.
pub(crate) fn to_usize(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
