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

/// How long a stage of `cargo xtask test` may take, in seconds: what hangs is to be a failure with a name.
const LIMIT: u32 = 1200;

/// What a run of stages may take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// Each stage [`LIMIT`], then it has failed.
    Limited,
    /// As long as it takes.
    Unlimited,
}

/// Runs all stages, also those after a failure, and fails when one did. The last line printed is
/// `N passed, M failed`, for people and for CI alike.
pub fn run_all(stages: &[Stage], time: Time) -> Result<()> {
    let begin = Instant::now();
    let mut lines = Vec::new();
    let mut failed = 0;
    for stage in stages {
        println!("== {}: {}", stage.name, stage.about);
        let begin = Instant::now();
        let outcome = if time == Time::Limited { run_apart(stage) } else { (stage.run)() };
        if let Err(error) = &outcome {
            println!("{error:#}");
        }
        failed += usize::from(outcome.is_err());
        let verdict = if outcome.is_ok() { "passed" } else { "FAILED" };
        let line = format!("{:<12}{:>8.1} s  {verdict}", stage.name, begin.elapsed().as_secs_f32());
        println!("-- {line}\n");
        lines.push(line);
    }
    println!("Summary, {:.0} s in all:", begin.elapsed().as_secs_f32());
    for line in &lines {
        println!("  {line}");
    }
    println!("{} passed, {failed} failed", stages.len() - failed);
    if failed > 0 {
        // The count above stays the last line of standard output; this goes to the exit status only.
        std::process::exit(1);
    }
    Ok(())
}

/// Runs a stage in a process of its own, which ends when its time does. It is this very program, even if another build
/// has replaced the file meanwhile.
fn run_apart(stage: &Stage) -> Result<()> {
    let program = format!("/proc/{}/exe", std::process::id());
    let mut command = Command::new("timeout");
    command.arg("--kill-after=20").arg(LIMIT.to_string()).arg(program).arg(stage.name);
    let status = command.status()?;
    ensure!(status.code() != Some(124), "{} has not come to an end in {LIMIT} s", stage.name);
    ensure!(status.success(), "{}: {status}", stage.name);
    Ok(())
}
