//! Who was promised what, and what came: the judge of the demo.
//!
//! Two columns, one filled by those who publish, one by those who receive. The verdict is arithmetic on both; no client
//! is asked whether it thinks that all went well.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin::QoS;

/// What happened so far.
#[derive(Default)]
pub struct Ledger {
    entries: Mutex<Entries>,
    changed: Condvar,
}

#[derive(Default)]
struct Entries {
    /// In the order in which they were published.
    promises: Vec<Promise>,
    /// Arrivals that nobody was promised.
    strangers: Vec<String>,
}

/// One message that one receiver should see.
struct Promise {
    receiver: &'static str,
    topic: String,
    payload: String,
    qos: QoS,
    arrivals: usize,
    /// A later message of the same kind had arrived before this one first did.
    is_late: bool,
}

/// What came of the messages of one quality of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub sent: usize,
    pub received: usize,
    pub duplicates: usize,
    pub lost: usize,
}

impl Ledger {
    /// A message is about to be published that `receiver` should see.
    pub fn promise(&self, receiver: &'static str, topic: &str, payload: &str, qos: QoS) {
        let (topic, payload) = (topic.to_owned(), payload.to_owned());
        self.lock().promises.push(Promise { receiver, topic, payload, qos, arrivals: 0, is_late: false });
    }

    /// A message arrived.
    pub fn arrived(&self, receiver: &'static str, topic: &str, payload: &[u8]) {
        self.lock().arrived(receiver, topic, payload);
        self.changed.notify_all();
    }

    /// Waits until every message has arrived; `false` when `limit` was over first.
    pub fn wait(&self, limit: Duration) -> bool {
        let waiting = self.changed.wait_timeout_while(self.lock(), limit, |entries| {
            entries.promises.iter().any(|promise| promise.arrivals == 0)
        });
        !waiting.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// The figures of one quality of service.
    pub fn row(&self, qos: QoS) -> Row {
        let mut row = Row::default();
        for promise in self.lock().promises.iter().filter(|promise| promise.qos == qos) {
            row.sent += 1;
            row.received += promise.arrivals;
            row.duplicates += promise.arrivals.saturating_sub(1);
            row.lost += usize::from(promise.arrivals == 0);
        }
        row
    }

    /// Every promise that was broken, in words. Empty: all is well.
    pub fn broken(&self) -> Vec<String> {
        let entries = self.lock();
        let mut broken: Vec<_> = entries.promises.iter().filter_map(Promise::broken).collect();
        broken.extend(entries.strangers.iter().cloned());
        broken
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn arrived(&mut self, receiver: &'static str, topic: &str, payload: &[u8]) {
        let is_it = |promise: &Promise| {
            promise.receiver == receiver && promise.topic == topic && promise.payload.as_bytes() == payload
        };
        let Some(at) = self.promises.iter().position(is_it) else {
            let payload = String::from_utf8_lossy(payload);
            self.strangers.push(format!("{receiver} got {topic} \"{payload}\", which nobody sent it"));
            return;
        };
        let qos = self.promises[at].qos;
        let mut later = self.promises[at + 1..].iter();
        let is_overtaken = later.any(|promise| {
            promise.receiver == receiver && promise.topic == topic && promise.qos == qos && promise.arrivals > 0
        });
        let promise = &mut self.promises[at];
        promise.is_late |= promise.arrivals == 0 && is_overtaken;
        promise.arrivals += 1;
    }
}

impl Promise {
    fn broken(&self) -> Option<String> {
        let Self { receiver, topic, payload, qos, arrivals, is_late } = self;
        let what = match (qos, arrivals) {
            (QoS::AtMostOnce, 0 | 1) | (QoS::AtLeastOnce, 1..) | (QoS::ExactlyOnce, 1) if *is_late => {
                "came out of order"
            }
            (QoS::AtMostOnce, 0 | 1) | (QoS::AtLeastOnce, 1..) | (QoS::ExactlyOnce, 1) => return None,
            (_, 0) => "never came",
            (_, _) => "came more than once",
        };
        Some(format!("{receiver}: {topic} \"{payload}\" at QoS {} {what}", qos.bits()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_quality_of_service_has_its_own_promise() {
        for (qos, arrivals, is_kept) in [
            (QoS::AtMostOnce, 0, true),
            (QoS::AtMostOnce, 1, true),
            (QoS::AtMostOnce, 2, false),
            (QoS::AtLeastOnce, 0, false),
            (QoS::AtLeastOnce, 1, true),
            (QoS::AtLeastOnce, 2, true),
            (QoS::ExactlyOnce, 0, false),
            (QoS::ExactlyOnce, 1, true),
            (QoS::ExactlyOnce, 2, false),
        ] {
            let ledger = Ledger::default();
            ledger.promise("a", "t", "x", qos);
            (0..arrivals).for_each(|_| ledger.arrived("a", "t", b"x"));
            assert_eq!(ledger.broken().is_empty(), is_kept, "{qos:?} {arrivals}");
            let lost = usize::from(arrivals == 0);
            let duplicates = usize::from(arrivals == 2);
            assert_eq!(ledger.row(qos), Row { sent: 1, received: arrivals, duplicates, lost });
        }
    }

    #[test]
    fn strangers_and_a_wrong_order_are_noticed() {
        let ledger = Ledger::default();
        ledger.promise("a", "t", "1", QoS::ExactlyOnce);
        ledger.promise("a", "t", "2", QoS::ExactlyOnce);
        ledger.arrived("a", "t", b"2");
        ledger.arrived("a", "t", b"1");
        ledger.arrived("b", "t", b"1");
        assert!(ledger.wait(Duration::ZERO));
        let broken = ledger.broken();
        assert_eq!(broken.len(), 2, "{broken:?}");
        assert!(broken[0].contains("out of order") && broken[1].contains("nobody sent"), "{broken:?}");
    }
}
