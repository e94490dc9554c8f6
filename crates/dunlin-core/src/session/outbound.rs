//! Messages on their way out.
//!
//! A message holds one [`Slot`] from `admit` until PUBACK or PUBCOMP, and its encoded packet lies in `tx` until it
//! need not be sent again. Two orders matter and both are kept by position: released messages come first, in the
//! order of their PUBRECs [MQTT-4.6.0-4]; the others follow in the order in which the application published, and
//! that is the order of their bytes in `tx` as well [MQTT-4.6.0-1]. Never reads time: see `keep_alive`.
//!
//! Slots and bytes that have become free stay where they are until room is needed; then both are closed up.

use super::ids::Window;
use super::mark::{Mark, Stage as MarkStage};
use super::options::Publish;
use crate::bytes;
use crate::packet::publish::{DUP, Outgoing, header_len};
use crate::packet::writer::Writer;
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

    fn packet_id(&self) -> Option<PacketId> {
        PacketId::new(self.id)
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
    first: usize,
    end: usize,
    /// Released messages lie before this index.
    released: usize,
    /// No PUBREL is owed before this index.
    next_release: usize,
    /// No PUBLISH is owed before this index.
    next_publish: usize,
    /// Bytes of `tx` from here on are free.
    tail: usize,
    /// Slots that have something to report.
    notices: usize,
    /// Slots that wait for a mark.
    unmarked: usize,
}

