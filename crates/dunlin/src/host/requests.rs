//! Subscriptions and unsubscriptions: which are unanswered, who waits for the answer, and which filters an answer is
//! about.

use std::task::{Poll, Waker};

use dunlin_core::{PacketId, QoS};
use rustc_hash::FxHashMap;

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
    waker: Option<Waker>,
}

impl Requests {
    /// A SUBSCRIBE for these filters, or an UNSUBSCRIBE for none, was accepted. Gives its number.
    pub fn add(&mut self, id: PacketId, filters: Vec<String>) -> u64 {
        self.last += 1;
        if !filters.is_empty() {
            self.filters.insert(id, filters);
        }
        self.unanswered.insert(id, self.last);
        self.awaited.insert(self.last, Awaited { id, answer: None, waker: None });
        self.last
    }

    /// SUBACK or UNSUBACK. Gives the filters that were refused, and who waits.
    pub fn answer(&mut self, id: PacketId, granted: Granted) -> (Vec<String>, Option<Waker>) {
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
        let awaited = self.unanswered.remove(&id).and_then(|number| self.awaited.get_mut(&number));
        let waker = awaited.and_then(|awaited| {
            awaited.answer = Some(granted);
            awaited.waker.take()
        });
        self.waiting -= usize::from(waker.is_some());
        (refused, waker)
    }

    /// A filter is not subscribed to any more.
    pub fn forget(&mut self, unsubscribed: &[&str]) {
        self.filters.retain(|_, filters| {
            filters.retain(|filter| !unsubscribed.contains(&filter.as_str()));
            !filters.is_empty()
        });
    }

    /// The answer, once; `Pending` until it is there.
    pub fn poll(&mut self, number: u64, waker: Option<&Waker>) -> Poll<Granted> {
        let Some(awaited) = self.awaited.get_mut(&number) else { return Poll::Ready(Granted::new()) };
        if let Some(granted) = awaited.answer.take() {
            self.awaited.remove(&number);
            return Poll::Ready(granted);
        }
        if let Some(waker) = waker {
            self.waiting += usize::from(awaited.waker.is_none());
            awaited.waker = Some(waker.clone());
        }
        Poll::Pending
    }

    /// Nobody waits at the moment.
    pub fn leave(&mut self, number: u64) {
        let waker = self.awaited.get_mut(&number).and_then(|awaited| awaited.waker.take());
        self.waiting -= usize::from(waker.is_some());
    }

    /// The token is gone; the request goes on.
    pub fn drop_token(&mut self, number: u64) {
        self.leave(number);
        if let Some(awaited) = self.awaited.remove(&number)
            && self.unanswered.get(&awaited.id) == Some(&number)
        {
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
        self.awaited.values_mut().filter_map(|awaited| awaited.waker.take())
    }
}
