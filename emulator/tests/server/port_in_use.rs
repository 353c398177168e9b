//! Starting the program on a port that is taken.

use std::net::TcpListener;
use std::process::Command;

#[test]
fn a_port_in_use_is_named_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_tidefeed-emulator"))
        .args(["--port", &port])
        .env_remove("COSMOS_KEY")
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    let line = format!(
        "error: port {port} on 127.0.0.1 is already in use: choose another with --port, or 0 for a free one\n"
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), line);
    assert!(output.stdout.is_empty());
}
