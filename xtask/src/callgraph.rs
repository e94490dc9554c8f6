//! Who calls whom in a linked image, read from its disassembly.
//!
//! Direct calls and jumps to other functions are edges. A call through a register has no known end: the functions
//! that do so are listed, and a bound on the stack holds only where that list is empty.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use anyhow::Result;
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
        let listing = Listing::parse(listing)?;
        let mut functions = BTreeMap::new();
        for (at, name) in &listing.labels {
            let frame = image.frames.get(at).copied();
            functions
                .insert(*at, Function { name: name.clone(), frame, calls: BTreeSet::new(), calls_indirectly: false });
        }
        let mut constants = Constants::default();
        for instruction in &listing.instructions {
            let Some((start, function)) = functions.range_mut(..=instruction.at).next_back() else { continue };
            if listing.is_joined_at(instruction.at) {
                constants = Constants::default();
            }
            match instruction.flow() {
                // A jump within the function is control flow; one into the middle of another counts as a call of it.
                Flow::To(to) => {
                    if let Some((callee, _)) = listing.labels.range(..=to).next_back()
                        && (callee != start || to == *start)
                    {
                        function.calls.insert(*callee);
                    }
                }
                Flow::ToRegister(register) => match constants.get(register) {
                    Some(to) if listing.labels.contains_key(&to) => _ = function.calls.insert(to),
                    _ => function.calls_indirectly = true,
                },
                Flow::Unknown if constants.chooses_a_branch(instruction, &listing) => {}
                Flow::Unknown => function.calls_indirectly = true,
                Flow::On => {}
            }
            constants.follow(instruction, &listing);
        }
        Ok(Self { functions })
    }

    /// The calls through pointers in functions whose names contain `caller` are all of functions whose names contain
    /// `callee`: something that the reader of the program knows, and the machine code does not show.
    pub fn resolve(&mut self, caller: &str, callee: &str) {
        let is_callee = |function: &Function| function.name.contains(callee);
        let callees: BTreeSet<u64> =
            self.functions.iter().filter(|(_, function)| is_callee(function)).map(|(at, _)| *at).collect();
        for function in self.functions.values_mut().filter(|function| function.name.contains(caller)) {
            if std::mem::take(&mut function.calls_indirectly) {
                function.calls.extend(&callees);
            }
        }
    }

    /// The deepest path below the function at `address`; `obstacles` gathers what makes the figure doubtful.
    pub fn depth(&self, address: u64, obstacles: &mut Obstacles) -> Depth {
        self.walk(address, &mut Vec::new(), &mut BTreeMap::new(), obstacles)
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

    /// The shortest chain of calls from any of the functions at `starts` to one whose name `is_goal` accepts.
    pub fn path(&self, starts: impl Iterator<Item = u64>, is_goal: impl Fn(&str) -> bool) -> Option<Vec<String>> {
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
}

/// A disassembly, in pieces.
#[derive(Default)]
struct Listing {
    /// Where functions start, and their names.
    labels: BTreeMap<u64, String>,
    instructions: Vec<Instruction>,
    /// Constants among the code.
    words: BTreeMap<u64, u64>,
    /// Where jumps go to.
    targets: BTreeSet<u64>,
}

struct Instruction {
    at: u64,
    mnemonic: String,
    operands: String,
    /// The address that the disassembler names in the operands.
    address: Option<u64>,
}

/// Where an instruction goes.
enum Flow<'a> {
    On,
    To(u64),
    ToRegister(&'a str),
    Unknown,
}

impl Listing {
    fn parse(text: &str) -> Result<Self> {
        let label = Regex::new(r"^([0-9a-f]+) <(.+)>:$")?;
        let line = Regex::new(r"^\s*([0-9a-f]+):\s+([a-z0-9.]+)\s*(.*)$")?;
        let address = Regex::new(r"\b([0-9a-f]+) <[^>]+>")?;
        let hexadecimal = |text: &str| u64::from_str_radix(text, 16);
        let mut listing = Self::default();
        for text in text.lines() {
            if let Some(found) = label.captures(text) {
                listing.labels.insert(hexadecimal(&found[1])?, demangle(&found[2]));
            } else if let Some(found) = line.captures(text) {
                let (at, mnemonic, operands) = (hexadecimal(&found[1])?, &found[2], &found[3]);
                if let (".word", Some(word)) = (mnemonic, operands.strip_prefix("0x")) {
                    listing.words.insert(at, hexadecimal(word.split_whitespace().next().unwrap_or(word))?);
                    continue;
                }
                let address = address.captures(operands).map(|found| hexadecimal(&found[1])).transpose()?;
                let instruction =
                    Instruction { at, mnemonic: mnemonic.to_owned(), operands: operands.to_owned(), address };
                if let Flow::To(to) = instruction.flow() {
                    listing.targets.insert(to);
                }
                listing.instructions.push(instruction);
            }
        }
        Ok(listing)
    }

    /// Can control come here from more than one place?
    fn is_joined_at(&self, at: u64) -> bool {
        self.targets.contains(&at) || self.labels.contains_key(&at)
    }
}

impl Instruction {
    fn flow(&self) -> Flow<'_> {
        let operands = self.operands.as_str();
        // `mov pc, r3`, `ldr.w pc, [r0]`: popping the return address is not one of them.
        if operands.starts_with("pc,") {
            return if operands.starts_with("pc, [sp]") { Flow::On } else { Flow::Unknown };
        }
        if !self.is_jump() || self.is_return() {
            return Flow::On;
        }
        match self.address {
            Some(to) => Flow::To(to),
            None if self.mnemonic == "blx" => Flow::ToRegister(operands),
            None => Flow::Unknown,
        }
    }

    /// Arm's `b`, `bl`, `blx`, `bx`, `bne` … `cbz`; RISC-V's `j`, `jal`, `jr`, `beqz` …
    fn is_jump(&self) -> bool {
        let name = self.mnemonic.trim_end_matches(".n").trim_end_matches(".w");
        let looks_like_a_branch = name.starts_with('b') || name.starts_with('j') || name.starts_with("cb");
        let is_something_else = ["bic", "bfi", "bfc", "bkpt"].iter().any(|other| name.starts_with(other));
        looks_like_a_branch && !is_something_else
    }

    /// `bx lr`, also conditional, and RISC-V's `jr ra`.
    fn is_return(&self) -> bool {
        let is_arm = self.mnemonic.starts_with("bx") && self.operands == "lr";
        is_arm || self.mnemonic == "jr" && self.operands == "ra"
    }
}

