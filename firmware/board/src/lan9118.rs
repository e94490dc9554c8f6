//! SMSC LAN9118 Ethernet: frames through its FIFOs, one at a time, and one interrupt for "a frame is there".
use core::ptr::{read_volatile, write_volatile};

/// The longest frame without its checksum.
pub const MAX_FRAME: usize = 1514;

/// One frame in each direction. Apart from the driver, so that it can be a static without passing over the stack.
pub struct Frames {
    pub(crate) received: [u8; MAX_FRAME],
    pub(crate) outgoing: [u8; MAX_FRAME],
}

impl Frames {
    /// Empty.
    pub const fn new() -> Self {
        Self { received: [0; MAX_FRAME], outgoing: [0; MAX_FRAME] }
    }
}

/// The driver. It keeps nothing: the chip holds the state.
pub struct Lan9118(());

/// Why the chip cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitError {
    /// No chip: its byte-order register reads as this.
    Absent(u32),
    /// It does not become ready.
    Timeout,
}

impl Lan9118 {
    /// Takes the chip.
    ///
    /// # Safety
    /// Nothing else may drive it.
    pub(crate) const unsafe fn new() -> Self {
        Self(())
    }

    /// Resets the chip and turns on both directions, with the receive interrupt masked.
    pub(crate) fn init(&mut self, mac: [u8; 6]) -> Result<(), InitError> {
        let id = read(BYTE_TEST);
        if id != 0x8765_4321 {
            return Err(InitError::Absent(id));
        }
        write(HW_CFG, 1); // soft reset
        wait(HW_CFG, 1)?;
        write(HW_CFG, 1 << 20 | 5 << 16); // bit 20 must be one; 5 KiB for frames to send
        write(INT_EN, 0);
        write(INT_STS, u32::MAX);
        // Enabled, active high, push-pull. Until this is written the line idles active: an interrupt that is unmasked
        // before never stops firing.
        write(IRQ_CFG, 1 << 8 | 1 << 4 | 1);
        write(FIFO_INT, 0); // ring with the first frame
        write(RX_CFG, 0);
        let [a, b, c, d, e, f] = mac;
        mac_write(MAC_ADDRL, u32::from_le_bytes([a, b, c, d]))?;
        mac_write(MAC_ADDRH, u32::from_le_bytes([e, f, 0, 0]))?;
        write(TX_CFG, 1 << 1); // transmitter on
        mac_write(MAC_CR, 1 << 20 | 1 << 3 | 1 << 2) // full duplex, send, receive
    }

    /// Whether a frame waits.
    pub fn has_frame(&self) -> bool {
        frames_waiting() > 0
    }

    /// Takes one frame; frames that are too long or damaged are dropped.
    pub fn receive(&mut self, frame: &mut [u8; MAX_FRAME]) -> Option<usize> {
        while frames_waiting() > 0 {
            let status = read(RX_STATUS);
            let len = (status >> 16 & 0x3fff) as usize; // with the checksum
            let wanted = len.checked_sub(4).filter(|len| status & 1 << 15 == 0 && *len <= MAX_FRAME);
            let mut rest = &mut frame[..wanted.unwrap_or(0)];
            for _ in 0..len.div_ceil(4) {
                let word = read(RX_DATA).to_le_bytes();
                let (to, left) = rest.split_at_mut(rest.len().min(4));
                to.copy_from_slice(&word[..to.len()]);
                rest = left;
            }
            if wanted.is_some() {
                return wanted;
            }
        }
        None
    }

    /// Whether the longest frame would be accepted now.
    pub fn has_room(&self) -> bool {
        (read(TX_FIFO_INF) & 0xffff) as usize >= MAX_FRAME + 16
    }

    /// Sends one frame, of at most [`MAX_FRAME`] bytes.
    pub fn send(&mut self, frame: &[u8]) {
        let len = frame.len() as u32 & 0x7ff;
        write(TX_DATA, 1 << 13 | 1 << 12 | len); // first and last segment
        write(TX_DATA, len << 16 | len);
        for bytes in frame.chunks(4) {
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            write(TX_DATA, u32::from_le_bytes(word));
        }
        while read(TX_FIFO_INF) >> 16 & 0xff != 0 {
            read(TX_STATUS); // nobody asks how it went: TCP notices
        }
    }

    /// Rings once when the next frame comes.
    pub fn arm(&mut self) {
        critical_section::with(|_| {
            write(INT_STS, FRAME_WAITING);
            write(INT_EN, FRAME_WAITING);
        });
    }
}

/// Masks the interrupt until it is armed again: the driver empties the FIFO in its own time.
pub(crate) fn on_interrupt() {
    write(INT_EN, 0);
    #[cfg(feature = "embassy")]
    crate::embassy::on_frame();
}

fn frames_waiting() -> u32 {
    read(RX_FIFO_INF) >> 16 & 0xff
}

fn mac_write(register: u32, value: u32) -> Result<(), InitError> {
    const BUSY: u32 = 1 << 31;
    wait(MAC_CSR_CMD, BUSY)?;
    write(MAC_CSR_DATA, value);
    write(MAC_CSR_CMD, BUSY | register);
    wait(MAC_CSR_CMD, BUSY)
}

fn wait(register: usize, mask: u32) -> Result<(), InitError> {
    match (0..1_000_000).any(|_| read(register) & mask == 0) {
        true => Ok(()),
        false => Err(InitError::Timeout),
    }
}

fn read(register: usize) -> u32 {
    // SAFETY: a register of the chip. Some pop a FIFO when read, which is what their readers want.
    unsafe { read_volatile((BASE + register) as *const u32) }
}

fn write(register: usize, value: u32) {
    // SAFETY: a register of the chip, driven from here only.
    unsafe { write_volatile((BASE + register) as *mut u32, value) }
}

const BASE: usize = 0x4020_0000;
const RX_DATA: usize = 0x00;
const TX_DATA: usize = 0x20;
const RX_STATUS: usize = 0x40;
const TX_STATUS: usize = 0x48;
const IRQ_CFG: usize = 0x54;
const INT_STS: usize = 0x58;
const INT_EN: usize = 0x5c;
const BYTE_TEST: usize = 0x64;
const FIFO_INT: usize = 0x68;
const RX_CFG: usize = 0x6c;
const TX_CFG: usize = 0x70;
const HW_CFG: usize = 0x74;
const RX_FIFO_INF: usize = 0x7c;
const TX_FIFO_INF: usize = 0x80;
const MAC_CSR_CMD: usize = 0xa4;
const MAC_CSR_DATA: usize = 0xa8;

const MAC_CR: u32 = 1;
const MAC_ADDRH: u32 = 2;
const MAC_ADDRL: u32 = 3;

const FRAME_WAITING: u32 = 1 << 3;
