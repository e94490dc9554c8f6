//! A durable session that several tasks or threads use.
//!
//! The session is behind a lock that is held for a few instructions at a time, never while anything is stored: a mark is
//! copied out, stored, and confirmed. While one publisher waits for its message to be stored, others publish, and the
//! driver goes on.

use core::cell::RefCell;
use core::marker::PhantomData;

use dunlin_core::{Instant, Mark, PacketId, Publish, Session, Stage, Transmit};

use crate::durable::{Durable, Filled, Marks, PublishError, begin, fill, supply};
use crate::store::{Store, StoreError};

/// A session, and the order of its next message: what the lock protects.
pub struct Kept<'s> {
    /// The session. Messages at QoS 1 and 2 are published through [`Shared::publish`].
    pub session: Session<'s>,
    order: u32,
    /// Some of what is stored has no room in the session.
    is_full: bool,
}

/// Mutual exclusion of the application's choice.
pub trait Lock<'s> {
    /// Runs `what` while nobody else runs anything. It is short and does not come back here.
    fn with<R>(&self, what: impl FnOnce(&mut Kept<'s>) -> R) -> R;
}

/// A store that many may use at a time; whether they take turns or are served together is its business.
#[expect(async_fn_in_trait, reason = "stores for devices are not Send, and those for hosts are named")]
pub trait SharedStore {
    /// What the medium says when it fails.
    type Error: core::fmt::Debug;

    /// As [`Store::put`].
    ///
    /// # Errors
    /// The same.
    async fn put(&self, id: PacketId, order: u32, publish: &Publish<'_>) -> Result<(), StoreError<Self::Error>>;

    /// As [`Store::mark`].
    ///
    /// # Errors
    /// The same.
    async fn mark(&self, marks: &[Mark]) -> Result<(), StoreError<Self::Error>>;

    /// As [`Store::read`].
    ///
    /// # Errors
    /// The same.
    async fn read(&self, order: u32, offset: usize, out: &mut [u8]) -> Result<(), StoreError<Self::Error>>;
}

/// A durable session that several tasks or threads use: as [`Durable`], by shared reference.
///
/// One task drives the connection: it calls [`transmit`](Self::transmit), and polls through [`with`](Self::with). Any
/// number of others publish.
pub struct Shared<L, S> {
    lock: L,
    store: S,
}

impl<L, S> Shared<L, S> {
    /// Shares a session that was recovered, under this lock and with this form of its store. What waits for room in the
    /// session waits for the next restart.
    pub fn new<'s, O: Store>(
        durable: Durable<'s, O>,
        lock: impl FnOnce(Kept<'s>) -> L,
        store: impl FnOnce(O) -> S,
    ) -> Self
    where
        L: Lock<'s>,
    {
        let is_full = durable.recovery().waiting > 0;
        let (session, owned, order) = durable.into_parts();
        Self { lock: lock(Kept { session, order, is_full }), store: store(owned) }
    }

    /// Runs `what` on the session, while nobody else does.
    pub fn with<'s, R>(&self, what: impl FnOnce(&mut Session<'s>) -> R) -> R
    where
        L: Lock<'s>,
    {
        self.lock.with(|kept| what(&mut kept.session))
    }

    /// As [`Durable::publish_async`]. Dropped before it is ready, the message is not sent on this power; whether it was
    /// stored, and so goes out after a restart, is open.
    ///
    /// # Errors
    /// As there.
    pub async fn publish<'s>(&self, publish: &Publish<'_>) -> Result<Option<PacketId>, PublishError<S::Error>>
    where
        L: Lock<'s>,
        S: SharedStore,
    {
        let begun = self.lock.with(|kept| {
            let order = kept.order;
            let id = begin(&mut kept.session, publish, &mut kept.order, kept.is_full)?;
            Ok(id.map(|id| (id, order)))
        });
        let Some((id, order)) = begun.map_err(PublishError::Session)? else { return Ok(None) };
        let unfinished = Unfinished { lock: &self.lock, id, session: PhantomData };
        self.store.put(id, order, publish).await.map_err(PublishError::Store)?;
        unfinished.stored();
        Ok(Some(id))
    }

    /// As [`Durable::transmit_async`].
    ///
    /// # Errors
    /// As there.
    pub async fn transmit<'s>(&self, now: Instant, out: &mut [u8]) -> Result<Transmit, StoreError<S::Error>>
    where
        L: Lock<'s>,
        S: SharedStore,
    {
        self.settle().await?;
        let mut written = 0;
        loop {
            match self.with(|session| fill(session, now, out, &mut written)) {
                Filled::Done(transmit) => return Ok(transmit),
                Filled::Wants { key, offset, bytes } => {
                    let read = self.store.read(key, offset, bytes).await;
                    self.with(|session| supply(session, key, bytes.len(), read))?;
                }
            }
        }
    }

    /// As [`Durable::settle_async`]. One task at a time.
    ///
    /// # Errors
    /// As there.
    pub async fn settle<'s>(&self) -> Result<(), StoreError<S::Error>>
    where
        L: Lock<'s>,
        S: SharedStore,
    {
        loop {
            let marks = self.with(|session| Marks::of(session));
            if marks.all().is_empty() {
                return Ok(());
            }
            self.store.mark(marks.all()).await?;
            self.with(|session| marks.stored(session));
        }
    }
}

