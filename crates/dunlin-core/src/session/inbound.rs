//! Messages on their way in: which are handled, which acknowledgements are owed.
//!
//! An entry of the table is made when a message at QoS 1 or 2 is shown and lasts, at QoS 1, until PUBACK has left; at
//! QoS 2 until PUBREL has come and PUBCOMP has left. Entries stand in the order in which their messages came, and
//! PUBACK and PUBREC leave in that order [MQTT-4.6.0-2] [MQTT-4.6.0-3]: one that must wait, for the application or for
//! a mark, holds up those behind it.
//!
//! A server may lose the session, make a new one for a CONNECT whose answer is lost, and then rightly say that a session
//! is present. So after a CONNECT without an answer, and after a restart, identifiers from before are in doubt: they
//! stand for repeated messages, which come with DUP; a PUBLISH without DUP under one of them shows that the session
//! they belong to is lost [MQTT-3.3.1-1].
//!
//! The table is the limit to what a server can make us remember. When it is full, `poll` takes nothing more until
//! something has left; if nothing that could leave would help, the fault is `TooMany`.

#![expect(clippy::wildcard_enum_match_arm, reason = "DEV-02: every other stage is one case, and says so")]

#[cfg(feature = "durable")]
use super::error::RestoreError;
#[cfg(feature = "manual")]
use super::event::Receipt;
use super::incoming::Pause;
#[cfg(feature = "durable")]
use super::mark::{Mark, Stage as MarkStage};
use super::message::{Server, Stall, Verdict};
use super::queue::{self, Queue};
use crate::packet::publish::Flags;
use crate::packet::{PacketId, header};

/// Room to remember one incoming message, or one acknowledgement that is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Received {
    id: u16,
    stage: Stage,
    /// At QoS 2 the session on the server, at QoS 1 the connection in which the message came: see [`State`].
    epoch: u8,
}

/// What has become of an incoming message. Those of QoS 2 come last, from `Shown2` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    /// PUBREL is owed, for a PUBREC that fits nothing we know.
    Pubrel,
    /// PUBACK is owed.
    Puback,
    /// QoS 1: shown, or being shown in chunks; the application has not handled it yet.
    Shown1,
    /// PUBREC is owed for a copy of a message whose own entry stands before this one and owes one as well.
    Again,
    /// QoS 2: the same.
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

    /// Whether nothing but a PUBREL, which has not come, frees its entry.
    fn awaits_pubrel(self) -> bool {
        QOS2 && matches!(self, Self::Shown2 | Self::Unasked | Self::Unmarked | Self::Handled | Self::Known)
    }

    /// Whether its acknowledgement must wait, and holds up those behind it.
    fn holds_up(self) -> bool {
        matches!(self, Self::Shown1 | Self::Shown2 | Self::Unmarked)
    }
}

/// Whether there is anything that an entry could be made for.
const IN_USE: bool = QOS2 || cfg!(feature = "subscribe");
/// Whether there are messages at QoS 2.
const QOS2: bool = cfg!(feature = "qos2");
/// Whether entries may wait for a mark.
const DURABLE: bool = cfg!(feature = "durable");
/// Whether the application may keep a message for longer than until the next `poll`.
const MANUAL: bool = cfg!(feature = "manual");

impl Received {
    /// An unused entry.
    pub const FREE: Self = Self { id: 0, stage: Stage::Pubrel, epoch: 0 };
}

impl Default for Received {
    fn default() -> Self {
        Self::FREE
    }
}

pub(crate) struct Inbound<'s> {
    table: Queue<'s, Received>,
    at: State,
}

/// Where things stand; plain numbers, so that a session can be taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// No acknowledgement is owed before this entry.
    next_ack: usize,
    /// Where `find` found an entry last: the next one is likely to follow it.
    found: usize,
    /// No entry of QoS 2 has an identifier above this.
    highest: u16,
    /// Some entry may wait for a mark.
    has_mark: bool,
    /// The last entry was shown by the last `poll`, and is handled when the next one is called.
    is_unsettled: bool,
    stall: Stall,
    #[cfg(feature = "suspend")]
    is_growing: bool,
    /// Counts the sessions on the server, those that may not have been new ones as well. Entries of an earlier one are
    /// in doubt.
    sessions: u8,
    /// Counts connections, so that an old receipt at QoS 1 is known for what it is.
    #[cfg(feature = "manual")]
    connections: u8,
    /// Some entry may stand for a copy.
    #[cfg(feature = "manual")]
    has_again: bool,
}

