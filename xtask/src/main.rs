//! The project's chores, one command each.
//!
//! `cargo xtask test` runs every stage in order and is all that CI calls; each stage also runs alone. A stage is a
//! function that returns an error when its promise does not hold; what it prints on the way is its report. This file
//! only says which stages there are.

mod bench;
mod c;
mod callgraph;
mod cargo;
mod core_api;
mod deviations;
mod durable_sizes;
mod elf;
mod features;
mod firmware;
mod fuzz;
mod images;
mod model;
mod packages;
mod panic;
mod picture;
mod power;
mod process;
mod readme;
mod sizes;
mod spec;
mod stack;
mod stages;
mod tags;

use std::process::ExitCode;

use stages::{Stage, Time};

/// Every stage, in the order in which `test` runs them: the quick ones that fail often come first.
const STAGES: &[Stage] = &[
    Stage { name: "fmt", about: "all sources are formatted", run: cargo::fmt },
    Stage { name: "deps", about: "the core depends on nothing and runs no code at build time", run: cargo::deps },
    Stage { name: "deviations", about: "every exception to the coding rules is recorded", run: deviations::run },
    Stage { name: "clippy", about: "no lint in the workspace, none of the core's stricter set", run: cargo::clippy },
    Stage { name: "core", about: "the tests of the session", run: cargo::core_tests },
    Stage {
        name: "tests",
        about: "all other tests of the workspace, with every feature and a real broker",
        run: cargo::tests,
    },
    Stage { name: "doc", about: "rustdoc has nothing to complain about", run: cargo::doc },
    Stage { name: "readme", about: "the Rust blocks of the documents compile and pass", run: readme::run },
    Stage {
        name: "features",
        about: "every set of the core's features builds, host and Cortex-M0",
        run: features::run,
    },
    Stage { name: "spec", about: "every statement and hostile case has its code and its test", run: spec::run },
    Stage { name: "size", about: "flash, RAM and stack of one application stay within limits", run: sizes::run },
    Stage { name: "panic", about: "no panic and no formatting can be reached from the core", run: panic::run },
    Stage { name: "c", about: "programs in C work, and pay what they should", run: c::run },
    Stage {
        name: "model",
        about: "a million states of the session break no rule, and every fault shows",
        run: model::run,
    },
    Stage { name: "power", about: "no message is lost or doubled when the power fails", run: power::run },
    Stage { name: "fuzz", about: "no input to session or flash breaks them, in the time given", run: fuzz::run },
    Stage {
        name: "firmware",
        about: "images run in QEMU against a real broker, and refuse what they must",
        run: images::run,
    },
    Stage { name: "stack", about: "no call into the core needs more than 512 bytes of stack", run: stack::run },
];

/// What takes too long for every change.
const VERIFY: &[Stage] = &[
    Stage { name: "model", about: "ten million states of the session", run: model::verify },
    Stage { name: "power", about: "every power cut of every story, and two hundred kills", run: power::verify },
    Stage { name: "fuzz", about: "twenty minutes of inputs for each target", run: fuzz::verify },
    Stage {
        name: "restarts",
        about: "a broker restarted a hundred times under a hundred tasks that publish at QoS 2",
        run: cargo::restarts,
    },
    Stage { name: "resets", about: "firmware on flash, its emulator killed a hundred times", run: images::resets },
];

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    let outcome = match argument.as_deref() {
        Some("test") => packages::ensure().and_then(|()| stages::run_all(STAGES, Time::Limited)),
        Some("picture") => picture::run(),
        Some("bench") => bench::run(&std::env::args().skip(2).collect::<Vec<_>>()),
        Some("verify") => stages::run_all(VERIFY, Time::Unlimited),
        Some(name) => match STAGES.iter().chain(VERIFY).find(|stage| stage.name == name) {
            Some(stage) => (stage.run)(),
            None => {
                eprintln!("no stage is called `{name}`\n");
                usage();
                return ExitCode::from(2);
            }
        },
        None => {
            usage();
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() {
    eprintln!(
        "usage: cargo xtask test     every stage below, then `N passed, M failed`\n       cargo xtask verify   the same promises, in more cases\n       cargo xtask picture  draws the demo for README.md\n       cargo xtask bench    what a message costs, beside other clients (--quick, --write)\n       cargo xtask STAGE\n"
    );
    let is_extra = |stage: &&Stage| STAGES.iter().all(|other| other.name != stage.name);
    for stage in STAGES.iter().chain(VERIFY.iter().filter(is_extra)) {
        eprintln!("  {:<12}{}", stage.name, stage.about);
    }
}
