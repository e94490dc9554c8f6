//! The waits of a client as futures that run under any executor.
//!
//! Dropping one gives its place in the queue to the next, and loses nothing else.

use std::future::poll_fn;
use std::sync::Arc;

use dunlin_core::{Publish, QoS, Replace};

use super::payload::Payload;
use super::received::Message;
#[cfg(feature = "tokio")]
use super::received::{Batch, Event};
use super::{Delivery, Error, Host, Pending, Ticket};

impl Host {
    pub async fn publish(
        self: &Arc<Self>,
        publish: &Publish<'_>,
        shared: Option<&Payload>,
        replace: Replace,
    ) -> Result<Delivery, Error> {
        let mut place = Place { host: self, ticket: 0, leave: Self::leave_room };
        let delivery =
            poll_fn(|cx| self.poll_publish(publish, shared, replace, &mut place.ticket, Some(cx.waker()))).await;
        #[cfg(feature = "store")]
        if let Ok(delivery) = &delivery {
            poll_fn(|cx| self.poll_stored(delivery, Some(cx.waker()))).await?;
        }
        delivery
    }

    #[cfg(feature = "tokio")]
    pub async fn next_message(&self, batch: &mut Batch) -> Result<Message, Error> {
        let mut place = Place { host: self, ticket: 0, leave: Self::leave_messages };
        poll_fn(|cx| self.poll_message_of(batch, &mut place.ticket, Some(cx.waker()))).await
    }

    #[cfg(feature = "tokio")]
    pub async fn next_event(&self) -> Result<Event, Error> {
        let mut place = Place { host: self, ticket: 0, leave: Self::leave_events };
        poll_fn(|cx| self.poll_event(&mut place.ticket, Some(cx.waker()))).await
    }

    #[cfg(feature = "tokio")]
    pub async fn connected(&self) -> Result<(), Error> {
        let mut place = Place { host: self, ticket: 0, leave: Self::leave_connected };
        poll_fn(|cx| self.poll_connected(&mut place.ticket, Some(cx.waker()))).await
    }

    #[cfg(feature = "tokio")]
    pub async fn ended(&self) -> Result<(), Error> {
        let mut place = Place { host: self, ticket: 0, leave: Self::leave_connected };
        poll_fn(|cx| self.poll_ended(&mut place.ticket, Some(cx.waker()))).await
    }

    /// Subscribes, and waits for what the server grants.
    #[cfg(feature = "tokio")]
    pub async fn subscribe_one(self: &Arc<Self>, filter: &str, qos: QoS) -> Result<QoS, Error> {
        self.subscribe(&[(filter, qos)])?.granted_one(filter).await
    }

    /// Publishes `request`, and waits for the next message on `reply_topic`.
    pub async fn request(self: &Arc<Self>, request: &Publish<'_>, reply_topic: &str) -> Result<Message, Error> {
        let (reply, pending) = self.expect_reply(reply_topic, request.qos())?;
        if let Some(pending) = pending {
            pending.granted_one(reply_topic).await?;
        }
        drop(self.publish(request, None, Replace::Nothing).await?);
        poll_fn(|cx| reply.poll(cx.waker())).await
    }
}

impl Pending {
    /// What the server grants for `filter`, the only one that was asked for.
    async fn granted_one(self, filter: &str) -> Result<QoS, Error> {
        let granted = self.answered().await?;
        granted.first().copied().flatten().ok_or_else(|| Error::SubscriptionRefused(filter.to_owned()))
    }
}

/// A place in a queue, which is given up when a future is dropped.
struct Place<'a> {
    host: &'a Host,
    ticket: Ticket,
    leave: fn(&Host, &mut Ticket),
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.ticket != 0 {
            (self.leave)(self.host, &mut self.ticket);
        }
    }
}
