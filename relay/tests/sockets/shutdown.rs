//! Goodbye: of the library and of the real binary.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use weft_protocol::code::Code;
use weft_protocol::frame::ServerFrame;
use weft_relay::Settings;

use crate::client::{Came, Client, http, key, relay, roomy, within};

async fn said_goodbye(client: &mut Client) {
    let ServerFrame::Restarting { after_ms } = client.frame().await else { panic!("no Restarting") };
    assert!(after_ms > 0);
    loop {
        match client.came().await {
            Came::Frame(ServerFrame::PeerLeft { .. }) => {}
            Came::Frame(other) => panic!("{other:?}"),
            Came::Closed(code) => return assert_eq!(code, Some(Code::Draining)),
        }
    }
}

#[tokio::test]
async fn a_stopping_relay_tells_everybody_and_ends() {
    let settings = Settings { drain_ms: 200, ..Settings::default() };
    let mut relay = relay(weft_relay::Config { settings, ..roomy() }).await;
    let (mut a, mut b) = (Client::connect(relay.addr, 1).await, Client::connect(relay.addr, 2).await);
    a.join(&key(100)).await;
    relay.stop.take().unwrap().send(()).unwrap();
    said_goodbye(&mut a).await;
    said_goodbye(&mut b).await;
    drop((a, b));
    within("the end", relay.ended).await.unwrap();
    assert!(tokio::net::TcpStream::connect(relay.addr).await.is_err());
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_prints_its_address_and_ends_well_on_sigterm() {
    let child = Command::new(env!("CARGO_BIN_EXE_weft-relay"))
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let addr = line.strip_prefix("weft-relay listening on ws://").unwrap().parse().unwrap();
    let admin = lines.next().unwrap().unwrap();
    let admin = admin.strip_prefix("weft-relay admin on http://").unwrap().parse().unwrap();
    let mut client = Client::connect(addr, 1).await;
    assert_eq!(http(admin, "GET", "/health/ready", "", "").await.0, 200);
    let (_, figures) = http(admin, "GET", "/figures", "", "").await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&figures).unwrap()["connections"], 1);

    let killed = Command::new("kill").args(["-TERM", &child.0.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let ServerFrame::Restarting { .. } = client.frame().await else { panic!("no Restarting") };
    // Still draining: readiness has failed, life has not.
    assert_eq!(http(admin, "GET", "/health/ready", "", "").await.0, 503);
    assert_eq!(http(admin, "GET", "/health/live", "", "").await.0, 200);
    assert_eq!(client.came().await, Came::Closed(Some(Code::Draining)));
    drop(client);
    let status = within("the process", tokio::task::spawn_blocking(move || child.0.wait().unwrap())).await.unwrap();
    assert!(status.success());
}
