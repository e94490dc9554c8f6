//! Explores the model within named bounds, or seeds every fault; prints what was explored and found.

use std::process::ExitCode;
use std::time::Instant;

use dunlin_model::{Fault, Model, Named, find, long, seeded, short};
use stateright::{Checker, Model as _};

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    let fine = match argument.as_deref() {
        Some("short") => explore(&short()),
        Some("long") => explore(&long()),
        Some("faults") => seed_faults(),
        _ => {
            eprintln!("usage: dunlin-model short|long|faults");
            return ExitCode::from(2);
        }
    };
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every state within each of the bounds.
fn explore(all: &[Named]) -> bool {
    let (mut unique, mut fine) = (0, true);
    let begin = Instant::now();
    for Named { name, bounds, limit } in all {
        let begin = Instant::now();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let builder = Model::new(bounds.clone(), None).checker().threads(threads);
        let builder = match limit {
            Some(limit) => builder.target_state_count(*limit),
            None => builder,
        };
        let checker = builder.spawn_bfs().join();
        let is_whole = limit.is_none_or(|limit| checker.state_count() < limit);
        unique += checker.unique_state_count();
        println!("{name}: {bounds}");
        println!(
            "    {}{} unique states of {} generated, depth {}, {:.1} s",
            if is_whole { "all " } else { "stopped at " },
            checker.unique_state_count(),
            checker.state_count(),
            checker.max_depth(),
            begin.elapsed().as_secs_f32()
        );
        for (property, path) in checker.discoveries() {
            if property == "no rule is broken" {
                fine = false;
                println!("    BROKEN: {:?}\n{}", path.last_state().verdict(), steps(path));
            }
        }
        for property in ["all is published, delivered and shown", "nothing is left to go wrong"] {
            if is_whole && checker.discovery(property).is_none() {
                fine = false;
                println!("    NOT REACHED: {property}");
            }
        }
    }
    println!("{unique} unique states in all, {:.0} s; {}", begin.elapsed().as_secs_f32(), verdict(fine));
    fine
}

fn verdict(fine: bool) -> &'static str {
    if fine { "no rule is broken" } else { "FAILED" }
}

/// Each fault in turn: what finds it, and in how many steps.
fn seed_faults() -> bool {
    let mut found = 0;
    for fault in Fault::all() {
        match seeded(fault).iter().find_map(|bounds| find(Model::new(bounds.clone(), Some(fault)))) {
            Some((verdict, path)) => {
                found += 1;
                println!("{fault}: {verdict}, after {} steps", path.len());
            }
            None => println!("{fault}: NOT FOUND"),
        }
    }
    println!("{found} of {} faults found", Fault::all().count());
    found == Fault::all().count()
}

fn steps(path: stateright::Path<dunlin_model::World, dunlin_model::Action>) -> String {
    path.into_actions().iter().map(|action| format!("      {action:?}\n")).collect()
}
