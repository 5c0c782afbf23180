//! Frames reach whom they are for, and nobody else.

use bytes::Bytes;
use weft_protocol::code::Code;
use weft_protocol::frame::{ClientFrame, Peer, PeerId, ServerFrame};
use weft_protocol::id::RelayDevice;

use crate::client::{Client, key, relay, roomy};

#[tokio::test]
async fn peers_see_each_other_and_frames_reach_the_room_or_the_one_they_name() {
    let relay = relay(roomy()).await;
    let (mut a, mut b, mut c) = (
        Client::connect(relay.addr, 1).await,
        Client::connect(relay.addr, 2).await,
        Client::connect(relay.addr, 3).await,
    );
    let (room, peer_a, none) = a.join(&key(100)).await;
    assert_eq!(none, vec![]);
    let (_, peer_b, peers) = b.join(&key(100)).await;
    assert_eq!(peers, vec![Peer { peer: peer_a, device: RelayDevice([1; 16]) }]);
    let b_there = Peer { peer: peer_b, device: RelayDevice([2; 16]) };
    assert_eq!(a.frame().await, ServerFrame::PeerJoined { room, peer: b_there });
    let (_, peer_c, _) = c.join(&key(100)).await;
    for client in [&mut a, &mut b] {
        assert!(matches!(client.frame().await, ServerFrame::PeerJoined { peer, .. } if peer.peer == peer_c));
    }

    let payload = Bytes::from_static(b"to all");
    a.send(ClientFrame::Publish { room, payload: payload.clone() }).await;
    for client in [&mut b, &mut c] {
        assert_eq!(client.frame().await, ServerFrame::Deliver { room, from: peer_a, payload: payload.clone() });
    }
    // What is sent to b alone is the next thing b hears; c hears only the publish that comes after it.
    let (one, all) = (Bytes::from_static(b"to b"), Bytes::from_static(b"after"));
    a.send(ClientFrame::Send { room, to: peer_b, payload: one.clone() }).await;
    a.send(ClientFrame::Publish { room, payload: all.clone() }).await;
    assert_eq!(b.frame().await, ServerFrame::Deliver { room, from: peer_a, payload: one });
    assert_eq!(c.frame().await, ServerFrame::Deliver { room, from: peer_a, payload: all });

    a.send(ClientFrame::Ping { number: 7 }).await;
    assert_eq!(a.frame().await, ServerFrame::Pong { number: 7 });
    c.send(ClientFrame::Leave { room }).await;
    assert_eq!(a.frame().await, ServerFrame::PeerLeft { room, peer: peer_c });
    drop(b);
    assert_eq!(a.frame().await, ServerFrame::PeerLeft { room, peer: peer_b });
}

#[tokio::test]
async fn outsiders_are_told_so_and_nothing_passes() {
    let relay = relay(roomy()).await;
    let (mut a, mut b) = (Client::connect(relay.addr, 1).await, Client::connect(relay.addr, 2).await);
    let (room, peer_a, _) = a.join(&key(100)).await;
    let payload = Bytes::from_static(b"x");
    b.send(ClientFrame::Publish { room, payload: payload.clone() }).await;
    assert_eq!(b.refused().await, Code::NotInRoom);
    b.send(ClientFrame::Send { room, to: peer_a, payload: payload.clone() }).await;
    assert_eq!(b.refused().await, Code::NotInRoom);
    b.send(ClientFrame::Leave { room }).await;
    assert_eq!(b.refused().await, Code::NotInRoom);
    a.send(ClientFrame::Send { room, to: PeerId([9; 16]), payload }).await;
    assert_eq!(a.refused().await, Code::NoSuchPeer);
}

#[tokio::test]
async fn only_the_rooms_key_for_this_very_connection_opens_a_room() {
    let relay = relay(roomy()).await;
    let (mut a, mut b) = (Client::connect(relay.addr, 1).await, Client::connect(relay.addr, 2).await);
    // A proof seen on another connection.
    let stolen = a.join_frame(&key(100));
    b.send(stolen).await;
    assert_eq!(b.refused().await, Code::BadRoomProof);
    // Another key than the room's.
    let ClientFrame::Join { room, .. } = b.join_frame(&key(100)) else { panic!() };
    let ClientFrame::Join { key: other, proof, .. } = b.join_frame(&key(101)) else { panic!() };
    b.send(ClientFrame::Join { room, key: other, proof }).await;
    assert_eq!(b.refused().await, Code::BadRoomProof);
    assert_eq!(relay.watch.figures().rooms, 0);
    // Neither ended the connection.
    b.join(&key(100)).await;
    a.join(&key(100)).await;
}

#[tokio::test]
async fn the_newest_connection_of_a_device_takes_its_place_and_the_others_are_told() {
    let relay = relay(roomy()).await;
    let (mut other, mut old) = (Client::connect(relay.addr, 1).await, Client::connect(relay.addr, 2).await);
    other.join(&key(100)).await;
    let (room, peer_old, _) = old.join(&key(100)).await;
    assert!(matches!(other.frame().await, ServerFrame::PeerJoined { .. }));
    let mut new = Client::connect(relay.addr, 2).await;
    let (_, peer_new, peers) = new.join(&key(100)).await;
    assert_eq!(peers.len(), 1);
    assert_eq!(old.refused().await, Code::Replaced);
    assert_eq!(other.frame().await, ServerFrame::PeerLeft { room, peer: peer_old });
    assert!(matches!(other.frame().await, ServerFrame::PeerJoined { peer, .. } if peer.peer == peer_new));
    old.send(ClientFrame::Publish { room, payload: Bytes::new() }).await;
    assert_eq!(old.refused().await, Code::NotInRoom);
}
