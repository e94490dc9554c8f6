//! The tags in the sources that name a statement of the specification, `[MQTT-3.1.2-9]`, or a hostile case, `[A07]`.
//!
//! A tag is read where it stands: in a test it says what the test proves, elsewhere what the line obeys. In a test it
//! may stand in the line of the `fn`, above it among comments and attributes, or anywhere in its body. A test that is
//! ignored proves nothing, so its tags do not count.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use regex_lite::Regex;

use crate::process::root;

/// One tag in one line.
pub struct Tag {
    /// What is between the brackets.
    pub id: String,
    pub kind: Kind,
    /// `crates/dunlin-core/src/topic.rs:31`
    pub place: String,
}

pub enum Kind {
    Code,
    /// With the name of the test, where the tag belongs to a function.
    Test(Option<String>),
    IgnoredTest,
}

/// All tags in the sources of all crates.
pub fn read() -> Result<Vec<Tag>> {
    let tag = Regex::new(r"\[(MQTT-[0-9]+\.[0-9]+\.[0-9]+-[0-9]+|U311-[0-9]+|[A-F][0-9][0-9])\]")?;
    let function = Regex::new(r"\bfn ([a-z0-9_]+)")?;
    let mut tags = Vec::new();
    for path in sources()? {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let name = path.strip_prefix(root())?.display().to_string();
        let lines: Vec<&str> = text.lines().collect();
        let tests = test_lines(&name, &lines);
        for (at, line) in lines.iter().enumerate() {
            for found in tag.captures_iter(line) {
                let kind = if tests.contains(&at) { test_at(&lines, at, &function) } else { Kind::Code };
                tags.push(Tag { id: found[1].to_owned(), kind, place: format!("{name}:{}", at + 1) });
            }
        }
    }
    Ok(tags)
}

/// Every Rust file under crates/*/src and crates/*/tests, in order.
pub fn sources() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for crate_ in std::fs::read_dir(root().join("crates"))? {
        let crate_ = crate_?.path();
        for directory in ["src", "tests"] {
            collect(&crate_.join(directory), &mut files)?;
        }
    }
    files.sort();
    Ok(files)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The lines of a file that are tests: all of it under tests/ or in a `tests.rs`, else what `#[cfg(test)] mod … {`
/// encloses. rustfmt puts the brace that closes the module below the word that opens it.
fn test_lines(name: &str, lines: &[&str]) -> std::ops::Range<usize> {
    if name.contains("/tests/") || name.ends_with("/tests.rs") {
        return 0..lines.len();
    }
    let opening = lines.windows(2).position(|pair| pair[0].trim() == "#[cfg(test)]" && is_module(pair[1]));
    let Some(begin) = opening else { return 0..0 };
    let indent = lines[begin].len() - lines[begin].trim_start().len();
    let closing = format!("{}}}", " ".repeat(indent));
    let end = lines.iter().skip(begin).position(|line| *line == closing).map_or(lines.len(), |length| begin + length);
    begin..end
}

fn is_module(line: &str) -> bool {
    line.trim_start().starts_with("mod ") && line.trim_end().ends_with('{')
}

/// The test that the tag in line `at` belongs to.
fn test_at(lines: &[&str], at: usize, function: &Regex) -> Kind {
    let is_above_a_function = |line: &&&str| line.trim_start().starts_with("//") || line.trim_start().starts_with("#[");
    // Among the comments and attributes above a function, the tag is that function's; else it is in a body.
    let below = at + lines[at..].iter().take_while(is_above_a_function).count();
    let start = if lines.get(below).is_some_and(|line| function.is_match(line)) {
        below
    } else {
        match lines[..=at].iter().rposition(|line| function.is_match(line)) {
            Some(start) => start,
            None => return Kind::Test(None),
        }
    };
    let above = lines[..start].iter().rev().take_while(is_above_a_function);
    if above.clone().any(|line| line.trim_start().starts_with("#[ignore")) {
        return Kind::IgnoredTest;
    }
    Kind::Test(function.captures(lines[start]).map(|found| found[1].to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(source: &str, at: usize) -> String {
        let lines: Vec<_> = source.lines().collect();
        match test_at(&lines, at, &Regex::new(r"\bfn ([a-z0-9_]+)").unwrap()) {
            Kind::Test(name) => name.unwrap_or_default(),
            Kind::IgnoredTest => "ignored".to_owned(),
            Kind::Code => "code".to_owned(),
        }
    }

    #[test]
    fn a_tag_belongs_to_the_test_that_it_stands_above_or_in() {
        let source =
            "// [A01]\n#[test]\nfn first() { // [A02]\n    // [A03]\n    x();\n}\n\n/// [A04]\n#[test]\nfn second() {}";
        assert_eq!([0, 2, 3, 7].map(|at| kind(source, at)), ["first", "first", "first", "second"]);
    }

    #[test]
    fn an_ignored_test_proves_nothing() {
        assert_eq!(kind("// [A01]\n#[test]\n#[ignore = \"slow\"]\nfn first() {}", 0), "ignored");
    }

    #[test]
    fn only_the_test_module_of_a_source_file_is_test() {
        let lines =
            ["fn f() {}", "#[cfg(test)]", "mod tests {", "    #[test]", "    fn t() {", "    }", "}", "// after"];
        let range = test_lines("crates/a/src/lib.rs", &lines);
        assert!(range.contains(&4) && !range.contains(&0) && !range.contains(&7));
    }
}
