//! Messages on their way out.
//!
//! A message holds one [`Slot`] from `admit` until PUBACK or PUBCOMP, and its encoded packet lies in `tx` until it
//! need not be sent again. Two orders matter and both are kept by position: released messages come first, in the
//! order of their PUBRECs [MQTT-4.6.0-4]; the others follow in the order in which the application published, and
//! that is the order of their bytes in `tx` as well [MQTT-4.6.0-1]. Never reads time: see `keep_alive`.
//!
//! Bytes that have become free stay where they are until room is needed; then all is closed up. What happens once in a
//! connection walks over all slots; what happens once in a message uses the cursors, or begins at the front.

#![expect(clippy::wildcard_enum_match_arm, reason = "DEV-03: every other stage is one case, and says so")]

use super::ids::Ids;
#[cfg(feature = "durable")]
use super::mark::{Mark, Stage as MarkStage};
use super::message::{Admission, Answer, EXTERNAL_LEN, External, NoRoom, Notice, Replace, Server};
use super::queue::{self, Queue};
use crate::bytes;
use crate::packet::publish::{DUP, Flags, Outgoing};
use crate::packet::writer::Writer;
use crate::packet::{PacketId, header};

/// Room to keep track of one outgoing message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Where in `tx` the packet lies.
    at: usize,
    len: usize,
    /// Zero for QoS 0.
    id: u16,
    stage: Stage,
    held: Held,
}

/// What has become of the message in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// Accepted; PUBLISH waits for its mark.
    Unstored,
    /// PUBLISH is to leave on this connection.
    Queued,
    /// PUBLISH at QoS 1 has left; PUBACK is awaited.
    Sent1,
    /// PUBLISH at QoS 2 has left; PUBREC is awaited.
    Sent2,
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

/// Whether there are messages that wait for an answer.
const QOS1: bool = cfg!(feature = "qos1");
/// Whether there are messages that are released.
const QOS2: bool = cfg!(feature = "qos2");

/// Whether the slots are few, as in a device: then what has been released is looked through from the front, and
/// `next_release` is not kept.
const SHORT: bool =
    cfg!(not(any(feature = "durable", feature = "large", all(feature = "suspend", not(feature = "verify")))));

/// What is held in `tx`, and what may push it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Held {
    Whole(Replace),
    /// All but the payload, and where that is.
    Head,
}

impl Slot {
    /// An unused slot.
    pub const FREE: Self = Self { at: 0, len: 0, id: 0, stage: Stage::Unstored, held: Held::Whole(Replace::Nothing) };
}

impl Default for Slot {
    fn default() -> Self {
        Self::FREE
    }
}

pub(crate) struct Outbound<'s> {
    slots: Queue<'s, Slot>,
    tx: &'s mut [u8],
    at: State,
}

/// Where things stand; plain numbers, so that a session can be taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// So many slots from the front hold released messages.
    released: usize,
    /// No PUBREL is owed before this slot.
    next_release: usize,
    /// No PUBLISH is owed before this slot.
    next_publish: usize,
    /// Bytes of `tx` from here on are free.
    tail: usize,
    /// Some slot may have something to report.
    has_notice: bool,
    /// Some slot may wait for a mark.
    has_mark: bool,
}

impl<'s> Outbound<'s> {
    pub fn new(slots: &'s mut [Slot], tx: &'s mut [u8]) -> Self {
        Self { slots: Queue::new(slots), tx: usable(tx), at: State::new() }
    }

    // Requests of the application

    /// Makes room for one message that takes `stored` bytes.
    #[inline(never)] // apart from what `admit` holds in registers
    pub fn make_room(&mut self, stored: usize) -> Result<(), NoRoom> {
        if stored > self.tx.len() {
            return Err(NoRoom::Ever);
        }
        if stored > self.room() {
            self.close_up();
        }
        if stored > self.room() || self.slots.space() == 0 { Err(NoRoom::Now) } else { Ok(()) }
    }

