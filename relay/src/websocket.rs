//! The WebSocket engine, in one place: what runs a connection after its upgrade.
//!
//! tokio-tungstenite with small buffers reads (its defaults cost 128 KiB a connection) and speaks the protocol: pings, closes,
//! what is not allowed. Frames are written past it: their headers and the payloads that all receivers share leave in one
//! vectored write, so that nothing is copied for a receiver and no write buffer grows that never shrinks again.
//!
//! Invariant: tungstenite writes only between whole frames of ours, and its buffer holds control frames alone.
//! Spec: RFC 6455.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use weft_protocol::code::Code;
use weft_protocol::limits::{CLOSE_MS_MAX, FRAME_BYTES_MAX};

use crate::reading::Reading;

/// Grows while a large message comes in, and is what an idle connection keeps.
const READ_BUFFER_BYTES: usize = 4096;
/// Pongs and the close gather here before the socket is written to.
const CONTROL_BUFFER_BYTES: usize = 1 << 10;
/// What that buffer can hold at most; answers to a flood of pings fit, because one replaces another that was not written.
const CONTROL_BUFFER_BYTES_MAX: usize = 4 << 10;
/// Frames that one vectored write takes: header and payload each are a slice, and Linux takes up to 1,024 of them.
const FRAMES_A_WRITE: usize = 64;

/// A socket that notes when bytes came in, so that half a frame counts as life; that reads a large message only once there is
/// room for it; and, until it is a WebSocket's, that gives up on a client who does not take what is written.
pub(crate) struct Watched {
    stream: Socket,
    alive: Arc<AtomicBool>,
    /// Once it is a WebSocket's.
    reading: Option<Reading>,
    /// How long all that was written may take to leave; later the connection's task bounds each write.
    write_max: Option<Duration>,
    /// Runs from the first write that the client did not take until nothing is left to be written.
    stalled: Option<Pin<Box<Sleep>>>,
}

/// A TCP connection, with or without TLS.
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Watched {
    pub(crate) fn new(stream: Socket, write_max: Duration) -> Self {
        Self { stream, alive: Arc::default(), reading: None, write_max: Some(write_max), stalled: None }
    }

    /// What a write came to, or the end of patience. A trickle of progress does not start it anew.
    fn bounded<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let (Some(write_max), true) = (self.write_max, poll.is_pending()) else { return poll };
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(write_max)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
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
        if let Some(reading) = &mut self.reading {
            ready!(reading.poll_room(cx))?;
        }
        let before = buf.filled().len();
        let poll = on_stream!(&mut self.stream, stream => Pin::new(stream).poll_read(cx, buf));
        let read = buf.filled().get(before..).unwrap_or_default();
        if !read.is_empty() {
            self.alive.store(true, Ordering::Relaxed);
            if let Some(reading) = &mut self.reading {
                reading.pass(read);
            }
        }
        poll
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = on_stream!(&mut self.stream, stream => Pin::new(stream).poll_write(cx, buf));
        self.bounded(cx, poll)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = on_stream!(&mut self.stream, stream => Pin::new(stream).poll_flush(cx));
        if poll.is_ready() {
            self.stalled = None;
        }
        self.bounded(cx, poll)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = on_stream!(&mut self.stream, stream => Pin::new(stream).poll_shutdown(cx));
        self.bounded(cx, poll)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = on_stream!(&mut self.stream, stream => Pin::new(stream).poll_write_vectored(cx, bufs));
        self.bounded(cx, poll)
    }
    fn is_write_vectored(&self) -> bool {
        on_stream!(&self.stream, stream => stream.is_write_vectored())
    }
}

/// What came in.
pub(crate) enum Received {
    /// One binary message.
    Frame(Bytes),
    /// Ping, pong, of so many bytes: life, and nothing else.
    Control(usize),
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
    /// What is on its way past tungstenite.
    outgoing: Outgoing,
}

/// Frames that are being written, the first of them perhaps in part.
#[derive(Default)]
struct Outgoing {
    frames: VecDeque<Bytes>,
    /// Bytes of the first one's header and payload that are written.
    written: usize,
}

/// The header of an unmasked, final, binary frame (RFC 6455 section 5.2).
#[derive(Clone, Copy, Default)]
struct Header {
    bytes: [u8; 10],
    len: usize,
}

