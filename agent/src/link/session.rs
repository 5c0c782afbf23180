//! One connection from token to end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use weft_agent_core::workspace::input::{Input, LinkId, LinkKind, LinkUp};
use weft_protocol::admission::proof::sign_connect;
use weft_protocol::admission::subprotocol;
use weft_protocol::admission::token::CONNECT_PATH;
use weft_protocol::code::Code;
use weft_protocol::frame::{ClientFrame, FrameError, ServerFrame};
use weft_protocol::id::ConnectionKey;
use weft_protocol::limits::{FRAME_BYTES_MAX, HANDSHAKE_MS_MAX, IDLE_MS_MAX, PING_AFTER_MS};

use super::address::Address;
use super::queue::{BULK_BYTES, Queue};
use super::token::Asker;
use super::transport::{self, Stream};
use super::{LinkError, Links};
use crate::engine;

/// Written bytes after which the core is told that they are, if none of them were bulk.
const TOLD_EVERY: u64 = BULK_BYTES / 4;
/// Writing one round must not take longer: a peer that reads nothing is gone.
const FLUSH_MAX: Duration = Duration::from_secs(30);
/// A session is renewed when so much of it is over.
const RENEW_PERCENT: u64 = 80;

type Socket = WebSocketStream<Box<dyn Stream>>;

impl From<WsError> for LinkError {
    fn from(error: WsError) -> Self {
        if let WsError::Io(error) = error {
            LinkError::Io(error)
        } else if let WsError::Http(answer) = error {
            LinkError::WebSocket(format!("the relay answered HTTP {}", answer.status()))
        } else {
            LinkError::WebSocket(error.to_string())
        }
    }
}

/// Runs until the link ends; gives why.
pub(super) async fn run(
    links: &Arc<Links>,
    address: &Address,
    kind: LinkKind,
    id: LinkId,
    queue: &Arc<Queue>,
) -> LinkError {
    match open_and_serve(links, address, kind, id, queue).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn open_and_serve(
    links: &Arc<Links>,
    address: &Address,
    kind: LinkKind,
    id: LinkId,
    queue: &Arc<Queue>,
) -> Result<std::convert::Infallible, LinkError> {
    let audience = &address.audience;
    let connection = SigningKey::from_bytes(&engine::random());
    let did_key = links.env.device.relay_pseudonym(audience.as_str());
    let device = links.env.device.relay_device(audience.as_str());
    let (tls, access) = (&links.env.tls, &*links.env.access);
    let asker = Asker { address, kind, tls, did_key: &did_key, device, connection: &connection, access };
    let token = asker.ask().await?;
    let (mut socket, from) = upgrade(address, links, &token).await?;
    let handshake = async {
        let ServerFrame::Challenge { nonce } = next(&mut socket).await? else { return Err(LinkError::NotARelay) };
        let prove = ClientFrame::Prove {
            audience: audience.to_string(),
            connection: ConnectionKey(connection.verifying_key().to_bytes()),
            signature: sign_connect(&connection, audience, &nonce, &token),
        };
        socket.send(Message::Binary(prove.encode())).await?;
        let answer = next(&mut socket).await?;
        if let ServerFrame::Welcome { session_ms, queue_bytes, frame_bytes_max, .. } = answer {
            Ok((nonce, session_ms, queue_bytes, frame_bytes_max))
        } else if let ServerFrame::Error { code, message, retry_after_ms, .. } = answer {
            Err(LinkError::Refused { code, message, retry_after_ms, relay_time_ms: None })
        } else {
            Err(LinkError::NotARelay)
        }
    };
    let (nonce, session_ms, queue_bytes, frame_bytes_max) =
        timeout(Duration::from_millis(HANDSHAKE_MS_MAX), handshake).await.map_err(|_| LinkError::Silent)??;
    let up = LinkUp {
        link: id,
        kind,
        url: address.url.clone(),
        audience: audience.to_string(),
        connection: ConnectionKey(connection.verifying_key().to_bytes()),
        nonce,
        queue_bytes,
        frame_bytes_max,
    };
    links.register(id, queue, from);
    links.note(&address.url, true, None);
    links.inbox.link(Input::LinkUp(up), 256).await;
    let (sink, stream) = socket.split();
    let (renewed, sessions) = tokio::sync::mpsc::channel(4);
    tokio::select! {
        ended = read(links, id, stream, renewed) => ended,
        ended = write(links, id, queue, sink) => ended,
        ended = renew(&asker, queue, session_ms, sessions) => ended,
    }
}

/// The socket, and the address of this computer that it goes out from.
async fn upgrade(address: &Address, links: &Links, token: &str) -> Result<(Socket, Option<IpAddr>), LinkError> {
    let stream = transport::connect(address, &links.env.tls).await?;
    let from = Stream::from(&*stream);
    // The stream is encrypted already where it should be: to the WebSocket code both are plain.
    let mut request = format!("ws://{}{CONNECT_PATH}", address.audience).into_client_request()?;
    let offer = HeaderValue::from_str(&subprotocol::offer(token)).map_err(|_| LinkError::NotARelay)?;
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, offer);
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(64 * 1024)
        .max_write_buffer_size(4 * FRAME_BYTES_MAX)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX));
    let upgrade = client_async_with_config(request, stream, Some(config));
    let (socket, _answer) =
        timeout(Duration::from_millis(HANDSHAKE_MS_MAX), upgrade).await.map_err(|_| LinkError::Silent)??;
    Ok((socket, from))
}

