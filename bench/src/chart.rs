//! The chart of the README: CPU time per message, as a multiple of the raw socket's.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;

use crate::measure::{Cell, Client, Column, RAW, Results};
use crate::run::root;

const PATH: &str = "docs/speed.svg";

/// Columns that are shown: with a payload of 16 bytes.
const GROUPS: [(&str, bool, u8); 4] = [
    ("Publish at QoS 1", false, 1),
    ("Publish at QoS 2", false, 2),
    ("Receive at QoS 1", true, 1),
    ("Receive at QoS 2", true, 2),
];

/// Longer bars are cut, and say how long they were.
const MOST: f64 = 10.0;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 190.0;
const UNIT: f64 = (WIDTH - LEFT - 70.0) / MOST;
const BAR: f64 = 16.0;

pub fn write(results: &Results) -> Result<()> {
    let mut body = String::new();
    let mut y = 56.0;
    for (title, is_receive, qos) in GROUPS {
        let column = Column { is_receive, qos, payload: 16 };
        let mut bars: Vec<(Client, f64)> = Vec::new();
        for ((client, of), cell) in &results.cells {
            if let (true, false, Some(cpu)) = (*of == column, client.is_tls, cell.cpu_us()) {
                bars.push((*client, cpu));
            }
        }
        let Some(raw) = results.cells.get(&(RAW, column)).and_then(Cell::cpu_us) else { continue };
        bars.sort_by_key(|(client, _)| client.rank());
        let _ = writeln!(body, r#"<text x="12" y="{y}" class="title">{title}</text>"#);
        y += 10.0;
        for (client, cpu) in bars {
            let times = cpu / raw;
            let length = times.min(MOST) * UNIT;
            let class = match client {
                RAW => "raw",
                client if client.name.starts_with("dunlin") => "ours",
                _ => "peer",
            };
            let base = y + BAR - 4.0;
            let _ = writeln!(body, r#"<text x="{}" y="{base}" class="name">{}</text>"#, LEFT - 8.0, client.name);
            let _ = writeln!(
                body,
                r#"<rect x="{LEFT}" y="{y}" width="{length:.1}" height="{}" class="{class}"/>"#,
                BAR - 3.0
            );
            let cut = if times > MOST { " →" } else { "" };
            let _ = writeln!(body, r#"<text x="{:.1}" y="{base}">{times:.1} ×{cut}</text>"#, LEFT + length + 5.0);
            y += BAR;
        }
        y += 26.0;
    }
    let one = LEFT + UNIT;
    let end = y - 20.0;
    let svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" font-family="sans-serif" font-size="12">
<style>
.title {{ font-weight: bold; font-size: 13px }} .name {{ text-anchor: end }} text {{ fill: #333 }}
.raw {{ fill: #9aa0a6 }} .ours {{ fill: #1a7f5a }} .peer {{ fill: #c9ced6 }}
</style>
<rect width="{WIDTH}" height="{y}" fill="#fff"/>
<text x="12" y="24" class="title">CPU time per message of 16 bytes, 100 in flight; the raw socket is 1 (shorter is better)</text>
{body}<line x1="{one:.1}" y1="40" x2="{one:.1}" y2="{end}" stroke="#555" stroke-dasharray="3 3"/>
</svg>
"##
    );
    fs::write(root().join(PATH), svg)?;
    Ok(())
}
