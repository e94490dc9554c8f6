//! Messages on their way in: which are handled, which acknowledgements are owed.
//!
//! An entry of the table is made when a message at QoS 1 or 2 is shown and lasts, at QoS 1, until PUBACK has left; at
//! QoS 2 until PUBREL has come and PUBCOMP has left. Entries stand in the order in which their messages came, and
//! PUBACK and PUBREC leave in that order [MQTT-4.6.0-2] [MQTT-4.6.0-3]: one that must wait, for the application or for
//! a mark, holds up those behind it.
//!
//! The table is the limit to what a server can make us remember. When it is full, `poll` takes nothing more until
//! something has left; if nothing that could leave would help, the fault is `TooMany`.

use super::event::Receipt;
use super::mark::{Mark, Stage as MarkStage};
use crate::packet::publish::Flags;
use crate::packet::{PacketId, QoS, header};

/// Room to remember one incoming message, or one acknowledgement that is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Received {
    id: u16,
    stage: Stage,
}

/// What has become of an incoming message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Free,
    /// Chunks of it are being shown.
    Arriving(QoS),
    /// Shown; the application has not handled it yet.
    Shown(QoS),
    /// PUBACK is owed.
    Puback,
    /// Handled; PUBREC waits for its mark.
    Unmarked,
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
    /// PUBREL is owed, for a PUBREC that fits nothing we know.
    Pubrel,
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
    first: usize,
    end: usize,
    /// No acknowledgement is owed before this index.
    next_ack: usize,
    /// Entries that wait for a mark.
    unmarked: usize,
    /// The last entry was shown by the last `poll`, and handled when the next one is called.
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
    /// Seen before: its acknowledgement is owed again, nothing is shown [MQTT-4.3.3-2].
    Repeat,
    /// Not now: something must leave first.
    Stall,
    /// No room, and nothing that leaves would make some.
    TooMany,
}

impl<'s> Inbound<'s> {
    pub fn new(table: &'s mut [Received]) -> Self {
        for entry in table.iter_mut() {
            *entry = Received::FREE;
        }
        Self { table, at: State::new() }
    }

    // Packets that came

    /// A PUBLISH. With `Show` at QoS 1 or 2, an entry has been made for it.
    pub fn on_publish(&mut self, flags: Flags, id: Option<PacketId>) -> Verdict {
        let (Some(id), true) = (id, flags.qos > QoS::AtMostOnce) else { return Verdict::Show(None) };
        if let (QoS::ExactlyOnce, Some(index)) = (flags.qos, self.find(id)) {
            return self.on_repeat(index);
        }
        // The last entry is kept for the answer to a PUBREL of an unknown identifier.
        if !self.has_room(1) {
            return self.stall_or(Verdict::TooMany);
        }
        self.push(id, Stage::Arriving(flags.qos));
        Verdict::Show(Some(self.receipt(id, flags.qos)))
    }

    /// A QoS 2 PUBLISH whose identifier is known.
    fn on_repeat(&mut self, index: usize) -> Verdict {
        let Some(entry) = self.table.get_mut(index) else { return Verdict::Stall };
        match entry.stage {
            Stage::Known => {
                self.owe(index, Stage::Pubrec);
                Verdict::Repeat
            }
            // Shown and not acknowledged yet: its PUBREC comes when it is.
            Stage::Shown(_) | Stage::Arriving(_) => Verdict::Repeat,
            // One answer each: the one that is owed leaves first.
            _ => self.stall_or(Verdict::Stall),
        }
    }

    /// The message last admitted is complete and is being shown.
    pub fn shown(&mut self) {
        let Some(entry) = self.last() else { return };
        if let Stage::Arriving(qos) = entry.stage {
            entry.stage = Stage::Shown(qos);
            self.at.is_unsettled = true;
        }
    }

    /// The application has handled the message last shown.
    pub fn settle(&mut self, wants_mark: bool) {
        if !core::mem::take(&mut self.at.is_unsettled) {
            return;
        }
        let index = self.at.end.wrapping_sub(1);
        self.handled(index, wants_mark);
    }

    /// Leaves the message last shown to `acknowledge`.
    pub fn leave_unsettled(&mut self) {
        self.at.is_unsettled = false;
    }

