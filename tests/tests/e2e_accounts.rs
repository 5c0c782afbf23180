//! Relays that ask who comes: for a secret, and for accounts of a real PDS.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use weft_protocol::admission::Audience;
use weft_protocol::admission::proof::sign_token_request;
use weft_protocol::admission::token::{ErrorAnswer, TOKEN_PATH, TokenRequest};
use weft_protocol::code::Code;
use weft_protocol::id::{ConnectionKey, RelayDevice};
use weft_tests::e2e::{Agent, AtAccount, AtNetwork, LONG, Relay, Stage, fetch, wait, wait_same, wait_text};

const SECRET: &str = "a secret that is long enough";

/// Waits until `weft status` says something of the relay.
fn wait_told(agent: &Agent, words: &str) -> Result<()> {
    let mut last = String::new();
    let told = wait("weft status to say what to do", LONG, || {
        last = agent.run(["status"])?.stdout;
        Ok(last.contains(words).then_some(()))
    });
    told.with_context(|| format!("{} is to be told {words:?}, and sees\n{last}", agent.name()))
}

fn login(agent: &Agent, network: &AtNetwork, account: &AtAccount) -> Result<()> {
    // With the newline that a person types or a file ends with.
    let password = format!("{}\n", account.password);
    let ran =
        agent.run_input(["identity", "login", &account.handle, "--pds", network.pds()], &password)?.expect_code(0)?;
    ensure!(ran.stdout.contains(&account.did), "{ran:?}");
    Ok(())
}

/// All files below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files(&entry.path(), found)?;
        } else if entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// A secret is nowhere in an agent's home but where it may be, and nobody else may read that.
fn kept_only_in(agent: &Agent, secret: &str, place: &str) -> Result<()> {
    let mut found = Vec::new();
    files(agent.home(), &mut found)?;
    let holds = |path: &PathBuf| {
        std::fs::read(path).is_ok_and(|bytes| bytes.windows(secret.len()).any(|w| w == secret.as_bytes()))
    };
    let holding: Vec<PathBuf> = found.into_iter().filter(holds).collect();
    let [only] = holding.as_slice() else { anyhow::bail!("a secret of {} is in {holding:?}", agent.name()) };
    ensure!(only.ends_with(place), "a secret of {} is in {}", agent.name(), only.display());
    let mode = std::fs::metadata(only)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "{} has mode {mode:o}", only.display());
    ensure!(!agent.report().contains(secret), "a secret of {} is in its log or status", agent.name());
    Ok(())
}

