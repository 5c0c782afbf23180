//! Golden vectors: agent/core/vectors, one text file a case.
//!
//! A file has a line `kind NAME`, then `in NAME VALUE` lines, then `out NAME VALUE` lines; values are lower-case
//! hexadecimal, or text. Invalid cases have one line `out error NAME`. `WEFT_WRITE_VECTORS=1` writes them anew.
#![allow(clippy::disallowed_methods, reason = "the vectors are files; the test that reads them is no core")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use weft_protocol::cbor::{from_bytes, to_bytes};
use weft_protocol::frame::PeerId;

use super::script::Cast;
use super::world::{World, author};
use crate::checkpoint::{CHECKPOINT_BYTES_MAX, Checkpoint, Data, Pack, Record};
use crate::content::{DocumentName, Manifest, PieceRef};
use crate::enrol::{Pass, Way, pairing_words};
use crate::envelope::{
    Draft, Kind, SEVERAL_MAX, join_several, open_direct, open_head, seal, seal_direct, split_several, spoken_by,
};
use crate::epoch::{Commitments, Epoch};
use crate::frontier::{Frontier, Tip};
use crate::hash;
use crate::id::{ChainId, ChangeHash, DeviceId, EpochId, Link, OpId, PieceId, RootKey, VersionHash, WorkspaceId};
use crate::identity::{DeviceCert, DeviceKeys, DevicePublic, RecoveryKey, RootSecret, fingerprint};
use crate::invite::InviteSecret;
use crate::invite_link::InviteLink;
use crate::key_packet::{KeyPacket, recipients};
use crate::keyring::Keyring;
use crate::knock::{Admission, Refusal};
use crate::lobby_message::LobbyMessage;
use crate::membership::{OpSet, Role};
use crate::message::Message;
use crate::nack::Nack;
use crate::op::ops;
use crate::op::{ChainPoint, Cut, EpochGrant, Genesis, OpBody, Policy, SignedOp, WrappedSlot};
use crate::piece;
use crate::secret::Secret;

type Fields = BTreeMap<String, String>;

struct Case {
    name: String,
    kind: &'static str,
    inputs: Fields,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn fixed<const N: usize>(inputs: &Fields, name: &str) -> [u8; N] {
    unhex(&inputs[name]).try_into().unwrap()
}

/// One body of every kind, in order; not all lawful.
pub(super) fn bodies(world: &mut World) -> Vec<OpBody> {
    let founder = world.founder.clone();
    let (link, invite) = world.invite(&founder, Role::Writer);
    let joiner = crate::identity::LocalIdentity::generate(&mut world.rng, "Bob", "desk");
    let admission = Admission::make(&world.workspace(), invite, &link.keys().sign, &joiner);
    let phone = DeviceKeys::from_seed(&Secret::new([3; 32]));
    let cert = DeviceCert::by_device(&founder.device, founder.root_public, phone.public());
    let next = Epoch::generate(&world.workspace(), &mut world.rng);
    let back = next.back_link(&world.epoch, &mut world.rng).unwrap();
    let epoch =
        EpochGrant { commitments: *next.commitments(), parents: vec![back], recipients: vec![founder.device.id()] };
    let chain = ChainId { device: joiner.device.id(), incarnation: 2 };
    let cut = Cut::new(vec![ChainPoint { chain, seq: 17, link: Link([6; 32]) }]);
    let slot = crate::key_packet::wrap_slot(&world.epoch, &joiner.device.public().kem, Role::Writer, &mut world.rng);
    let slots = vec![WrappedSlot { epoch: world.epoch.id(), slot: slot.unwrap() }];
    let keys = link.keys();
    let root = joiner.root_public.sign;
    vec![
        OpBody::Device { cert, label: "phone".to_owned() },
        OpBody::Revoke { devices: vec![joiner.device.id()], cut: cut.clone(), epoch: epoch.clone() },
        OpBody::Invite {
            sign: keys.sign.verifying_key().to_bytes(),
            knock: keys.knock.secret().clone(),
            role: Role::Writer,
            expires_wall_ms: 1_800_000_000_000,
            uses: 3,
            approval: true,
            whom: None,
        },
        OpBody::Uninvite { invite },
        OpBody::Welcome { invite, admission, slots },
        OpBody::Role { root, role: Role::Reader, cut: cut.clone(), epoch: Some(epoch.clone()) },
        OpBody::Remove { root, cut: cut.clone(), epoch: epoch.clone() },
        OpBody::Epoch(epoch.clone()),
        OpBody::Endorse { op: OpId([4; 32]) },
        OpBody::ExtendCut { op: OpId([4; 32]), cut: cut.clone() },
        OpBody::Fork { headers: Box::new([vec![1; 300], vec![2; 300]]), cut, epoch },
        OpBody::Attest { identity: "did:web:ada.example".to_owned(), proof: vec![8; 64] },
        OpBody::Leave,
        OpBody::Policy(Policy { approval: true, max_offline_days: 30, relays: vec!["wss://relay.example".to_owned()] }),
    ]
}

/// Histories in which people act at once, by name.
fn sets() -> Vec<(&'static str, OpSet)> {
    let scene = |act: &dyn Fn(&mut Cast)| {
        let mut cast = Cast::new(79, &[Role::Owner, Role::Owner, Role::Admin, Role::Writer]);
        act(&mut cast);
        cast.world.set
    };
    let vote = |cast: &mut Cast, who: u8, on: OpId| {
        let op = ops::endorse(&cast.by(who, vec![on]), on);
        cast.add(op);
    };
    vec![
        ("state-base", scene(&|_| ())),
        (
            "state-removed-admin-backdates",
            scene(&|cast| {
                let base = cast.base();
                cast.remove(0, 3, base.clone());
                cast.remove(3, 4, base);
            }),
        ),
        (
            "state-one-owner-proposes",
            scene(&|cast| {
                cast.remove(0, 1, cast.base());
            }),
        ),
        (
            "state-two-owners-agree",
            scene(&|cast| {
                let removal = cast.remove(0, 1, cast.base());
                vote(cast, 2, removal);
            }),
        ),
        (
            "state-owners-remove-each-other",
            scene(&|cast| {
                for (who, whom, votes) in [(0, 1, 2), (1, 2, 0), (2, 0, 1)] {
                    let removal = cast.remove(who, whom, cast.base());
                    vote(cast, votes, removal);
                }
            }),
        ),
        (
            "state-least-privilege",
            scene(&|cast| {
                cast.promote(0, 4, Role::Reader, cast.base());
                cast.promote(1, 4, Role::Admin, cast.base());
            }),
        ),
        (
            "state-everybody-leaves",
            scene(&|cast| {
                for who in 0..3 {
                    let op = ops::leave(&cast.by(who, cast.base()));
                    cast.add(op);
                }
            }),
        ),
        (
            "state-invite-ends-with-its-issuer",
            scene(&|cast| {
                cast.promote(0, 3, Role::Writer, cast.base());
            }),
        ),
    ]
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |name: &str, kind: &'static str, inputs: &[(&str, String)]| {
        let inputs = inputs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        cases.push(Case { name: name.to_owned(), kind, inputs });
    };
    let mut world = World::found(77);
    let workspace = world.workspace();
    let ws = || hex(&workspace.0);
    let mut rng = ChaCha20Rng::from_seed([78; 32]);

