//! Secrets of an operator: they reach neither help, nor errors, nor logs; they come from files, and change while running.

use std::process::{Command, Output};

use weft_protocol::admission::proof::auth_proof;
use weft_protocol::code::Code;

use crate::client::{Client, Who, now_s, post_token_with, within};
use crate::nats::Nats;
use crate::process::Process;

/// A key that is good, of which no part may be told.
const GOOD: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2";
const SECRET_PART: &str = "5ec2e7";

fn binary(args: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weft-relay")).args(args).envs(environment.iter().copied()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Every option, secret or not: help shows what holds by itself, and nothing that the environment holds.
#[test]
fn help_shows_defaults_and_hides_the_environment() {
    let value = format!("{GOOD}-value");
    let set: Vec<(String, &str)> = weft_relay::options::Options::KEYS
        .iter()
        .flat_map(|key| {
            let name = format!("WEFT_RELAY_{}", key.to_uppercase());
            // Two variables are named in the singular.
            let singular = name.trim_end_matches('S').to_owned();
            [(name, value.as_str()), (singular, value.as_str())]
        })
        .collect();
    let set: Vec<(&str, &str)> = set.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    for flag in ["--help", "-h"] {
        let help = said(&binary(&[flag], &set));
        assert!(!help.contains(SECRET_PART), "{help}");
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for default in [
            "[default: 0.0.0.0:7017]",
            "[default: 20000]",
            "[default: 256]",
            "[default: https://plc.directory]",
            "[default: text]",
            "[default: 90000]",
            "[env: WEFT_RELAY_NATS]",
        ] {
            assert!(words.contains(default), "{default} is not in {help}");
        }
        assert!(!help.contains('\u{1b}'));
    }
}

/// What a compose file or a chart sets to nothing is not set.
#[test]
fn an_empty_variable_counts_as_not_set() {
    let names = weft_relay::options::Options::KEYS.iter().map(|key| format!("WEFT_RELAY_{}", key.to_uppercase()));
    let set: Vec<String> = names.chain(["WEFT_RELAY_PUBLIC_URL".to_owned(), "WEFT_RELAY_CONFIG".to_owned()]).collect();
    let set: Vec<(&str, &str)> = set.iter().map(|name| (name.as_str(), "")).collect();
    let (empty, plain) = (binary(&["--print-config"], &set), binary(&["--print-config"], &[]));
    assert!(empty.status.success(), "{}", said(&empty));
    assert_eq!(said(&empty), said(&plain));
}

#[test]
fn a_wrong_flag_or_variable_is_named_without_its_value() {
    let (two, url) = (format!("{GOOD},5ec2e7-bad"), "ftp://u:5ec2e7@h".to_owned());
    let short = "5ec2e7".to_owned();
    for (flag, variable, value) in [
        ("--token-key", "WEFT_RELAY_TOKEN_KEYS", &two),
        ("--auth-token", "WEFT_RELAY_AUTH_TOKEN", &short),
        ("--nats-token", "WEFT_RELAY_NATS_TOKEN", &short),
        ("--nats", "WEFT_RELAY_NATS", &url),
        ("--plc-url", "WEFT_RELAY_PLC_URL", &url),
        ("--listen", "WEFT_RELAY_LISTEN", &two),
        ("--connections-max", "WEFT_RELAY_CONNECTIONS_MAX", &short),
        ("--log-format", "WEFT_RELAY_LOG_FORMAT", &short),
        ("--development", "WEFT_RELAY_DEVELOPMENT", &short),
    ] {
        for output in [binary(&["check-config"], &[(variable, value)]), binary(&[flag, value, "check-config"], &[])] {
            let told = said(&output);
            assert!(!output.status.success() && told.contains(flag), "{told}");
            assert!(!told.contains(SECRET_PART), "{told}");
        }
    }
}

/// Each error of a configuration names the key and the place; and a file that cannot be had, once.
#[test]
fn what_is_wrong_with_a_file_is_told_by_key_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    let path = file.to_str().unwrap();
    for (text, words) in [
        (format!("token_keys = [\n  \"{GOOD}\",\n  \"5ec2e7-bad\",\n]\n"), vec!["line 3", "token_keys"]),
        (format!("token_keys = [\"{GOOD}\", \"5ec2e7-bad\"]\n"), vec!["line 1", "token_keys"]),
        (format!("\ntoken_keys = \"{GOOD}\"\n"), vec!["line 2", "token_keys", "list"]),
        (format!("auth_token = [\"{GOOD}\", \"5ec2e7\"]\n"), vec!["line 1", "auth_token", "16 characters"]),
        (format!("nats_token = \"{GOOD}\n"), vec!["line 1", "TOML"]),
        (format!("\nnats = [\"nats://u:{GOOD}@h:1\"]\n"), vec!["token_keys", "openssl rand"]),
        (format!("listen = \"0.0.0.0:0\"\n# {GOOD}\ndevelopment = true\n"), vec!["line 3", "development: "]),
        (format!("queue_bytes_max = \"{GOOD}\"\n"), vec!["line 1", "queue_bytes_max", "whole number"]),
        (format!("# {GOOD}\nlisten_on = \"{GOOD}\"\n"), vec!["line 2", "listen_on"]),
    ] {
        std::fs::write(&file, &text).unwrap();
        let told = said(&binary(&["check-config", "--config", path], &[]));
        assert!(!told.contains(SECRET_PART), "{told}");
        for word in words {
            assert!(told.contains(word), "{word} is not in {told}");
        }
    }
    let nowhere = folder.path().join("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    let keys = format!("token_keys = [\"{GOOD}\"]\nnats = [\"nats://127.0.0.1:1\"]\n");
    for (more, key) in [
        (format!("tls_certificate = \"{nowhere}\"\ntls_key = \"{path}\"\n"), "tls_certificate"),
        (format!("block_file = \"{nowhere}\"\n"), "block_file"),
        (format!("token_keys_file = \"{nowhere}\"\n"), "token_keys_file"),
        (format!("auth_token_file = \"{nowhere}\"\n"), "auth_token_file"),
        (format!("nats_token_file = \"{nowhere}\"\n"), "nats_token_file"),
        (format!("nats_file = \"{nowhere}\"\n"), "nats_file"),
        (format!("nats_credentials = \"{nowhere}\"\n{keys}"), "nats_credentials"),
        (format!("nats_ca = \"{nowhere}\"\n{keys}"), "nats_ca"),
    ] {
        std::fs::write(&file, more).unwrap();
        let told = said(&binary(&["check-config", "--config", path], &[]));
        assert!(told.contains(key) && !told.contains(SECRET_PART), "{told}");
        assert_eq!(told.matches(nowhere).count(), 1, "{told}");
        assert_eq!(told.matches("No such file").count(), 1, "{told}");
    }
    let told = said(&binary(&["--config", nowhere], &[]));
    assert_eq!(told.matches(nowhere).count(), 1, "{told}");
    // A file of the wrong kind is not quoted either.
    std::fs::write(&file, format!("tls_certificate = \"{path}\"\ntls_key = \"{path}\"\n# {GOOD}\n")).unwrap();
    let told = said(&binary(&["check-config", "--config", path], &[]));
    assert!(told.contains("tls_certificate") && !told.contains(SECRET_PART), "{told}");
}

/// Whether the relay gives a token to one who shows `secret`.
async fn let_in(relay: &Process, secret: &str) -> bool {
    let who = Who::new(relay.addr, 1);
    let (jwt, body) = who.request(now_s());
    let header = format!("Weft-Auth: {}\r\n", auth_proof(secret, &who.audience, &jwt));
    match post_token_with(relay.addr, &jwt, &body, &header).await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.code(), Code::NotAllowed);
            false
        }
    }
}

