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
mod resets;
mod table;
mod vectors;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::firmware::{CORTEX_M0, CORTEX_M4F, RISCV32, Target};
use crate::process::{self, root, scratch};
pub use broker::Broker;
use broker::Certificate;
use qemu::{Board, Count, Run};
use table::{Row, Table};

/// How long the idle chapter of a story lasts. Without one it is the story that counts instructions.
const IDLE_MS: u64 = 9_000;
const COUNTING: u64 = 0;

/// How often the emulator is killed, in the short form and in the long one.
const KILLS: usize = 10;
const MANY_KILLS: usize = 100;

/// An image: a binary of one of the workspaces under firmware/.
struct Image {
    workspace: &'static str,
    binary: &'static str,
    target: &'static Target,
    features: &'static [&'static str],
    /// Without the workspace's default features.
    bare: bool,
}

const fn image(workspace: &'static str, binary: &'static str, features: &'static [&'static str]) -> Image {
    Image { workspace, binary, target: &CORTEX_M4F, features, bare: false }
}

const BASELINE: Image = image("baseline", "baseline", &[]);
const PUMP: Image = Image { bare: true, ..image("superloop", "pump", &[]) };
const PUMP_C: Image = Image { bare: true, ..image("superloop", "pump-c", &["c"]) };
const EMBASSY_ECHO: Image = Image { bare: true, ..image("embassy", "embassy-echo", &[]) };
const EMBASSY_PUMP: Image = Image { bare: true, ..image("embassy", "embassy-pump", &[]) };
const MEASURE: Image = image("superloop", "measure", SUPERLOOP_FEATURES);
const SUPERLOOP: Image = image("superloop", "superloop", SUPERLOOP_FEATURES);
const TILL: Image = image("superloop", "till", SUPERLOOP_FEATURES);
const SUPERLOOP_TLS: Image = image("superloop", "superloop-tls", SUPERLOOP_FEATURES);
const SUPERLOOP_MBEDTLS: Image = image("superloop", "superloop-mbedtls", SUPERLOOP_FEATURES);
const EMBASSY: Image = image("embassy", "embassy", EMBASSY_FEATURES);
const EMBASSY_TLS: Image = image("embassy", "embassy-tls", EMBASSY_FEATURES);
const VECTORS: Image = Image { target: &CORTEX_M0, ..image("cortex-m0", "cortex-m0", &[]) };

/// One set for all binaries of a workspace, so that their dependencies are built once. What a binary does not use is
/// not linked into it.
const SUPERLOOP_FEATURES: &[&str] = &["embedded-tls", "mbedtls", "durable"];
const EMBASSY_FEATURES: &[&str] = &["embedded-tls"];

/// `cargo xtask firmware` does everything, with `--times N` so many times in a row; `--only` does one part, and `--watch`
/// shows one story.
pub fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => run_often(1),
        ["--times", times] => run_often(times.parse().context("--times N")?),
        ["--only", "measure"] => {
            table::print_costs(&Run::new(&MEASURE.build()?).counting(Count::Instructions).finish()?)
        }
        ["--only", "pump-c"] => pumping_in_c(NAME_PUMP_C, &PUMP_C.build()?).map(|row| Table::from(row).print()),
        ["--only", "vectors"] => play_vectors(&VECTORS.build()?),
        ["--only", "resets", kills] => resets::run(&TILL.build()?, kills.parse().context("--only resets KILLS")?),
        ["--watch", "superloop"] => watch(&SUPERLOOP),
        ["--watch", "embassy"] => watch(&EMBASSY),
        _ => bail!(
            "no argument, --times N, --only measure|pump-c|vectors, --only resets KILLS, or --watch superloop|embassy"
        ),
    }
}

/// The long form of the resets.
pub fn resets() -> Result<()> {
    resets::run(&TILL.build()?, MANY_KILLS)
}

/// One story, with the image's log on the left and the broker's packets beside it.
fn watch(image: &Image) -> Result<()> {
    let elf = image.build()?;
    let mut broker = Broker::start(&[])?;
    broker.show_packets();
    Run::new(&elf).argument(broker.plain()).argument(IDLE_MS).watched().with_broker(&mut broker).map(drop)
}

/// Builds once, and runs so many times.
fn run_often(times: usize) -> Result<()> {
    portable()?;
    let images = Built::all()?;
    let mut passed = 0;
    for _ in 0..times {
        let begin = Instant::now();
        let outcome = images.run(passed == 0);
        passed += usize::from(outcome.is_ok());
        if times > 1 {
            println!("run of {:.0} s: {passed} of {times} passed", begin.elapsed().as_secs_f32());
        }
        outcome?;
    }
    Ok(())
}

