//! The table: what each image takes.

use std::path::Path;

use anyhow::{Context, Result};

use super::qemu::{Report, instructions};
use crate::firmware::CORTEX_M4F;
use crate::process;

#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

struct Row {
    name: String,
    flash: u64,
    ram: u64,
    stack: Option<u64>,
    /// Most bytes in use of the pool, which is part of `ram`.
    pool: Option<u64>,
    handshake: Option<u64>,
    wakeups: Option<u64>,
}

impl Table {
    /// Adds an image and what its run has shown.
    pub fn add(&mut self, name: &str, image: &Path, report: &Report, counted: Option<&Report>) -> Result<()> {
        let (flash, ram) = sizes(image)?;
        let wakeups = report.figures("idle").next().and_then(|words| {
            let [ms, wakeups] = words[..] else { return None };
            Some(wakeups.parse::<u64>().ok()? * 60_000 / ms.parse::<u64>().ok()?)
        });
        let handshake = counted.and_then(|report| report.number("handshake")).map(instructions);
        let stack = report.number("stack");
        let pool = report.figures("pool").filter_map(|words| words.first()?.parse().ok()).max();
        self.rows.push(Row { name: name.to_owned(), flash, ram, stack, pool, handshake, wakeups });
        Ok(())
    }

    pub fn print(&self) {
        println!("\nmps2-an386 (Cortex-M4F) in QEMU, opt-level s, fat LTO, with formatting and panic messages:\n");
        println!(
            "| image | flash, B | static RAM, B | of a pool, B | peak stack, B | handshake, instructions | wake-ups per idle minute |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|");
        for row in &self.rows {
            println!(
                "| {} | {} | {} | {} | {} | {} | {} |",
                row.name,
                grouped(row.flash),
                grouped(row.ram),
                optional(row.pool),
                optional(row.stack),
                optional(row.handshake),
                optional(row.wakeups)
            );
        }
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
        ("publish0", "publish QoS 0", Some(538)),
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
