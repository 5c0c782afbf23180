//! The WebSocket engine, in one place: what runs a connection after its upgrade.
//!
//! tokio-tungstenite with small buffers: its defaults cost 128 KiB a connection. Many frames are fed, then flushed once.

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

/// A socket that notes when bytes came in, so that half a frame counts as life.
pub(crate) struct Watched {
    stream: TcpStream,
    alive: Arc<AtomicBool>,
}

impl Watched {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, alive: Arc::default() }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.alive.store(true, Ordering::Relaxed);
        }
        poll
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
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
}

impl WebSocket {
    /// Takes over an upgraded socket; `already` was read behind the HTTP header.
    pub(crate) async fn server(socket: Watched, already: Bytes) -> Self {
        let alive = socket.alive.clone();
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_write_buffer_size(WRITE_BUFFER_BYTES + 2 * FRAME_BYTES_MAX)
            .max_frame_size(Some(FRAME_BYTES_MAX))
            .max_message_size(Some(FRAME_BYTES_MAX));
        let stream = WebSocketStream::from_partially_read(socket, already.to_vec(), Role::Server, Some(config)).await;
        Self { stream, alive }
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
            Some(Ok(Message::Close(_)) | Err(_)) | None => Received::Gone,
        }
    }

    /// Feeds all frames, then flushes once.
    pub(crate) async fn send(&mut self, frames: Vec<Bytes>) -> Result<(), Error> {
        for frame in frames {
            self.stream.feed(Message::Binary(frame)).await?;
        }
        self.stream.flush().await
    }

    /// Says goodbye, bounded in time, and lingers: data the client still sends would otherwise reset the connection
    /// before it has read why.
    pub(crate) async fn close(mut self, code: Code) {
        let goodbye = async {
            let frame = CloseFrame { code: code.close_code().into(), reason: code.name().into() };
            if self.stream.send(Message::Close(Some(frame))).await.is_err() {
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
