//! `dunlin pub`: takes messages from where the command line says, and hands them to the client.
//!
//! At QoS 1 and 2 it ends when the server has taken all of them. At QoS 0, when they have left: a link that breaks
//! before may take the last ones with it, which is what QoS 0 means.

use std::collections::VecDeque;
use std::io::{BufRead, Read, stdin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use dunlin::blocking::{Client, Delivery, Error, Outcome};
use dunlin::{Publish, PublishError, QoS};

use crate::args::{PubArgs, Source};
use crate::connect::{self, Connection};
use crate::exit::Failure;
use crate::supervise::{self, Task, Work};

/// Publishes what `args` say.
///
/// # Errors
/// See [`crate::exit::HELP`].
pub fn run(args: PubArgs) -> Result<(), Failure> {
    let Connection { builder, server, topic } = connect::connection(&args.connection)?;
    let is_new = args.source.is_given();
    if !is_new && args.connection.store.is_none() {
        return Err(Failure::usage("nothing to publish: give one of --message, -f, -s, -l and -n; see --help"));
    }
    let topic = args.topic.clone().or(topic);
    let topic = match topic {
        Some(topic) => topic,
        None if !is_new => String::new(),
        None => return Err(Failure::usage("no topic: give one with -t, or in the URL of -L")),
    };
    if topic.len() > usize::from(u16::MAX) {
        return Err(Failure::usage("a topic has at most 65535 bytes"));
    }
    if is_new && !dunlin::topic::is_name(&topic) {
        return Err(Failure::usage(format!("{topic:?} is no topic to publish to: it is empty, or has + or # in it")));
    }
    // A file that cannot be read is no reason to connect.
    let ready = ready(&args.source)?;
    let signals = supervise::signals()?;
    let client = builder.window(args.max_inflight).start()?;
    let taken = Arc::new(AtomicU64::new(0));
    let work = Work::Publish { taken: taken.clone() };
    let task = Task { server, connection: &args.connection, signals, timeout: args.timeout, work };
    let (qos, is_retain, repeat, delay, source) = (args.qos, args.retain, args.repeat, args.repeat_delay, args.source);
    supervise::run(&client, task, move |client| {
        let mut outgoing = Outgoing { client, topic, qos, is_retain, taken, pending: VecDeque::new(), in_doubt: 0 };
        if !is_new {
            // What the store holds is on its way already.
        } else if source.stdin_line {
            outgoing.lines(&mut stdin().lock())?;
        } else {
            let payload = ready.map_or_else(standard_input, Ok)?;
            for n in 0..repeat {
                if n > 0 {
                    thread::sleep(delay);
                }
                outgoing.publish(&payload)?;
            }
        }
        outgoing.finish()
    })
}

/// The payload, unless it comes from standard input.
fn ready(source: &Source) -> Result<Option<Vec<u8>>, Failure> {
    Ok(match (&source.message, &source.file) {
        (Some(text), _) => Some(text.clone().into_bytes()),
        (None, Some(path)) => {
            Some(std::fs::read(path).map_err(|error| Failure::local(format!("{}: {error}", path.display())))?)
        }
        (None, None) if source.null_message => Some(Vec::new()),
        (None, None) => None,
    })
}

fn standard_input() -> Result<Vec<u8>, Failure> {
    let mut payload = Vec::new();
    stdin().lock().read_to_end(&mut payload).map_err(stdin_failed)?;
    Ok(payload)
}

fn stdin_failed(error: std::io::Error) -> Failure {
    Failure::local(format!("standard input: {error}"))
}

/// Messages on their way.
struct Outgoing<'a> {
    client: &'a Client,
    topic: String,
    qos: QoS,
    is_retain: bool,
    /// Messages so far, with the one that the client has not accepted yet.
    taken: Arc<AtomicU64>,
    pending: VecDeque<Delivery>,
    in_doubt: usize,
}

/// How long one wait lasts. All of them are repeated: it is `-W` and signals that end the command.
const WHILE: Duration = Duration::from_secs(3600);

impl Outgoing<'_> {
    fn lines(&mut self, input: &mut impl BufRead) -> Result<(), Failure> {
        let mut line = Vec::new();
        while input.read_until(b'\n', &mut line).map_err(stdin_failed)? > 0 {
            self.publish(line.strip_suffix(b"\n").unwrap_or(&line))?;
            line.clear();
        }
        Ok(())
    }

    /// Hands one message to the client, however long it takes.
    fn publish(&mut self, payload: &[u8]) -> Result<(), Failure> {
        self.taken.fetch_add(1, Ordering::SeqCst);
        let message = Publish::new(&self.topic, payload).with_qos(self.qos);
        let message = if self.is_retain { message.retain() } else { message };
        let delivery = loop {
            // With a store, `publish` waits for the disk; lines that come quickly share one wait.
            let result = match self.client.try_publish(&message) {
                Err(Error::Publish(PublishError::Full)) => self.client.publish(&message),
                result => result,
            };
            match result {
                Ok(delivery) => break delivery,
                Err(Error::Publish(PublishError::Full)) => {}
                Err(Error::Publish(PublishError::Offline)) => match self.client.wait_connected(WHILE) {
                    Ok(()) | Err(Error::Timeout) => {}
                    Err(error) => return Err(error.into()),
                },
                Err(error) => return Err(error.into()),
            }
        };
        self.pending.push_back(delivery);
        while let Some(outcome) = self.pending.front().and_then(Delivery::outcome) {
            self.note(outcome);
        }
        Ok(())
    }

    /// Waits until all messages are over, and says goodbye.
    fn finish(mut self) -> Result<(), Failure> {
        while let Some(first) = self.pending.front() {
            match first.wait(WHILE) {
                Ok(outcome) => self.note(outcome),
                Err(Error::Timeout) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match self.client.close(WHILE) {
            Err(error) => Err(error.into()),
            Ok(()) if self.in_doubt == 0 => Ok(()),
            Ok(()) => {
                let text = format!(
                    "the server lost the session: whether {} of the messages at QoS 2 arrived is unknown; with -i and -c it keeps the session",
                    self.in_doubt
                );
                Err(Failure { code: 8, text })
            }
        }
    }

    fn note(&mut self, outcome: Outcome) {
        self.pending.pop_front();
        self.in_doubt += usize::from(outcome == Outcome::Forgotten);
    }
}
