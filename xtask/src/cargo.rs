//! The stages that are cargo's own: format, lints, tests, documentation; and the promise of no dependency.

use anyhow::{Context, Result, ensure};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, TargetKind};

use crate::process::{self, cargo, root, scratch};

/// The core may offer these, off by default; nothing else.
const OPTIONAL: &[&str] = &["defmt", "log"];

/// What the core keeps to beyond the lints of the workspace; the rules are in docs/coding-rules.md.
const CORE_LINTS: &[&str] = &[
    // L1, L8, L9: the language subset. The types that L8 bans are listed in crates/dunlin-core/clippy.toml.
    "std_instead_of_core",
    "alloc_instead_of_core",
    "disallowed_types",
    "float_arithmetic",
    // P1 to P3: no panic.
    "unwrap_used",
    "expect_used",
    "panic",
    "unreachable",
    "todo",
    "unimplemented",
    "indexing_slicing",
    "string_slice",
    "arithmetic_side_effects",
    // T1 to T6: numbers and types.
    "as_conversions",
    "cast_lossless",
    "cast_possible_truncation",
    "cast_possible_wrap",
    "cast_precision_loss",
    "cast_sign_loss",
    "wildcard_enum_match_arm",
    "exhaustive_enums",
    "fn_params_excessive_bools",
    "too_many_arguments",
    "large_types_passed_by_value",
    // C2, C5: control flow. The limits are in crates/dunlin-core/clippy.toml.
    "too_many_lines",
    "cognitive_complexity",
    "excessive_nesting",
    "let_underscore_must_use",
    // V1 and the record of deviations.
    "missing_errors_doc",
    "allow_attributes",
    "allow_attributes_without_reason",
];

pub fn fmt() -> Result<()> {
    process::run(cargo().args(["fmt", "--all", "--check"]))?;
    let ours =
        ["durable-app", "panic-proof", "size-app", "small-builds"].map(|name| format!("xtask/{name}/Cargo.toml"));
    for manifest in ours.iter().map(String::as_str).chain(["fuzz/Cargo.toml", "bench/Cargo.toml"]) {
        process::run(cargo().args(["fmt", "--check", "--manifest-path", manifest]))?;
    }
    Ok(())
}

pub fn clippy() -> Result<()> {
    // The core first, and only as it ships: its tests may unwrap.
    let mut core = cargo();
    core.args(["clippy", "--package", "dunlin-core", "--lib", "--", "-D", "warnings", "-D", "missing_docs"]);
    for lint in CORE_LINTS {
        core.args(["-D", &format!("clippy::{lint}")]);
    }
    process::run(&mut core)?;
    process::run(cargo().args(["clippy", "--workspace", "--all-targets"]).args(FEATURES).args(["--", "-D", "warnings"]))
}

/// What the workspace does not turn on by itself: the two backends of TLS for devices, sessions shared by tasks, and
/// tracing. One set for all stages, so that nothing is built twice.
const FEATURES: [&str; 2] = ["--features", "dunlin-tls/embedded-tls,dunlin-tls/mbedtls,dunlin/async,dunlin/tracing"];

/// The session's own tests, and those of what judges it.
const CORE: [&str; 2] = ["dunlin-core", "dunlin-testkit"];

/// Sets of the core's features that leave out much, with a stand-in or a short cut each; the last one has none.
const SMALL: [&str; 8] =
    ["", "large", "qos1", "qos2", "subscribe", "subscribe,qos1", "subscribe,qos2", "subscribe,qos2,large"];

pub fn core_tests() -> Result<()> {
    process::run(cargo().args(["test", "--quiet"]).args(CORE.map(|package| format!("--package={package}"))))?;
    for features in SMALL {
        let mut command = cargo();
        command.args(["test", "--quiet", "--manifest-path", "xtask/small-builds/Cargo.toml", "--features", features]);
        process::run(command.env("CARGO_TARGET_DIR", scratch("small-builds")))?;
    }
    Ok(())
}

/// All others.
pub fn tests() -> Result<()> {
    let mut command = cargo();
    command.args(["test", "--workspace"]).args(FEATURES).args(CORE.map(|package| format!("--exclude={package}")));
    let report = process::output(&mut command)?;
    let results = report.lines().filter(|line| line.starts_with("test result: ok."));
    let count = |line: &str| line.split_whitespace().nth(3).and_then(|word| word.parse::<u32>().ok()).unwrap_or(0);
    println!("{} tests passed", results.map(count).sum::<u32>());
    Ok(())
}

/// One of them, as long as it is meant to be.
pub fn restarts() -> Result<()> {
    let mut command = cargo();
    command.args(["test", "--package", "dunlin"]).args(["--features", "tokio", "--test", "main", "--"]);
    command.args(["--ignored", "--exact", "--nocapture", "restarts::ledgers_agree_over_a_hundred_restarts"]);
    let report = process::output(&mut command)?;
    let verdict = report.lines().find(|line| line.contains(" restarts, ")).context("the test did not run")?;
    println!("{verdict}");
    Ok(())
}

pub fn doc() -> Result<()> {
    process::run(cargo().args(["doc", "--workspace", "--no-deps"]).args(FEATURES).env("RUSTDOCFLAGS", "-D warnings"))
}

/// dunlin-core has no dependency that anyone gets without asking, no build script and no macro crate.
pub fn deps() -> Result<()> {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec()?;
    let core = core_package(&metadata)?;
    for dependency in core.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development) {
        ensure!(dependency.kind == DependencyKind::Normal, "dunlin-core builds with {}", dependency.name);
        let allowed = dependency.optional && OPTIONAL.contains(&dependency.name.as_str());
        ensure!(allowed, "dunlin-core depends on {}", dependency.name);
    }
    let builds_code = |kind: &TargetKind| matches!(kind, TargetKind::CustomBuild | TargetKind::ProcMacro);
    ensure!(
        !core.targets.iter().flat_map(|target| &target.kind).any(builds_code),
        "dunlin-core runs code at build time"
    );
    ensure!(core.rust_version.is_some(), "dunlin-core names no MSRV");

    // The manifest says so; the resolved tree must agree.
    let tree = process::output(cargo().args(["tree", "--package", "dunlin-core", "--edges", "normal,build"]))?;
    ensure!(tree.lines().count() == 1, "dunlin-core does not stand alone:\n{tree}");
    print!("{tree}");
    Ok(())
}

/// What cargo knows of the core.
pub fn core_package(metadata: &Metadata) -> Result<&Package> {
    metadata.packages.iter().find(|package| package.name == "dunlin-core").context("the workspace has no dunlin-core")
}
