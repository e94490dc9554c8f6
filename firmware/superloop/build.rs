//! Compiles the application in C, where there is one.

fn main() {
    #[cfg(feature = "c")]
    compile();
}

#[cfg(feature = "c")]
fn compile() {
    let include = "../../crates/dunlin-c/include";
    cc::Build::new()
        .compiler("clang")
        .file("c/pump.c")
        .include(include)
        .flags(["-std=c11", "-ffreestanding", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"])
        .compile("application");
    println!("cargo:rerun-if-changed=c");
    println!("cargo:rerun-if-changed={include}");
}
