//! Ping due, answer overdue: the only arithmetic on time (MQTT 3.1.2.10).
//!
//! One answer is awaited at a time: CONNACK, or PINGRESP. The wait for PINGRESP begins when the ping is due, not when
//! its bytes leave, so that a peer that has stopped reading is found out as well.
//!
//! A clock that runs backwards has wrapped or was set. How much time really passed is then unknown, so a ping goes
//! out at once and every wait begins anew: no ping is missed and none repeats for ever.

use crate::time::Instant;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeepAlive {
    sent_at: Instant,
    awaited: Awaited,
}

/// The answer that is awaited, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Awaited {
    Nothing,
    Connack(Instant),
    /// A ping is due; PINGREQ has not left yet.
    Ping(Instant),
    Pingresp(Instant),
}

/// Which answer did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    Connack,
    Pingresp,
}

impl KeepAlive {
    pub const fn new() -> Self {
        Self { sent_at: Instant::from_millis(0), awaited: Awaited::Nothing }
    }

    /// The stream is up: CONNECT leaves now, CONNACK is awaited.
    pub fn open(&mut self, now: Instant) {
        self.sent_at = now;
        self.awaited = Awaited::Connack(now);
    }

    /// Looks at the clock: is a ping due?
    pub fn tick(&mut self, now: Instant, keep_alive_s: u16) {
        let is_backwards = now < self.sent_at;
        if is_backwards {
            self.sent_at = now;
        }
        match &mut self.awaited {
            Awaited::Connack(since) | Awaited::Ping(since) | Awaited::Pingresp(since) => *since = now.min(*since),
            Awaited::Nothing if keep_alive_s == 0 => {}
            Awaited::Nothing => {
                if is_backwards || now >= self.ping_at(keep_alive_s) {
                    self.awaited = Awaited::Ping(now);
                }
            }
        }
    }

    /// The answer that is overdue, if one is. To be asked when everything that came has been looked at.
    pub fn overdue(&self, now: Instant, timeout_s: u16) -> Option<Overdue> {
        let is_over = |since| now.millis_since(since) >= millis(timeout_s);
        match self.awaited {
            Awaited::Connack(since) if is_over(since) => Some(Overdue::Connack),
            Awaited::Ping(since) | Awaited::Pingresp(since) if is_over(since) => Some(Overdue::Pingresp),
            Awaited::Nothing | Awaited::Connack(_) | Awaited::Ping(_) | Awaited::Pingresp(_) => None,
        }
    }

    /// What came is not being looked at: the wait begins anew.
    pub fn hold(&mut self, now: Instant) {
        if let Awaited::Connack(since) | Awaited::Ping(since) | Awaited::Pingresp(since) = &mut self.awaited {
            *since = now;
        }
    }

    /// Bytes left [MQTT-3.1.2-23].
    pub fn sent(&mut self, now: Instant) {
        self.sent_at = now;
    }

    /// Whether PINGREQ is due; from now on it counts as sent.
    pub fn take_ping(&mut self) -> bool {
        let Awaited::Ping(since) = self.awaited else { return false };
        self.awaited = Awaited::Pingresp(since);
        true
    }

    /// CONNACK came.
    pub fn on_connack(&mut self) {
        self.awaited = Awaited::Nothing;
    }

    /// PINGRESP came. One that nobody asked for changes nothing.
    pub fn on_pingresp(&mut self) {
        if let Awaited::Pingresp(_) = self.awaited {
            self.awaited = Awaited::Nothing;
        }
    }

    /// When `tick` has something to say next.
    pub fn deadline(&self, keep_alive_s: u16, timeout_s: u16) -> Option<Instant> {
        match self.awaited {
            Awaited::Nothing if keep_alive_s == 0 => None,
            Awaited::Nothing => Some(self.ping_at(keep_alive_s)),
            Awaited::Connack(since) | Awaited::Ping(since) | Awaited::Pingresp(since) => {
                Some(since.after_millis(millis(timeout_s)))
            }
        }
    }

    /// Seven eighths of the keep alive after the last bytes sent.
    fn ping_at(&self, keep_alive_s: u16) -> Instant {
        self.sent_at.after_millis(u64::from(u32::from(keep_alive_s).saturating_mul(875)))
    }
}

fn millis(seconds: u16) -> u64 {
    u64::from(u32::from(seconds).saturating_mul(1000))
}
