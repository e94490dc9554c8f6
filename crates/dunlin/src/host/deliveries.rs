//! Which messages on their way out are not over, and who waits for them.
//!
//! One entry per message at QoS 1 and 2, found by its packet identifier. How the ordinary message ended is not noted
//! anywhere: one that is not open and not among the odd ones was delivered. So a message that nobody waits for costs
//! nothing after its end.

use std::collections::{BTreeMap, VecDeque};
use std::task::{Poll, Waker};

use dunlin_core::{PacketId, Replace};
use rustc_hash::FxHashMap;

use super::by_id::ById;
use super::waiters::Ticket;

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The server has taken it. A message at QoS 0 counts as delivered at once, since nobody says more of it.
    Delivered,
    /// The server lost the session after it had taken the QoS 2 message and before it said so: whether it reached its
    /// subscribers is unknown, and repeating it could double it.
    Forgotten,
    /// It was pushed out by a newer one before it was ever sent.
    Replaced,
}

/// A message on its way out; who waits for it is noted elsewhere, since mostly nobody does.
struct Open {
    number: u64,
    arena: u32,
    bytes: u32,
    /// Names its payload, if that is not in the session's memory; zero if it is.
    key: u32,
}

/// What messages on their way out take: their count, bytes in the session's memory, and bytes in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub count: usize,
    pub arena: usize,
    pub bytes: usize,
}

impl Load {
    pub fn plus(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            arena: self.arena.saturating_add(other.arena),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// Whether it is no more than `limit`.
    pub fn fits(self, limit: Self) -> bool {
        self.count <= limit.count && self.arena <= limit.arena && self.bytes <= limit.bytes
    }

    /// No more messages, and bytes of the session's memory, than so many.
    pub fn within(self, (count, arena): (usize, usize)) -> Self {
        Self { count: self.count.min(count), arena: self.arena.min(arena), ..self }
    }

    pub fn minus(self, other: Self) -> Self {
        Self { count: self.count - other.count, arena: self.arena - other.arena, bytes: self.bytes - other.bytes }
    }
}

#[derive(Default)]
pub(crate) struct Deliveries {
    open: ById<Open>,
    /// Messages that any newer one of their kind may push out, in their order; some are over.
    replaceable: VecDeque<(PacketId, u64)>,
    /// Messages that ended otherwise than delivered, and in which order they did.
    odd: FxHashMap<u64, Outcome>,
    odd_order: VecDeque<u64>,
    /// The newest message whose odd end has been dropped from there.
    dropped: u64,
    last: u64,
    /// Who waits, by the number of the message and that of the wait: several may wait for one message.
    wakers: BTreeMap<(u64, Ticket), Waker>,
    last_ticket: Ticket,
}

/// A message that is over: its number, what it took, and the key of its payload, if not zero.
pub(crate) struct Ended {
    pub number: u64,
    pub load: Load,
    pub key: u32,
}

/// Odd ends that are remembered.
const ODD: usize = 65_536;

impl Deliveries {
    /// A message was accepted under this identifier; gives its number.
    pub fn add(&mut self, id: PacketId, load: Load, key: Option<u32>, replaces: Replace) -> u64 {
        self.last += 1;
        if replaces == Replace::Oldest {
            if self.replaceable.len() > 2 * self.open.len() + 16 {
                let open = &self.open;
                self.replaceable.retain(|(id, number)| open.get(*id).is_some_and(|open| open.number == *number));
            }
            self.replaceable.push_back((id, self.last));
        }
        // A packet has less than 2^28 bytes.
        let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let Load { arena, bytes, .. } = load;
        self.open
            .insert(id, Open { number: self.last, arena: short(arena), bytes: short(bytes), key: key.unwrap_or(0) });
        self.last
    }

    /// A number for a message that is over at once.
    pub fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// A message is over. Adds who waited for it to `wakes`.
    pub fn end(&mut self, id: PacketId, outcome: Outcome, wakes: &mut Vec<Waker>) -> Option<Ended> {
        let open = self.open.remove(id)?;
        if outcome != Outcome::Delivered {
            if self.odd_order.len() >= ODD
                && let Some(number) = self.odd_order.pop_front()
            {
                self.odd.remove(&number);
                self.dropped = self.dropped.max(number);
            }
            self.odd.insert(open.number, outcome);
            self.odd_order.push_back(open.number);
        }
        if !self.wakers.is_empty() {
            let waits = (open.number, Ticket::MIN)..=(open.number, Ticket::MAX);
            wakes.extend(self.wakers.extract_if(waits, |_, _| true).map(|(_, waker)| waker));
        }
        let load = Load { count: 1, arena: open.arena as usize, bytes: open.bytes as usize };
        Some(Ended { number: open.number, load, key: open.key })
    }

    /// How the message ended, if it is over.
    pub fn poll(&mut self, id: PacketId, number: u64, wait: Option<(&mut Ticket, &Waker)>) -> Poll<Outcome> {
        if self.open.get(id).is_some_and(|open| open.number == number) {
            if let Some((ticket, waker)) = wait {
                if *ticket == 0 {
                    self.last_ticket += 1;
                    *ticket = self.last_ticket;
                }
                self.wakers.insert((number, *ticket), waker.clone());
            }
            return Poll::Pending;
        }
        let odd = self.odd.get(&number).copied();
        // Among 65,536 odd ends since then, its own may have been one.
        let unknown = (number <= self.dropped).then_some(Outcome::Forgotten);
        Poll::Ready(odd.or(unknown).unwrap_or(Outcome::Delivered))
    }

    /// This wait for the message is given up.
    pub fn leave(&mut self, number: u64, ticket: Ticket) {
        self.wakers.remove(&(number, ticket));
    }

    /// The oldest message that may be pushed out; asked again, the next one.
    pub fn next_replaceable(&mut self) -> Option<PacketId> {
        while let Some((id, number)) = self.replaceable.pop_front() {
            if self.open.get(id).is_some_and(|open| open.number == number) {
                return Some(id);
            }
        }
        None
    }

    pub fn is_open(&self, id: PacketId) -> bool {
        self.open.contains(id)
    }

    pub fn count(&self) -> usize {
        self.open.len()
    }

    /// Whether somebody waits for a message.
    pub fn is_waited_for(&self) -> bool {
        !self.wakers.is_empty()
    }

    pub fn wakers(&mut self) -> impl Iterator<Item = Waker> + '_ {
        std::mem::take(&mut self.wakers).into_values()
    }
}
