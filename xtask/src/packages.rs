//! The Debian packages that the stages need.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// Package and what it is for.
const PACKAGES: &[(&str, &str)] = &[
    ("mosquitto", "the broker that tests run against; they start their own, on ports of their own"),
    ("rustc-web", "a compiler with its standard library's sources beside it, for the targets without an OS"),
    ("rust-web-src", "those sources: `core` is built with the options under test"),
    ("qemu-system-arm", "the board that firmware runs on"),
    ("g++", "the fuzzer's engine"),
    ("clang", "what is in C: Mbed TLS, for hosts and devices, and programs for devices that call the session"),
    ("libclang-dev", "its bindings"),
    ("cmake", "its build"),
    ("binutils-arm-none-eabi", "linker and disassembler for Cortex-M"),
    ("binutils-riscv64-unknown-elf", "linker and disassembler for RISC-V"),
];

/// Sees to it that every package that the stages need is installed: by apt for root, else by naming what is missing.
pub fn ensure() -> Result<()> {
    ensure_these(PACKAGES)
}

/// As [`ensure`], for the packages that one command needs.
pub fn ensure_these(packages: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<_> = packages.iter().filter(|(package, _)| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(package, _)| *package).collect();
    if process::output(Command::new("id").arg("-u"))?.trim() != "0" {
        let reasons: Vec<_> = missing.iter().map(|(package, why)| format!("  {package:<32}{why}")).collect();
        bail!(
            "these Debian packages are missing:\n{}\ninstall them with: sudo apt-get install --no-install-recommends {}",
            reasons.join("\n"),
            names.join(" ")
        );
    }
    println!("installing {}", names.join(" "));
    process::run(&mut apt(&["update"]))?;
    process::run(apt(&["install", "--yes", "--no-install-recommends"]).args(&names))
}

/// apt-get that asks nothing, waits for its lock, and starts no service: a broker of the system's own would only
/// be in the way of the tests.
fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-q", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    command
}

fn installed(package: &str) -> bool {
    let status = Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]).output();
    status.is_ok_and(|output| output.stdout == b"installed")
}
