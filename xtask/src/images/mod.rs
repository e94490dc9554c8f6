//! Real firmware: builds the images, runs them in QEMU against a real broker, and prints what they cost.
//!
//! Each image checks its own story and reports with its exit status; it asks for a broker that vanishes, and gives
//! figures, in lines that start with `@`. What must be refused is a run of its own, and the broker's log must then
//! show no client.

mod broker;
mod peer;
#[path = "../../../crates/dunlin-tls/tests/pki/mod.rs"]
mod pki;
mod qemu;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::firmware::CORTEX_M4F;
use crate::process::{self, root};
use broker::{Broker, Certificate};
use qemu::{Count, Run};
use table::Table;

/// How long the idle chapter of a story lasts.
const IDLE_MS: u64 = 9_000;

/// An image: a binary of one of the workspaces under firmware/.
struct Image {
    workspace: &'static str,
    binary: &'static str,
    features: &'static [&'static str],
    /// Without the workspace's default features.
    bare: bool,
}

const BASELINE: Image = Image { workspace: "baseline", binary: "baseline", features: &[], bare: false };
const PUMP: Image = Image { workspace: "superloop", binary: "pump", features: &[], bare: true };
const MEASURE: Image = Image { workspace: "superloop", binary: "measure", features: &[], bare: false };
const SUPERLOOP: Image = Image { workspace: "superloop", binary: "superloop", features: &[], bare: false };
const SUPERLOOP_TLS: Image =
    Image { workspace: "superloop", binary: "superloop-tls", features: &["embedded-tls"], bare: false };
const SUPERLOOP_MBEDTLS: Image =
    Image { workspace: "superloop", binary: "superloop-mbedtls", features: &["mbedtls"], bare: false };
const EMBASSY: Image = Image { workspace: "embassy", binary: "embassy", features: &[], bare: false };
const EMBASSY_TLS: Image =
    Image { workspace: "embassy", binary: "embassy-tls", features: &["embedded-tls"], bare: false };

/// `cargo xtask firmware` does everything; with `--watch superloop` or `--watch embassy` it shows one story.
pub fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(2);
    match (arguments.next().as_deref(), arguments.next().as_deref()) {
        (Some("--watch"), Some("superloop")) => watch(&SUPERLOOP),
        (Some("--watch"), Some("embassy")) => watch(&EMBASSY),
        (Some("--watch"), _) => bail!("--watch superloop, or --watch embassy"),
        _ => run_all(),
    }
}

/// One story, with the image's log on the left and the broker's packets beside it.
fn watch(image: &Image) -> Result<()> {
    let elf = image.build()?;
    let mut broker = Broker::start(&[])?;
    broker.show_packets();
    Run::new(&elf).argument(broker.plain()).argument(IDLE_MS).watched().with_broker(&mut broker).map(drop)
}

fn run_all() -> Result<()> {
    let mut table = Table::default();
    let baseline = BASELINE.build()?;
    let pump = PUMP.build()?;
    let measure = MEASURE.build()?;
    let superloop = SUPERLOOP.build()?;
    let superloop_tls = SUPERLOOP_TLS.build()?;
    let superloop_mbedtls = SUPERLOOP_MBEDTLS.build()?;
    let embassy = EMBASSY.build()?;
    let embassy_tls = EMBASSY_TLS.build()?;

    let report = Run::new(&baseline).argument(peer::echo()?).finish()?;
    table.add("baseline: TCP, no MQTT", &baseline, &report, None)?;
    let mut broker = Broker::start(&[])?;
    let report = Run::new(&pump).argument(broker.plain()).finish()?;
    table.add("pump: the same with MQTT, QoS 0 and 1", &pump, &report, None)?;
    let report = Run::new(&superloop).argument(broker.plain()).argument(IDLE_MS).with_broker(&mut broker)?;
    table.add("superloop: the whole story", &superloop, &report, None)?;
    tls_story(&mut table, "superloop over TLS, embedded-tls", &superloop_tls)?;
    tls_story(&mut table, "superloop over TLS, mbedtls", &superloop_mbedtls)?;
    broker.wipe()?;
    let report = Run::new(&embassy).argument(broker.plain()).argument(IDLE_MS).with_broker(&mut broker)?;
    table.add("embassy: the whole story", &embassy, &report, None)?;
    tls_story(&mut table, "embassy over TLS, embedded-tls", &embassy_tls)?;
    refusals(Backend::EmbeddedTls, &superloop_tls)?;
    refusals(Backend::MbedTls, &superloop_mbedtls)?;
    table.print();
    table::print_costs(&Run::new(&measure).counting(Count::Instructions).finish()?)
}

