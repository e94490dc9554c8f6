//! Results as tables in Markdown, printed and put where the documents show them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};

use crate::measure::{CODECS, Cell, Client, Column, RAW, Results};
use crate::run::root;

/// Name and text of each table.
pub type Tables = Vec<(&'static str, String)>;

/// Documents that show tables, between `<!-- bench NAME -->` and `<!-- end -->`.
const DOCUMENTS: [&str; 2] = ["README.md", "docs/speed.md"];

pub fn all(results: &Results) -> Tables {
    let mut tables = vec![
        ("cpu-16", cpu(results, 16, false)),
        ("cpu-256", cpu(results, 256, false)),
        ("tls-16", cpu(results, 16, true)),
        ("instructions-16", cells(results, 16, |cell| cell.instructions.map(short))),
        ("instructions-65536", cells(results, 65_536, |cell| cell.instructions.map(short))),
        ("calls-16", cells(results, 16, calls)),
        ("idle", idle(results)),
        ("echo", echo(results)),
        ("codec", codec(results)),
    ];
    // A heading without a line under it has not been measured.
    tables.retain(|(_, text)| text.lines().count() > 2);
    tables
}

/// Puts the tables into the documents.
pub fn write(tables: &Tables) -> Result<()> {
    for document in DOCUMENTS {
        let path = root().join(document);
        let mut text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        for (name, table) in tables {
            let begin = format!("<!-- bench {name} -->\n");
            let Some((before, rest)) = text.split_once(&begin) else { continue };
            let (_, after) = rest.split_once("<!-- end -->").with_context(|| format!("{name} has no end"))?;
            text = format!("{before}{begin}\n{table}\n<!-- end -->{after}");
        }
        fs::write(&path, text)?;
    }
    Ok(())
}

/// CPU time per message, as a multiple of the raw socket's.
fn cpu(results: &Results, payload: usize, is_tls: bool) -> String {
    let raw = |column: Column| results.cells.get(&(RAW, column)).and_then(Cell::cpu_us);
    rows(results, payload, is_tls, |column, cell| {
        let cpu = cell.cpu_us()?;
        let us = if cpu < 0.1 { format!("{cpu:.3} µs") } else { format!("{cpu:.2} µs") };
        match raw(column) {
            Some(raw) => Some(format!("{us} ({:.1} ×)", cpu / raw)),
            None => Some(us),
        }
    })
}

fn cells(results: &Results, payload: usize, show: fn(&Cell) -> Option<String>) -> String {
    rows(results, payload, false, |_, cell| show(cell))
}

/// System calls, and allocations.
fn calls(cell: &Cell) -> Option<String> {
    cell.instructions?;
    let calls = cell.system_calls.map_or("?".to_owned(), |calls| format!("{calls:.4}"));
    Some(format!("{calls} / {}", cell.allocations.map_or("?".to_owned(), |count| format!("{count:.2}"))))
}

/// A line for each client, a column for each direction and quality of service.
fn rows(results: &Results, payload: usize, is_tls: bool, show: impl Fn(Column, &Cell) -> Option<String>) -> String {
    let mut columns: Vec<Column> = results.cells.keys().map(|(_, column)| *column).collect();
    columns.retain(|column| column.payload == payload);
    columns.sort();
    columns.dedup();
    let mut text = "| |".to_owned();
    for column in &columns {
        let direction = if column.is_receive { "receive" } else { "publish" };
        let _ = write!(text, " {direction}, QoS {} |", column.qos);
    }
    let _ = write!(text, "\n|---|{}\n", "---|".repeat(columns.len()));
    let mut lines: BTreeMap<Client, Vec<String>> = BTreeMap::new();
    for (client, column) in results.cells.keys() {
        if client.is_tls == is_tls && column.payload == payload {
            lines.entry(*client).or_default();
        }
    }
    for (client, line) in &mut lines {
        let cell = |column: &Column| results.cells.get(&(*client, *column)).and_then(|cell| show(*column, cell));
        line.extend(columns.iter().map(|column| cell(column).unwrap_or_else(|| "–".to_owned())));
    }
    lines.retain(|_, line| line.iter().any(|text| text != "–"));
    for (client, line) in by_rank(lines) {
        let _ = writeln!(text, "| {} | {} |", client.name, line.join(" | "));
    }
    text
}

fn idle(results: &Results) -> String {
    let mut text = "| | KiB per idle connection |\n|---|---|\n".to_owned();
    for (client, kib) in by_rank(results.idle.clone()) {
        let _ = writeln!(text, "| {} | {kib:.1} |", client.name);
    }
    text
}

fn echo(results: &Results) -> String {
    let mut text = "| | median, µs | 99th percentile, µs | CPU, µs |\n|---|---|---|---|\n".to_owned();
    for (client, (p50, p99, cpu)) in by_rank(results.echo.clone()) {
        let _ = writeln!(text, "| {} | {p50:.0} | {p99:.0} | {cpu:.1} |", client.name);
    }
    text
}

fn codec(results: &Results) -> String {
    let mut text =
        "| | 16 B, encode | 16 B, decode | 4 KiB, encode | 4 KiB, decode |\n|---|---|---|---|---|\n".to_owned();
    for library in CODECS {
        let counts = [16, 4096].map(|payload| results.codec.get(&(library, payload)).copied());
        let [Some((e16, d16)), Some((e4k, d4k))] = counts else { continue };
        let line = [e16, d16, e4k, d4k].map(short).join(" | ");
        let _ = writeln!(text, "| {library} | {line} |");
    }
    text
}

/// In the order of the list of clients, which puts the unit first.
fn by_rank<T>(lines: BTreeMap<Client, T>) -> Vec<(Client, T)> {
    let mut lines: Vec<_> = lines.into_iter().collect();
    lines.sort_by_key(|(client, _)| client.rank());
    lines
}

/// Three digits or more.
fn short(count: f64) -> String {
    match count {
        10_000.0.. => format!("{:.0}k", count / 1e3),
        1_000.0.. => format!("{:.1}k", count / 1e3),
        _ => format!("{count:.0}"),
    }
}
