//! Waiting with a time limit, for a thread.

use std::sync::Arc;
use std::task::{Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

/// Asks `poll` until it is ready, sleeping in between. `None`: not by `until`.
pub(crate) fn wait<T>(until: Option<Instant>, mut poll: impl FnMut(&Waker) -> Poll<T>) -> Option<T> {
    // A thread that is ending may have lost its own.
    let waker = WAKER.try_with(Waker::clone).unwrap_or_else(|_| waker());
    loop {
        if let Poll::Ready(value) = poll(&waker) {
            return Some(value);
        }
        match until {
            None => thread::park(),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return None;
                }
                thread::park_timeout(left);
            }
        }
    }
}

thread_local! {
    static WAKER: Waker = waker();
}

fn waker() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

/// Wakes the thread. A wake-up too many does no harm: whoever waits asks again.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}