impl<'s> Inbound<'s> {
    pub fn new(table: &'s mut [Received]) -> Self {
        Self { table: Queue::new(table), at: State::new() }
    }

    // Packets that came

    /// A PUBLISH at QoS 1 or 2. With `Show`, an entry has been made for it, from which its acknowledgement follows
    /// whatever the application does with the message [MQTT-3.3.4-1] [MQTT-4.5.0-2].
    pub fn on_publish(&mut self, flags: Flags, id: PacketId, wants_mark: bool) -> Verdict {
        let is_qos2 = flags.is_qos2();
        // Servers count up: most messages are seen to be new at once.
        if is_qos2
            && id.get() <= self.at.highest
            && let Some(entry) = self.find(id)
        {
            if flags.is_dup() || !self.is_in_doubt(entry) {
                return self.on_repeat(self.at.found, entry);
            }
            self.forget_doubtful(usize::MAX, wants_mark); // [MQTT-3.3.1-1]
            if wants_mark && entry.stage != Stage::Unasked {
                return self.stall(); // until its mark is stored
            }
        }
        // The last entry is kept for the answer to a PUBREL of an unknown identifier.
        if self.table.space() < 2 {
            if self.is_growing() {
                return self.stall();
            }
            // The server cannot have so many under way, and those of a lost session are the oldest.
            self.forget_doubtful(1, wants_mark);
            self.drop_copies(None); // they take no place that a message needs
        }
        if self.table.space() < 2 {
            return self.stall_or_too_many();
        }
        self.push(id, if is_qos2 { Stage::Shown2 } else { Stage::Shown1 });
        Verdict::Show
    }

    /// A QoS 2 PUBLISH whose identifier is known.
    fn on_repeat(&mut self, index: usize, entry: Received) -> Verdict {
        match entry.stage {
            Stage::Known => self.came_again(index, entry, Stage::Pubrec),
            // The application may let the one that is owed wait, perhaps for a message behind this one. So it is not
            // waited for here; where there is no room to remember a second one, it is for both.
            Stage::Shown2 | Stage::Pubrec if MANUAL => {
                if self.table.space() > 1 {
                    self.push_entry(Received { stage: Stage::Again, ..entry });
                    self.note_again();
                } else if self.is_growing() {
                    return self.stall();
                }
            }
            Stage::Unasked if MANUAL => self.came_again(index, entry, Stage::Shown2),
            Stage::Handled if DURABLE => self.came_again(index, entry, Stage::Unmarked),
            // One answer each: the one that is owed leaves first.
            _ => return self.stall(),
        }
        Verdict::Taken
    }

    /// The acknowledgement of a message that came again leaves behind those of what came before it [MQTT-4.6.0-3]. The
    /// session on the server knows the message, so it is in doubt no more; but a receipt of it stays good.
    fn came_again(&mut self, index: usize, entry: Received, stage: Stage) {
        self.remove(index);
        let epoch = if stage == Stage::Shown2 { entry.epoch } else { self.at.sessions };
        self.push_entry(Received { stage, epoch, ..entry });
        if cfg!(feature = "durable") {
            self.at.has_mark |= stage.wants_mark();
        }
    }

    /// The message last admitted is complete and is being shown.
    pub fn shown(&mut self) {
        self.at.is_unsettled = true;
    }

    /// The application has handled the message last shown. `false` when that was known.
    pub fn settle(&mut self, wants_mark: bool) -> bool {
        let is_news = self.at.is_unsettled;
        if is_news {
            self.at.is_unsettled = false;
            self.handled(self.table.len().wrapping_sub(1), wants_mark);
        }
        is_news
    }

    /// Leaves the message last shown to `acknowledge`.
    #[cfg(feature = "manual")]
    pub fn leave_unsettled(&mut self) {
        self.at.is_unsettled = false;
    }

    /// The message that is being shown in chunks will not be complete.
    #[cfg(feature = "large")]
    pub fn drop_last(&mut self) {
        self.table.remove(self.table.len().wrapping_sub(1));
    }

