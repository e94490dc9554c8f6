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
    /// What each SUBSCRIBE stands for in the session. The server may answer it again, after it lost the session.
    filters: FxHashMap<PacketId, Subscription>,
    unanswered: FxHashMap<PacketId, u64>,
    /// What somebody holds a token for.
    awaited: FxHashMap<u64, Awaited>,
    last: u64,
    waiting: usize,
}

/// The filters of a SUBSCRIBE, in its order, as the session has them: those that were refused are gone, and so are those
/// of which there is a later request, but not before the answer, which counts them.
#[derive(Default)]
struct Subscription {
    is_answered: bool,
    filters: Vec<Filter>,
}

struct Filter {
    text: String,
    /// There is a later request for it.
    is_doomed: bool,
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
        let mut subscription = Subscription::default();
        for text in filters {
            self.forget(&[&text]);
            subscription.doom(&text);
            subscription.filters.push(Filter { text, is_doomed: false });
        }
        if !subscription.filters.is_empty() {
            self.filters.insert(id, subscription);
        }
        self.unanswered.insert(id, self.last);
        self.awaited.insert(self.last, Awaited { id, answer: None, waiters: Waiters::default() });
        self.last
    }

    /// SUBACK or UNSUBACK. Gives the filters that were refused, and adds who waited to `wakes`.
    pub fn answer(&mut self, id: PacketId, granted: Granted, wakes: &mut Vec<Waker>) -> Vec<String> {
        let mut refused = Vec::new();
        let answered = self.filters.get_mut(&id).filter(|subscription| subscription.filters.len() == granted.len());
        if let Some(subscription) = answered {
            let mut codes = granted.iter();
            subscription.is_answered = true;
            subscription.filters.retain(|filter| {
                let is_refused = codes.next() == Some(&None);
                if is_refused {
                    refused.push(filter.text.clone());
                }
                !is_refused && !filter.is_doomed
            });
            if subscription.filters.is_empty() {
                self.filters.remove(&id);
            }
        }
        if let Some(awaited) = self.unanswered.remove(&id).and_then(|number| self.awaited.get_mut(&number)) {
            awaited.answer = Some(granted);
            self.waiting -= awaited.waiters.len();
            wakes.extend(awaited.waiters.take(usize::MAX));
        }
        refused
    }

    /// These filters are not subscribed to any more by any request so far.
    pub fn forget(&mut self, filters: &[&str]) {
        self.filters.retain(|_, subscription| {
            filters.iter().for_each(|filter| subscription.doom(filter));
            !subscription.filters.is_empty()
        });
    }

    /// The server has lost the session: everything is asked again.
    pub fn rewind(&mut self) {
        self.filters.values_mut().for_each(|subscription| subscription.is_answered = false);
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
        let matches = |filter: &Filter| !filter.is_doomed && dunlin_core::topic::matches(&filter.text, topic);
        self.filters.values().any(|subscription| subscription.filters.iter().any(matches))
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

impl Subscription {
    /// There is a later request for this filter.
    fn doom(&mut self, text: &str) {
        if self.is_answered {
            self.filters.retain(|filter| filter.text != text);
        }
        self.filters.iter_mut().filter(|filter| filter.text == text).for_each(|filter| filter.is_doomed = true);
    }
}
