//! A store on NOR flash: a few pages, two at least.
//!
//! Built on the map of `sequential-storage`, which levels wear and recovers from power cuts, and never trusting it
//! alone: each record carries its own length and checksum, is read back after it is written, and written again if it
//! is not there. (After two cuts at the same place the map can report success and keep nothing.) Each record also says
//! what all records amount to, so that one that has become unreadable is missed; and erases are made whole: see `whole`.
//!
//! A message has a key. Its record is overwritten by "released", and that by "gone", so that the number of keys has a
//! bound. The map holds the latest record of each key, and moves them as pages fill. Of all that is kept, RAM holds a
//! table: see `table`.
//!
//! What is to be written or read is decided there without waiting; `work!` alone waits for the map.

macro_rules! wait {
    ($future:expr) => {
        $future.await
    };
}

mod record;
mod table;
mod whole;

use core::future::Future;
use core::ops::Range;
use core::pin::Pin;
use core::task::{Context, Poll};

use dunlin_core::{Filter, Mark, PacketId, Publish, QoS, Topic};
use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use sequential_storage::Error;
use sequential_storage::cache::{Cache, Uncached};
use sequential_storage::map::{MapConfig, MapStorage};

use crate::block::now;
use crate::store::{Damage, Entry, Job, Store, StoreError};
use record::{HEAD, KEY, RETAIN};
use table::{Action, Table, Writing, kind};
use whole::{Waiting, Whole};

/// How often a record is written before the flash is called unreliable.
const TRIES: u8 = 4;
type Map<F> = MapStorage<u16, F, Cache<Uncached, Uncached, Uncached, u16>>;

/// A store on NOR flash.
///
/// `C`: outgoing messages and filters added at run time, at a time, and one. `R`: incoming QoS 2 messages at a time.
/// `B`: bytes of the largest record: a message's topic and payload have 24 bytes less, rounded down to a word. All
/// three may be changed by an update of the program, as long as what is stored fits. Topics and filters have at most 255
/// bytes.
///
/// For flash with a blocking driver, wrap it: [`Blocking`].
pub struct FlashStore<N: NorFlash, const C: usize = 25, const R: usize = 21, const B: usize = 1024> {
    flash: N,
    range: Range<u32>,
    table: Table<N, C, R, B>,
    buffer: [u8; B],
}

type Outcome<T, N> = Result<T, StoreError<<N as ErrorType>::Error>>;

/// Does a job, one record at a time. What was being written when a future was dropped is looked up first: it is there
/// or not, as after a power cut. A mount begins in the same way.
///
/// Written once and compiled twice: for executors, and for who waits, where it costs half a kilobyte less not to be able
/// to go on later.
macro_rules! work {
    ($store:ident, $job:ident, $flash:path, $wait:ident) => {{
        let FlashStore { flash, range, table, buffer } = $store;
        let flash = Whole::new(flash, range).ok_or(StoreError::Region)?;
        let config = MapConfig::try_new(0..flash.len()).map_err(|_| StoreError::Region)?;
        let mut map: Map<_> = MapStorage::new($flash(flash), config, Cache::new_uncached());
        let mut is_reset = false;
        while !table.is_sure {
            table.clear(map.flash().pages());
            $wait!(map.flash().finish(is_reset)).map_err(StoreError::Medium)?;
            let outcome = match $wait!(map.fetch_all_items(buffer)) {
                Err(error) => Err(medium(error)),
                Ok(mut items) => loop {
                    match $wait!(items.next::<&[u8]>(buffer)) {
                        Err(error) => break Err(medium(error)),
                        Ok(None) => break Ok(()),
                        Ok(Some((key, bytes))) => {
                            if let Err(error) = table.see(key, bytes) {
                                break Err(error);
                            }
                        }
                    }
                },
            };
            match outcome {
                // These are no pages of a map.
                Err(StoreError::Unreliable) if !is_reset => {
                    table.damage.is_reset = true;
                    is_reset = true;
                }
                outcome => {
                    outcome?;
                    break;
                }
            }
        }
        'next: loop {
            let action = table.plan(&mut $job)?;
            let key = record::key(table.cell.index);
            for _ in 0..TRIES {
                match action {
                    Action::Nothing => return Ok(()),
                    Action::Read => {}
                    Action::Write => {
                        sure($wait!(map.store_item(buffer, &key, &Writing(table, &$job))))?;
                    }
                }
                let bytes = sure($wait!(map.fetch_item::<&[u8]>(buffer, &key)))?.flatten();
                if table.note(action, &mut $job, bytes)? {
                    continue 'next;
                }
            }
            return Err(StoreError::Unreliable);
        }
    }};
}

macro_rules! now {
    ($future:expr) => {
        now($future)
    };
}

impl<N: NorFlash, const C: usize, const R: usize, const B: usize> FlashStore<N, C, R, B> {
    /// The store in this range of the flash, in bytes. Reads nothing yet: whatever is asked of it first opens it, with the
    /// errors of [`mount`](Self::mount). Before that, [`last`](Store::last) and [`damage`](Store::damage) know nothing.
    ///
    /// Something of this size is better not moved. Where the stack is small, keep it in a static, and give
    /// [`Durable`](crate::Durable) a `&mut` to it.
    pub const fn new(flash: N, range: Range<u32>) -> Self {
        const { assert!(C > 1 && C < 256, "a key has a byte for the cell") };
        const { assert!(KEY + HEAD + 2 * R <= B, "identifiers received must fit a record") };
        Self { flash, range, table: const { Table::new() }, buffer: [0; B] }
    }

