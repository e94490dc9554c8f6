//! Messages on their way in: which are handled, which acknowledgements are owed.
//!
//! An entry of the table is made when a message at QoS 1 or 2 is shown and lasts, at QoS 1, until PUBACK has left; at
//! QoS 2 until PUBREL has come and PUBCOMP has left. Entries stand in the order in which their messages came, and
//! PUBACK and PUBREC leave in that order [MQTT-4.6.0-2] [MQTT-4.6.0-3]: one that must wait, for the application or for
//! a mark, holds up those behind it.
//!
//! The table is the limit to what a server can make us remember. When it is full, `poll` takes nothing more until
//! something has left; if nothing that could leave would help, the fault is `TooMany`.

use super::error::RestoreError;
use super::event::Receipt;
use super::mark::{Mark, Stage as MarkStage};
use super::outbound::Server;
use crate::bytes;
use crate::packet::{PacketId, QoS, header};

/// Room to remember one incoming message, or one acknowledgement that is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Received {
    id: u16,
    stage: Stage,
}

/// What has become of an incoming message. Those of QoS 2 come last, from `Arriving2` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    Free,
    /// PUBREL is owed, for a PUBREC that fits nothing we know.
    Pubrel,
    /// PUBACK is owed.
    Puback,
    /// QoS 1: chunks of it are being shown.
    Arriving1,
    /// QoS 1: shown; the application has not handled it yet.
    Shown1,
    /// QoS 2: chunks of it are being shown.
    Arriving2,
    /// QoS 2: shown; the application has not handled it yet.
    Shown2,
    /// Shown on an earlier connection, not handled yet; PUBREC is for when the server asks again.
    Unasked,
    /// Handled; PUBREC waits for its mark.
    Unmarked,
    /// Handled, waits for its mark; PUBREC is for when the server asks again.
    Handled,
    /// PUBREC is owed.
    Pubrec,
    /// PUBREL is awaited.
    Known,
    /// PUBREL came; PUBCOMP waits for the mark that the identifier is forgotten.
    Forgetting,
    /// The identifier is to be forgotten and nothing is owed: waits for its mark.
    Stale,
    /// PUBCOMP is owed.
    Pubcomp,
}

impl Stage {
    fn wants_mark(self) -> bool {
        matches!(self, Self::Unmarked | Self::Handled | Self::Forgetting | Self::Stale)
    }

    /// Owes nothing that must leave in the order of the messages.
    fn is_quiet(self) -> bool {
        let is_known = matches!(self, Self::Unasked | Self::Handled | Self::Known);
        is_known || matches!(self, Self::Free | Self::Stale | Self::Forgetting)
    }
}

impl Received {
    /// An unused entry.
    pub const FREE: Self = Self { id: 0, stage: Stage::Free };
}

impl Default for Received {
    fn default() -> Self {
        Self::FREE
    }
}

pub(crate) struct Inbound<'s> {
    table: &'s mut [Received],
    at: State,
}

/// Where things stand; plain numbers, so that a session can be taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// Entries in use lie in `first..end`.
    first: u16,
    end: u16,
    /// No acknowledgement is owed before this index.
    next_ack: u16,
    /// Some entry may wait for a mark.
    has_mark: bool,
    /// The last entry was shown by the last `poll`, and is handled when the next one is called.
    is_unsettled: bool,
    stall: Stall,
    /// Counts connections, and sessions on the server, so that an old receipt is known for what it is.
    connections: u16,
    sessions: u16,
}

/// Whether `poll` left a packet in the inbox because something must leave first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stall {
    No,
    Waiting,
    Over,
}

/// What to do with a packet that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// New: show it.
    Show(Option<Receipt>),
    /// Taken; there is nothing to show [MQTT-4.3.3-2].
    Taken,
    /// Not now: something must leave first.
    Stall,
    /// No room, and nothing that leaves would make some.
    TooMany,
}

