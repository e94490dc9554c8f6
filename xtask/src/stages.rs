//! Runs stages one after the other, a line for each, and closes with a count.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};

/// One promise of the project and the function that checks it.
pub struct Stage {
    /// What follows `cargo xtask`.
    pub name: &'static str,
    /// The promise, as a sentence.
    pub about: &'static str,
    /// Checks it. What it prints is its report.
    pub run: fn() -> Result<()>,
}

/// How long a provisional stage may take, in seconds.
const PROVISIONAL_LIMIT: &str = "900";

/// Runs all stages, also those after a failure, and fails when one did that is not provisional.
///
/// A provisional stage runs in a process of its own with a time limit; that it failed is printed in the summary and does
/// not count. The last line printed is `N passed, M failed`, for people and for CI alike.
pub fn run_all(stages: &[Stage], provisional: &[&str]) -> Result<()> {
    let begin = Instant::now();
    let mut lines = Vec::new();
    let (mut passed, mut failed) = (0, 0);
    for stage in stages {
        println!("== {}: {}", stage.name, stage.about);
        let begin = Instant::now();
        let is_provisional = provisional.contains(&stage.name);
        let outcome = if is_provisional { run_apart(stage) } else { (stage.run)() };
        if let Err(error) = &outcome {
            println!("{error:#}");
        }
        let verdict = match (&outcome, is_provisional) {
            (Ok(()), _) => "passed",
            (Err(_), false) => "FAILED",
            (Err(_), true) => "FAILED (provisional, not counted)",
        };
        passed += usize::from(outcome.is_ok());
        failed += usize::from(outcome.is_err() && !is_provisional);
        let line = format!("{:<12}{:>8.1} s  {verdict}", stage.name, begin.elapsed().as_secs_f32());
        println!("-- {line}\n");
        lines.push(line);
    }
    println!("Summary, {:.0} s in all:", begin.elapsed().as_secs_f32());
    for line in &lines {
        println!("  {line}");
    }
    println!("{passed} passed, {failed} failed");
    if failed > 0 {
        // The count above stays the last line of standard output; this goes to the exit status only.
        std::process::exit(1);
    }
    Ok(())
}

fn run_apart(stage: &Stage) -> Result<()> {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=20", PROVISIONAL_LIMIT]).arg(std::env::current_exe()?).arg(stage.name);
    let status = command.status()?;
    ensure!(status.success(), "{}: {status}", stage.name);
    Ok(())
}
