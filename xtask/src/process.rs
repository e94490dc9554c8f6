//! Running other programs: quiet when they succeed, everything they said when they fail.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where stages put what they build: never in the way of the developer's own `cargo build`.
pub fn scratch(name: &str) -> PathBuf {
    root().join("target").join("xtask").join(name)
}

/// The cargo that runs this program, from the root of the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.current_dir(root());
    command
}

/// Runs `command` and returns its standard output; on failure the error holds all that it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", name(command)))?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        bail!("{text}{}\n{} failed: {}", String::from_utf8_lossy(&done.stderr), name(command), done.status);
    }
    Ok(text)
}

/// Runs `command` for its effect; see [`output`].
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// The command as one would type it.
fn name(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    let words: Vec<_> = std::iter::once(program).chain(arguments).collect();
    format!("`{}`", words.join(" "))
}