async fn becomes(what: &str, mut test: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !test().await {
            tokio::task::yield_now().await
        }
    })
    .await;
}

/// Secrets from files, rotated by SIGHUP: first both are good, then the new one alone. What is wrong with a file changes
/// nothing, and no secret is told.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_come_from_files_and_rotate() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let auth = write("auth", "the old secret 5ec2e7\n");
    let keys = write("keys", &format!("{GOOD}\n"));
    let limit = ["--token-requests-per-minute", "1000000"];
    let files = ["--auth-token-file", &auth, "--token-keys-file", &keys];
    let relay = Process::start(&[&files[..], &limit].concat());
    assert!(let_in(&relay, "the old secret 5ec2e7").await && !let_in(&relay, "the new secret 5ec2e7").await);
    write("auth", "the old secret 5ec2e7\nthe new secret 5ec2e7\n");
    relay.signal("-HUP");
    becomes("both secrets", async || let_in(&relay, "the new secret 5ec2e7").await).await;
    assert!(let_in(&relay, "the old secret 5ec2e7").await);
    write("keys", &format!("{GOOD}\n5ec2e7-bad\n"));
    relay.signal("-HUP");
    becomes("the complaint", async || relay.log().contains("was not taken")).await;
    assert!(relay.log().contains("token_keys_file") && relay.log().contains("line 2"), "{}", relay.log());
    write("keys", &format!("{GOOD}\n"));
    write("auth", "the new secret 5ec2e7\n");
    relay.signal("-HUP");
    becomes("the new secret alone", async || !let_in(&relay, "the old secret 5ec2e7").await).await;
    assert!(let_in(&relay, "the new secret 5ec2e7").await);
    assert!(!relay.log().contains(SECRET_PART), "{}", relay.log());
}

