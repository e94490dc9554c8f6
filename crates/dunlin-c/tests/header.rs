//! The header against the library.

use std::fs;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dunlin_c::status::Status;
use dunlin_c::types::*;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A file in a directory of its own.
fn scratch(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// Runs the compiler on `source` without an output of its own.
fn compiles(compiler: &str, arguments: &[&str], source: &str) {
    assert!(is_compiled(compiler, arguments, source), "{compiler} {arguments:?}");
}

fn is_compiled(compiler: &str, arguments: &[&str], source: &str) -> bool {
    let mut command = Command::new(compiler);
    command.args(["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Werror"]);
    command.arg("-fsyntax-only").args(arguments);
    let mut child = command.arg("-I").arg(here("include")).arg("-").stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), source.as_bytes()).unwrap();
    child.wait().unwrap().success()
}

#[test]
fn the_header_compiles_alone_in_every_c_and_cpp() {
    for standard in ["c99", "c11", "c17"] {
        compiles("cc", &[&format!("-std={standard}"), "-xc"], "#include \"dunlin.h\"\n");
    }
    for standard in ["c++11", "c++17", "c++20"] {
        compiles("g++", &[&format!("-std={standard}"), "-xc++"], "#include \"dunlin.h\"\n");
    }
}

#[test]
fn constant_tables_are_constant_in_strict_c() {
    let table = "#include \"dunlin.h\"\n\
        const dunlin_filter filters[] = { { DUNLIN_TEXT(\"pump/+/set\"), 1 }, { DUNLIN_TEXT(\"all\"), 2 } };\n\
        const dunlin_message will = { DUNLIN_TEXT(\"a\"), DUNLIN_TEXT(\"b\"), 1, true, false };\n\
        unsigned char tx[DUNLIN_TX_LEN(sizeof \"pump/3/flow\" - 1, 32) * 4], names[DUNLIN_FILTER_LEN(10)];\n";
    compiles("cc", &["-std=c99", "-xc"], table);
    compiles("cc", &["-std=c11", "-xc", "-Wc++-compat", "-Wcast-qual"], table);
    compiles("g++", &["-std=c++11", "-xc++", "-Wold-style-cast"], table);
}

#[test]
fn the_length_of_a_pointer_is_not_taken_for_that_of_a_text() {
    let text = |of: &str| {
        format!(
            "#include \"dunlin.h\"\n#define NAME \"pump\"\nextern const dunlin_bytes text;\nconst dunlin_bytes text = DUNLIN_TEXT({of});\n"
        )
    };
    assert!(is_compiled("cc", &["-std=c11", "-xc"], &text("NAME")));
    assert!(!is_compiled("cc", &["-std=c11", "-xc"], &text("(const char *)NAME")));
}

/// What the library says of each structure, as tests/layout.c prints it.
macro_rules! layout {
    ($($type:ident { $($field:ident),* })*) => {{
        let mut lines = String::new();
        $(
            lines += &format!("{} 0 {}\n", stringify!($type), size_of::<$type>());
            $(
                let size = size_of_field(|it: &$type| &raw const it.$field);
                lines += &format!("{}.{} {} {}\n", stringify!($type), stringify!($field), offset_of!($type, $field), size);
            )*
        )*
        lines
    }};
}

fn size_of_field<T, F>(_: impl Fn(&T) -> *const F) -> usize {
    size_of::<F>()
}

#[test]
fn structures_are_laid_out_as_the_header_says() {
    let said = |options: &[&str]| {
        let program = scratch("layout").join("layout");
        let mut cc = Command::new("cc");
        cc.args(options).arg("-I").arg(here("include")).arg(here("tests/layout.c")).arg("-o").arg(&program);
        assert!(cc.status().unwrap().success());
        String::from_utf8(Command::new(&program).output().unwrap().stdout).unwrap()
    };
    let is = layout! {
        dunlin_bytes { ptr, len }
        dunlin_session {}
        dunlin_slot {}
        dunlin_received {}
        dunlin_memory { tx, tx_len, rx, rx_len, slots, slot_count, received, received_count, filters, filters_len }
        dunlin_message { topic, payload, qos, retain, dup }
        dunlin_filter { text, qos }
        dunlin_options {
            client_id, user_name, password, will, subscriptions, subscription_count, keep_alive_s, answer_timeout_s,
            window, chunk_align, oversize, persistent, durable, manual_acks
        }
        dunlin_payload { key, offset, len }
        dunlin_receipt { opaque }
        dunlin_event { message, codes, offset, total, receipt, packet_id, kind, resumed, is_last }
        dunlin_fault_info { len, kind, detail, may_heal }
        dunlin_mark { packet_id, stage }
    };
    assert_eq!(said(&[]), is);
    assert_eq!(said(&["-fshort-enums"]), is, "as compilers for devices do");
}

