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
//! What is to be written or read is decided there without waiting; [`FlashStore::run`] alone waits for the map.

mod record;
mod table;
mod whole;

use core::future::Future;
use core::ops::Range;

use dunlin_core::{Filter, Mark, PacketId, Publish, QoS};
use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use sequential_storage::Error;
use sequential_storage::cache::{Cache, Uncached};
use sequential_storage::map::{MapConfig, MapStorage};

use crate::store::{Damage, Entry, Store, StoreError};
use record::{HEAD, KEY, PREFIX};
use table::{Action, Cell, Job, Table, kind};
use whole::Whole;

/// How often a record is written before the flash is called unreliable.
const TRIES: usize = 4;
/// RETAIN beside the quality of service.
const RETAIN: u8 = 4;

type Map<F> = MapStorage<u16, Whole<F>, Cache<Uncached, Uncached, Uncached, u16>>;

/// A store on NOR flash.
///
/// `C`: outgoing messages and filters added at run time, at a time, and one. `R`: incoming QoS 2 messages at a time.
/// `B`: bytes of the largest record: a message's topic and payload have 24 bytes less, rounded down to a word. All
/// three may be changed by an update of the program, as long as what is stored fits. Topics and filters have at most 255
/// bytes.
///
/// For flash with a blocking driver, wrap it: [`Blocking`].
pub struct FlashStore<N: NorFlash, const C: usize = 25, const R: usize = 21, const B: usize = 1024> {
    map: Map<N>,
    table: Table<N, C, R, B>,
    buffer: [u8; B],
}

type Outcome<T, N> = Result<T, StoreError<<N as ErrorType>::Error>>;

impl<N: NorFlash, const C: usize, const R: usize, const B: usize> FlashStore<N, C, R, B> {
    /// Opens the store in this range of the flash, in bytes; makes an empty one where there is none.
    ///
    /// What a power cut left half done is brought to an end. [`damage`](Store::damage) tells whether anything was
    /// found that had been whole and could not be read.
    ///
    /// # Errors
    /// [`StoreError`]: the store is of another format, larger than the tables of this program, or cannot be reached.
    pub async fn mount(flash: N, range: Range<u32>) -> Outcome<Self, N> {
        let mut store = Self::new(flash, range)?;
        store.run(Job::Recover).await?;
        Ok(store)
    }

    fn new(flash: N, range: Range<u32>) -> Outcome<Self, N> {
        const { assert!(C > 1 && C < 256, "a key has a byte for the cell") };
        const { assert!(KEY + HEAD + 2 * R <= B, "identifiers received must fit a record") };
        let is_inside = usize::try_from(range.end).is_ok_and(|end| end <= flash.capacity());
        let page = u32::try_from(N::ERASE_SIZE).unwrap_or(u32::MAX);
        let is_whole = range.start.is_multiple_of(page) && range.end.is_multiple_of(page);
        let flash = Whole::new(flash, range);
        let config = MapConfig::try_new(0..flash.len()).ok().filter(|_| is_inside & is_whole);
        let config = config.ok_or(StoreError::Region)?;
        // One page is always free to move into.
        let pages = usize::try_from(flash.pages()).unwrap_or_default().saturating_sub(1);
        let map = MapStorage::new(flash, config, Cache::new_uncached());
        Ok(Self { map, table: Table::new(pages), buffer: [0; B] })
    }

    /// Gives the flash back.
    pub fn into_flash(self) -> N {
        self.map.destroy().0.into_inner()
    }

    /// The flash, to be looked at.
    pub fn flash(&mut self) -> &mut N {
        self.map.flash().inner()
    }

    /// Does a job, one record at a time. What was being written when a future was dropped is looked up first: it is
    /// there or not, as after a power cut. A mount begins in the same way.
    async fn run(&mut self, mut job: Job<'_>) -> Outcome<(), N> {
        let Self { map, table, buffer } = self;
        if table.is_unsure {
            map.flash().finish().await.map_err(StoreError::Medium)?;
            table.clear();
            let scanned = 'scan: {
                let mut items = match map.fetch_all_items(buffer).await {
                    Ok(items) => items,
                    Err(error) => break 'scan Err(medium(error)),
                };
                loop {
                    match items.next::<&[u8]>(buffer).await {
                        Ok(Some((key, bytes))) => {
                            if let Err(error) = table.see(key, bytes) {
                                break 'scan Err(error);
                            }
                        }
                        Ok(None) => break 'scan Ok(()),
                        Err(error) => break 'scan Err(medium(error)),
                    }
                }
            };
            match scanned {
                Err(StoreError::Unreliable) => {
                    map.erase_all().await.map_err(medium)?;
                    table.clear();
                    table.damage.is_reset = true;
                }
                other => other?,
            }
        }
        'steps: while let Some(step) = table.plan(&mut job)? {
            let key = record::key(step.cell.index);
            for _ in 0..TRIES {
                if let Action::Write(number) = step.action {
                    match map.store_item(buffer, &key, &table.draft(&step, number)).await {
                        Err(Error::FullStorage) => return Err(StoreError::Full),
                        Err(Error::Storage { value, .. }) => return Err(StoreError::Medium(value)),
                        _ => {}
                    }
                }
                let opened = match map.fetch_item::<&[u8]>(buffer, &key).await {
                    Ok(bytes) => bytes.and_then(|bytes| record::open(key, bytes)),
                    Err(Error::Storage { value, .. }) => return Err(StoreError::Medium(value)),
                    Err(_) => None,
                };
                if table.note(&step, &mut job, opened)? {
                    continue 'steps;
                }
            }
            return Err(StoreError::Unreliable);
        }
        Ok(())
    }
}