/// A SIGHUP with a bad entry beside a good one: key, file and line are logged, neither entry is.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_entry_at_sighup_does_not_tell_the_good_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    let write = |text: String| std::fs::write(&file, text).unwrap();
    write(format!("token_keys = [\"{GOOD}\"]\n"));
    let relay = Process::start(&["--config", file.to_str().unwrap()]);
    for (at, text) in [
        format!("token_keys = [\"{GOOD}\", \"5ec2e7-bad\"]\n"),
        format!("token_keys = [\"{GOOD}\"]\nauth_token = \"5ec2e7\"\n"),
        format!("token_keys = [\"{GOOD}\"]\nauth_token = \"5ec2e7 5ec2e7 5ec2e7 5ec2e7\n"),
    ]
    .into_iter()
    .enumerate()
    {
        write(text);
        relay.signal("-HUP");
        becomes("the complaint", async || relay.log().matches("was not taken").count() == at + 1).await;
    }
    let log = relay.log();
    for words in ["token_keys", "auth_token", "line 1", "line 2", file.to_str().unwrap()] {
        assert!(log.contains(words), "{words} is not in {log}");
    }
    assert!(!log.contains(SECRET_PART), "{log}");
}

/// However much an operator has logged: no password, token, JWT, DID or address, neither by the relay nor by the libraries
/// below it; and no colours in a file.
#[tokio::test(flavor = "multi_thread")]
async fn the_most_detailed_log_holds_no_secret_and_no_colours() {
    let nats = Nats::start(&["--user", "relay", "--pass", "5ec2e7-password"]).await;
    let url = nats.url().replace("nats://", "nats://relay:5ec2e7-password@");
    let admin = ["--admin-listen", "127.0.0.1:0"];
    let arguments = [&["--nats", &url, "--token-key", GOOD][..], &admin].concat();
    let relay = Process::start_with(&arguments, &[("RUST_LOG", "trace")]);
    becomes("NATS", async || relay.log().contains("connected to NATS")).await;
    let who = Who::new(relay.addr, 1);
    let (jwt, body) = who.request(now_s());
    let token = post_token_with(relay.addr, &jwt, &body, "X-Forwarded-For: 192.0.2.77\r\n").await.unwrap().token;
    assert!(post_token_with(relay.addr, &jwt, &body, "").await.is_err());
    let mut client = Client::challenged(relay.addr, who, &token).await;
    client.prove(&token).await;
    client.frame().await;
    let (room, _, _) = client.join(&crate::client::key(100)).await;
    let log = relay.log();
    let did = weft_protocol::admission::DidKey::Ed25519(crate::client::key(1).verifying_key().to_bytes()).to_string();
    let signature = jwt.rsplit_once('.').unwrap().1;
    for secret in [SECRET_PART, &token, signature, &did, &room.to_string(), "192.0.2.77", "\u{1b}["] {
        assert!(!log.contains(secret), "{secret:?} is in {log}");
    }
}