/// Core, store and drivers build for processors that have less: no atomics but load and store, no divider.
fn portable() -> Result<()> {
    let packages: [&[&str]; 3] = [
        &["--package", "dunlin-core"],
        &["--package", "dunlin-store", "--no-default-features"],
        &["--package", "dunlin", "--no-default-features", "--features", "async,qos2,table,manual,large,durable"],
    ];
    for target in [&CORTEX_M0, &RISCV32] {
        for arguments in packages {
            let mut cargo = crate::firmware::cargo()?;
            cargo.args(["build", "--quiet", "--lib", "--target", target.triple]).args(arguments);
            process::run(cargo.env("CARGO_TARGET_DIR", scratch("portable")))?;
        }
        println!("core, store and drivers build for {}", target.triple);
    }
    Ok(())
}

/// The images, built.
struct Built {
    baseline: PathBuf,
    pump: PathBuf,
    pump_c: PathBuf,
    embassy_echo: PathBuf,
    embassy_pump: PathBuf,
    measure: PathBuf,
    superloop: PathBuf,
    till: PathBuf,
    superloop_tls: PathBuf,
    superloop_mbedtls: PathBuf,
    embassy: PathBuf,
    embassy_tls: PathBuf,
    vectors: PathBuf,
}

const NAME_BASELINE: &str = "baseline: TCP, no MQTT";
const NAME_PUMP: &str = "pump: the same with MQTT, QoS 0 and 1";
const NAME_PUMP_C: &str = "pump-c: an application in C, QoS 0 to 2";
const NAME_EMBASSY_ECHO: &str = "embassy-echo: TCP, no MQTT";
const NAME_EMBASSY_PUMP: &str = "embassy-pump: the same with MQTT, QoS 0 and 1";

impl Built {
    fn all() -> Result<Self> {
        build_all(&[&MEASURE, &SUPERLOOP, &TILL, &SUPERLOOP_TLS, &SUPERLOOP_MBEDTLS])?;
        build_all(&[&EMBASSY, &EMBASSY_TLS])?;
        build_all(&[&EMBASSY_ECHO, &EMBASSY_PUMP])?;
        Ok(Self {
            baseline: BASELINE.build()?,
            pump: PUMP.build()?,
            pump_c: PUMP_C.build()?,
            embassy_echo: EMBASSY_ECHO.elf(),
            embassy_pump: EMBASSY_PUMP.elf(),
            measure: MEASURE.elf(),
            superloop: SUPERLOOP.elf(),
            till: TILL.elf(),
            superloop_tls: SUPERLOOP_TLS.elf(),
            superloop_mbedtls: SUPERLOOP_MBEDTLS.elf(),
            embassy: EMBASSY.elf(),
            embassy_tls: EMBASSY_TLS.elf(),
            vectors: VECTORS.build()?,
        })
    }

    /// Runs everything once; `is_first` prints what each run would print again.
    fn run(&self, is_first: bool) -> Result<()> {
        let mut table = Table::default();
        play_vectors(&self.vectors)?;
        table.add(echoing(NAME_BASELINE, &self.baseline)?);
        table.add(pumping(NAME_PUMP, &self.pump)?);
        table.add(pumping_in_c(NAME_PUMP_C, &self.pump_c)?);
        table.add(echoing(NAME_EMBASSY_ECHO, &self.embassy_echo)?);
        table.add(pumping(NAME_EMBASSY_PUMP, &self.embassy_pump)?);
        for row in self.stories() {
            table.add(row?);
        }
        refusals(Backend::EmbeddedTls, &self.superloop_tls)?;
        refusals(Backend::MbedTls, &self.superloop_mbedtls)?;
        resets::run(&self.till, KILLS)?;
        if is_first {
            table.print();
            let (flash, ram) = table.difference(NAME_PUMP, NAME_BASELINE)?;
            let (async_flash, async_ram) = table.difference(NAME_EMBASSY_PUMP, NAME_EMBASSY_ECHO)?;
            println!(
                "\nMQTT adds {flash} B of flash and {ram} B of RAM, buffers included, to the bare-metal image; {async_flash} B \
                 and {async_ram} B to the one on an executor, so the asynchronous halves {} B and {} B",
                async_flash.saturating_sub(flash),
                async_ram.saturating_sub(ram)
            );
            table::print_costs(&Run::new(&self.measure).counting(Count::Instructions).finish()?)?;
        }
        Ok(())
    }

