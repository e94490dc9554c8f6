//! The C interface: that the C of the documents compiles, that a program in C works on sockets against a real broker, what the session costs a device that calls
//! it from C, and that no function of the header can panic.
//!
//! That header and library say the same is tested in crates/dunlin-c/tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use object::read::archive::ArchiveFile;
use object::{Object, ObjectSymbol};

use crate::callgraph::{CallGraph, Obstacles};
use crate::elf::Image;
use crate::firmware::{self, CORTEX_M0, CORTEX_M4F, Linked, RISCV32, Target};
use crate::images::Broker;
use crate::process::{self, cargo, root, scratch};

/// What a compiler has to say nothing about.
const STRICT: [&str; 6] = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"];

/// Sets of the library's features, of which each leaves out something else.
const SETS: [&str; 9] = [
    "",
    "qos1",
    "qos2",
    "subscribe",
    "subscribe,qos1",
    "large",
    "manual,large",
    "durable",
    "qos2,subscribe,replace,manual,large,durable",
];

/// Above this the stage fails: the equivalent application on Cortex-M4F, in bytes of flash.
const LIMIT: u64 = 9_200;

pub fn run() -> Result<()> {
    on_sockets()?;
    hostile()?;
    documents()?;
    features()?;
    println!("\n{:<12}{:<14}{:>8}{:>8}{:>7}", "", "", "flash", "RAM", "stack");
    for target in [&CORTEX_M0, &CORTEX_M4F, &RISCV32] {
        let (flash, ram, stack) = measure(target)?;
        println!("{:<12}{:<14}{flash:>8}{ram:>8}{stack:>7}", target.name, "equivalent");
        ensure!(target.triple != CORTEX_M4F.triple || flash <= LIMIT, "{flash} B is above {LIMIT} B, the limit");
    }
    println!(
        "Bytes, as `cargo xtask size` counts them; clang -Oz for what is C, with the memory functions that both call."
    );
    for opt_level in ["z", "3"] {
        println!("{} functions, none of which can panic, at opt {opt_level}", prove(opt_level)?);
    }
    Ok(())
}

/// Builds a program in C for here, as the documentation says.
fn program(source: &str, options: &[&str]) -> Result<PathBuf> {
    let directory = scratch("c");
    process::run(
        cargo()
            .args(["rustc", "--quiet", "--package", "dunlin-c", "--crate-type", "staticlib", "--profile", "device"])
            .arg("--target-dir")
            .arg(&directory),
    )?;
    let source = root().join("crates/dunlin-c").join(source);
    let program = directory.join(source.file_stem().context("no name")?);
    let library = directory.join("device/libdunlin_c.a");
    let mut cc = Command::new("cc");
    process::run(cc.args(STRICT).args(options).arg(include()).arg(source).arg(library).arg("-o").arg(&program))?;
    Ok(program)
}

/// The example on sockets.
fn on_sockets() -> Result<()> {
    let program = program("examples/posix.c", &[])?;
    let broker = Broker::start(&[])?;
    let said = process::output(Command::new(program).args(["127.0.0.1", &broker.plain().to_string()]))?;
    print!("{said}");
    Ok(())
}

/// Calls that nobody should make: the library writes only where it may, and gives nothing that C cannot have.
fn hostile() -> Result<()> {
    let program = program("tests/hostile.c", &["-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all"])?;
    print!("{}", process::output(&mut Command::new(program))?);
    Ok(())
}

/// The C of the documents compiles.
fn documents() -> Result<()> {
    for document in ["README.md", "docs/c.md"] {
        let text = std::fs::read_to_string(root().join(document))?;
        let blocks = text.split("\n```c\n").skip(1).filter_map(|rest| rest.split("\n```").next());
        for (index, block) in blocks.enumerate() {
            let source = scratch("c").join(format!("block-{index}.c"));
            std::fs::write(&source, format!("{block}\n"))?;
            let mut cc = Command::new("cc");
            process::run(cc.args(STRICT).arg(include()).arg("-fsyntax-only").arg(source)).context(document)?;
            println!("block {} of {document} compiles", index + 1);
        }
    }
    Ok(())
}

