//! `dunlin store show`: what a directory keeps of a session, also while another process uses it.

use std::io::ErrorKind;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use dunlin_store::{Entry, FileStore, Store, StoreError};

use crate::args::StoreCommand;
use crate::exit::Failure;

pub fn run(command: &StoreCommand) -> Result<(), Failure> {
    match command {
        StoreCommand::Show { directory } => show(directory),
    }
}

/// The store of a session, for `--store`.
///
/// # Errors
/// The directory cannot be used, or another process uses it.
pub fn open(directory: &Path) -> Result<FileStore, Failure> {
    let store = FileStore::open(directory).map_err(|error| failed(directory, &error))?;
    let damage = store.damage();
    if damage.is_reset {
        let directory = directory.display();
        anstream::eprintln!("dunlin: {directory}: nothing in the log can be read; it was put aside, as log.unreadable");
    } else if damage.records > 0 {
        let records = u64::from(damage.records);
        let directory = directory.display();
        anstream::eprintln!("dunlin: {directory}: {records} records cannot be read: what they held is lost");
    }
    Ok(store)
}

fn failed(directory: &Path, error: &StoreError<std::io::Error>) -> Failure {
    let what = match error {
        StoreError::Medium(error) if error.kind() == ErrorKind::NotFound => "no store there".to_owned(),
        error => error.to_string(),
    };
    Failure::local(format!("{}: {what}", directory.display()))
}

fn show(directory: &Path) -> Result<(), Failure> {
    let failed = |error: StoreError<std::io::Error>| failed(directory, &error);
    let mut store = FileStore::read_only(directory).map_err(failed)?;
    let damage = store.damage();
    if damage.is_reset {
        return Err(Failure::local(format!("{}: nothing in the log can be read", directory.display())));
    }
    let mut index = 0;
    while let Some(entry) = now(store.entry(index)).map_err(failed)? {
        index += 1;
        let line = match entry {
            Entry::Released(id) => format!("out  #{:<5} QoS 2  taken by the server, to be released", id.get()),
            Entry::Message { id, topic, qos, retain, len, .. } => {
                let retain = if retain { ", retained" } else { "" };
                format!("out  #{:<5} QoS {}  {topic}, {len} bytes{retain}", id.get(), qos.bits())
            }
            Entry::Received(id) => format!("in   #{:<5} QoS 2  handled", id.get()),
            Entry::Subscription { filter, qos } => format!("sub         QoS {}  {filter}", qos.bits()),
        };
        anstream::println!("{line}");
    }
    let s = |count: u64| if count == 1 { "" } else { "s" };
    let bytes = store.log_len();
    anstream::println!("{index} entr{} in {bytes} byte{}", if index == 1 { "y" } else { "ies" }, s(bytes));
    let taken = store.last().map_or(0, |(_, order)| u64::from(order) + 1);
    anstream::println!("{taken} message{} taken since the store was made", s(taken));
    if damage.records > 0 {
        let records = u64::from(damage.records);
        return Err(Failure::local(format!("{records} record{} cannot be read: what they held is lost", s(records))));
    }
    Ok(())
}

/// Stores in files are never pending.
fn now<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}
