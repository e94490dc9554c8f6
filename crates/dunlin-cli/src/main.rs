//! The `dunlin` command: `pub` and `sub` for scripts and people, `demo` for whoever wants to see what the library does.
//!
//! `args` says what can be asked for, `exit` how it ends. `publish` and `subscribe` do one command each, on the client
//! that `connect` builds and `supervise` watches.

mod args;
mod connect;
#[cfg(feature = "demo")]
mod demo;
mod exit;
mod format;
mod publish;
mod store;
mod subscribe;
mod supervise;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser;
use clap::error::{Error, ErrorKind};
use exit::Failure;

fn main() -> ExitCode {
    let result = match Cli::try_parse() {
        Ok(cli) => run(cli.command),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
            _ => Err(Failure::usage(one_line(&error))),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            anstream::eprintln!("dunlin: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Pub(args) => publish::run(args),
        Command::Sub(args) => subscribe::run(args),
        Command::Store { command } => store::run(&command),
        #[cfg(feature = "demo")]
        Command::Demo(args) => demo::run(&args),
    }
}

/// What is wrong with the command line, and what might be meant; without the usage.
fn one_line(error: &Error) -> String {
    let text = error.to_string();
    let paragraphs = text.split("\n\n").take_while(|paragraph| !paragraph.starts_with("Usage"));
    let lines = paragraphs.filter(|paragraph| !paragraph.starts_with("For more"));
    let words: Vec<_> = lines.flat_map(str::split_whitespace).collect();
    let line = words.join(" ");
    format!("{}; see --help", line.strip_prefix("error: ").unwrap_or(&line))
}