impl<'s> Inbound<'s> {
    pub fn new(table: &'s mut [Received]) -> Self {
        // Sixteen bits count the entries, as they do packet identifiers.
        let count = table.len().min(usize::from(u16::MAX));
        let table = table.get_mut(..count).unwrap_or_default();
        for entry in table.iter_mut() {
            entry.stage = Stage::Free;
        }
        Self { table, at: State::new() }
    }

    // Packets that came

    /// A PUBLISH. With `Show` at QoS 1 or 2, an entry has been made for it, from which its acknowledgement follows
    /// whatever the application does with the message [MQTT-3.3.4-1] [MQTT-4.5.0-2].
    pub fn on_publish(&mut self, qos: QoS, id: Option<PacketId>) -> Verdict {
        let Some(id) = id else { return Verdict::Show(None) };
        let is_qos2 = cfg!(feature = "qos2") && qos == QoS::ExactlyOnce;
        if let (true, Some(index)) = (is_qos2, self.find(id)) {
            return self.on_repeat(index);
        }
        // The last entry is kept for the answer to a PUBREL of an unknown identifier.
        if !self.has_room(1) {
            return self.stall_or_too_many();
        }
        self.push(id, if is_qos2 { Stage::Arriving2 } else { Stage::Arriving1 });
        Verdict::Show(Some(Receipt { id, qos, epoch: self.epoch(qos) }))
    }

    /// A QoS 2 PUBLISH whose identifier is known.
    fn on_repeat(&mut self, index: u16) -> Verdict {
        match self.stage(index) {
            Stage::Known => self.owe(index, Stage::Pubrec),
            // Shown and not acknowledged yet: its PUBREC comes when it is.
            Stage::Arriving2 | Stage::Shown2 => {}
            Stage::Unasked => self.owe(index, Stage::Shown2),
            Stage::Handled => self.owe(index, Stage::Unmarked),
            // One answer each: the one that is owed leaves first.
            _ => return self.stall(),
        }
        Verdict::Taken
    }

    /// The message last admitted is complete and is being shown.
    pub fn shown(&mut self) {
        let last = self.at.end.wrapping_sub(1);
        match self.stage(last) {
            Stage::Arriving1 => self.set(last, Stage::Shown1),
            Stage::Arriving2 => self.set(last, Stage::Shown2),
            _ => return,
        }
        self.at.is_unsettled = true;
    }

    /// The application has handled the message last shown.
    pub fn settle(&mut self, wants_mark: bool) {
        if self.at.is_unsettled {
            self.at.is_unsettled = false;
            self.handled(self.at.end.wrapping_sub(1), wants_mark);
        }
    }

    /// Leaves the message last shown to `acknowledge`.
    pub fn leave_unsettled(&mut self) {
        self.at.is_unsettled = false;
    }

    /// The application acknowledges. `false` if there is nothing to acknowledge (any more).
    pub fn acknowledge(&mut self, receipt: Receipt, wants_mark: bool) -> bool {
        let is_qos2 = receipt.qos == QoS::ExactlyOnce;
        for index in self.at.first..self.at.end {
            let is_id = self.table.get(usize::from(index)).is_some_and(|entry| entry.id == receipt.id.get());
            let is_waiting = match self.stage(index) {
                Stage::Shown1 => !is_qos2,
                Stage::Shown2 | Stage::Unasked => is_qos2,
                _ => false,
            };
            if is_id && is_waiting && self.epoch(receipt.qos) == receipt.epoch {
                self.handled(index, wants_mark);
                return true;
            }
        }
        false
    }

    fn handled(&mut self, index: u16, wants_mark: bool) {
        match self.stage(index) {
            Stage::Shown1 => self.owe(index, Stage::Puback), // [MQTT-4.3.2-2]
            Stage::Shown2 if wants_mark => self.set(index, Stage::Unmarked),
            Stage::Shown2 => self.owe(index, Stage::Pubrec), // [MQTT-4.3.3-2]
            Stage::Unasked => self.set(index, if wants_mark { Stage::Handled } else { Stage::Known }),
            _ => {}
        }
    }