    // Identity.
    let words = RootSecret::from_entropy(&Secret::new([0x7f; 32])).words().to_string();
    case("root-words", "root", &[("words", words.clone())]);
    case("root-unknown-word", "root", &[("words", words.replace("legal", "lethal"))]);
    case("root-checksum", "root", &[("words", words.replacen("legal winner", "winner legal", 1))]);
    case("root-12-words", "root", &[("words", ["zoo "; 11].concat() + "wrong")]);
    case("recovery-key", "recovery", &[("words", words.clone())]);
    case("device-seed", "device", &[("seed", hex(&[2; 32])), ("audience", "relay.example:443".to_owned())]);
    let cert = world.founder.cert.bytes().to_vec();
    case("cert-root", "cert", &[("bytes", hex(&cert))]);
    let mut forged = cert.clone();
    forged[40] ^= 1;
    case("cert-other-root", "cert", &[("bytes", hex(&forged))]);
    let mut forged = cert.clone();
    *forged.last_mut().unwrap() ^= 1;
    case("cert-signature", "cert", &[("bytes", hex(&forged))]);
    case("cert-truncated", "cert", &[("bytes", hex(&cert[..cert.len() - 1]))]);

    // Genesis and ops.
    let genesis = world.set.genesis().bytes().to_vec();
    case("genesis", "genesis", &[("bytes", hex(&genesis))]);
    let mut newer = genesis.clone();
    newer[1] = 1;
    case("genesis-version", "genesis", &[("bytes", hex(&newer))]);
    let mut changed = genesis.clone();
    changed[10] ^= 1;
    case("genesis-nonce", "genesis", &[("bytes", hex(&changed))]);
    let founder = world.founder.clone();
    let bodies = bodies(&mut world);
    let by = author(&world.set, &founder);
    let key = hex(&founder.device.public().sign);
    for body in bodies {
        let op = by.sign(body);
        let kind = op.body().kind();
        let name = format!("op-{kind:02}");
        case(&name, "op", &[("workspace", ws()), ("key", key.clone()), ("bytes", hex(op.bytes()))]);
        let mut bytes = op.bytes().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        let name = format!("op-{kind:02}-signature");
        case(&name, "op", &[("workspace", ws()), ("key", key.clone()), ("bytes", hex(&bytes))]);
        // Another kind's shape.
        let mut bytes = op.bytes().to_vec();
        bytes[36] = (kind % OpBody::KIND_MAX + 1) as u8;
        let name = format!("op-{kind:02}-as-{:02}", bytes[36]);
        case(&name, "op", &[("workspace", ws()), ("key", key.clone()), ("bytes", hex(&bytes))]);
    }
    // An invite for one person has one field more; one more still, or a field of another shape, is none.
    let secret = InviteSecret::new(Secret::new([6; 32]));
    let whom = Some(founder.root_public.sign);
    let invite = ops::invite_for(&by, &secret, Role::Reader, 1_800_000_000_000, 1, false, whom).bytes().to_vec();
    case("op-03-for-one", "op", &[("workspace", ws()), ("key", key.clone()), ("bytes", hex(&invite))]);
    let at = invite.len() - 64 - 34;
    let mut shorter = invite.clone();
    shorter[at] = 0x40;
    case("op-03-for-nobody", "op", &[("workspace", ws()), ("key", key.clone()), ("bytes", hex(&shorter))]);
    let mut forged = invite.clone();
    forged[at + 2] ^= 1;
    case("op-03-for-another", "op", &[("workspace", ws()), ("key", key.clone()), ("bytes", hex(&forged))]);
    let leave = by.sign(OpBody::Leave).bytes().to_vec();
    let op = |bytes: &[u8], workspace: String| [("workspace", workspace), ("key", key.clone()), ("bytes", hex(bytes))];
    case("op-other-workspace", "op", &op(&leave, hex(&[1; 32])));
    case("op-truncated", "op", &op(&leave[..60], ws()));
    let mut newer = leave.clone();
    newer[36] = 15;
    case("op-newer-kind", "op", &op(&newer, ws()));
    let mut trailing = leave.clone();
    let body_end = trailing.len() - 64;
    trailing.insert(body_end, 0);
    case("op-trailing-byte", "op", &op(&trailing, ws()));

