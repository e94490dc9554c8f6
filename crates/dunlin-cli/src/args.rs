//! The command line, named as users of `mosquitto_pub` and `mosquitto_sub` expect.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use dunlin::QoS;

use crate::exit;
use crate::format::Format;

/// Talks MQTT 3.1.1: publishes, subscribes, and shows how a client survives a bad day.
#[derive(Parser)]
#[command(name = "dunlin", version, after_help = "`dunlin pub --help` and `dunlin sub --help` teach, with examples.")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Publish messages: one, a file, or standard input line by line
    Pub(PubArgs),
    /// Subscribe, and print what arrives
    Sub(SubArgs),
    /// Look at what a session keeps over restarts
    Store {
        /// What to do with it.
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Watch MQTT clients survive a bad day, packet by packet
    #[cfg(feature = "demo")]
    Demo(DemoArgs),
}

/// What `dunlin store` does.
#[derive(Subcommand)]
pub enum StoreCommand {
    /// Print what is stored, also while another process uses it
    Show {
        /// The directory of the store
        #[arg(value_name = "DIR")]
        directory: std::path::PathBuf,
    },
}

const PUB_EXAMPLES: &str = "\
Examples:
  A message to the server on this machine:
      dunlin pub -t plant/7/valve -m open
  Retained, so that whoever subscribes later gets it too, and acknowledged (QoS 1):
      dunlin pub -h broker.example -t plant/7/status -q 1 -r -m online
  Forget what the server has retained:
      dunlin pub -t plant/7/status -r -n
  Each line of a log as a message, exactly once even if the link breaks on the way: the
  server has to know the client again, so it needs a name (-i) and a session (-c):
      tail -F meter.log | dunlin pub -t meter/9 -q 2 -l -i meter-9 -c
  Also if this process is killed: what was read is safe once it is in the store
      meter | dunlin pub -t meter/9 -q 2 -l -i meter-9 --store /var/lib/meter
  Deliver what an earlier run left in its store, and nothing new:
      dunlin pub -i meter-9 --store /var/lib/meter
  With a password that neither `ps` nor the shell's history shows:
      dunlin pub -u meter --password-file ~/.meter-password -t meter/9 -m 21.5";

const PUB_STORE: &str = "\
With --store:
  A message at QoS 1 or 2 is accepted when it is in the store; from then on it is delivered, at
  QoS 2 exactly once, whatever becomes of this process: by this run, or by the next one with
  the same directory, identifier and server. Input is not remembered: a line that was read and
  was not stored when the process was killed is gone, and what is given again is published
  again. `dunlin store show DIR` says how many messages the store has taken, in the order of
  the input: go on behind so many lines.";

const SUB_EXAMPLES: &str = "\
Examples:
  Everything below plant/, with topics:
      dunlin sub -v -t 'plant/#'
  Wait up to ten seconds for one message; exit code 27 when none came:
      dunlin sub -t plant/7/valve -C 1 -W 10
  Keep the place: while it does not run, the server keeps messages at QoS 1 and 2, and each
  message at QoS 2 is printed once, also across broken links and restarts:
      dunlin sub -t 'meter/+' -q 2 -i archive -c >> archive.txt
  The same also if it is killed: what was printed in the instant before, and is not marked in the
  store yet, is printed again, and standard error says so:
      dunlin sub -t 'meter/+' -q 2 -i archive --store /var/lib/archive >> archive.txt
  One JSON object per line:
      dunlin sub -t 'plant/#' -F %j

Formats for -F:
  %t topic   %p payload   %x %X payload in hexadecimal   %l payload length
  %q QoS     %r retained  %m packet identifier           %% a percent sign
  %j JSON with the payload as text       %J JSON with the payload, which has to be JSON;
                                         an empty one is null in both
  %I local time, ISO 8601                %U seconds since 1970, with nanoseconds
  %d %f the payload as a number in 8 or in 4 bytes, as this machine lays them out
  %20t fills up to a width, %-20t on the right, %020l with zeros; %.8t cuts off after so many
  characters, %.3f after so many decimals; %.2x or %.2:x separates groups of so many digits
  @Y @m @d @H @M @S @z and so on: local time, as strftime does with %; @N nanoseconds; @@ is @
  \\n \\t \\r \\0 \\a \\e \\v \\\\ as in C";

