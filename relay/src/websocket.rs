//! The WebSocket engine, in one place: what runs a connection after its upgrade.
//!
//! tokio-tungstenite with small buffers: its defaults cost 128 KiB a connection. Many frames are fed, then flushed once.
//! Its write buffer never shrinks, so a large frame goes around it: header and payload are written to the socket as they
//! are, which saves a copy too.
//!
//! Invariant: tungstenite's write buffer never holds more than [`WRITE_BUFFER_BYTES_MAX`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use weft_protocol::code::Code;
use weft_protocol::limits::{CLOSE_MS_MAX, FRAME_BYTES_MAX};

/// Grows while a large message comes in, and is what an idle connection keeps.
const READ_BUFFER_BYTES: usize = 4096;
/// Frames gather up to here before the socket is written to.
const WRITE_BUFFER_BYTES: usize = 16 << 10;

/// Frames from here on are written past the buffer.
const DIRECT_BYTES_MIN: usize = 8 << 10;
/// What the buffer can hold at most: it is written out above [`WRITE_BUFFER_BYTES`], one small frame more may be in it.
const WRITE_BUFFER_BYTES_MAX: usize = WRITE_BUFFER_BYTES + 2 * DIRECT_BYTES_MIN;

/// A socket that notes when bytes came in, so that half a frame counts as life.
pub(crate) struct Watched {
    stream: Socket,
    alive: Arc<AtomicBool>,
}

/// A TCP connection, with or without TLS.
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Watched {
    pub(crate) fn new(stream: Socket) -> Self {
        Self { stream, alive: Arc::default() }
    }
}