/// How a message is admitted: where it stands and under which identifier.
pub(crate) struct Admission {
    pub id: Option<PacketId>,
    pub replaces: Replace,
    pub wants_mark: bool,
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
        for slot in slots.iter_mut() {
            *slot = Slot::FREE;
        }
        Self { slots, tx, at: State::new() }
    }

    // Requests of the application

    /// Checks that a PUBLISH with `remaining` bytes after its header, `stored` of them kept here, can be admitted; makes room if it can be made.
    pub fn make_room(&mut self, stored: usize) -> Result<(), NoRoom> {
        if stored > self.tx.len() || self.slots.is_empty() {
            return Err(NoRoom::Ever);
        }
        if self.at.end >= self.slots.len() {
            self.close_up_slots();
        }
        if stored > self.tx.len().wrapping_sub(self.at.tail) {
            self.close_up_bytes();
        }
        let fits = stored <= self.tx.len().wrapping_sub(self.at.tail);
        if fits && self.at.end < self.slots.len() { Ok(()) } else { Err(NoRoom::Now) }
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
            if let (true, Some(slot)) = (self.is_victim(index, policy, topic, sending), self.slots.get(index)) {
                let counts = victims == 0 || policy == Replace::Oldest;
                gained = gained.wrapping_add(if counts { slot.len } else { 0 });
                victims = victims.wrapping_add(1);
            }
        }
        if victims == 0 {
            return self.make_room(stored).map(|()| None);
        }
        self.close_up_bytes();
        if stored > self.tx.len().wrapping_sub(self.at.tail).wrapping_add(gained) {
            return Err(NoRoom::Now);
        }
        // The first hands its identifier on, and its slot.
        let handed_on = self.push_out(policy, topic, Keep::HandOn, sending);
        while self.make_room(stored).is_err() {
            if self.push_out(policy, topic, Keep::Report, sending).is_none() {
                break;
            }
        }
        Ok(handed_on)
    }

    /// Bytes of `tx` that a message takes: its packet, or its head and where its payload is.
    pub fn stored_len(outgoing: &Outgoing<'_>, external: Option<External>) -> Option<(usize, usize)> {
        let remaining = outgoing.remaining()?;
        let packet = header_len(remaining).wrapping_add(remaining);
        match external {
            None => Some((remaining, packet)),
            Some(_) => Some((remaining, packet.wrapping_sub(outgoing.payload_len).wrapping_add(EXTERNAL_LEN))),
        }
    }

    /// Takes a message for which [`make_room`](Self::make_room) has just found room.
    pub fn admit(&mut self, publish: &Publish<'_>, admission: &Admission, external: Option<External>) {
        let payload_len = external.map_or(publish.payload.len(), |payload| to_usize(payload.len));
        let outgoing = Outgoing { topic: publish.topic, qos: publish.qos, retain: publish.retain, payload_len };
        let remaining = outgoing.remaining().unwrap_or_default();
        let id = admission.id.map_or(0, PacketId::get);
        let at = self.at.tail;
        let mut writer = Writer::new(0, self.tx.get_mut(at..).unwrap_or_default());
        outgoing.write_head(id, remaining, &mut writer);
        match external {
            None => writer.put(publish.payload),
            Some(payload) => {
                writer.put(&payload.key.to_be_bytes());
                writer.put(&payload.len.to_be_bytes());
            }
        }
        let len = writer.written();
        self.at.tail = at.wrapping_add(len);
        let stage = if admission.wants_mark { Stage::Unstored } else { Stage::Queued };
        if let Some(slot) = self.slots.get_mut(self.at.end) {
            let (qos, replaces) = (publish.qos, admission.replaces);
            *slot = Slot { at, len, id, qos, stage, replaces, is_external: external.is_some() };
            self.at.end = self.at.end.wrapping_add(1);
            if admission.wants_mark {
                self.at.unmarked = self.at.unmarked.wrapping_add(1);
            }
        }
    }

    /// Takes back a released message after a restart, behind the released ones that are there.
    pub fn admit_released(&mut self, id: PacketId) -> Result<(), NoRoom> {
        self.make_room(0)?;
        let (end, released) = (self.at.end, self.at.released);
        if let Some(slot) = self.slots.get_mut(end) {
            *slot = Slot { id: id.get(), qos: QoS::ExactlyOnce, stage: Stage::Release, ..Slot::FREE };
            self.at.end = end.wrapping_add(1);
            self.move_down(released, end);
        }
        Ok(())
    }

    /// Marks a restored message as one that may have been sent before [MQTT-3.3.1-1].
    pub fn set_dup_on_last(&mut self) {
        if let Some(slot) = self.at.end.checked_sub(1).and_then(|last| self.slots.get(last)) {
            set_dup(self.tx, slot.at);
        }
    }

    /// Whether a new message with `policy` may push out the one at `index`. One that is being sent is safe.
    fn is_victim(&self, index: usize, policy: Replace, topic: &str, sending: bool) -> bool {
        let Some(slot) = self.slots.get(index) else { return false };
        let is_same = policy == Replace::Oldest || self.topic_of(slot) == topic.as_bytes();
        let is_safe = sending && index == self.at.next_publish;
        is_same && !is_safe && slot.replaces == policy && self.is_unsent(slot)
    }

    /// Pushes out a waiting message for a new one with the same policy and gives its identifier, which is handed on
    /// to the new message or reported as replaced.
    fn push_out(&mut self, policy: Replace, topic: &str, keep: Keep, sending: bool) -> Option<PacketId> {
        let index = (self.at.first..self.at.end).find(|index| self.is_victim(*index, policy, topic, sending))?;
        let slot = self.slots.get_mut(index)?;
        let id = slot.packet_id()?;
        if slot.stage == Stage::Unstored {
            self.at.unmarked = self.at.unmarked.wrapping_sub(1);
        }
        slot.len = 0;
        match keep {
            Keep::HandOn => slot.stage = Stage::Free,
            Keep::Report => {
                slot.stage = Stage::Replaced;
                self.at.notices = self.at.notices.wrapping_add(1);
            }
        }
        self.drop_free_front();
        Some(id)
    }

    /// Takes back a message that has never been sent. `false` when it may have been: it goes its way.
    pub fn withdraw(&mut self, id: PacketId, sending: bool, wants_mark: bool) -> bool {
        let Some(index) = self.find(id) else { return false };
        let Some(slot) = self.slots.get(index) else { return false };
        let is_leaving = sending && index == self.at.next_publish;
        if is_leaving || !self.is_unsent(slot) {
            return false;
        }
        let is_stored = slot.stage != Stage::Unstored;
        if !is_stored {
            self.at.unmarked = self.at.unmarked.wrapping_sub(1);
        }
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
        let Some(slot) = self.slots.get(index) else { return false };
        let is_last = slot.qos == qos && slot.stage == stage;
        if is_last {
            self.end(index, wants_mark);
        }
        is_last
    }

    /// PUBREC: the message is the server's now, its bytes are free [MQTT-4.3.3-1].
    pub fn on_pubrec(&mut self, id: PacketId, wants_mark: bool) -> Answer {
        let Some(index) = self.find(id) else { return Answer::Unknown };
        let Some(slot) = self.slots.get_mut(index) else { return Answer::Unknown };
        match (slot.qos, slot.stage) {
            (QoS::ExactlyOnce, Stage::Sent) => {
                slot.len = 0;
                slot.stage = if wants_mark { Stage::Unmarked } else { Stage::Release };
                if wants_mark {
                    self.at.unmarked = self.at.unmarked.wrapping_add(1);
                }
                self.move_down(self.at.released, index);
                Answer::Taken
            }
            (QoS::ExactlyOnce, Stage::Released) => {
                slot.stage = Stage::Release; // each PUBREC is answered
                self.at.next_release = self.at.next_release.min(index);
                Answer::Taken
            }
            (QoS::ExactlyOnce, Stage::Unmarked | Stage::Release) => Answer::Taken,
            (QoS::ExactlyOnce, Stage::Ended | Stage::Forgotten) => Answer::Unknown,
            _ => Answer::Ignored,
        }
    }

    // The connection

    /// The stream is gone: what has left may not have arrived. The only path that sends anything again
    /// [MQTT-4.4.0-1].
    pub fn rewind(&mut self) {
        for slot in self.slots.get_mut(self.at.first..self.at.end).unwrap_or_default() {
            match (slot.stage, slot.qos) {
                (Stage::Queued, QoS::AtMostOnce) => slot.stage = Stage::Free, // [MQTT-4.3.1-1]
                (Stage::Sent, _) => {
                    slot.stage = Stage::Queued;
                    set_dup(self.tx, slot.at); // [MQTT-3.3.1-1]
                }
                (Stage::Released, _) => slot.stage = Stage::Release,
                _ => {}
            }
        }
        self.at.next_release = self.at.first;
        self.at.next_publish = self.at.first;
        self.drop_free_front();
    }

    /// The server has no session: what it had not taken goes out as new, what it had taken is forgotten.
    pub fn on_session_lost(&mut self) {
        for slot in self.slots.get_mut(self.at.first..self.at.end).unwrap_or_default() {
            match slot.stage {
                Stage::Queued | Stage::Unstored => clear_dup(self.tx, slot.at), // [MQTT-3.1.2-6]
                Stage::Unmarked | Stage::Release | Stage::Released => {
                    if slot.stage == Stage::Unmarked {
                        self.at.unmarked = self.at.unmarked.wrapping_sub(1);
                    }
                    slot.stage = Stage::Forgotten;
                    self.at.notices = self.at.notices.wrapping_add(1);
                }
                Stage::Free | Stage::Sent | Stage::Forgotten | Stage::Replaced | Stage::Ended => {}
            }
        }
    }

    /// A message to report: its identifier, and whether it was forgotten rather than replaced.
    pub fn next_notice(&mut self, wants_mark: bool) -> Option<(PacketId, Notice)> {
        if self.at.notices == 0 {
            return None;
        }
        let live = self.slots.get(self.at.first..self.at.end).unwrap_or_default();
        let index = live.iter().position(|slot| matches!(slot.stage, Stage::Forgotten | Stage::Replaced))?;
        let index = self.at.first.wrapping_add(index);
        let slot = self.slots.get(index)?;
        let notice = if slot.stage == Stage::Forgotten { Notice::Forgotten } else { Notice::Replaced };
        let id = slot.packet_id()?;
        self.at.notices = self.at.notices.wrapping_sub(1);
        self.end(index, wants_mark);
        Some((id, notice))
    }

    // What leaves

    /// The next PUBREL, in the order of the PUBRECs [MQTT-4.6.0-4]; it counts as sent.
    pub fn next_release(&mut self) -> Option<PacketId> {
        while self.at.next_release < self.at.released {
            let slot = self.slots.get_mut(self.at.next_release)?;
            match slot.stage {
                Stage::Unmarked => return None,
                Stage::Release => {
                    slot.stage = Stage::Released;
                    let id = slot.packet_id();
                    self.at.next_release = self.at.next_release.wrapping_add(1);
                    return id;
                }
                _ => self.at.next_release = self.at.next_release.wrapping_add(1),
            }
        }
        None
    }

    /// Whether a PUBLISH is to leave; [`copy_publish`](Self::copy_publish) then copies it.
    pub fn has_publish(&mut self) -> bool {
        while let Some(slot) = self.slots.get(self.at.next_publish) {
            if self.at.next_publish >= self.at.end {
                return false;
            }
            match slot.stage {
                Stage::Queued => return true,
                Stage::Unstored => return false,
                _ => self.at.next_publish = self.at.next_publish.wrapping_add(1),
            }
        }
        false
    }

    /// Copies what follows the first `sent` bytes of the PUBLISH that is being sent.
    pub fn copy_publish(&self, sent: usize, out: &mut [u8]) -> Piece {
        let Some(slot) = self.slots.get(self.at.next_publish) else { return Piece::Bytes { copied: 0, total: 0 } };
        let stored = self.stored(slot);
        if slot.is_external {
            let (head, rest) =
                stored.split_at_checked(stored.len().wrapping_sub(EXTERNAL_LEN)).unwrap_or((stored, &[]));
            let payload = read_external(rest);
            if sent >= head.len() {
                return Piece::External { payload, offset: sent.wrapping_sub(head.len()) };
            }
            let total = head.len().wrapping_add(to_usize(payload.len));
            return Piece::Bytes { copied: copy_from(head, sent, out), total };
        }
        Piece::Bytes { copied: copy_from(stored, sent, out), total: stored.len() }
    }

    /// The PUBLISH that was being sent has left whole.
    pub fn publish_sent(&mut self) {
        let Some(slot) = self.slots.get_mut(self.at.next_publish) else { return };
        if slot.qos == QoS::AtMostOnce {
            slot.stage = Stage::Free;
        } else {
            slot.stage = Stage::Sent;
        }
        self.at.next_publish = self.at.next_publish.wrapping_add(1);
        self.drop_free_front();
    }

    // Marks

    pub fn next_mark(&self) -> Option<Mark> {
        if self.at.unmarked == 0 {
            return None;
        }
        let live = self.slots.get(self.at.first..self.at.end).unwrap_or_default();
        live.iter().find_map(|slot| {
            let stage = match slot.stage {
                Stage::Unstored => MarkStage::Accepted,
                Stage::Unmarked => MarkStage::Released,
                Stage::Ended => MarkStage::Done,
                _ => return None,
            };
            Some(Mark { id: slot.packet_id()?, stage })
        })
    }

    /// A mark is on stable storage. One that no slot waits for (any more) changes nothing.
    pub fn mark_stored(&mut self, mark: Mark) {
        let live = self.slots.get_mut(self.at.first..self.at.end).unwrap_or_default();
        let Some(slot) = live.iter_mut().find(|slot| slot.id == mark.id.get() && slot.is_live()) else { return };
        slot.stage = match (mark.stage, slot.stage) {
            (MarkStage::Accepted, Stage::Unstored) => Stage::Queued,
            (MarkStage::Released, Stage::Unmarked) => Stage::Release,
            (MarkStage::Done, Stage::Ended) => Stage::Free,
            _ => return,
        };
        self.at.unmarked = self.at.unmarked.wrapping_sub(1);
        self.drop_free_front();
    }

    // Questions

    /// Messages that are not over: what `publish` accepted and no acknowledgement has ended.
    pub fn open_count(&self) -> usize {
        let live = self.slots.get(self.at.first..self.at.end).unwrap_or_default();
        let open = live.iter().filter(|slot| !matches!(slot.stage, Stage::Free | Stage::Ended));
        open.fold(0, |count: usize, _| count.wrapping_add(1))
    }

    /// Marks the identifiers in use.
    pub fn mark_ids(&self, window: &mut Window) {
        for slot in self.slots.get(self.at.first..self.at.end).unwrap_or_default() {
            if slot.is_live() {
                window.mark(slot.id);
            }
        }
    }

    /// The identifiers in use.
    #[cfg(any(feature = "durable", feature = "verify"))]
    pub fn ids(&self) -> impl Iterator<Item = u16> + '_ {
        let live = self.slots.get(self.at.first..self.at.end).unwrap_or_default();
        live.iter().filter(|slot| slot.is_live()).map(|slot| slot.id)
    }

    // Helpers

    fn find(&self, id: PacketId) -> Option<usize> {
        let live = self.slots.get(self.at.first..self.at.end).unwrap_or_default();
        let index = live.iter().position(|slot| slot.id == id.get() && slot.is_live())?;
        Some(self.at.first.wrapping_add(index))
    }

    fn stored(&self, slot: &Slot) -> &[u8] {
        self.tx.get(slot.at..).and_then(|rest| rest.get(..slot.len)).unwrap_or_default()
    }

    /// Never sent on any connection: then the server cannot know of it.
    fn is_unsent(&self, slot: &Slot) -> bool {
        let is_waiting = matches!(slot.stage, Stage::Queued | Stage::Unstored);
        is_waiting && slot.qos != QoS::AtMostOnce && self.stored(slot).first().is_some_and(|first| first & DUP == 0)
    }

    fn topic_of(&self, slot: &Slot) -> &[u8] {
        let mut rest = self.stored(slot);
        // Over the first byte and Remaining Length, whose last byte has its top bit clear.
        rest = rest.get(1..).unwrap_or_default();
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
    fn end(&mut self, index: usize, wants_mark: bool) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.len = 0;
            slot.stage = if wants_mark { Stage::Ended } else { Stage::Free };
            if wants_mark {
                self.at.unmarked = self.at.unmarked.wrapping_add(1);
            }
        }
        self.drop_free_front();
    }

    /// Moves the slot at `from` down to the end of the released ones, at `to`; those between move up by one.
    fn move_down(&mut self, to: usize, from: usize) {
        let to = to.max(self.at.first);
        let Some(mut carried) = self.slots.get(from).copied() else { return };
        let span = self.slots.get_mut(to..=from).unwrap_or_default();
        for slot in span {
            core::mem::swap(slot, &mut carried);
        }
        self.at.next_release = self.at.next_release.min(to);
        self.at.released = to.wrapping_add(1);
        // Slots below `from` have moved up by one; the one at the cursor stays the one at the cursor.
        if self.at.next_publish < from && self.at.next_publish >= to {
            self.at.next_publish = self.at.next_publish.wrapping_add(1);
        }
    }

    fn drop_free_front(&mut self) {
        while self.at.first < self.at.end {
            match self.slots.get(self.at.first) {
                Some(slot) if !slot.is_live() => self.at.first = self.at.first.wrapping_add(1),
                _ => break,
            }
        }
        if self.at.first == self.at.end {
            let (notices, unmarked) = (self.at.notices, self.at.unmarked);
            self.at = State { notices, unmarked, ..State::new() };
        }
    }

    fn close_up_slots(&mut self) {
        // A cursor moves to the number of live slots before it.
        let released = self.live_before(self.at.released);
        let next_release = self.live_before(self.at.next_release);
        let next_publish = self.live_before(self.at.next_publish);
        let mut kept = 0_usize;
        for index in self.at.first..self.at.end {
            let Some(slot) = self.slots.get(index).copied() else { break };
            if let (true, Some(place)) = (slot.is_live(), self.slots.get_mut(kept)) {
                *place = slot;
                kept = kept.wrapping_add(1);
            }
        }
        self.at = State { first: 0, end: kept, released, next_release, next_publish, ..self.at.clone() };
    }

    fn live_before(&self, cursor: usize) -> usize {
        let before = self.slots.get(self.at.first..cursor.min(self.at.end)).unwrap_or_default();
        before.iter().filter(|slot| slot.is_live()).fold(0, |count: usize, _| count.wrapping_add(1))
    }

    fn close_up_bytes(&mut self) {
        let mut tail = 0_usize;
        for slot in self.slots.get_mut(self.at.first..self.at.end).unwrap_or_default() {
            if slot.len > 0 {
                bytes::slide(self.tx, tail, slot.at, slot.len);
                slot.at = tail;
                tail = tail.wrapping_add(slot.len);
            }
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
        self.slots.get_mut(self.at.end..).unwrap_or_default().fill(Slot::FREE);
        self.tx.get_mut(self.at.tail..).unwrap_or_default().fill(0);
        for slot in self.slots.iter_mut().filter(|slot| slot.len == 0) {
            slot.at = 0;
        }
        (self.at, self.slots, self.tx)
    }

    pub fn from_parts(at: State, slots: &'s mut [Slot], tx: &'s mut [u8]) -> Self {
        Self { slots, tx, at }
    }

    pub fn invariant(&self) -> Result<(), &'static str> {
        let live = self.slots.get(self.at.first..self.at.end).ok_or("slots in use lie outside the slots")?;
        let mut floor = 0_usize;
        for slot in live.iter().filter(|slot| slot.len > 0) {
            if slot.at < floor {
                return Err("messages lie in another order than their slots");
            }
            floor = slot.at.wrapping_add(slot.len);
        }
        if floor > self.at.tail {
            return Err("a message lies in free memory");
        }
        for (index, slot) in self.slots.iter().enumerate().take(self.at.end).skip(self.at.first) {
            let is_released = matches!(slot.stage, Stage::Unmarked | Stage::Release | Stage::Released);
            if is_released && index >= self.at.released {
                return Err("a released message stands behind the released ones");
            }
            if slot.stage == Stage::Release && index < self.at.next_release {
                return Err("a PUBREL that is owed stands before its cursor");
            }
            if matches!(slot.stage, Stage::Queued | Stage::Unstored) && index < self.at.next_publish {
                return Err("a PUBLISH that is owed stands before its cursor");
            }
            if matches!(slot.stage, Stage::Queued | Stage::Unstored | Stage::Sent) && index < self.at.released {
                return Err("an unreleased message stands among the released ones");
            }
        }
        let notices = live.iter().filter(|slot| matches!(slot.stage, Stage::Forgotten | Stage::Replaced)).count();
        let unmarked =
            live.iter().filter(|slot| matches!(slot.stage, Stage::Unstored | Stage::Unmarked | Stage::Ended));
        if notices != self.at.notices || unmarked.count() != self.at.unmarked {
            return Err("notices or marks are miscounted");
        }
        Ok(())
    }
}

/// What becomes of the identifier of a message that is pushed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    HandOn,
    Report,
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
        Self { first: 0, end: 0, released: 0, next_release: 0, next_publish: 0, tail: 0, notices: 0, unmarked: 0 }
    }
}

fn set_dup(tx: &mut [u8], at: usize) {
    if let Some(first) = tx.get_mut(at) {
        *first |= DUP;
    }
}

fn clear_dup(tx: &mut [u8], at: usize) {
    if let Some(first) = tx.get_mut(at) {
        *first &= !DUP;
    }
}

fn copy_from(stored: &[u8], sent: usize, out: &mut [u8]) -> usize {
    crate::packet::writer::copy(out, stored.get(sent..).unwrap_or_default())
}

fn read_external(bytes: &[u8]) -> External {
    let (key, len) = bytes.split_first_chunk().unwrap_or((&[0; 4], &[]));
    let len = len.first_chunk().copied().unwrap_or_default();
    External { key: u32::from_be_bytes(*key), len: u32::from_be_bytes(len) }
}

/// Lengths of 32 bits fit the address space of every target with 32 bits or more.
fn to_usize(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
