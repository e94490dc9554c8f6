//! The board under embassy: an executor that sleeps, a time driver on the alarm, a network driver on the Ethernet
//! interrupt.
use core::cell::RefCell;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Waker};

use critical_section::Mutex;
use embassy_executor::{Spawner, raw};
use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use embassy_sync::waitqueue::AtomicWaker;
use embassy_time_queue_utils::Queue;

use crate::clock;
use crate::lan9118::{Frames, Lan9118, MAX_FRAME};

/// Runs an executor for ever: `spawn` gives it its first tasks, and it sleeps when none has work.
///
/// Like embassy's own for Cortex-M, with `wfi` for `wfe`, so that wake-ups can be counted and QEMU sleeps.
pub fn run(executor: &'static mut raw::Executor, spawn: impl FnOnce(Spawner)) -> ! {
    spawn(executor.spawner());
    loop {
        // SAFETY: called from this one place, never from within a task.
        unsafe { executor.poll() };
        clock::sleep_unless(|| HAS_WORK.swap(false, Ordering::Relaxed));
    }
}

/// A task has been woken since the executor ran last.
static HAS_WORK: AtomicBool = AtomicBool::new(false);

/// What the executor calls when a task is woken.
#[unsafe(export_name = "__pender")]
fn pender(_: *mut ()) {
    HAS_WORK.store(true, Ordering::Relaxed);
}

struct AlarmDriver {
    queue: Mutex<RefCell<Queue>>,
}

embassy_time_driver::time_driver_impl!(static TIME: AlarmDriver = AlarmDriver {
    queue: Mutex::new(RefCell::new(Queue::new())),
});

impl embassy_time_driver::Driver for AlarmDriver {
    fn now(&self) -> u64 {
        clock::millis()
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        critical_section::with(|cs| {
            if self.queue.borrow_ref_mut(cs).schedule_wake(at, waker) {
                self.rearm(cs);
            }
        });
    }
}

impl AlarmDriver {
    /// Wakes what is due and sets the alarm for what is next.
    fn rearm(&self, cs: critical_section::CriticalSection<'_>) {
        let mut queue = self.queue.borrow_ref_mut(cs);
        loop {
            let next = queue.next_expiration(clock::millis());
            if clock::set_alarm(Some(next).filter(|at| *at != u64::MAX)) {
                return;
            }
        }
    }
}

pub(crate) fn on_alarm() {
    critical_section::with(|cs| TIME.rearm(cs));
}

static FRAME: AtomicWaker = AtomicWaker::new();

pub(crate) fn on_frame() {
    FRAME.wake();
}

/// The Ethernet chip for embassy-net.
pub struct Ethernet<'a> {
    chip: Lan9118,
    frames: &'a mut Frames,
}

impl<'a> Ethernet<'a> {
    /// The chip and its buffers.
    pub const fn new(chip: Lan9118, frames: &'a mut Frames) -> Self {
        Self { chip, frames }
    }
}

/// A frame that came.
pub struct Frame<'t>(&'t mut [u8]);

/// Room for a frame to send.
pub struct Room<'t>(&'t mut Lan9118, &'t mut [u8; MAX_FRAME]);

impl RxToken for Frame<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let frame = &mut self.1[..len];
        let result = fill(frame);
        self.0.send(frame);
        result
    }
}

impl Driver for Ethernet<'_> {
    type RxToken<'a>
        = Frame<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Room<'a>
    where
        Self: 'a;

    fn receive(&mut self, cx: &mut Context<'_>) -> Option<(Frame<'_>, Room<'_>)> {
        FRAME.register(cx.waker());
        self.chip.arm(); // rings at once if a frame is there already
        if !self.chip.has_room() {
            cx.waker().wake_by_ref();
            return None;
        }
        let len = self.chip.receive(&mut self.frames.received)?;
        Some((Frame(&mut self.frames.received[..len]), Room(&mut self.chip, &mut self.frames.outgoing)))
    }

    fn transmit(&mut self, cx: &mut Context<'_>) -> Option<Room<'_>> {
        if !self.chip.has_room() {
            cx.waker().wake_by_ref(); // the FIFO empties by itself, and rings for nobody
            return None;
        }
        Some(Room(&mut self.chip, &mut self.frames.outgoing))
    }

    fn link_state(&mut self, _: &mut Context<'_>) -> LinkState {
        LinkState::Up
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = MAX_FRAME;
        capabilities.max_burst_size = Some(1);
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(crate::MAC)
    }
}
