//! What it costs a device that its session survives power cuts: flash and RAM of one application on Cortex-M4F, with its
//! session in RAM, the same with marks, the same beside a map of `sequential-storage`, and durable in a store on flash.
//!
//! The application is xtask/durable-app. Built and linked as that of [`sizes`](crate::sizes); what a part adds is the
//! difference of two images. RAM is that of statics: the session, its tables, the store's. Stack is a bound: the frames
//! on the deepest path below the application, without what is not in the image: transport, clock, flash.

use anyhow::{Context, Result, ensure};

use crate::callgraph::{CallGraph, Obstacles};
use crate::elf::Image;
use crate::firmware::{self, Build, CORTEX_M4F};
use crate::process::{root, scratch};

/// What ours should add beside the map.
const AIM: u64 = 4096;
/// Above this the stage fails. Where the sources lie makes a difference of some sixty bytes.
const LIMIT: u64 = 5220;

struct Figures {
    flash: u64,
    ram: u64,
    stack: u64,
}

pub fn run() -> Result<()> {
    let [ram, marks, map, store] = [measure("")?, measure("marks")?, measure("map")?, measure("store")?];
    let core = marks.flash - ram.flash;
    let map = map.flash - ram.flash;
    let ours = store.flash - marks.flash - map;
    println!("\nWhat durability adds on {}, session and store on four pages of flash:", CORTEX_M4F.name);
    println!("{:<26}{:>13}{:>8}{:>8}", "", "flash", "RAM", "stack");
    println!("{:<26}{:>13}{:>8}{:>8}", "the session in RAM", ram.flash, ram.ram, ram.stack);
    println!("{:<26}{:>+13}{:>+8}", "dunlin-core, `durable`", core, marks.ram - ram.ram);
    println!("{:<26}{:>+13}{:>+8}", "dunlin-store", ours, store.ram - marks.ram);
    println!("{:<26}{:>+13}", "sequential-storage", map);
    println!("{:<26}{:>13}{:>8}{:>8}", "durable", store.flash, store.ram, store.stack);
    let verdict = if core + ours <= AIM { "within" } else { "ABOVE" };
    println!("ours: {} B is {verdict} {AIM} B, its target", core + ours);
    ensure!(core + ours <= LIMIT, "ours: {} B is above {LIMIT} B, its limit", core + ours);
    Ok(())
}

fn measure(features: &str) -> Result<Figures> {
    let target = &CORTEX_M4F;
    let library = Build { package: "durable-app", target, opt_level: "z", lto: "fat", features }.run()?;
    let directory = scratch("durable-app").join(target.triple);
    let outside = directory.join("outside.o");
    firmware::assemble(target, &root().join("xtask/src/outside.s"), &outside)?;
    let name = if features.is_empty() { "ram" } else { features };
    let image = directory.join(format!("{name}.elf"));
    let roots = ["application".to_owned(), "figure:client".to_owned()];
    let image = firmware::link_whole(target, &[&library, &outside], &roots, &[], &image)?;
    let path = image;
    let image = Image::read(&path)?;
    let mut graph = CallGraph::read(target, &path, &image)?;
    // The map is given what it writes as a `dyn Value`, and there is one kind of those.
    graph.resolve("store_item_inner", "serialize_into");
    let application = image.entry("application").context("the application is not in its image")?;
    let mut obstacles = Obstacles::default();
    let stack = graph.depth(application, &mut obstacles).bytes;
    let Obstacles { recursion, indirect, .. } = obstacles;
    ensure!(recursion.is_empty() && indirect.is_empty(), "no bound on the stack: {recursion:?}, {indirect:?}");
    let flash = image.section(".text") + image.section(".rodata") + image.section(".data");
    let ram = image.section(".data") + image.section(".bss");
    image.symbol("figure:client").context("the size of the client is not in the image")?;
    Ok(Figures { flash, ram, stack })
}
