//! One connection, from the connected socket to the goodbye.
//!
//! Whoever owns it calls [`go_on`](Connection::go_on), sleeps until the socket can go on, the time that it was told, or
//! the waker that it gave, and calls again. That is all the blocking and the asynchronous client do.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use dunlin_core::{Fault, Instant};

use super::target::Plan;
use super::{Stream, open};
use crate::host::Reason;
use crate::host::pump::{Pump, Turn};
use crate::limit::millis;

/// See the module.
pub(crate) struct Connection {
    phase: Phase,
}

enum Phase {
    /// Handshakes of the layers over the socket. The session knows of no connection yet.
    Opening {
        opening: Opening,
        until: Instant,
    },
    Up(Box<dyn Stream>),
    /// The last bytes must arrive: if there were unread bytes, the system would reset the connection, and the server
    /// might never see the DISCONNECT, or the last acknowledgements. So it is read until the server closes it, for a moment.
    Goodbye {
        stream: Box<dyn Stream>,
        until: Instant,
        reason: Reason,
    },
    Over,
}

type Opening = Pin<Box<dyn Future<Output = Result<Box<dyn Stream>, Reason>> + Send>>;

/// What to do when nothing more can be done now.
#[derive(Debug)]
pub(crate) enum Step {
    /// Sleep, until then at the latest.
    Sleep(Option<Instant>),
    /// The connection has ended: drop it, and tell [`Pump::lost`].
    Over(Reason),
}

/// How long the server has to close the stream after a goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

impl Connection {
    /// A connection over this socket, whose handshakes have until then.
    pub fn new(socket: impl Stream, plan: Plan, until: Instant) -> Self {
        Self { phase: Phase::Opening { opening: Box::pin(open(Box::new(socket), plan)), until } }
    }

    /// Does what can be done now. Before it says to sleep it has left `waker` with the host.
    pub fn go_on(&mut self, pump: &mut Pump, waker: &Waker) -> Step {
        loop {
            match &mut self.phase {
                Phase::Opening { opening, until } => {
                    let until = pump.closing_at().map_or(*until, |closing| closing.min(*until));
                    match opening.as_mut().poll(&mut Context::from_waker(waker)) {
                        Poll::Ready(Ok(stream)) => {
                            self.phase = Phase::Up(stream);
                            pump.open();
                        }
                        Poll::Ready(Err(reason)) => return self.end(reason),
                        Poll::Pending if !pump.pause(waker) => return self.end(Reason::Closed),
                        Poll::Pending if pump.host().now() >= until => return self.end(timed_out()),
                        Poll::Pending => return Step::Sleep(Some(until)),
                    }
                }
                Phase::Up(stream) => match serve(stream.as_mut(), pump, waker) {
                    Ok(Step::Over(reason @ (Reason::Closed | Reason::Fault(Fault::TooMany)))) => {
                        let _ = stream.finish();
                        let Phase::Up(stream) = std::mem::replace(&mut self.phase, Phase::Over) else { continue };
                        let until = pump.host().now().after_millis(millis(GOODBYE));
                        self.phase = Phase::Goodbye { stream, until, reason };
                    }
                    Ok(Step::Over(reason)) => return self.end(reason),
                    Ok(sleep) => return sleep,
                    Err(error) => return self.end(error.into()),
                },
                Phase::Goodbye { stream, until, reason } => {
                    let (until, reason) = (*until, reason.clone());
                    // A server that never stops sending is not waited for either.
                    while pump.host().now() < until {
                        match drain(stream.as_mut()) {
                            Drained::Some => {}
                            Drained::Nothing => return Step::Sleep(Some(until)),
                            Drained::All => break,
                        }
                    }
                    return self.end(reason);
                }
                Phase::Over => return Step::Over(Reason::ServerClosed),
            }
        }
    }

    fn end(&mut self, reason: Reason) -> Step {
        self.phase = Phase::Over;
        Step::Over(reason)
    }
}

/// Takes turns until nothing moves any more.
fn serve(stream: &mut dyn Stream, pump: &mut Pump, waker: &Waker) -> io::Result<Step> {
    loop {
        let turn = pump.turn();
        let (mut is_busy, is_written) = write(stream, pump)?;
        let deadline = match turn {
            Turn::Go { deadline } => deadline,
            Turn::Close { reason, until } => {
                if is_written && is_busy {
                    continue;
                }
                if is_written || pump.host().now() >= until {
                    return Ok(Step::Over(reason));
                }
                Some(until)
            }
        };
        if let space @ [_, ..] = pump.space() {
            match stream.read(space) {
                Ok(0) => return Ok(Step::Over(Reason::ServerClosed)),
                Ok(n) => {
                    pump.filled(n);
                    is_busy = true;
                }
                Err(error) if is_transient(&error) => is_busy |= error.kind() == ErrorKind::Interrupted,
                Err(error) => return Err(error),
            }
        }
        if !is_busy && pump.park(waker) {
            return Ok(Step::Sleep(deadline));
        }
    }
}

/// Writes what the stream takes: whether that was anything, and whether it was all, down to the socket.
fn write(stream: &mut dyn Stream, pump: &mut Pump) -> io::Result<(bool, bool)> {
    let mut is_busy = false;
    while pump.has_output() {
        match pump.write_to(stream) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(_) => is_busy = true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((is_busy, false)),
            Err(error) => return Err(error),
        }
    }
    match stream.flush() {
        Ok(()) => Ok((is_busy, true)),
        Err(error) if is_transient(&error) => Ok((is_busy, false)),
        Err(error) => Err(error),
    }
}

/// What was there to be read and forgotten.
enum Drained {
    Some,
    Nothing,
    /// And nothing will come any more.
    All,
}

#[inline(never)] // so that its buffer is on the stack only while it is needed
fn drain(stream: &mut dyn Stream) -> Drained {
    let _ = stream.flush();
    match stream.read(&mut [0; 4096]) {
        Ok(0) => Drained::All,
        Ok(_) => Drained::Some,
        Err(error) if error.kind() == ErrorKind::Interrupted => Drained::Some,
        Err(error) if error.kind() == ErrorKind::WouldBlock => Drained::Nothing,
        Err(_) => Drained::All,
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn timed_out() -> Reason {
    io::Error::new(ErrorKind::TimedOut, "the server did not answer in time").into()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::Arc;

    use super::*;
    use crate::host::{Builder, Host};

    /// There is always more to read.
    struct Flood;

    impl Read for Flood {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            Ok(buf.len())
        }
    }

    impl Write for Flood {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stream for Flood {
        fn finish(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_server_that_never_stops_sending_is_left_all_the_same() {
        let (_, settings) = Builder::new("mqtt://localhost", "client").finish().unwrap();
        let host = Arc::new(Host::new(settings, std::time::Instant::now).unwrap());
        let until = host.now().after_millis(50);
        let mut pump = Pump::new(host, false);
        let phase = Phase::Goodbye { stream: Box::new(Flood), until, reason: Reason::Closed };
        let mut connection = Connection { phase };
        assert!(matches!(connection.go_on(&mut pump, Waker::noop()), Step::Over(Reason::Closed)));
    }
}
