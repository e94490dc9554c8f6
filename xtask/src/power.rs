//! The stage `power`: stories on flash with the power cut in them, and a process that is killed. See
//! crates/dunlin-store/tests.

use anyhow::Result;

use crate::process::{self, cargo};

pub fn run() -> Result<()> {
    tests(&[
        "power::cuts_at_every_third_write_and_erase",
        "wear::erases_per_thousand_messages",
        "wear::recovery_reads_what_is_stored",
    ])
}

pub fn verify() -> Result<()> {
    tests(&[
        "power::every_cut_of_every_story",
        "kill::two_hundred_kills",
        "wear::erases_per_thousand_messages_on_large_pages",
    ])
}

/// Tests of the store that take too long for `cargo test`, optimised, with what they print.
fn tests(names: &[&str]) -> Result<()> {
    for name in names {
        let mut command = cargo();
        command.args(["test", "--profile", "model", "--package", "dunlin-store", "--test", "main", "--"]);
        let report = process::output(command.args(["--include-ignored", "--nocapture", "--exact", name]))?;
        // The runner may have begun a line of its own.
        for line in report.lines() {
            match line.find('|') {
                Some(at) => println!("{}", &line[at..]),
                None if line.contains("power cuts") || line.contains("killed") => println!("{line}"),
                None => {}
            }
        }
    }
    Ok(())
}
