//! The Rust blocks of README.md and the other documents are programs that compile, and run unless they say `no_run`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use cargo_metadata::Message;

use crate::process::{self, cargo, root};

/// The crates that a document may use.
const CRATES: [&str; 3] = ["dunlin", "dunlin_core", "tokio"];

/// Builds all of them: the example brings tokio as an application has it, with its macros.
const BUILD: [&str; 9] = [
    "build",
    "--message-format=json",
    "--package=dunlin",
    "--package=dunlin-core",
    "--lib",
    "--example",
    "service",
    "--features",
    "dunlin/tokio",
];

pub fn run() -> Result<()> {
    let libraries = build()?;
    let mut documents = vec![root().join("README.md"), root().join("ARCHITECTURE.md")];
    for entry in std::fs::read_dir(root().join("docs"))? {
        documents.push(entry?.path());
    }
    documents.sort();
    let mut tested = 0;
    for document in &documents {
        let Ok(text) = std::fs::read_to_string(document) else { continue };
        if !text.contains("```rust") {
            continue;
        }
        let report = process::output(&mut test(document, &libraries)?)?;
        let count = report.lines().find_map(|line| line.strip_prefix("running ")).unwrap_or("0 tests");
        println!("{}: {count}", document.strip_prefix(root())?.display());
        tested += 1;
    }
    println!("{tested} documents with programs");
    Ok(())
}

/// Builds the crates and says where their libraries are.
fn build() -> Result<Vec<(String, PathBuf)>> {
    let mut command = cargo();
    command.args(BUILD);
    let messages = process::output(&mut command)?;
    let mut libraries = Vec::new();
    for message in Message::parse_stream(messages.as_bytes()) {
        let Message::CompilerArtifact(artifact) = message? else { continue };
        let name = artifact.target.name.replace('-', "_");
        let library = artifact.filenames.iter().find(|file| file.extension() == Some("rlib"));
        if let (Some(library), true) = (library, CRATES.contains(&name.as_str())) {
            libraries.push((name, library.as_std_path().to_path_buf()));
        }
    }
    ensure!(libraries.len() == CRATES.len(), "cargo built {libraries:?}, not {CRATES:?}");
    Ok(libraries)
}

/// rustdoc takes a document for a page full of doc tests.
fn test(document: &Path, libraries: &[(String, PathBuf)]) -> Result<Command> {
    let mut command = Command::new("rustdoc");
    command.current_dir(root()).args(["--test", "--edition=2024"]).arg(document);
    for (name, library) in libraries {
        let directory = library.parent().context("a library lies in a directory")?;
        command.arg("--extern").arg(format!("{name}={}", library.display()));
        command.arg("-L").arg(format!("dependency={}", directory.join("deps").display()));
    }
    Ok(command)
}