    /// The application acknowledges. `false` if there is nothing to acknowledge (any more).
    pub fn acknowledge(&mut self, receipt: Receipt, wants_mark: bool) -> bool {
        if self.receipt(receipt.id, receipt.qos).epoch != receipt.epoch {
            return false;
        }
        let wanted = Received { id: receipt.id.get(), stage: Stage::Shown(receipt.qos) };
        let Some(index) = self.position(|entry| *entry == wanted) else { return false };
        self.handled(index, wants_mark);
        true
    }

    fn handled(&mut self, index: usize, wants_mark: bool) {
        let Some(entry) = self.table.get_mut(index) else { return };
        match entry.stage {
            Stage::Shown(QoS::AtLeastOnce) => self.owe(index, Stage::Puback), // [MQTT-4.3.2-2]
            Stage::Shown(QoS::ExactlyOnce) if wants_mark => {
                entry.stage = Stage::Unmarked;
                self.at.unmarked = self.at.unmarked.wrapping_add(1);
            }
            Stage::Shown(QoS::ExactlyOnce) => self.owe(index, Stage::Pubrec), // [MQTT-4.3.3-2]
            _ => {}
        }
    }

    /// A PUBREL. Always answered, known or not.
    pub fn on_pubrel(&mut self, id: PacketId, wants_mark: bool) -> Verdict {
        let Some(index) = self.find(id) else { return self.owe_stray(id, Stage::Pubcomp) };
        let Some(entry) = self.table.get_mut(index) else { return Verdict::Stall };
        match entry.stage {
            Stage::Known | Stage::Pubrec if wants_mark => {
                entry.stage = Stage::Forgetting;
                self.at.unmarked = self.at.unmarked.wrapping_add(1);
            }
            Stage::Known | Stage::Pubrec => self.owe(index, Stage::Pubcomp),
            Stage::Unmarked | Stage::Stale => entry.stage = Stage::Forgetting,
            Stage::Forgetting | Stage::Pubcomp => return self.stall_or(Verdict::Stall),
            _ => return self.owe_stray(id, Stage::Pubcomp),
        }
        Verdict::Repeat
    }

    /// A PUBREC that fits no message of ours: the server waits for PUBREL.
    pub fn on_stray_pubrec(&mut self, id: PacketId) -> Verdict {
        self.owe_stray(id, Stage::Pubrel)
    }

    fn owe_stray(&mut self, id: PacketId, stage: Stage) -> Verdict {
        if self.table.is_empty() {
            return Verdict::Repeat;
        }
        if !self.has_room(0) {
            return self.stall_or(Verdict::Stall);
        }
        self.push(id, stage);
        self.at.next_ack = self.at.next_ack.min(self.at.end.wrapping_sub(1));
        Verdict::Repeat
    }

    // The connection

    /// A new connection is being made.
    pub fn open(&mut self) {
        self.at.connections = self.at.connections.wrapping_add(1);
    }

    /// The stream is gone. What is known of QoS 2 messages stays; what was owed is owed no more, since the server
    /// asks again.
    pub fn rewind(&mut self) {
        let mut unmarked = 0_usize;
        for entry in self.table.get_mut(self.at.first..self.at.end).unwrap_or_default() {
            entry.stage = match entry.stage {
                Stage::Shown(QoS::ExactlyOnce) => Stage::Shown(QoS::ExactlyOnce),
                Stage::Unmarked => Stage::Unmarked,
                Stage::Pubrec | Stage::Known => Stage::Known,
                Stage::Forgetting | Stage::Stale => Stage::Stale,
                Stage::Free | Stage::Arriving(_) | Stage::Shown(_) => Stage::Free,
                Stage::Puback | Stage::Pubcomp | Stage::Pubrel => Stage::Free,
            };
            if matches!(entry.stage, Stage::Unmarked | Stage::Stale) {
                unmarked = unmarked.wrapping_add(1);
            }
        }
        self.at.unmarked = unmarked;
        self.at.next_ack = self.at.first;
        self.at.stall = Stall::No;
        self.drop_free_front();
    }

