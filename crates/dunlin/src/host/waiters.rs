//! Who waits for something, in the order in which they came.

use std::collections::VecDeque;
use std::task::Waker;

/// A queue of wakers. A ticket names a place in it.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    queue: VecDeque<(u64, Waker)>,
    last: u64,
}

/// A place in a queue; 0 is none. Tickets rise, so the queue is sorted by them.
pub(crate) type Ticket = u64;

impl Waiters {
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether it is the turn of whoever holds `ticket`: nobody came earlier.
    pub fn is_first(&self, ticket: Ticket) -> bool {
        self.queue.front().is_none_or(|(first, _)| *first == ticket)
    }

    /// Takes a place at the end, or keeps the place of `ticket`.
    pub fn wait(&mut self, ticket: &mut Ticket, waker: &Waker) {
        match self.position(*ticket) {
            Some(at) => self.queue[at].1.clone_from(waker),
            None => {
                self.last += 1;
                *ticket = self.last;
                self.queue.push_back((*ticket, waker.clone()));
            }
        }
    }

    /// Gives the place up. `false` if it was gone already: then it had been woken.
    pub fn leave(&mut self, ticket: &mut Ticket) -> bool {
        if *ticket == 0 {
            return false;
        }
        let at = self.position(std::mem::take(ticket));
        at.and_then(|at| self.queue.remove(at)).is_some()
    }

    /// The first in the queue, who stays there: to be woken, outside of all locks.
    pub fn first(&self) -> Option<Waker> {
        self.queue.front().map(|(_, waker)| waker.clone())
    }

    /// Up to `count` from the front, who leave the queue.
    pub fn take(&mut self, count: usize) -> impl Iterator<Item = Waker> + '_ {
        let count = count.min(self.queue.len());
        self.queue.drain(..count).map(|(_, waker)| waker)
    }

    fn position(&self, ticket: Ticket) -> Option<usize> {
        self.queue.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()
    }
}
