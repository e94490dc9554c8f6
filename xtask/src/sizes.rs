//! What the session costs a device: flash, RAM and stack of one application, on three processors and for four sets of
//! features.
//!
//! The application is xtask/size-app. Built with opt z and fat LTO, `core` rebuilt with the same options; transport, clock
//! and receiver are symbols of another object, which is not counted. "Support" is what any program would need:
//! `memcpy` and its like, and what stands in for instructions that the processor lacks.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::callgraph::{CallGraph, Obstacles};
use crate::elf::{Image, Symbol};
use crate::firmware::{self, Build, CORTEX_M0, CORTEX_M4F, RISCV32, Target};
use crate::process::{root, scratch};

/// The application with one set of features.
struct Variant {
    name: &'static str,
    features: &'static str,
    /// What its total on Cortex-M4F should not exceed, and whether the stage fails when it does.
    limits: &'static [(u64, &'static str, Kind)],
}

enum Kind {
    /// Printed, met or not.
    Aim,
    /// The stage fails above it.
    Limit,
}

const VARIANTS: &[Variant] = &[
    Variant { name: "everything", features: "everything,subscribe,qos2", limits: &[] },
    Variant {
        name: "equivalent",
        features: "subscribe,qos2",
        limits: &[
            (4_900, "the target", Kind::Aim),
            (6_505, "the bar, coreMQTT 2.3.1 as usually shipped", Kind::Aim),
            (5_950, "the limit", Kind::Limit),
        ],
    },
    Variant {
        name: "QoS 0 and 1",
        features: "subscribe,qos1",
        limits: &[(4_000, "its target", Kind::Aim), (5_250, "its limit", Kind::Limit)],
    },
    Variant { name: "publish only", features: "", limits: &[(2_500, "its target, and its limit", Kind::Limit)] },
];

const TARGETS: [&Target; 3] = [&CORTEX_M0, &CORTEX_M4F, &RISCV32];

/// The same application on other clients, Cortex-M4F: flash with support, static RAM without the two buffers of 1 KiB, and
/// stack without callbacks. Measured once, in November 2026: C with arm-none-eabi-gcc 12.2 -Os and newlib-nano, Rust
/// with opt z and `core` rebuilt, all with LTO. None of the four in C resumes a session by itself or subscribes again.
const PEERS: &[(&str, u64, u64, u64)] = &[
    ("Paho embedded-C 1.1.0", 4_494, 108, 360),
    ("MQTT-C 1.1.6", 4_564, 96, 184),
    ("coreMQTT 2.3.1", 4_913, 164, 420),
    ("wolfMQTT 2.1.0", 7_227, 180, 604),
    ("minimq 0.13.5 (MQTT 5)", 19_608, 696, 2_548),
    ("mqttrust 1.0.0", 26_049, 1_544, 5_468),
    ("rust-mqtt 0.6.0 (MQTT 5)", 36_278, 176, 2_624),
];

/// The application's two buffers, which no figure for RAM includes.
const BUFFERS: u64 = 2 * 1024;

/// What was measured of one image.
struct Figures {
    client: u64,
    support: u64,
    ram: u64,
    session: u64,
    stack: u64,
    biggest: Vec<(String, u64)>,
}

pub fn run() -> Result<()> {
    println!(
        "{:<12}{:<14}{:>8}{:>9}{:>8}{:>8}{:>9}{:>7}",
        "", "", "client", "support", "flash", "RAM", "Session", "stack"
    );
    let mut verdicts = Vec::new();
    let mut too_large = Vec::new();
    let mut biggest = Vec::new();
    for target in TARGETS {
        for variant in VARIANTS {
            let figures = measure(target, variant)?;
            let flash = figures.client + figures.support;
            println!(
                "{:<12}{:<14}{:>8}{:>9}{flash:>8}{:>8}{:>9}{:>7}",
                target.name, variant.name, figures.client, figures.support, figures.ram, figures.session, figures.stack
            );
            if target.triple != CORTEX_M4F.triple {
                continue;
            }
            for (limit, what, kind) in variant.limits {
                let verdict = if flash <= *limit { "within" } else { "ABOVE" };
                let line = format!("{}: {flash} B is {verdict} {limit} B, {what}", variant.name);
                if matches!(kind, Kind::Limit) && flash > *limit {
                    too_large.push(line.clone());
                }
                verdicts.push(line);
            }
            if variant.name == "equivalent" {
                biggest = figures.biggest;
            }
        }
    }
    println!("Bytes. RAM: statics with the session and its tables, without the two buffers of 1 KiB.\n");
    for (name, flash, ram, stack) in PEERS {
        println!("{:<12}{name:<26}{:>13}{ram:>8}{stack:>16}", CORTEX_M4F.name, flash);
    }
    println!("The peers were measured once; only the figures above them are made by this command.\n");
    for verdict in &verdicts {
        println!("{verdict}");
    }
    println!("\nThe biggest functions of the equivalent application on {}:", CORTEX_M4F.name);
    for (name, size) in biggest.iter().take(15) {
        println!("{size:>6}  {name}");
    }
    ensure!(too_large.is_empty(), "{}", too_large.join("\n"));
    crate::durable_sizes::run()
}

fn measure(target: &Target, variant: &Variant) -> Result<Figures> {
    let build = Build { package: "size-app", target, opt_level: "z", lto: "fat", features: variant.features };
    let library = build.run()?;
    let path = link(target, variant, &library)?;
    let image = Image::read(&path)?;
    let flash = image.section(".text") + image.section(".rodata") + image.section(".data");
    let support: u64 = image.functions().filter(|symbol| is_support(symbol)).map(|symbol| symbol.size).sum();
    let ram = image.section(".data") + image.section(".bss");
    let application = image.entry("application").context("the application is not in its image")?;
    let stack = CallGraph::read(target, &path, &image)?.depth(application, &mut Obstacles::default()).bytes;
    let mut biggest: Vec<_> = image.functions().map(|symbol| (symbol.name.clone(), symbol.size)).collect();
    biggest.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    Ok(Figures {
        client: flash - support,
        support,
        ram: ram.checked_sub(BUFFERS).context("the buffers are not in the image")?,
        session: image.symbol("figure:session").context("the size of the session is not in the image")?.size,
        stack,
        biggest,
    })
}

fn link(target: &Target, variant: &Variant, library: &Path) -> Result<std::path::PathBuf> {
    let directory = scratch("size-app").join(target.triple);
    let outside = directory.join("outside.o");
    firmware::assemble(target, &root().join("xtask/src/outside.s"), &outside)?;
    let roots = ["application".to_owned(), "figure:session".to_owned()];
    firmware::link_whole(
        target,
        &[library, &outside],
        &roots,
        &[],
        &directory.join(format!("{}.elf", variant.name.replace(' ', "-"))),
    )
}

/// Needed by any program: not the client's doing.
fn is_support(symbol: &Symbol) -> bool {
    let name = symbol.name.as_str();
    let by_name = ["mem", "bcmp", "strlen", "__aeabi_", "__riscv_"].iter().any(|prefix| name.starts_with(prefix));
    // `__udivdi3`, `__muldi3` and the like.
    let is_arithmetic = name.starts_with("__") && name.ends_with('3');
    let is_support = by_name || is_arithmetic || name.contains("compiler_builtins::") || name.contains("core::str::");
    symbol.section == ".text" && is_support
}
