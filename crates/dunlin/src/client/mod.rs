//! The asynchronous client, for programs on tokio.
//!
//! [`Builder::build`] gives three things: a [`Client`] to publish and subscribe with, which any number of tasks may
//! share; [`Messages`], what arrives; and a [`Driver`], the future that does the work. No task is hidden: who runs the
//! driver, and what happens when it ends, is visible.
//!
//! ```no_run
//! use dunlin::{Publish, QoS, client::Client};
//!
//! # async fn service() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let (client, mut messages, driver) =
//!     Client::builder("mqtt://localhost:1883", "ten-lines").subscribe("greet/+", QoS::AtLeastOnce).build()?;
//! let driver = tokio::spawn(driver.run());
//! client.publish(&Publish::new("greet/world", b"hello").at_least_once()).await?.confirmed().await?;
//! if let Some(message) = messages.next().await {
//!     println!("{}: {}", message.topic(), String::from_utf8_lossy(message.payload()));
//! }
//! client.close(std::time::Duration::from_secs(5)).await?;
//! driver.await??;
//! # Ok(())
//! # }
//! ```
//!
//! # Waiting
//! The driver never waits for the application, and nothing of a client waits for [`Messages`] but those who ask for
//! them: publishing, subscribing and waiting for acknowledgements in the loop that receives is safe, also with all
//! queues full. All futures can be dropped at any time; each says what that means.

mod driver;
mod socket;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dunlin_core::{Publish, PublishError, QoS, Replace};
use futures_core::Stream;

use crate::host::{Batch, Host, Ticket, with_payload};

pub use crate::host::{Builder, Delivery, Error, Event, Message, Outcome, Payload, Pending, Reason, Stats};
pub use driver::Driver;

/// A handle to publish and subscribe with. Cheap to clone; for any number of tasks, on any thread.
///
/// The client ends by itself, as after [`close`](Self::close) with the [`linger`](Builder::linger) of the builder, when
/// all handles and the [`Messages`] are gone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// What arrives: a queue of bounded length. When it is full, the socket is read no more, and the server waits.
///
/// Dropping it says that nobody wants messages: those that still come are acknowledged and forgotten. With
/// [manual](Builder::manual_acks) acknowledgement they are not acknowledged, so that the server keeps them.
pub struct Messages {
    shared: Arc<Shared>,
    batch: Batch,
    ticket: Ticket,
}

/// Gone with the last handle.
struct Shared {
    host: Arc<Host>,
}

impl Builder {
    /// Makes an asynchronous client. It connects as soon as its [`Driver`] runs.
    ///
    /// # Errors
    /// What is wrong with the URL or the options.
    pub fn build(self) -> Result<(Client, Messages, Driver), Error> {
        let (target, settings) = self.finish()?;
        let host = Host::start(settings, || tokio::time::Instant::now().into_std())?;
        let driver = Driver::new(host.clone(), target);
        let shared = Arc::new(Shared { host });
        Ok((Client { shared: shared.clone() }, Messages { shared, batch: Batch::default(), ticket: 0 }, driver))
    }
}

impl Client {
    /// All options of a client. [`Builder::build`] makes it.
    #[must_use]
    pub fn builder(url: &str, client_id: &str) -> Builder {
        Builder::new(url, client_id)
    }

    // Publishing

    /// Accepts a message for delivery, and waits for room if there is none: that is the back-pressure. Those who wait
    /// are served in the order in which they came.
    ///
    /// Does not wait for the server: [`Delivery::confirmed`] does, and dropping the [`Delivery`] loses nothing.
    /// Messages at QoS 1 and 2 are accepted without a connection, too.
    ///
    /// # Cancel safety
    /// Safe: if the future is dropped before it is ready, the message was not accepted, and the place in the queue goes
    /// to the next. With a store it may also have been accepted and be on its way to the disk: then it is delivered.
    ///
    /// # Errors
    /// [`PublishError::Offline`] for QoS 0 without a connection; others as they say. The message was not accepted then.
    /// But with a store, [`Error::Ended`] may mean that the client ended while the message was on its way to the disk: if
    /// it got there, the next client delivers it.
    pub async fn publish(&self, message: &Publish<'_>) -> Result<Delivery, Error> {
        self.host().publish(message, None, Replace::Nothing).await
    }