    /// A PUBREL. Always answered, known or not.
    pub fn on_pubrel(&mut self, id: PacketId, wants_mark: bool) -> Verdict {
        let Some(index) = self.find(id) else { return self.owe_stray(id, Stage::Pubcomp) };
        match self.stage(index) {
            Stage::Known | Stage::Pubrec if !wants_mark => self.owe(index, Stage::Pubcomp),
            Stage::Known | Stage::Pubrec | Stage::Unmarked | Stage::Handled | Stage::Stale => {
                self.set(index, Stage::Forgetting);
            }
            Stage::Forgetting | Stage::Pubcomp => return self.stall(),
            _ => return self.owe_stray(id, Stage::Pubcomp),
        }
        Verdict::Taken
    }

    /// A PUBREC that fits no message of ours: the server waits for PUBREL.
    pub fn on_stray_pubrec(&mut self, id: PacketId) -> Verdict {
        self.owe_stray(id, Stage::Pubrel)
    }

    fn owe_stray(&mut self, id: PacketId, stage: Stage) -> Verdict {
        if self.table.is_empty() {
            return Verdict::Taken;
        }
        if !self.has_room(0) {
            return self.stall();
        }
        let index = self.at.end;
        self.push(id, stage);
        self.owe(index, stage);
        Verdict::Taken
    }

    // The connection

    /// A new connection is being made.
    pub fn open(&mut self) {
        self.at.connections = self.at.connections.wrapping_add(1);
    }

    /// What is known of QoS 2 messages stays; what was owed is owed no more, since the server asks again: before it
    /// does, an acknowledgement would answer nothing on that connection [MQTT-2.3.1-6]. When the server has forgotten the session, identifiers mean nothing any more [MQTT-3.1.2-6].
    pub fn rewind(&mut self, server: Server, wants_mark: bool) {
        let is_forgotten = server == Server::HasForgotten;
        for entry in self.table.get_mut(..usize::from(self.at.end)).unwrap_or_default() {
            entry.stage = match entry.stage {
                Stage::Shown2 | Stage::Unasked if !is_forgotten => Stage::Unasked,
                Stage::Unmarked | Stage::Handled if !is_forgotten => Stage::Handled,
                Stage::Pubrec | Stage::Known if !is_forgotten => Stage::Known,
                // A mark may be on its way to the store at this moment: only another one takes it back.
                Stage::Unmarked | Stage::Handled | Stage::Pubrec | Stage::Known if wants_mark => Stage::Stale,
                Stage::Forgetting | Stage::Stale if wants_mark => Stage::Stale,
                _ => Stage::Free,
            };
        }
        self.at.has_mark = wants_mark;
        self.at.next_ack = 0;
        self.at.stall = Stall::No;
        if is_forgotten {
            self.at.sessions = self.at.sessions.wrapping_add(1);
        }
    }

    // What leaves

    /// The next acknowledgement; it counts as sent.
    pub fn next_ack(&mut self) -> Option<[u8; 4]> {
        let mut is_held_up = false;
        let mut index = self.at.next_ack;
        while index < self.at.end {
            let stage = self.stage(index);
            let (first, then) = match stage {
                Stage::Pubcomp => (header::PUBCOMP, Stage::Free),
                Stage::Pubrel => (header::PUBREL, Stage::Free),
                Stage::Puback if !is_held_up => (header::PUBACK, Stage::Free),
                Stage::Pubrec if !is_held_up => (header::PUBREC, Stage::Known),
                _ => (0, stage),
            };
            if first > 0 {
                self.set(index, then);
                self.unstall();
                let [high, low] = self.table.get(usize::from(index))?.id.to_be_bytes();
                return Some([first, 2, high, low]); // [MQTT-2.3.1-6]
            }
            is_held_up |= !stage.is_quiet();
            index = index.wrapping_add(1);
            if !is_held_up {
                self.at.next_ack = index;
            }
        }
        None
    }

