//! What all programs of the benchmark share: the case that is measured, and the report of a run.
//!
//! A driver is a program that does one case with one client, against the sink. The sink learns from the client
//! identifier what is asked of it, so the packets of all clients are the same.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// What a driver does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Publishes `count` messages, one call each, and waits until the server has all of them.
    Publish,
    /// Subscribes and takes `count` messages.
    Receive,
    /// Publishes a message at QoS 1 when the one before has come back.
    Echo,
    /// Holds `count` connections.
    Idle,
}

const MODES: [(Mode, &str); 4] =
    [(Mode::Publish, "publish"), (Mode::Receive, "receive"), (Mode::Echo, "echo"), (Mode::Idle, "idle")];

impl Mode {
    pub fn name(self) -> &'static str {
        MODES.iter().find(|(mode, _)| *mode == self).map_or("", |(_, name)| name)
    }

    fn named(name: &str) -> Option<Self> {
        MODES.iter().find(|(_, known)| *known == name).map(|(mode, _)| *mode)
    }
}

/// One case: the arguments of a driver.
#[derive(Clone, Debug)]
pub struct Case {
    pub mode: Mode,
    pub qos: u8,
    /// Bytes of payload.
    pub payload: usize,
    /// Messages; connections for [`Mode::Idle`].
    pub count: usize,
    /// Most messages in flight at QoS 1 and 2.
    pub window: u16,
}

/// The topic name of every message, of 24 bytes.
pub const TOPIC: &str = "plant/7/pressure/reading";

impl Case {
    /// How it stands in a client identifier: `n` tells connections of one process apart.
    pub fn client_id(&self, n: usize) -> String {
        let Self { mode, qos, payload, count, window } = self;
        format!("{}-{qos}-{payload}-{count}-{window}-{n}", mode.name())
    }

    /// The case that a client identifier stands for.
    pub fn from_client_id(id: &str) -> Option<Self> {
        let parts: Vec<_> = id.split('-').collect();
        let [mode, qos, payload, count, window, ..] = parts[..] else { return None };
        Some(Self {
            mode: Mode::named(mode)?,
            qos: qos.parse().ok()?,
            payload: payload.parse().ok()?,
            count: count.parse().ok()?,
            window: window.parse().ok()?,
        })
    }

    pub fn body(&self) -> Vec<u8> {
        (0..self.payload).map(|n| n as u8).collect()
    }
}

/// What a driver is told: `DRIVER CLIENT_ID HOST PORT [CA_FILE]`, the first being a case.
pub struct Arguments {
    pub case: Case,
    pub host: String,
    pub port: u16,
    /// With it, the connection is made over TLS, and the server's certificate must come from there.
    pub ca_file: Option<String>,
}

impl Arguments {
    /// Those of this process.
    pub fn read() -> Self {
        let all: Vec<_> = std::env::args().skip(1).collect();
        let [case, host, port, ..] = &all[..] else { panic!("usage: CASE HOST PORT [CA_FILE]") };
        Self {
            case: Case::from_client_id(case).expect("a case"),
            host: host.clone(),
            port: port.parse().expect("a port"),
            ca_file: all.get(3).cloned(),
        }
    }
}

/// What one run of a driver has taken, from the established connection to the last acknowledgement.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// CPU time of the process, in microseconds, user and system.
    pub cpu_us: i64,
    pub wall_us: u64,
    /// Resident memory after the first connection and at the end, in KiB.
    pub rss_first: i64,
    pub rss_last: i64,
    /// Round trips of [`Mode::Echo`], in nanoseconds: the median and the 99th percentile.
    pub p50: u64,
    pub p99: u64,
}

/// Measures one run.
pub struct Meter {
    begin: Instant,
    cpu: i64,
    rss: i64,
}

impl Meter {
    pub fn start() -> Self {
        Self { begin: Instant::now(), cpu: cpu_us(), rss: rss_kib() }
    }

    /// Prints the report: the last thing that a driver does.
    pub fn report(self, mut round_trips: Vec<u64>) {
        round_trips.sort_unstable();
        let at = |percent: usize| round_trips.get(round_trips.len() * percent / 100).copied().unwrap_or_default();
        let report = Report {
            cpu_us: cpu_us() - self.cpu,
            wall_us: self.begin.elapsed().as_micros() as u64,
            rss_first: self.rss,
            rss_last: rss_kib(),
            p50: at(50),
            p99: at(99),
        };
        println!("{}", serde_json::to_string(&report).expect("a report is plain data"));
    }
}

/// CPU time that this process has used, in microseconds.
pub fn cpu_us() -> i64 {
    // SAFETY: a struct of plain numbers, which the call fills.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let us = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    us(usage.ru_utime) + us(usage.ru_stime)
}

/// Resident memory of this process, in KiB.
fn rss_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Bytes of packets, for those who write them by hand.
pub mod wire {
    /// A fixed header before `remaining` bytes.
    pub fn header(first: u8, mut remaining: usize, out: &mut Vec<u8>) {
        out.push(first);
        while remaining > 127 {
            out.push(remaining as u8 | 0x80);
            remaining >>= 7;
        }
        out.push(remaining as u8);
    }

    /// A PUBLISH with packet identifier zero, and where that stands.
    pub fn publish(topic: &str, qos: u8, payload: &[u8]) -> (Vec<u8>, usize) {
        let id_len = if qos > 0 { 2 } else { 0 };
        let mut out = Vec::new();
        header(0x30 | qos << 1, 2 + topic.len() + id_len + payload.len(), &mut out);
        out.extend((topic.len() as u16).to_be_bytes());
        out.extend(topic.as_bytes());
        let id_at = out.len();
        out.extend(&[0, 0][..id_len]);
        out.extend(payload);
        (out, id_at)
    }

    /// Length of the fixed header and of what follows it, if it is whole.
    pub fn lengths(bytes: &[u8]) -> Option<(usize, usize)> {
        let mut remaining = 0;
        for at in 1..5 {
            let byte = *bytes.get(at)?;
            remaining |= usize::from(byte & 0x7F) << (7 * (at - 1));
            if byte & 0x80 == 0 {
                return Some((at + 1, remaining));
            }
        }
        panic!("a Remaining Length of five bytes");
    }
}