    /// Whether there is room, with all messages where they are.
    #[cfg(all(feature = "qos2", feature = "subscribe"))]
    pub fn has_room(&self, stored: usize) -> bool {
        self.slots.space() > 0 && stored <= self.room()
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
        topic: &[u8],
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
        for index in 0..self.slots.len() {
            if let Some(len) = self.victim(index, policy, topic, sending) {
                if victims == 0 || policy == Replace::Oldest {
                    gained = gained.wrapping_add(len);
                }
                victims = victims.wrapping_add(1);
            }
        }
        if victims == 0 {
            return self.make_room(stored).map(|()| None);
        }
        self.close_up();
        if stored > self.room().wrapping_add(gained) {
            return Err(NoRoom::Now);
        }
        // The first hands its identifier on, and its slot.
        let handed_on = self.push_out(policy, topic, None, sending);
        while self.make_room(stored).is_err() {
            if self.push_out(policy, topic, Some(Stage::Replaced), sending).is_none() {
                break;
            }
        }
        Ok(handed_on)
    }

    /// Takes a message for which [`make_room`](Self::make_room) has just found room.
    pub fn admit(
        &mut self,
        outgoing: &Outgoing<'_>,
        payload: &[u8],
        admission: &Admission,
        external: Option<External>,
    ) {
        let (at, len) = (self.at.tail, admission.stored);
        let id = admission.id.map_or(0, PacketId::get);
        let place = external.map(External::to_bytes);
        let (held, payload) = match &place {
            None => (Held::Whole(admission.replaces), payload),
            Some(place) => (Held::Head, place.as_slice()),
        };
        outgoing.write(id, payload, self.tx, at);
        let stage = if admission.wants_mark { Stage::Unstored } else { Stage::Queued };
        self.slots.push(Slot { at, len, id, stage, held });
        self.at.tail = at.wrapping_add(len);
        self.at.has_mark |= admission.wants_mark;
    }

    /// As [`admit`](Self::admit), a message of `len` bytes that comes whole, needs no mark and pushes nothing out.
    #[cfg(all(feature = "qos2", feature = "subscribe"))]
    pub fn admit_common(&mut self, outgoing: &Outgoing<'_>, id: PacketId, payload: &[u8], len: usize) {
        let at = self.at.tail;
        outgoing.write(id.get(), payload, self.tx, at);
        self.slots.push(Slot { at, len, id: id.get(), stage: Stage::Queued, held: Held::Whole(Replace::Nothing) });
        self.at.tail = at.wrapping_add(len);
    }

    /// Takes back a released message after a restart, behind the released ones that are there.
    #[cfg(feature = "durable")]
    pub fn admit_released(&mut self, id: PacketId) -> Result<(), NoRoom> {
        if self.slots.space() == 0 {
            return Err(NoRoom::Now);
        }
        let last = self.slots.len();
        self.slots.push(Slot { id: id.get(), stage: Stage::Release, ..Slot::FREE });
        self.move_down(last);
        Ok(())
    }

    /// The length of the message at `index`, if a new one with `policy` may push it out. One that is being sent is
    /// safe.
    fn victim(&self, index: usize, policy: Replace, topic: &[u8], sending: bool) -> Option<usize> {
        let slot = self.slots.get(index)?;
        let is_same = policy == Replace::Oldest || self.topic_of(slot) == topic;
        let is_safe = sending && index == self.at.next_publish;
        let is_victim = is_same && !is_safe && slot.held == Held::Whole(policy) && self.is_unsent(slot);
        is_victim.then_some(slot.len)
    }

    /// Pushes out a waiting message for a new one with the same policy and gives its identifier, which is reported
    /// later as `then` says, or handed on to the new message.
    fn push_out(&mut self, policy: Replace, topic: &[u8], then: Option<Stage>, sending: bool) -> Option<PacketId> {
        let is_victim = |index: &usize| self.victim(*index, policy, topic, sending).is_some();
        let index = (0..self.slots.len()).find(is_victim)?;
        let slot = self.slots.get_mut(index)?;
        let id = PacketId::new(slot.id);
        match then {
            Some(stage) => {
                slot.len = 0;
                slot.stage = stage;
                self.at.has_notice = true;
            }
            None => self.remove(index),
        }
        id
    }

