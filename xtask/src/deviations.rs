//! Each exception to the coding rules stands in the source with its number, and in docs/deviations.md with its reason.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use regex_lite::Regex;

use crate::process::root;
use crate::tags;

pub fn run() -> Result<()> {
    let number = Regex::new(r"\bDEV-[0-9]{2}\b")?;
    let mut used = BTreeSet::new();
    for path in tags::sources()? {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        for line in text.lines().filter(|line| line.contains("reason =")) {
            for found in number.find_iter(line) {
                let fresh = used.insert(found.as_str().to_owned());
                ensure!(fresh, "{} stands in two places: one number, one place", found.as_str());
            }
        }
    }
    let record = std::fs::read_to_string(root().join("docs/deviations.md")).context("docs/deviations.md")?;
    let rows = record.lines().filter_map(|line| line.strip_prefix("| "));
    let recorded: BTreeSet<_> =
        rows.filter_map(|row| number.find(row)).map(|found| found.as_str().to_owned()).collect();
    let unrecorded: Vec<_> = used.difference(&recorded).map(String::as_str).collect();
    ensure!(unrecorded.is_empty(), "not in docs/deviations.md: {}", unrecorded.join(", "));
    let stale: Vec<_> = recorded.difference(&used).map(String::as_str).collect();
    ensure!(stale.is_empty(), "in docs/deviations.md, but in no source: {}", stale.join(", "));
    println!("{} deviations, all recorded", used.len());
    Ok(())
}
