//! `dunlin store show`.

use std::process::Command;

use dunlin::{Options, Publish, Session, Storage};
use dunlin_store::{Durable, FileStore};

fn show(directory: &std::path::Path) -> (Option<i32>, String, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_dunlin")).args(["store", "show"]).arg(directory).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

#[test]
fn it_prints_what_is_stored_and_says_where_there_is_no_store() {
    let directory = std::env::temp_dir().join(format!("dunlin-cli-store-{}", std::process::id()));
    let (code, out, error) = show(&directory);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(error.contains("no store there"), "{error}");

    let mut storage: Storage<256, 64, 4> = Storage::new();
    let (memory, _) = storage.split();
    let store = FileStore::open(&directory).unwrap();
    let mut mqtt = Durable::recover(Session::new(Options::new("c").durable(), memory), store).unwrap();
    mqtt.publish(&Publish::new("till/12/sale", b"3.40").exactly_once()).unwrap();
    // The store is in use by this process, and looked at by another.
    let (code, out, error) = show(&directory);
    let _ = std::fs::remove_dir_all(&directory);
    assert_eq!(code, Some(0), "{error}");
    assert!(
        out.starts_with("out  #1     QoS 2  till/12/sale, 4 bytes\n1 entry in ")
            && out.ends_with("\n1 message taken since the store was made\n"),
        "{out}"
    );
}