/// The next frame of the handshake.
async fn next(socket: &mut Socket) -> Result<ServerFrame, LinkError> {
    loop {
        match socket.next().await {
            Some(message) => {
                if let Some(frame) = frame(message?)? {
                    return Ok(frame);
                }
            }
            None => return Err(LinkError::WebSocket("closed".to_owned())),
        }
    }
}

/// `None` for what is WebSocket's own, and for a kind of frame that a later relay may send.
fn frame(message: Message) -> Result<Option<ServerFrame>, LinkError> {
    match message {
        Message::Binary(bytes) => match ServerFrame::decode(bytes) {
            Ok(frame) => Ok(Some(frame)),
            Err(FrameError::UnknownKind(_)) => Ok(None),
            Err(_) => Err(LinkError::NotARelay),
        },
        Message::Close(close) => {
            let code = close.as_ref().and_then(|close| Code::from_close_code(close.code.into()));
            let why = close.map(|close| close.reason.to_string()).unwrap_or_default();
            Err(match code {
                Some(code) => LinkError::Refused { code, message: why, retry_after_ms: None, relay_time_ms: None },
                None => LinkError::WebSocket(format!("closed by the relay {why}")),
            })
        }
        Message::Text(_) => Err(LinkError::NotARelay),
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
    }
}

async fn read(
    links: &Links,
    id: LinkId,
    mut stream: SplitStream<Socket>,
    renewed: tokio::sync::mpsc::Sender<u64>,
) -> Result<std::convert::Infallible, LinkError> {
    loop {
        let message =
            timeout(Duration::from_millis(IDLE_MS_MAX), stream.next()).await.map_err(|_| LinkError::Silent)?;
        let Some(message) = message else { return Err(LinkError::WebSocket("closed".to_owned())) };
        let Some(frame) = frame(message?)? else { continue };
        let bytes = match &frame {
            ServerFrame::Pong { .. } => continue,
            ServerFrame::Challenge { .. } | ServerFrame::Welcome { .. } => return Err(LinkError::NotARelay),
            ServerFrame::Refreshed { session_ms } => {
                let _kept = renewed.try_send(*session_ms);
                continue;
            }
            ServerFrame::Deliver { payload, .. } => payload.len(),
            ServerFrame::Joined { peers, .. } => peers.len() * 64,
            ServerFrame::PeerJoined { .. }
            | ServerFrame::PeerLeft { .. }
            | ServerFrame::Resync { .. }
            | ServerFrame::Restarting { .. }
            | ServerFrame::Error { .. } => 0,
        };
        let ends = if let ServerFrame::Restarting { after_ms } = &frame {
            Some(LinkError::Restarting { after_ms: *after_ms })
        } else if let ServerFrame::Error { code, message, retry_after_ms, .. } = &frame
            && code.ends_connection()
        {
            let (code, message, retry_after_ms) = (*code, message.clone(), *retry_after_ms);
            Some(LinkError::Refused { code, message, retry_after_ms, relay_time_ms: None })
        } else {
            None
        };
        links.inbox.link(Input::Frame { link: id, frame }, bytes + 128).await;
        if let Some(error) = ends {
            return Err(error);
        }
    }
}

