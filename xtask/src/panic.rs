//! The proof that nothing in the core can panic or format.
//!
//! The library xtask/panic-proof exports every public function of the core; its panic handler calls a function that
//! nobody defines. Linking from those functions, with everything unreachable dropped, fails exactly if a panic is
//! reachable. That depends on what the optimiser can see, so it is done for every optimisation level one may ship,
//! with link-time optimisation and without.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Result, bail, ensure};
use object::read::archive::ArchiveFile;
use object::{Object, ObjectSection, ObjectSymbol};

use crate::callgraph::CallGraph;
use crate::core_api;
use crate::elf::{Image, ROOTS};
use crate::firmware::{self, Build, CORTEX_M4F, Linked};
use crate::process::scratch;

const OPT_LEVELS: [&str; 5] = ["1", "2", "3", "s", "z"];
const LTO: [&str; 2] = ["off", "fat"];

/// What the panic handler calls.
const PANIC: &str = "dunlin_panic_reachable";
/// The function with a panic put in on purpose.
const SEEDED: &str = "seeded";

/// Functions that are written for constants: there, what they refuse does not compile. Called at run time they would
/// panic, which their documentation says. Everything else that the core exports must be in the proof.
const FOR_CONSTANTS: &[&str] = &["Filter::literal"];

pub fn run() -> Result<()> {
    // The two ways of linking at the same time, since a crate in one piece is work for one processor.
    let [without, with] = thread::scope(|scope| {
        LTO.map(|lto| scope.spawn(move || prove_all(lto)))
            .map(|proof| proof.join().unwrap_or_else(|_| bail!("a proof panicked")))
    });
    println!("opt  lto  functions    flash");
    let mut findings = Vec::new();
    for verdict in without?.into_iter().chain(with?) {
        println!("{}", verdict.line);
        findings.extend(verdict.finding);
    }
    println!("an index put in on purpose is refused, with LTO and without");
    if !findings.is_empty() {
        bail!("{}", findings.join("\n"));
    }
    Ok(())
}

/// What came out at one level.
struct Verdict {
    line: String,
    finding: Option<String>,
}

/// Every level with one way of linking, and a panic that must be seen.
fn prove_all(lto: &'static str) -> Result<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    for opt_level in OPT_LEVELS {
        let library = build(opt_level, lto, "").run()?;
        let roots = roots(&library)?;
        if verdicts.is_empty() {
            ensure_complete(&roots)?;
        }
        let (flash, finding) = match prove(&library, &roots, lto)? {
            Ok(flash) => (format!("{flash:>6} B"), None),
            Err(why) => ("  FAILS".to_owned(), Some(format!("opt {opt_level}, lto {lto}: {why}"))),
        };
        verdicts.push(Verdict { line: format!("{opt_level:<5}{lto:<5}{:>9}  {flash}", roots.len()), finding });
    }
    let library = build("z", lto, "seeded").run()?;
    let seen = prove(&library, &[SEEDED.to_owned()], lto)?.is_err();
    ensure!(seen, "a panic that was put in on purpose went unseen at opt z, lto {lto}: the proof is worth nothing");
    Ok(verdicts)
}

/// The library of all public functions.
pub fn build<'a>(opt_level: &'a str, lto: &'a str, features: &'a str) -> Build<'a> {
    Build { package: "panic-proof", target: &CORTEX_M4F, opt_level, lto, features }
}

/// The names of the functions that `library` holds for the proof.
pub fn roots(library: &Path) -> Result<Vec<String>> {
    let bytes = std::fs::read(library)?;
    let mut roots = Vec::new();
    for member in ArchiveFile::parse(&*bytes)?.members() {
        let Ok(file) = object::File::parse(member?.data(&*bytes)?) else { continue };
        for symbol in file.symbols().filter(|symbol| symbol.size() > 0) {
            // Each root may have a section of its own; all of them have the same name.
            let Some(section) = symbol.section_index() else { continue };
            if file.section_by_index(section)?.name() == Ok(ROOTS) {
                roots.push(symbol.name()?.to_owned());
            }
        }
    }
    ensure!(!roots.is_empty(), "{} holds no roots", library.display());
    Ok(roots)
}

