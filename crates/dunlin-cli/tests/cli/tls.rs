use dunlin_testkit::mosquitto::{Mosquitto, free_port};

use crate::pki::{Algorithm, Authority, Validity};
use crate::tool::*;

/// A broker that wants certificates, and a directory with some: `ca.pem`, `cert.pem`, `key.pem`.
fn mutual() -> (Mosquitto, u16) {
    let authority = Authority::new("authority", Algorithm::P256);
    let (server, client) = (authority.server(&["localhost"], Validity::Now), authority.client("client"));
    let port = free_port();
    let config = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\ncertfile server.pem\nkeyfile server.key\n\
         cafile ca.pem\nrequire_certificate true\n"
    );
    let (server_key, client_key) = (server.key_pem(), client.key_pem());
    let files = [
        ("ca.pem", authority.pem.as_str()),
        ("server.pem", &server.pem),
        ("server.key", &server_key),
        ("cert.pem", &client.pem),
        ("key.pem", &client_key),
        ("revoked.pem", &authority.revocations(&[&server])),
    ];
    (Mosquitto::with_files(&config, &files), port)
}

#[test]
fn messages_pass_over_mutual_tls() {
    let (broker, port) = mutual();
    let run = |arguments: &str| {
        let mut command = dunlin(&arguments.replace("PORT", &port.to_string()));
        command.current_dir(broker.directory());
        command
    };
    let files = "--cafile ca.pem --cert cert.pem --key key.pem";
    succeeds(run(&format!("pub -h localhost -p PORT -q 1 -r -t a -m hello {files}")));
    let received = succeeds(run(&format!("sub -L mqtts://localhost:PORT/a -C 1 {files} --tls-alpn mqtt")));
    assert_eq!(received, "hello\n");
    let (code, _, stderr) =
        crate::tool::run(run("pub -L mqtts://127.0.0.1:PORT/a -q 1 -m x --insecure --cert cert.pem --key key.pem"));
    assert!(code == 0 && stderr.contains("WITHOUT VERIFICATION"), "{stderr}");
    succeeds(run("pub -h localhost -p PORT -t a -q 1 -m x --pin server.pem --cert cert.pem --key key.pem"));
}

#[test]
fn what_is_wrong_with_certificates_is_said() {
    let (broker, port) = mutual();
    let run = |arguments: &str| {
        let mut command =
            dunlin(&format!("pub -q 1 -t a -m x --no-reconnect {arguments}").replace("PORT", &port.to_string()));
        command.current_dir(broker.directory());
        command
    };
    let identity = "--cert cert.pem --key key.pem";
    fails(run("-h localhost -p PORT --cafile ca.pem"), 9, "client certificate");
    fails(run(&format!("-h 127.0.0.1 -p PORT --cafile ca.pem {identity}")), 9, "not for 127.0.0.1");
    fails(run(&format!("-h localhost -p PORT --cafile ca.pem --crl revoked.pem {identity}")), 9, "revoked");
    fails(run(&format!("-h localhost -p PORT --pin cert.pem {identity}")), 9, "pinned");
    fails(run("-h localhost -p PORT --cafile nothing.pem"), 1, "nothing.pem");
    fails(run("-h localhost -p PORT --cafile ca.pem --cert cert.pem --key ca.pem"), 1, "private key");
    fails(run("-L mqtt://localhost:PORT --cafile ca.pem"), 2, "mqtts://");
}