    // What sets of ops amount to.
    for (name, set) in sets() {
        let ops: Vec<String> = set.ops().map(|op| hex(op.bytes())).collect();
        case(name, "state", &[("genesis", hex(set.genesis().bytes())), ("ops", ops.join(" "))]);
    }

    // Epochs.
    let mut keeper = world.epoch.secrets().clone();
    case("epoch", "epoch", &[("workspace", ws()), ("stored", hex(&world.epoch.to_bytes()))]);
    keeper.content = None;
    let keeper = Epoch::open(&workspace, keeper, world.epoch.commitments()).unwrap();
    case("epoch-keeper", "epoch", &[("workspace", ws()), ("stored", hex(&keeper.to_bytes()))]);
    let mut wrong = world.epoch.to_bytes().to_vec();
    wrong[3] ^= 1;
    case("epoch-commitment", "epoch", &[("workspace", ws()), ("stored", hex(&wrong))]);
    let next = Epoch::generate(&workspace, &mut rng);
    let link = next.back_link(&world.epoch, &mut rng).unwrap();
    let back = |access: &[u8; 72]| {
        [
            ("workspace", ws()),
            ("child", hex(&next.to_bytes())),
            ("commit-a", hex(&world.epoch.commitments().access)),
            ("commit-c", hex(&world.epoch.commitments().content)),
            ("back-a", hex(access)),
            ("back-c", hex(&link.content)),
        ]
    };
    case("back-link", "back", &back(&link.access));
    let mut wrong = link.access;
    wrong[50] ^= 1;
    case("back-link-changed", "back", &back(&wrong));

    // Key packets.
    let state = crate::membership::evaluate(&world.set);
    let op = world.set.ops().next().unwrap();
    let packet = KeyPacket::make(&world.epoch, &recipients(&state), op, &mut rng).unwrap().to_bytes();
    let fields =
        |kem: &Secret, packet: &[u8]| [("workspace", ws()), ("kem-secret", hex(kem.expose())), ("packet", hex(packet))];
    case("key-packet-device", "packet", &fields(founder.device.kem_secret(), &packet));
    case("key-packet-root", "packet", &fields(founder.root.as_ref().unwrap().kem_secret(), &packet));
    case("key-packet-stranger", "packet", &fields(&Secret::new([9; 32]), &packet));
    let mut changed = packet.to_vec();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    case("key-packet-op-changed", "packet", &fields(founder.device.kem_secret(), &changed));
    case("key-packet-truncated", "packet", &fields(founder.device.kem_secret(), &packet[..last]));

    // Envelopes.
    let kinds = [
        (Kind::Content, "content"),
        (Kind::Ops, "ops"),
        (Kind::Checkpoint, "checkpoint"),
        (Kind::Presence, "presence"),
        (Kind::Beacon, "beacon"),
        (Kind::Query, "query"),
        (Kind::Answer, "answer"),
        (Kind::Enough, "enough"),
        (Kind::Credit, "credit"),
        (Kind::Want, "want"),
        (Kind::Have, "have"),
    ];
    let fields = |bytes: &[u8], stored: &[u8], device: &DevicePublic| {
        [("workspace", ws()), ("epoch", hex(stored)), ("device-sign", hex(&device.sign)), ("envelope", hex(bytes))]
    };
    let mut content = Vec::new();
    for (kind, name) in kinds {
        let stored = kind.class() == crate::envelope::Class::Stored;
        let body: Vec<u8> = (0..400u32).map(|n| (n % 7) as u8).collect();
        let draft = Draft {
            kind,
            epoch: &world.epoch,
            chain: ChainId { device: founder.device.id(), incarnation: 1 },
            seq: u64::from(stored) * 9,
            prev: if stored { Link([4; 32]) } else { Link([0; 32]) },
            op_heads: world.set.heads(),
            body: &body,
            leaf_changes: if kind == Kind::Content { &[ChangeHash([1; 32])] } else { &[] },
        };
        let sealed = seal(draft, &workspace, &founder.device, &mut rng).unwrap().sealed.into_bytes().to_vec();
        let name = format!("envelope-{name}");
        case(&name, "envelope", &fields(&sealed, &world.epoch.to_bytes(), &founder.device.public()));
        if kind == Kind::Content {
            content = sealed;
        }
    }
    // Several of them in one frame.
    let one = bytes::Bytes::from(content.clone());
    let several = join_several(&[one.clone(), one.clone()]).to_vec();
    let mut say = |name: &str, bytes: &[u8]| case(name, "several", &[("bytes", hex(bytes))]);
    say("several", &several);
    say("several-none", &several[..3]);
    say("several-truncated", &several[..several.len() - 1]);
    say("several-trailing-byte", &[&several[..], &[0]].concat());
    say("several-nested", &join_several(&[bytes::Bytes::from(several.clone())]));
    say("several-ephemeral", &join_several(&[bytes::Bytes::from_static(&[0, 1, 1, 0])]));
    say("several-too-many", &join_several(&vec![bytes::Bytes::from_static(&[0, 1, 0]); SEVERAL_MAX + 1]));
    let public = founder.device.public();
    let epoch = world.epoch.to_bytes();
    case("envelope-keeper", "envelope", &fields(&content, &keeper.to_bytes(), &public));
    case("envelope-other-epoch", "envelope", &fields(&content, &next.to_bytes(), &public));
    case(
        "envelope-other-device",
        "envelope",
        &fields(&content, &epoch, &DeviceKeys::from_seed(&Secret::new([5; 32])).public()),
    );
    for (name, at) in [
        ("version", 0),
        ("suite", 1),
        ("class", 2),
        ("tag", 3),
        ("nonce", 8),
        ("commitment", 32),
        ("hlen", 48),
        ("head", 60),
        ("body", 400),
    ] {
        let mut changed = content.clone();
        changed[at] ^= 1;
        case(&format!("envelope-changed-{name}"), "envelope", &fields(&changed, &epoch, &public));
    }
    case("envelope-truncated", "envelope", &fields(&content[..500], &epoch, &public));
    case("envelope-too-short", "envelope", &fields(&content[..20], &epoch, &public));

