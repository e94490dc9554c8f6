//! What a linked image is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

/// Where the roots of a proof are.
pub const ROOTS: &str = ".roots";

/// A linked image, read once.
pub struct Image {
    /// Section name to size.
    pub sections: BTreeMap<String, u64>,
    /// Everything with a name and a size.
    pub symbols: Vec<Symbol>,
    /// Address of a function to the bytes of stack that its frame takes.
    pub frames: BTreeMap<u64, u64>,
    /// The statics of the section `.roots`: name, and address of the function that it points to.
    pub roots: Vec<(String, u64)>,
}

/// A function or a static.
pub struct Symbol {
    /// Demangled, without the hash.
    pub name: String,
    pub section: String,
    /// Where it begins; without the bit that Thumb code carries in its addresses.
    pub address: u64,
    pub size: u64,
    pub is_function: bool,
}

impl Image {
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = object::File::parse(&*bytes)?;
        let mut sections = BTreeMap::new();
        for section in file.sections() {
            sections.insert(section.name()?.to_owned(), section.size());
        }
        let mut symbols = Vec::new();
        for symbol in file.symbols().filter(|symbol| symbol.size() > 0) {
            let Some(index) = symbol.section_index() else { continue };
            symbols.push(Symbol {
                name: demangle(symbol.name()?),
                section: file.section_by_index(index)?.name()?.to_owned(),
                address: symbol.address() & !u64::from(symbol.kind() == SymbolKind::Text),
                size: symbol.size(),
                is_function: symbol.kind() == SymbolKind::Text,
            });
        }
        let frames = match file.section_by_name(".stack_sizes") {
            Some(section) => frames(section.data()?)?,
            None => BTreeMap::new(),
        };
        let mut roots = Vec::new();
        if let Some(section) = file.section_by_name(ROOTS) {
            let pointers = section.data()?;
            for symbol in symbols.iter().filter(|symbol| symbol.section == ROOTS) {
                let offset = usize::try_from(symbol.address - section.address())?;
                let pointer =
                    pointers.get(offset..).and_then(|rest| rest.first_chunk()).context("a root without a pointer")?;
                roots.push((symbol.name.clone(), u64::from(u32::from_le_bytes(*pointer) & !1)));
            }
        }
        Ok(Self { sections, symbols, frames, roots })
    }

    /// Size of a section; nothing if there is none.
    pub fn section(&self, name: &str) -> u64 {
        self.sections.get(name).copied().unwrap_or(0)
    }

    /// The symbol with this very name.
    pub fn symbol(&self, name: &str) -> Option<&Symbol> {
        self.symbols.iter().find(|symbol| symbol.name == name)
    }

    /// Where the function called `name`, or the root of that name, begins.
    pub fn entry(&self, name: &str) -> Option<u64> {
        let root = self.roots.iter().find(|(root, _)| root == name).map(|(_, function)| *function);
        root.or_else(|| self.symbol(name).map(|symbol| symbol.address))
    }

    /// The functions, each once: `memcpy` and `__aeabi_memcpy` may be one function with two names.
    pub fn functions(&self) -> impl Iterator<Item = &Symbol> {
        let mut seen = BTreeSet::new();
        self.symbols.iter().filter(move |symbol| symbol.is_function && seen.insert(symbol.address))
    }
}

/// A symbol as one would write it in Rust.
pub fn demangle(symbol: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(symbol))
}

/// Reads `.stack_sizes`: for each function its address, four bytes here, and its frame as a LEB128 number.
fn frames(mut bytes: &[u8]) -> Result<BTreeMap<u64, u64>> {
    let mut frames = BTreeMap::new();
    while let Some((address, rest)) = bytes.split_first_chunk() {
        // Thumb code carries its instruction set in bit 0; the disassembler leaves it out.
        let address = u64::from(u32::from_le_bytes(*address) & !1);
        let length = rest.iter().position(|byte| byte & 0x80 == 0).context("`.stack_sizes` ends inside a number")? + 1;
        let (number, rest) = rest.split_at(length);
        let size = number.iter().rev().fold(0, |size, byte| size << 7 | u64::from(byte & 0x7f));
        frames.insert(address, size);
        bytes = rest;
    }
    Ok(frames)
}
