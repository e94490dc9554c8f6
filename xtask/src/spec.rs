//! The table that says for each statement of MQTT 3.1.1 which line keeps it and which test proves it, and for each
//! hostile case which test survives it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process::root;
use crate::tags::{self, Kind, Tag};

#[derive(Deserialize)]
struct Specification {
    statement: Vec<Statement>,
    /// Duties that the specification gives no number.
    unnumbered: Vec<Statement>,
}

#[derive(Deserialize)]
struct Statement {
    id: String,
    applies_to: String,
    must: String,
}

/// What does not bind dunlin.
#[derive(Deserialize)]
struct NotApplicable {
    statement: Vec<Reason>,
    #[serde(default)]
    hostile: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    id: String,
    reason: String,
}

/// Where a tag stands.
#[derive(Default)]
struct Places {
    code: Vec<String>,
    tests: Vec<String>,
}

pub fn run() -> Result<()> {
    let specification: Specification = read("mqtt-3.1.1.toml")?;
    let not_applicable: NotApplicable = read("na.toml")?;
    let cases = hostile_cases()?;
    let mut findings = Vec::new();

    let mut places: BTreeMap<String, Places> = BTreeMap::new();
    for tag in tags::read()? {
        let known =
            specification.statement.iter().chain(&specification.unnumbered).any(|statement| statement.id == tag.id);
        if !known && !cases.contains(&tag.id) {
            findings.push(format!("{} names {}, which is no statement and no hostile case", tag.place, tag.id));
        }
        note(&mut places, tag);
    }

    statements(&specification, &not_applicable.statement, &places, &mut findings);
    hostile(&cases, &not_applicable.hostile, &places, &mut findings);
    if !findings.is_empty() {
        bail!("{} findings:\n  {}", findings.len(), findings.join("\n  "));
    }
    Ok(())
}

fn read<T: for<'a> Deserialize<'a>>(file: &str) -> Result<T> {
    let path = root().join("docs/conformance").join(file);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

/// The rows of sections A to F: what can happen to a client of MQTT 3.1.1.
fn hostile_cases() -> Result<BTreeSet<String>> {
    let path = root().join("docs/conformance/hostile-cases.md");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let ids = text.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |")).map(|(id, _)| id);
    let is_case = |id: &&str| {
        let Some((section, number)) = id.split_at_checked(1) else { return false };
        ("A".."G").contains(&section) && number.len() == 2 && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    Ok(ids.filter(is_case).map(str::to_owned).collect())
}

fn note(places: &mut BTreeMap<String, Places>, tag: Tag) {
    // A model broker obeys the server's half of a statement: that does not keep the client's.
    let is_model =
        ["crates/dunlin-testkit/src", "crates/dunlin-model/src"].iter().any(|model| tag.place.starts_with(model));
    let entry = places.entry(tag.id).or_default();
    match tag.kind {
        Kind::Code if is_model => {}
        Kind::Code => entry.code.push(tag.place),
        Kind::Test(Some(name)) => entry.tests.push(format!("{name} ({})", tag.place)),
        Kind::Test(None) => entry.tests.push(tag.place),
        Kind::IgnoredTest => {}
    }
}

fn statements(spec: &Specification, reasons: &[Reason], places: &BTreeMap<String, Places>, findings: &mut Vec<String>) {
    let nowhere = Places::default();
    let (mut traced, mut bound) = (0, 0);
    for statement in &spec.statement {
        let id = &statement.id;
        let found = places.get(id).unwrap_or(&nowhere);
        let reason = reasons.iter().find(|reason| reason.id == *id);
        let binds_clients = matches!(statement.applies_to.as_str(), "client" | "both");
        if let Some(reason) = reason {
            println!("{id:<16}{:<10}not applicable: {}", statement.applies_to, reason.reason);
            if binds_clients {
                findings.push(format!("{id} binds clients, so na.toml cannot excuse it"));
            }
            continue;
        }
        println!("{id:<16}{:<10}code {}; tests {}", statement.applies_to, list(&found.code), list(&found.tests));
        bound += 1;
        match (found.code.is_empty(), found.tests.is_empty()) {
            (false, false) => traced += 1,
            (true, true) => findings.push(format!("{id} has neither code nor test: {}", statement.must)),
            (true, false) => findings.push(format!("{id} has no code: {}", statement.must)),
            (false, true) => findings.push(format!("{id} has no test: {}", statement.must)),
        }
    }
    for reason in reasons.iter().filter(|reason| !spec.statement.iter().any(|statement| statement.id == reason.id)) {
        findings.push(format!("na.toml names {}, which is no statement", reason.id));
    }
    let unproved = |duty: &&Statement| places.get(&duty.id).is_none_or(|found| found.tests.is_empty());
    let untested: Vec<_> = spec.unnumbered.iter().filter(unproved).map(|duty| duty.id.as_str()).collect();
    println!("{traced} of {bound} statements traced to code and tests; {} do not bind a client", reasons.len());
    println!("{} duties without a number, not yet tagged by a test: {}", untested.len(), untested.join(" "));
}

fn hostile(
    cases: &BTreeSet<String>,
    reasons: &[Reason],
    places: &BTreeMap<String, Places>,
    findings: &mut Vec<String>,
) {
    let tested = |id: &str| places.get(id).is_some_and(|found| !found.tests.is_empty());
    let excused = |id: &str| reasons.iter().any(|reason| reason.id == id);
    let mut covered = 0;
    for section in "ABCDEF".chars() {
        let rows: Vec<_> = cases.iter().filter(|id| id.starts_with(section)).collect();
        let missing: Vec<_> = rows.iter().filter(|id| !tested(id) && !excused(id)).map(|id| id.as_str()).collect();
        let passed = rows.iter().filter(|id| tested(id)).count();
        covered += passed;
        println!("hostile cases {section}: {passed} of {} tested", rows.len());
        if !missing.is_empty() {
            findings.push(format!("no test is tagged {}", missing.join(" ")));
        }
    }
    for reason in reasons {
        println!("hostile case {}: not applicable: {}", reason.id, reason.reason);
        if !cases.contains(&reason.id) {
            findings.push(format!("na.toml names {}, which is no hostile case", reason.id));
        }
    }
    println!("{covered} of {} hostile cases tested", cases.len());
}

/// The first of `places` and how many more there are.
fn list(places: &[String]) -> String {
    match places {
        [] => "-".to_owned(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first} +{}", rest.len()),
    }
}