/// The registers that hold a known address of a function.
///
/// Where a function is called several times in a row, Arm's compilers load its address from among the code and call
/// through the register. That is a direct call in all but form, as long as nothing else can have been loaded.
///
/// And those that hold the address of one of several branches, the first of which stands at the address given: `mov pc, r4`
/// is a choice among these.
#[derive(Default)]
struct Constants {
    functions: BTreeMap<String, u64>,
    branches: BTreeMap<String, u64>,
}

impl Constants {
    fn get(&self, register: &str) -> Option<u64> {
        self.functions.get(register).copied()
    }

    /// Whether `instruction` goes to one of several branches, which are jumps like any other.
    fn chooses_a_branch(&self, instruction: &Instruction, listing: &Listing) -> bool {
        let register = instruction.operands.strip_prefix("pc, ").filter(|_| instruction.mnemonic == "mov");
        let first = register.and_then(|register| self.branches.get(register));
        let is_branch = |at: &u64| {
            let found = listing.instructions.binary_search_by_key(at, |instruction| instruction.at);
            found.is_ok_and(|index| listing.instructions.get(index).is_some_and(|found| found.mnemonic == "b.w"))
        };
        first.is_some_and(is_branch)
    }

    fn clear(&mut self) {
        self.functions.clear();
        self.branches.clear();
    }

    fn forget(&mut self, register: &str) {
        self.functions.remove(register);
        self.branches.remove(register);
    }

    /// What is known after `instruction`; in doubt, nothing.
    fn follow(&mut self, instruction: &Instruction, listing: &Listing) {
        let (mnemonic, operands) = (instruction.mnemonic.as_str(), instruction.operands.as_str());
        let first = operands.split([',', ' ']).next().unwrap_or_default();
        let branches = self.branches_after(instruction);
        match (instruction.address, listing.words.get(&instruction.address.unwrap_or_default())) {
            (Some(_), Some(word)) if mnemonic.starts_with("ldr") && operands.contains("[pc") => {
                self.functions.insert(first.to_owned(), word & !1);
            }
            // A call keeps r4 to r11.
            _ if mnemonic.starts_with("bl") => {
                ["r0", "r1", "r2", "r3", "ip", "lr"].iter().for_each(|scratch| self.forget(scratch))
            }
            _ if mnemonic.starts_with("push") => {}
            // Several results: a list of registers, an address that moves on, a pair.
            _ if operands.contains(['{', '!']) || operands.contains("],") => self.clear(),
            _ if mnemonic.starts_with("ldrd") || mnemonic.contains("mull") || mnemonic.contains("mlal") => self.clear(),
            _ if mnemonic.starts_with("str") || mnemonic.starts_with("cmp") => {}
            _ => self.forget(first),
        }
        if let Some(at) = branches {
            self.branches.insert(first.to_owned(), at);
        }
    }