    /// Takes back a message that has never been sent. `false` when it may have been: it goes its way.
    #[expect(clippy::fn_params_excessive_bools, reason = "DEV-04: two facts of the session that the caller knows")]
    #[cfg(feature = "qos1")]
    pub fn withdraw(&mut self, id: PacketId, sending: bool, wants_mark: bool) -> bool {
        let Some(index) = self.find(id, 0) else { return false };
        let Some(slot) = self.slots.get(index) else { return false };
        let is_leaving = sending && index == self.at.next_publish;
        if is_leaving || !self.is_unsent(slot) {
            return false;
        }
        let is_stored = slot.stage != Stage::Unstored;
        self.end(index, is_stored && wants_mark);
        true
    }

    // Packets that came

    /// PUBACK, PUBREC or PUBCOMP, as `first` says.
    pub fn on_ack(&mut self, first: u8, id: PacketId, wants_mark: bool) -> Answer {
        let (expects, start) = match first {
            header::PUBACK => (Stage::Sent1, self.at.released),
            header::PUBREC => (Stage::Sent2, self.at.released),
            _ => (Stage::Released, 0),
        };
        let start = if SHORT { 0 } else { start };
        let Some(index) = self.find(id, start) else { return Answer::Unknown };
        let Some(slot) = self.slots.get_mut(index) else { return Answer::Unknown };
        if !QOS2 || first != header::PUBREC {
            if slot.stage != expects {
                return Answer::Ignored;
            }
            self.end(index, wants_mark);
            return Answer::Over;
        }
        match slot.stage {
            // The message is the server's now, its bytes are free [MQTT-4.3.3-1].
            Stage::Sent2 => {
                slot.len = 0;
                slot.stage = if wants_mark { Stage::Unmarked } else { Stage::Release };
                self.at.has_mark |= wants_mark;
                self.move_down(index);
                Answer::Taken
            }
            Stage::Released => {
                slot.stage = Stage::Release; // each PUBREC is answered
                self.release_from(index);
                Answer::Taken
            }
            Stage::Unmarked | Stage::Release => Answer::Taken,
            Stage::Ended | Stage::Forgotten => Answer::Unknown,
            Stage::Unstored | Stage::Queued | Stage::Sent1 | Stage::Replaced => Answer::Ignored,
        }
    }

    // The connection

    /// What has left may not have arrived: it is to leave again, the only path that sends anything twice
    /// [MQTT-4.4.0-1]. When the server has forgotten the session, what it had not taken goes out as new, and what it
    /// had taken is reported.
    pub fn rewind(&mut self, server: Server) {
        let is_forgotten = server == Server::HasForgotten;
        let mut index = 0_usize;
        while let Some(slot) = self.slots.get_mut(index) {
            let mut dup = None;
            match slot.stage {
                Stage::Queued if slot.id == 0 => {
                    self.remove(index); // [MQTT-4.3.1-1]
                    continue;
                }
                Stage::Sent1 | Stage::Sent2 if QOS1 => {
                    dup = Some(DUP); // [MQTT-3.3.1-1]
                    slot.stage = Stage::Queued;
                }
                Stage::Queued | Stage::Unstored if QOS1 && is_forgotten => dup = Some(0), // [MQTT-3.1.2-6]
                Stage::Unmarked | Stage::Release if QOS2 && is_forgotten => slot.stage = Stage::Forgotten,
                Stage::Released if QOS2 => slot.stage = Stage::Release,
                _ => {}
            }
            if let Some(dup) = dup {
                set_dup(self.tx, slot.at, dup);
            }
            index = index.wrapping_add(1);
        }
        self.at.next_release = 0;
        self.at.next_publish = 0;
        self.at.has_notice = true;
    }

    /// Whether there may be a message to report.
    #[cfg(all(feature = "qos2", feature = "subscribe"))]
    pub fn may_tell(&self) -> bool {
        self.at.has_notice
    }

