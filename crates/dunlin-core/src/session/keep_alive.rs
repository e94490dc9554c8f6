//! Ping due, answer overdue: the only arithmetic on time (MQTT 3.1.2.10).
//!
//! One answer is awaited at a time: CONNACK, or PINGRESP. The wait for PINGRESP begins when the ping is due, not when
//! its bytes leave, so that a peer that has stopped reading is found out as well. A server may take longer to answer
//! than the keep alive lasts: pings go on leaving meanwhile, and the wait is that for the first of them.
//!
//! A clock that runs backwards, or ahead by 49 days at once, has wrapped or was set. How much time really passed is then
//! unknown, so a ping goes out at once and every wait begins anew: no ping is missed and none repeats for ever.

use crate::time::Instant;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeepAlive {
    /// What the clock said last.
    now: Instant,
    /// Milliseconds since bytes left.
    silent: u32,
    /// Milliseconds since an answer is awaited.
    waited: u32,
    awaited: Awaited,
}

/// The answer that is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Awaited {
    Nothing,
    Connack,
    /// A ping is due; PINGREQ has not left yet.
    Ping,
    Pingresp,
}

impl KeepAlive {
    pub const fn new() -> Self {
        Self { now: Instant::from_millis(0), silent: u32::MAX, waited: 0, awaited: Awaited::Nothing }
    }

    /// The stream is up: CONNECT leaves now, CONNACK is awaited.
    pub fn open(&mut self, now: Instant) {
        *self = Self { now, silent: 0, waited: 0, awaited: Awaited::Connack };
    }

    /// Looks at the clock: is a ping due? Comes before anything else that depends on time.
    pub fn tick(&mut self, now: Instant, keep_alive_s: u16) {
        if now == self.now {
            return; // as most calls, where milliseconds are long
        }
        if let Ok(passed) = u32::try_from(now.as_millis().wrapping_sub(self.now.as_millis())) {
            self.silent = self.silent.saturating_add(passed);
            self.waited = self.waited.saturating_add(passed);
        } else {
            self.silent = u32::MAX;
            self.waited = 0;
        }
        self.now = now;
        if keep_alive_s > 0 && self.silent >= ping_after(keep_alive_s) {
            if self.awaited == Awaited::Nothing {
                self.waited = 0;
            }
            self.awaited = Awaited::Ping;
        }
    }

    /// Whether an answer is overdue. To be asked when everything that came has been looked at.
    pub fn is_overdue(&self, timeout_s: u16) -> bool {
        self.awaited != Awaited::Nothing && self.waited >= millis(timeout_s)
    }

    /// What came is not being looked at: the wait begins anew. PINGRESP may be among it and is not waited for, so that
    /// the next ping leaves in time, for the server counts as well; one that is due stays due.
    pub fn hold(&mut self) {
        self.waited = 0;
        if self.awaited == Awaited::Pingresp {
            self.on_answer();
        }
    }

    /// Bytes left [MQTT-3.1.2-23].
    pub fn sent(&mut self) {
        self.silent = 0;
    }

    /// Whether PINGREQ is due; from now on it counts as sent.
    pub fn take_ping(&mut self) -> bool {
        let is_due = self.is_ping_due();
        if is_due {
            self.awaited = Awaited::Pingresp;
        }
        is_due
    }

    /// Whether PINGREQ is due.
    pub fn is_ping_due(&self) -> bool {
        self.awaited == Awaited::Ping
    }

    /// Whether PINGREQ has left and PINGRESP has not come.
    pub const fn is_ping_unanswered(&self) -> bool {
        matches!(self.awaited, Awaited::Pingresp)
    }

    /// CONNACK or PINGRESP came. A PINGRESP that nobody asked for changes nothing: a ping that is due is still due.
    pub fn on_answer(&mut self) {
        self.awaited = Awaited::Nothing;
    }

    /// When `tick` or `is_overdue` has something to say next.
    pub fn deadline(&self, keep_alive_s: u16, timeout_s: u16) -> Option<Instant> {
        let to_ping = ping_after(keep_alive_s).saturating_sub(self.silent);
        let to_end = millis(timeout_s).saturating_sub(self.waited);
        let left = match self.awaited {
            Awaited::Nothing if keep_alive_s == 0 => return None,
            Awaited::Nothing => to_ping,
            Awaited::Pingresp => to_end.min(to_ping),
            Awaited::Connack | Awaited::Ping => to_end,
        };
        Some(self.now.after_millis(left.into()))
    }
}

/// Seven eighths of the keep alive.
fn ping_after(keep_alive_s: u16) -> u32 {
    u32::from(keep_alive_s).wrapping_mul(875)
}

fn millis(seconds: u16) -> u32 {
    u32::from(seconds).wrapping_mul(1000)
}