    /// What `acknowledge` takes.
    #[cfg(feature = "manual")]
    pub fn receipt(&self, is_qos2: bool, id: PacketId) -> Receipt {
        Receipt { id, is_qos2, epoch: self.epoch(is_qos2) }
    }

    /// The application acknowledges. `false` if there is nothing to acknowledge (any more). So many messages at the end are
    /// still coming: nobody has a receipt for them, but one of an earlier message may look the same.
    #[cfg(feature = "manual")]
    pub fn acknowledge(&mut self, receipt: Receipt, coming: usize, wants_mark: bool) -> bool {
        let end = self.table.len().wrapping_sub(coming);
        let mut index = 0_usize;
        while let Some(entry) = self.table.get(index).filter(|_| index < end) {
            let is_waiting = match entry.stage {
                Stage::Shown1 => !receipt.is_qos2,
                Stage::Shown2 | Stage::Unasked => receipt.is_qos2,
                _ => false,
            };
            if is_waiting && (entry.id, entry.epoch) == (receipt.id.get(), receipt.epoch) {
                self.handled(index, wants_mark);
                return true;
            }
            index = index.wrapping_add(1);
        }
        false
    }

    fn handled(&mut self, index: usize, wants_mark: bool) {
        match self.entry(index).stage {
            Stage::Shown1 => self.owe(index, Stage::Puback), // [MQTT-4.3.2-2]
            Stage::Shown2 if wants_mark => self.set(index, Stage::Unmarked),
            Stage::Shown2 => self.owe(index, Stage::Pubrec), // [MQTT-4.3.3-2]
            Stage::Unasked if MANUAL => self.set(index, if wants_mark { Stage::Handled } else { Stage::Known }),
            _ => {}
        }
    }

    /// A PUBREL. Always answered, known or not.
    pub fn on_pubrel(&mut self, id: PacketId, wants_mark: bool) -> Pause {
        self.drop_copies(Some(id));
        let Some(entry) = self.find(id) else { return self.owe_stray(id, Stage::Pubcomp) };
        let index = self.at.found;
        match entry.stage {
            Stage::Known | Stage::Pubrec if !wants_mark => self.owe(index, Stage::Pubcomp),
            Stage::Known | Stage::Pubrec | Stage::Unmarked | Stage::Handled | Stage::Stale if DURABLE => {
                self.set(index, Stage::Forgetting);
            }
            Stage::Forgetting | Stage::Pubcomp => return self.wait(),
            _ => return self.owe_stray(id, Stage::Pubcomp),
        }
        Pause::GoOn
    }

    /// A copy of a message has an entry.
    #[cfg(feature = "manual")]
    fn note_again(&mut self) {
        self.at.has_again = true;
    }

    #[cfg(not(feature = "manual"))]
    fn note_again(&mut self) {}

    /// Copies of this message, or of all, get no answer of their own. So it is when PUBREL has come: a PUBREC behind
    /// PUBCOMP could be taken for that of the next message under this identifier.
    #[cfg(feature = "manual")]
    fn drop_copies(&mut self, of: Option<PacketId>) {
        let mut index = 0_usize;
        let mut is_left = false;
        while self.at.has_again && index < self.table.len() {
            let entry = self.entry(index);
            if entry.stage == Stage::Again && of.is_none_or(|id| entry.id == id.get()) {
                self.remove(index);
            } else {
                is_left |= entry.stage == Stage::Again;
                index = index.wrapping_add(1);
            }
        }
        self.at.has_again = is_left;
    }

    #[cfg(not(feature = "manual"))]
    fn drop_copies(&mut self, _: Option<PacketId>) {}

    /// A PUBREC that fits no message of ours: the server waits for PUBREL.
    pub fn on_stray_pubrec(&mut self, id: PacketId) -> Pause {
        self.owe_stray(id, Stage::Pubrel)
    }

    #[inline(always)] // each of the callers knows the stage
    fn owe_stray(&mut self, id: PacketId, stage: Stage) -> Pause {
        if self.table.space() == 0 && self.table.len() > 0 {
            return self.wait();
        }
        self.push(id, stage);
        Pause::GoOn
    }

    /// Whether the table is to be moved to a longer one before anything is given up for want of space.
    #[cfg(feature = "suspend")]
    fn is_growing(&self) -> bool {
        self.at.is_growing
    }