#[derive(Args)]
#[command(
    override_usage = "dunlin pub [OPTIONS] -t <TOPIC> <-m <TEXT>|-f <FILE>|-s|-l|-n>\n       dunlin pub [OPTIONS] -i <ID> --store <DIR>"
)]
#[command(disable_help_flag = true, after_help = format!("{PUB_EXAMPLES}\n\n{PUB_STORE}\n\n{}", exit::HELP))]
pub struct PubArgs {
    /// Topic to publish to
    #[arg(short = 't', long, value_name = "TOPIC", allow_hyphen_values = true)]
    pub topic: Option<String>,
    #[command(flatten)]
    pub source: Source,
    /// Quality of service: 0 at most once, 1 at least once, 2 exactly once
    #[arg(short = 'q', long, value_name = "QOS", default_value = "0", value_parser = qos)]
    pub qos: QoS,
    /// Retain: the server keeps the message for whoever subscribes later
    #[arg(short = 'r', long)]
    pub retain: bool,
    /// Publish the message so many times
    #[arg(long, value_name = "COUNT", default_value = "1", conflicts_with = "stdin_line", value_parser = clap::value_parser!(u64).range(1..))]
    pub repeat: u64,
    /// Wait so long between two of them
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub repeat_delay: Duration,
    /// Most messages at QoS 1 and 2 that are sent and not yet acknowledged
    #[arg(short = 'M', long, value_name = "COUNT", default_value = "20", value_parser = clap::value_parser!(u16).range(1..))]
    pub max_inflight: u16,
    /// Give up when not everything is delivered after so long
    #[arg(short = 'W', value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Where the payload comes from.
#[derive(Args)]
#[group(multiple = false)]
pub struct Source {
    /// The payload
    #[arg(short = 'm', long, value_name = "TEXT", allow_hyphen_values = true)]
    pub message: Option<String>,
    /// Publish the contents of a file as one message
    #[arg(short = 'f', long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Publish all of standard input as one message
    #[arg(short = 's', long)]
    pub stdin_file: bool,
    /// Publish each line of standard input as a message, without its line end
    #[arg(short = 'l', long)]
    pub stdin_line: bool,
    /// Publish an empty message
    #[arg(short = 'n', long)]
    pub null_message: bool,
}

impl Source {
    /// Whether there is anything to publish.
    pub fn is_given(&self) -> bool {
        let Self { message, file, stdin_file, stdin_line, null_message } = self;
        message.is_some() || file.is_some() || *stdin_file || *stdin_line || *null_message
    }
}

#[derive(Args)]
#[command(override_usage = "dunlin sub [OPTIONS] -t <FILTER>...")]
#[command(disable_help_flag = true, after_help = format!("{SUB_EXAMPLES}\n\n{}", exit::HELP))]
pub struct SubArgs {
    /// Topic filter to subscribe to, with + for one level and # for all below; may be given many times
    #[arg(short = 't', long = "topic", value_name = "FILTER", allow_hyphen_values = true)]
    pub topics: Vec<String>,
    /// Do not print messages that match this filter; may be given many times
    #[arg(short = 'T', long, value_name = "FILTER", allow_hyphen_values = true)]
    pub filter_out: Vec<String>,
    /// Unsubscribe from this filter, which a kept session may still have; may be given many times
    #[arg(short = 'U', long, value_name = "FILTER", allow_hyphen_values = true)]
    pub unsubscribe: Vec<String>,
    /// Quality of service: the most that the server may use
    #[arg(short = 'q', long, value_name = "QOS", default_value = "0", value_parser = qos)]
    pub qos: QoS,
    /// Print topic and payload
    #[arg(short = 'v', long)]
    pub verbose: bool,
    /// Print as the format says, whatever -v says; see below
    #[arg(short = 'F', value_name = "FORMAT", value_parser = Format::parse, allow_hyphen_values = true)]
    pub format: Option<Format>,
    /// Print no line end after a message
    #[arg(short = 'N')]
    pub no_line_end: bool,
    /// Do not print what the server had retained
    #[arg(short = 'R', conflicts_with = "retained_only")]
    pub no_retained: bool,
    /// Print what the server had retained, and end with the first message that it had not
    #[arg(long)]
    pub retained_only: bool,
    /// Make the server forget the retained messages that are printed
    #[arg(long)]
    pub remove_retained: bool,
    /// End after so many messages
    #[arg(short = 'C', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End as soon as the server has answered all subscriptions
    #[arg(short = 'E')]
    pub exit_when_subscribed: bool,
    /// End after so long
    #[arg(short = 'W', value_name = "SECONDS", value_parser = time_limit)]
    pub timeout: Option<Duration>,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Who connects, and to where.
#[derive(Clone, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// Server to connect to [default: localhost]
    #[arg(short = 'h', long, value_name = "HOST", conflicts_with = "url")]
    pub host: Option<String>,
    /// Port to connect to [default: 1883, with TLS 8883]
    #[arg(short = 'p', long, value_name = "PORT", conflicts_with = "url", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// All at once: mqtt:// or mqtts://user:password@host:port/topic, ws:// or wss://host/path, or unix:///path
    #[arg(short = 'L', long, value_name = "URL")]
    pub url: Option<String>,
    /// Unix domain socket to connect to
    #[arg(long, value_name = "PATH", conflicts_with_all = ["host", "port", "url"])]
    pub unix: Option<String>,
    /// Version of MQTT; there is one, mqttv311
    #[arg(short = 'V', long, value_name = "VERSION", value_parser = version)]
    pub protocol_version: Option<Version>,
    /// Client identifier [default: one made up for this run]
    #[arg(short = 'i', long, value_name = "ID", allow_hyphen_values = true)]
    pub id: Option<String>,
    /// Client identifier made of this and the process id
    #[arg(short = 'I', long, value_name = "PREFIX", conflicts_with = "id", allow_hyphen_values = true)]
    pub id_prefix: Option<String>,
    /// Keep the session: the server remembers subscriptions and messages under the client identifier
    #[arg(short = 'c', long)]
    pub disable_clean_session: bool,
    /// Keep the session in this directory, so that it survives the end of this process, too: see below
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// User name
    #[arg(short = 'u', long, value_name = "NAME", allow_hyphen_values = true)]
    pub username: Option<String>,
    /// Password; every user of this machine can read it in the list of processes, so rather use a file, or DUNLIN_PASSWORD
    #[arg(short = 'P', long = "pw", value_name = "PASSWORD", allow_hyphen_values = true)]
    pub password: Option<String>,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    pub password_file: Option<PathBuf>,
    /// Longest silence towards the server, in seconds; 0: none is too long
    #[arg(short = 'k', long, value_name = "SECONDS", default_value = "60")]
    pub keepalive: u16,
    /// Proxy to connect through: socks5://user:password@host:port or http://host:port
    #[arg(long, value_name = "URL")]
    pub proxy: Option<String>,
    /// What the server publishes when this client disappears without a goodbye: topic
    #[arg(long, value_name = "TOPIC", allow_hyphen_values = true)]
    pub will_topic: Option<String>,
    /// and payload
    #[arg(
        long,
        value_name = "TEXT",
        requires = "will_topic",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub will_payload: String,
    /// and quality of service
    #[arg(long, value_name = "QOS", requires = "will_topic", default_value = "0", value_parser = qos)]
    pub will_qos: QoS,
    /// and whether it is retained
    #[arg(long, requires = "will_topic")]
    pub will_retain: bool,
    /// Longest wait before the first attempt to connect again
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub reconnect_min: Duration,
    /// Longest wait before any attempt: it doubles with each failure, and is drawn at random up to there
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub reconnect_max: Duration,
    /// End when the connection is lost or cannot be made, with a code that says why
    #[arg(long)]
    pub no_reconnect: bool,
    /// Do not report lost connections and other trouble
    #[arg(long)]
    pub quiet: bool,
    /// Report connections made, too
    #[arg(short = 'd', long)]
    pub debug: bool,
    /// Print this help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Small packets leave at once, with this option or without
    #[arg(long, hide = true)]
    nodelay: bool,
    // Last, since its heading stays for what follows.
    #[command(flatten)]
    pub tls: TlsArgs,
}

/// The version of MQTT that is spoken.
#[derive(Clone, Copy, Debug)]
pub struct Version;

/// Whom to trust, and who this is. Each of them turns TLS on, for servers given with -h; with mqtts:// it is on anyway.
#[derive(Clone, Default, Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// Use TLS, and trust the certificate authorities of this system
    #[arg(long, alias = "tls-use-os-certs")]
    pub tls: bool,
    /// Trust the certificate authorities in this file instead, PEM or DER
    #[arg(long, value_name = "FILE")]
    pub cafile: Option<PathBuf>,
    /// Trust only the very certificate in this file, whatever name and dates it has
    #[arg(long, value_name = "FILE", conflicts_with = "cafile")]
    pub pin: Option<PathBuf>,
    /// Certificate of this client, PEM or DER
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// and its private key, not encrypted: PKCS #8, SEC1 or PKCS #1
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Refuse servers whose certificate is in this revocation list
    #[arg(long, value_name = "FILE", conflicts_with = "pin")]
    pub crl: Option<PathBuf>,
    /// Only this version: tlsv1.2 or tlsv1.3
    #[arg(long, value_name = "VERSION")]
    pub tls_version: Option<TlsVersion>,
    /// Protocol to offer with ALPN; may be given many times
    #[arg(long, value_name = "NAME")]
    pub tls_alpn: Vec<String>,
    /// Name in the server's certificate, if it is not the host
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    /// DANGEROUS: trust any server, so that anybody on the way can read and change everything
    #[arg(long, conflicts_with_all = ["cafile", "pin", "crl"])]
    pub insecure: bool,
}