    // To-device.
    let sealed = seal_direct(&workspace, crate::envelope::DirectKind::Notice, &public.kem, b"why", &mut rng).unwrap();
    let direct =
        |bytes: &[u8], kem: &Secret| [("workspace", ws()), ("kem-secret", hex(kem.expose())), ("bytes", hex(bytes))];
    case("direct-notice", "direct", &direct(sealed.bytes(), founder.device.kem_secret()));
    case("direct-stranger", "direct", &direct(sealed.bytes(), &Secret::new([5; 32])));
    case("direct-length", "direct", &direct(&sealed.bytes()[..511], founder.device.kem_secret()));

    // What a joiner hears, and what is kept of a knock that waits.
    let mut door_rng = ChaCha20Rng::from_seed([80; 32]);
    let joiner = crate::identity::LocalIdentity::generate(&mut door_rng, "Bob", "desk");
    let secret = InviteSecret::new(Secret::new([6; 32]));
    let keys = secret.keys(&workspace);
    let reply = crate::knock::ReplyKey::from_secret(Secret::new([11; 32]));
    let door = InviteLink {
        workspace,
        secret,
        op_heads: vec![OpId([7; 32])],
        inviter: DeviceId([8; 16]),
        urls: Vec::new(),
        name: "notes".to_owned(),
    };
    let fields = |bytes: &[u8], reply: &Secret| {
        [("link", door.to_text()), ("reply-secret", hex(reply.expose())), ("bytes", hex(bytes))]
    };
    for (name, refusal) in
        [("waiting", Refusal::Waiting), ("denied", Refusal::Denied), ("for-another", Refusal::NotForYou)]
    {
        let (id, key) = (door.invite(), reply.public());
        let sealed = crate::knock::make_refusal(&workspace, id, &keys.knock, &key, refusal, &mut door_rng).unwrap();
        case(&format!("refusal-{name}"), "refusal", &fields(sealed.bytes(), reply.secret()));
        if refusal == Refusal::Denied {
            case("refusal-stranger", "refusal", &fields(sealed.bytes(), &Secret::new([12; 32])));
            let mut changed = sealed.bytes().to_vec();
            changed[80] ^= 1;
            case("refusal-changed", "refusal", &fields(&changed, reply.secret()));
        }
    }
    let admission = Admission::make(&workspace, door.invite(), &keys.sign, &joiner);
    let request = crate::knock::JoinRequest {
        admission,
        reply_key: reply.public(),
        first_wall_ms: 1_800_000_000_000,
        last_wall_ms: 1_800_000_060_000,
        denied: true,
    };
    let request = weft_protocol::cbor::to_bytes(&request);
    case("request", "request", &[("bytes", hex(&request))]);
    case("request-truncated", "request", &[("bytes", hex(&request[..request.len() - 1]))]);
    let mut changed = request.clone();
    *changed.last_mut().unwrap() = 0x01;
    case("request-decision", "request", &[("bytes", hex(&changed))]);

    // Lobbies.
    let mut lobby_rng = ChaCha20Rng::from_seed([81; 32]);
    let lobby = world.epoch.lobby();
    let ask = LobbyMessage::Ask { nonce: [13; 16], epoch: world.epoch.id() };
    let keys = LobbyMessage::Keys(bytes::Bytes::from_static(b"a key packet"));
    let fields = |bytes: &[u8], stored: &[u8]| [("workspace", ws()), ("epoch", hex(stored)), ("bytes", hex(bytes))];
    for (name, message) in [("ask", ask), ("keys", keys)] {
        let plain = weft_protocol::cbor::to_bytes(&message);
        let sealed = crate::envelope::seal_lobby(&workspace, &lobby, &plain, &mut lobby_rng).unwrap();
        case(&format!("lobby-{name}"), "lobby", &fields(sealed.bytes(), &world.epoch.to_bytes()));
        case(&format!("lobby-{name}-elsewhere"), "lobby", &fields(sealed.bytes(), &next.to_bytes()));
        let mut longer = plain;
        longer.push(0);
        let sealed = crate::envelope::seal_lobby(&workspace, &lobby, &longer, &mut lobby_rng).unwrap();
        case(&format!("lobby-{name}-trailing-byte"), "lobby", &fields(sealed.bytes(), &world.epoch.to_bytes()));
    }

    // NACKs.
    let nack = Nack::make(&workspace, &founder.device, world.epoch.id(), DeviceId([14; 16]), b"a key packet");
    let fields = |bytes: &[u8]| {
        [("workspace", ws()), ("device-sign", hex(&founder.device.public().sign)), ("bytes", hex(bytes))]
    };
    case("nack", "nack", &fields(nack.bytes()));
    case("nack-truncated", "nack", &fields(&nack.bytes()[..nack.bytes().len() - 1]));
    for (name, at) in [("version", 1), ("epoch", 5), ("signature", nack.bytes().len() - 1)] {
        let mut changed = nack.bytes().to_vec();
        changed[at] ^= 1;
        case(&format!("nack-changed-{name}"), "nack", &fields(&changed));
    }