    /// The stories, side by side: they wait for most of their time.
    fn stories(&self) -> Vec<Result<Row>> {
        type Story = fn(&'static str, &Path) -> Result<Row>;
        let stories: [(Story, &str, &Path); 5] = [
            (plain_story, "superloop", &self.superloop),
            (tls_story, "superloop over TLS, embedded-tls", &self.superloop_tls),
            (tls_story, "superloop over TLS, mbedtls", &self.superloop_mbedtls),
            (plain_story, "embassy", &self.embassy),
            (tls_story, "embassy over TLS, embedded-tls", &self.embassy_tls),
        ];
        thread::scope(|scope| {
            let running = stories.map(|(story, name, image)| scope.spawn(move || story(name, image).context(name)));
            running.map(|story| story.join().unwrap_or_else(|_| bail!("a story panicked"))).into()
        })
    }
}

/// Readings to a peer that echoes them.
fn echoing(name: &'static str, image: &Path) -> Result<Row> {
    let port = peer::echo()?;
    let run = || Run::new(image).argument(port);
    let counted = run().counting(Count::Instructions).finish()?;
    Row::new(name, image, &run().finish()?)?.counted(&counted)
}

/// Readings to a broker, and back as commands.
fn pumping(name: &'static str, image: &Path) -> Result<Row> {
    let broker = Broker::start(&[])?;
    let run = || Run::new(image).argument(broker.plain());
    let counted = run().counting(Count::Instructions).finish()?;
    Row::new(name, image, &run().finish()?)?.counted(&counted)
}

/// The same in C, with what the broker must have seen of it: who it is, three connections or more, and one goodbye.
fn pumping_in_c(name: &'static str, image: &Path) -> Result<Row> {
    let broker = Broker::start(&[])?;
    let report = Run::new(image).argument(broker.plain()).finish()?;
    let log = broker.log_with("Received DISCONNECT from pump-9")?;
    let connections = log.lines().filter(|line| line.contains("as pump-9 (p2, c0, k30, u'pump')")).count();
    ensure!(connections >= 3, "{connections} connections that were expected:\n{log}");
    let broker = Broker::start(&[])?;
    let counted = Run::new(image).argument(broker.plain()).counting(Count::Instructions).finish()?;
    Row::new(name, image, &report)?.counted(&counted)
}

/// Records the session's calls here, and plays them on a Cortex-M0.
fn play_vectors(image: &Path) -> Result<()> {
    let file = scratch("vectors");
    std::fs::create_dir_all(&file)?;
    let file = file.join("recorded");
    let calls = vectors::record(&file)?;
    let report = Run::new(image).on(Board::Microbit).argument(file.display()).finish()?;
    ensure!(report.number("played") == Some(calls as u64), "not all of {calls} calls were played");
    println!("{calls} calls to the session had the same outcomes on a Cortex-M0 as here");
    Ok(())
}

/// The story over plain TCP, and the one that counts.
fn plain_story(name: &'static str, image: &Path) -> Result<Row> {
    let mut broker = Broker::start(&[])?;
    let report = Run::new(image).argument(broker.plain()).argument(IDLE_MS).with_broker(&mut broker)?;
    broker.wipe()?;
    let counted = Run::new(image).argument(broker.plain()).argument(COUNTING).counting(Count::Instructions).finish()?;
    Row::new(name, image, &report)?.counted(&counted)
}

/// The story over mutual TLS, through an intermediate authority; and the one that counts.
fn tls_story(name: &'static str, image: &Path) -> Result<Row> {
    let pki = pki::Pki::new();
    let mut broker = Broker::start(&[Certificate { issued: &pki.chained, pki: &pki, demanded: true }])?;
    let directory = broker.device_files(&pki)?;
    let port = broker.tls(0);
    let run = |idle_ms: u64| {
        Run::new(image)
            .argument(port)
            .argument(idle_ms)
            .argument(pki::SERVER)
            .argument(directory.display())
            .argument("mutual")
            .argument("pass")
    };
    let report = run(IDLE_MS).with_broker(&mut broker)?;
    broker.wipe()?;
    let counted = run(COUNTING).counting(Count::Instructions).finish()?;
    Row::new(name, image, &report)?.counted(&counted)
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
        build_all(&[self])?;
        Ok(self.elf())
    }

    /// Images of one name with other features must not replace each other while both are in use.
    fn target_directory(&self) -> PathBuf {
        root().join("firmware/target").join(if self.bare { "bare" } else { "whole" })
    }

    fn elf(&self) -> PathBuf {
        self.target_directory().join(self.target.triple).join("release").join(self.binary)
    }
}

/// Builds images of one workspace, which have their features in common.
fn build_all(images: &[&Image]) -> Result<()> {
    let Some(first) = images.first() else { return Ok(()) };
    let mut cargo = crate::firmware::cargo()?;
    cargo.current_dir(root().join("firmware").join(first.workspace)).args(["build", "--quiet", "--release"]);
    cargo.args(["--target", first.target.triple]);
    cargo.args(["--config", &format!("target.{}.linker='arm-none-eabi-ld'", first.target.triple)]);
    cargo.args(["--config", &format!("target.{}.rustflags=['-Clinker-flavor=ld']", first.target.triple)]);
    for image in images {
        cargo.args(["--bin", image.binary]);
    }
    if first.bare {
        cargo.arg("--no-default-features");
    }
    if !first.features.is_empty() {
        cargo.arg("--features").arg(first.features.join(","));
    }
    cargo.env("CARGO_TARGET_DIR", first.target_directory());
    process::run(&mut cargo)?;
    match images.iter().find(|image| !image.elf().exists()) {
        None => Ok(()),
        Some(image) => bail!("{} was not built", image.elf().display()),
    }
}

/// No run takes longer.
const LIMIT: Duration = Duration::from_secs(90);