/// The functions of the library as a header, made from its sources.
fn prototypes() -> String {
    let mut sources: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(here("src")).unwrap() {
        sources.push(entry.unwrap().path());
    }
    let mut config = cbindgen::Config { language: cbindgen::Language::C, no_includes: true, ..Default::default() };
    config.export.item_types = vec![cbindgen::ItemType::Functions];
    config.export.rename.insert("Status".to_owned(), "dunlin_status".to_owned());
    config.usize_is_size_t = true;
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in sources {
        builder = builder.with_src(source);
    }
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    // It knows structures by their tags, where C++ and this header need none.
    String::from_utf8(header).unwrap().replace("struct dunlin_", "dunlin_").replace("enum dunlin_", "dunlin_")
}

#[test]
fn prototypes_are_those_of_the_library() {
    let prototypes = prototypes();
    // Declared twice, by us and by the sources: the compiler compares them.
    compiles("cc", &["-std=c11", "-xc", "-Wno-redundant-decls"], &format!("#include \"dunlin.h\"\n{prototypes}"));
    let names = |text: &str| -> Vec<String> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let calls = text.match_indices('(').filter_map(|(at, _)| {
            let name: String = text[..at].chars().rev().take_while(|c| is_name(*c)).collect();
            let name: String = name.chars().rev().collect();
            name.starts_with("dunlin_").then_some(name)
        });
        let mut names: Vec<_> = calls.collect();
        names.sort();
        names.dedup();
        names
    };
    let header = fs::read_to_string(here("include/dunlin.h")).unwrap();
    assert_eq!(names(&without_comments(&header)), names(&without_comments(&prototypes)));
}

fn without_comments(text: &str) -> String {
    let parts = text.split("/*").map(|part| part.rsplit_once("*/").map_or(part, |(_, code)| code));
    let code: String = parts.collect();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The number that the header gives a name.
fn number(header: &str, name: &str) -> Option<i32> {
    let rest = header.split(&format!("{name} = ")).nth(1)?;
    rest.split([',', ' ', '\n']).next()?.parse().ok()
}

#[test]
fn answers_have_the_numbers_of_the_header() {
    let header = fs::read_to_string(here("include/dunlin.h")).unwrap();
    let all = [
        ("DUNLIN_OK", Status::Ok),
        ("DUNLIN_BYTES", Status::Bytes),
        ("DUNLIN_PAYLOAD", Status::Payload),
        ("DUNLIN_CLOSE", Status::Close),
        ("DUNLIN_FULL", Status::Full),
        ("DUNLIN_TOO_LARGE", Status::TooLarge),
        ("DUNLIN_BAD_TEXT", Status::BadText),
        ("DUNLIN_OFFLINE", Status::Offline),
        ("DUNLIN_NOT_SUPPORTED", Status::NotSupported),
        ("DUNLIN_UNKNOWN", Status::Unknown),
        ("DUNLIN_ID_IN_USE", Status::IdInUse),
        ("DUNLIN_CONNECTED", Status::Connected),
        ("DUNLIN_BAD_CLIENT_ID", Status::BadClientId),
        ("DUNLIN_BAD_WILL", Status::BadWill),
        ("DUNLIN_BAD_USER_NAME", Status::BadUserName),
        ("DUNLIN_BAD_PASSWORD", Status::BadPassword),
        ("DUNLIN_BAD_MEMORY", Status::BadMemory),
        ("DUNLIN_FAULT", Status::Fault),
        ("DUNLIN_BAD_ARGUMENT", Status::BadArgument),
        ("DUNLIN_NOT_READY", Status::NotReady),
        ("DUNLIN_BUSY", Status::Busy),
    ];
    for (name, status) in all {
        assert_eq!(number(&header, name), Some(status as i32), "{name}");
    }
}