/// A message that is being stored. Dropped, it is taken back.
struct Unfinished<'a, 's, L: Lock<'s>> {
    lock: &'a L,
    id: PacketId,
    session: PhantomData<fn(&Session<'s>)>,
}

impl<'s, L: Lock<'s>> Unfinished<'_, 's, L> {
    fn stored(self) {
        let mark = Mark { id: self.id, stage: Stage::Accepted };
        self.lock.with(|kept| kept.session.mark_stored(mark));
        core::mem::forget(self);
    }
}

impl<'s, L: Lock<'s>> Drop for Unfinished<'_, 's, L> {
    fn drop(&mut self) {
        self.lock.with(|kept| kept.session.withdraw(self.id));
    }
}

/// For tasks of one executor on one core.
impl<'s> Lock<'s> for RefCell<Kept<'s>> {
    fn with<R>(&self, what: impl FnOnce(&mut Kept<'s>) -> R) -> R {
        what(&mut self.borrow_mut())
    }
}

/// For threads.
#[cfg(feature = "std")]
impl<'s> Lock<'s> for std::sync::Mutex<Kept<'s>> {
    fn with<R>(&self, what: impl FnOnce(&mut Kept<'s>) -> R) -> R {
        what(&mut self.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// What several threads store at the same time is synchronised with the disk together.
#[cfg(feature = "std")]
impl SharedStore for crate::FileStore {
    type Error = std::io::Error;

    async fn put(&self, id: PacketId, order: u32, publish: &Publish<'_>) -> Result<(), StoreError<Self::Error>> {
        Store::put(&mut self.clone(), id, order, publish).await
    }

    async fn mark(&self, marks: &[Mark]) -> Result<(), StoreError<Self::Error>> {
        Store::mark(&mut self.clone(), marks).await
    }

    async fn read(&self, order: u32, offset: usize, out: &mut [u8]) -> Result<(), StoreError<Self::Error>> {
        Store::read(&mut self.clone(), order, offset, out).await
    }
}

/// For executors on devices.
#[cfg(feature = "embassy-sync")]
mod embassy {
    use embassy_sync::blocking_mutex::raw::RawMutex;
    use embassy_sync::{blocking_mutex, mutex};

    use super::{Kept, Lock, Mark, PacketId, Publish, RefCell, SharedStore, Store, StoreError};

    impl<'s, M: RawMutex> Lock<'s> for blocking_mutex::Mutex<M, RefCell<Kept<'s>>> {
        fn with<R>(&self, what: impl FnOnce(&mut Kept<'s>) -> R) -> R {
            self.lock(|kept| what(&mut kept.borrow_mut()))
        }
    }

    /// Tasks take turns.
    impl<M: RawMutex, S: Store> SharedStore for mutex::Mutex<M, S> {
        type Error = S::Error;

        async fn put(&self, id: PacketId, order: u32, publish: &Publish<'_>) -> Result<(), StoreError<S::Error>> {
            self.lock().await.put(id, order, publish).await
        }

        async fn mark(&self, marks: &[Mark]) -> Result<(), StoreError<S::Error>> {
            self.lock().await.mark(marks).await
        }

        async fn read(&self, order: u32, offset: usize, out: &mut [u8]) -> Result<(), StoreError<S::Error>> {
            self.lock().await.read(order, offset, out).await
        }
    }
}
