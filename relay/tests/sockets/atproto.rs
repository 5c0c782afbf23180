//! An account at the reference PDS, with its DID at the reference PLC server, gets into a room; after its key was rotated the
//! old token is worth nothing and a new one is.
//!
//! The programs come from npm, into the folder of test data of the target directory, once. Node 20 and npm are needed: without
//! them this fails, it does not pass.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use weft_protocol::admission::jwt::METHOD;
use weft_protocol::code::Code;
use weft_protocol::frame::ServerFrame;
use weft_relay::{Config, DidConfig};

use crate::client::{Client, Who, http, key, post_token, relay, roomy};

const PACKAGE: &str = include_str!("../atproto/package.json");
const SCRIPT: &str = include_str!("../atproto/serve.mjs");

fn npm(folder: &Path, args: &[&str]) -> bool {
    let ran = Command::new("npm").args(args).current_dir(folder).stdout(Stdio::null()).stdin(Stdio::null()).status();
    ran.expect("npm is needed to install the reference servers: install Node 20").success()
}

/// The folder with the reference servers.
fn installed() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("atproto");
    let mark = folder.join("installed");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("serve.mjs"), SCRIPT).unwrap();
    if std::fs::read_to_string(&mark).is_ok_and(|of| of == PACKAGE) {
        return folder;
    }
    std::fs::write(folder.join("package.json"), PACKAGE).unwrap();
    assert!(npm(&folder, &["install", "--ignore-scripts", "--no-audit", "--no-fund"]), "npm install failed");
    // Newer npm runs no script that was not approved; older ones do not know the word.
    npm(&folder, &["install-scripts", "approve", "better-sqlite3"]);
    assert!(npm(&folder, &["rebuild", "better-sqlite3"]), "better-sqlite3 could not be built");
    std::fs::write(mark, PACKAGE).unwrap();
    folder
}

/// The running servers, and their one account.
struct Network {
    child: Child,
    input: Option<ChildStdin>,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    plc: String,
    pds: SocketAddr,
    did: String,
    access: String,
}

impl Drop for Network {
    fn drop(&mut self) {
        // The end of its input has it tidy up.
        self.input = None;
        let _ = self.child.wait();
    }
}

impl Network {
    fn start() -> Self {
        let mut child = Command::new("node")
            .arg("serve.mjs")
            .current_dir(installed())
            .env("LOG_ENABLED", "false")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is needed to run the reference servers: install Node 20");
        let input = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut network = Self {
            child,
            input,
            lines,
            plc: String::new(),
            pds: SocketAddr::from(([127, 0, 0, 1], 0)),
            did: String::new(),
            access: String::new(),
        };
        let ready = network.line(|line| line.starts_with(r#"{"plc":"#));
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
        let text = |name: &str| ready[name].as_str().unwrap().to_owned();
        network.pds = text("pds").strip_prefix("http://").unwrap().parse().unwrap();
        (network.plc, network.did, network.access) = (text("plc"), text("did"), text("access"));
        network
    }

    /// The next line of that kind; the servers log between them.
    fn line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        self.lines.by_ref().map(Result::unwrap).find(|line| wanted(line)).expect("the reference servers ended")
    }

    fn rotate(&mut self) {
        writeln!(self.input.as_mut().unwrap(), "rotate").unwrap();
        self.line(|line| line == "rotated");
    }

    async fn service_auth(&self, who: &Who, lxm: &str) -> String {
        let aud = who.audience.did_web().replace('%', "%25");
        let path = format!("/xrpc/com.atproto.server.getServiceAuth?aud={aud}&lxm={lxm}");
        let (status, body) =
            http(self.pds, "GET", &path, &format!("Authorization: Bearer {}\r\n", self.access), "").await;
        assert_eq!(status, 200, "{body}");
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        answer["token"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_of_a_real_pds_gets_into_a_room_until_its_key_is_rotated() {
    let mut network = tokio::task::spawn_blocking(Network::start).await.unwrap();
    let did = DidConfig { plc_url: network.plc.clone(), ..DidConfig::default() };
    let relay = relay(Config { did, ..roomy() }).await;
    let who = Who::new(relay.addr, 1);
    let jwt = network.service_auth(&who, METHOD).await;
    let token = post_token(relay.addr, &jwt, &who.request_with(&jwt)).await.unwrap().token;
    let mut client = Client::challenged(relay.addr, who, &token).await;
    client.prove(&token).await;
    assert!(matches!(client.frame().await, ServerFrame::Welcome { .. }));
    client.join(&key(100)).await;

    let who = Who::new(relay.addr, 1);
    let other = network.service_auth(&who, "com.atproto.repo.uploadBlob").await;
    let refused = post_token(relay.addr, &other, &who.request_with(&other)).await.unwrap_err();
    assert_eq!(refused.code(), Code::WrongMethod);

    let old = network.service_auth(&who, METHOD).await;
    network.rotate();
    let new = network.service_auth(&who, METHOD).await;
    assert!(post_token(relay.addr, &new, &who.request_with(&new)).await.is_ok());
    let refused = post_token(relay.addr, &old, &who.request_with(&old)).await.unwrap_err();
    assert_eq!(refused.code(), Code::BadSignature);
    assert!(network.did.starts_with("did:plc:"));
}
