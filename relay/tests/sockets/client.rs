//! A plain client, and a relay to talk to.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use weft_protocol::admission::proof::{room_id, sign_connect, sign_room};
use weft_protocol::admission::subprotocol;
use weft_protocol::admission::token::{ErrorAnswer, TokenAnswer, TokenRequest};
use weft_protocol::admission::{Audience, jwt};
use weft_protocol::code::Code;
use weft_protocol::frame::{ClientFrame, Peer, PeerId, ServerFrame};
use weft_protocol::id::{ConnectionKey, RelayDevice, RoomId};
use weft_relay::{Config, Server, Watch};

/// Long enough for a busy machine; no test waits for it unless it fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A relay that stops when this is dropped.
pub(crate) struct Relay {
    pub(crate) addr: SocketAddr,
    pub(crate) watch: Watch,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) ended: tokio::task::JoinHandle<()>,
}

pub(crate) fn roomy() -> Config {
    Config { token_requests_per_minute: 10_000, ..Config::default() }
}

pub(crate) async fn relay(config: Config) -> Relay {
    run(Server::bind(config).await.unwrap())
}

/// Runs a relay that is bound.
pub(crate) fn run(server: Server) -> Relay {
    let (addr, watch) = (server.local_addr(), server.watch());
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(server.run(async move {
        let _ = stopped.await;
    }));
    Relay { addr, watch, stop: Some(stop), ended }
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// One HTTP/1.1 exchange; status and body.
pub(crate) async fn http(addr: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    http_bytes(addr, method, path, headers.as_bytes(), body).await
}

/// With header lines of any bytes.
async fn http_bytes(addr: SocketAddr, method: &str, path: &str, headers: &[u8], body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n");
    let tail = format!("Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(&[head.as_bytes(), headers, tail.as_bytes()].concat()).await.unwrap();
    let mut answer = String::new();
    within("an HTTP answer", stream.read_to_string(&mut answer)).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

pub(crate) async fn post_token(addr: SocketAddr, jwt: &str, body: &str) -> Result<TokenAnswer, ErrorAnswer> {
    post_token_with(addr, jwt, body, "").await
}

/// With more header lines.
pub(crate) async fn post_token_with(
    addr: SocketAddr,
    jwt: &str,
    body: &str,
    more: &str,
) -> Result<TokenAnswer, ErrorAnswer> {
    post_token_bytes(addr, jwt, body, more.as_bytes()).await
}

/// With more header lines, of any bytes.
pub(crate) async fn post_token_bytes(
    addr: SocketAddr,
    jwt: &str,
    body: &str,
    more: &[u8],
) -> Result<TokenAnswer, ErrorAnswer> {
    let headers = format!("Authorization: Bearer {jwt}\r\nContent-Type: application/json\r\n");
    let headers = [headers.as_bytes(), more].concat();
    let (status, body) = http_bytes(addr, "POST", "/v1/token", &headers, body).await;
    if status == 200 {
        Ok(serde_json::from_str(&body).unwrap())
    } else {
        let error: ErrorAnswer = serde_json::from_str(&body).unwrap();
        assert_eq!(error.code().http_status(), status);
        Err(error)
    }
}

/// Who connects: a DID key, a device, a fresh connection key.
pub(crate) struct Who {
    pub(crate) did: SigningKey,
    pub(crate) device: RelayDevice,
    pub(crate) connection: SigningKey,
    pub(crate) audience: Audience,
}

impl Who {
    pub(crate) fn new(addr: SocketAddr, seed: u8) -> Self {
        Self {
            did: key(seed),
            device: RelayDevice([seed; 16]),
            connection: SigningKey::from_bytes(&random()),
            audience: Audience::from_addr(addr),
        }
    }
    pub(crate) fn request(&self, now_s: u64) -> (String, String) {
        let (request, jwt) =
            TokenRequest::self_signed(&self.did, &self.connection, &self.audience, self.device, now_s, &random());
        (jwt, request.to_json())
    }
    /// A request for a JWT that was made elsewhere.
    pub(crate) fn request_with(&self, jwt: &str) -> String {
        let signature =
            weft_protocol::admission::proof::sign_token_request(&self.connection, &self.audience, jwt, &self.device);
        let connection = ConnectionKey(self.connection.verifying_key().to_bytes());
        TokenRequest { audience: self.audience.clone(), connection, device: self.device, signature }.to_json()
    }
    pub(crate) fn jwt(&self, now_s: u64) -> String {
        jwt::self_signed(&self.did, &self.audience, now_s, &random())
    }
    pub(crate) async fn token(&self, addr: SocketAddr) -> Result<String, ErrorAnswer> {
        let (jwt, body) = self.request(now_s());
        post_token(addr, &jwt, &body).await.map(|answer| answer.token)
    }
}

/// What came off the WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Frame(ServerFrame),
    Closed(Option<Code>),
}

pub(crate) struct Client {
    pub(crate) ws: WebSocketStream<TcpStream>,
    pub(crate) who: Who,
    pub(crate) nonce: [u8; 32],
}

/// The upgrade; what the relay answered if it refused.
pub(crate) async fn upgrade(
    addr: SocketAddr,
    subprotocols: &str,
) -> Result<WebSocketStream<TcpStream>, (u16, ErrorAnswer)> {
    upgrade_with(addr, subprotocols, "").await
}

/// From behind proxies, if `forwarded` is not empty.
pub(crate) async fn upgrade_with(
    addr: SocketAddr,
    subprotocols: &str,
    forwarded: &str,
) -> Result<WebSocketStream<TcpStream>, (u16, ErrorAnswer)> {
    let mut request = format!("ws://{addr}/v1/connect").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", subprotocols.parse().unwrap());
    if !forwarded.is_empty() {
        request.headers_mut().insert("x-forwarded-for", forwarded.parse().unwrap());
    }
    upgrade_request(addr, request).await
}

/// With whatever header lines.
pub(crate) async fn upgrade_request(
    addr: SocketAddr,
    request: tokio_tungstenite::tungstenite::http::Request<()>,
) -> Result<WebSocketStream<TcpStream>, (u16, ErrorAnswer)> {
    upgrade_over(TcpStream::connect(addr).await.unwrap(), request).await
}

/// On a socket that is there, from behind a proxy.
pub(crate) async fn upgrade_on(
    stream: TcpStream,
    addr: SocketAddr,
    subprotocols: &str,
    forwarded: &str,
) -> Result<WebSocketStream<TcpStream>, (u16, ErrorAnswer)> {
    let mut request = format!("ws://{addr}/v1/connect").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", subprotocols.parse().unwrap());
    request.headers_mut().insert("x-forwarded-for", forwarded.parse().unwrap());
    upgrade_over(stream, request).await
}

async fn upgrade_over(
    stream: TcpStream,
    request: tokio_tungstenite::tungstenite::http::Request<()>,
) -> Result<WebSocketStream<TcpStream>, (u16, ErrorAnswer)> {
    match within("the upgrade", tokio_tungstenite::client_async(request, stream)).await {
        Ok((ws, response)) => {
            assert_eq!(response.headers()["sec-websocket-protocol"], subprotocol::VERSION);
            Ok(ws)
        }
        Err(Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            Err((response.status().as_u16(), serde_json::from_slice(&body).unwrap()))
        }
        Err(error) => panic!("{error}"),
    }
}

impl Client {
    /// Connected and challenged, not proven.
    pub(crate) async fn challenged(addr: SocketAddr, who: Who, token: &str) -> Self {
        let ws = upgrade(addr, &subprotocol::offer(token)).await.unwrap();
        let mut client = Self { ws, who, nonce: [0; 32] };
        let ServerFrame::Challenge { nonce } = client.frame().await else { panic!("no challenge") };
        client.nonce = nonce;
        client
    }

    /// Connected and proven.
    pub(crate) async fn connect(addr: SocketAddr, seed: u8) -> Self {
        let who = Who::new(addr, seed);
        let token = who.token(addr).await.unwrap();
        let mut client = Self::challenged(addr, who, &token).await;
        client.prove(&token).await;
        assert!(matches!(client.frame().await, ServerFrame::Welcome { .. }));
        client
    }

    pub(crate) async fn prove(&mut self, token: &str) {
        let signature = sign_connect(&self.who.connection, &self.who.audience, &self.nonce, token);
        let connection = ConnectionKey(self.who.connection.verifying_key().to_bytes());
        self.send(ClientFrame::Prove { audience: self.who.audience.to_string(), connection, signature }).await;
    }

    pub(crate) async fn send(&mut self, frame: ClientFrame) {
        self.bytes(frame.encode()).await;
    }

    pub(crate) async fn bytes(&mut self, bytes: Bytes) {
        within("sending", self.ws.send(Message::Binary(bytes))).await.unwrap();
    }

    pub(crate) async fn came(&mut self) -> Came {
        loop {
            match within("a message", self.ws.next()).await {
                Some(Ok(Message::Binary(bytes))) => return Came::Frame(ServerFrame::decode(bytes).unwrap()),
                Some(Ok(Message::Close(frame))) => {
                    return Came::Closed(frame.and_then(|f| Code::from_close_code(f.code.into())));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Came::Closed(None),
            }
        }
    }

    pub(crate) async fn frame(&mut self) -> ServerFrame {
        match self.came().await {
            Came::Frame(frame) => frame,
            Came::Closed(code) => panic!("closed with {code:?} instead of a frame"),
        }
    }

    /// The code of the error that has to come next.
    pub(crate) async fn refused(&mut self) -> Code {
        match self.frame().await {
            ServerFrame::Error { code, message, .. } => {
                assert!(!message.is_empty());
                code
            }
            other => panic!("{other:?} instead of an error"),
        }
    }

    pub(crate) fn join_frame(&self, room_key: &SigningKey) -> ClientFrame {
        let public = room_key.verifying_key().to_bytes();
        let connection = ConnectionKey(self.who.connection.verifying_key().to_bytes());
        let proof = sign_room(room_key, &self.who.audience, &self.nonce, &connection);
        ClientFrame::Join { room: room_id(&public), key: public, proof }
    }

    pub(crate) async fn join(&mut self, room_key: &SigningKey) -> (RoomId, PeerId, Vec<Peer>) {
        let frame = self.join_frame(room_key);
        self.send(frame).await;
        match self.frame().await {
            ServerFrame::Joined { room, you, peers } => (room, you, peers),
            other => panic!("{other:?} instead of Joined"),
        }
    }
}