    /// Where the branches stand of which the first operand then holds an address: `addw r3, pc, #12` is that of the first
    /// one, `add.w r4, r3, r2, lsl #2` that of any.
    fn branches_after(&self, instruction: &Instruction) -> Option<u64> {
        let operands: Vec<_> = instruction.operands.split(", ").collect();
        match (instruction.mnemonic.as_str(), operands.as_slice()) {
            ("addw", [_, "pc", offset]) => {
                let offset: u64 = offset.strip_prefix('#')?.parse().ok()?;
                Some(((instruction.at + 4) & !3) + offset)
            }
            ("add.w", [_, base, _, "lsl #2"]) => self.branches.get(*base).copied(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn obstacles(code: &str) -> Obstacles {
        let image = Image {
            sections: BTreeMap::new(),
            symbols: Vec::new(),
            frames: [(0, 8), (0x100, 8)].into(),
            roots: Vec::new(),
        };
        let text = format!("00000000 <root>:\n{code}\n00000100 <leaf>:\n 100:\tbx\tlr\n");
        let mut obstacles = Obstacles::default();
        CallGraph::parse(&text, &image).unwrap().depth(0, &mut obstacles);
        obstacles
    }

    #[test]
    fn a_call_through_a_constant_is_direct() {
        let code =
            "   0:\tldr\tr5, [pc, #8]\t@ (c <root+0xc>)\n   2:\tblx\tr5\n   4:\tblx\tr5\n   c:\t.word\t0x00000101";
        assert!(obstacles(code).is_empty());
    }

    #[test]
    fn a_call_through_a_register_that_may_have_changed_is_not() {
        let load = "   0:\tldr\tr5, [pc, #8]\t@ (c <root+0xc>)";
        let word = "   c:\t.word\t0x00000101";
        assert_eq!(obstacles(&format!("{load}\n   2:\tmov\tr5, r0\n   4:\tblx\tr5\n{word}")).indirect.len(), 1);
        let joined = format!("{load}\n   2:\tbeq.n\t4 <root+0x4>\n   4:\tblx\tr5\n{word}");
        assert_eq!(obstacles(&joined).indirect.len(), 1);
    }

    #[test]
    fn a_call_through_a_pointer_counts_what_it_is_known_to_call() {
        let image = Image {
            sections: BTreeMap::new(),
            symbols: Vec::new(),
            frames: [(0, 8), (0x100, 24)].into(),
            roots: Vec::new(),
        };
        let text = "00000000 <root>:\n   0:\tblx\tr5\n00000100 <leaf>:\n 100:\tbx\tlr\n";
        let mut graph = CallGraph::parse(text, &image).unwrap();
        graph.resolve("root", "leaf");
        let mut obstacles = Obstacles::default();
        assert_eq!(graph.depth(0, &mut obstacles).bytes, 32);
        assert!(obstacles.is_empty());
    }

    #[test]
    fn a_choice_among_several_branches_is_no_call() {
        let choice = |offset, between| {
            obstacles(&format!(
                "   0:\taddw\tr3, pc, #{offset}\n   4:\tadd.w\tr4, r3, r2, lsl #2\n   8:\t{between}\n   a:\tmov\tpc, r4\n   \
                 c:\tb.w\t10 <root+0x10>\n  10:\tb.w\t0 <root+0x0>"
            ))
        };
        assert!(choice(8, "lsls\tr3, r6, #31").indirect.is_empty());
        assert_eq!(choice(8, "lsls\tr4, r6, #31").indirect.len(), 1);
        assert_eq!(choice(4, "lsls\tr3, r6, #31").indirect.len(), 1);
    }

    #[test]
    fn recursion_is_seen() {
        assert_eq!(obstacles("   0:\tbl\t0 <root>").recursion.len(), 1);
    }
}