/// The story over mutual TLS, through an intermediate authority; and its handshake counted in instructions.
fn tls_story(table: &mut Table, name: &str, image: &Path) -> Result<()> {
    let pki = pki::Pki::new();
    let mut broker = Broker::start(&[Certificate { issued: &pki.chained, pki: &pki, demanded: true }])?;
    let directory = broker.device_files(&pki)?;
    let port = broker.tls(0);
    let run = |idle_ms: u64, goal: &str| {
        Run::new(image)
            .argument(port)
            .argument(idle_ms)
            .argument(pki::SERVER)
            .argument(directory.display())
            .argument("mutual")
            .argument(goal)
    };
    let report = run(IDLE_MS, "pass").with_broker(&mut broker)?;
    broker.wipe()?;
    let counted = run(0, "handshake").counting(Count::Instructions).with_broker(&mut broker)?;
    table.add(name, image, &report, Some(&counted))
}

/// A backend of dunlin-tls.
#[derive(Clone, Copy)]
enum Backend {
    EmbeddedTls,
    MbedTls,
}

/// Each must end with the error named, and the broker must have seen no client.
fn refusals(backend: Backend, image: &Path) -> Result<()> {
    let pki = pki::Pki::new();
    let not_an_authority = match backend {
        Backend::EmbeddedTls => "NotAnAuthority",
        Backend::MbedTls => "UnknownAuthority", // it finds no other way to the authority, and says only that
    };
    let with = |issued| Certificate { issued, pki: &pki, demanded: true };
    let listeners = [
        ("wrong server name", with(&pki.wrong_name), "mutual", "WrongName"),
        ("unknown authority", with(&pki.unknown_authority), "mutual", "UnknownAuthority"),
        ("expired", with(&pki.expired), "mutual", "Expired"),
        ("not yet valid", with(&pki.not_yet_valid), "mutual", "NotYetValid"),
        ("signed by a client's certificate", with(&pki.signed_by_client), "mutual", not_an_authority),
        ("a certificate for clients", with(&pki.for_clients), "mutual", "NotForServers"),
        ("no certificate where one is demanded", with(&pki.server), "anonymous", "IdentityDemanded"),
    ];
    let certificates: Vec<_> = listeners.iter().map(|(_, certificate, _, _)| *certificate).collect();
    let broker = Broker::start(&certificates)?;
    let directory = broker.device_files(&pki)?;
    let refused = |port: u16, identity: &str, error: &str| {
        Run::new(image)
            .argument(port)
            .argument(0)
            .argument(pki::SERVER)
            .argument(directory.display())
            .argument(identity)
            .argument(error)
            .finish()
    };
    println!("\nmust be refused, {}:", ["embedded-tls", "mbedtls"][backend as usize]);
    for (index, (name, _, identity, error)) in listeners.iter().enumerate() {
        refused(broker.tls(index), identity, error).with_context(|| (*name).to_owned())?;
        println!("  {name:<44} {error}");
    }
    for (name, script, errors) in peer::SCRIPTS {
        let error = errors[backend as usize];
        refused(peer::recite(script)?, "mutual", error).with_context(|| (*name).to_owned())?;
        println!("  {name:<44} {error}");
    }
    let good = Broker::start(&[with(&pki.chained)])?;
    let records = peer::records_of_handshake(good.tls(0), |port| {
        // It passes the handshake, so it is not refused; what counts is what went through.
        let _ = refused(port, "mutual", "none");
        Ok(())
    })?;
    ensure!(records.len() > 2, "the handshake has only {} records", records.len());
    for cut in peer::cuts(&records) {
        refused(peer::cut(good.tls(0), cut)?, "mutual", "Closed").with_context(|| format!("cut after {cut} bytes"))?;
    }
    println!("  {:<44} Closed", format!("closed at {} places of the handshake", peer::cuts(&records).count()));
    broker.ensure_no_client()
}

impl Image {
    /// Builds the image and returns its ELF file.
    fn build(&self) -> Result<PathBuf> {
        let firmware = root().join("firmware");
        let mut cargo = crate::firmware::cargo()?;
        cargo.current_dir(firmware.join(self.workspace)).args(["build", "--quiet", "--release"]);
        cargo.args(["--bin", self.binary, "--target", CORTEX_M4F.triple]);
        cargo.args(["--config", &format!("target.{}.linker='arm-none-eabi-ld'", CORTEX_M4F.triple)]);
        cargo.args(["--config", &format!("target.{}.rustflags=['-Clinker-flavor=ld']", CORTEX_M4F.triple)]);
        if self.bare {
            cargo.arg("--no-default-features");
        }
        if !self.features.is_empty() {
            cargo.arg("--features").arg(self.features.join(","));
        }
        // Images of one name with other features must not replace each other while both are in use.
        let target = firmware.join("target").join(if self.bare { "bare" } else { "whole" });
        cargo.env("CARGO_TARGET_DIR", &target);
        process::run(&mut cargo)?;
        let image = target.join(CORTEX_M4F.triple).join("release").join(self.binary);
        match image.exists() {
            true => Ok(image),
            false => bail!("{} was not built", image.display()),
        }
    }
}

/// No run takes longer.
const LIMIT: Duration = Duration::from_secs(90);
