//! What a message costs: dunlin beside other clients, all doing the same against one sink, in one interleaved run.
//!
//! `cargo xtask bench` builds and runs it. It prints tables; with `--write` it puts them, and a chart, where the
//! documents show them. `--quick` counts instructions for dunlin and measures no time, so a busy machine gives the same
//! figures; `--times` measures nothing but CPU time. Both do small messages only. `--only DRIVER,DRIVER` leaves the
//! others out.

mod chart;
mod measure;
mod run;
mod table;

use anyhow::Result;
use measure::{Extent, Plan, Results};

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let only = arguments.iter().position(|argument| argument == "--only").and_then(|at| arguments.get(at + 1));
    let extent = match () {
        () if has("--quick") => Extent::Counts,
        () if has("--times") => Extent::Times,
        () => Extent::All,
    };
    let plan = Plan::new(extent, only.map(|names| names.split(',').collect()));
    let results = Results::measure(&plan)?;
    let tables = table::all(&results);
    for (title, text) in &tables {
        println!("\n{title}\n\n{text}");
    }
    if has("--write") {
        table::write(&tables)?;
        if !has("--quick") {
            chart::write(&results)?; // of times, which the quick form does not take
        }
    }
    Ok(())
}
