//! One run of an image: QEMU, bounded in time, and what the image says.

use std::fmt::Display;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::LIMIT;
use super::broker::Broker;

/// What QEMU's clock follows.
#[derive(Clone, Copy, PartialEq)]
pub enum Count {
    /// The host's clock.
    Nothing,
    /// The instructions that are executed, 64 nanoseconds each.
    Instructions,
}

/// Nanoseconds that pass with each instruction, as a power of two.
const SHIFT: u32 = 6;
/// Nanoseconds of one tick of the board's timers.
const TICK_NS: u64 = 40;

/// Instructions in so many ticks of a run that counts them.
pub fn instructions(ticks: u64) -> u64 {
    (ticks * TICK_NS) >> SHIFT
}

/// A run to be made.
pub struct Run {
    image: PathBuf,
    arguments: Vec<String>,
    board: Board,
    count: Count,
    echo: bool,
}

/// What is emulated.
#[derive(Clone, Copy, PartialEq)]
pub enum Board {
    /// `mps2-an386`: Cortex-M4F, Ethernet, a serial port.
    Mps2,
    /// `microbit`: Cortex-M0, which speaks through semihosting only.
    Microbit,
}

/// What an image said.
pub struct Report {
    lines: Vec<String>,
}

impl Run {
    pub fn new(image: &Path) -> Self {
        Self { image: image.to_owned(), arguments: Vec::new(), board: Board::Mps2, count: Count::Nothing, echo: false }
    }

    pub fn argument(mut self, argument: impl Display) -> Self {
        self.arguments.push(argument.to_string());
        self
    }

    pub fn counting(mut self, count: Count) -> Self {
        self.count = count;
        self
    }

    pub fn on(mut self, board: Board) -> Self {
        self.board = board;
        self
    }

    /// Shows what the image says while it runs.
    pub fn watched(mut self) -> Self {
        self.echo = true;
        self
    }

    /// Runs it; fails if the image does.
    pub fn finish(self) -> Result<Report> {
        self.run(|_| Ok(()))
    }

    /// Runs it, and restarts the broker when it asks for that.
    pub fn with_broker(self, broker: &mut Broker) -> Result<Report> {
        self.run(|line| match line {
            "@ restart-broker" => broker.restart(),
            "@ wipe-broker" => broker.wipe(),
            _ => Ok(()),
        })
    }

    /// Runs it and kills it, this long after it has said so many lines that begin like this. It must not end by itself.
    pub fn killed_after(self, line: &str, count: usize, delay: Duration) -> Result<Report> {
        let (mut qemu, receiver) = self.start()?;
        let mut lines: Vec<String> = Vec::new();
        let mut left = count;
        let mut end = Instant::now() + if count == 0 { delay } else { LIMIT };
        loop {
            match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(said) => {
                    if left > 0 && said.starts_with(line) {
                        left -= 1;
                        end = if left == 0 { Instant::now() + delay } else { end };
                    }
                    lines.push(said.trim().to_owned());
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    bail!("{} ended by itself:\n{}", self.name(), lines.join("\n"))
                }
                Err(mpsc::RecvTimeoutError::Timeout) if left == 0 => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("{} took longer than {LIMIT:?}:\n{}", self.name(), lines.join("\n"))
                }
            }
        }
        qemu.0.kill()?;
        qemu.0.wait()?;
        lines.extend(receiver.iter().map(|said| said.trim().to_owned()));
        Ok(Report { lines })
    }

    /// Starts it; each line that it says comes through the channel.
    fn start(&self) -> Result<(Guard, mpsc::Receiver<String>)> {
        let mut qemu = Guard(self.command().spawn().context("cannot run qemu-system-arm")?);
        let output = qemu.0.stdout.take().context("QEMU has no output")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok((qemu, receiver))
    }

    fn run(self, mut on_line: impl FnMut(&str) -> Result<()>) -> Result<Report> {
        let end = Instant::now() + LIMIT;
        let (mut qemu, receiver) = self.start()?;
        let mut lines = Vec::new();
        loop {
            match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if self.echo {
                        println!("{line}");
                    }
                    on_line(line.trim())?;
                    lines.push(line.trim().to_owned());
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("{} took longer than {LIMIT:?}:\n{}", self.name(), lines.join("\n"))
                }
            }
        }
        match qemu.0.wait()?.success() {
            true => Ok(Report { lines }),
            false => bail!("{} failed:\n{}", self.name(), lines.join("\n")),
        }
    }

    fn command(&self) -> Command {
        let arguments: String = self.arguments.iter().map(|argument| format!(",arg={argument}")).collect();
        let mut command = Command::new("qemu-system-arm");
        command.args(["-nographic", "-monitor", "none", "-kernel"]).arg(&self.image);
        match self.board {
            Board::Mps2 => command.args(["-M", "mps2-an386", "-serial", "stdio"]),
            Board::Microbit => command.args(["-M", "microbit", "-serial", "none"]),
        };
        let mut semihosting = format!("enable=on,target=native,arg=image{arguments}");
        match self.board {
            Board::Mps2 => command.args(["-netdev", "user,id=n0", "-net", "nic,netdev=n0"]),
            // What it prints goes to a device, so that it comes out of QEMU's standard output.
            Board::Microbit => {
                semihosting += ",chardev=out";
                command.args(["-net", "none", "-chardev", "stdio,id=out"])
            }
        };
        command.arg("-semihosting-config").arg(semihosting);
        if self.count == Count::Instructions {
            command.arg("-icount").arg(format!("shift={SHIFT}"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }

    fn name(&self) -> String {
        let image = self.image.file_name().unwrap_or_default().to_string_lossy();
        format!("{image} {}", self.arguments.join(" "))
    }
}

impl Report {
    /// The words behind `@ NAME`, for each such line.
    pub fn figures<'r>(&'r self, name: &'r str) -> impl Iterator<Item = Vec<&'r str>> {
        self.lines.iter().filter_map(move |line| {
            let words: Vec<_> = line.strip_prefix("@ ")?.split_whitespace().collect();
            words.split_first().filter(|(first, _)| **first == name).map(|(_, rest)| rest.to_vec())
        })
    }

    /// The number behind the first `@ NAME`.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.figures(name).next()?.first()?.parse().ok()
    }
}

/// Ends QEMU whatever happens.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
