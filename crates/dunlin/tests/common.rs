//! What the tests over real sockets share.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use dunlin::blocking::{Builder, Client, Event};
use dunlin::reconnect::Backoff;

/// Long enough for anything that works, on a busy machine.
pub const LONG: Duration = Duration::from_secs(30);

/// A client that reconnects quickly.
pub fn builder(url: &str, client_id: &str) -> Builder {
    Client::builder(url, client_id).reconnect(Backoff::new(Duration::from_millis(5), Duration::from_millis(100)))
}

/// Runs a story that must come to its end: a dead-lock is a failure, not a test that hangs.
pub fn within(time: Duration, story: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let thread = thread::spawn(move || {
        story();
        let _ = done.send(());
    });
    match is_done.recv_timeout(time) {
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("not over after {time:?}: a dead-lock"),
    }
}

/// Waits for an event of this kind, and gives it.
pub fn await_event(client: &Client, is_it: impl Fn(&Event) -> bool) -> Event {
    let end = Instant::now() + LONG;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let event = client.next_event_timeout(left).unwrap().expect("an event that did not come");
        if is_it(&event) {
            return event;
        }
    }
}

/// Waits for something that comes true.
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
