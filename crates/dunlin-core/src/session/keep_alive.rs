//! Ping due, answer overdue: the only arithmetic on time (MQTT 3.1.2.10).
//!
//! One answer is awaited at a time: CONNACK, or PINGRESP. The wait for PINGRESP begins when the ping is due, not when
//! its bytes leave, so that a peer that has stopped reading is found out as well. A server may take longer to answer
//! than the keep alive lasts: pings go on leaving meanwhile, and the wait is that for the first of them.
//!
//! A clock that runs backwards has wrapped or was set. How much time really passed is then unknown, so a ping goes
//! out at once and every wait begins anew: no ping is missed and none repeats for ever.

use crate::time::Instant;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeepAlive {
    /// When bytes left last.
    sent_at: Instant,
    /// Since when an answer is awaited.
    since: Instant,
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
        let never = Instant::from_millis(u64::MAX);
        Self { sent_at: never, since: never, awaited: Awaited::Nothing }
    }

    /// The stream is up: CONNECT leaves now, CONNACK is awaited.
    pub fn open(&mut self, now: Instant) {
        *self = Self { sent_at: now, since: now, awaited: Awaited::Connack };
    }

    /// Looks at the clock: is a ping due?
    pub fn tick(&mut self, now: Instant, keep_alive_s: u16) {
        let is_backwards = now < self.sent_at;
        if is_backwards {
            self.sent_at = now;
            self.since = now;
        }
        let is_due = is_backwards || now.millis_since(self.sent_at) >= ping_after(keep_alive_s);
        if is_due && keep_alive_s > 0 {
            if self.awaited == Awaited::Nothing {
                self.since = now;
            }
            self.awaited = Awaited::Ping;
        }
    }

    /// Whether an answer is overdue. To be asked when everything that came has been looked at.
    pub fn is_overdue(&self, now: Instant, timeout_s: u16) -> bool {
        self.awaited != Awaited::Nothing && now.millis_since(self.since) >= millis(timeout_s)
    }

    /// What came is not being looked at: the wait begins anew. PINGRESP may be among it and is not waited for, so that
    /// the next ping leaves in time, for the server counts as well.
    pub fn hold(&mut self, now: Instant) {
        self.since = now;
        self.on_pingresp();
    }

    /// Bytes left [MQTT-3.1.2-23].
    pub fn sent(&mut self, now: Instant) {
        self.sent_at = now;
    }

    /// Whether PINGREQ is due; from now on it counts as sent.
    pub fn take_ping(&mut self) -> bool {
        let is_due = self.awaited == Awaited::Ping;
        if is_due {
            self.awaited = Awaited::Pingresp;
        }
        is_due
    }

    /// Whether PINGREQ has left and PINGRESP has not come.
    pub const fn is_ping_unanswered(&self) -> bool {
        matches!(self.awaited, Awaited::Pingresp)
    }

    /// CONNACK came.
    pub fn on_connack(&mut self) {
        self.awaited = Awaited::Nothing;
    }

    /// PINGRESP came. One that nobody asked for changes nothing: a ping that is due is still due.
    pub fn on_pingresp(&mut self) {
        if self.awaited != Awaited::Connack {
            self.awaited = Awaited::Nothing;
        }
    }

    /// When `tick` or `is_overdue` has something to say next.
    pub fn deadline(&self, keep_alive_s: u16, timeout_s: u16) -> Option<Instant> {
        let ping_at = self.sent_at.after_millis(ping_after(keep_alive_s));
        let overdue_at = self.since.after_millis(millis(timeout_s));
        match self.awaited {
            Awaited::Nothing if keep_alive_s == 0 => None,
            Awaited::Nothing => Some(ping_at),
            Awaited::Pingresp => Some(overdue_at.min(ping_at)),
            Awaited::Connack | Awaited::Ping => Some(overdue_at),
        }
    }
}

/// Seven eighths of the keep alive.
fn ping_after(keep_alive_s: u16) -> u64 {
    u64::from(u32::from(keep_alive_s).wrapping_mul(875))
}

fn millis(seconds: u16) -> u64 {
    u64::from(u32::from(seconds).wrapping_mul(1000))
}
