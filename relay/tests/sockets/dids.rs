//! DIDs that have documents: fetched as they should be, and refused by name when they are not, or are made to harm.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k256::ecdsa::signature::Signer as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use weft_protocol::admission::DidKey;
use weft_protocol::admission::jwt::METHOD;
use weft_protocol::code::Code;
use weft_relay::{CacheTimes, Config, DidConfig, Lookup, LookupFuture};

use crate::client::{Relay, Who, now_s, post_token, post_token_with, random, relay, roomy, within};

/// How the server answers.
#[derive(Clone)]
enum Answer {
    Document(String),
    Status(u16),
    Redirect(String),
    Huge,
    Silence,
}

/// An HTTPS server for any name, which counts who comes.
struct Site {
    addr: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    hits: Arc<AtomicUsize>,
    folder: tempfile::TempDir,
}

impl Site {
    async fn start(ip: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), made.cert.pem()).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (answer, hits) = (Arc::new(Mutex::new(Answer::Status(404))), Arc::new(AtomicUsize::new(0)));
        let (answers, counted) = (answer.clone(), hits.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let (acceptor, answer) = (acceptor.clone(), answers.lock().unwrap().clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let _ = stream.read(&mut [0; 4096]).await;
                    let text = match answer {
                        Answer::Document(json) => {
                            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{json}", json.len())
                        }
                        Answer::Status(status) => format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n"),
                        Answer::Redirect(to) => {
                            format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
                        }
                        Answer::Huge => format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat(70 << 10)),
                        Answer::Silence => return std::future::pending().await,
                    };
                    let _ = stream.write_all(text.as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { addr, answer, hits, folder }
    }

    fn says(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    fn did(&self) -> String {
        format!("did:web:a.example%3A{}", self.addr.port())
    }

    /// The document of `did` with one key, of one of the types there are.
    fn shows(&self, did: &str, kind: &str, key: &str) {
        let method = serde_json::json!({ "id": format!("{did}#atproto"), "type": kind, "controller": did, "publicKeyMultibase": key });
        self.says(Answer::Document(serde_json::json!({ "id": did, "verificationMethod": [method] }).to_string()));
    }

    fn config(&self, lookup: impl Lookup + 'static, times: CacheTimes) -> Config {
        let ca = Some(self.folder.path().join("ca.pem"));
        let did = DidConfig { ca, lookup: Arc::new(lookup), reachable: |_| true, times, ..DidConfig::default() };
        Config { did, ..roomy() }
    }

    async fn relay(&self) -> Relay {
        relay(self.config(To(vec![self.addr.ip()]), CacheTimes::default())).await
    }
}

/// Answers every name alike.
struct To(Vec<IpAddr>);

impl Lookup for To {
    fn lookup<'a>(&'a self, _: &'a str, port: u16) -> LookupFuture<'a> {
        let found = self.0.iter().map(|&ip| SocketAddr::new(ip, port)).collect();
        Box::pin(std::future::ready(Ok(found)))
    }
}

fn secret(seed: u8) -> k256::ecdsa::SigningKey {
    k256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap()
}

fn multikey(seed: u8) -> String {
    let public: [u8; 33] = secret(seed).verifying_key().to_sec1_point(true).as_bytes().try_into().unwrap();
    DidKey::Secp256k1(public).to_string().strip_prefix("did:key:").unwrap().to_owned()
}

/// A service-auth token as a PDS makes it.
fn jwt(who: &Who, did: &str, seed: u8) -> String {
    let claims = serde_json::json!({
        "iss": did, "aud": who.audience.did_web(), "lxm": METHOD, "iat": now_s(), "exp": now_s() + 60,
        "jti": URL_SAFE_NO_PAD.encode(random::<16>()),
    });
    let header = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"ES256K"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature: k256::ecdsa::Signature = secret(seed).sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
}

/// What a relay says to a DID whose key is that of `seed`.
async fn ask(addr: SocketAddr, did: &str, seed: u8) -> Result<(), Code> {
    let who = Who::new(addr, 1);
    let jwt = jwt(&who, did, seed);
    post_token(addr, &jwt, &who.request_with(&jwt)).await.map(|_| ()).map_err(|error| error.code())
}

#[tokio::test]
async fn a_did_web_with_a_port_gets_in_with_new_and_old_key_types() {
    let site = Site::start("127.0.0.1").await;
    site.shows(&site.did(), "Multikey", &multikey(7));
    assert_eq!(ask(site.relay().await.addr, &site.did(), 7).await, Ok(()));
    let point = secret(7).verifying_key().to_sec1_point(false);
    let old = weft_protocol::admission::did_key::to_multibase_base58(point.as_bytes());
    site.shows(&site.did(), "EcdsaSecp256k1VerificationKey2019", &old);
    assert_eq!(ask(site.relay().await.addr, &site.did(), 7).await, Ok(()));
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_by_its_name() {
    let site = Site::start("127.0.0.1").await;
    let big = Answer::Document(format!("{{\"id\":\"{}\",\"x\":\"{}\"}}", site.did(), "x".repeat(65 << 10)));
    for (answer, code) in [
        (Answer::Status(404), Code::UnknownDid),
        (Answer::Status(500), Code::DidUnreachable),
        (Answer::Redirect(format!("https://a.example:{}/elsewhere", site.addr.port())), Code::DidUnreachable),
        (Answer::Huge, Code::DidUnreachable),
        (big, Code::DidUnreachable),
        (Answer::Document("{}".into()), Code::UnknownDid),
        (Answer::Document(r#"{"id":"did:web:b.example"}"#.into()), Code::UnknownDid),
    ] {
        site.says(answer);
        let relay = site.relay().await;
        let before = site.hits();
        assert_eq!(ask(relay.addr, &site.did(), 7).await, Err(code));
        // A redirect is not followed, and the failure is remembered: one connection, for both.
        assert_eq!(ask(relay.addr, &site.did(), 7).await, Err(code));
        assert_eq!(site.hits(), before + 1);
    }
}

#[tokio::test]
async fn a_slow_site_costs_three_seconds_and_many_who_ask_cost_one_connection() {
    let site = Site::start("127.0.0.1").await;
    site.says(Answer::Silence);
    let relay = site.relay().await;
    let (addr, did) = (relay.addr, site.did());
    let start = std::time::Instant::now();
    let many: Vec<_> = (0..5)
        .map(|_| {
            let did = did.clone();
            tokio::spawn(async move { ask(addr, &did, 7).await })
        })
        .collect();
    for one in many {
        assert_eq!(within("an answer", one).await.unwrap(), Err(Code::DidUnreachable));
    }
    assert!(start.elapsed() >= Duration::from_secs(3));
    assert_eq!(site.hits(), 1);
}

#[tokio::test]
async fn addresses_that_are_not_public_are_never_connected_to() {
    let site = Site::start("127.0.0.1").await;
    site.shows(&site.did(), "Multikey", &multikey(7));
    let mut config = site.config(To(vec![site.addr.ip()]), CacheTimes::default());
    config.did.reachable = weft_relay::is_global;
    let relay = relay(config).await;
    assert_eq!(ask(relay.addr, &site.did(), 7).await, Err(Code::DidUnreachable));
    for did in ["did:web:127.0.0.1%3A80", "did:web:2130706433", "did:web:localhost"] {
        assert_eq!(ask(relay.addr, did, 7).await, Err(Code::DidUnreachable), "{did}");
    }
    for did in ["did:web:a%2Fb", "did:web:a.example%3A", "did:plc:short", "did:other:x"] {
        assert_eq!(ask(relay.addr, did, 7).await, Err(Code::UnknownDid), "{did}");
    }
    assert_eq!(site.hits(), 0);
}

/// Answers with a good address first, and from then on with one inside.
struct Rebinding(AtomicUsize, [IpAddr; 2]);

impl Lookup for Rebinding {
    fn lookup<'a>(&'a self, _: &'a str, port: u16) -> LookupFuture<'a> {
        let at = self.0.fetch_add(1, Ordering::SeqCst).min(1);
        Box::pin(std::future::ready(Ok(vec![SocketAddr::new(self.1[at], port)])))
    }
}

/// A name that answers differently the second time gains nothing: the address that was checked is the one connected to.
#[tokio::test]
async fn rebinding_gains_nothing() {
    let (public, inside): (IpAddr, IpAddr) = ("127.0.0.2".parse().unwrap(), "127.0.0.1".parse().unwrap());
    let site = Site::start("127.0.0.2").await;
    // Something inside of the network on the same port.
    let within_network = TcpListener::bind((inside, site.addr.port())).await.unwrap();
    site.shows(&site.did(), "Multikey", &multikey(7));
    let times = CacheTimes { negative: Duration::ZERO, ..CacheTimes::default() };
    let mut config = site.config(Rebinding(AtomicUsize::new(0), [public, inside]), times);
    config.did.reachable = |ip| ip != IpAddr::from([127, 0, 0, 1]);
    let relay = relay(config).await;
    assert_eq!(ask(relay.addr, &site.did(), 7).await, Ok(()));
    // The wrong signature has it resolved again, to the address inside, which is refused.
    assert_eq!(ask(relay.addr, &site.did(), 8).await, Err(Code::BadSignature));
    assert_eq!(site.hits(), 1);
    let nobody = tokio::time::timeout(Duration::from_millis(50), within_network.accept()).await;
    assert!(nobody.is_err());
}

#[tokio::test]
async fn a_rotated_key_is_seen_once_in_a_while_and_a_forger_causes_one_fetch() {
    let site = Site::start("127.0.0.1").await;
    site.shows(&site.did(), "Multikey", &multikey(7));
    let relay = site.relay().await;
    assert_eq!(ask(relay.addr, &site.did(), 7).await, Ok(()));
    assert_eq!(site.hits(), 1);
    site.shows(&site.did(), "Multikey", &multikey(8));
    assert_eq!(ask(relay.addr, &site.did(), 8).await, Ok(()));
    assert_eq!(site.hits(), 2);
    for _ in 0..3 {
        assert_eq!(ask(relay.addr, &site.did(), 7).await, Err(Code::BadSignature));
    }
    assert_eq!(site.hits(), 2);
    assert_eq!(ask(relay.addr, &format!("{}#atproto", site.did()), 8).await, Ok(()));
    assert_eq!(ask(relay.addr, &format!("{}#other", site.did()), 8).await, Err(Code::UnknownDid));
}

#[tokio::test]
async fn a_stale_document_is_used_while_a_new_one_is_fetched_behind() {
    let site = Site::start("127.0.0.1").await;
    site.shows(&site.did(), "Multikey", &multikey(7));
    let times = CacheTimes { fresh: Duration::ZERO, negative: Duration::from_secs(3600), ..CacheTimes::default() };
    let relay = relay(site.config(To(vec![site.addr.ip()]), times)).await;
    assert_eq!(ask(relay.addr, &site.did(), 7).await, Ok(()));
    // The site is gone: what is kept goes on being good.
    site.says(Answer::Status(500));
    assert_eq!(ask(relay.addr, &site.did(), 7).await, Ok(()));
    within("a look behind", async {
        while site.hits() < 2 {
            tokio::task::yield_now().await
        }
    })
    .await;
    assert_eq!(ask(relay.addr, &site.did(), 7).await, Ok(()));
    assert_eq!(site.hits(), 2);
}

/// What an unverified token names is not looked up for those above their limit, nor for those who do not know the secret.
/// The lists of DIDs are another matter: a relay that looked up those on them alone would tell who they are.
#[tokio::test]
async fn nothing_is_resolved_before_the_limit_and_the_secret() {
    let site = Site::start("127.0.0.1").await;
    let config = site.config(To(vec![site.addr.ip()]), CacheTimes::default());
    let limited = relay(Config { token_requests_per_minute: 1, ..config.clone() }).await;
    assert!(Who::new(limited.addr, 1).token(limited.addr).await.is_ok());
    assert_eq!(ask(limited.addr, &site.did(), 7).await, Err(Code::RateLimited));
    let mut closed = config.clone();
    closed.policy.auth_tokens = vec!["a secret of some length".into()];
    let closed = relay(closed).await;
    assert_eq!(ask(closed.addr, &site.did(), 7).await, Err(Code::NotAllowed));
    assert_eq!(site.hits(), 0);

    let mut listed = config;
    listed.policy.allow_dids = Some(vec!["did:web:b.example".into()]);
    let listed = relay(listed).await;
    site.shows(&site.did(), "Multikey", &multikey(7));
    assert_eq!(ask(listed.addr, &site.did(), 8).await, Err(Code::BadSignature));
    assert_eq!(ask(listed.addr, &site.did(), 7).await, Err(Code::NotAllowed));
}

/// Names whose servers never answer, asked for by one network, neither start threads without end nor keep another network
/// from having its DIDs looked up.
#[tokio::test]
async fn lookups_that_hang_are_bounded_and_leave_room_for_other_networks() {
    /// Hangs for all names but `a.example`.
    struct Hanging(IpAddr, Arc<AtomicUsize>);
    impl Lookup for Hanging {
        fn lookup<'a>(&'a self, host: &'a str, port: u16) -> LookupFuture<'a> {
            if host == "a.example" {
                return Box::pin(std::future::ready(Ok(vec![SocketAddr::new(self.0, port)])));
            }
            self.1.fetch_add(1, Ordering::SeqCst);
            Box::pin(std::future::pending())
        }
    }
    let site = Site::start("127.0.0.1").await;
    let hung = Arc::new(AtomicUsize::new(0));
    let config = site.config(Hanging(site.addr.ip(), hung.clone()), CacheTimes::default());
    let proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let relay = relay(Config { trusted_proxies: proxies, ..config }).await;
    let from = async |client: String, did: String| {
        let who = Who::new(relay.addr, 1);
        let jwt = jwt(&who, &did, 7);
        let header = format!("X-Forwarded-For: {client}\r\n");
        post_token_with(relay.addr, &jwt, &who.request_with(&jwt), &header).await.map(drop).map_err(|e| e.code())
    };
    let asked = (0..100).map(|n| from(format!("192.0.2.{n}"), format!("did:web:hangs{n}.example")));
    for refused in futures_util::future::join_all(asked).await {
        assert!(matches!(refused, Err(Code::DidUnreachable | Code::RateLimited)), "{refused:?}");
    }
    let hung = hung.load(Ordering::SeqCst);
    assert!((1..=32).contains(&hung), "{hung} lookups hang at once");
    site.shows(&site.did(), "Multikey", &multikey(7));
    assert_eq!(from("198.51.100.1".into(), site.did()).await, Ok(()));
}