    // Links.
    let link = InviteLink {
        workspace,
        secret: InviteSecret::new(Secret::new([6; 32])),
        op_heads: vec![OpId([7; 32])],
        inviter: DeviceId([8; 16]),
        urls: vec!["wss://relay.example".to_owned(), "ws://192.168.1.5:4433".to_owned()],
        name: "notes".to_owned(),
    };
    let text = link.to_text();
    case("link", "link", &[("text", text.clone())]);
    // As it was made before there were length and checksum.
    let unchecked = URL_SAFE_NO_PAD.encode([&[1][..], &to_bytes(&link)].concat());
    case("link-unchecked", "link", &[("text", format!("weft:{unchecked}"))]);
    let wrapped: Vec<&str> = text.as_bytes().chunks(50).map(|line| std::str::from_utf8(line).unwrap()).collect();
    case("link-wrapped", "link", &[("text", format!("> <{}>.", wrapped.join(" > ")))]);
    let wrong = text.len() - 9;
    let mistyped =
        format!("{}{}{}", &text[..wrong], if &text[wrong..=wrong] == "x" { "y" } else { "x" }, &text[wrong + 1..]);
    case("link-mistyped", "link", &[("text", mistyped)]);
    case("link-cut-short", "link", &[("text", text[..text.len() - 3].to_owned())]);
    case("link-scheme", "link", &[("text", text.replace("weft:", "http:"))]);
    case("link-newer", "link", &[("text", text.replace("weft:A", "weft:B"))]);
    case("link-padded", "link", &[("text", format!("{text}="))]);
    case("link-no-ops", "link", &[("text", InviteLink { op_heads: vec![], ..link.clone() }.to_text())]);
    let many = vec![OpId([7; 32]); 9];
    case("link-nine-ops", "link", &[("text", InviteLink { op_heads: many, ..link.clone() }.to_text())]);
    let control = InviteLink { name: "a\u{7}b".to_owned(), ..link.clone() };
    case("link-control-character", "link", &[("text", control.to_text())]);
    case("link-url-space", "link", &[("text", InviteLink { urls: vec!["ws://a b".to_owned()], ..link }.to_text())]);

    // Passes.
    let pass = Pass {
        way: Way::Device,
        workspace,
        secret: Secret::new([6; 32]),
        op_heads: vec![OpId([7; 32])],
        root: RootKey([8; 32]),
        urls: vec!["wss://relay.example".to_owned()],
        name: "notes".to_owned(),
    };
    let text = pass.to_text();
    let other = Pass { way: Way::Words, ..pass.clone() };
    case("pass-device", "pass", &[("text", text.clone())]);
    case("pass-words", "pass", &[("text", other.to_text())]);
    case("pass-cut-short", "pass", &[("text", text[..text.len() - 3].to_owned())]);
    case("pass-as-link", "pass", &[("text", text.replace("weft-pass:", "weft:"))]);
    case("pass-newer", "pass", &[("text", text.replace("weft-pass:A", "weft-pass:B"))]);
    case("pass-no-ops", "pass", &[("text", Pass { op_heads: vec![], ..pass }.to_text())]);

    // Pieces.
    let (reference, sealed) = piece::seal_piece(&[9; 1000], &mut rng).unwrap();
    let fields = |reference: &PieceRef, bytes: &[u8]| {
        [
            ("id", hex(&reference.id.0)),
            ("key", hex(&reference.key)),
            ("len", reference.len.to_string()),
            ("sealed", hex(bytes)),
        ]
    };
    case("piece", "piece", &fields(&reference, sealed.bytes()));
    case("piece-length", "piece", &fields(&PieceRef { len: 999, ..reference.clone() }, sealed.bytes()));
    case("piece-key", "piece", &fields(&PieceRef { key: [0; 32], ..reference.clone() }, sealed.bytes()));
    let mut changed = sealed.bytes().to_vec();
    changed[100] ^= 1;
    case("piece-changed", "piece", &fields(&reference, &changed));
    let id = piece::piece_id(&changed);
    case("piece-changed-with-id", "piece", &fields(&PieceRef { id, ..reference }, &changed));
    checkpoint_cases(&mut case);
    let mut offer_rng = ChaCha20Rng::from_seed([82; 32]);
    let offer = Draft {
        kind: Kind::Offer,
        epoch: &world.epoch,
        chain: ChainId { device: founder.device.id(), incarnation: 1 },
        seq: 0,
        prev: spoken_by(PeerId([9; 16])),
        op_heads: world.set.heads(),
        body: &Message::Offer(bytes::Bytes::from_static(b"a checkpoint's envelope")).to_body(),
        leaf_changes: &[],
    };
    let offer = seal(offer, &workspace, &founder.device, &mut offer_rng).unwrap().sealed.into_bytes();
    let fields =
        [("workspace", ws()), ("epoch", hex(&epoch)), ("device-sign", hex(&public.sign)), ("envelope", hex(&offer))];
    case("envelope-offer", "envelope", &fields);
    case("chunks", "chunks", &[("workspace", ws()), ("seed", "weft".to_owned()), ("len", "1500000".to_owned())]);
    cases
}

