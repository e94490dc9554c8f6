//! Features only add: every set of the core's features must build, on the host and on the smallest Cortex-M.

use std::collections::BTreeMap;
use std::thread;

use anyhow::{Result, bail};
use cargo_metadata::MetadataCommand;

use crate::cargo::core_package;
use crate::firmware::{self, CORTEX_M0};
use crate::process::{self, cargo, root, scratch};

/// Features that touch no behaviour and exclude each other, or serve tests alone: not multiplied with the rest.
const ALONE: [&str; 4] = ["defmt", "log", "suspend", "verify"];

pub fn run() -> Result<()> {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec()?;
    let core = core_package(&metadata)?;
    let sets: Vec<_> = sets(&core.features).iter().map(|set| set.join(",")).collect();
    // Most of a short build is one process waiting for another: both targets at the same time.
    let sets = &sets;
    let [host, device] = thread::scope(|scope| {
        [None, Some(CORTEX_M0.triple)]
            .map(|target| scope.spawn(move || check(sets, target)))
            .map(|checks| checks.join().unwrap_or_else(|_| bail!("a check panicked")))
    });
    host.and(device)?;
    println!("{} sets of features, each for the host and for {}", sets.len(), CORTEX_M0.triple);
    Ok(())
}

/// Each set for one target: without a warning, so that what a set does not use is not in it.
fn check(sets: &[String], target: Option<&str>) -> Result<()> {
    for features in sets {
        let mut command = if target.is_some() { firmware::cargo()? } else { cargo() };
        command.args(["check", "--quiet", "--package", "dunlin-core", "--no-default-features", "--features", features]);
        command.args(target.map(|triple| format!("--target={triple}")));
        command
            .env("RUSTFLAGS", "-D warnings")
            .env("CARGO_TARGET_DIR", scratch("features").join(target.unwrap_or("host")));
        process::run(&mut command)?;
    }
    Ok(())
}

/// All sets of features that differ, and each of [`ALONE`] on top of the default ones.
fn sets(features: &BTreeMap<String, Vec<String>>) -> Vec<Vec<&str>> {
    let names = features.keys().map(String::as_str).filter(|name| *name != "default" && !ALONE.contains(name));
    let mut sets = names.fold(vec![Vec::new()], |sets: Vec<Vec<&str>>, name| {
        let with: Vec<_> = sets.iter().map(|set| [set.as_slice(), &[name]].concat()).collect();
        [sets, with].concat()
    });
    // A set that lacks what one of its members turns on is another set by another name.
    sets.retain(|set| set.iter().flat_map(|name| &features[*name]).all(|implied| set.contains(&implied.as_str())));
    let alone = ALONE.iter().copied().filter(|name| features.contains_key(*name));
    sets.extend(alone.map(|name| vec!["default", name]));
    sets
}