    #[cfg(not(feature = "suspend"))]
    #[expect(clippy::unused_self, reason = "only a session that can be suspended moves")]
    fn is_growing(&self) -> bool {
        false
    }

    // The connection

    /// A new connection is being made.
    #[cfg(feature = "manual")]
    pub fn open(&mut self) {
        self.at.connections = self.at.connections.wrapping_add(1);
    }

    /// The stream is gone. What is known of QoS 2 messages stays; what was owed is owed no more, since the server asks
    /// again: before it does, an acknowledgement would answer nothing on that connection [MQTT-2.3.1-6].
    pub fn rewind(&mut self, wants_mark: bool) {
        let mut index = 0_usize;
        while let Some(entry) = self.table.get_mut(index) {
            entry.stage = match entry.stage {
                Stage::Shown2 | Stage::Unasked if MANUAL => Stage::Unasked,
                Stage::Unmarked | Stage::Handled if DURABLE => Stage::Handled,
                Stage::Pubrec | Stage::Known if QOS2 => Stage::Known,
                Stage::Forgetting | Stage::Stale if wants_mark => Stage::Stale,
                _ => {
                    self.table.remove(index);
                    continue;
                }
            };
            index = index.wrapping_add(1);
        }
        self.at.has_mark = wants_mark;
        self.at.next_ack = 0;
        self.at.found = 0;
        self.at.stall = Stall::No;
    }

    /// The session on the server may be another one than before. If it is, identifiers mean nothing any more
    /// [MQTT-3.1.2-6]; otherwise they are in doubt.
    pub fn renew(&mut self, server: Server, wants_mark: bool) {
        self.at.sessions = self.at.sessions.wrapping_add(1);
        if server == Server::HasForgotten {
            self.forget_doubtful(usize::MAX, wants_mark);
        }
    }

    /// The session is lost in which the identifiers that are in doubt had a meaning: forgets the oldest, so many of them.
    fn forget_doubtful(&mut self, most: usize, wants_mark: bool) {
        let mut left = most;
        let mut index = 0_usize;
        while QOS2 && left > 0 && index < self.table.len() {
            let entry = self.entry(index);
            let is_past = matches!(entry.stage, Stage::Unasked | Stage::Handled | Stage::Known | Stage::Again);
            if entry.stage == Stage::Stale {
                left = left.wrapping_sub(1); // on its way out
            } else if is_past && self.is_in_doubt(entry) {
                left = left.wrapping_sub(1);
                if !wants_mark || matches!(entry.stage, Stage::Unasked | Stage::Again) {
                    self.remove(index);
                    continue;
                }
                // A mark may be on its way to the store at this moment: only another one takes it back.
                self.set(index, Stage::Stale);
            }
            index = index.wrapping_add(1);
        }
    }

    /// Whether the entry of a QoS 2 message is from a session that the server may have lost.
    fn is_in_doubt(&self, entry: Received) -> bool {
        entry.epoch != self.at.sessions
    }

    // What leaves

    /// The next acknowledgement, its first byte and identifier; it counts as sent.
    pub fn next_ack(&mut self) -> Option<(u8, PacketId)> {
        let mut is_held_up = false;
        let mut index = self.at.next_ack;
        while let Some(entry) = self.table.get_mut(index) {
            let id = PacketId::new(entry.id);
            let first = match entry.stage {
                Stage::Pubcomp if QOS2 => header::PUBCOMP,
                Stage::Pubrel if QOS2 => header::PUBREL,
                Stage::Puback if !is_held_up => header::PUBACK,
                Stage::Pubrec if QOS2 && !is_held_up => header::PUBREC,
                Stage::Again if MANUAL && QOS2 && !is_held_up => header::PUBREC,
                stage => {
                    is_held_up |= stage.holds_up();
                    index = index.wrapping_add(1);
                    if !is_held_up {
                        self.at.next_ack = index;
                    }
                    continue;
                }
            };
            if entry.stage == Stage::Pubrec {
                entry.stage = Stage::Known;
            } else {
                self.remove(index);
            }
            self.unstall();
            return Some((first, id?)); // [MQTT-2.3.1-6]
        }
        None
    }

    /// Whether `poll` has more to do now, although no bytes came.
    pub fn can_go_on(&self) -> bool {
        IN_USE && self.at.stall == Stall::Over
    }