/// Fails when a public function of the core is not among `roots`, or a root is no longer a function of the core.
fn ensure_complete(roots: &[String]) -> Result<()> {
    let public = core_api::public_functions()?;
    let proved: BTreeSet<_> = roots.iter().cloned().collect();
    let missing: Vec<_> =
        public.difference(&proved).filter(|name| !FOR_CONSTANTS.contains(&name.as_str())).map(String::as_str).collect();
    ensure!(missing.is_empty(), "not in xtask/panic-proof/src/roots.rs: {}", missing.join(", "));
    let stale: Vec<_> = proved.difference(&public).map(String::as_str).collect();
    ensure!(stale.is_empty(), "in xtask/panic-proof/src/roots.rs, but not public in the core: {}", stale.join(", "));
    Ok(())
}

/// Links; returns the flash that all of it takes, or why it is not free of panics.
fn prove(library: &Path, roots: &[String], lto: &str) -> Result<Result<u64, String>> {
    let path = image_path(lto)?;
    let image = match firmware::link(&CORTEX_M4F, &[library], roots, &[], &path)? {
        Linked::Image(path) => Image::read(&path)?,
        Linked::Undefined(symbols) => {
            ensure!(symbols == [PANIC], "the proof needs {}", symbols.join(", "));
            return Ok(Err(format!(
                "a panic is reachable\n{}",
                chains_to(library, roots, &[PANIC], &path, |name| name == PANIC)?
            )));
        }
    };
    if let Some(symbol) = image.functions().find(|symbol| formats(&symbol.name)) {
        return Ok(Err(format!("{} is reachable\n{}", symbol.name, chains_to(library, roots, &[], &path, formats)?)));
    }
    Ok(Ok(image.section(".text") + image.section(".rodata") + image.section(".data")))
}

/// How `roots` come to a function that must not be there: a chain of calls for each function of ours that does so by
/// itself, for whoever has to find the line.
fn chains_to(
    library: &Path,
    roots: &[String],
    definitions: &[&str],
    path: &Path,
    is_goal: impl Fn(&str) -> bool,
) -> Result<String> {
    let path = firmware::link_whole(&CORTEX_M4F, &[library], roots, definitions, path)?;
    let image = Image::read(&path)?;
    let graph = CallGraph::read(&CORTEX_M4F, &path, &image)?;
    // An invented symbol has no code, hence no label: what leads to the panic handler is the end of the chain.
    let is_goal = |name: &str| is_goal(name) || name.contains("::panicking::");
    let mut chains = BTreeMap::new();
    for root in roots {
        let Some(chain) = graph.path(image.entry(root).into_iter(), is_goal) else { continue };
        let culprit = chain.iter().rev().find(|name| name.contains("dunlin_core")).or(chain.first()).cloned();
        chains.entry(culprit).or_insert_with(|| format!("    {root}: {}", chain.join("\n        -> ")));
    }
    ensure!(!chains.is_empty(), "a panic is reachable, but by no direct call");
    Ok(chains.into_values().collect::<Vec<_>>().join("\n"))
}

/// Functions of `core::fmt`, and implementations of its traits. A type of its in the name is not enough: the compiler
/// may give one name to functions of many types that come to the same code.
fn formats(name: &str) -> bool {
    name.starts_with("core::fmt::") || name.starts_with("<core::fmt::") || name.contains(" as core::fmt::")
}

fn image_path(lto: &str) -> Result<PathBuf> {
    let directory = scratch("panic-proof");
    std::fs::create_dir_all(&directory)?;
    Ok(directory.join(format!("proof-{lto}.elf")))
}