    /// As [`publish`](Self::publish), with a payload that is sent from where it is, without a copy if it has more than
    /// 4 KiB: a `Vec<u8>`, `Arc<[u8]>`, `bytes::Bytes` and others. The one of `head` is not looked at.
    ///
    /// # Cancel safety
    /// As [`publish`](Self::publish).
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn publish_shared(&self, head: &Publish<'_>, payload: &Payload) -> Result<Delivery, Error> {
        self.host().publish(&with_payload(head, payload), Some(payload), Replace::Nothing).await
    }

    /// As [`publish`](Self::publish), without waiting for room.
    ///
    /// # Errors
    /// [`PublishError::Full`], and as [`publish`](Self::publish).
    pub fn try_publish(&self, message: &Publish<'_>) -> Result<Delivery, Error> {
        match self.host().poll_publish(message, None, Replace::Nothing, &mut 0, None) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(PublishError::Full.into()),
        }
    }

    /// As [`publish`](Self::publish); may push out messages at QoS 1 and 2 that were published with the same policy
    /// and have not been sent yet. Those end as [`Outcome::Replaced`]. With [`Replace::SameTopic`], topic and payload
    /// have at most 1 MiB.
    ///
    /// # Cancel safety
    /// As [`publish`](Self::publish).
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn publish_replacing(&self, message: &Publish<'_>, policy: Replace) -> Result<Delivery, Error> {
        self.host().publish(message, None, policy).await
    }

    /// Publishes a request, and waits for its answer: the next message on `reply_topic` that is not a retained one.
    ///
    /// MQTT 3.1.1 correlates nothing, so give each request a topic of its own for the answer, such as
    /// `pump/3/answer/17`; of several who wait on one topic, the first to ask gets the first answer. If no subscription
    /// of this client covers the topic, it subscribes, with the quality of service of the request, and unsubscribes
    /// afterwards. The answer does not appear in [`Messages`]. With manual acknowledgement it is to be acknowledged as
    /// any other message.
    ///
    /// ```no_run
    /// # async fn ask(client: dunlin::client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use dunlin::Publish;
    /// use std::time::Duration;
    ///
    /// let request = Publish::new("pump/3/ask/17", b"pressure").at_least_once();
    /// let answer = tokio::time::timeout(Duration::from_secs(5), client.request(&request, "pump/3/answer/17")).await??;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Safe: if the future is dropped, nobody waits for the answer any more, and the subscription that was made for it
    /// ends. The request may have been published or not.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe) and [`publish`](Self::publish).
    pub async fn request(&self, request: &Publish<'_>, reply_topic: &str) -> Result<Message, Error> {
        self.host().request(request, reply_topic).await
    }

    // Subscribing

    /// Subscribes, and waits for the server's answer: the quality of service that it grants.
    ///
    /// # Cancel safety
    /// Safe: if the future is dropped, the request goes on without anybody waiting for the answer.
    ///
    /// # Errors
    /// What is wrong with the filter; [`Error::SubscriptionRefused`]; [`Error::Ended`].
    pub async fn subscribe(&self, filter: &str, qos: QoS) -> Result<QoS, Error> {
        self.host().subscribe_one(filter, qos).await
    }

    /// Subscribes to all of these filters with one packet, and does not wait; [`Pending::answered`] does.
    ///
    /// # Errors
    /// What is wrong with the filters, or that there is no room for them.
    pub fn request_subscribe(&self, filters: &[(&str, QoS)]) -> Result<Pending, Error> {
        self.host().subscribe(filters)
    }

    /// Unsubscribes, and waits for the server's answer. Messages that are under way may still arrive.
    ///
    /// # Cancel safety
    /// As [`subscribe`](Self::subscribe).
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub async fn unsubscribe(&self, filter: &str) -> Result<(), Error> {
        self.request_unsubscribe(&[filter])?.answered().await.map(|_| ())
    }

    /// Unsubscribes from all of these filters with one packet, and does not wait.
    ///
    /// # Errors
    /// As [`request_subscribe`](Self::request_subscribe).
    pub fn request_unsubscribe(&self, filters: &[&str]) -> Result<Pending, Error> {
        self.host().unsubscribe(filters)
    }

    /// With [manual](Builder::manual_acks) acknowledgement: the message is handled. Acknowledgements leave in the order
    /// in which their messages came, so one that is missing holds up those behind it.
    ///
    /// `false` when there is nothing to acknowledge (any more): the server sends such a message again.
    #[must_use = "a message that could not be acknowledged comes again"]
    pub fn acknowledge(&self, message: &Message) -> bool {
        message.receipt().is_some_and(|receipt| self.host().acknowledge(receipt))
    }

    // The connection

    /// Waits for what happens besides messages. Up to 1,024 events are kept for whoever asks; of several who ask, one
    /// gets it.
    ///
    /// # Cancel safety
    /// Safe: no event is lost.
    ///
    /// # Errors
    /// [`Error::Ended`]: the client has ended, and all events have been taken.
    pub async fn next_event(&self) -> Result<Event, Error> {
        self.host().next_event().await
    }

    /// Waits for a connection.
    ///
    /// # Cancel safety
    /// Safe.
    ///
    /// # Errors
    /// [`Error::Ended`]: there will be none.
    pub async fn connected(&self) -> Result<(), Error> {
        self.host().connected().await
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.host().is_connected()
    }

    /// Figures of this client.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.host().stats()
    }

    /// Ends the client: accepts nothing new, waits for what is on its way, at most for `limit`, then says goodbye to
    /// the server. Received messages can still be taken.
    ///
    /// # Cancel safety
    /// Safe: if the future is dropped, the client closes all the same.
    ///
    /// # Errors
    /// [`Error::Unfinished`]: the limit was reached before everything had arrived. [`Error::Ended`]: the client had
    /// ended for another reason. [`Error::Timeout`]: the driver does not run.
    pub async fn close(&self, limit: Duration) -> Result<(), Error> {
        self.host().close(limit);
        tokio::time::timeout(limit.saturating_add(GOODBYE), self.host().ended()).await.unwrap_or(Err(Error::Timeout))
    }

    fn host(&self) -> &Arc<Host> {
        &self.shared.host
    }
}