async fn write(
    links: &Links,
    id: LinkId,
    queue: &Queue,
    mut sink: SplitSink<Socket, Message>,
) -> Result<std::convert::Infallible, LinkError> {
    let mut pings = 0;
    // The core counts whatever it gives out, of every rank, until it is told.
    let mut untold = 0;
    loop {
        let round = match timeout(Duration::from_millis(PING_AFTER_MS), queue.round()).await {
            Ok(round) => round.map_err(LinkError::GivenUp)?,
            Err(_quiet) => {
                pings += 1;
                let ping = ClientFrame::Ping { number: pings }.encode();
                flush(&mut sink, vec![ping]).await?;
                continue;
            }
        };
        untold += round.frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
        flush(&mut sink, round.frames).await?;
        if (round.had_bulk || untold >= TOLD_EVERY) && round.left < BULK_BYTES {
            untold = 0;
            links.inbox.link(Input::LinkDrained { link: id, queued_bytes: round.left }, 64).await;
        }
    }
}

async fn flush(sink: &mut SplitSink<Socket, Message>, frames: Vec<Bytes>) -> Result<(), LinkError> {
    let written = async {
        for frame in frames {
            sink.feed(Message::Binary(frame)).await?;
        }
        sink.flush().await
    };
    timeout(FLUSH_MAX, written).await.map_err(|_| LinkError::Silent)?.map_err(LinkError::from)
}

/// Renews the session in time; a renewal that fails is tried again until the session is over.
async fn renew(
    asker: &Asker<'_>,
    queue: &Queue,
    session_ms: u64,
    mut sessions: tokio::sync::mpsc::Receiver<u64>,
) -> Result<std::convert::Infallible, LinkError> {
    let mut session_ms = session_ms;
    loop {
        let began = Instant::now();
        tokio::time::sleep(Duration::from_millis(session_ms.saturating_mul(RENEW_PERCENT) / 100)).await;
        let end = began + Duration::from_millis(session_ms);
        let token = loop {
            match asker.ask().await {
                Ok(token) => break token,
                Err(error) if Instant::now() >= end => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis((session_ms / 50).clamp(200, 30_000))).await,
            }
        };
        queue.push(weft_agent_core::workspace::output::Rank::Control, ClientFrame::Refresh { token }.encode());
        session_ms = sessions.recv().await.ok_or(LinkError::Silent)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A relay of next year may say what this agent does not know; what is no frame at all still ends the connection.
    #[test]
    fn a_kind_from_the_future_is_passed_over() {
        let binary = |bytes: &'static [u8]| frame(Message::Binary(bytes.into()));
        assert!(matches!(binary(&[0x82, 0x18, 0x60, 0x00]), Ok(None)));
        assert!(matches!(binary(&[0x82, 0x18, 0x4b, 0x07]), Ok(Some(ServerFrame::Pong { number: 7 }))));
        assert!(matches!(binary(&[0xff]), Err(LinkError::NotARelay)));
    }
}
