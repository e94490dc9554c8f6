//! Building and linking for targets without an operating system.
//!
//! One compiler for all of it: Debian's, which has the sources of `core` beside it, so that `core` is built with the
//! options under test. Its linker and disassembler come from binutils. rustup is not asked for anything.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{self, root, scratch};

/// A processor to build for.
pub struct Target {
    /// What people call it.
    pub name: &'static str,
    /// What rustc calls it.
    pub triple: &'static str,
    /// Prefix of its binutils.
    pub binutils: &'static str,
    /// What `as` and `ld` must be told.
    assembler: &'static [&'static str],
    linker: &'static [&'static str],
    /// And clang.
    clang: &'static [&'static str],
}

pub const CORTEX_M0: Target = Target {
    name: "Cortex-M0",
    triple: "thumbv6m-none-eabi",
    binutils: "arm-none-eabi-",
    assembler: &["-mcpu=cortex-m0", "--defsym", "ARM=1"],
    linker: &[],
    clang: &["--target=thumbv6m-none-eabi", "-mcpu=cortex-m0"],
};
pub const CORTEX_M4F: Target = Target {
    name: "Cortex-M4F",
    triple: "thumbv7em-none-eabihf",
    binutils: "arm-none-eabi-",
    assembler: &["-mcpu=cortex-m4", "-mfloat-abi=hard", "--defsym", "ARM=1"],
    linker: &[],
    clang: &["--target=thumbv7em-none-eabihf", "-mcpu=cortex-m4"],
};
pub const RISCV32: Target = Target {
    name: "RISC-V",
    triple: "riscv32imc-unknown-none-elf",
    binutils: "riscv64-unknown-elf-",
    assembler: &["-march=rv32imc", "-mabi=ilp32"],
    linker: &["-m", "elf32lriscv"],
    clang: &["--target=riscv32-unknown-none-elf", "-march=rv32imc", "-mabi=ilp32"],
};

impl Target {
    /// One of the target's binutils.
    pub fn tool(&self, name: &str) -> Command {
        Command::new(format!("{}{name}", self.binutils))
    }

    /// A C compiler for programs without an operating system.
    pub fn clang(&self) -> Command {
        let mut command = Command::new("clang");
        command.args(self.clang).arg("-ffreestanding");
        command
    }
}

/// One way of building a static library out of one of our own small workspaces.
pub struct Build<'a> {
    /// `panic-proof` or `size-app`; its directory under xtask/.
    pub package: &'static str,
    pub target: &'a Target,
    pub opt_level: &'a str,
    pub lto: &'a str,
    pub features: &'a str,
}

impl Build<'_> {
    /// Builds it, with the stack need of each function recorded in the section `.stack_sizes`.
    pub fn run(&self) -> Result<PathBuf> {
        // One place for all packages, so that `core` is built once for each target, level and way of linking. Two ways, two
        // places: builds of both can go on at the same time.
        let directory = scratch("devices").join(self.lto);
        process::run(
            cargo()?
                .args(["build", "--quiet", "--release", "--no-default-features", "--features", self.features])
                .args(["--target", self.target.triple])
                .arg("--manifest-path")
                .arg(root().join("xtask").join(self.package).join("Cargo.toml"))
                .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", self.opt_level)
                .env("CARGO_PROFILE_RELEASE_LTO", self.lto)
                .env("CARGO_TARGET_DIR", &directory)
                .env("RUSTFLAGS", "-Zemit-stack-sizes"),
        )?;
        let library = format!("lib{}.a", self.package.replace('-', "_"));
        Ok(directory.join(self.target.triple).join("release").join(library))
    }
}

/// Where invented symbols are: below the code, within reach of it.
const NOWHERE: &str = "0x8000";

/// How a link ended.
pub enum Linked {
    Image(PathBuf),
    /// Symbols that something reachable needs and nobody has.
    Undefined(Vec<String>),
}

/// Links what `roots` reach in `inputs`, and nothing else. `definitions` are symbols to invent.
pub fn link(target: &Target, inputs: &[&Path], roots: &[String], definitions: &[&str], image: &Path) -> Result<Linked> {
    let script = root().join("xtask/src/sections.ld");
    if let Some(directory) = image.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mut command = target.tool("ld");
    command.args(target.linker).args(["--gc-sections", "--entry=0", "--script"]).arg(script);
    command.args(roots.iter().map(|root| format!("--undefined={root}")));
    command.args(definitions.iter().map(|symbol| format!("--defsym={symbol}={NOWHERE}")));
    command.arg("-o").arg(image).args(inputs);
    let done = command.output().with_context(|| format!("cannot run {}ld", target.binutils))?;
    if done.status.success() {
        return Ok(Linked::Image(image.to_path_buf()));
    }
    let complaints = String::from_utf8_lossy(&done.stderr);
    let mut undefined: Vec<_> = complaints.lines().filter_map(undefined_symbol).collect();
    if undefined.is_empty() {
        bail!("linking {} failed:\n{complaints}", image.display());
    }
    undefined.sort();
    undefined.dedup();
    Ok(Linked::Undefined(undefined))
}

/// As [`link`], where an undefined symbol is an error.
pub fn link_whole(
    target: &Target,
    inputs: &[&Path],
    roots: &[String],
    definitions: &[&str],
    image: &Path,
) -> Result<PathBuf> {
    match link(target, inputs, roots, definitions, image)? {
        Linked::Image(image) => Ok(image),
        Linked::Undefined(symbols) => bail!("{} needs {}", image.display(), symbols.join(", ")),
    }
}

/// The symbol that a complaint of `ld` names as missing.
fn undefined_symbol(complaint: &str) -> Option<String> {
    let (_, symbol) = complaint.split_once("undefined reference to `")?;
    symbol.strip_suffix('\'').map(str::to_owned)
}

/// Assembles `source` for `target`.
pub fn assemble(target: &Target, source: &Path, object: &Path) -> Result<()> {
    std::fs::create_dir_all(object.parent().unwrap_or(Path::new(".")))?;
    process::run(target.tool("as").args(target.assembler).arg(source).arg("-o").arg(object))
}

/// Cargo on Debian's compiler, building `core` from source.
pub fn cargo() -> Result<Command> {
    let mut command = process::cargo();
    // The two `-Z` options of this file are why RUSTC_BOOTSTRAP is set; our own code stays on stable Rust.
    command.env("RUSTC", compiler()?).env("RUSTC_BOOTSTRAP", "1").args(["-Zbuild-std=core"]);
    // Cargo passes on what runs it; none of that is meant for another compiler.
    command.env_remove("RUSTC_WRAPPER").env_remove("RUSTDOC").env_remove("CARGO_ENCODED_RUSTFLAGS");
    Ok(command)
}

/// Debian's rustc: the first on the system's own path that has sources beside it, never a rustup shim.
fn compiler() -> Result<PathBuf> {
    for directory in ["/usr/bin", "/usr/local/bin"] {
        let rustc = Path::new(directory).join("rustc");
        let Ok(sysroot) = process::output(Command::new(&rustc).args(["--print", "sysroot"])) else { continue };
        if Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/Cargo.toml").exists() {
            return Ok(rustc);
        }
    }
    bail!("no rustc with the sources of `core` in /usr/bin: apt-get install rustc-web rust-web-src")
}