impl<N: NorFlash, const C: usize, const R: usize, const B: usize> Store for FlashStore<N, C, R, B> {
    type Error = N::Error;

    fn put(&mut self, id: PacketId, order: u32, publish: &Publish<'_>) -> impl Future<Output = Outcome<(), N>> {
        let flags = publish.qos().bits() | if publish.is_retain() { RETAIN } else { 0 };
        let topic = publish.topic().as_bytes();
        self.run(Job::Keep(Cell::message(id.get(), order), prefix(flags, topic), topic, publish.payload()))
    }

    fn mark(&mut self, marks: &[Mark]) -> impl Future<Output = Outcome<(), N>> {
        self.run(Job::Mark(marks))
    }

    fn read(&mut self, order: u32, offset: usize, out: &mut [u8]) -> impl Future<Output = Outcome<(), N>> {
        self.run(Job::Read(order, offset, out))
    }

    fn subscribe(&mut self, filter: &Filter<'_>) -> impl Future<Output = Outcome<(), N>> {
        let (qos, text) = (filter.qos().bits(), filter.text().as_bytes());
        self.run(Job::Keep(Cell::filter(text, qos), prefix(qos, text), text, &[]))
    }

    fn unsubscribe(&mut self, filter: &str) -> impl Future<Output = Outcome<(), N>> {
        self.run(Job::Forget(Cell::filter(filter.as_bytes(), 0)))
    }

    fn seek(&mut self, index: usize) -> impl Future<Output = Outcome<(), N>> {
        self.run(Job::Seek(index))
    }

    fn found(&self) -> Option<Entry<'_>> {
        let Cell { kind, id, order, len, .. } = self.table.found;
        let id = PacketId::new(id);
        if kind < kind::MESSAGE {
            return Some(if kind == kind::RECEIVED { Entry::Received(id?) } else { Entry::Released(id?) });
        }
        let at = KEY.saturating_add(HEAD);
        let body = self.buffer.get(at..at.saturating_add(usize::from(len)))?;
        let (flags, text, payload) = record::split(body)?;
        let text = core::str::from_utf8(text).ok()?;
        let qos = QoS::from_bits(flags & 3)?;
        if kind == kind::FILTER {
            return Filter::new(text, qos).ok().map(Entry::Subscription);
        }
        let head = Publish::new(text, &[]).with_qos(qos);
        let head = if flags & RETAIN != 0 { head.retain() } else { head };
        Some(Entry::Message { id: id?, order, head, len: u32::try_from(payload.len()).ok()? })
    }

    fn last(&self) -> Option<(PacketId, u32)> {
        let (id, order) = self.table.last;
        PacketId::new(id).map(|id| (id, order))
    }

    fn damage(&self) -> Damage {
        self.table.damage
    }
}

/// What stands before the text in a record; a text whose length does not fit is refused.
fn prefix(flags: u8, text: &[u8]) -> [u8; PREFIX] {
    [flags, u8::try_from(text.len()).unwrap_or(u8::MAX)]
}

fn medium<E>(error: Error<E>) -> StoreError<E> {
    match error {
        Error::Storage { value, .. } => StoreError::Medium(value),
        _ => StoreError::Unreliable,
    }
}

/// Flash with a blocking driver, as one for executors that is always ready.
#[derive(Clone, Debug)]
pub struct Blocking<F>(pub F);

impl<F: embedded_storage::nor_flash::ErrorType> ErrorType for Blocking<F> {
    type Error = F::Error;
}

impl<F: embedded_storage::nor_flash::ReadNorFlash> ReadNorFlash for Blocking<F> {
    const READ_SIZE: usize = F::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.0.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<F: embedded_storage::nor_flash::NorFlash> NorFlash for Blocking<F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        self.0.erase(from, to)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0.write(offset, bytes)
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
        let mut store = Self::new(Blocking(flash), range)?;
        crate::block::block_on(store.run(Job::Recover))?;
        Ok(store)
    }
}
