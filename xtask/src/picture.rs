//! Draws the picture of the demo in README.md: real output of a real run, as it looks in a terminal.

use std::fs;

use anstyle_svg::Term;
use anyhow::{Context, Result};

use crate::process::{self, cargo, root};

/// Where the picture lies.
const PICTURE: &str = "docs/pictures/demo.svg";

/// The scene that is shown: the one in which most goes wrong.
const SCENE: &str = "The link breaks in the middle of QoS 2 exchanges, on the way out";

pub fn run() -> Result<()> {
    let mut command = cargo();
    command.args(["run", "--release", "--package=dunlin-cli", "--", "demo"]).env("CLICOLOR_FORCE", "1");
    let story = process::output(&mut command)?;
    let (scene, end) = (scene(&story)?, end(&story)?);
    let text = format!("\x1b[1m$ cargo run --release -p dunlin-cli -- demo\x1b[0m\n\n   ...\n\n{scene}\n   ...\n{end}");
    let path = root().join(PICTURE);
    fs::create_dir_all(path.parent().context("a folder")?)?;
    fs::write(&path, Term::new().render_svg(&text))?;
    println!("{PICTURE}: {} lines of {}", text.lines().count(), story.lines().count());
    Ok(())
}

/// From the title to the next one.
fn scene(story: &str) -> Result<String> {
    let lines: Vec<_> = story.lines().collect();
    let from = lines.iter().position(|line| line.contains(SCENE)).context("the scene is not there")?;
    let rest = &lines[from..];
    let to = rest.iter().position(|line| line.is_empty()).context("the scene has no end")?;
    Ok(rest[..to].join("\n"))
}

/// The table and the verdict.
fn end(story: &str) -> Result<&str> {
    let at = story.find("\n         sent").context("the table is not there")?;
    Ok(&story[at..])
}
