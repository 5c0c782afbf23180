//! What passes on the wire, and what garbage on it does.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use weft_agent_core::identity::LocalIdentity;
use weft_agent_core::invite_link::InviteLink;
use weft_tests::e2e::{Proxy, Relay, Stage, wait_same, wait_text};

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|window| window == needle)
}

/// Nothing that passes a relay holds a word of a document, a file name, a person's name, the workspace's name, or a
/// key: not as it is, not as hexadecimal, not as base64.
#[test]
fn the_wire_tells_nothing() -> Result<()> {
    let stage = Stage::open()?;
    let proxy = Proxy::listen()?;
    let relay = Relay::start(&stage.root().join("relay.log"), 0, &["--public-url".to_owned(), proxy.url()])?;
    proxy.connect_to(relay.address());

    let (ada, ben) = (stage.agent("adalovelace")?, stage.agent("benfranklin")?);
    ada.init(&[&proxy.url()])?;
    let link = ada.invite()?;
    ben.join(&link)?;
    let text = "PLAINTEXT-MARKER-7f3a in a sentence that nobody but the two may read.\n";
    ada.write("secret-plan-marker.md", text)?;
    wait_text(&ben, "secret-plan-marker.md", text)?;
    ben.write("secret-plan-marker.md", format!("{text}SECOND-MARKER-19be\n"))?;
    wait_text(&ada, "secret-plan-marker.md", &format!("{text}SECOND-MARKER-19be\n"))?;
    // Noise, so that it does not shrink on its way, with the marker in every piece of it.
    let mut picture = vec![0; 2_500_000];
    ChaCha8Rng::seed_from_u64(2).fill_bytes(&mut picture);
    for spot in picture.chunks_mut(4096) {
        spot.iter_mut().zip(b"BLOB-MARKER-55aa").for_each(|(byte, marker)| *byte = *marker);
    }
    ada.write("picture-marker.bin", &picture)?;
    wait_same(&[&ada, &ben])?;

    let mut markers: Vec<Vec<u8>> = [
        "PLAINTEXT-MARKER-7f3a",
        "nobody but the two",
        "SECOND-MARKER-19be",
        "BLOB-MARKER-55aa",
        "secret-plan-marker",
        "picture-marker",
        "adalovelace",
        "benfranklin",
        "\"notes\"",
    ]
    .iter()
    .map(|marker| marker.as_bytes().to_vec())
    .collect();
    // The invite's secret; the seeds and secret keys of both people; and the public keys of members and devices, which a
    // relay must not learn either (it sees pseudonyms).
    let link = InviteLink::parse(&link)?;
    markers.push(link.secret.expose().to_vec());
    markers.push(link.workspace.0.to_vec());
    for agent in [&ada, &ben] {
        let identity = LocalIdentity::from_bytes(&std::fs::read(agent.home().join("config/identity"))?)?;
        let root = identity.root.as_ref().context("a young identity has its root")?;
        markers.push(root.entropy().expose().to_vec());
        markers.push(root.signing_key().to_bytes().to_vec());
        markers.push(root.public().sign.0.to_vec());
        markers.push(identity.device.seed().expose().to_vec());
        markers.push(identity.device.signing_key().to_bytes().to_vec());
        markers.push(identity.device.kem_secret().expose().to_vec());
        markers.push(identity.device.public().sign.to_vec());
    }

    let captured = proxy.captured();
    let up: Vec<u8> = captured.iter().flat_map(|one| one.up_clear()).collect();
    let down: Vec<u8> = captured.iter().flat_map(|one| one.down.clone()).collect();
    ensure!(
        up.len() > 2_000_000 && down.len() > 2_000_000,
        "the file did not pass here: {} up, {} down",
        up.len(),
        down.len()
    );
    // The tap hears: what an agent says in the clear to a relay is its audience.
    ensure!(contains(&up, proxy.address().as_bytes()), "the tap does not hear what is said in the clear");
    for marker in markers {
        let hex: String = marker.iter().map(|byte| format!("{byte:02x}")).collect();
        let spellings = [
            marker.clone(),
            hex.into_bytes(),
            STANDARD.encode(&marker).into_bytes(),
            URL_SAFE_NO_PAD.encode(&marker).into_bytes(),
        ];
        for spelling in spellings {
            for (direction, bytes) in [("to", &up), ("from", &down)] {
                ensure!(
                    !contains(bytes, &spelling),
                    "{:?} passed {direction} the relay",
                    String::from_utf8_lossy(&spelling)
                );
            }
        }
    }
    let log = relay.output();
    for name in ["adalovelace", "benfranklin", "secret-plan-marker", "PLAINTEXT"] {
        ensure!(!log.contains(name), "{name} is in the relay's log");
    }
    Ok(())
}