    /// A message to report: its identifier, and why.
    pub fn next_notice(&mut self, wants_mark: bool) -> Option<(PacketId, Notice)> {
        if !QOS1 || !self.at.has_notice {
            return None;
        }
        let mut index = 0_usize;
        while let Some(slot) = self.slots.get_mut(index) {
            let notice = match slot.stage {
                Stage::Forgotten => Notice::Forgotten,
                Stage::Replaced => Notice::Replaced,
                _ => {
                    index = index.wrapping_add(1);
                    continue;
                }
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
        let mut index = if SHORT { 0 } else { self.at.next_release };
        while index < self.at.released {
            let slot = self.slots.get_mut(index)?;
            if slot.stage == Stage::Unmarked {
                return None;
            }
            index = index.wrapping_add(1);
            if !SHORT {
                self.at.next_release = index;
            }
            if slot.stage == Stage::Release {
                slot.stage = Stage::Released;
                return PacketId::new(slot.id);
            }
        }
        None
    }

    /// Whether a PUBLISH is to leave, with at most `window` unacknowledged; [`write_publish`](Self::write_publish) then
    /// writes it. Those that are unacknowledged stand before it.
    pub fn has_publish(&mut self, window: u16) -> bool {
        while let Some(slot) = self.slots.get_mut(self.at.next_publish) {
            match slot.stage {
                Stage::Queued => return slot.id == 0 || self.at.next_publish < usize::from(window),
                Stage::Unstored => return false,
                _ => self.at.next_publish = self.at.next_publish.wrapping_add(1),
            }
        }
        false
    }

    /// Whether a PUBLISH may wait to leave, for the window or for nothing but its turn.
    pub fn may_wait(&self) -> bool {
        self.at.next_publish < self.slots.len()
    }

    /// Writes the PUBLISH that is being sent; of one with an external payload, all that comes before that, and says `false`.
    pub fn write_publish(&mut self, sent: usize, writer: &mut Writer<'_>) -> bool {
        let Some(slot) = self.slots.get_mut(self.at.next_publish) else { return true };
        let slot = *slot;
        let stored = self.stored(&slot);
        if cfg!(feature = "large") && slot.held == Held::Head {
            let (head, payload) = split_external(stored);
            writer.begin(writer.at().wrapping_add(sent));
            writer.put(head.get(sent..).unwrap_or_default());
            return payload.len == 0;
        }
        writer.put(stored);
        true
    }

    /// Writes the PUBLISH that is to leave, if all of it is here and fits: it has left then. Gives its length.
    #[cfg(all(feature = "qos2", feature = "subscribe"))]
    pub fn send_whole(&mut self, out: &mut [u8]) -> usize {
        let Some(slot) = self.slots.get(self.at.next_publish) else { return 0 };
        let (stored, is_whole) = (self.stored(slot), slot.held != Held::Head);
        match out.get_mut(..stored.len()) {
            Some(place) if is_whole => {
                let len = crate::packet::writer::copy(place, stored);
                self.publish_sent();
                len
            }
            _ => 0,
        }
    }

    /// When all but an external payload has left of the PUBLISH that is being sent: the payload, and how much of it
    /// has left.
    #[cfg(feature = "large")]
    pub fn external(&self, sent: usize) -> Option<(External, usize)> {
        let slot = self.slots.get(self.at.next_publish).filter(|slot| slot.held == Held::Head)?;
        let (head, payload) = split_external(self.stored(slot));
        Some((payload, sent.checked_sub(head.len())?))
    }

    /// The rest of the PUBLISH that is being sent is not there: it is to be reported as forgotten.
    #[cfg(feature = "large")]
    pub fn give_up(&mut self) {
        if let Some(slot) = self.slots.get_mut(self.at.next_publish).filter(|slot| slot.id != 0) {
            slot.len = 0;
            slot.stage = Stage::Forgotten;
        }
    }

    /// The PUBLISH that was being sent has left whole.
    pub fn publish_sent(&mut self) {
        let index = self.at.next_publish;
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.id == 0 {
            return self.remove(index);
        }
        let is_qos2 = self.tx.get(slot.at).is_some_and(|first| Flags::new(*first).is_qos2());
        slot.stage = if is_qos2 { Stage::Sent2 } else { Stage::Sent1 };
        self.at.next_publish = index.wrapping_add(1);
    }

    // Marks

    #[cfg(feature = "durable")]
    pub fn next_mark(&mut self) -> Option<Mark> {
        if !self.at.has_mark {
            return None;
        }
        let mark = self.marks().next();
        self.at.has_mark = mark.is_some();
        mark
    }

    #[cfg(feature = "durable")]
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

    /// A mark is on stable storage. `false` for one that no slot waits for (any more), which changes nothing.
    #[cfg(feature = "durable")]
    pub fn mark_stored(&mut self, mark: Mark) -> bool {
        let Some(index) = self.find(mark.id, 0) else { return false };
        let Some(slot) = self.slots.get_mut(index) else { return false };
        match (mark.stage, slot.stage) {
            (MarkStage::Accepted, Stage::Unstored) => slot.stage = Stage::Queued,
            (MarkStage::Released, Stage::Unmarked) => slot.stage = Stage::Release,
            (MarkStage::Done, Stage::Ended) | (MarkStage::Refused, Stage::Unstored) => self.remove(index),
            _ => return false,
        }
        true
    }

    // Questions

    /// Messages that are not over: what `publish` accepted and no acknowledgement has ended.
    pub fn open_count(&self) -> usize {
        if !cfg!(feature = "durable") {
            return self.slots.len();
        }
        let ended = self.slots.iter().filter(|slot| slot.stage == Stage::Ended);
        ended.fold(self.slots.len(), |count, _| count.wrapping_sub(1))
    }

    /// Marks the identifiers in use.
    pub fn mark_ids(&mut self, ids: &mut Ids) {
        let mut index = 0_usize;
        while let Some(slot) = self.slots.get_mut(index) {
            ids.mark(slot.id);
            index = index.wrapping_add(1);
        }
    }

    /// The identifiers in use.
    #[cfg(feature = "verify")]
    pub fn ids(&self) -> impl Iterator<Item = u16> + '_ {
        self.slots.iter().map(|slot| slot.id)
    }

    // Helpers

    /// The slot with this identifier, looked for from `start` on and then before it: what comes in order is found at
    /// once.
    #[inline(always)] // so that what it returns is never put together
    fn find(&mut self, id: PacketId, start: usize) -> Option<usize> {
        let mut index = start;
        loop {
            match self.slots.get_mut(index) {
                Some(slot) if slot.id == id.get() => return Some(index),
                Some(_) => index = index.wrapping_add(1),
                None => index = 0,
            }
            if index == start {
                return None;
            }
        }
    }

    fn stored(&self, slot: &Slot) -> &[u8] {
        let from_start = self.tx.get(slot.at..).unwrap_or_default();
        from_start.get(..slot.len).unwrap_or_default()
    }

    /// Never sent on any connection: then the server cannot know of it.
    fn is_unsent(&self, slot: &Slot) -> bool {
        let is_waiting = matches!(slot.stage, Stage::Queued | Stage::Unstored);
        is_waiting && slot.id != 0 && self.stored(slot).first().is_some_and(|first| first & DUP == 0)
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
    fn end(&mut self, index: usize, wants_mark: bool) {
        if !wants_mark {
            return self.remove(index);
        }
        if let Some(slot) = self.slots.get_mut(index) {
            slot.len = 0;
            slot.stage = Stage::Ended;
            self.at.has_mark = true;
        }
    }

    /// Frees the slot at `index`.
    fn remove(&mut self, index: usize) {
        if QOS1 {
            self.slots.remove(index);
            if QOS2 {
                self.at.released = queue::moved(self.at.released, index);
                if !SHORT {
                    self.at.next_release = queue::moved(self.at.next_release, index);
                }
            }
            self.at.next_publish = queue::moved(self.at.next_publish, index);
        } else {
            self.slots.remove(0); // nothing stays behind what has left
        }
        if self.slots.len() == 0 {
            self.at.tail = 0;
        }
    }

    /// Moves the slot at `from` down behind the released ones.
    fn move_down(&mut self, from: usize) {
        let to = self.at.released;
        self.slots.lower(to, from);
        self.release_from(to);
        self.at.released = to.wrapping_add(1);
    }

    /// A PUBREL is owed for the slot at `index`.
    fn release_from(&mut self, index: usize) {
        if !SHORT {
            self.at.next_release = self.at.next_release.min(index);
        }
    }

    /// Moves the bytes of all messages to the front of `tx`.
    fn close_up(&mut self) {
        let mut tail = 0_usize;
        let mut index = 0_usize;
        while let Some(slot) = self.slots.get_mut(index) {
            bytes::slide(self.tx, tail, slot.at, slot.len);
            slot.at = tail;
            tail = tail.wrapping_add(slot.len);
            index = index.wrapping_add(1);
        }
        self.at.tail = tail;
    }
}

#[cfg(feature = "suspend")]
impl<'s> Outbound<'s> {
    /// State and memory apart, what is unused cleared; and how many slots are in use.
    pub fn into_parts(mut self) -> (State, &'s mut [Slot], &'s mut [u8], usize) {
        self.close_up();
        self.tx.get_mut(self.at.tail..).unwrap_or_default().fill(0);
        let mut index = 0_usize;
        while let Some(slot) = self.slots.get_mut(index) {
            slot.at = if slot.len == 0 { 0 } else { slot.at };
            index = index.saturating_add(1);
        }
        let has = |stages: &[Stage]| self.slots.iter().any(|slot| stages.contains(&slot.stage));
        self.at.has_notice = has(&[Stage::Forgotten, Stage::Replaced]);
        self.at.has_mark = has(&[Stage::Unstored, Stage::Unmarked, Stage::Ended]);
        let (slots, count) = self.slots.into_parts(Slot::FREE);
        (self.at, slots, self.tx, count)
    }

    pub fn from_parts(at: State, slots: &'s mut [Slot], tx: &'s mut [u8], count: usize) -> Self {
        Self { slots: Queue::from_parts(slots, count), tx: usable(tx), at }
    }

    #[cfg(feature = "verify")]
    pub fn invariant(&self) -> Result<(), &'static str> {
        let mut floor = 0_usize;
        for slot in self.slots.iter().filter(|slot| slot.len > 0) {
            if slot.at < floor {
                return Err("messages lie in another order than their slots");
            }
            floor = slot.at.saturating_add(slot.len);
        }
        if floor > self.at.tail {
            return Err("a message lies in free memory");
        }
        for (index, slot) in self.slots.iter().enumerate() {
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
            let is_unreleased = matches!(slot.stage, Stage::Queued | Stage::Unstored | Stage::Sent1 | Stage::Sent2);
            if is_unreleased && index < self.at.released {
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

impl State {
    pub const fn new() -> Self {
        Self { released: 0, next_release: 0, next_publish: 0, tail: 0, has_notice: true, has_mark: true }
    }
}

/// What is used of `tx`: no more than MQTT can say in one packet, so that whatever fits can be said.
fn usable(tx: &mut [u8]) -> &mut [u8] {
    let most = tx.len().min(header::MAX_PACKET);
    tx.get_mut(..most).unwrap_or_default()
}

/// Sets DUP in the packet at `at` to `dup`; but for what a store gave back, nothing else does [MQTT-3.3.1-3].
fn set_dup(tx: &mut [u8], at: usize, dup: u8) {
    if let Some(first) = tx.get_mut(at) {
        *first = *first & !DUP | dup;
    }
}

/// What is stored of a message with an external payload: all that comes before it, and where it is.
fn split_external(stored: &[u8]) -> (&[u8], External) {
    // `split_last_chunk` would do, but for a panic that the standard library leaves in it.
    let (head, place) = stored.split_at_checked(stored.len().wrapping_sub(EXTERNAL_LEN)).unwrap_or((stored, &[]));
    let [k0, k1, k2, k3, l0, l1, l2, l3] = *place.first_chunk().unwrap_or(&[0; EXTERNAL_LEN]);
    (head, External { key: u32::from_be_bytes([k0, k1, k2, k3]), len: u32::from_be_bytes([l0, l1, l2, l3]) })
}