    /// Whether `poll` left a packet because something must leave first.
    pub fn is_stalled(&self) -> bool {
        self.at.stall != Stall::No
    }

    /// `poll` begins.
    pub fn go_on(&mut self) {
        if IN_USE {
            self.at.stall = Stall::No;
        }
    }

    // Marks

    /// Whether an identifier that the server has forgotten is still on stable storage.
    #[cfg(feature = "subscribe")]
    pub fn has_stale(&self) -> bool {
        let can_be = cfg!(feature = "durable") && self.at.has_mark;
        can_be && self.table.iter().any(|entry| entry.stage == Stage::Stale)
    }

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
        self.table.iter().filter_map(|entry| {
            let stage = match entry.stage {
                Stage::Unmarked | Stage::Handled => MarkStage::Received,
                Stage::Forgetting | Stage::Stale => MarkStage::Forgotten,
                _ => return None,
            };
            Some(Mark { id: PacketId::new(entry.id)?, stage })
        })
    }

    /// A mark is on stable storage. `false` for one that no entry waits for (any more), which changes nothing.
    #[cfg(feature = "durable")]
    pub fn mark_stored(&mut self, mark: Mark) -> bool {
        let mut index = 0_usize;
        while let Some(entry) = self.table.get(index) {
            let is_it = entry.id == mark.id.get();
            match (mark.stage, entry.stage) {
                (MarkStage::Received, Stage::Unmarked) if is_it => self.owe(index, Stage::Pubrec),
                (MarkStage::Received, Stage::Handled) if is_it => self.owe(index, Stage::Known),
                (MarkStage::Forgotten, Stage::Forgetting) if is_it => self.owe(index, Stage::Pubcomp),
                (MarkStage::Forgotten, Stage::Stale) if is_it => self.remove(index),
                _ => {
                    index = index.wrapping_add(1);
                    continue;
                }
            }
            self.unstall();
            return true;
        }
        false
    }

    /// Takes back, after a restart, the identifier of a message that was handled.
    #[cfg(feature = "durable")]
    pub fn restore(&mut self, id: PacketId) -> Result<(), RestoreError> {
        // While there is no connection, all entries are of QoS 2.
        if self.table.iter().any(|entry| entry.id == id.get()) {
            return Err(RestoreError::PacketIdInUse);
        }
        if self.table.space() < 2 {
            return Err(RestoreError::Full);
        }
        // It is in doubt: a CONNACK may have said before the restart that the session is lost.
        self.push_entry(Received { id: id.get(), stage: Stage::Known, epoch: self.at.sessions.wrapping_sub(1) });
        Ok(())
    }

    // Helpers

    /// QoS 2 is remembered across connections, QoS 1 is not.
    #[cfg(feature = "manual")]
    fn epoch(&self, is_qos2: bool) -> u8 {
        if is_qos2 { self.at.sessions } else { self.at.connections }
    }

    #[cfg(not(feature = "manual"))]
    fn epoch(&self, _: bool) -> u8 {
        self.at.sessions
    }

    /// The entry of a QoS 2 message with this identifier, which stands at `found` then. Looked for from there on, where
    /// the next PUBREL is likely to find its own.
    #[inline(always)] // so that what it returns is never put together
    fn find(&mut self, id: PacketId) -> Option<Received> {
        let start = self.at.found;
        let mut index = start;
        loop {
            match self.table.get_mut(index) {
                Some(entry) if entry.id == id.get() && entry.stage >= Stage::Shown2 => {
                    self.at.found = index;
                    return Some(*entry);
                }
                Some(_) => index = index.wrapping_add(1),
                None => index = 0,
            }
            if index == start {
                return None;
            }
        }
    }

    #[inline(always)] // a call, and no more
    fn entry(&mut self, index: usize) -> Received {
        match self.table.get_mut(index) {
            Some(entry) => *entry,
            None => Received::FREE,
        }
    }

    fn set(&mut self, index: usize, stage: Stage) {
        if let Some(entry) = self.table.get_mut(index) {
            entry.stage = stage;
        }
        if cfg!(feature = "durable") {
            self.at.has_mark |= stage.wants_mark();
        }
    }

    fn owe(&mut self, index: usize, stage: Stage) {
        self.set(index, stage);
        self.at.next_ack = self.at.next_ack.min(index);
    }

    fn push(&mut self, id: PacketId, stage: Stage) {
        let epoch = self.epoch(stage >= Stage::Shown2);
        self.push_entry(Received { id: id.get(), stage, epoch });
    }

    fn push_entry(&mut self, entry: Received) {
        if QOS2 {
            let highest = if self.table.len() == 0 { 0 } else { self.at.highest };
            self.at.highest = highest.max(entry.id);
        }
        self.table.push(entry);
    }

    fn remove(&mut self, index: usize) {
        self.table.remove(index);
        self.at.next_ack = queue::moved(self.at.next_ack, index);
        self.at.found = queue::moved(self.at.found, index);
    }

    /// The packet stays in the inbox until something has left or been stored.
    fn wait(&mut self) -> Pause {
        self.at.stall = Stall::Waiting;
        Pause::Wait
    }

    fn stall(&mut self) -> Verdict {
        self.wait();
        Verdict::Stall
    }

    /// Waits, if something that leaves or is stored brings the server to free an entry. What stands behind a message that
    /// the application keeps does not leave.
    fn stall_or_too_many(&mut self) -> Verdict {
        let mut index = 0_usize;
        let mut is_kept = false;
        while let Some(entry) = self.table.get_mut(index) {
            let is_held_up = is_kept && entry.stage == Stage::Pubrec;
            if !entry.stage.awaits_pubrel() && !is_held_up {
                return self.stall();
            }
            is_kept |= MANUAL && entry.stage == Stage::Shown2;
            index = index.wrapping_add(1);
        }
        Verdict::TooMany
    }

    fn unstall(&mut self) {
        if self.at.stall == Stall::Waiting {
            self.at.stall = Stall::Over;
        }
    }
}

