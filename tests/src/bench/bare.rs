//! The least that a relay over WebSockets can cost: rooms and fan-out, and nothing else.
//!
//! Tuned as the relay is: a read buffer of 4 KiB, one encoding shared by all receivers, many frames fed and flushed once,
//! `TCP_NODELAY`. No admission, no limits, no bounds: a yardstick, not a server.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

type Rooms = Arc<Mutex<HashMap<Bytes, Vec<(u64, UnboundedSender<Bytes>)>>>>;

/// Frames that are fed before a flush, at most.
const BATCH: usize = 64;

/// Serves on one thread until it is killed. A client's first message names its room; each later one goes to the others.
pub fn serve(listen: SocketAddr) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(listen).await.context("the bare loop cannot listen")?;
        let rooms = Rooms::default();
        let mut next = 0;
        loop {
            let (stream, _) = listener.accept().await.context("accept")?;
            next += 1;
            tokio::spawn(run(stream, rooms.clone(), next));
        }
    })
}

async fn run(stream: TcpStream, rooms: Rooms, number: u64) -> Result<()> {
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(16 << 10);
    let mut socket = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await?;
    let room = socket.next().await.context("no room")??.into_data();
    let (sender, mut queue) = unbounded_channel();
    let lock = || rooms.lock().unwrap_or_else(PoisonError::into_inner);
    lock().entry(room.clone()).or_default().push((number, sender));
    // The room is entered once this arrives.
    socket.send(Message::Binary(room.clone())).await?;
    let mut exchange = async || -> Result<()> {
        loop {
            tokio::select! {
                biased;
                message = socket.next() => {
                    let Message::Binary(frame) = message.context("gone")?? else { continue };
                    for (_, other) in lock().get(&room).into_iter().flatten().filter(|(other, _)| *other != number) {
                        // Whoever is gone has left its queue, which says so.
                        let _ = other.send(frame.clone());
                    }
                }
                frame = queue.recv() => write(&mut socket, &mut queue, frame.context("gone")?).await?,
            }
        }
    };
    let ended = exchange().await;
    if let Some(members) = lock().get_mut(&room) {
        members.retain(|(other, _)| *other != number);
    }
    ended
}

async fn write(
    socket: &mut tokio_tungstenite::WebSocketStream<TcpStream>,
    queue: &mut UnboundedReceiver<Bytes>,
    first: Bytes,
) -> Result<()> {
    socket.feed(Message::Binary(first)).await?;
    for _ in 1..BATCH {
        let Ok(frame) = queue.try_recv() else { break };
        socket.feed(Message::Binary(frame)).await?;
    }
    Ok(socket.flush().await?)
}
