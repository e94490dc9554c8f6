//! A bound on the stack below every public function of the core, from the frames that the compiler records and the
//! calls in the machine code. It holds because nothing recurses and nothing is called through a pointer.

use anyhow::{Result, bail, ensure};

use crate::callgraph::{CallGraph, Obstacles};
use crate::elf::Image;
use crate::firmware::{self, CORTEX_M4F};
use crate::panic;
use crate::process::scratch;

/// Bytes of stack that any call into the core may take.
const LIMIT: u64 = 512;

/// The levels that firmware ships with.
const OPT_LEVELS: [&str; 3] = ["z", "s", "3"];

pub fn run() -> Result<()> {
    let mut findings = Vec::new();
    for opt_level in OPT_LEVELS {
        let library = panic::build(opt_level, "fat", "").run()?;
        let roots = panic::roots(&library)?;
        let path = scratch("panic-proof").join(format!("stack-{opt_level}.elf"));
        // A panic that is still reachable is the panic stage's business.
        firmware::link_whole(&CORTEX_M4F, &[&library], &roots, &["dunlin_panic_reachable"], &path)?;
        let image = Image::read(&path)?;
        let graph = CallGraph::read(&CORTEX_M4F, &path, &image)?;

        let mut obstacles = Obstacles::default();
        let mut depths: Vec<_> =
            image.roots.iter().map(|(root, function)| (root, graph.depth(*function, &mut obstacles))).collect();
        depths.sort_by_key(|(_, depth)| std::cmp::Reverse(depth.bytes));
        ensure!(!depths.is_empty(), "no function to measure");

        println!("{}, opt {opt_level}, {} functions; the deepest:", CORTEX_M4F.name, depths.len());
        for (root, depth) in depths.iter().take(8) {
            println!("{:>6} B  {}", depth.bytes, root);
        }
        let [recursion, indirect] = [obstacles.recursion.len(), obstacles.indirect.len()];
        println!("{recursion} recursive, {indirect} indirect, {} of unknown frame\n", obstacles.unknown_frame.len());

        for (root, depth) in depths.iter().filter(|(_, depth)| depth.bytes > LIMIT) {
            let path: Vec<_> = depth.path.iter().map(|(name, frame)| format!("    {frame:>5} {name}")).collect();
            findings.push(format!("opt {opt_level}: {root}: {} B is over {LIMIT} B\n{}", depth.bytes, path.join("\n")));
        }
        if !obstacles.is_empty() {
            let list = |what: &str, names: &std::collections::BTreeSet<String>| -> String {
                names.iter().map(|name| format!("\n    {what}: {name}")).collect()
            };
            let recursion = list("recursion", &obstacles.recursion);
            let indirect = list("indirect call", &obstacles.indirect);
            let unknown = list("unknown frame", &obstacles.unknown_frame);
            findings.push(format!("opt {opt_level}: the figures are no bound{recursion}{indirect}{unknown}"));
        }
    }
    if !findings.is_empty() {
        bail!("{}", findings.join("\n"));
    }
    Ok(())
}