/// Versions of TLS, named as in mosquitto_sub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TlsVersion {
    #[value(name = "tlsv1.2")]
    Tls12,
    #[value(name = "tlsv1.3")]
    Tls13,
}

/// Runs MQTT clients through a bad day and shows each packet: a link that breaks in the middle of QoS 2 exchanges, a
/// server that forgets, a device that is away, and one that dies. Ends with what was sent, received, doubled and lost.
///
/// Brings its own server. Exit code 0 only if the promise of each quality of service was kept.
#[cfg(feature = "demo")]
#[derive(Args)]
pub struct DemoArgs {
    /// Use this server instead of the one built in: mqtt://user:password@host:port
    #[arg(long, value_name = "URL")]
    pub broker: Option<String>,
    /// Over mutual TLS, with certificates made for this run; shows who is let in, and who is not
    #[arg(long, conflicts_with = "broker")]
    pub tls: bool,
    /// Do not pause between scenes
    #[arg(long)]
    pub fast: bool,
    /// Break a promise on purpose, to see that it is noticed
    #[arg(long, value_name = "HOW", hide = true)]
    pub sabotage: Option<crate::demo::Sabotage>,
}

fn qos(text: &str) -> Result<QoS, String> {
    text.parse().ok().and_then(QoS::from_bits).ok_or_else(|| "expected 0, 1 or 2".to_owned())
}

fn version(text: &str) -> Result<Version, String> {
    match text {
        "mqttv311" | "311" | "3.1.1" => Ok(Version),
        _ => Err("only MQTT 3.1.1 is spoken here: mqttv311".to_owned()),
    }
}

/// To wait for no time is not to wait.
fn time_limit(text: &str) -> Result<Duration, String> {
    let time = seconds(text)?;
    if time.is_zero() { Err("expected more than 0 seconds".to_owned()) } else { Ok(time) }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "expected a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "expected a number of seconds, 0 or more".to_owned())
}
