//! Watches a client while a command does its work: signals, lost connections, the time of `-W`.
//!
//! The work runs in a thread of its own, since it may sit in a read of standard input that nothing can interrupt.
//! Whatever comes first, the work's end or one of the above, decides how the command ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use dunlin::blocking::{Client, Error, Event, Reason};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args::ConnectionArgs;
use crate::exit::Failure;

/// After the end, the time for what is under way; then DISCONNECT. All of it is over within two seconds.
const GRACE: Duration = Duration::from_millis(900);
const _: () = assert!(GRACE.as_millis() < 1_000, "half of the two seconds is for a slow machine");

/// What the supervisor has to know of a command besides its client.
pub struct Task<'a> {
    /// Where to, for messages.
    pub server: String,
    /// Who connects.
    pub connection: &'a ConnectionArgs,
    /// What may end it from outside.
    pub signals: Signals,
    /// The time of `-W`.
    pub timeout: Option<Duration>,
    /// What it does.
    pub work: Work,
}

/// What a command does, as far as its end depends on it.
#[derive(Clone)]
pub enum Work {
    /// It publishes.
    Publish {
        /// Messages that it has taken up so far; the last of them may wait for the client to accept it.
        taken: Arc<AtomicU64>,
    },
    /// It subscribes to so many filters: when the server refuses all of them, there is nothing left to do.
    Subscribe {
        /// Their number.
        filters: usize,
    },
}

enum End {
    Done(Result<(), Failure>),
    Failed(Failure),
    Signal,
}

/// From now on signals are noted, and end a command in order: to be asked for before there is a connection.
///
/// # Errors
/// The system's.
pub fn signals() -> Result<Signals, Failure> {
    Signals::new([SIGINT, SIGTERM]).map_err(|error| Failure::local(error.to_string()))
}

/// Does `work`, and closes the client, whatever ends it.
///
/// # Errors
/// Those of the work; a connection that is not made again; the time of `-W`; messages that a signal left undelivered.
pub fn run(
    client: &Client,
    task: Task<'_>,
    work: impl FnOnce(&Client) -> Result<(), Failure> + Send + 'static,
) -> Result<(), Failure> {
    let (ends, end) = channel();
    let mut signals = task.signals;
    let signalled = ends.clone();
    thread::spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            let _ = signalled.send(End::Signal);
        }
        if let Some(signal) = signals.next() {
            std::process::exit(128 + signal); // the second one: at once
        }
    });
    let watch = Watch {
        client: client.clone(),
        server: task.server.clone(),
        ends: ends.clone(),
        filters: if let Work::Subscribe { filters } = task.work { filters } else { 0 },
        no_reconnect: task.connection.no_reconnect,
        is_quiet: task.connection.quiet,
        is_debugging: task.connection.debug,
    };
    thread::spawn(move || watch.run());
    let worker = client.clone();
    thread::spawn(move || ends.send(End::Done(work(&worker))));

    let end = match task.timeout {
        Some(timeout) => end.recv_timeout(timeout),
        None => end.recv().map_err(RecvTimeoutError::from),
    };
    let is_publishing = matches!(task.work, Work::Publish { .. });
    // Without a connection, there is only something to wait for when messages may still leave.
    let may_wait = client.is_connected() || (is_publishing && matches!(end, Ok(End::Signal)));
    let closed = client.close(if may_wait { GRACE } else { Duration::ZERO });
    let result = match end {
        Ok(End::Done(result)) => result,
        Ok(End::Failed(failure)) => Err(failure),
        Ok(End::Signal) => match undelivered(client, &task.work, closed) {
            0 => Ok(()),
            count => Err(Failure::undelivered(count)),
        },
        Err(_) => Err(Failure::timed_out()),
    };
    result.map_err(|failure| failure.at(&task.server))
}

/// Messages that were to be published, and of which nobody knows that they were.
fn undelivered(client: &Client, work: &Work, closed: Result<(), Error>) -> usize {
    let stats = client.stats();
    let Work::Publish { taken } = work else {
        return stats.in_flight; // what it leaves unfinished besides are its subscriptions
    };
    let left = if let Err(Error::Unfinished(count)) = closed { count.max(stats.in_flight) } else { stats.in_flight };
    let held = taken.load(Ordering::SeqCst).saturating_sub(stats.published);
    left.saturating_add(usize::try_from(held).unwrap_or(usize::MAX))
}

/// Says on standard error what happens to the connection.
struct Watch {
    client: Client,
    server: String,
    ends: Sender<End>,
    filters: usize,
    no_reconnect: bool,
    is_quiet: bool,
    is_debugging: bool,
}

impl Watch {
    fn run(self) {
        let mut is_trouble = false;
        let mut refused = 0;
        while let Ok(event) = self.client.next_event() {
            match event {
                Event::Connected { resumed } => {
                    if is_trouble || self.is_debugging {
                        self.say(if resumed { "connected, session resumed" } else { "connected" });
                    }
                    is_trouble = false;
                }
                Event::Disconnected { reason: Reason::Closed, .. } => {}
                Event::Disconnected { reason, retry_in: Some(wait) } if !self.no_reconnect => {
                    is_trouble = true;
                    let (server, wait) = (&self.server, wait.as_secs_f32());
                    self.say(&format!("no connection to {server}: {reason}; next attempt in {wait:.1} s"));
                }
                Event::Disconnected { reason, .. } => {
                    let _ = self.ends.send(End::Failed(Failure::connection(&reason)));
                }
                Event::SubscriptionRefused { filter } => {
                    refused += 1;
                    let failure = Failure::from(Error::SubscriptionRefused(filter));
                    if refused < self.filters {
                        self.say(&failure.text);
                    } else {
                        let _ = self.ends.send(End::Failed(failure));
                    }
                }
                Event::Skipped { len, .. } => self.say(&format!("skipped a message of {len} bytes")),
                _ => {}
            }
        }
    }

    fn say(&self, text: &str) {
        if !self.is_quiet {
            anstream::eprintln!("dunlin: {text}");
        }
    }
}
