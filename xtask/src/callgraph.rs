//! Who calls whom in a linked image, read from its disassembly.
//!
//! Direct calls and jumps to other functions are edges. A call through a register has no known end: the functions
//! that do so are listed, and a bound on the stack holds only where that list is empty.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use anyhow::{Context, Result};
use regex_lite::Regex;

use crate::elf::{Image, demangle};
use crate::firmware::Target;
use crate::process;

/// The functions of an image and the calls between them.
pub struct CallGraph {
    functions: BTreeMap<u64, Function>,
}

struct Function {
    name: String,
    /// Bytes of stack; unknown for what the compiler did not make.
    frame: Option<u64>,
    calls: BTreeSet<u64>,
    calls_indirectly: bool,
}

/// The deepest use of the stack below a function.
#[derive(Clone, Default)]
pub struct Depth {
    pub bytes: u64,
    /// The functions on the way, outermost first, each with its frame.
    pub path: Vec<(String, u64)>,
}

/// What stands against a bound on the stack.
#[derive(Default)]
pub struct Obstacles {
    pub recursion: BTreeSet<String>,
    pub indirect: BTreeSet<String>,
    pub unknown_frame: BTreeSet<String>,
}

impl Obstacles {
    pub fn is_empty(&self) -> bool {
        self.recursion.is_empty() && self.indirect.is_empty() && self.unknown_frame.is_empty()
    }
}

impl CallGraph {
    pub fn read(target: &Target, path: &Path, image: &Image) -> Result<Self> {
        let listing = process::output(target.tool("objdump").args(["-d", "--no-show-raw-insn"]).arg(path))?;
        Self::parse(&listing, image)
    }

    fn parse(listing: &str, image: &Image) -> Result<Self> {
        let label = Regex::new(r"^([0-9a-f]+) <(.+)>:$")?;
        let line = Regex::new(r"^\s*[0-9a-f]+:\s+([a-z0-9.]+)\s*(.*)$")?;
        let address = Regex::new(r"\b([0-9a-f]+) <[^>]+>")?;
        let mut functions: BTreeMap<u64, Function> = BTreeMap::new();
        let mut at = 0;
        for text in listing.lines() {
            if let Some(found) = label.captures(text) {
                at = u64::from_str_radix(&found[1], 16)?;
                functions.insert(
                    at,
                    Function {
                        name: demangle(&found[2]),
                        frame: image.frames.get(&at).copied(),
                        calls: BTreeSet::new(),
                        calls_indirectly: false,
                    },
                );
                continue;
            }
            let Some(found) = line.captures(text) else { continue };
            let (mnemonic, operands) = (&found[1], &found[2]);
            let function = functions.get_mut(&at).with_context(|| format!("code without a label: {text}"))?;
            if is_jump(mnemonic) {
                if let Some(target) = address.captures(operands) {
                    function.calls.insert(u64::from_str_radix(&target[1], 16)?);
                } else if !is_return(mnemonic, operands) {
                    function.calls_indirectly = true;
                }
            } else if writes_pc(operands) {
                function.calls_indirectly = true;
            }
        }
        let starts: BTreeSet<u64> = functions.keys().copied().collect();
        for (start, function) in &mut functions {
            // A jump within the function is control flow; one into the middle of another counts as a call of it.
            let calls = std::mem::take(&mut function.calls);
            let callees =
                calls.iter().filter_map(|to| starts.range(..=to).next_back().copied().map(|callee| (*to, callee)));
            function.calls =
                callees.filter(|(to, callee)| callee != start || to == start).map(|(_, callee)| callee).collect();
        }
        Ok(Self { functions })
    }

    /// The deepest path below the function called `root`, and what makes the figure doubtful.
    pub fn depth(&self, root: &str, obstacles: &mut Obstacles) -> Option<Depth> {
        let address = self.address(root)?;
        Some(self.walk(address, &mut Vec::new(), &mut BTreeMap::new(), obstacles))
    }

    fn walk(
        &self,
        at: u64,
        active: &mut Vec<u64>,
        known: &mut BTreeMap<u64, Depth>,
        obstacles: &mut Obstacles,
    ) -> Depth {
        if let Some(depth) = known.get(&at) {
            return depth.clone();
        }
        let Some(function) = self.functions.get(&at) else { return Depth::default() };
        if active.contains(&at) {
            obstacles.recursion.insert(function.name.clone());
            return Depth::default();
        }
        if function.calls_indirectly {
            obstacles.indirect.insert(function.name.clone());
        }
        if function.frame.is_none() {
            obstacles.unknown_frame.insert(function.name.clone());
        }
        active.push(at);
        let below: Vec<_> = function.calls.iter().map(|to| self.walk(*to, active, known, obstacles)).collect();
        active.pop();
        let deepest = below.into_iter().max_by_key(|depth| depth.bytes).unwrap_or_default();
        let frame = function.frame.unwrap_or(0);
        let mut path = vec![(function.name.clone(), frame)];
        path.extend(deepest.path);
        let depth = Depth { bytes: frame + deepest.bytes, path };
        known.insert(at, depth.clone());
        depth
    }

    /// The shortest chain of calls from any of `roots` to a function that `is_goal` accepts.
    pub fn path(&self, roots: &[String], is_goal: impl Fn(&str) -> bool) -> Option<Vec<String>> {
        let starts = roots.iter().filter_map(|root| self.address(root));
        let mut came_from: BTreeMap<u64, Option<u64>> = starts.map(|start| (start, None)).collect();
        let mut queue: VecDeque<u64> = came_from.keys().copied().collect();
        while let Some(at) = queue.pop_front() {
            let Some(function) = self.functions.get(&at) else { continue };
            if is_goal(&function.name) {
                let chain = std::iter::successors(Some(at), |at| came_from.get(at).copied().flatten());
                let mut names: Vec<_> = chain.map(|at| self.functions[&at].name.clone()).collect();
                names.reverse();
                return Some(names);
            }
            for callee in &function.calls {
                came_from.entry(*callee).or_insert_with(|| {
                    queue.push_back(*callee);
                    Some(at)
                });
            }
        }
        None
    }

    fn address(&self, name: &str) -> Option<u64> {
        self.functions.iter().find(|(_, function)| function.name == name).map(|(address, _)| *address)
    }
}

/// Does this instruction go elsewhere? Arm's `b`, `bl`, `blx`, `bx`, `bne` … `cbz`; RISC-V's `j`, `jal`, `jr`, `beqz` …
fn is_jump(mnemonic: &str) -> bool {
    let name = mnemonic.trim_end_matches(".n").trim_end_matches(".w");
    let looks_like_a_branch = name.starts_with('b') || name.starts_with('j') || name.starts_with("cb");
    let is_something_else = ["bic", "bfi", "bfc", "bkpt"].iter().any(|other| name.starts_with(other));
    looks_like_a_branch && !is_something_else
}

/// `bx lr`, also conditional, and RISC-V's `jr ra`; everything else that names no address is indirect.
fn is_return(mnemonic: &str, operands: &str) -> bool {
    mnemonic.starts_with("bx") && operands == "lr" || mnemonic == "jr" && operands == "ra"
}

/// `mov pc, r3`, `ldr.w pc, [r0]`: jumps through a register or memory. Popping the return address is not one.
fn writes_pc(operands: &str) -> bool {
    operands.starts_with("pc,") && !operands.starts_with("pc, [sp]")
}
