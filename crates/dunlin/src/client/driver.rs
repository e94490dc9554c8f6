//! What serves the socket of a client: a future that sleeps until there is something to do.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use dunlin_core::Instant;
use tokio::time::Sleep;

use super::socket::Woken;
use crate::host::pump::{Next, Pump};
use crate::host::{EndAnyway, Error, Host, Reason};
use crate::limit::millis;
use crate::transport::connection::{Connection, Step};
use crate::transport::target::Target;

/// Connects, and connects again; sends and receives. Nothing happens while its [`run`](Self::run) is not polled.
///
/// ```no_run
/// # async fn service() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let (client, messages, driver) = dunlin::client::Client::builder("mqtt://localhost", "gateway-1").build()?;
/// let driver = tokio::spawn(driver.run());
/// # drop((client, messages));
/// driver.await??; // why it ended
/// # Ok(())
/// # }
/// ```
#[must_use = "without its driver a client does nothing: spawn `driver.run()`"]
pub struct Driver {
    pump: Pump,
    target: Arc<Target>,
    relay: Arc<Relay>,
    /// Wakes the driver: `relay`, as all that wake take it.
    waker: Waker,
    timer: Timer,
    /// Also when it has never run.
    _end: EndAnyway,
}

impl Driver {
    pub(crate) fn new(host: Arc<Host>, target: Arc<Target>) -> Self {
        let relay = Arc::new(Relay(Mutex::new(Waker::noop().clone())));
        let waker = Waker::from(relay.clone());
        let end = EndAnyway(host.clone());
        Self { pump: Pump::new(host, false), target, relay, waker, timer: Timer::default(), _end: end }
    }

    /// Runs the client to its end, which is a `close`, the drop of all handles, or a refusal that another attempt
    /// cannot heal.
    ///
    /// # Cancel safety
    /// Dropping the future ends the client without a goodbye: the server publishes the will, and all calls of the
    /// client say [`Error::Ended`]. Nothing waits forever.
    ///
    /// # Errors
    /// [`Error::Ended`]: another end than a close. [`Error::Unfinished`]: the time limit of the close was reached before
    /// everything had arrived.
    ///
    /// # Panics
    /// Outside of a tokio runtime whose I/O and time are enabled.
    pub async fn run(mut self) -> Result<(), Error> {
        let host = self.pump.host().clone();
        loop {
            let reason = match self.serve().await {
                Ok(reason) | Err(reason) => reason,
            };
            match self.pump.lost(reason) {
                Next::End => break,
                Next::Retry(delay) => {
                    if !self.rest(delay).await {
                        host.end(Reason::Closed);
                        break;
                    }
                }
            }
        }
        host.ended().await
    }

    /// Makes one connection, and serves it to its end.
    async fn serve(&mut self) -> Result<Reason, Reason> {
        let timeout = self.pump.host().settings.connect_timeout;
        let until = self.pump.host().now().after_millis(millis(timeout));
        let target = self.target.clone();
        let plan = match target.reads_files() {
            true => {
                let target = target.clone();
                let plan = tokio::task::spawn_blocking(move || target.plan());
                match self.unless_closed(plan).await {
                    Some(Ok(plan)) => plan?,
                    Some(Err(error)) => return Err(std::io::Error::from(error).into()),
                    None => return Err(Reason::Closed),
                }
            }
            false => target.plan()?,
        };
        let connect = tokio::time::timeout(timeout, Woken::connect(&target, timeout, self.waker.clone()));
        let socket = match self.unless_closed(connect).await {
            Some(Ok(result)) => result?,
            Some(Err(_)) => return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
            None => return Err(Reason::Closed),
        };
        let mut connection = Connection::new(socket, plan, until);
        Ok(poll_fn(|cx| self.poll_connection(&mut connection, cx)).await)
    }

    fn poll_connection(&mut self, connection: &mut Connection, cx: &mut Context<'_>) -> Poll<Reason> {
        self.relay.pass_to(cx.waker());
        self.pump.unpark();
        loop {
            match connection.go_on(&mut self.pump, &self.waker) {
                Step::Over(reason) => return Poll::Ready(reason),
                Step::Sleep(None) => return Poll::Pending,
                Step::Sleep(Some(until)) => {
                    if self.timer.poll(self.pump.host(), until, cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Sleeps until the next attempt. `false`: the client is closed meanwhile.
    async fn rest(&mut self, delay: Duration) -> bool {
        let mut sleep = pin!(tokio::time::sleep(delay));
        let sleep = |pump: &mut Pump, cx: &mut Context<'_>| match pump.must_hurry() {
            true => Poll::Ready(()),
            false => sleep.as_mut().poll(cx),
        };
        self.poll_unless_closed(sleep).await.is_some()
    }

    /// Waits for `work`, unless the client is closed meanwhile and has nothing left to do, or no time.
    async fn unless_closed<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        self.poll_unless_closed(|_, cx| work.as_mut().poll(cx)).await
    }

    async fn poll_unless_closed<T>(
        &mut self,
        mut work: impl FnMut(&mut Pump, &mut Context<'_>) -> Poll<T>,
    ) -> Option<T> {
        poll_fn(|cx| {
            self.relay.pass_to(cx.waker());
            // First, so that no close is missed that begins behind a look.
            let may_wait = self.pump.pause(&self.waker);
            if let Poll::Ready(result) = work(&mut self.pump, cx) {
                return Poll::Ready(Some(result));
            }
            if !may_wait {
                return Poll::Ready(None);
            }
            match self.pump.closing_at() {
                Some(at) => self.timer.poll(self.pump.host(), at, cx).map(|()| None),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("target", &self.target).finish_non_exhaustive()
    }
}

/// One waker for the life of a driver, whatever task polls it.
struct Relay(Mutex<Waker>);

impl Relay {
    fn pass_to(&self, waker: &Waker) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone_from(waker);
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
    }
}

/// A time to wake up. Setting it anew each time some bytes were sent would cost more than to wake up once in vain, so
/// it is only ever set to an earlier time, or when it has gone off.
#[derive(Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// What it is set to.
    set_to: Option<Instant>,
}

impl Timer {
    /// Ready when `until` has come.
    fn poll(&mut self, host: &Host, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = host.now();
            if now >= until {
                return Poll::Ready(());
            }
            if self.set_to.is_none_or(|set_to| until < set_to) {
                let at = tokio::time::Instant::now() + Duration::from_millis(until.millis_since(now));
                match &mut self.sleep {
                    Some(sleep) => sleep.as_mut().reset(at),
                    None => self.sleep = Some(Box::pin(tokio::time::sleep_until(at))),
                }
                self.set_to = Some(until);
            }
            let Some(sleep) = &mut self.sleep else { return Poll::Pending };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.set_to = None;
        }
    }
}
