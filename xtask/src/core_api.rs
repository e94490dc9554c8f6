//! The public functions of the core, as rustdoc lists them.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::{self, cargo, scratch};

/// Names of all functions that a user of the core can call: `Session::poll`, `matches`.
///
/// Read from rustdoc's JSON, which knows what is re-exported and what is not. Trait implementations count where they
/// are written by hand (`Levels::next`), not where they are derived, and not where they only format.
pub fn public_functions() -> Result<BTreeSet<String>> {
    let directory = scratch("doc");
    process::run(
        cargo()
            .args(["rustdoc", "--package", "dunlin-core", "--lib", "--", "-Zunstable-options", "--output-format=json"])
            // rustdoc's JSON is the one thing here that stable keeps behind this switch.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", &directory),
    )?;
    let text = std::fs::read_to_string(directory.join("doc/dunlin_core.json"))?;
    let crate_: Value = serde_json::from_str(&text)?;
    names(&crate_).context("rustdoc's JSON has another shape than expected")
}

fn names(crate_: &Value) -> Option<BTreeSet<String>> {
    let items = crate_["index"].as_object()?;
    let is_function = |item: &Value| item["inner"].get("function").is_some();
    let mut functions = BTreeSet::new();
    let mut methods = BTreeSet::new();
    for item in items.values() {
        // Methods belong to an implementation or a trait; what is left are the free functions.
        for owner in ["impl", "trait"] {
            let Some(owner) = item["inner"].get(owner) else { continue };
            methods.extend(owner["items"].as_array()?.iter().map(Value::to_string));
        }
        let Some(block) = item["inner"].get("impl") else { continue };
        if !is_written_by_hand(item, block) {
            continue;
        }
        let Some(type_) = block["for"]["resolved_path"]["path"].as_str() else { continue };
        let type_ = type_.rsplit("::").next()?;
        for id in block["items"].as_array()? {
            let method = items.get(&id.to_string())?;
            if is_function(method) {
                functions.insert(format!("{type_}::{}", method["name"].as_str()?));
            }
        }
    }
    for (id, item) in items {
        if is_function(item) && !methods.contains(id) {
            functions.insert(item["name"].as_str()?.to_owned());
        }
    }
    Some(functions)
}

fn is_written_by_hand(item: &Value, block: &Value) -> bool {
    let derived = item["attrs"].to_string().contains("automatically_derived");
    let implied = block["is_synthetic"] == true || !block["blanket_impl"].is_null();
    let trait_ = block["trait"]["path"].as_str().unwrap_or_default();
    let formats = trait_.ends_with("Debug") || trait_.ends_with("Display") || trait_.ends_with("Format");
    !derived && !implied && !formats
}
