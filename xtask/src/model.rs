//! The stage `model`: every order of events within bounds, and faults that must show. See crates/dunlin-model.

use anyhow::{Result, ensure};

use crate::process::{self, cargo};

/// Which session: all of it, or that of a small device, where other parts stand in.
struct Build {
    features: &'static [&'static str],
    /// States that the bounds must hold: fewer would mean that the model lost something.
    short: u64,
    long: u64,
}

const BUILDS: [Build; 2] = [
    Build { features: &[], short: 1_000_000, long: 10_000_000 },
    Build { features: &["--no-default-features"], short: 400_000, long: 4_000_000 },
];

pub fn run() -> Result<()> {
    for build in &BUILDS {
        build.explore("short", build.short)?;
        print!("{}", build.checker("faults")?);
    }
    Ok(())
}

pub fn verify() -> Result<()> {
    BUILDS.iter().try_for_each(|build| build.explore("long", build.long))
}

impl Build {
    fn explore(&self, bounds: &str, least: u64) -> Result<()> {
        let report = self.checker(bounds)?;
        print!("{report}");
        let states = report.lines().last().and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        ensure!(states.is_some_and(|states| states >= least), "fewer than {least} states were explored");
        Ok(())
    }

    fn checker(&self, argument: &str) -> Result<String> {
        let mut command = cargo();
        command.args(["run", "--quiet", "--profile", "model", "--package", "dunlin-model"]).args(self.features);
        process::output(command.args(["--", argument]))
    }
}