/// Takes a case: its name, its kind, its inputs.
type Say<'a> = dyn FnMut(&str, &'static str, &[(&'static str, String)]) + 'a;

/// What a checkpoint's envelope says, what its pieces hold, and how it is offered; and what is refused.
fn checkpoint_cases(case: &mut Say<'_>) {
    let mut frontier = Frontier::default();
    let chain = ChainId { device: DeviceId([8; 16]), incarnation: 1 };
    frontier.advance(chain, Tip { seq: 2_000, link: Link([7; 32]) });
    let piece = PieceRef { id: PieceId([5; 32]), len: 1_000, key: [6; 32] };
    let manifest = Manifest { len: 1_000, depth: 0, pieces: vec![piece] };
    let whole = Checkpoint { frontier, manifest: manifest.clone() };
    let bytes = to_bytes(&whole);
    let mut say = |name: &str, kind, bytes: &[u8]| case(name, kind, &[("bytes", hex(bytes))]);
    say("checkpoint", "checkpoint", &bytes);
    say("checkpoint-truncated", "checkpoint", &bytes[..bytes.len() - 1]);
    say("checkpoint-trailing-byte", "checkpoint", &[&bytes[..], &[0]].concat());
    let mut changed = bytes.clone();
    let at = bytes.windows(32).position(|part| part == whole.frontier.digest()).unwrap();
    changed[at] ^= 1;
    say("checkpoint-digest", "checkpoint", &changed);
    let lies = [
        ("checkpoint-length", Manifest { len: 1_001, ..manifest.clone() }),
        ("checkpoint-too-large", Manifest { len: CHECKPOINT_BYTES_MAX + 1, depth: 1, ..manifest.clone() }),
    ];
    for (name, manifest) in lies {
        say(name, "checkpoint", &to_bytes(&Checkpoint { manifest, ..whole.clone() }));
    }
    let data = |data: &'static [u8]| Data::Here(bytes::Bytes::from_static(data));
    let version = Record::Version { hash: VersionHash([1; 32]), data: data(b"\x00\x00\x00\x00\x03abc") };
    let blob = Record::Blob { hash: VersionHash([2; 32]), manifest };
    let document =
        |name: &str, version, data| Record::Document { name: DocumentName::new(name).unwrap(), version, data };
    let tree = document("tree:00:entries", None, data(b"\x00\x00\x00\x00\x03def"));
    let text = "file:03030303030303030303030303030303:text-0404040404040404";
    let text = document(text, Some(VersionHash([4; 32])), Data::Following(2));
    let pack = Pack { records: vec![version, blob, tree, text.clone()] };
    let bytes = to_bytes(&pack);
    say("pack", "pack", &bytes);
    say("pack-truncated", "pack", &bytes[..bytes.len() - 1]);
    say("pack-following-early", "pack", &to_bytes(&Pack { records: vec![text.clone(), text] }));
    let offer = Message::Offer(bytes::Bytes::from_static(b"a checkpoint's envelope")).to_body();
    say("offer", "offer", &offer);
    say("offer-trailing-byte", "offer", &[&offer[..], &[0]].concat());
    say("offer-of-two", "offer", &[&[0x82], &offer[1..], &[0x40]].concat());
    say("offer-no-bytes", "offer", &[0x81, 0x61, 0x61]);
}

/// The name of an error: its variant, without what it holds.
fn error(error: impl core::fmt::Debug) -> Fields {
    let text = format!("{error:?}");
    let name = text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default().to_owned();
    Fields::from([("error".to_owned(), name)])
}

fn outcome(kind: &str, inputs: &Fields) -> Fields {
    let mut out = Fields::new();
    let mut say = |name: &str, value: String| out.insert(name.to_owned(), value);
    let workspace = inputs.get("workspace").map(|_| WorkspaceId(fixed(inputs, "workspace")));
    let bytes = |name: &str| unhex(&inputs[name]);
    match kind {
        "root" => match RootSecret::from_words(&inputs["words"]) {
            Ok(root) => {
                say("sign", root.public().sign.to_string());
                say("kem", hex(&root.public().kem));
                say("fingerprint", fingerprint(&root.public().sign));
            }
            Err(wrong) => return error(wrong),
        },
        "recovery" => match RecoveryKey::from_words(&inputs["words"]) {
            Ok(key) => {
                say("sign", hex(&key.public()));
            }
            Err(wrong) => return error(wrong),
        },
        "pass" => match Pass::parse(&inputs["text"]) {
            Ok(pass) => {
                let (door, device) = (pass.door(), DeviceKeys::from_seed(&Secret::new([2; 32])));
                say("way", if pass.way == Way::Device { "device".to_owned() } else { "words".to_owned() });
                say("workspace", pass.workspace.to_string());
                say("op", pass.op_heads.first().map(ToString::to_string).unwrap_or_default());
                say("root", pass.root.to_string());
                say("name", pass.name.clone());
                say("urls", pass.urls.join(" "));
                say("psk", hex(door.psk.expose()));
                say("kem", hex(&crate::wrap::kem_public(&door.kem)));
                say("room", door.room.id.to_string());
                // Of the device whose seed is 32 times 02.
                say("pairing-words", pairing_words(&door, &device.public()));
            }
            Err(wrong) => return error(wrong),
        },
        "device" => {
            let device = DeviceKeys::from_seed(&Secret::new(fixed(inputs, "seed")));
            say("sign", hex(&device.public().sign));
            say("kem", hex(&device.public().kem));
            say("id", device.id().to_string());
            say("pseudonym", hex(&device.relay_pseudonym(&inputs["audience"]).verifying_key().to_bytes()));
            say("relay-device", device.relay_device(&inputs["audience"]).to_string());
        }
        "cert" => match DeviceCert::parse(&bytes("bytes")) {
            Ok(cert) => {
                say("root", cert.root().sign.to_string());
                say("device", cert.device().id().to_string());
            }
            Err(wrong) => return error(wrong),
        },
        "genesis" => match Genesis::parse(&bytes("bytes")) {
            Ok(genesis) => {
                say("workspace", genesis.workspace().to_string());
                say("name", genesis.workspace_name().to_owned());
                say("device", genesis.cert().device().id().to_string());
            }
            Err(wrong) => return error(wrong),
        },
        "op" => match SignedOp::parse(&workspace.unwrap(), &bytes("bytes")) {
            Ok(op) => {
                if let Err(wrong) = op.verify(&fixed(inputs, "key")) {
                    return error(wrong);
                }
                say("id", op.id().to_string());
                say("kind", op.body().kind().to_string());
            }
            Err(wrong) => return error(wrong),
        },
        "state" => {
            let genesis = Genesis::parse(&bytes("genesis")).unwrap();
            let mut set = OpSet::new(genesis);
            for op in inputs["ops"].split(' ') {
                set.insert(SignedOp::parse(&set.workspace(), &unhex(op)).unwrap()).unwrap();
            }
            let state = crate::membership::evaluate(&set);
            let ids = |ids: &mut dyn Iterator<Item = String>| ids.collect::<Vec<_>>().join(" ");
            let member = |(root, member): (_, &std::sync::Arc<crate::membership::Member>)| {
                format!("{root}={}", crate::workspace::role_name(member.role))
            };
            say("members", ids(&mut state.members.iter().map(member)));
            say("devices", ids(&mut state.active_devices().map(|(id, _)| id.to_string())));
            say("former", ids(&mut state.former.keys().map(ToString::to_string)));
            say(
                "open-invites",
                ids(&mut state.invites.iter().filter(|(_, invite)| invite.open).map(|(id, _)| id.to_string())),
            );
            say("proposals", ids(&mut state.proposals.keys().map(ToString::to_string)));
            say("sealing-epoch", state.sealing_epoch().map_or_else(|| "none".to_owned(), |id| id.to_string()));
            say("heads", ids(&mut state.heads.iter().map(ToString::to_string)));
        }
        "epoch" => match Epoch::from_bytes(&workspace.unwrap(), &bytes("stored")) {
            Ok(epoch) => {
                say("id", epoch.id().to_string());
                say("room", epoch.room().id.to_string());
                say("room-key", hex(&epoch.room().public()));
                say("lobby-room", epoch.lobby().room.id.to_string());
                say("door", hex(epoch.door().expose()));
                say("lobby-seal", hex(epoch.lobby().seal.expose()));
                say("tag-of-zeros", hex(&epoch.tag(&[0; 24])));
                say("head-key-of-zeros", hex(hash::message_key(&epoch.keys.head, &[0; 24]).0.expose()));
                say("ops-key-of-zeros", hex(hash::message_key(&epoch.keys.ops, &[0; 24]).0.expose()));
                say("leaf-of-ones", epoch.leaf(&[ChangeHash([1; 32])]).map_or_else(String::new, |leaf| hex(&leaf)));
            }
            Err(wrong) => return error(wrong),
        },
        "back" => {
            let workspace = workspace.unwrap();
            let child = Epoch::from_bytes(&workspace, &bytes("child")).unwrap();
            let parent = Commitments { access: fixed(inputs, "commit-a"), content: fixed(inputs, "commit-c") };
            let link = crate::epoch::BackLink {
                parent: parent.id(&workspace),
                access: fixed(inputs, "back-a"),
                content: fixed(inputs, "back-c"),
            };
            match child.open_back_link(&link, &parent) {
                Ok(epoch) => say("stored", hex(&epoch.to_bytes())),
                Err(wrong) => return error(wrong),
            };
        }
        "packet" => {
            let opened = KeyPacket::parse(&bytes("packet"))
                .and_then(|packet| packet.open(&workspace.unwrap(), &[&Secret::new(fixed(inputs, "kem-secret"))]));
            match opened {
                Ok(opened) => {
                    say("stored", hex(&opened.epoch.to_bytes()));
                    say("op", opened.op.id().to_string());
                }
                Err(wrong) => return error(wrong),
            }
        }
        "envelope" => {
            let workspace = workspace.unwrap();
            let mut keyring = Keyring::new();
            keyring.insert(Epoch::from_bytes(&workspace, &bytes("epoch")).unwrap());
            let device = DevicePublic { sign: fixed(inputs, "device-sign"), kem: [0; 32] };
            let head = open_head(&workspace, &keyring, &bytes("envelope")).and_then(|head| head.verify(&device));
            match head.and_then(|head| Ok((head.open_body(&keyring, &bytes("envelope"))?, head))) {
                Ok((body, head)) => {
                    let header = head.header();
                    say("kind", header.kind.to_byte().to_string());
                    say("epoch", header.epoch.to_string());
                    say("seq", header.seq.to_string());
                    say("prev", header.prev.to_string());
                    say("leaf", hex(&header.leaf));
                    say("link", head.link().to_string());
                    say("body", hex(&body));
                }
                Err(wrong) => return error(wrong),
            }
        }
        "several" => match split_several(&bytes("bytes")) {
            Ok(envelopes) => {
                say("count", envelopes.len().to_string());
                let lens: Vec<String> = envelopes.iter().map(|envelope| envelope.len().to_string()).collect();
                say("lens", lens.join(" "));
            }
            Err(wrong) => return error(wrong),
        },
        "direct" => {
            let secret = Secret::new(fixed(inputs, "kem-secret"));
            match open_direct(&workspace.unwrap(), &secret, &bytes("bytes")) {
                Ok((kind, message)) => {
                    say("kind", (kind as u8).to_string());
                    say("message", hex(&message));
                }
                Err(wrong) => return error(wrong),
            }
        }
        "link" => match InviteLink::parse(&inputs["text"]) {
            Ok(link) => {
                say("workspace", link.workspace.to_string());
                say("invite", link.invite().to_string());
                say("inviter", link.inviter.to_string());
                say("name", link.name.clone());
                say("urls", link.urls.join(" "));
                say("sign", hex(&link.keys().sign.verifying_key().to_bytes()));
                say("psk", hex(link.keys().knock.psk.expose()));
                say("kem", hex(&crate::wrap::kem_public(&link.keys().knock.kem)));
                say("room", link.keys().knock.room.id.to_string());
            }
            Err(wrong) => return error(wrong),
        },
        "lobby" => {
            let workspace = workspace.unwrap();
            let lobby = Epoch::from_bytes(&workspace, &bytes("epoch")).unwrap().lobby();
            match crate::envelope::open_lobby(&workspace, &lobby, &bytes("bytes")) {
                None => drop(say("says", "not of this lobby".to_owned())),
                Some(plain) => match weft_protocol::cbor::from_bytes(&plain) {
                    Ok(LobbyMessage::Ask { nonce, epoch }) => {
                        say("nonce", hex(&nonce));
                        say("states", epoch.to_string());
                    }
                    Ok(LobbyMessage::Keys(packet)) => drop(say("packet", hex(&packet))),
                    Err(wrong) => return error(wrong),
                },
            }
        }
        "nack" => match Nack::parse(&bytes("bytes")) {
            Ok(nack) => {
                if let Err(wrong) = nack.verify(&workspace.unwrap(), &fixed(inputs, "device-sign")) {
                    return error(wrong);
                }
                say("epoch", nack.epoch().to_string());
                say("device", nack.device().to_string());
                say("from", nack.from().to_string());
                say("packet", hex(nack.packet()));
            }
            Err(wrong) => return error(wrong),
        },
        "refusal" => {
            let link = InviteLink::parse(&inputs["link"]).unwrap();
            let reply = crate::knock::ReplyKey::from_secret(Secret::new(fixed(inputs, "reply-secret")));
            let said = crate::knock::open_refusal(&link, &reply, &bytes("bytes"));
            say("says", said.map_or_else(|| "nothing".to_owned(), |refusal| format!("{refusal:?}")));
        }
        "request" => match weft_protocol::cbor::from_bytes::<crate::knock::JoinRequest>(&bytes("bytes")) {
            Ok(request) => {
                say("device", request.device().to_string());
                say("invite", request.admission.invite().to_string());
                say("name", request.admission.name().to_owned());
                say("first", request.first_wall_ms.to_string());
                say("denied", request.denied.to_string());
            }
            Err(wrong) => return error(wrong),
        },
        "piece" => {
            let len = inputs["len"].parse().unwrap();
            let reference = PieceRef { id: PieceId(fixed(inputs, "id")), len, key: fixed(inputs, "key") };
            match piece::open_piece(&reference, &bytes("sealed")) {
                Ok(plain) => say("plain", hex(&plain)),
                Err(wrong) => return error(wrong),
            };
        }
        "checkpoint" => match from_bytes::<Checkpoint>(&bytes("bytes")) {
            Ok(checkpoint) => {
                say("digest", hex(&checkpoint.frontier.digest()));
                say("chains", checkpoint.frontier.len().to_string());
                say("len", checkpoint.manifest.len.to_string());
                say("pieces", checkpoint.manifest.pieces.len().to_string());
            }
            Err(wrong) => return error(wrong),
        },
        "pack" => match from_bytes::<Pack>(&bytes("bytes")) {
            Ok(pack) => {
                say("records", pack.records.len().to_string());
                say("following", pack.following().to_string());
            }
            Err(wrong) => return error(wrong),
        },
        "offer" => match Message::from_body(Kind::Offer.to_byte(), &bytes("bytes")) {
            Some(Ok(Message::Offer(envelope))) => drop(say("envelope", hex(&envelope))),
            Some(Err(wrong)) => return error(wrong),
            other => panic!("{other:?}"),
        },
        "chunks" => {
            let mut content = vec![0; inputs["len"].parse().unwrap()];
            blake3::Hasher::new().update(inputs["seed"].as_bytes()).finalize_xof().fill(&mut content);
            let chunker = piece::Chunker::new(&workspace.unwrap());
            let lens: Vec<String> = chunker.pieces(&content).map(|piece| piece.len().to_string()).collect();
            say("lens", lens.join(" "));
        }
        other => panic!("unknown kind {other}"),
    }
    out
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn print(kind: &str, inputs: &Fields, outputs: &Fields) -> String {
    let mut text = format!("kind {kind}\n");
    for (word, fields) in [("in", inputs), ("out", outputs)] {
        for (name, value) in fields {
            text.push_str(&format!("{word} {name} {value}\n"));
        }
    }
    text
}

/// Every file's inputs give its outputs, and every case this program can make has its file.
#[test]
fn the_golden_vectors_hold() {
    if std::env::var_os("WEFT_WRITE_VECTORS").is_some() {
        std::fs::create_dir_all(folder()).unwrap();
        for case in cases() {
            let text = print(case.kind, &case.inputs, &outcome(case.kind, &case.inputs));
            std::fs::write(folder().join(format!("{}.txt", case.name)), text).unwrap();
        }
    }
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let (mut kind, mut inputs, mut outputs) = (String::new(), Fields::new(), Fields::new());
        for line in text.lines() {
            let (word, rest) = line.split_once(' ').unwrap();
            let (field, value) = rest.split_once(' ').unwrap_or((rest, ""));
            match word {
                "kind" => kind = rest.to_owned(),
                "in" => drop(inputs.insert(field.to_owned(), value.to_owned())),
                "out" => drop(outputs.insert(field.to_owned(), value.to_owned())),
                other => panic!("{name}: {other}"),
            }
        }
        assert_eq!(outcome(&kind, &inputs), outputs, "{name}");
        names.insert(name);
    }
    let made: BTreeSet<String> = cases().iter().map(|case| case.name.clone()).collect();
    assert_eq!(made, names);
    // What is made now is byte for byte what was made then.
    for case in cases() {
        let text = std::fs::read_to_string(folder().join(format!("{}.txt", case.name))).unwrap();
        assert!(text.starts_with(&print(case.kind, &case.inputs, &Fields::new())), "{}", case.name);
    }
}

/// One pair of secrets is another epoch in another workspace.
#[test]
fn ids_of_other_workspaces_differ() {
    let one = Commitments { access: [1; 32], content: [2; 32] };
    let ids: BTreeSet<EpochId> = [[1; 32], [2; 32]].iter().map(|ws| one.id(&WorkspaceId(*ws))).collect();
    assert_eq!(ids.len(), 2);
}
