//! Runs stages one after the other, a line for each, and closes with a count.

use std::time::Instant;

use anyhow::Result;

/// One promise of the project and the function that checks it.
pub struct Stage {
    /// What follows `cargo xtask`.
    pub name: &'static str,
    /// The promise, as a sentence.
    pub about: &'static str,
    /// Checks it. What it prints is its report.
    pub run: fn() -> Result<()>,
}

/// Runs all stages, also those after a failure, and fails when one did.
///
/// The last line printed is `N passed, M failed`, for people and for CI alike.
pub fn run_all(stages: &[Stage]) -> Result<()> {
    let begin = Instant::now();
    let mut lines = Vec::new();
    let mut failed = 0;
    for stage in stages {
        println!("== {}: {}", stage.name, stage.about);
        let begin = Instant::now();
        let outcome = (stage.run)();
        if let Err(error) = &outcome {
            failed += 1;
            println!("{error:#}");
        }
        let verdict = if outcome.is_ok() { "passed" } else { "FAILED" };
        let line = format!("{:<12}{verdict}{:>8.1} s", stage.name, begin.elapsed().as_secs_f32());
        println!("-- {line}\n");
        lines.push(line);
    }
    println!("Summary, {:.0} s in all:", begin.elapsed().as_secs_f32());
    for line in &lines {
        println!("  {line}");
    }
    let passed = stages.len() - failed;
    println!("{passed} passed, {failed} failed");
    if failed > 0 {
        // The count above stays the last line of standard output; this goes to the exit status only.
        std::process::exit(1);
    }
    Ok(())
}
