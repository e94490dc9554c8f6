//! What a linked image is made of.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

/// A linked image, read once.
pub struct Image {
    /// Section name to size.
    pub sections: BTreeMap<String, u64>,
    /// Everything with a name and a size.
    pub symbols: Vec<Symbol>,
    /// Address of a function to the bytes of stack that its frame takes.
    pub frames: BTreeMap<u64, u64>,
}

/// A function or a static.
pub struct Symbol {
    /// Demangled, without the hash.
    pub name: String,
    pub section: String,
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
                size: symbol.size(),
                is_function: symbol.kind() == SymbolKind::Text,
            });
        }
        let frames = match file.section_by_name(".stack_sizes") {
            Some(section) => frames(section.data()?)?,
            None => BTreeMap::new(),
        };
        Ok(Self { sections, symbols, frames })
    }

    /// Size of a section; nothing if there is none.
    pub fn section(&self, name: &str) -> u64 {
        self.sections.get(name).copied().unwrap_or(0)
    }

    /// Size of the symbol with this very name.
    pub fn size_of(&self, name: &str) -> Option<u64> {
        self.symbols.iter().find(|symbol| symbol.name == name).map(|symbol| symbol.size)
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