/// A relay that asks for a secret refuses those who do not know it, tells them what to do, and lets them in once they have
/// given it; the secret never passes, and is kept for its owner only.
#[test]
fn a_relay_that_asks_for_a_secret() -> Result<()> {
    let stage = Stage::open()?;
    let flags = ["--auth-token", SECRET].map(str::to_owned);
    let relay = Relay::start(&stage.root().join("relay.log"), 0, &flags)?;
    let (ada, ben) = (stage.agent("ada")?, stage.agent("ben")?);
    ada.init(&[relay.url()])?;
    let url = relay.url().to_owned();
    wait_told(&ada, &format!("weft relays secret {url}"))?;
    // A wrong one is told apart from none.
    ada.run_input(["relays", "secret", &url], "not the secret, but long enough")?.expect_code(0)?;
    wait_told(&ada, "does not take the secret")?;
    ada.run_input(["relays", "secret", &url], &format!("{SECRET}\n"))?.expect_code(0)?;
    let file = stage.root().join("secret");
    std::fs::write(&file, format!("{SECRET}\n"))?;
    ben.run(["relays", "secret", &url, "--file", &file.to_string_lossy()])?.expect_code(0)?;
    ada.write("hello.md", "hello\n")?;
    ben.join(&ada.invite()?)?;
    wait_text(&ben, "hello.md", "hello\n")?;
    for agent in [&ada, &ben] {
        kept_only_in(agent, SECRET, &format!("config/secrets/relay {}", relay.address()))?;
    }
    // Forgotten is forgotten.
    ben.run(["relays", "secret", &url, "--forget"])?.expect_code(0)?;
    let mut left = Vec::new();
    files(&ben.home().join("config/secrets"), &mut left)?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

/// What a relay answers to a JWT that a test holds itself.
fn post_token(relay: &Relay, jwt: &str) -> Result<(u16, String)> {
    let audience = Audience::from_url(relay.url())?;
    let key = SigningKey::from_bytes(&[7; 32]);
    let (connection, device) = (ConnectionKey(key.verifying_key().to_bytes()), RelayDevice([7; 16]));
    let signature = sign_token_request(&key, &audience, jwt, &device);
    let body = TokenRequest { audience, connection, device, signature }.to_json();
    let header = format!("Authorization: Bearer {jwt}");
    fetch(relay.address(), "POST", TOKEN_PATH, &[&header, "Content-Type: application/json"], &body)
}

fn service_auth(network: &AtNetwork, account: &AtAccount, relay: &Relay) -> Result<String> {
    let aud = Audience::from_url(relay.url())?.did_web().replace('%', "%25");
    // As long as a relay takes: it has to be good for another reason than its age.
    let exp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 115;
    let path = format!("/xrpc/com.atproto.server.getServiceAuth?aud={aud}&lxm=dev.weft.relay.connect&exp={exp}");
    let pds = network.pds().trim_start_matches("http://");
    let (status, body) = fetch(pds, "GET", &path, &[&format!("Authorization: Bearer {}", account.access)], "")?;
    ensure!(status == 200, "{body}");
    let answer: Value = serde_json::from_str(&body)?;
    Ok(answer.get("token").and_then(Value::as_str).context("no token")?.to_owned())
}

/// Cuts every connection of an account at a relay.
fn kick(admin: &str, did: &str) -> Result<()> {
    let (status, body) = fetch(admin, "POST", &format!("/kick?did={did}"), &[], "")?;
    ensure!(status == 200 && !body.contains(":0"), "{status} {body}");
    Ok(())
}

/// The address that the admin port was given, from the relay's log.
fn admin_address(relay: &Relay) -> Result<String> {
    wait("the admin port", LONG, || {
        let output = relay.output();
        // Whole lines only: half a port number would be another port.
        let whole = output.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let line = whole.lines().find(|line| line.contains("admin"));
        let at = line.and_then(|line| line.find("127.0.0.1:").and_then(|at| line.get(at..)));
        Ok(at.map(|rest| rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect()))
    })
}

/// Two people with accounts share a folder through a relay that admits their two DIDs; a third is refused and told what to
/// do, before and after logging in. An account's key is rotated: the old token is worth nothing, and the agent goes on by
/// itself, as it does when its session is spoiled. Once the app password is revoked it says so.
#[test]
fn a_relay_that_asks_for_accounts() -> Result<()> {
    let mut network = AtNetwork::start()?;
    let (alice, bob, carol) = (network.account("alice")?, network.account("bob")?, network.account("carol")?);
    let stage = Stage::open()?;
    let allowed = format!("{},{}", alice.did, bob.did);
    let flags =
        ["--allow-did", &allowed, "--plc-url", network.plc(), "--admin-listen", "127.0.0.1:0"].map(str::to_owned);
    let relay = Relay::start(&stage.root().join("relay.log"), 0, &flags)?;
    let (mut ada, ben, eve) = (stage.agent("ada")?, stage.agent("ben")?, stage.agent("eve")?);

    // Nobody is logged in: refused, and told how.
    ada.init(&[relay.url()])?;
    wait_told(&ada, "weft identity login")?;
    let wrong = ada.run_input(["identity", "login", &alice.handle, "--pds", network.pds()], "not-the-password\n")?;
    ensure!(wrong.code == 1 && wrong.stderr.contains("app password"), "{wrong:?}");
    login(&ada, &network, &alice)?;
    login(&ben, &network, &bob)?;
    ada.write("hello.md", "hello\n")?;
    let link = ada.invite()?;
    ben.join(&link)?;
    wait_text(&ben, "hello.md", "hello\n")?;
    ben.write("answer.md", "here I am\n")?;
    wait_text(&ada, "answer.md", "here I am\n")?;
    kept_only_in(&ada, &alice.password, "config/secrets/account")?;

    // A third person is told to log in, then to have herself admitted.
    eve.join(&ada.invite()?)?;
    wait_told(&eve, "weft identity login")?;
    login(&eve, &network, &carol)?;
    wait_told(&eve, &carol.did)?;
    ensure!(!eve.folder().join("hello.md").exists(), "eve got in");
    // And what she does not want told is not told.
    eve.run(["relays", "identity", relay.url(), "pseudonym"])?.expect_code(0)?;
    wait_told(&eve, "weft relays identity")?;

    // The key is rotated: what the old one signed is worth nothing, and the agent gets in again by itself.
    let old = service_auth(&network, &alice, &relay)?;
    network.rotate(&alice.did)?;
    let admin = admin_address(&relay)?;
    kick(&admin, &alice.did)?;
    ada.write("rotated.md", "with the new key\n")?;
    wait_text(&ben, "rotated.md", "with the new key\n")?;
    let (status, body) = post_token(&relay, &old)?;
    let refused: ErrorAnswer = serde_json::from_str(&body).with_context(|| body.clone())?;
    ensure!(status != 200 && refused.code() == Code::BadSignature, "{status} {body}");

    // A session that the server does not take any more is renewed, by the refresh token or by the app password.
    let path = ada.home().join("config/secrets/account");
    for spoiled in [&["access"][..], &["access", "refresh"]] {
        let mut secrets: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        for name in spoiled {
            let token = secrets.get(*name).and_then(Value::as_str).context("no token")?;
            let (head, _signature) = token.rsplit_once('.').context("not a JWT")?;
            let cut = format!("{head}.{}", "A".repeat(43));
            *secrets.get_mut(*name).context("no token")? = json!(cut);
        }
        restart_with(&mut ada, &path, &secrets)?;
        let text = format!("without {}\n", spoiled.join(" and "));
        ada.write("session.md", &text)?;
        wait_text(&ben, "session.md", &text)?;
    }
    wait_same(&[&ada, &ben])?;

    // Revoked: the person is told to log in again, and who does is in again.
    network.revoke(&alice.did)?;
    let mut secrets: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    for name in ["access", "refresh"] {
        *secrets.get_mut(name).context("no token")? = json!("spoiled");
    }
    restart_with(&mut ada, &path, &secrets)?;
    wait_told(&ada, &format!("weft identity login {}", alice.handle))?;
    Ok(())
}

/// Stops an agent, changes its secrets as a spoiled session would be, and starts it again.
fn restart_with(agent: &mut Agent, path: &Path, secrets: &Value) -> Result<()> {
    agent.stop()?;
    std::fs::write(path, serde_json::to_vec(secrets)?)?;
    agent.revive()
}

/// What one agent is shown of another member's only account, in words and as JSON.
fn shown_account(agent: &Agent, of: &str) -> Result<(String, Value)> {
    let shown = agent.run_here(["members"])?.expect_code(0)?.stdout;
    let all = agent.run_here(["members", "--json"])?.expect_code(0)?.json()?;
    let members = all.pointer("/members").and_then(Value::as_array).context("no members")?;
    let member = members.iter().find(|member| member.get("name").and_then(Value::as_str) == Some(of));
    let accounts = member.and_then(|member| member.get("accounts")).and_then(Value::as_array).context("no accounts")?;
    ensure!(accounts.len() < 2, "{all}");
    Ok((shown, accounts.first().cloned().unwrap_or_default()))
}

/// One request of an account to its repository.
fn change_record(network: &AtNetwork, account: &AtAccount, method: &str, body: &Value) -> Result<()> {
    let header = format!("Authorization: Bearer {}", account.access);
    let (status, answer) = fetch(
        network.pds().trim_start_matches("http://"),
        "POST",
        &format!("/xrpc/com.atproto.repo.{method}"),
        &[&header, "Content-Type: application/json"],
        &body.to_string(),
    )?;
    ensure!(status == 200, "{method}: {answer}");
    Ok(())
}

/// A member attests an account before there is a workspace and after: the others see it, unverified until they ask. Whoever
/// asks learns whether the account says so too, and is shown when; a record that is gone or names another key is told, and a
/// server that is down takes nothing back.
#[test]
fn members_see_and_verify_accounts() -> Result<()> {
    let mut network = AtNetwork::start()?;
    let alice = network.account("alice")?;
    let stage = Stage::open()?;
    let relay = Relay::start(&stage.root().join("relay.log"), 0, &[])?;
    let (mut ada, ben) = (stage.agent("ada")?, stage.agent("ben")?);
    ada.init(&[relay.url()])?;
    ben.join(&ada.invite()?)?;
    login(&ada, &network, &alice)?;
    let attested = ada.run(["identity", "attest", &alice.handle, "--json"])?.expect_code(0)?.json()?;
    ensure!(attested.pointer("/told/0").is_some() && attested.pointer("/later/0").is_none(), "{attested}");

    // Said in the workspace, and shown as no more than that.
    let said = |words: &str| {
        let mut last = String::new();
        let seen = wait("the account to be shown", LONG, || {
            last = shown_account(&ben, "ada")?.0;
            Ok(last.contains(words).then_some(()))
        });
        seen.with_context(|| format!("ben is to see {words:?}, and sees\n{last}"))
    };
    said(&format!("says it is {}; not verified: weft members verify", alice.did))?;

    // On this computer the servers of accounts are on loopback, which is not asked unless its person says so.
    ben.run(["config", "set", "plc_url", network.plc()])?.expect_code(0)?;
    let refused = ben.run_here(["members", "verify"])?.expect_code(3)?;
    ensure!(refused.stdout.contains("https://") && !refused.stdout.contains(", verified"), "{refused:?}");
    ben.run(["config", "set", "private_accounts", "on"])?.expect_code(0)?;
    let verified = ben.run_here(["members", "verify", "ada"])?.expect_code(0)?;
    ensure!(
        verified.stdout.contains(&format!("{}, calls itself {}, verified 2", alice.did, alice.handle)),
        "{verified:?}"
    );
    said(&format!("{}, calls itself {}, verified 2", alice.did, alice.handle))?;
    let (_, account) = shown_account(&ben, "ada")?;
    let since = account.get("verified_ms").and_then(Value::as_u64).context("no time")?;
    ensure!(account.get("failed") == Some(&Value::Null), "{account}");
    ben.run_here(["members", "verify", "nobody"])?.expect_code(2)?;

    // Started again, ada says nothing twice; a workspace made later is told too, and one that is joined later.
    ada.stop()?;
    ada.revive()?;
    let other = stage.root().join("ada").join("other");
    std::fs::create_dir_all(&other)?;
    ada.run(["init", &other.to_string_lossy(), "--name", "other"])?.expect_code(0)?;
    wait("the account to be shown where ada began later", LONG, || {
        let mut command = ada.command();
        command.arg("-C").arg(&other).arg("members");
        // Ada's agent read it back when it attested.
        let shown = String::from_utf8(command.output()?.stdout)?;
        Ok(shown.contains(&format!("{}, calls itself {}, verified 2", alice.did, alice.handle)).then_some(()))
    })?;
    let theirs = stage.root().join("ben").join("theirs");
    std::fs::create_dir_all(&theirs)?;
    ben.run(["init", &theirs.to_string_lossy(), "--name", "theirs", "--relay", relay.url()])?.expect_code(0)?;
    let mut command = ben.command();
    command.arg("-C").arg(&theirs).args(["invite", "--json"]);
    let link: Value = serde_json::from_slice(&command.output()?.stdout)?;
    let link = link.get("link").and_then(Value::as_str).context("no link")?;
    ada.run(["join", link, &stage.root().join("ada").join("theirs").to_string_lossy()])?.expect_code(0)?;
    wait("the account to be shown where ada joined later", LONG, || {
        let mut command = ben.command();
        command.arg("-C").arg(&theirs).arg("members");
        // Verified before, in the other workspace: it is the same member.
        Ok(String::from_utf8(command.output()?.stdout)?.contains(&format!("{}, calls itself", alice.did)).then_some(()))
    })?;

    // The record names somebody else; then it is gone.
    let root = attested.pointer("/attested/root").and_then(Value::as_str).context("no root")?;
    let rkey = root.trim_start_matches("did:key:");
    let record = json!({"repo": alice.did, "collection": "dev.weft.identity", "rkey": rkey});
    let wrong = json!({
        "repo": alice.did, "collection": "dev.weft.identity", "rkey": rkey, "validate": false,
        "record": {
            "$type": "dev.weft.identity", "root": format!("{root}x"), "signature": "AA",
            "createdAt": "2026-01-01T00:00:00.000Z",
        },
    });
    change_record(&network, &alice, "putRecord", &wrong)?;
    let named = ben.run_here(["members", "verify"])?.expect_code(3)?;
    ensure!(named.stdout.contains("the account does not say so: its record names another key"), "{named:?}");
    change_record(&network, &alice, "deleteRecord", &record)?;
    let gone = ben.run_here(["members", "verify"])?.expect_code(3)?;
    ensure!(gone.stdout.contains("the account does not say so: it has no record for this member"), "{gone:?}");
    said("the account does not say so: it has no record")?;

    // Published again it is verified again; when its server is down, that stays, and who does not answer is named.
    ada.run(["identity", "attest", &alice.handle])?.expect_code(0)?;
    ben.run_here(["members", "verify"])?.expect_code(0)?;
    network.stop_pds()?;
    let down = ben.run_here(["members", "verify"])?.expect_code(3)?;
    let port = network.pds().rsplit_once(':').context("no port")?.1;
    ensure!(
        down.stdout.contains(", verified 2") && down.stdout.contains("; since then its server http://"),
        "{down:?}"
    );
    ensure!(down.stdout.contains(port) && down.stdout.contains("does not answer"), "{down:?}");
    let (_, account) = shown_account(&ben, "ada")?;
    let verified = account.get("verified_ms").and_then(Value::as_u64);
    ensure!(
        verified.is_some_and(|at| at > since) && account.pointer("/failed/denied") == Some(&json!(false)),
        "{account}"
    );
    Ok(())
}

/// An account says which member it is, in its own repository, where anybody can read and verify it.
#[test]
fn an_account_is_attested_both_ways() -> Result<()> {
    let mut network = AtNetwork::start()?;
    let alice = network.account("alice")?;
    let stage = Stage::open()?;
    let ada = stage.agent("ada")?;
    let early = ada.run(["identity", "attest", &alice.handle])?;
    ensure!(early.code == 3 && early.stderr.contains("weft identity login"), "{early:?}");
    ada.init(&[])?;
    login(&ada, &network, &alice)?;
    let other = ada.run(["identity", "attest", "bob.test"])?;
    ensure!(other.code == 2, "{other:?}");
    let done = ada.run(["identity", "attest", &alice.handle, "--json"])?.expect_code(0)?.json()?;
    let shown = ada.run(["identity", "--json"])?.expect_code(0)?.json()?;
    let text =
        |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let root = text(&shown, "/member/did");
    ensure!(root.starts_with("did:key:z6Mk") && text(&done, "/attested/root") == root, "{done} {shown}");
    ensure!(text(&shown, "/account/attested/uri") == text(&done, "/attested/uri"), "{done} {shown}");
    // As anybody reads it.
    let rkey = root.trim_start_matches("did:key:");
    let path = format!("/xrpc/com.atproto.repo.getRecord?repo={}&collection=dev.weft.identity&rkey={rkey}", alice.did);
    let (status, body) = fetch(network.pds().trim_start_matches("http://"), "GET", &path, &[], "")?;
    ensure!(status == 200, "{body}");
    let record: Value = serde_json::from_str(&body)?;
    ensure!(text(&record, "/value/root") == root && text(&record, "/value/$type") == "dev.weft.identity", "{record}");
    ada.run(["identity", "logout"])?.expect_code(0)?;
    let mut left = Vec::new();
    files(&ada.home().join("config/secrets"), &mut left)?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
