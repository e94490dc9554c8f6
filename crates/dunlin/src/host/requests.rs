//! Subscriptions and unsubscriptions: which are unanswered, who waits for the answer, and which filters an answer is
//! about.

use std::task::{Poll, Waker};

use dunlin_core::{PacketId, QoS};
use rustc_hash::FxHashMap;

use super::waiters::{Ticket, Waiters};

/// The answer: for each filter what was granted; nothing for an unsubscription.
pub(crate) type Granted = Vec<Option<QoS>>;

#[derive(Default)]
pub(crate) struct Requests {
    /// Filters of each SUBSCRIBE, as far as the server granted them. It may answer again, after it lost the session.
    filters: FxHashMap<PacketId, Vec<String>>,
    unanswered: FxHashMap<PacketId, u64>,
    /// What somebody holds a token for.
    awaited: FxHashMap<u64, Awaited>,
    last: u64,
    waiting: usize,
}

struct Awaited {
    id: PacketId,
    answer: Option<Granted>,
    waiters: Waiters,
}

impl Requests {
    /// A SUBSCRIBE for these filters, or an UNSUBSCRIBE for none, was accepted. Gives its number.
    pub fn add(&mut self, id: PacketId, filters: Vec<String>) -> u64 {
        self.last += 1;
        if !filters.is_empty() {
            self.filters.insert(id, filters);
        }
        self.unanswered.insert(id, self.last);
        self.awaited.insert(self.last, Awaited { id, answer: None, waiters: Waiters::default() });
        self.last
    }

    /// SUBACK or UNSUBACK. Gives the filters that were refused, and adds who waited to `wakes`.
    pub fn answer(&mut self, id: PacketId, granted: Granted, wakes: &mut Vec<Waker>) -> Vec<String> {
        let mut refused = Vec::new();
        let named = self.filters.get(&id).filter(|filters| filters.len() == granted.len()).cloned();
        if let (Some(named), Some(filters)) = (named, self.filters.get_mut(&id)) {
            let mut codes = granted.iter();
            filters.retain(|filter| {
                let is_refused = codes.next() == Some(&None);
                if is_refused {
                    refused.push(filter.clone());
                }
                !is_refused
            });
            // A filter that is subscribed to again leaves the request that named it first.
            for (_, filters) in self.filters.iter_mut().filter(|(other, _)| **other != id) {
                filters.retain(|filter| !named.contains(filter));
            }
            self.filters.retain(|_, filters| !filters.is_empty());
        }
        if let Some(awaited) = self.unanswered.remove(&id).and_then(|number| self.awaited.get_mut(&number)) {
            awaited.answer = Some(granted);
            self.waiting -= awaited.waiters.len();
            wakes.extend(awaited.waiters.take(usize::MAX));
        }
        refused
    }

    /// A filter is not subscribed to any more.
    pub fn forget(&mut self, unsubscribed: &[&str]) {
        self.filters.retain(|_, filters| {
            filters.retain(|filter| !unsubscribed.contains(&filter.as_str()));
            !filters.is_empty()
        });
    }

    /// The answer; `Pending` until it is there.
    pub fn poll(&mut self, number: u64, wait: Option<(&mut Ticket, &Waker)>) -> Poll<Granted> {
        let Some(awaited) = self.awaited.get_mut(&number) else { return Poll::Ready(Granted::new()) };
        if let Some(granted) = &awaited.answer {
            return Poll::Ready(granted.clone());
        }
        if let Some((ticket, waker)) = wait {
            let before = awaited.waiters.len();
            awaited.waiters.wait(ticket, waker);
            self.waiting += awaited.waiters.len() - before;
        }
        Poll::Pending
    }

    /// This wait is given up.
    pub fn leave(&mut self, number: u64, ticket: &mut Ticket) {
        if let Some(awaited) = self.awaited.get_mut(&number) {
            self.waiting -= usize::from(awaited.waiters.leave(ticket));
        }
    }

    /// The token is gone, and with it all who waited; the request goes on.
    pub fn drop_token(&mut self, number: u64) {
        let Some(awaited) = self.awaited.remove(&number) else { return };
        self.waiting -= awaited.waiters.len();
        if self.unanswered.get(&awaited.id) == Some(&number) {
            self.unanswered.remove(&awaited.id);
        }
    }

    /// Whether a filter that is subscribed to, or being subscribed to, matches this topic name.
    pub fn covers(&self, topic: &str) -> bool {
        let matches = |filter: &String| dunlin_core::topic::matches(filter, topic);
        self.filters.values().flatten().any(matches)
    }

    /// Whether somebody waits for an answer.
    pub fn is_waited_for(&self) -> bool {
        self.waiting > 0
    }

    pub fn wakers(&mut self) -> impl Iterator<Item = Waker> + '_ {
        self.waiting = 0;
        self.awaited.values_mut().flat_map(|awaited| awaited.waiters.take(usize::MAX))
    }
}
