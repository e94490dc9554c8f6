#![no_std]
#![no_main]
//! The story on an executor, over plain TCP.
//!
//! Arguments: the broker's port on the host; milliseconds of the idle chapter.
mod net;
mod teller;

use board::cost;
use board::embassy::Ethernet;
use board::lan9118::Frames;
use cortex_m_rt::entry;
use dunlin::Inbox;
use dunlin::asynch::Shared;
use embassy_executor::raw::Executor;
use embassy_net::Stack;
use embassy_net::tcp::TcpSocket;
use embassy_time::Timer;
use static_cell::{ConstStaticCell, StaticCell};
use teller::{Outcome, Teller};

#[entry]
fn main() -> ! {
    static FRAMES: ConstStaticCell<Frames> = ConstStaticCell::new(Frames::new());
    static EXECUTOR: StaticCell<Executor> = StaticCell::new();
    let ethernet = Ethernet::new(board::start(), FRAMES.take());
    board::embassy::run(EXECUTOR.init(Executor::new(core::ptr::null_mut())), |spawner| {
        let (stack, runner) = net::stack(ethernet);
        let (mqtt, inbox) = teller::session();
        // Each task is spawned once, so there is room for it.
        spawner.spawn(net::network(runner).expect("room"));
        spawner.spawn(teller::tick(mqtt).expect("room"));
        spawner.spawn(tell(stack, mqtt, inbox).expect("room"));
    })
}

#[embassy_executor::task]
async fn tell(stack: Stack<'static>, mqtt: &'static Shared<'static>, mut inbox: Inbox<'static>) {
    static RX: ConstStaticCell<[u8; 1536]> = ConstStaticCell::new([0; 1536]);
    static TX: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    let (rx, tx) = (RX.take(), TX.take());
    let broker = net::host_port(1883);
    let teller = Teller::new(teller::idle_ms());
    cost::note("start");
    let verdict = loop {
        let mut socket = TcpSocket::new(stack, rx, tx);
        if socket.connect(broker).await.is_err() {
            Timer::after_millis(50).await;
            continue;
        }
        let (reader, writer) = socket.split();
        match teller.tell(mqtt, &mut inbox, reader, writer).await {
            Ok(Outcome::Goodbye) => {
                socket.close();
                let _ = socket.flush().await; // nothing follows
                break Ok(());
            }
            Ok(Outcome::Lost) => {}
            Ok(Outcome::Cut) => {
                socket.abort();
                let _ = socket.flush().await; // the reset goes out
            }
            Err(why) => break Err(why),
        }
    };
    teller::end(verdict)
}