    /// Whether `poll` has more to do now, although no bytes came.
    pub fn can_go_on(&self) -> bool {
        self.at.stall == Stall::Over
    }

    /// Whether `poll` left a packet because something must leave first.
    pub fn is_stalled(&self) -> bool {
        self.at.stall != Stall::No
    }

    /// `poll` begins.
    pub fn go_on(&mut self) {
        self.at.stall = Stall::No;
    }

    // Marks

    /// Whether an identifier that the server has forgotten is still on stable storage.
    pub fn has_stale(&self) -> bool {
        let can_be = cfg!(feature = "durable") && self.at.has_mark;
        can_be && self.table.iter().any(|entry| entry.stage == Stage::Stale)
    }

    pub fn next_mark(&mut self) -> Option<Mark> {
        if !self.at.has_mark {
            return None;
        }
        let mark = self.marks().next();
        self.at.has_mark = mark.is_some();
        mark
    }

    pub fn marks(&self) -> impl Iterator<Item = Mark> + '_ {
        self.table.get(..usize::from(self.at.end)).unwrap_or_default().iter().filter_map(|entry| {
            let stage = match entry.stage {
                Stage::Unmarked | Stage::Handled => MarkStage::Received,
                Stage::Forgetting | Stage::Stale => MarkStage::Forgotten,
                _ => return None,
            };
            Some(Mark { id: PacketId::new(entry.id)?, stage })
        })
    }

    /// A mark is on stable storage. One that no entry waits for (any more) changes nothing.
    pub fn mark_stored(&mut self, mark: Mark) {
        for index in self.at.first..self.at.end {
            if self.table.get(usize::from(index)).is_none_or(|entry| entry.id != mark.id.get()) {
                continue;
            }
            match (mark.stage, self.stage(index)) {
                (MarkStage::Received, Stage::Unmarked) => self.owe(index, Stage::Pubrec),
                (MarkStage::Received, Stage::Handled) => self.set(index, Stage::Known),
                (MarkStage::Forgotten, Stage::Forgetting) => self.owe(index, Stage::Pubcomp),
                (MarkStage::Forgotten, Stage::Stale) => self.set(index, Stage::Free),
                _ => continue,
            }
            return self.unstall();
        }
    }

    /// Takes back, after a restart, the identifier of a message that was handled.
    pub fn restore(&mut self, id: PacketId) -> Result<(), RestoreError> {
        if self.find(id).is_some() {
            return Err(RestoreError::PacketIdInUse);
        }
        if !self.has_room(1) {
            return Err(RestoreError::Full);
        }
        self.push(id, Stage::Known);
        Ok(())
    }

    // Helpers

    /// QoS 2 is remembered across connections, QoS 1 is not.
    fn epoch(&self, qos: QoS) -> u16 {
        if qos == QoS::ExactlyOnce { self.at.sessions } else { self.at.connections }
    }

    /// The entry of a QoS 2 message with this identifier.
    fn find(&self, id: PacketId) -> Option<u16> {
        let mut index = self.at.first;
        while index < self.at.end {
            let entry = self.table.get(usize::from(index))?;
            if entry.id == id.get() && entry.stage >= Stage::Arriving2 {
                return Some(index);
            }
            index = index.wrapping_add(1);
        }
        None
    }

    fn stage(&self, index: u16) -> Stage {
        self.table.get(usize::from(index)).map_or(Stage::Free, |entry| entry.stage)
    }

    fn set(&mut self, index: u16, stage: Stage) {
        if let Some(entry) = self.table.get_mut(usize::from(index)) {
            entry.stage = stage;
        }
        if cfg!(feature = "durable") {
            self.at.has_mark |= stage.wants_mark();
        }
    }

    fn owe(&mut self, index: u16, stage: Stage) {
        self.set(index, stage);
        self.at.next_ack = self.at.next_ack.min(index);
    }

    /// Whether an entry can be had while `spare` stay free.
    fn has_room(&mut self, spare: usize) -> bool {
        while self.at.first < self.at.end && self.stage(self.at.first) == Stage::Free {
            self.at.first = self.at.first.wrapping_add(1);
        }
        let limit = self.table.len().saturating_sub(spare);
        if self.at.first == self.at.end || usize::from(self.at.end) >= limit {
            self.close_up();
        }
        usize::from(self.at.end) < limit
    }

    fn push(&mut self, id: PacketId, stage: Stage) {
        if let Some(entry) = self.table.get_mut(usize::from(self.at.end)) {
            *entry = Received { id: id.get(), stage };
            self.at.end = self.at.end.wrapping_add(1);
        }
    }

    /// The packet stays in the inbox until something has left or been stored.
    fn stall(&mut self) -> Verdict {
        self.at.stall = Stall::Waiting;
        Verdict::Stall
    }

    /// Waits, if something that leaves or is stored frees an entry.
    fn stall_or_too_many(&mut self) -> Verdict {
        let helps = |entry: &Received| {
            let is_waiting = matches!(entry.stage, Stage::Forgetting | Stage::Stale | Stage::Shown1);
            is_waiting || matches!(entry.stage, Stage::Puback | Stage::Pubcomp | Stage::Pubrel)
        };
        if self.table.iter().any(helps) { self.stall() } else { Verdict::TooMany }
    }

    fn unstall(&mut self) {
        if self.at.stall == Stall::Waiting {
            self.at.stall = Stall::Over;
        }
    }

    fn close_up(&mut self) {
        let mut kept = 0_u16;
        for index in self.at.first..self.at.end {
            if self.stage(index) != Stage::Free {
                bytes::exchange(self.table, usize::from(kept), usize::from(index));
                kept = kept.wrapping_add(1);
            }
        }
        self.at.first = 0;
        self.at.end = kept;
        self.at.next_ack = 0;
    }
}

