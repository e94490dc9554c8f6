//! The stage `model`: every order of events within bounds, and faults that must show. See crates/dunlin-model.

use anyhow::{Result, ensure};

use crate::process::{self, cargo};

/// States that the short bounds must hold: fewer would mean that the model lost something.
const SHORT: u64 = 1_000_000;
const LONG: u64 = 10_000_000;

pub fn run() -> Result<()> {
    explore("short", SHORT)?;
    print!("{}", checker("faults")?);
    Ok(())
}

pub fn verify() -> Result<()> {
    explore("long", LONG)
}

fn explore(bounds: &str, least: u64) -> Result<()> {
    let report = checker(bounds)?;
    print!("{report}");
    let states = report.lines().last().and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    ensure!(states.is_some_and(|states| states >= least), "fewer than {least} states were explored");
    Ok(())
}

fn checker(argument: &str) -> Result<String> {
    process::output(cargo().args(["run", "--quiet", "--profile", "model", "--package", "dunlin-model", "--", argument]))
}