/// How long the driver may take to end after the limit of a close.
const GOODBYE: Duration = Duration::from_secs(2);

impl Messages {
    /// Waits for the next message; `None` when the client has ended and all have been taken.
    ///
    /// A message at QoS 1 or 2 is acknowledged when it has reached this queue, unless acknowledgement is
    /// [manual](Builder::manual_acks).
    ///
    /// # Cancel safety
    /// Safe: no message is lost.
    pub async fn next(&mut self) -> Option<Message> {
        self.shared.host.next_message(&mut self.batch).await.ok()
    }

    /// A message that is there already.
    pub fn try_next(&mut self) -> Option<Message> {
        match self.shared.host.poll_message_of(&mut self.batch, &mut 0, None) {
            Poll::Ready(message) => message.ok(),
            Poll::Pending => None,
        }
    }
}

impl Stream for Messages {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let Self { shared, batch, ticket } = &mut *self;
        shared.host.poll_message_of(batch, ticket, Some(cx.waker())).map(Result::ok)
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.shared.host.discard_messages(&mut self.batch);
    }
}

/// The last handle is gone: what is on its way has a moment left, then the driver says goodbye.
impl Drop for Shared {
    fn drop(&mut self) {
        self.host.close(self.host.settings.linger);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.host().settings).finish_non_exhaustive()
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}
