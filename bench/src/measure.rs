//! What is measured, and how often.

use std::collections::BTreeMap;

use anyhow::Result;
use dunlin_bench::{Case, Mode, Report};

use crate::run::{self, Sink, Tool};

/// A client: its name in the tables, its driver, and whether it talks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client {
    pub name: &'static str,
    driver: &'static str,
    pub is_tls: bool,
}

const fn client(name: &'static str, driver: &'static str) -> Client {
    Client { name, driver, is_tls: false }
}

impl Client {
    /// Where it stands in the tables.
    pub fn rank(self) -> usize {
        CLIENTS.iter().position(|client| client.name == self.name).unwrap_or(CLIENTS.len())
    }
}

/// The first is no client: its cost is the unit.
pub const RAW: Client = client("raw socket", "raw");

const CLIENTS: [Client; 6] = [
    RAW,
    client("dunlin, blocking", "dunlin-std"),
    client("dunlin, tokio", "dunlin-tokio"),
    client("mqtt-protocol-core 0.7.9", "protocol-core"),
    client("rumqttc 0.25.1", "rumqttc"),
    client("libmosquitto", "libmosquitto"),
];

const TLS: [Client; 3] = [
    Client { name: "dunlin, blocking", driver: "dunlin-std", is_tls: true },
    Client { name: "dunlin, tokio", driver: "dunlin-tokio", is_tls: true },
    Client { name: "rumqttc 0.25.1", driver: "rumqttc", is_tls: true },
];

pub const CODECS: [&str; 4] = ["dunlin", "mqttbytes", "rumqttc", "mqtt-protocol-core"];

/// Messages in flight at QoS 1 and 2.
const WINDOW: u16 = 100;

/// A column of a table: what is done, at which quality of service, with how many bytes of payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Column {
    pub is_receive: bool,
    pub qos: u8,
    pub payload: usize,
}

impl Column {
    fn case(self, count: usize) -> Case {
        let mode = if self.is_receive { Mode::Receive } else { Mode::Publish };
        Case { mode, qos: self.qos, payload: self.payload, count, window: WINDOW }
    }

    fn all(payload: usize) -> impl Iterator<Item = Self> {
        [false, true].into_iter().flat_map(move |is_receive| [0, 1, 2].map(|qos| Self { is_receive, qos, payload }))
    }

    /// Two counts of messages: the difference is free of what the start of a program takes.
    fn counts(self) -> (usize, usize) {
        if self.payload > 10_000 { (200, 1000) } else { (5_000, 15_000) }
    }
}

/// What to measure.
pub struct Plan {
    clients: Vec<Client>,
    tls: Vec<Client>,
    timed: Vec<Column>,
    counted: Vec<Column>,
    rounds: usize,
    extent: Extent,
}

impl Plan {
    pub fn new(extent: Extent, only: Option<Vec<&str>>) -> Self {
        let is_wanted = |client: &Client| only.as_ref().is_none_or(|names| names.contains(&client.driver));
        let mut clients: Vec<_> = CLIENTS.into_iter().filter(is_wanted).collect();
        let tls: Vec<_> = TLS.into_iter().filter(is_wanted).collect();
        let small: Vec<_> = Column::all(16).collect();
        let large = Column::all(65_536).filter(|column| column.qos == 0);
        match extent {
            Extent::Counts => {
                if only.is_none() {
                    clients.retain(|client| client.driver.starts_with("dunlin"));
                }
                Self { clients, tls: Vec::new(), timed: Vec::new(), counted: small, rounds: 0, extent }
            }
            Extent::Times => Self { clients, tls, timed: small, counted: Vec::new(), rounds: 3, extent },
            Extent::All => {
                let timed = small.iter().copied().chain(Column::all(256)).collect();
                Self { clients, tls, timed, counted: small.into_iter().chain(large).collect(), rounds: 5, extent }
            }
        }
    }
}

/// How much to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Instructions per message of 16 bytes, for dunlin alone: the same figures on a busy machine.
    Counts,
    /// CPU time per message of 16 bytes.
    Times,
    All,
}

/// Per message.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// Microseconds of CPU, one per round.
    cpu_us: Vec<f64>,
    pub instructions: Option<f64>,
    pub allocations: Option<f64>,
    pub system_calls: Option<f64>,
}

impl Cell {
    /// The median of all rounds.
    pub fn cpu_us(&self) -> Option<f64> {
        median(self.cpu_us.clone())
    }
}

#[derive(Default)]
pub struct Results {
    pub cells: BTreeMap<(Client, Column), Cell>,
    /// KiB of resident memory per connection.
    pub idle: BTreeMap<Client, f64>,
    /// Round trips: median and 99th percentile, in microseconds, and CPU for one.
    pub echo: BTreeMap<Client, (f64, f64, f64)>,
    /// Instructions to encode and to decode a PUBLISH.
    pub codec: BTreeMap<(&'static str, usize), (f64, f64)>,
}

impl Results {
    pub fn measure(plan: &Plan) -> Result<Self> {
        let mut results = Self::default();
        let sink = Sink::start()?;
        results.count(&sink, plan)?;
        results.time(&sink, plan)?;
        if plan.extent == Extent::All {
            results.idle(&sink, plan);
            results.echo(&sink, plan)?;
        }
        if plan.extent != Extent::Times {
            results.codec()?;
        }
        Ok(results)
    }

