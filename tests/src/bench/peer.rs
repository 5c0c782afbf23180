//! One client of whichever server is measured: enters a room, writes to it, counts what comes.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use ed25519_dalek::SigningKey;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use weft_protocol::frame::{ClientFrame, ServerFrame};
use weft_protocol::id::RoomId;

use super::{Client, Contender};

/// How long entering may take.
const STEP: Duration = Duration::from_secs(30);

type Socket = WebSocketStream<TcpStream>;

/// A client in a room.
pub struct Peer {
    socket: Socket,
    speech: Speech,
}

/// How to speak to the server.
#[derive(Clone)]
enum Speech {
    Relay(RoomId),
    Bare,
    Nats(String),
}

impl Peer {
    /// Enters `room` as the client number `number` of this process.
    pub async fn enter(contender: Contender, address: &str, room: u64, number: u64) -> Result<Self> {
        let entering = Self::try_enter(contender, address, room, number);
        tokio::time::timeout(STEP, entering).await.with_context(|| format!("{} did not let us in", contender.name()))?
    }

    async fn try_enter(contender: Contender, address: &str, room: u64, number: u64) -> Result<Self> {
        match contender {
            Contender::Relay => {
                let mut client = Client::connect(address, number).await?;
                let seed = blake3::hash(format!("room {room} of {}", std::process::id()).as_bytes());
                let (room, _) = client.join(&SigningKey::from_bytes(seed.as_bytes())).await?;
                Ok(Self { socket: client.into_socket(), speech: Speech::Relay(room) })
            }
            Contender::Bare => {
                let mut socket = upgrade(address).await?;
                socket.send(Message::Binary(Bytes::copy_from_slice(&room.to_be_bytes()))).await?;
                socket.next().await.context("the bare loop hung up")??;
                Ok(Self { socket, speech: Speech::Bare })
            }
            Contender::Nats => {
                let mut socket = upgrade(address).await?;
                let subject = format!("weft.room.{room}");
                let hello = format!(
                    "CONNECT {{\"verbose\":false,\"pedantic\":false,\"echo\":false,\"protocol\":1,\
                     \"lang\":\"bench\",\"version\":\"1\"}}\r\nSUB {subject} 1\r\nPING\r\n"
                );
                socket.send(Message::Binary(hello.into())).await?;
                // The subscription stands once the ping is answered.
                let mut said = Vec::new();
                while !said.windows(6).any(|part| part == b"PONG\r\n") {
                    said.extend(socket.next().await.context("nats-server hung up")??.into_data());
                }
                Ok(Self { socket, speech: Speech::Nats(subject) })
            }
        }
    }

    /// To write and to read at the same time.
    #[must_use]
    pub fn split(self) -> (PeerWriter, PeerReader) {
        let (sink, stream) = self.socket.split();
        let writer = PeerWriter { sink, speech: self.speech.clone() };
        (writer, PeerReader { stream, speech: self.speech, rest: BytesMut::new() })
    }
}

async fn upgrade(address: &str) -> Result<Socket> {
    let stream = TcpStream::connect(address).await.context("connect")?;
    stream.set_nodelay(true).context("nodelay")?;
    let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(4096);
    let url = format!("ws://{address}/");
    Ok(tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await.context("upgrade")?.0)
}

/// Writes to the room.
pub struct PeerWriter {
    sink: SplitSink<Socket, Message>,
    speech: Speech,
}

impl PeerWriter {
    /// Queues a payload for the others of the room.
    pub async fn feed(&mut self, payload: &Bytes) -> Result<()> {
        let frame = match &self.speech {
            Speech::Relay(room) => ClientFrame::Publish { room: *room, payload: payload.clone() }.encode(),
            Speech::Bare => payload.clone(),
            Speech::Nats(subject) => {
                let head = format!("PUB {subject} {}\r\n", payload.len());
                let mut out = BytesMut::with_capacity(head.len() + payload.len() + 2);
                [head.as_bytes(), payload, b"\r\n"].into_iter().for_each(|part| out.extend_from_slice(part));
                out.freeze()
            }
        };
        self.sink.feed(Message::Binary(frame)).await.context("write")
    }

    /// Writes what is queued.
    pub async fn flush(&mut self) -> Result<()> {
        self.sink.flush().await.context("write")
    }
}

/// Reads what others wrote.
pub struct PeerReader {
    stream: SplitStream<Socket>,
    speech: Speech,
    /// A part of what nats-server said: its messages are not those of the WebSocket.
    rest: BytesMut,
}

impl PeerReader {
    /// Waits for something, and shows the payloads in it.
    pub async fn next(&mut self, mut got: impl FnMut(&[u8])) -> Result<()> {
        let bytes = match self.stream.next().await.context("the server hung up")?.context("read")? {
            Message::Binary(bytes) => bytes,
            Message::Close(why) => bail!("the server closed: {why:?}"),
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
        };
        match self.speech {
            Speech::Relay(_) => match ServerFrame::decode(bytes) {
                Ok(ServerFrame::Deliver { payload, .. }) => got(&payload),
                Ok(ServerFrame::Error { message, .. }) => bail!("the relay refused: {message}"),
                Ok(_) => {}
                Err(error) => bail!("no frame: {error}"),
            },
            Speech::Bare => got(&bytes),
            Speech::Nats(_) => {
                self.rest.extend_from_slice(&bytes);
                while let Some(end) = self.rest.windows(2).position(|part| part == b"\r\n") {
                    let line = String::from_utf8_lossy(self.rest.get(..end).unwrap_or_default()).into_owned();
                    let len = match line.strip_prefix("MSG ") {
                        Some(fields) => fields.rsplit(' ').next().and_then(|len| len.parse::<usize>().ok()),
                        None if line.starts_with("-ERR") => bail!("nats-server refused: {line}"),
                        // Its pings come every two minutes, and two of them may go unanswered.
                        None => {
                            drop(self.rest.split_to(end + 2));
                            continue;
                        }
                    };
                    let len = len.context("a message without a length")?;
                    let Some(payload) = self.rest.get(end + 2..end + 2 + len) else { break };
                    if self.rest.len() < end + 4 + len {
                        break;
                    }
                    got(payload);
                    drop(self.rest.split_to(end + 4 + len));
                }
            }
        }
        Ok(())
    }
}