macro_rules! on_stream {
    ($socket:expr, $stream:ident => $call:expr) => {
        match $socket {
            Socket::Plain($stream) => $call,
            Socket::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = on_stream!(&mut self.stream, stream => Pin::new(stream).poll_read(cx, buf));
        if buf.filled().len() > before {
            self.alive.store(true, Ordering::Relaxed);
        }
        poll
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        on_stream!(&mut self.stream, stream => Pin::new(stream).poll_write(cx, buf))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(&mut self.stream, stream => Pin::new(stream).poll_flush(cx))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(&mut self.stream, stream => Pin::new(stream).poll_shutdown(cx))
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(&mut self.stream, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }
    fn is_write_vectored(&self) -> bool {
        on_stream!(&self.stream, stream => stream.is_write_vectored())
    }
}

/// What came in.
pub(crate) enum Received {
    /// One binary message.
    Frame(Bytes),
    /// Ping, pong: life, and nothing else.
    Control,
    /// Something that is no frame.
    Unreadable(Code),
    /// The other side closed, or the socket broke.
    Gone,
}

pub(crate) struct WebSocket {
    stream: WebSocketStream<Watched>,
    alive: Arc<AtomicBool>,
    /// The client closed; its close is to be answered.
    said_goodbye: bool,
    /// A large frame of which a part may be written already.
    direct: Option<Direct>,
}

/// A frame on its way past the buffer: header, payload, and how much of both is written.
struct Direct {
    header: [u8; 10],
    header_len: usize,
    payload: Bytes,
    written: usize,
}

impl Direct {
    /// An unmasked, final, binary frame (RFC 6455 section 5.2).
    fn new(payload: Bytes) -> Self {
        let mut header = [0x82, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let len = payload.len();
        let (short, bytes, header_len) = match u16::try_from(len) {
            Ok(len) => (126, u64::from(len) << 48, 4),
            Err(_) => (127, len as u64, 10),
        };
        let fields = std::iter::once(short).chain(bytes.to_be_bytes());
        header.iter_mut().skip(1).zip(fields).for_each(|(to, from)| *to = from);
        Self { header, header_len, payload, written: 0 }
    }

    /// What is still to be written.
    fn rest(&self) -> (&[u8], &[u8]) {
        let header = self.header.get(self.written.min(self.header_len)..self.header_len).unwrap_or_default();
        let payload = self.payload.get(self.written.saturating_sub(self.header_len)..).unwrap_or_default();
        (header, payload)
    }
}

impl WebSocket {
    /// Takes over an upgraded socket; `already` was read behind the HTTP header.
    pub(crate) async fn server(socket: Watched, already: Bytes) -> Self {
        let alive = socket.alive.clone();
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
            .max_frame_size(Some(FRAME_BYTES_MAX))
            .max_message_size(Some(FRAME_BYTES_MAX));
        let stream = WebSocketStream::from_partially_read(socket, already.to_vec(), Role::Server, Some(config)).await;
        Self { stream, alive, direct: None, said_goodbye: false }
    }

    /// Whether any byte came since the last call.
    pub(crate) fn was_alive(&self) -> bool {
        self.alive.swap(false, Ordering::Relaxed)
    }

    /// The next message; may be dropped and called again without losing one.
    pub(crate) async fn receive(&mut self) -> Received {
        match self.stream.next().await {
            Some(Ok(Message::Binary(bytes))) => Received::Frame(bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Received::Control,
            Some(Ok(Message::Text(_) | Message::Frame(_))) | Some(Err(Error::Utf8(_))) => {
                Received::Unreadable(Code::Malformed)
            }
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => Received::Unreadable(Code::TooLarge),
            Some(Err(Error::Protocol(error))) => {
                tracing::debug!(%error, "a client broke the WebSocket protocol");
                Received::Unreadable(Code::Malformed)
            }
            Some(Ok(Message::Close(_))) => {
                self.said_goodbye = true;
                Received::Gone
            }
            Some(Err(_)) | None => Received::Gone,
        }
    }

    /// Feeds all frames, then flushes once.
    pub(crate) async fn send(&mut self, frames: Vec<Bytes>) -> Result<(), Error> {
        for frame in frames {
            if frame.len() < DIRECT_BYTES_MIN {
                self.stream.feed(Message::Binary(frame)).await?;
            } else {
                self.stream.flush().await?;
                self.direct = Some(Direct::new(frame));
                self.finish_direct().await?;
            }
        }
        self.stream.flush().await
    }

    /// Writes what is left of a large frame. May be dropped and called again: no byte is lost or doubled.
    async fn finish_direct(&mut self) -> io::Result<()> {
        while let Some(direct) = &mut self.direct {
            let (header, payload) = direct.rest();
            if header.is_empty() && payload.is_empty() {
                self.stream.get_mut().flush().await?;
                self.direct = None;
                return Ok(());
            }
            let parts = [io::IoSlice::new(header), io::IoSlice::new(payload)];
            let socket = self.stream.get_mut();
            // One slice where there is one: not every stream takes the second of two when the first is empty.
            let written =
                if header.is_empty() { socket.write(payload).await? } else { socket.write_vectored(&parts).await? };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            direct.written += written;
        }
        Ok(())
    }

    /// Answers the close of a client that has said goodbye by itself (RFC 6455 section 5.5.1), bounded in time.
    pub(crate) async fn let_go(mut self) {
        if self.said_goodbye {
            let _ = tokio::time::timeout(Duration::from_millis(CLOSE_MS_MAX), self.stream.flush()).await;
        }
    }

    /// Says goodbye, bounded in time, and lingers: data the client still sends would otherwise reset the connection
    /// before it has read why.
    pub(crate) async fn close(mut self, code: Code) {
        let goodbye = async {
            let frame = CloseFrame { code: code.close_code().into(), reason: code.name().into() };
            // The close must not land inside of a large frame that was cut off.
            if self.finish_direct().await.is_err() || self.stream.send(Message::Close(Some(frame))).await.is_err() {
                return;
            }
            let socket = self.stream.get_mut();
            let _ = socket.shutdown().await;
            let mut sink = [0; 4096];
            while matches!(socket.read(&mut sink).await, Ok(len) if len > 0) {}
        };
        let _ = tokio::time::timeout(Duration::from_millis(CLOSE_MS_MAX), goodbye).await;
    }
}