    /// The server has no session: identifiers mean nothing any more [MQTT-3.1.2-6].
    pub fn on_session_lost(&mut self, wants_mark: bool) {
        self.at.sessions = self.at.sessions.wrapping_add(1);
        let mut unmarked = 0_usize;
        for entry in self.table.get_mut(self.at.first..self.at.end).unwrap_or_default() {
            entry.stage = match entry.stage {
                // A mark may be on its way to the store at this moment: only another one takes it back.
                Stage::Unmarked | Stage::Known | Stage::Stale if wants_mark => Stage::Stale,
                _ => Stage::Free,
            };
            if entry.stage == Stage::Stale {
                unmarked = unmarked.wrapping_add(1);
            }
        }
        self.at.unmarked = unmarked;
        self.drop_free_front();
    }

    // What leaves

    /// The next acknowledgement; it counts as sent.
    pub fn next_ack(&mut self) -> Option<[u8; 4]> {
        let mut is_held_up = false;
        let mut index = self.at.next_ack.max(self.at.first);
        while index < self.at.end {
            let entry = self.table.get_mut(index)?;
            let (first, then) = match entry.stage {
                Stage::Puback if !is_held_up => (header::PUBACK, Stage::Free),
                Stage::Pubrec if !is_held_up => (header::PUBREC, Stage::Known),
                Stage::Pubcomp => (header::PUBCOMP, Stage::Free),
                Stage::Pubrel => (header::PUBREL, Stage::Free),
                Stage::Free | Stage::Known | Stage::Stale | Stage::Forgetting => {
                    index = index.wrapping_add(1);
                    if !is_held_up {
                        self.at.next_ack = index;
                    }
                    continue;
                }
                Stage::Arriving(_) | Stage::Shown(_) | Stage::Unmarked | Stage::Puback | Stage::Pubrec => {
                    is_held_up = true;
                    index = index.wrapping_add(1);
                    continue;
                }
            };
            entry.stage = then;
            let [high, low] = entry.id.to_be_bytes();
            self.unstall();
            self.drop_free_front();
            return Some([first, 2, high, low]); // [MQTT-2.3.1-6]
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
        self.at.unmarked > 0 && self.position(|entry| entry.stage == Stage::Stale).is_some()
    }

    pub fn next_mark(&self) -> Option<Mark> {
        if self.at.unmarked == 0 {
            return None;
        }
        let live = self.table.get(self.at.first..self.at.end).unwrap_or_default();
        live.iter().find_map(|entry| {
            let stage = match entry.stage {
                Stage::Unmarked => MarkStage::Received,
                Stage::Forgetting | Stage::Stale => MarkStage::Forgotten,
                _ => return None,
            };
            Some(Mark { id: PacketId::new(entry.id)?, stage })
        })
    }

    /// A mark is on stable storage. One that no entry waits for (any more) changes nothing.
    pub fn mark_stored(&mut self, mark: Mark) {
        let waiting = |entry: &Received| {
            entry.id == mark.id.get() && matches!(entry.stage, Stage::Unmarked | Stage::Forgetting | Stage::Stale)
        };
        let Some(index) = self.position(waiting) else { return };
        let Some(entry) = self.table.get_mut(index) else { return };
        match (mark.stage, entry.stage) {
            (MarkStage::Received, Stage::Unmarked) => self.owe(index, Stage::Pubrec),
            (MarkStage::Forgotten, Stage::Forgetting) => self.owe(index, Stage::Pubcomp),
            (MarkStage::Forgotten, Stage::Stale) => entry.stage = Stage::Free,
            _ => return,
        }
        self.at.unmarked = self.at.unmarked.wrapping_sub(1);
        self.unstall();
        self.drop_free_front();
    }

    /// Takes back, after a restart, the identifier of a message that was handled.
    pub fn restore(&mut self, id: PacketId) -> Result<(), super::error::RestoreError> {
        if self.find(id).is_some() {
            return Err(super::error::RestoreError::PacketIdInUse);
        }
        if !self.has_room(1) {
            return Err(super::error::RestoreError::Full);
        }
        self.push(id, Stage::Known);
        Ok(())
    }

    // Helpers

    fn receipt(&self, id: PacketId, qos: QoS) -> Receipt {
        // QoS 2 is remembered across connections, QoS 1 is not.
        let epoch = if qos == QoS::ExactlyOnce { self.at.sessions } else { self.at.connections };
        Receipt { id, qos, epoch }
    }

    /// The entry of a QoS 2 message with this identifier.
    fn find(&self, id: PacketId) -> Option<usize> {
        self.position(|entry| {
            let is_other = matches!(entry.stage, Stage::Free | Stage::Puback | Stage::Pubrel)
                || matches!(entry.stage, Stage::Shown(QoS::AtLeastOnce) | Stage::Arriving(QoS::AtLeastOnce));
            entry.id == id.get() && !is_other
        })
    }

    fn position(&self, wanted: impl Fn(&Received) -> bool) -> Option<usize> {
        let live = self.table.get(self.at.first..self.at.end).unwrap_or_default();
        live.iter().position(wanted).map(|index| self.at.first.wrapping_add(index))
    }

    fn last(&mut self) -> Option<&mut Received> {
        self.table.get_mut(self.at.first..self.at.end)?.last_mut()
    }

    fn owe(&mut self, index: usize, stage: Stage) {
        if let Some(entry) = self.table.get_mut(index) {
            entry.stage = stage;
            self.at.next_ack = self.at.next_ack.min(index);
        }
    }

    /// Whether an entry can be had while `spare` stay free.
    fn has_room(&mut self, spare: usize) -> bool {
        let limit = self.table.len().saturating_sub(spare);
        if self.at.end >= limit {
            self.close_up();
        }
        self.at.end < limit
    }

    fn push(&mut self, id: PacketId, stage: Stage) {
        if let Some(entry) = self.table.get_mut(self.at.end) {
            *entry = Received { id: id.get(), stage };
            self.at.end = self.at.end.wrapping_add(1);
        }
    }

    /// Waits, if something that leaves or is stored will change the table; otherwise `verdict`.
    fn stall_or(&mut self, verdict: Verdict) -> Verdict {
        let helps = |entry: &Received| {
            matches!(
                entry.stage,
                Stage::Puback
                    | Stage::Pubcomp
                    | Stage::Pubrel
                    | Stage::Forgetting
                    | Stage::Stale
                    | Stage::Shown(QoS::AtLeastOnce)
            )
        };
        if verdict == Verdict::Stall || self.position(helps).is_some() {
            self.at.stall = Stall::Waiting;
            return Verdict::Stall;
        }
        verdict
    }

    fn unstall(&mut self) {
        if self.at.stall == Stall::Waiting {
            self.at.stall = Stall::Over;
        }
    }

    fn drop_free_front(&mut self) {
        while self.at.first < self.at.end {
            match self.table.get(self.at.first) {
                Some(entry) if entry.stage == Stage::Free => self.at.first = self.at.first.wrapping_add(1),
                _ => break,
            }
        }
        if self.at.first == self.at.end {
            self.at.first = 0;
            self.at.end = 0;
            self.at.next_ack = 0;
        }
    }

    fn close_up(&mut self) {
        let mut kept = 0_usize;
        for index in self.at.first..self.at.end {
            let Some(entry) = self.table.get(index).copied() else { break };
            if let (true, Some(place)) = (entry.stage != Stage::Free, self.table.get_mut(kept)) {
                *place = entry;
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
        self.table.get_mut(self.at.end..).unwrap_or_default().fill(Received::FREE);
        (self.at, self.table)
    }

    pub fn from_parts(at: State, table: &'s mut [Received]) -> Self {
        Self { table, at }
    }

    pub fn invariant(&self) -> Result<(), &'static str> {
        let live = self.table.get(self.at.first..self.at.end).ok_or("entries in use lie outside the table")?;
        let unmarked =
            live.iter().filter(|entry| matches!(entry.stage, Stage::Unmarked | Stage::Forgetting | Stage::Stale));
        if unmarked.count() != self.at.unmarked {
            return Err("marks of incoming messages are miscounted");
        }
        for (index, entry) in self.table.iter().enumerate().take(self.at.end).skip(self.at.first) {
            let is_owed = matches!(entry.stage, Stage::Puback | Stage::Pubrec | Stage::Pubcomp | Stage::Pubrel);
            if is_owed && index < self.at.next_ack {
                return Err("an acknowledgement that is owed stands before its cursor");
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
            unmarked: 0,
            is_unsettled: false,
            stall: Stall::No,
            connections: 0,
            sessions: 0,
        }
    }
}