/// Parts of the library that can be left out: without a warning, so that what a set does not use is not in it.
fn features() -> Result<()> {
    for features in SETS {
        let mut check = cargo();
        check.args(["check", "--quiet", "--package", "dunlin-c", "--no-default-features", "--features", features]);
        process::run(check.env("RUSTFLAGS", "-D warnings").env("CARGO_TARGET_DIR", scratch("c").join("features")))?;
    }
    println!("{} sets of features build", SETS.len());
    Ok(())
}

fn include() -> String {
    format!("-I{}", root().join("crates/dunlin-c/include").display())
}

/// The library for a device.
fn library(target: &Target, opt_level: &str, features: &str) -> Result<PathBuf> {
    let directory = scratch("c").join("devices");
    process::run(
        firmware::cargo()?
            .args(["rustc", "--quiet", "--package", "dunlin-c", "--crate-type", "staticlib", "--profile", "device"])
            .args(["--no-default-features", "--features", features, "--target", target.triple])
            .env("CARGO_PROFILE_DEVICE_OPT_LEVEL", opt_level)
            .env("CARGO_TARGET_DIR", &directory)
            .env("RUSTFLAGS", "-Zemit-stack-sizes"),
    )?;
    Ok(directory.join(target.triple).join("device/libdunlin_c.a"))
}

/// Flash, RAM without the buffers, and stack of the equivalent application in C.
fn measure(target: &Target) -> Result<(u64, u64, u64)> {
    let library = library(target, "z", "qos2,subscribe,panic-handler")?;
    let directory = scratch("c").join(target.triple);
    let (application, outside) = (directory.join("application.o"), directory.join("outside.o"));
    firmware::assemble(target, &root().join("xtask/src/outside.s"), &outside)?;
    process::run(
        target
            .clang()
            .args(STRICT)
            .args(["-Oz", "-ffunction-sections", "-fdata-sections", "-fstack-size-section", "-c"])
            .arg(include())
            .arg(root().join("xtask/src/c/application.c"))
            .arg("-o")
            .arg(&application),
    )?;
    let roots = ["application".to_owned()];
    let inputs: [&Path; 3] = [&application, &library, &outside];
    let path = firmware::link_whole(target, &inputs, &roots, &[], &directory.join("application.elf"))?;
    let image = Image::read(&path)?;
    let flash = image.section(".text") + image.section(".rodata") + image.section(".data");
    let ram = (image.section(".data") + image.section(".bss")).checked_sub(2 * 1024).context("there are no buffers")?;
    let entry = image.entry("application").context("the application is not in its image")?;
    let stack = CallGraph::read(target, &path, &image)?.depth(entry, &mut Obstacles::default()).bytes;
    Ok((flash, ram, stack))
}

/// Links all functions of the header: says how many, or fails when a panic can be reached from one.
fn prove(opt_level: &str) -> Result<usize> {
    let features = "qos2,subscribe,replace,manual,large,durable,panic-handler";
    let library = library(&CORTEX_M4F, opt_level, features)?;
    let roots = functions(&library)?;
    let image = scratch("c").join("all.elf");
    let image = match firmware::link(&CORTEX_M4F, &[&library], &roots, &[], &image)? {
        Linked::Image(path) => Image::read(&path)?,
        Linked::Undefined(symbols) => bail!("the library needs {}", symbols.join(", ")),
    };
    let is_panic = |name: &str| name.contains("panic") || name.contains("rust_begin_unwind");
    if let Some(symbol) = image.functions().find(|symbol| is_panic(&symbol.name)) {
        bail!("{} can be reached at opt {opt_level}", symbol.name);
    }
    Ok(roots.len())
}

/// The functions of the header that a library has: those with its prefix.
fn functions(library: &Path) -> Result<Vec<String>> {
    let bytes = std::fs::read(library)?;
    let mut names = Vec::new();
    for member in ArchiveFile::parse(&*bytes)?.members() {
        let Ok(file) = object::File::parse(member?.data(&*bytes)?) else { continue };
        let symbols = file.symbols().filter(|symbol| symbol.is_definition() && symbol.is_global());
        names.extend(
            symbols
                .filter_map(|symbol| symbol.name().ok())
                .filter(|name| name.starts_with("dunlin_"))
                .map(str::to_owned),
        );
    }
    ensure!(!names.is_empty(), "{} has none of the functions", library.display());
    Ok(names)
}
