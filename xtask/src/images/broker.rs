//! The real mosquitto: one plain listener and any number with TLS, which can be restarted and can forget.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use dunlin_testkit::mosquitto::{Mosquitto, free_port};

use super::pki::{Issued, Pki};

/// What a TLS listener shows.
#[derive(Clone, Copy)]
pub struct Certificate<'p> {
    pub issued: &'p Issued,
    pub pki: &'p Pki,
    /// Whether a client must have one, too.
    pub demanded: bool,
}

pub struct Broker {
    mosquitto: Mosquitto,
    tls: Vec<u16>,
}

impl Broker {
    pub fn start(certificates: &[Certificate<'_>]) -> Result<Self> {
        let mut config = String::from("persistence true\nautosave_interval 0\n");
        let mut files = Vec::new();
        let mut tls = Vec::new();
        for (index, certificate) in certificates.iter().enumerate() {
            let port = free_port();
            config += &format!(
                "listener {port} 127.0.0.1\ncertfile {index}.pem\nkeyfile {index}.key\ncafile {index}.ca\n\
                 require_certificate {}\n",
                certificate.demanded
            );
            let chain = certificate.issued.chain.iter().map(|der| pem("CERTIFICATE", der)).collect::<String>();
            files.push((format!("{index}.pem"), chain));
            files.push((format!("{index}.key"), pem("PRIVATE KEY", &certificate.issued.key)));
            files.push((format!("{index}.ca"), pem("CERTIFICATE", &certificate.pki.authority)));
            tls.push(port);
        }
        let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        Ok(Self { mosquitto: Mosquitto::with_files(&config, &files), tls })
    }

    /// The port without TLS.
    pub fn plain(&self) -> u16 {
        self.mosquitto.port()
    }

    /// The port with the certificate of this index.
    pub fn tls(&self, index: usize) -> u16 {
        self.tls[index]
    }

    /// Ends it in order, so that it saves its sessions, and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        self.mosquitto.stop();
        self.mosquitto.restart();
        Ok(())
    }

    /// Ends it and starts it without a memory.
    pub fn wipe(&mut self) -> Result<()> {
        self.mosquitto.stop();
        fs::remove_file(self.mosquitto.directory().join("mosquitto.db"))?;
        self.mosquitto.restart();
        Ok(())
    }

    /// Writes what a device has, its authority, certificate and key, and returns the directory.
    pub fn device_files(&self, pki: &Pki) -> Result<PathBuf> {
        let directory = self.mosquitto.directory().to_owned();
        fs::write(directory.join("authority.der"), &pki.authority)?;
        fs::write(directory.join("client.der"), &pki.client.chain[0])?;
        fs::write(directory.join("client.key"), &pki.client.key)?;
        Ok(directory)
    }

    /// Prints what the broker receives and sends, as it happens, until the program ends.
    pub fn show_packets(&self) {
        let log = self.mosquitto.directory().join("log");
        thread::spawn(move || {
            let mut shown = 0;
            loop {
                let text = fs::read_to_string(&log).unwrap_or_default();
                // A broker that was restarted writes its log anew.
                shown = if text.len() < shown { 0 } else { shown };
                let (_, news) = text.split_at_checked(shown).unwrap_or_default();
                let whole = news.rfind('\n').map_or(0, |end| end + 1);
                for line in news[..whole].lines() {
                    let line = line.split_once(": ").map_or(line, |(_, line)| line);
                    let arrow = match () {
                        () if line.starts_with("Received ") => "-->",
                        () if line.starts_with("Sending ") => "<--",
                        () => "   ",
                    };
                    let is_of_interest = ["Received ", "Sending ", "New client ", "Client ", "mosquitto "];
                    if is_of_interest.iter().any(|begin| line.starts_with(begin)) && !line.contains("<unknown>") {
                        println!("{:60}{arrow} {line}", "");
                    }
                }
                shown += whole;
                thread::sleep(Duration::from_millis(5));
            }
        });
    }

    /// What it has logged, once `line` is in it.
    pub fn log_with(&self, line: &str) -> Result<String> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let log = self.mosquitto.log();
            if log.contains(line) {
                return Ok(log);
            }
            ensure!(Instant::now() < end, "the broker has not logged {line:?}:\n{log}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Fails if anything that speaks MQTT has come.
    pub fn ensure_no_client(&self) -> Result<()> {
        let log = fs::read_to_string(self.mosquitto.directory().join("log"))?;
        match log.lines().find(|line| line.contains("New client connected") || line.contains("Received ")) {
            Some(line) => bail!("the broker has seen a client that should have refused: {line}"),
            None => Ok(()),
        }
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    pem::encode(&pem::Pem::new(label, der))
}
