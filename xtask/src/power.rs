//! The stage `power`: stories on flash with the power cut in them, and a process that is killed. See
//! crates/dunlin-store/tests.

use anyhow::Result;

use crate::process::{self, cargo};

pub fn run() -> Result<()> {
    tests(&["cuts_at_every_third_write_and_erase"])
}

pub fn verify() -> Result<()> {
    tests(&["every_cut_of_every_story", "two_hundred_kills", "erases_per_thousand_messages_on_large_pages"])
}

/// Tests of the store that take too long for `cargo test`, optimised, with what they print.
fn tests(names: &[&str]) -> Result<()> {
    for name in names {
        let mut command = cargo();
        command.args(["test", "--profile", "model", "--package", "dunlin-store", "--test", "main", "--"]);
        let report = process::output(command.args(["--ignored", "--nocapture", name]))?;
        let lines = report
            .lines()
            .filter(|line| line.contains("power cuts") || line.contains("killed") || line.starts_with('|'));
        lines.for_each(|line| println!("{line}"));
    }
    Ok(())
}
