//! Clients of the library, as the story uses them.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use dunlin::Publish;
use dunlin::blocking::{Builder, Client, Error, Event, Reason};
use dunlin::reconnect::Backoff;
use dunlin::tls::{Tls, TlsError};
use dunlin::url::{Address, Scheme};

use super::ledger::Ledger;
use super::link::Link;
use super::packet::Kind;
use super::screen::Screen;
use super::tls::{Authority, Door};
use super::{LIMIT, broker, stuck};
use crate::exit::Failure;

/// Where the clients meet.
pub struct Stage {
    /// Host and port of the broker.
    pub server: String,
    user: Option<(String, Vec<u8>)>,
    /// Keeps topics and client identifiers apart from others on the user's broker.
    tag: String,
    security: Option<Security>,
    screen: Arc<Screen>,
    ledger: Arc<Ledger>,
}

/// What mutual TLS takes.
pub struct Security {
    authority: Arc<Authority>,
    door: Arc<Door>,
}

impl Security {
    /// A new authority, and a door of it.
    ///
    /// # Errors
    /// No randomness.
    pub fn new() -> Result<Self, Failure> {
        let authority = Arc::new(Authority::new("the demo's authority")?);
        let door = Arc::new(Door::new(authority.clone())?);
        Ok(Self { authority, door })
    }
}

/// A client, and its link to the broker.
pub struct Actor {
    pub name: &'static str,
    pub client: Client,
    pub link: Link,
    screen: Arc<Screen>,
}

impl Stage {
    /// Around our own broker.
    pub fn ours(broker: SocketAddr, security: Option<Security>, screen: Arc<Screen>, ledger: Arc<Ledger>) -> Self {
        let (user, password) = broker::USER;
        let user = Some((user.to_owned(), password.into()));
        Self { server: broker.to_string(), user, tag: String::new(), security, screen, ledger }
    }

    /// Around the user's broker.
    ///
    /// # Errors
    /// The URL names none that the demo can use, or it does not let us in.
    pub fn theirs(url: &str, screen: Arc<Screen>, ledger: Arc<Ledger>) -> Result<Self, Failure> {
        let address: Address = url.parse().map_err(|error| Failure::usage(format!("--broker: {error}")))?;
        if address.scheme() != Scheme::Mqtt {
            let text = "--broker: the demo shows the packets on the link, so it needs one that it can read: mqtt://";
            return Err(Failure::usage(text));
        }
        let user = address.user_name().map(|name| (name.to_owned(), address.password().unwrap_or_default().to_vec()));
        let host =
            if address.host().contains(':') { format!("[{}]", address.host()) } else { address.host().to_owned() };
        let server = format!("{host}:{}", address.port());
        let (tag, security) = (format!("{:04x}", fastrand::u16(..)), None);
        let stage = Self { server, user, tag, security, screen, ledger };
        stage.wipe("pump")?;
        stage.screen.line(format_args!("The broker is {address}; all topics begin with {}.", stage.topic("")));
        if stage.user.is_none() {
            stage.screen.line("Left out: user name and password, since the URL has none.");
        }
        stage.screen.line("Left out: a broker that restarts without its memory; its sessions are cleared instead.");
        Ok(stage)
    }