impl Header {
    fn of(payload_len: usize) -> Self {
        let mut bytes = [0x82, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let (short, long, len) = match (u8::try_from(payload_len), u16::try_from(payload_len)) {
            (Ok(short @ 0..=125), _) => (short, 0, 2),
            (_, Ok(long)) => (126, u64::from(long) << 48, 4),
            (_, Err(_)) => (127, payload_len as u64, 10),
        };
        let fields = std::iter::once(short).chain(long.to_be_bytes());
        bytes.iter_mut().skip(1).zip(fields).for_each(|(to, from)| *to = from);
        Self { bytes, len }
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Outgoing {
    /// Writes as much as the socket takes now.
    fn poll_write(&mut self, socket: &mut Watched, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut headers = [Header::default(); FRAMES_A_WRITE];
        headers.iter_mut().zip(&self.frames).for_each(|(header, frame)| *header = Header::of(frame.len()));
        let mut slices = [io::IoSlice::new(&[]); 2 * FRAMES_A_WRITE];
        let mut count = 0;
        let mut skip = self.written;
        for part in headers.iter().zip(&self.frames).flat_map(|(header, frame)| [header.as_slice(), frame.as_ref()]) {
            // An empty slice is left out: not every stream looks behind one.
            let rest = part.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(part.len());
            if let Some(slice) = slices.get_mut(count).filter(|_| !rest.is_empty()) {
                *slice = io::IoSlice::new(rest);
                count += 1;
            }
        }
        let slices = slices.get(..count).unwrap_or_default();
        match Pin::new(socket).poll_write_vectored(cx, slices) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(len)) => {
                self.advance(len);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// `len` more bytes were written: drops the frames that are whole now.
    fn advance(&mut self, len: usize) {
        self.written += len;
        while let Some(frame) = self.frames.front() {
            let whole = Header::of(frame.len()).len + frame.len();
            if self.written < whole {
                return;
            }
            self.written -= whole;
            self.frames.pop_front();
        }
    }
}

impl WebSocket {
    /// Takes over an upgraded socket; `already` was read behind the HTTP header.
    pub(crate) async fn server(mut socket: Watched, already: Bytes, mut reading: Reading) -> Self {
        reading.pass(&already);
        socket.reading = Some(reading);
        (socket.write_max, socket.stalled) = (None, None);
        let alive = socket.alive.clone();
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(CONTROL_BUFFER_BYTES)
            .max_write_buffer_size(CONTROL_BUFFER_BYTES_MAX)
            .max_frame_size(Some(FRAME_BYTES_MAX))
            .max_message_size(Some(FRAME_BYTES_MAX));
        let stream = WebSocketStream::from_partially_read(socket, already.to_vec(), Role::Server, Some(config)).await;
        Self { stream, alive, outgoing: Outgoing::default(), said_goodbye: false }
    }

    /// Whether any byte came since the last call.
    pub(crate) fn was_alive(&self) -> bool {
        self.alive.swap(false, Ordering::Relaxed)
    }

    /// Whether a message takes longer than it may to come in.
    pub(crate) fn is_overdue(&self) -> bool {
        self.stream.get_ref().reading.as_ref().is_some_and(Reading::is_overdue)
    }

    /// The next message; may be dropped and called again without losing one.
    pub(crate) async fn receive(&mut self) -> Received {
        match self.stream.next().await {
            Some(Ok(Message::Binary(bytes))) => Received::Frame(bytes),
            Some(Ok(Message::Ping(bytes) | Message::Pong(bytes))) => Received::Control(bytes.len()),
            Some(Ok(Message::Text(_) | Message::Frame(_))) | Some(Err(Error::Utf8(_))) => {
                Received::Unreadable(Code::Malformed)
            }
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => Received::Unreadable(Code::TooLarge),
            // Gone without a goodbye: there is nobody to tell.
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => Received::Gone,
            Some(Err(Error::Protocol(error))) => {
                tracing::debug!(%error, "a client broke the WebSocket protocol");
                Received::Unreadable(Code::Malformed)
            }
            Some(Ok(Message::Close(_))) => {
                self.said_goodbye = true;
                Received::Gone
            }
            Some(Err(_)) | None => {
                let fault = self.stream.get_ref().reading.as_ref().and_then(Reading::fault);
                fault.map_or(Received::Gone, Received::Unreadable)
            }
        }
    }

    /// Writes all frames.
    pub(crate) async fn send(&mut self, frames: VecDeque<Bytes>) -> Result<(), Error> {
        // A pong may be written in part.
        self.stream.flush().await?;
        self.outgoing = Outgoing { frames, written: 0 };
        Ok(self.finish().await?)
    }

    /// Writes what is left. May be dropped and called again: no byte is lost or doubled.
    async fn finish(&mut self) -> io::Result<()> {
        let (outgoing, socket) = (&mut self.outgoing, self.stream.get_mut());
        while !outgoing.frames.is_empty() {
            poll_fn(|cx| outgoing.poll_write(socket, cx)).await?;
        }
        // TLS gathers records.
        socket.flush().await
    }

    /// Writes the rest of a frame that is written in part, and forgets those behind it.
    async fn finish_frame(&mut self) -> io::Result<()> {
        let part = usize::from(self.outgoing.written > 0);
        self.outgoing.frames.truncate(part);
        self.finish().await
    }

    /// Answers the close of a client that has said goodbye by itself (RFC 6455 section 5.5.1), bounded in time.
    pub(crate) async fn let_go(mut self) {
        if self.said_goodbye {
            let goodbye = async {
                // Reports the end of the connection once the answer is written.
                let _ = self.stream.flush().await;
                linger(self.stream.get_mut()).await;
            };
            let _ = tokio::time::timeout(Duration::from_millis(CLOSE_MS_MAX), goodbye).await;
        }
    }

    /// Says goodbye, bounded in time.
    pub(crate) async fn close(mut self, code: Code) {
        let goodbye = async {
            let frame = CloseFrame { code: code.close_code().into(), reason: code.name().into() };
            // The close must not land inside of a frame that was cut off.
            if self.finish_frame().await.is_err() || self.stream.send(Message::Close(Some(frame))).await.is_err() {
                return;
            }
            linger(self.stream.get_mut()).await;
        };
        let _ = tokio::time::timeout(Duration::from_millis(CLOSE_MS_MAX), goodbye).await;
    }
}

/// Takes what the client still sends: left unread, it would reset the connection before the client has read our last word.
async fn linger(socket: &mut Watched) {
    // What comes now is thrown away, and takes no room.
    socket.reading = None;
    let _ = socket.shutdown().await;
    let mut sink = vec![0; 4096];
    while matches!(socket.read(&mut sink).await, Ok(len) if len > 0) {}
}
