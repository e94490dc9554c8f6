//! Features only add: every set of the core's features must build, on the host and on the smallest Cortex-M.

use std::collections::BTreeMap;

use anyhow::Result;
use cargo_metadata::MetadataCommand;

use crate::cargo::core_package;
use crate::firmware::{self, CORTEX_M0};
use crate::process::{self, cargo, root, scratch};

/// Features that touch no behaviour and exclude each other, or serve tests alone: not multiplied with the rest.
const ALONE: [&str; 3] = ["defmt", "log", "verify"];

/// What a smaller set leaves unused is dropped by the compiler; marking each such item and import would only clutter the code.
const LINTS: &str = "-D warnings -A dead_code -A unused_imports";

pub fn run() -> Result<()> {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec()?;
    let core = core_package(&metadata)?;
    let sets = sets(&core.features);
    for set in &sets {
        let features = set.join(",");
        for (mut command, target) in [(cargo(), None), (firmware::cargo()?, Some(CORTEX_M0.triple))] {
            command.args(["check", "--quiet", "--package", "dunlin-core", "--no-default-features"]);
            command.args(["--features", &features]).args(target.map(|triple| format!("--target={triple}")));
            command.env("RUSTFLAGS", LINTS).env("CARGO_TARGET_DIR", scratch("features"));
            process::run(&mut command)?;
        }
    }
    println!("{} sets of features, each for the host and for {}", sets.len(), CORTEX_M0.triple);
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
