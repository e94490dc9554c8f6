//! Tests behind cargo features that the workspace does not turn on by default.

use anyhow::Result;

use crate::process;

/// TLS against servers that prove who they are and servers that do not; the two halves against a real broker.
pub fn run() -> Result<()> {
    for arguments in [
        &["--package", "dunlin-tls", "--features", "embedded-tls,mbedtls"][..],
        &["--package", "dunlin", "--features", "async", "--test", "asynch"],
    ] {
        process::run(process::cargo().args(["test", "--quiet"]).args(arguments))?;
    }
    Ok(())
}