    fn count(&mut self, sink: &Sink, plan: &Plan) -> Result<()> {
        let mut tools = vec![Tool::Callgrind, Tool::Memcheck];
        if run::has_perf() {
            tools.push(Tool::Perf);
        } else {
            eprintln!("perf cannot count system calls here; it may need root");
        }
        for column in &plan.counted {
            let (few, many) = column.counts();
            for client in plan.clients.iter().filter(|client| **client != RAW) {
                let cell = self.cells.entry((*client, *column)).or_default();
                for tool in &tools {
                    let count = |n| run::drive(sink, client.driver, false, &column.case(n), *tool).map(|(_, n)| n);
                    let per_message = count(many)?.saturating_sub(count(few)?) as f64 / (many - few) as f64;
                    match tool {
                        Tool::Callgrind => cell.instructions = Some(per_message),
                        Tool::Memcheck => cell.allocations = Some(per_message),
                        Tool::Perf => cell.system_calls = Some(per_message),
                        Tool::None => {}
                    }
                }
            }
            eprintln!("counted {column:?}");
        }
        Ok(())
    }

    fn time(&mut self, sink: &Sink, plan: &Plan) -> Result<()> {
        let clients: Vec<_> = plan.clients.iter().chain(&plan.tls).copied().collect();
        for column in &plan.timed {
            let mut counts = Vec::new();
            for client in &clients {
                counts.push(calibrate(sink, *client, *column)?);
            }
            for _ in 0..plan.rounds {
                for (client, count) in clients.iter().zip(&counts) {
                    let (report, _) = drive(sink, *client, &column.case(*count))?;
                    let cell = self.cells.entry((*client, *column)).or_default();
                    cell.cpu_us.push(report.cpu_us as f64 / *count as f64);
                }
            }
            eprintln!("timed {column:?}");
        }
        Ok(())
    }

    fn idle(&mut self, sink: &Sink, plan: &Plan) {
        for client in plan.clients.iter().filter(|client| **client != RAW) {
            // libmosquitto waits with select, whose sets end at descriptor 1,023, and takes three for each client.
            let count = if client.driver == "libmosquitto" { 300 } else { 1000 };
            let case = Case { mode: Mode::Idle, qos: 0, payload: 16, count, window: 20 };
            match drive(sink, *client, &case) {
                Ok((report, _)) => {
                    let kib = (report.rss_last - report.rss_first) as f64 / (count - 1) as f64;
                    self.idle.insert(*client, kib);
                }
                Err(error) => eprintln!("{}, idle: {error:#}", client.name),
            }
        }
        eprintln!("idle connections held");
    }

    fn echo(&mut self, sink: &Sink, plan: &Plan) -> Result<()> {
        let count = 2_000;
        let case = Case { mode: Mode::Echo, qos: 1, payload: 16, count, window: WINDOW };
        let mut reports: BTreeMap<Client, Vec<Report>> = BTreeMap::new();
        for _ in 0..plan.rounds {
            for client in &plan.clients {
                reports.entry(*client).or_default().push(drive(sink, *client, &case)?.0);
            }
        }
        for (client, reports) in reports {
            let of = |f: fn(&Report) -> f64| median(reports.iter().map(f).collect()).unwrap_or_default();
            let p50 = of(|report| report.p50 as f64 / 1e3);
            let p99 = of(|report| report.p99 as f64 / 1e3);
            self.echo.insert(client, (p50, p99, of(|report| report.cpu_us as f64) / count as f64));
        }
        eprintln!("echoes timed");
        Ok(())
    }

    fn codec(&mut self) -> Result<()> {
        for payload in [16, 4096] {
            for library in CODECS {
                let count = |direction| -> Result<f64> {
                    let (few, many) = (1_000, 3_000);
                    let difference =
                        run::codec(library, direction, payload, many)? - run::codec(library, direction, payload, few)?;
                    Ok(difference as f64 / (many - few) as f64)
                };
                self.codec.insert((library, payload), (count("encode")?, count("decode")?));
            }
        }
        eprintln!("codecs counted");
        Ok(())
    }
}

fn drive(sink: &Sink, client: Client, case: &Case) -> Result<(Report, u64)> {
    run::drive(sink, client.driver, client.is_tls, case, Tool::None)
}

/// A count of messages that takes about a fifth of a second of CPU.
fn calibrate(sink: &Sink, client: Client, column: Column) -> Result<usize> {
    let mut count = 5_000;
    loop {
        let (report, _) = drive(sink, client, &column.case(count))?;
        let cpu = report.cpu_us.max(1_000) as usize;
        if cpu > 30_000 || count > 3_000_000 {
            return Ok((count * 200_000 / cpu).clamp(2_000, 20_000_000));
        }
        count *= (60_000 / cpu).clamp(2, 30);
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