/// Garbage at the relay's port, in every stage of a connection, ends that connection and nothing else.
#[test]
fn garbage_at_the_relay_hurts_nobody() -> Result<()> {
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_slice() else { unreachable!("two were asked for") };
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut noise = vec![0; 100_000];
    rng.fill_bytes(&mut noise);
    let upgrade = format!(
        "GET /v1/connect HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: weft.v1, weft.token.AAAA\r\n\r\n",
        relay.address()
    );
    let mut masked_noise = upgrade.clone().into_bytes();
    masked_noise.extend_from_slice(&noise);
    let attempts: Vec<Vec<u8>> = vec![
        Vec::new(),
        noise.clone(),
        b"GET / HTTP/1.1\r\n".to_vec(),
        format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(1_000_000)).into_bytes(),
        "GET / HTTP/1.1\r\nHost: a\r\n"
            .to_owned()
            .into_bytes()
            .into_iter()
            .chain("X: y\r\n".repeat(10_000).into_bytes())
            .collect(),
        b"POST /v1/token HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
        b"POST /v1/token HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a.b.c\r\nContent-Length: 3\r\n\r\n{}x".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        upgrade.into_bytes(),
        masked_noise,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
    ];
    for _ in 0..3 {
        for bytes in &attempts {
            let mut stream = TcpStream::connect(relay.address()).context("the relay accepts no more")?;
            stream.set_read_timeout(Some(Duration::from_millis(50)))?;
            // The relay may well hang up in the middle; that is its right.
            if stream.write_all(bytes).is_ok() {
                let mut answer = [0; 1024];
                drop(stream.read(&mut answer));
            }
        }
    }
    ada.write("still.md", "still here\n")?;
    wait_text(ben, "still.md", "still here\n")?;
    Ok(())
}

/// Garbage at the agent's local socket ends that connection and nothing else.
#[test]
fn garbage_at_the_local_socket_hurts_nobody() -> Result<()> {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
    fn sockets(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                sockets(&entry.path(), found)?;
            } else if kind.is_socket() {
                found.push(entry.path());
            }
        }
        Ok(())
    }
    let stage = Stage::open()?;
    let relay = stage.relay()?;
    let team = stage.team(&relay, &["ada", "ben"])?;
    let [ada, ben] = team.as_slice() else { unreachable!("two were asked for") };
    let mut found = Vec::new();
    sockets(ada.home(), &mut found)?;
    let [socket] = found.as_slice() else { anyhow::bail!("one socket is expected: {found:?}") };
    assert_eq!(std::fs::metadata(socket)?.permissions().mode() & 0o777, 0o600, "nobody else may speak to it");
    let mut noise = vec![0; 4_000_000];
    ChaCha8Rng::seed_from_u64(4).fill_bytes(&mut noise);
    let attempts: Vec<Vec<u8>> = vec![
        Vec::new(),
        noise,
        vec![b'['; 1_000_000],
        vec![0xff; 64],
        b"\n\n\n\n".to_vec(),
        b"{}\n".to_vec(),
        b"{\"command\":\"no such command\"}\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    for bytes in &attempts {
        let mut stream = UnixStream::connect(socket).context("the agent accepts no more")?;
        stream.set_read_timeout(Some(Duration::from_millis(50)))?;
        stream.set_write_timeout(Some(Duration::from_secs(2)))?;
        if stream.write_all(bytes).is_ok() {
            let mut answer = [0; 1024];
            drop(stream.read(&mut answer));
        }
    }
    // Connections that are left open and silent keep nobody else out.
    let held: Vec<UnixStream> = (0..32).map_while(|_| UnixStream::connect(socket).ok()).collect();
    let answered = ada.run(["status", "--json"])?;
    ensure!(answered.json().is_ok(), "{answered:?}");
    drop(held);
    ada.write("still.md", "still here\n")?;
    wait_text(ben, "still.md", "still here\n")?;
    Ok(())
}