    /// Opens the store in this range of the flash, in bytes; makes an empty one where there is none.
    ///
    /// What a power cut left half done is brought to an end. [`damage`](Store::damage) tells whether anything was
    /// found that had been whole and could not be read.
    ///
    /// # Errors
    /// [`StoreError`]: the store is of another format, larger than the tables of this program, or cannot be reached.
    pub async fn mount(flash: N, range: Range<u32>) -> Outcome<Self, N> {
        let mut store = Self::new(flash, range);
        store.work(None).await?;
        Ok(store)
    }

    /// Gives the flash back.
    pub fn into_flash(self) -> N {
        self.flash
    }

    /// The flash, to be looked at.
    pub fn flash(&mut self) -> &mut N {
        &mut self.flash
    }

    #[expect(clippy::manual_async_fn, reason = "an `async fn` has its arguments in memory twice")]
    fn work(&mut self, mut job: Option<Job<'_>>) -> impl Future<Output = Outcome<(), N>> {
        async move { work!(self, job, core::convert::identity, wait) }
    }

    /// As [`work`](Self::work), for who waits.
    fn wait(&mut self, mut job: Option<Job<'_>>) -> Outcome<(), N> {
        work!(self, job, Waiting, now)
    }
}

impl<N: NorFlash, const C: usize, const R: usize, const B: usize> Store for FlashStore<N, C, R, B> {
    type Error = N::Error;

    fn put(&mut self, id: PacketId, order: u32, publish: &Publish<'_>) -> impl Future<Output = Outcome<(), N>> {
        self.work(Some(Job::Put { id, order, publish }))
    }

    fn mark(&mut self, marks: &[Mark]) -> impl Future<Output = Outcome<(), N>> {
        self.work(Some(Job::Mark(marks)))
    }

    fn read(&mut self, order: u32, offset: usize, out: &mut [u8]) -> impl Future<Output = Outcome<(), N>> {
        self.work(Some(Job::Read { order, offset, out }))
    }

    fn subscribe(&mut self, filter: &Filter<'_>) -> impl Future<Output = Outcome<(), N>> {
        self.work(Some(Job::Subscribe(filter)))
    }

    fn unsubscribe(&mut self, filter: &str) -> impl Future<Output = Outcome<(), N>> {
        self.work(Some(Job::Unsubscribe(filter)))
    }

    fn seek(&mut self, index: usize) -> impl Future<Output = Outcome<(), N>> {
        self.work(Some(Job::Seek(index)))
    }

    fn run(&mut self, job: Job<'_>) -> Outcome<(), N> {
        self.wait(Some(job))
    }

    fn found(&self) -> Option<Entry<'_>> {
        let cell = self.table.cell;
        let (kind, id, order) = (cell.kind(), PacketId::new(cell.id()), cell.order);
        if kind < kind::MESSAGE {
            return Some(if kind == kind::RECEIVED { Entry::Received(id?) } else { Entry::Released(id?) });
        }
        let at = KEY.saturating_add(HEAD);
        let body = self.buffer.get(at..at.saturating_add(cell.len()))?;
        let (flags, text, payload) = record::split(body)?;
        let topic = Topic::from_store(text);
        let qos = QoS::from_bits(flags & 3)?;
        if kind == kind::FILTER {
            return Some(Entry::Subscription { filter: topic, qos });
        }
        let retain = flags & RETAIN != 0;
        Some(Entry::Message { id: id?, order, topic, qos, retain, len: u32::try_from(payload.len()).ok()? })
    }

    fn last(&self) -> Option<(PacketId, u32)> {
        PacketId::new(self.table.last).map(|id| (id, self.table.number.wrapping_sub(1)))
    }

    fn damage(&self) -> Damage {
        self.table.damage
    }
}

fn medium<E>(error: Error<E>) -> StoreError<E> {
    match error {
        Error::Storage { value, .. } => StoreError::Medium(value),
        Error::FullStorage => StoreError::Full,
        _ => StoreError::Unreliable,
    }
}

/// What the map did or found. What it complains of otherwise shows when it is read.
fn sure<T, E>(outcome: Result<T, Error<E>>) -> Result<Option<T>, StoreError<E>> {
    match outcome.map_err(medium) {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Unreliable) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Flash with a blocking driver, as one for executors that is always ready: what is asked is done at once.
#[derive(Clone, Debug)]
pub struct Blocking<F>(pub F);

/// How it went with what is done already. Never pending, and never asked twice: that takes no memory in a future, and no
/// code.
struct Done<E>(Result<(), E>);

impl<E> Unpin for Done<E> {}

impl<E> Future for Done<E> {
    type Output = Result<(), E>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(core::mem::replace(&mut self.0, Ok(())))
    }
}

impl<F: embedded_storage::nor_flash::ErrorType> ErrorType for Blocking<F> {
    type Error = F::Error;
}

impl<F: embedded_storage::nor_flash::ReadNorFlash> ReadNorFlash for Blocking<F> {
    const READ_SIZE: usize = F::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> impl Future<Output = Result<(), Self::Error>> {
        Done(self.0.read(offset, bytes))
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<F: embedded_storage::nor_flash::NorFlash> NorFlash for Blocking<F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> impl Future<Output = Result<(), Self::Error>> {
        Done(self.0.erase(from, to))
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> impl Future<Output = Result<(), Self::Error>> {
        Done(self.0.write(offset, bytes))
    }
}

impl<N, const C: usize, const R: usize, const B: usize> FlashStore<Blocking<N>, C, R, B>
where
    N: embedded_storage::nor_flash::NorFlash,
{
    /// As [`mount`](Self::mount), on flash with a blocking driver.
    ///
    /// # Errors
    /// The same.
    pub fn mount_blocking(flash: N, range: Range<u32>) -> Result<Self, StoreError<N::Error>> {
        let mut store = Self::new(Blocking(flash), range);
        store.wait(None)?;
        Ok(store)
    }
}
