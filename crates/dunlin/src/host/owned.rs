//! A session and an inbox that own their memory, which grows with what they hold.
//!
//! The core borrows its memory from whoever made it. On a host that is awkward: a session must move into a mutex and
//! live as long as the client. `self_cell` ties value and memory together, and keeps the `unsafe` that this takes out
//! of our code.

use std::sync::Arc;

use dunlin_core::{Event, Fault, Inbox, Instant, Memory, Options, Ready, Received, Session, Slot};
use self_cell::{MutBorrow, self_cell};

use super::ARENA;
use super::builder::Settings;
use super::deliveries::Load;
use super::pool;

/// A session, and how large its memory is.
pub(crate) struct OwnedSession {
    cell: SessionCell,
    settings: Arc<Settings>,
    sizes: Sizes,
    most: Sizes,
}

/// Of a session's memory: bytes for outgoing messages, slots for them, entries for received ones, bytes for filters.
#[derive(Clone, Copy)]
struct Sizes {
    tx: usize,
    slots: usize,
    received: usize,
    filters: usize,
}

/// While it is small, memory for outgoing messages is so many times as large as they are: it is tidied up when it has been
/// used once.
const SPARE: usize = 8;

/// When it is so large, or may not grow, it is twice as large as they are.
const LARGE: usize = 2 * ARENA;

/// What a session begins with that has nothing to hold: most have little at a time.
const SMALL: Sizes = Sizes { tx: 256, slots: 4, received: 4, filters: 64 };

/// Memory of a session.
struct Owner {
    settings: Arc<Settings>,
    tx: Vec<u8>,
    slots: Vec<Slot>,
    received: Vec<Received>,
    filters: Vec<u8>,
}

self_cell!(
    struct SessionCell {
        owner: MutBorrow<Owner>,
        #[not_covariant]
        dependent: Session,
    }
);

self_cell!(
    struct Cell {
        owner: MutBorrow<Vec<u8>>,
        #[not_covariant]
        dependent: Inbox,
    }
);

impl Sizes {
    /// The smaller of each two.
    fn min(self, other: Self) -> Self {
        Self {
            tx: self.tx.min(other.tx),
            slots: self.slots.min(other.slots),
            received: self.received.min(other.received),
            filters: self.filters.min(other.filters),
        }
    }
}

impl Owner {
    fn new(settings: Arc<Settings>, sizes: Sizes) -> Self {
        Self {
            tx: vec![0; sizes.tx],
            slots: vec![Slot::FREE; sizes.slots],
            received: vec![Received::FREE; sizes.received],
            filters: vec![0; sizes.filters],
            settings,
        }
    }

    fn lend(&mut self) -> (Options<'_>, Memory<'_>) {
        let Self { settings, tx, slots, received, filters } = self;
        (settings.options(), Memory { tx, slots, received, filters })
    }
}

impl OwnedSession {
    /// A session without a connection, whose memory grows until it has room for twice as much as `load`. If it has room
    /// `at_once`, that is for all that it may receive and subscribe to as well.
    pub fn new(settings: Arc<Settings>, load: Load, at_once: Option<Load>) -> Self {
        let (received, filters) = (settings.receive_window + 1, settings.filter_bytes);
        let sizes_for = |Load { arena, count, .. }| {
            let (tx, slots) = (usize::saturating_mul(arena, 2), usize::saturating_mul(count, 2));
            Sizes { tx, slots, received, filters }
        };
        let most = sizes_for(load);
        let sizes = at_once.map_or(SMALL, sizes_for).min(most);
        let owner = Owner::new(settings.clone(), sizes);
        let cell = SessionCell::new(MutBorrow::new(owner), |owner| {
            let (options, memory) = owner.borrow_mut().lend();
            let mut session = Session::new(options, memory);
            session.set_growing(sizes.received < most.received);
            session
        });
        Self { cell, settings, sizes, most }
    }

