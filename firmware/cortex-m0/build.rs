//! Puts `memory.x` where the linker of the image finds it.
use std::{env, fs, path::Path};

fn main() {
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::copy("memory.x", Path::new(&out).join("memory.x")).expect("memory.x is beside build.rs");
    println!("cargo:rustc-link-search={}", Path::new(&out).display());
    println!("cargo:rerun-if-changed=memory.x");
}
