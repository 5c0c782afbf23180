//! A client of a relay, as small as the protocol allows: what a benchmark needs to load one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use weft_protocol::admission::proof::{room_id, sign_connect, sign_room};
use weft_protocol::admission::token::{CONNECT_PATH, TOKEN_PATH, TokenAnswer, TokenRequest};
use weft_protocol::admission::{Audience, subprotocol};
use weft_protocol::frame::{ClientFrame, ServerFrame};
use weft_protocol::id::{ConnectionKey, RelayDevice, RoomId};

/// How long any step of getting in may take.
const STEP: Duration = Duration::from_secs(30);

/// A connection that was admitted.
pub struct Client {
    socket: WebSocketStream<TcpStream>,
    audience: Audience,
    nonce: [u8; 32],
    connection: SigningKey,
}

impl Client {
    /// Gets in at `address` (`host:port`) as the member and device number `number`.
    pub async fn connect(address: &str, number: u64) -> Result<Self> {
        tokio::time::timeout(STEP, Self::try_connect(address, number)).await.context("the relay did not let us in")?
    }

    async fn try_connect(address: &str, number: u64) -> Result<Self> {
        let audience = Audience::parse(address).map_err(|error| anyhow!("{address}: {error}"))?;
        let did = key("did", number);
        let connection = key("connection", number);
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?.as_secs();
        let device = RelayDevice(seed("device", number).first_chunk::<16>().copied().context("a seed has 32 bytes")?);
        let jti = seed(&format!("jti {now_s}"), number).first_chunk::<16>().copied().context("a seed has 32 bytes")?;
        let (request, jwt) = TokenRequest::self_signed(&did, &connection, &audience, device, now_s, &jti);
        let token = token(address, &request.to_json(), &jwt).await?;

        let mut upgrade = format!("ws://{address}{CONNECT_PATH}").into_client_request().context("upgrade")?;
        let offer = subprotocol::offer(&token).parse().context("the token does not fit a header")?;
        upgrade.headers_mut().insert("Sec-WebSocket-Protocol", offer);
        let stream = TcpStream::connect(address).await.context("connect")?;
        stream.set_nodelay(true).context("nodelay")?;
        // Ten thousand of these live in one process.
        let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(4096);
        let (socket, _) =
            tokio_tungstenite::client_async_with_config(upgrade, stream, Some(config)).await.context("upgrade")?;
        let mut client = Self { socket, audience, nonce: [0; 32], connection };
        let ServerFrame::Challenge { nonce } = client.next().await? else { bail!("no challenge came first") };
        client.nonce = nonce;
        let signature = sign_connect(&client.connection, &client.audience, &nonce, &token);
        let connection = client.connection_key();
        client
            .send(&ClientFrame::Prove { audience: client.audience.as_str().to_owned(), connection, signature })
            .await?;
        let answer = client.next().await?;
        ensure!(matches!(answer, ServerFrame::Welcome { .. }), "not welcome: {answer:?}");
        Ok(client)
    }

    /// Enters the room of `room_key`; gives its id and how many others are there.
    pub async fn join(&mut self, room_key: &SigningKey) -> Result<(RoomId, usize)> {
        let public = room_key.verifying_key().to_bytes();
        let room = room_id(&public);
        let proof = sign_room(room_key, &self.audience, &self.nonce, &self.connection_key());
        self.send(&ClientFrame::Join { room, key: public, proof }).await?;
        loop {
            // What comes besides is of other rooms.
            let frame = self.next().await?;
            if let ServerFrame::Error { message, .. } = &frame {
                bail!("the room stays closed: {message}");
            }
            if let ServerFrame::Joined { room: joined, peers, .. } = frame
                && joined == room
            {
                return Ok((room, peers.len()));
            }
        }
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: &ClientFrame) -> Result<()> {
        self.socket.send(Message::Binary(frame.encode())).await.context("send")
    }

    /// The next frame.
    pub async fn next(&mut self) -> Result<ServerFrame> {
        let bytes = self.next_bytes().await?;
        ServerFrame::decode(bytes).map_err(|error| anyhow!("the relay sent what is no frame: {error}"))
    }

    /// The next frame, not decoded.
    pub async fn next_bytes(&mut self) -> Result<Bytes> {
        loop {
            match self.socket.next().await.context("the relay hung up")?.context("receive")? {
                Message::Binary(bytes) => return Ok(bytes),
                Message::Close(why) => bail!("the relay closed: {why:?}"),
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// The two halves of the socket, to write and read at the same time.
    #[must_use]
    pub fn into_socket(self) -> WebSocketStream<TcpStream> {
        self.socket
    }

    fn connection_key(&self) -> ConnectionKey {
        ConnectionKey(self.connection.verifying_key().to_bytes())
    }
}

/// A key that is the same in every run.
fn key(what: &str, number: u64) -> SigningKey {
    SigningKey::from_bytes(&seed(what, number))
}

fn seed(what: &str, number: u64) -> [u8; 32] {
    *blake3::hash(format!("weft benchmark {what} {number} of {}", std::process::id()).as_bytes()).as_bytes()
}

/// Trades a JWT for a relay token.
async fn token(address: &str, body: &str, jwt: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await.context("connect")?;
    let request = format!(
        "POST {TOKEN_PATH} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {jwt}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.context("token request")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.context("token answer")?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("the token answer has no body")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "no token: {answer}");
    let answer: TokenAnswer = serde_json::from_str(body).with_context(|| format!("not a token answer: {body}"))?;
    Ok(answer.token)
}
