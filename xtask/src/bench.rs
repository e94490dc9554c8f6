//! `cargo xtask bench`: builds the programs of `bench/` and runs them; what is measured is said there.

use anyhow::{Result, ensure};

use crate::packages;
use crate::process::{self, cargo, root, scratch};

/// Package and what it is for.
const PACKAGES: &[(&str, &str)] = &[
    ("valgrind", "counts instructions and allocations"),
    ("linux-perf", "counts system calls"),
    ("libmosquitto-dev", "one of the peers"),
];

pub fn run(arguments: &[String]) -> Result<()> {
    packages::ensure_these(PACKAGES)?;
    let manifest = root().join("bench").join("Cargo.toml");
    let target = scratch("bench");
    let mut build = cargo();
    build.args(["build", "--release", "--bins", "--manifest-path"]).arg(manifest).arg("--target-dir").arg(&target);
    println!("building dunlin and its peers");
    process::run(&mut build)?;
    let program = target.join("release").join("dunlin-bench");
    let status = std::process::Command::new(program).args(arguments).status()?;
    ensure!(status.success(), "the benchmark failed: {status}");
    Ok(())
}
