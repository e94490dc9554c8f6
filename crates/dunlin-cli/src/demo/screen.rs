//! The story as it is told: one line a packet, in the order in which things happened.
//!
//! Colour only for a terminal, and not with `NO_COLOR`: `anstream` sees to that.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};

use super::packet::Packet;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GREEN: Style = AnsiColor::Green.on_default();
const CYAN: Style = AnsiColor::Cyan.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default();

/// Where the story is told.
pub struct Screen {
    begin: Instant,
    pause: Duration,
    out: Mutex<Out>,
}

struct Out {
    stdout: AutoStream<std::io::Stdout>,
    scene: u32,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Passed,
    Lost,
}

impl Screen {
    /// Pauses between scenes for people, not for pipes.
    pub fn new(is_fast: bool) -> Self {
        let stdout = std::io::stdout();
        let pause = if is_fast || !stdout.is_terminal() { Duration::ZERO } else { Duration::from_millis(700) };
        let out = Mutex::new(Out { stdout: AutoStream::auto(stdout), scene: 0 });
        Self { begin: Instant::now(), pause, out }
    }

    /// A new scene begins.
    pub fn scene(&self, title: &str) {
        std::thread::sleep(self.pause);
        let mut out = self.lock();
        out.scene += 1;
        let scene = out.scene;
        out.line(format_args!("\n{BOLD}{scene}. {title}{BOLD:#}"));
    }

    /// What the reader should know before looking at the next packets.
    pub fn say(&self, text: &str) {
        self.lock().line(format_args!("   {text}"));
    }

    /// A packet passes on the link of `client`, or is lost there.
    pub fn packet(&self, client: &str, way: Way, packet: &Packet, fate: Fate) {
        let (arrow, style) = match (way, fate) {
            (Way::Up, Fate::Passed) => ("──▶ broker", CYAN),
            (Way::Down, Fate::Passed) => ("◀── broker", GREEN),
            (Way::Up, Fate::Lost) => ("──✗ broker", RED),
            (Way::Down, Fate::Lost) => ("✗── broker", RED),
        };
        let (time, text) = (self.time(), format!("{:<11}{packet}", packet.name()));
        let lost = if fate == Fate::Lost { "  lost: the link is cut" } else { "" };
        self.lock().line(format_args!(
            "{DIM}{time}{DIM:#}  {client:>7} {style}{arrow}{style:#}  {}{RED}{lost}{RED:#}",
            text.trim_end()
        ));
    }

    /// Something happened at `who` that is not a packet.
    pub fn note(&self, who: &str, text: impl Display) {
        let time = self.time();
        self.lock().line(format_args!("{DIM}{time}{DIM:#}  {who:>7} {YELLOW}•{YELLOW:#} {text}"));
    }

    /// A line as it is.
    pub fn line(&self, text: impl Display) {
        self.lock().line(format_args!("{text}"));
    }

    /// A line that says whether all is well.
    pub fn verdict(&self, is_well: bool, text: impl Display) {
        let style = if is_well { GREEN.bold() } else { RED.bold() };
        self.lock().line(format_args!("{style}{text}{style:#}"));
    }

    fn time(&self) -> String {
        format!("{:7.3}", self.begin.elapsed().as_secs_f64())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Out {
    /// Whoever reads may have gone; the story goes on, since its end is the exit code.
    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.stdout, "{text}").and_then(|()| self.stdout.flush());
    }
}
