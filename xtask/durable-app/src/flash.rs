//! Flash of 4 pages of 4 KiB with words of 4 bytes, and what is kept in it.

use core::convert::Infallible;

unsafe extern "C" {
    safe fn flash_read(offset: u32, into: *mut u8, len: usize);
    safe fn flash_write(offset: u32, from: *const u8, len: usize);
    safe fn flash_erase(from: u32, to: u32);
}

pub struct Flash;

const LEN: u32 = 4 * 4096;

#[cfg(feature = "store")]
mod durable {
    use core::mem::MaybeUninit;
    use core::ptr::addr_of_mut;

    use super::*;
    use dunlin_core::Session;
    use dunlin_store::{Blocking, Durable, FlashStore};
    use embedded_storage::nor_flash::{ErrorType, NorFlash, ReadNorFlash};

    type Store = FlashStore<Blocking<Flash>>;
    pub type Client = Durable<'static, &'static mut Store>;

    static mut STORE: MaybeUninit<Store> = MaybeUninit::uninit();

    pub fn recover(session: Session<'static>) -> Option<Client> {
        // SAFETY: called once, by nobody but the application.
        let store = unsafe { (*addr_of_mut!(STORE)).write(FlashStore::new(Blocking(Flash), 0..LEN)) };
        Durable::recover(session, store).ok()
    }

    impl ErrorType for Flash {
        type Error = Infallible;
    }

    impl ReadNorFlash for Flash {
        const READ_SIZE: usize = 1;

        fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Infallible> {
            flash_read(offset, bytes.as_mut_ptr(), bytes.len());
            Ok(())
        }

        fn capacity(&self) -> usize {
            LEN as usize
        }
    }

    impl NorFlash for Flash {
        const WRITE_SIZE: usize = 4;
        const ERASE_SIZE: usize = 4096;

        fn erase(&mut self, from: u32, to: u32) -> Result<(), Infallible> {
            flash_erase(from, to);
            Ok(())
        }

        fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Infallible> {
            flash_write(offset, bytes.as_ptr(), bytes.len());
            Ok(())
        }
    }
}

#[cfg(feature = "store")]
pub use durable::{Client, recover};

#[cfg(feature = "map")]
mod map {
    use super::*;
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};

    use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
    use sequential_storage::cache::Cache;
    use sequential_storage::map::{MapConfig, MapStorage};

    /// All that a store has to do with a map: read everything, write a record, read one, start again.
    pub fn use_map() {
        let mut work = pin!(work());
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Pending = work.as_mut().poll(&mut context) {}
    }

    async fn work() {
        let Ok(config) = MapConfig::try_new(0..LEN) else { return };
        let mut map = MapStorage::<u16, _, _>::new(Flash, config, Cache::new_uncached());
        let mut buffer = [0; 256];
        let mut newest = 0;
        if let Ok(mut items) = map.fetch_all_items(&mut buffer).await {
            while let Ok(Some((key, _))) = items.next::<&[u8]>(&mut buffer).await {
                newest = key;
            }
        }
        if map.store_item(&mut buffer, &newest, &&b"1200"[..]).await.is_err() {
            let _ = map.erase_all().await;
        }
        if let Ok(Some(value)) = map.fetch_item::<&[u8]>(&mut buffer, &newest).await {
            flash_write(0, value.as_ptr(), value.len());
        }
    }

    impl ErrorType for Flash {
        type Error = Infallible;
    }

    impl ReadNorFlash for Flash {
        const READ_SIZE: usize = 1;

        async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Infallible> {
            flash_read(offset, bytes.as_mut_ptr(), bytes.len());
            Ok(())
        }

        fn capacity(&self) -> usize {
            LEN as usize
        }
    }

    impl NorFlash for Flash {
        const WRITE_SIZE: usize = 4;
        const ERASE_SIZE: usize = 4096;

        async fn erase(&mut self, from: u32, to: u32) -> Result<(), Infallible> {
            flash_erase(from, to);
            Ok(())
        }

        async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Infallible> {
            flash_write(offset, bytes.as_ptr(), bytes.len());
            Ok(())
        }
    }
}

#[cfg(feature = "map")]
pub use map::use_map;
