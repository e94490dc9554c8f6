//! The stage `fuzz`: coverage-guided fuzzing of the session and the flash store. See fuzz/.
//!
//! libFuzzer comes with a crate, and the compiler's coverage instrumentation is reached by flags that the stable
//! compiler takes. What was found once is kept in fuzz/regressions and replayed first.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::process::{self, cargo, root, scratch};

/// Each a file in fuzz/src/bin.
const TARGETS: &[&str] = &["session", "splits", "flash"];

/// Seconds for each target, as part of everything.
const SHORT: u32 = 15;
/// Seconds for each target of the long form.
const LONG: u32 = 1200;

/// Named, so that build scripts and macros are not instrumented as well.
const HOST: &str = "x86_64-unknown-linux-gnu";

/// What lets libFuzzer see which code an input reaches.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

pub fn run() -> Result<()> {
    campaign(SHORT)
}

pub fn verify() -> Result<()> {
    campaign(LONG)
}

fn campaign(seconds: u32) -> Result<()> {
    let directory = root().join("fuzz");
    let mut build = cargo();
    build.args(["build", "--quiet", "--release", "--target", HOST]).current_dir(&directory);
    process::run(build.env("RUSTFLAGS", COVERAGE).env("CARGO_TARGET_DIR", scratch("fuzz")))?;
    for target in TARGETS {
        let report = fuzz(&directory, target, seconds)?;
        let inputs = figure(&report, "stat::number_of_executed_units:")?;
        let new = figure(&report, "stat::new_units_added:")?;
        println!("{target:<10}{inputs:>12} inputs in {seconds} s, {new} that reached something new, no finding");
    }
    Ok(())
}

/// Replays what was found once, then looks for more; inputs of earlier runs on this machine are the start.
fn fuzz(directory: &Path, target: &str, seconds: u32) -> Result<String> {
    let binary = scratch("fuzz").join(HOST).join("release").join(target);
    let corpus = scratch("fuzz").join("corpus").join(target);
    std::fs::create_dir_all(&corpus)?;
    let regressions = directory.join("regressions").join(target);
    let mut command = std::process::Command::new(binary);
    command.arg(corpus);
    if regressions.is_dir() {
        command.arg(regressions);
    }
    command.args([&format!("-max_total_time={seconds}"), "-timeout=10", "-print_final_stats=1", "-verbosity=0"]);
    command.arg(format!("-artifact_prefix={}/{target}-", directory.display()));
    let output = command.output().with_context(|| format!("{target} does not run"))?;
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{target} has found something:\n{report}");
    Ok(report)
}

fn figure(report: &str, name: &str) -> Result<u64> {
    let line = report.lines().find(|line| line.starts_with(name));
    let word = line.and_then(|line| line.split_whitespace().nth(1));
    word.and_then(|word| word.parse().ok()).with_context(|| format!("no `{name}` in the report of a fuzz target"))
}
