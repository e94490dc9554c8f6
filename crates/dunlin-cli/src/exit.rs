//! How a command ends: exit codes, and the one line that says why.
//!
//! A code never depends on where an error came up, only on what the caller could do about it. The codes are documented
//! in `--help`, see [`HELP`].

use dunlin::blocking::{Error, Reason};
use dunlin::{Fault, Refusal, SubscribeError};

/// Closes the help of each command.
pub const HELP: &str = "\
Exit codes:
   0  done, or ended by SIGINT or SIGTERM with nothing left undelivered
   1  something on this machine: a file, standard input or output
   2  the command line makes no sense
   3  no connection: not reachable, unavailable, or lost (only with --no-reconnect)
   4  bad user name or password
   5  not authorized, to connect or to subscribe
   6  refused for another reason: client identifier or protocol version
   7  the server broke the protocol, or stopped answering (only with --no-reconnect)
   8  ended with messages undelivered, or in doubt
   9  no trust: the server's certificate, or this client's, was refused (only with --no-reconnect)
  27  the time given with -W is over";

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// What the process returns.
    pub code: u8,
    /// One line, without the password.
    pub text: String,
}

impl Failure {
    /// Something on this machine.
    pub fn local(text: impl Into<String>) -> Self {
        Self { code: 1, text: text.into() }
    }

    /// The command line makes no sense.
    pub fn usage(text: impl Into<String>) -> Self {
        Self { code: 2, text: text.into() }
    }

    /// So many messages are undelivered.
    pub fn undelivered(count: usize) -> Self {
        let s = if count == 1 { "" } else { "s" };
        Self { code: 8, text: format!("ended with {count} message{s} undelivered") }
    }

    /// The time given with `-W` is over.
    pub fn timed_out() -> Self {
        Self { code: 27, text: "timed out".to_owned() }
    }

    /// Says which server it was about, where it was about one.
    pub fn at(self, server: &str) -> Self {
        match self.code {
            3..=7 | 9 => Self { text: format!("{server}: {}", self.text), ..self },
            _ => self,
        }
    }

    /// The connection is over and not made again.
    pub fn connection(reason: &Reason) -> Self {
        let code = match reason {
            Reason::Fault(Fault::Refused(Refusal::Credentials)) => 4,
            Reason::Fault(Fault::Refused(Refusal::NotAuthorized)) => 5,
            Reason::Fault(Fault::Refused(Refusal::ServerUnavailable)) => 3,
            Reason::Fault(Fault::Refused(_)) => 6,
            Reason::Fault(Fault::Options(_)) => 2,
            Reason::Fault(_) => 7,
            Reason::Tls(_) => 9,
            Reason::Store(_) => 1,
            _ => 3,
        };
        Self { code, text: reason.to_string() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Ended(reason) => return Self::connection(reason),
            Error::SubscriptionRefused(_) => 5,
            Error::Url(_) | Error::Unsupported(_) | Error::Options(_) | Error::Publish(_) => 2,
            Error::Subscribe(SubscribeError::InvalidFilter | SubscribeError::Empty) => 2,
            Error::Unfinished(_) => 8,
            _ => 1,
        };
        Self { code, text: error.to_string() }
    }
}