#[cfg(feature = "suspend")]
impl<'s> Inbound<'s> {
    /// Whether the table will be moved to a longer one when that is wanted.
    pub fn set_growing(&mut self, is_growing: bool) {
        self.at.is_growing = is_growing;
    }

    /// Whether a packet waits for a longer table.
    pub fn wants_space(&self) -> bool {
        self.at.is_growing && self.is_stalled() && self.table.space() < 2
    }

    /// State and memory apart, what is unused cleared; and how many entries are in use.
    pub fn into_parts(mut self) -> (State, &'s mut [Received], usize) {
        self.at.has_mark = self.table.iter().any(|entry| entry.stage.wants_mark());
        #[cfg(feature = "manual")]
        {
            self.at.has_again = self.table.iter().any(|entry| entry.stage == Stage::Again);
        }
        self.at.next_ack = 0;
        self.at.found = 0;
        self.at.highest = self.table.iter().map(|entry| entry.id).max().unwrap_or(0);
        let (table, count) = self.table.into_parts(Received::FREE);
        (self.at, table, count)
    }

    pub fn from_parts(at: State, table: &'s mut [Received], count: usize) -> Self {
        Self { table: Queue::from_parts(table, count), at }
    }

    #[cfg(feature = "verify")]
    pub fn invariant(&self) -> Result<(), &'static str> {
        for (index, entry) in self.table.iter().enumerate() {
            let is_owed = matches!(entry.stage, Stage::Puback | Stage::Pubrec | Stage::Pubcomp | Stage::Pubrel);
            if (is_owed || entry.stage == Stage::Again) && index < self.at.next_ack {
                return Err("an acknowledgement that is owed stands before its cursor");
            }
            if entry.stage.wants_mark() && !self.at.has_mark {
                return Err("a mark that is waited for would not be found");
            }
            #[cfg(feature = "manual")]
            if entry.stage == Stage::Again && !self.at.has_again {
                return Err("a copy would still be answered behind PUBCOMP");
            }
        }
        Ok(())
    }
}

impl State {
    pub const fn new() -> Self {
        Self {
            next_ack: 0,
            found: 0,
            highest: u16::MAX,
            has_mark: false,
            is_unsettled: false,
            stall: Stall::No,
            #[cfg(feature = "suspend")]
            is_growing: false,
            sessions: 0,
            #[cfg(feature = "manual")]
            connections: 0,
            #[cfg(feature = "manual")]
            has_again: false,
        }
    }
}
