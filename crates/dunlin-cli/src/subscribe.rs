//! `dunlin sub`: prints what arrives.
//!
//! A message is acknowledged when it has been written and flushed, not before: with a kept session, one that was not
//! printed comes again.

use std::io::{self, ErrorKind, Write, stdout};
use std::time::Duration;

use dunlin::blocking::{Client, Error, Message};
use dunlin::{Publish, PublishError, topic};
use jiff::Zoned;

use crate::args::SubArgs;
use crate::connect::{self, Connection};
use crate::exit::Failure;
use crate::format::NotJson;
use crate::supervise::{self, Task, Work};

/// Subscribes and prints, as `args` say.
///
/// # Errors
/// See [`crate::exit::HELP`].
pub fn run(mut args: SubArgs) -> Result<(), Failure> {
    let Connection { builder, server, topic } = connect::connection(&args.connection)?;
    args.topics.extend(topic);
    if args.topics.is_empty() && args.unsubscribe.is_empty() {
        return Err(Failure::usage("no topic: give one with -t, or in the URL of -L"));
    }
    for filter in args.topics.iter().chain(&args.filter_out).chain(&args.unsubscribe) {
        if filter.len() > LONGEST {
            return Err(Failure::usage("a topic filter has at most 65535 bytes"));
        }
        if !topic::is_filter(filter) {
            let text = format!("{filter:?} is no topic filter: + stands for a whole level, # for the last ones");
            return Err(Failure::usage(text));
        }
    }
    let filters = args.topics.iter().chain(&args.unsubscribe);
    let memory = STORED_FILTERS + filters.map(|filter| filter.len() + PER_FILTER).sum::<usize>();
    let mut builder = builder.manual_acks().filter_memory(memory);
    if args.is_asked_by_client() {
        for filter in &args.topics {
            builder = builder.subscribe(filter, args.qos);
        }
    }
    let signals = supervise::signals()?;
    let client = builder.start()?;
    let connection = args.connection.clone();
    let work = Work::Subscribe { filters: args.topics.len() };
    let task = Task { server, connection: &connection, signals, timeout: args.timeout, work };
    supervise::run(&client, task, move |client| match print(client, &args) {
        // Whoever read has had enough, as with `| head`.
        Err(Stop::Write(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(Stop::Write(error)) => Err(Failure::local(format!("standard output: {error}"))),
        Err(Stop::Client(error)) => Err(error.into()),
        Ok(()) => Ok(()),
    })
}

impl SubArgs {
    /// With a store, filters that are subscribed to by request would be kept for runs that do not name them.
    fn is_asked_by_client(&self) -> bool {
        self.connection.store.is_some() && !self.exit_when_subscribed
    }
}

/// Why nothing more is printed.
enum Stop {
    Write(io::Error),
    Client(Error),
}

/// Some servers take no more filters at a time.
const AT_ONCE: usize = 8;

/// Memory that a filter takes besides its text, in the client and as it is asked for.
const PER_FILTER: usize = 16;

/// Memory for filters that a store may have of other runs.
const STORED_FILTERS: usize = 64 << 10;

/// Bytes of a text in MQTT.
const LONGEST: usize = 65535;

/// How long one wait lasts. It is repeated: `-W` and signals end the command.
const WHILE: Duration = Duration::from_secs(3600);

fn print(client: &Client, args: &SubArgs) -> Result<(), Stop> {
    let topics = if args.is_asked_by_client() { &[][..] } else { &args.topics };
    let filters: Vec<_> = topics.iter().map(|filter| (filter.as_str(), args.qos)).collect();
    let requests: Result<Vec<_>, _> = filters.chunks(AT_ONCE).map(|some| client.request_subscribe(some)).collect();
    let mut requests = requests?;
    let unwanted: Vec<_> = args.unsubscribe.iter().map(String::as_str).collect();
    for some in unwanted.chunks(AT_ONCE) {
        requests.push(client.request_unsubscribe(some)?);
    }
    if args.exit_when_subscribed {
        for request in &requests {
            while let Err(error) = request.wait(WHILE) {
                if !matches!(error, Error::Timeout) {
                    return Err(error.into());
                }
            }
        }
        return Ok(());
    }
    let mut left = args.count;
    while left != Some(0) {
        let message = client.next()?;
        if args.retained_only && !message.is_retain() {
            return Ok(());
        }
        let is_wanted = !(args.no_retained && message.is_retain()
            || args.filter_out.iter().any(|filter| topic::matches(filter, message.topic())));
        if is_wanted {
            // Known to the store are only messages whose acknowledgement it has.
            if message.is_dup() && args.connection.store.is_some() && !args.connection.quiet {
                let topic = message.topic();
                anstream::eprintln!("dunlin: the next message, on {topic}, may have been printed before");
            }
            write(&message, args).map_err(Stop::Write)?;
            left = left.map(|left| left - 1);
            if args.remove_retained && message.is_retain() {
                forget(client, &message)?;
            }
        }
        // Refused when the connection it came with is gone: then it comes again, at QoS 1.
        let _ = client.acknowledge(&message);
    }
    Ok(())
}

/// The server is to forget it. Acknowledged, so that it is done when this command ends.
fn forget(client: &Client, message: &Message) -> Result<(), Error> {
    let empty = Publish::new(message.topic(), b"").at_least_once().retain();
    loop {
        match client.publish(&empty) {
            Err(Error::Publish(PublishError::Full)) => {}
            result => return result.map(drop),
        }
    }
}

/// As `mosquitto_sub` does: an empty payload is `(null)` with `-v`, and nothing at all without.
fn write(message: &Message, args: &SubArgs) -> io::Result<()> {
    let is_empty = message.payload().is_empty();
    let text = match (&args.format, args.verbose) {
        (Some(format), _) => format.render(message, &Zoned::now()),
        (None, true) if is_empty => Ok(format!("{} (null)", message.topic()).into_bytes()),
        (None, true) => Ok([message.topic().as_bytes(), b" ", message.payload()].concat()),
        (None, false) if is_empty => return Ok(()),
        (None, false) => Ok(message.payload().to_vec()),
    };
    let mut text = match text {
        Ok(text) => text,
        Err(NotJson) => {
            if !args.connection.quiet {
                anstream::eprintln!("dunlin: the payload of a message on {} is not JSON", message.topic());
            }
            return Ok(());
        }
    };
    if !args.no_line_end {
        text.push(b'\n');
    }
    let mut out = stdout().lock();
    out.write_all(&text)?;
    out.flush()
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}
