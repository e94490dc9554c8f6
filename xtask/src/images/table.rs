//! The table: what each image takes.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::qemu::{Report, instructions};
use crate::firmware::CORTEX_M4F;
use crate::process;

/// What the images take, and what their exchanges cost.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

/// A line of the table: an image, and what its runs have shown.
pub struct Row {
    pub name: &'static str,
    flash: u64,
    ram: u64,
    stack: Option<u64>,
    /// Most bytes in use of the pool, which is part of `ram`.
    pool: Option<u64>,
    wakeups: Option<u64>,
    handshake: Option<u64>,
    /// Instructions by the name of what was done.
    costs: HashMap<String, u64>,
}

/// How often each exchange is made; `COST_ROUNDS` of the story, and the number of readings of `pump` and `baseline`.
const ROUNDS: u64 = 8;

impl Row {
    /// An image, and what a run of it has shown.
    pub fn new(name: &'static str, image: &Path, report: &Report) -> Result<Self> {
        let (flash, ram) = sizes(image)?;
        let wakeups = report.figures("idle").next().and_then(|words| {
            let [ms, wakeups] = words[..] else { return None };
            Some(wakeups.parse::<u64>().ok()? * 60_000 / ms.parse::<u64>().ok()?)
        });
        let stack = report.number("stack");
        let pool = report.figures("pool").filter_map(|words| words.first()?.parse().ok()).max();
        Ok(Self { name, flash, ram, stack, pool, wakeups, handshake: None, costs: HashMap::new() })
    }

    /// What a run that counts instructions has shown.
    pub fn counted(mut self, report: &Report) -> Result<Self> {
        self.handshake = report.number("handshake").map(instructions);
        for words in report.figures("cost") {
            let [name, ticks] = words[..] else { anyhow::bail!("not a figure: {words:?}") };
            let rounds = if name == "connect" { 1 } else { ROUNDS };
            self.costs.insert(name.to_owned(), instructions(ticks.parse()?) / rounds);
        }
        Ok(self)
    }

    fn cost(&self, name: &str) -> Option<u64> {
        self.costs.get(name).copied()
    }

    /// What a message takes that comes: there and back, less what it takes there.
    fn receive(&self, qos: u8) -> Option<u64> {
        self.cost(&format!("echo{qos}"))?.checked_sub(self.cost(&format!("publish{qos}"))?)
    }

    /// A reading there and back, in the two programs that do nothing else.
    fn reading(&self) -> Option<u64> {
        let is_bare = self.cost("publish0").is_none();
        self.cost("echo0").or(self.cost("echo1")).filter(|_| is_bare)
    }
}

impl From<Row> for Table {
    fn from(row: Row) -> Self {
        Self { rows: vec![row] }
    }
}

impl Table {
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub fn print(&self) {
        println!("\nmps2-an386 (Cortex-M4F) in QEMU, opt-level s, fat LTO, with formatting and panic messages:\n");
        println!(
            "| image | flash, B | static RAM, B | of it a pool, B used | peak stack, B | wake-ups per idle minute |\n\
             |---|---:|---:|---:|---:|---:|"
        );
        for row in &self.rows {
            let cells = [Some(row.flash), Some(row.ram), row.pool, row.stack, row.wakeups];
            println!("| {} | {} |", row.name, cells.map(optional).join(" | "));
        }
        println!(
            "\ninstructions of the whole image, TCP/IP, Ethernet driver and TLS included, for payloads of 16 bytes:\n\n\
             | image | connect | of it TLS | publish QoS 0 | 1 | 2 | receive QoS 0 | 1 | 2 | a reading there and back |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
        );
        for row in self.rows.iter().filter(|row| !row.costs.is_empty()) {
            let publish = [0, 1, 2].map(|qos| row.cost(&format!("publish{qos}")));
            let receive = [0, 1, 2].map(|qos| row.receive(qos));
            let cells =
                [[row.cost("connect"), row.handshake].as_slice(), &publish, &receive, &[row.reading()]].concat();
            let cells: Vec<_> = cells.into_iter().map(optional).collect();
            println!("| {} | {} |", row.name, cells.join(" | "));
        }
    }

    /// What one image has more of than another.
    pub fn difference(&self, of: &str, than: &str) -> Result<(u64, u64)> {
        let find = |name: &str| self.rows.iter().find(|row| row.name == name).with_context(|| name.to_owned());
        let (of, than) = (find(of)?, find(than)?);
        Ok((of.flash.saturating_sub(than.flash), of.ram.saturating_sub(than.ram)))
    }
}

/// What the session's own exchanges cost.
pub fn print_costs(report: &Report) -> Result<()> {
    println!(
        "\none exchange of the session, 16 bytes of payload, from call to acknowledgement handled, transport excluded:\n"
    );
    println!("| exchange | instructions | stack, B | coreMQTT 2.3.1, instructions |");
    println!("|---|---:|---:|---:|");
    for (name, what, anchor) in [
        ("connect", "connect, subscribe from the table", None),
        ("publish0", "publish QoS 0, `publish_past`", Some(538)),
        ("publish0-kept", "publish QoS 0, `publish` and `transmit`", Some(538)),
        ("publish1", "publish QoS 1", Some(1328)),
        ("publish2", "publish QoS 2", Some(2171)),
        ("receive0", "receive QoS 0", None),
        ("receive1", "receive QoS 1", None),
        ("receive2", "receive QoS 2", None),
    ] {
        let words = report.figures("cost").find(|words| words.first() == Some(&name));
        let words = words.with_context(|| format!("no figure for {name}"))?;
        let [_, ticks, stack] = words[..] else { anyhow::bail!("not a figure: {words:?}") };
        let count = instructions(ticks.parse()?);
        println!("| {what} | {} | {stack} | {} |", grouped(count), optional(anchor));
    }
    Ok(())
}

/// Bytes of flash, and of RAM without stack.
fn sizes(image: &Path) -> Result<(u64, u64)> {
    let output = process::output(CORTEX_M4F.tool("size").arg(image))?;
    let numbers: Vec<u64> =
        output.lines().nth(1).unwrap_or_default().split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [text, data, bss, ..] = numbers[..] else { anyhow::bail!("size said:\n{output}") };
    Ok((text + data, data + bss))
}

fn optional(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), grouped)
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