    /// For a title.
    pub fn credentials(&self) -> &'static str {
        if self.user.is_some() { " with user name and password" } else { "" }
    }

    /// TLS handshakes that let somebody in: full ones and resumed ones.
    pub fn handshakes(&self) -> Option<(usize, usize)> {
        self.security.as_ref().map(|security| security.door.handshakes())
    }

    /// The broker is another one now.
    pub fn move_to(&mut self, broker: SocketAddr) {
        self.server = broker.to_string();
    }

    /// A topic, or filter, of this run.
    pub fn topic(&self, topic: &str) -> String {
        if self.tag.is_empty() { topic.to_owned() } else { format!("dunlin-demo-{}/{topic}", self.tag) }
    }

    /// A client connects, on a link of its own, and notes in the ledger what it receives.
    ///
    /// # Errors
    /// No connection.
    pub fn enter(
        &self,
        name: &'static str,
        options: impl FnOnce(Builder, &dyn Fn(&str) -> String) -> Builder,
    ) -> Result<Actor, Failure> {
        let link = self.link(name, self.security.as_ref().map(|security| security.door.clone()))?;
        let mut builder = self.builder(name, &link.address().to_string());
        if let Some(Security { authority, .. }) = &self.security {
            builder = builder.tls(authority.client(name, authority)?);
        }
        let client = options(builder, &|topic| self.topic(topic)).start()?;
        let (receiver, screen, ledger) = (client.clone(), self.screen.clone(), self.ledger.clone());
        thread::spawn(move || {
            while let Ok(message) = receiver.next() {
                let payload = String::from_utf8_lossy(message.payload());
                screen.note(name, format_args!("has {} \"{payload}\"", message.topic()));
                ledger.arrived(name, message.topic(), message.payload());
            }
        });
        let actor = Actor { name, client, link, screen: self.screen.clone() };
        actor.comes_back(false)?;
        Ok(actor)
    }

    /// Those who must not be let in, or must not go in, are not.
    ///
    /// # Errors
    /// One of them got further than that.
    pub fn refuse(&self) -> Result<(), Failure> {
        let Some(Security { authority, door }) = &self.security else { return Ok(()) };
        let other = Arc::new(Authority::new("another authority")?);
        let impostor = Arc::new(Door::new(other.clone())?);

        self.screen.say("Somebody answers in the broker's place, with a certificate of their own making.");
        let pump = authority.client("pump", authority)?;
        self.refused("pump", impostor, pump, |error| matches!(error, TlsError::UnknownAuthority))?;
        self.screen.say("A stranger has no certificate.");
        self.refused("visitor", door.clone(), authority.trusted(), |error| matches!(error, TlsError::NoIdentity))?;
        self.screen.say("Another one has a certificate that another authority issued.");
        let stranger = other.client("visitor", authority)?;
        self.refused("visitor", door.clone(), stranger, |error| matches!(error, TlsError::IdentityRefused(_)))
    }

    fn refused(
        &self,
        name: &'static str,
        door: Arc<Door>,
        tls: Tls,
        is_it: impl FnOnce(&TlsError) -> bool,
    ) -> Result<(), Failure> {
        let link = self.link(name, Some(door))?;
        match self.builder(name, &link.address().to_string()).tls(tls).connect() {
            Err(Error::Ended(Reason::Tls(error))) if is_it(&error) && link.bytes() == 0 => {
                self.screen.note(name, format_args!("has no connection: {error}"));
                self.screen.note("broker", "has seen no CONNECT");
                Ok(())
            }
            Err(error) => Err(Failure::local(format!("the wrong refusal: {error}"))),
            Ok(_) => Err(Failure::local("a connection that should have been refused")),
        }
    }

    /// The broker forgets the session of this client.
    ///
    /// # Errors
    /// It does not let us in.
    pub fn wipe(&self, name: &str) -> Result<(), Failure> {
        self.directly(name)?.close(LIMIT)?;
        Ok(())
    }

    /// Leaves nothing on the user's broker.
    pub fn clean_up<'a>(&self, names: impl Iterator<Item = &'a str>) {
        for name in names {
            let Ok(client) = self.directly(name) else { continue };
            let _ = client.publish(&Publish::new(&self.topic("plant/valve/status"), b"").retain());
            let _ = client.close(LIMIT);
        }
    }

    /// A client with this name and a clean session, not on a link of the story.
    fn directly(&self, name: &str) -> Result<Client, Failure> {
        Ok(self.builder(name, &self.server).connect()?)
    }

    fn link(&self, name: &'static str, door: Option<Arc<Door>>) -> Result<Link, Failure> {
        Link::new(name, &self.server, self.screen.clone(), door).map_err(|error| Failure::local(error.to_string()))
    }

    /// A client of a server whose host and port are these.
    fn builder(&self, name: &str, server: &str) -> Builder {
        let id = if self.tag.is_empty() { name.to_owned() } else { format!("dunlin{}{name}", self.tag) };
        let scheme = if self.security.is_some() { Scheme::Mqtts } else { Scheme::Mqtt };
        let builder = Client::builder(&format!("{}://{server}", scheme.name()), &id)
            .keep_alive(Duration::from_secs(30))
            .timeout(LIMIT)
            .reconnect(Backoff::new(Duration::from_millis(50), Duration::from_millis(200)));
        match &self.user {
            Some((user, password)) => builder.credentials(user, password),
            None => builder,
        }
    }
}

impl Actor {
    /// Waits for the next connection, and for the session that should be found there.
    ///
    /// # Errors
    /// No connection, or the other kind of session.
    pub fn comes_back(&self, resumed: bool) -> Result<(), Failure> {
        let until = Instant::now() + LIMIT;
        while let Some(event) = self.client.next_event_timeout(until.saturating_duration_since(Instant::now()))? {
            match event {
                Event::Connected { resumed: is_resumed } if is_resumed == resumed => return Ok(()),
                Event::Connected { resumed: true } => return Err(Failure::local("the session was not forgotten")),
                Event::Connected { resumed: false } => return Err(Failure::local("the session was lost")),
                _ => {}
            }
        }
        Err(stuck("a connection"))
    }

    /// Its link goes down, and stays down.
    ///
    /// # Errors
    /// The client does not notice.
    pub fn goes(&self) -> Result<(), Failure> {
        self.note("is cut off");
        self.link.down();
        let until = Instant::now() + LIMIT;
        while let Some(event) = self.client.next_event_timeout(until.saturating_duration_since(Instant::now()))? {
            if matches!(event, Event::Disconnected { .. }) {
                return Ok(());
            }
        }
        Err(stuck("the client to notice that its link is down"))
    }

    /// Waits until so many packets of this kind have passed on the link.
    ///
    /// # Errors
    /// They have not.
    pub fn saw(&self, kind: Kind, count: usize) -> Result<(), Failure> {
        if self.link.wait_for(kind, count, LIMIT) { Ok(()) } else { Err(stuck("the subscriptions")) }
    }

    /// Something to say about this client.
    pub fn note(&self, text: impl Display) {
        self.screen.note(self.name, text);
    }
}