#[cfg(feature = "verify")]
impl<'s> Inbound<'s> {
    /// State and memory apart, what is unused cleared.
    pub fn into_parts(mut self) -> (State, &'s mut [Received]) {
        self.close_up();
        self.table.get_mut(usize::from(self.at.end)..).unwrap_or_default().fill(Received::FREE);
        self.at.has_mark = self.table.iter().any(|entry| entry.stage.wants_mark());
        (self.at, self.table)
    }

    pub fn from_parts(at: State, table: &'s mut [Received]) -> Self {
        Self { table, at }
    }

    pub fn invariant(&self) -> Result<(), &'static str> {
        self.table
            .get(usize::from(self.at.first)..usize::from(self.at.end))
            .ok_or("entries in use lie outside the table")?;
        for (index, entry) in self.table.iter().enumerate().filter(|(_, entry)| entry.stage != Stage::Free) {
            if index < usize::from(self.at.first) || index >= usize::from(self.at.end) {
                return Err("an entry lies outside those in use");
            }
            let is_owed = matches!(entry.stage, Stage::Puback | Stage::Pubrec | Stage::Pubcomp | Stage::Pubrel);
            if is_owed && index < usize::from(self.at.next_ack) {
                return Err("an acknowledgement that is owed stands before its cursor");
            }
            if entry.stage.wants_mark() && !self.at.has_mark {
                return Err("a mark that is waited for would not be found");
            }
        }
        Ok(())
    }
}

impl State {
    pub const fn new() -> Self {
        Self {
            first: 0,
            end: 0,
            next_ack: 0,
            has_mark: false,
            is_unsettled: false,
            stall: Stall::No,
            connections: 0,
            sessions: 0,
        }
    }
}
