//! The processes of a measurement: the sink on one core, a driver on another, alone or under a tool that counts.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use dunlin_bench::{Case, Report};

/// Where the programs of the benchmark are.
fn program(name: &str) -> Result<PathBuf> {
    let directory = std::env::current_exe()?.parent().context("programs lie in a directory")?.to_owned();
    Ok(directory.join(name))
}

/// The server of all drivers, until it is dropped.
pub struct Sink {
    process: Child,
    plain: String,
    secure: String,
    ca_file: PathBuf,
}

impl Sink {
    pub fn start() -> Result<Self> {
        let ca_file = program("sink-ca.pem")?;
        let mut command = pinned("0");
        command.arg(program("sink")?).arg(&ca_file).stdout(Stdio::piped());
        let mut process = command.spawn().context("cannot start the sink")?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("the sink prints")?).read_line(&mut line)?;
        let Some((plain, secure)) = line.trim().split_once(' ') else { bail!("the sink said `{line}`") };
        Ok(Self { plain: plain.to_owned(), secure: secure.to_owned(), process, ca_file })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What counts while a driver runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Nothing: the driver reports CPU time itself.
    None,
    /// User-space instructions.
    Callgrind,
    /// Calls of malloc and its like.
    Memcheck,
    /// System calls; needs root.
    Perf,
}

/// Runs one driver: its report, and what the tool counted.
pub fn drive(sink: &Sink, driver: &str, is_tls: bool, case: &Case, tool: Tool) -> Result<(Report, u64)> {
    let mut command = pinned("1");
    command.args(["timeout", "120"]);
    tool.add(&mut command);
    command.arg(program(driver)?).arg(case.client_id(0));
    match is_tls {
        true => command.args(["localhost", &sink.secure]).arg(&sink.ca_file),
        false => command.args(["127.0.0.1", &sink.plain]),
    };
    let (output, count) = tool.run(&mut command)?;
    let report = output.lines().find(|line| line.starts_with('{')).context("a driver prints its report")?;
    Ok((serde_json::from_str(report)?, count))
}

/// Instructions of one run of the codec program.
pub fn codec(library: &str, direction: &str, payload: usize, count: usize) -> Result<u64> {
    let mut command = pinned("1");
    Tool::Callgrind.add(&mut command);
    command.arg(program("codec")?).args([library, direction, &payload.to_string(), &count.to_string()]);
    Ok(Tool::Callgrind.run(&mut command)?.1)
}

/// Whether system calls can be counted here.
pub fn has_perf() -> bool {
    let mut command = Command::new("perf");
    Tool::perf_arguments(&mut command);
    let output = command.arg("true").output();
    output.is_ok_and(|output| output.status.success() && perf_count(&String::from_utf8_lossy(&output.stderr)).is_some())
}

impl Tool {
    fn add(self, command: &mut Command) {
        match self {
            Self::None => {}
            Self::Callgrind => {
                command.args(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]);
            }
            Self::Memcheck => {
                command.args(["valgrind", "--tool=memcheck", "--leak-check=no", "--undef-value-errors=no"]);
            }
            Self::Perf => {
                command.arg("perf");
                Self::perf_arguments(command);
            }
        }
    }

    fn perf_arguments(command: &mut Command) {
        command.args(["stat", "-x,", "-e", "raw_syscalls:sys_enter"]);
    }

    fn run(self, command: &mut Command) -> Result<(String, u64)> {
        let output = command.stdin(Stdio::null()).output().context("is valgrind installed, and taskset?")?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
        let count = match self {
            Self::None => Some(0),
            Self::Callgrind => after(&errors, "Collected : "),
            Self::Memcheck => after(&errors, "total heap usage: "),
            Self::Perf => perf_count(&errors),
        };
        Ok((String::from_utf8_lossy(&output.stdout).into_owned(), count.context(errors)?))
    }
}

/// The number behind `label`, thousands separated or not.
fn after(text: &str, label: &str) -> Option<u64> {
    let (_, rest) = text.split_once(label)?;
    let digits = rest.chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(char::is_ascii_digit);
    digits.collect::<String>().parse().ok()
}

fn perf_count(text: &str) -> Option<u64> {
    text.lines().find(|line| line.contains("sys_enter"))?.split(',').next()?.parse().ok()
}

/// A program on one core, with all its threads.
fn pinned(core: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]);
    command
}

/// The root of the project.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}