    /// The session.
    #[inline]
    pub fn on<T>(&mut self, f: impl FnOnce(&mut Session<'_>) -> T) -> T {
        self.cell.with_dependent_mut(|_, session| f(session))
    }

    pub fn ask<T>(&self, f: impl FnOnce(&Session<'_>) -> T) -> T {
        self.cell.with_dependent(|_, session| f(session))
    }

    /// How many messages on their way out there is memory for, and for how many bytes of them.
    pub fn capacity(&self) -> (usize, usize) {
        let is_large = self.sizes.tx >= LARGE || self.sizes.tx == self.most.tx;
        (self.sizes.slots / 2, self.sizes.tx / if is_large { 2 } else { SPARE })
    }

    /// Makes room for so many messages on their way out, and so many bytes of them, as far as there may be; where there
    /// is, nothing moves.
    pub fn make_room_for(&mut self, count: usize, arena: usize) {
        let Sizes { mut tx, mut slots, .. } = self.sizes;
        let (has_slots, has_bytes) = self.capacity();
        if count <= has_slots && arena <= has_bytes {
            return;
        }
        if arena > has_bytes {
            tx = tx.max(arena.saturating_mul(2 * SPARE).min(LARGE.max(arena.saturating_mul(4))));
        }
        if count > has_slots {
            slots = 4 * count;
        }
        self.move_to(Sizes { tx, slots, ..self.sizes });
    }

    /// Makes room for more received messages, if one waits for that.
    pub fn make_room_if_wanted(&mut self) -> bool {
        let is_wanted = self.ask(|session| session.wants_received());
        if is_wanted {
            self.move_to(Sizes { received: 2 * self.sizes.received, ..self.sizes });
        }
        is_wanted
    }

    /// Makes room for more filters. `false` when there may be no more.
    pub fn make_room_for_filters(&mut self) -> bool {
        let may_grow = self.sizes.filters < self.most.filters;
        if may_grow {
            self.move_to(Sizes { filters: 2 * self.sizes.filters, ..self.sizes });
        }
        may_grow
    }

    /// Moves the session to memory of these sizes, if there may be so much.
    #[cold]
    fn move_to(&mut self, sizes: Sizes) {
        let (sizes, most) = (sizes.min(self.most), self.most);
        let owner = Owner::new(self.settings.clone(), sizes);
        self.cell = self.cell.with_dependent_mut(|_, session| {
            let none = Memory { tx: &mut [], slots: &mut [], received: &mut [], filters: &mut [] };
            let (suspended, old) = std::mem::replace(session, Session::new(Options::new(""), none)).suspend();
            SessionCell::new(MutBorrow::new(owner), |owner| {
                let (options, memory) = owner.borrow_mut().lend();
                memory.tx[..old.tx.len()].copy_from_slice(old.tx);
                memory.slots[..old.slots.len()].copy_from_slice(old.slots);
                memory.received[..old.received.len()].copy_from_slice(old.received);
                memory.filters[..old.filters.len()].copy_from_slice(old.filters);
                let mut session = Session::resume(options, suspended, memory);
                session.set_growing(sizes.received < most.received);
                session
            })
        });
        self.sizes = sizes;
    }
}

/// Bytes received, in a buffer that grows with what comes and shrinks again. While there are none, there is no buffer.
pub(crate) struct OwnedInbox {
    cell: Cell,
    len: usize,
    /// Length of the buffer for what comes next: as long as the message before, if that was a long one.
    next_len: usize,
    limit: usize,
}

/// Bytes read at once, and the length of an inbox that has not grown.
const READ: usize = 128 * 1024;

/// Messages of so many bytes get a buffer of their own, which goes to the application with them.
pub(crate) const LONG: usize = 16 * 1024;

/// Longer ones are not expected to be followed by such ones.
const EXPECTED: usize = 1 << 20;

impl OwnedInbox {
    /// For packets of up to `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        Self { cell: cell(Vec::new(), limit), len: 0, next_len: READ.min(limit), limit }
    }

    /// Where to read the next bytes into. Empty when the session has to send something before it can go on. To be
    /// asked when `poll` has found nothing more.
    pub fn space(&mut self) -> &mut [u8] {
        self.fit();
        self.cell.with_dependent_mut(|_, inbox| inbox.space())
    }

    /// So many bytes were read into it.
    pub fn filled(&mut self, n: usize) {
        self.cell.with_dependent_mut(|_, inbox| inbox.filled(n));
    }

    /// The inbox.
    pub fn on<T>(&mut self, f: impl FnOnce(&mut Inbox<'_>) -> T) -> T {
        self.cell.with_dependent_mut(|_, inbox| f(inbox))
    }

    #[inline]
    pub fn poll(&mut self, session: &mut Session<'_>, now: Instant) -> Result<Option<Ready>, Fault> {
        self.cell.with_dependent_mut(|_, inbox| session.poll_ready(now, inbox))
    }

    #[inline]
    pub fn event(&mut self, ready: Ready) -> Event<'_> {
        self.cell.with_dependent_mut(|_, inbox| inbox.event(ready))
    }

    /// Length of the buffer.
    #[inline]
    pub fn buffer_len(&self) -> usize {
        self.len
    }

    /// A message has come; if it is a long one, in a packet of so many bytes.
    #[inline]
    pub fn message_came(&mut self, packet: usize) {
        self.next_len = if (LONG..=EXPECTED).contains(&packet) { packet } else { READ.min(self.limit) };
    }

    /// The buffer with all that is in it, which the session is done with.
    pub fn take(&mut self) -> Vec<u8> {
        self.len = 0;
        std::mem::replace(&mut self.cell, cell(Vec::new(), self.limit)).into_owner().into_inner()
    }

    /// Gives the buffer back, if nothing is in it.
    pub fn rest(&mut self) {
        if self.len > 0 && self.on(|inbox| inbox.is_empty()) {
            pool::give(self.take());
            self.next_len = READ.min(self.limit);
        }
    }

    /// Grows when a longer packet has filled the buffer, shrinks when it has gone: memory follows the bytes that came.
    /// A long message that has begun gets a buffer that it fills.
    fn fit(&mut self) {
        let (wants, is_empty) = self.cell.with_dependent(|_, inbox| (inbox.wants(), inbox.is_empty()));
        let len = match wants {
            Some(wants) if self.on(|inbox| inbox.space().is_empty()) => wants.min(self.len.saturating_mul(2)),
            None if is_empty => self.next_len,
            None => self.cell.with_dependent(|_, inbox| long_message(inbox.pending())).unwrap_or(self.len),
            Some(_) => self.len,
        };
        if len == self.len {
            return;
        }
        let mut fitting = cell(pool::take(len), self.limit);
        self.cell.with_dependent(|_, old| fitting.with_dependent_mut(|_, inbox| inbox.push(old.pending())));
        pool::give(std::mem::replace(&mut self.cell, fitting).into_owner().into_inner());
        self.len = len;
    }
}

fn cell(buffer: Vec<u8>, limit: usize) -> Cell {
    Cell::new(MutBorrow::new(buffer), |buffer| Inbox::growing(buffer.borrow_mut(), limit))
}

/// The length of the packet at the front, if it is a PUBLISH that is long but needs no more than a buffer of the usual
/// length, and has not come whole.
fn long_message(pending: &[u8]) -> Option<usize> {
    let [0x30..=0x3F, low, high, top, ..] = pending else { return None };
    let digit = |byte: &u8| usize::from(byte & 0x7F);
    // Less than 2^14 is short, and 2^21 or more is long enough for the buffer to grow step by step.
    let is_long = low & high & 0x80 != 0 && top & 0x80 == 0;
    let len = 4 + digit(low) + (digit(high) << 7) + (digit(top) << 14);
    (is_long && (LONG..=READ).contains(&len) && pending.len() < len).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announce(remaining: usize) -> Vec<u8> {
        let mut bytes = vec![0x30];
        let mut rest = remaining;
        while rest > 127 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
        bytes
    }

    #[test]
    fn a_claim_alone_costs_no_memory_and_bytes_that_come_at_most_twice_theirs() {
        // [A12]
        let mut inbox = OwnedInbox::with_limit(16 << 20);
        inbox.space();
        let mut came = inbox.on(|inbox| inbox.push(&announce(10 << 20)));
        while came < 10 << 20 {
            assert!(inbox.len <= READ.max(2 * came), "{} for {came}", inbox.len);
            let n = inbox.space().len().min(1000);
            assert!(n > 0);
            inbox.filled(n);
            came += n;
        }
        assert_eq!(inbox.on(|inbox| inbox.pending().len()), came);
    }

    #[test]
    fn a_packet_above_the_limit_grows_nothing() {
        let mut inbox = OwnedInbox::with_limit(1 << 20);
        inbox.space();
        inbox.on(|inbox| inbox.push(&announce(2 << 20)));
        while !inbox.space().is_empty() {
            let n = inbox.space().len();
            inbox.filled(n);
        }
        assert_eq!(inbox.len, READ);
    }

    #[test]
    fn an_inbox_that_has_grown_shrinks_when_it_is_empty() {
        let mut inbox = OwnedInbox::with_limit(1 << 20);
        inbox.space();
        inbox.on(|inbox| inbox.push(&announce(1 << 19)));
        while inbox.len < 1 << 19 {
            let n = inbox.space().len();
            inbox.filled(n);
        }
        inbox.on(|inbox| inbox.clear());
        inbox.space();
        assert_eq!(inbox.len, READ);
        inbox.rest();
        assert_eq!(inbox.len, 0);
    }

    #[test]
    fn a_long_message_gets_a_buffer_that_it_fills_and_so_does_the_next() {
        let mut inbox = OwnedInbox::with_limit(1 << 20);
        let mut packet = announce(40_000);
        let whole = packet.len() + 40_000;
        packet.resize(whole, 7);
        inbox.space()[..100].copy_from_slice(&packet[..100]);
        inbox.filled(100);
        let space = inbox.space();
        space.copy_from_slice(&packet[100..]);
        inbox.filled(whole - 100);
        assert_eq!(inbox.buffer_len(), whole);
        inbox.message_came(whole);
        assert_eq!(inbox.take(), packet);
        assert_eq!(inbox.space().len(), whole);
        inbox.message_came(0);
        assert_eq!(inbox.space().len(), READ);
    }
}
