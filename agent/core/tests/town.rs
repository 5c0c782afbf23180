//! A few workspaces, one relay that forwards, folders in memory: the least that a workspace machine can live in.
//!
//! Not the simulator: no faults, no delays. What fails here fails everywhere.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    reason = "a harness of a test: what it does not expect shall fail the test"
)]

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use weft_agent_core::content::INLINE_BYTES_MAX;
use weft_agent_core::disk::{Expect, FileBytes, FolderAction, Found, NewContent, Outcome, RelPath, Seen, Stat};
use weft_agent_core::identity::{DeviceCert, LocalIdentity};
use weft_agent_core::invite_link::InviteLink;
use weft_agent_core::membership::Role;
use weft_agent_core::setup::{Setup, Watermark};
use weft_agent_core::store::{MemoryStore, Table};
use weft_agent_core::time::Timestamp;
use weft_agent_core::workspace::Workspace;
use weft_agent_core::workspace::command::{Command, InviteTerms, Reply, RequestId, Status};
use weft_agent_core::workspace::input::{Input, LinkId, LinkKind, LinkUp};
use weft_agent_core::workspace::output::Output;
use weft_protocol::frame::{ClientFrame, Peer, PeerId, ServerFrame};
use weft_protocol::id::{ConnectionKey, RelayDevice, RoomId};

#[path = "town/blob.rs"]
mod blob;
#[path = "town/enrol.rs"]
mod enrol;

struct Host {
    machine: Workspace,
    store: MemoryStore,
    folder: BTreeMap<String, Bytes>,
    inputs: VecDeque<Input>,
    replies: BTreeMap<RequestId, Reply>,
    watermark: Watermark,
    enrolled: Option<(DeviceCert, String)>,
    online: bool,
}

struct Town {
    now: Timestamp,
    hosts: Vec<Host>,
    rooms: BTreeMap<RoomId, Vec<usize>>,
    requests: u64,
    seed: u8,
    /// What was sent to one peer: from whom, to whom, how many bytes.
    sent: Vec<(usize, usize, usize)>,
    /// Whom the relay shows to the others, and forwards nothing to or from.
    cut: Option<usize>,
    /// Whether the relay loses all pieces of large files.
    loses_pieces: bool,
    /// What was cut, and how.
    made: Vec<(Bytes, weft_agent_core::content::Manifest)>,
}

fn identity(seed: u8) -> LocalIdentity {
    LocalIdentity::generate(&mut ChaCha20Rng::from_seed([seed; 32]), &format!("member-{seed}"), &format!("box-{seed}"))
}

fn peer_id(host: usize) -> PeerId {
    PeerId([host as u8; 16])
}

impl Town {
    fn new() -> Self {
        let now = Timestamp { mono_ms: 1_000, wall_ms: 1_700_000_000_000 };
        Self {
            now,
            hosts: Vec::new(),
            rooms: BTreeMap::new(),
            requests: 0,
            seed: 1,
            sent: Vec::new(),
            cut: None,
            loses_pieces: false,
            made: Vec::new(),
        }
    }

    fn setup(&mut self) -> Setup {
        self.seed += 1;
        Setup { identity: identity(self.seed), seed: [self.seed; 32], watermark: Watermark::default() }
    }

    fn add(&mut self, machine: Workspace) -> usize {
        self.hosts.push(Host {
            machine,
            store: MemoryStore::default(),
            folder: BTreeMap::new(),
            inputs: VecDeque::new(),
            replies: BTreeMap::new(),
            watermark: Watermark::default(),
            enrolled: None,
            online: false,
        });
        let host = self.hosts.len() - 1;
        self.drain(host);
        self.connect(host);
        self.hosts[host].inputs.push_back(Input::Scanned { complete: true });
        host
    }

    fn found(&mut self) -> usize {
        let setup = self.setup();
        let machine = Workspace::create(setup, self.now, "notes", vec!["ws://relay:1".into()]).unwrap();
        self.add(machine)
    }

    fn join(&mut self, link: &str) -> usize {
        let setup = self.setup();
        let machine = Workspace::join(setup, self.now, &InviteLink::parse(link).unwrap());
        self.add(machine)
    }

    fn connect(&mut self, host: usize) {
        self.hosts[host].online = true;
        self.hosts[host].inputs.push_back(Input::LinkUp(LinkUp {
            link: LinkId(1),
            kind: LinkKind::Relay,
            url: "ws://relay:1".into(),
            audience: "relay:1".into(),
            connection: ConnectionKey([host as u8; 32]),
            nonce: [host as u8; 32],
            queue_bytes: 4 << 20,
            frame_bytes_max: 1 << 20,
        }));
    }

    fn disconnect(&mut self, host: usize) {
        self.hosts[host].online = false;
        self.hosts[host].inputs.push_back(Input::LinkDown { link: LinkId(1) });
        let rooms: Vec<RoomId> = self.rooms.keys().copied().collect();
        for room in rooms {
            self.leave(host, room);
        }
    }

    fn leave(&mut self, host: usize, room: RoomId) {
        let members = self.rooms.entry(room).or_default();
        if members.contains(&host) {
            members.retain(|member| *member != host);
            for member in members.clone() {
                self.frame(member, ServerFrame::PeerLeft { room, peer: peer_id(host) });
            }
        }
    }

    fn frame(&mut self, host: usize, frame: ServerFrame) {
        if let ServerFrame::Deliver { from, .. } = &frame
            && self.cut.is_some_and(|cut| host == cut || *from == peer_id(cut))
        {
            return;
        }
        self.hosts[host].inputs.push_back(Input::Frame { link: LinkId(1), frame });
    }

    fn client(&mut self, host: usize, frame: ClientFrame) {
        if !self.hosts[host].online {
            return;
        }
        match frame {
            ClientFrame::Join { room, .. } => {
                let members = self.rooms.entry(room).or_default().clone();
                let peers = members
                    .iter()
                    .map(|member| Peer { peer: peer_id(*member), device: RelayDevice([*member as u8; 16]) })
                    .collect();
                for member in &members {
                    let peer = Peer { peer: peer_id(host), device: RelayDevice([host as u8; 16]) };
                    self.frame(*member, ServerFrame::PeerJoined { room, peer });
                }
                self.rooms.entry(room).or_default().push(host);
                self.frame(host, ServerFrame::Joined { room, you: peer_id(host), peers });
            }
            ClientFrame::Leave { room } => self.leave(host, room),
            ClientFrame::Publish { room, payload } => {
                for member in self.rooms.entry(room).or_default().clone() {
                    if member != host {
                        let payload = payload.clone();
                        self.frame(member, ServerFrame::Deliver { room, from: peer_id(host), payload });
                    }
                }
            }
            ClientFrame::Send { room, to, payload } => {
                let to = to.0[0] as usize;
                self.sent.push((host, to, payload.len()));
                if self.loses_pieces && blob::is_piece(&payload) {
                    return;
                }
                self.frame(to, ServerFrame::Deliver { room, from: peer_id(host), payload });
            }
            _ => {}
        }
    }

    fn drain(&mut self, host: usize) {
        while let Some(output) = self.hosts[host].machine.poll_output() {
            match output {
                Output::Persist { token, batch } => {
                    self.hosts[host].store.apply(&batch);
                    self.hosts[host].inputs.push_back(Input::Persisted(token));
                }
                Output::Send { frame, .. } => {
                    self.client(host, frame);
                    self.hosts[host].inputs.push_back(Input::LinkDrained { link: LinkId(1), queued_bytes: 0 });
                }
                Output::Act(action, what) => {
                    let outcome = self.act(host, what);
                    self.hosts[host].inputs.push_back(Input::Acted { action, outcome });
                }
                Output::Watermark { incarnation, seq } => {
                    self.hosts[host].watermark = Watermark { incarnation, seq };
                }
                Output::Enrolled { cert, name } => self.hosts[host].enrolled = Some((cert, name)),
                Output::Reply(request, reply) => {
                    self.hosts[host].replies.insert(request, reply);
                }
                Output::Look(paths) => {
                    let all = paths.is_empty();
                    let paths: Vec<String> = if all {
                        self.hosts[host].folder.keys().cloned().collect()
                    } else {
                        paths.iter().map(|path| path.as_str().to_owned()).collect()
                    };
                    let seen = paths.iter().map(|path| self.look(host, path)).collect();
                    self.hosts[host].inputs.push_back(Input::Seen(seen));
                    if all {
                        self.hosts[host].inputs.push_back(Input::Scanned { complete: true });
                    }
                }
                _ => {}
            }
        }
    }

    fn look(&mut self, host: usize, path: &str) -> Seen {
        let large = self.hosts[host].folder.get(path).filter(|bytes| bytes.len() > INLINE_BYTES_MAX).cloned();
        if let Some(bytes) = large {
            return self.look_at_large(host, path, &bytes);
        }
        let folder = &self.hosts[host].folder;
        let below = format!("{path}/");
        let found = match folder.get(path) {
            Some(bytes) => Found::File {
                bytes: FileBytes::Here(bytes.clone()),
                executable: false,
                stat: Stat { size: bytes.len() as u64, ..Stat::default() },
            },
            None if folder.keys().any(|name| name.starts_with(&below)) => Found::Folder,
            None => Found::Absent,
        };
        Seen::new(RelPath::new(path).unwrap(), found)
    }

    fn matches(&mut self, host: usize, path: &RelPath, expect: &Expect) -> bool {
        let workspace = self.hosts[host].machine.id();
        match (self.look(host, path.as_str()).found, expect) {
            (Found::Absent, Expect::Absent) | (Found::Folder, Expect::Folder) => true,
            (Found::File { bytes: FileBytes::Here(bytes), .. }, Expect::File(hash)) => {
                weft_agent_core::files::version_hash(&workspace, &bytes) == *hash
            }
            (Found::File { bytes: FileBytes::Blob { hash: found, .. }, .. }, Expect::File(hash)) => found == *hash,
            _ => false,
        }
    }

    fn act(&mut self, host: usize, action: FolderAction) -> Outcome {
        match action {
            FolderAction::Write {
                path,
                expect,
                content: content @ (NewContent::Bytes(_) | NewContent::Blob(_)),
                ..
            } => {
                if !self.matches(host, &path, &expect) {
                    return Outcome::Differs(self.look(host, path.as_str()));
                }
                let bytes = self.bytes_of(host, &content);
                let size = bytes.len() as u64;
                self.hosts[host].folder.insert(path.as_str().into(), bytes);
                Outcome::Done(Stat { size, ..Stat::default() })
            }
            FolderAction::Remove { path, expect, .. } => {
                if !self.matches(host, &path, &expect) && expect != Expect::Folder {
                    return Outcome::Differs(self.look(host, path.as_str()));
                }
                self.hosts[host].folder.remove(path.as_str());
                Outcome::Done(Stat::default())
            }
            FolderAction::Move { from, to, expect } => {
                if !self.matches(host, &from, &expect) {
                    return Outcome::Differs(self.look(host, from.as_str()));
                }
                if let Some(bytes) = self.hosts[host].folder.remove(from.as_str()) {
                    self.hosts[host].folder.insert(to.as_str().into(), bytes);
                }
                Outcome::Done(Stat::default())
            }
            _ => Outcome::Done(Stat::default()),
        }
    }

    fn step(&mut self, host: usize) -> bool {
        let Some(input) = self.hosts[host].inputs.pop_front() else { return false };
        let Host { machine, store, .. } = &mut self.hosts[host];
        machine.handle(self.now, input, store);
        self.drain(host);
        true
    }

    /// Runs everything that is due, then jumps to the next deadline, until `until` ms from now have passed.
    fn run(&mut self, ms: u64) {
        let end = self.now.mono_ms + ms;
        loop {
            let mut steps = 0;
            while (0..self.hosts.len()).any(|host| self.step(host)) {
                steps += 1;
                assert!(steps < 200_000, "never quiet at {:?}", self.now);
            }
            let next = self.hosts.iter().filter_map(|host| host.machine.poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            let jump = next.saturating_sub(self.now.mono_ms);
            self.now.mono_ms += jump;
            self.now.wall_ms += jump;
            for host in 0..self.hosts.len() {
                if self.hosts[host].machine.poll_timeout().is_some_and(|at| at <= self.now.mono_ms) {
                    self.hosts[host].inputs.push_back(Input::Wake);
                }
            }
        }
        let rest = end - self.now.mono_ms;
        self.now.mono_ms += rest;
        self.now.wall_ms += rest;
    }

    fn command(&mut self, host: usize, command: Command) -> Reply {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.hosts[host].inputs.push_back(Input::Command(request, command));
        self.run(1);
        for _ in 0..100 {
            if let Some(reply) = self.hosts[host].replies.remove(&request) {
                return reply;
            }
            self.run(100);
        }
        panic!("no reply");
    }

    fn status(&mut self, host: usize) -> Status {
        match self.command(host, Command::Status) {
            Reply::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    fn invite(&mut self, host: usize) -> String {
        let expires_wall_ms = self.now.wall_ms + 1_000_000;
        match self.command(
            host,
            Command::Invite {
                terms: InviteTerms { role: Role::Writer, expires_wall_ms, uses: 10, approval: false, whom: None },
                lan: vec![],
            },
        ) {
            Reply::Invite { link, .. } => link,
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, host: usize, path: &str, text: &str) {
        self.hosts[host].folder.insert(path.into(), Bytes::from(text.to_owned()));
        let seen = self.look(host, path);
        self.hosts[host].inputs.push_back(Input::Seen(vec![seen]));
    }

    fn text(&self, host: usize, path: &str) -> String {
        String::from_utf8(self.hosts[host].folder.get(path).cloned().unwrap_or_default().to_vec()).unwrap()
    }
}

#[test]
fn a_joiner_gets_the_folder_and_edits_flow_both_ways() {
    let mut town = Town::new();
    let a = town.found();
    town.write(a, "note.md", "one\ntwo\nthree\n");
    town.run(1_000);
    let link = town.invite(a);
    let b = town.join(&link);
    town.run(5_000);
    let status = town.status(b);
    assert_eq!(town.text(b, "note.md"), "one\ntwo\nthree\n", "{status:#?}");
    town.write(b, "note.md", "one\ntwo and b\nthree\n");
    town.run(2_000);
    assert_eq!(town.text(a, "note.md"), "one\ntwo and b\nthree\n");
    town.write(a, "other.md", "from a\n");
    town.run(2_000);
    assert_eq!(town.text(b, "other.md"), "from a\n");
    let (status_a, status_b) = (town.status(a), town.status(b));
    assert!(status_a.settled && status_b.settled, "{status_a:#?} {status_b:#?}");
    assert!(status_a.rejected.is_empty() && status_b.rejected.is_empty(), "{status_a:#?} {status_b:#?}");
}

#[test]
fn edits_made_offline_on_different_lines_end_in_both() {
    let mut town = Town::new();
    let a = town.found();
    town.write(a, "note.md", "one\ntwo\nthree\n");
    let link = town.invite(a);
    let b = town.join(&link);
    town.run(5_000);
    town.disconnect(a);
    town.disconnect(b);
    town.run(100);
    town.write(a, "note.md", "one by a\ntwo\nthree\n");
    town.write(b, "note.md", "one\ntwo\nthree by b\n");
    town.run(1_000);
    town.connect(a);
    town.connect(b);
    town.run(10_000);
    assert_eq!(town.text(a, "note.md"), "one by a\ntwo\nthree by b\n");
    assert_eq!(town.text(b, "note.md"), "one by a\ntwo\nthree by b\n");
}

#[test]
fn five_members_end_the_same_and_a_flush_says_so() {
    let mut town = Town::new();
    let a = town.found();
    let link = town.invite(a);
    for _ in 0..4 {
        town.join(&link);
    }
    town.run(10_000);
    for host in 0..5 {
        town.write(host, &format!("file-{host}.md"), &format!("by {host}\n"));
    }
    let until_mono_ms = town.now.mono_ms + 30_000;
    let reply = town.command(2, Command::Flush { until_mono_ms, peers: 4 });
    assert!(matches!(reply, Reply::Flushed { complete: true, peers: 4, .. }), "{reply:?}");
    town.run(10_000);
    for host in 1..5 {
        assert_eq!(town.hosts[host].folder, town.hosts[0].folder);
        assert_eq!(town.hosts[host].machine.frontier(), town.hosts[0].machine.frontier());
        assert_eq!(town.hosts[host].machine.membership_digest(), town.hosts[0].machine.membership_digest());
    }
    assert_eq!(town.hosts[0].folder.len(), 5);
}

#[test]
fn who_leaves_gets_nothing_more_and_the_others_go_on_under_a_new_key() {
    let mut town = Town::new();
    let a = town.found();
    let link = town.invite(a);
    let b = town.join(&link);
    let c = town.join(&link);
    town.run(5_000);
    assert_eq!(town.command(c, Command::Leave), Reply::Done);
    town.run(20_000);
    town.write(a, "secret.md", "after c left\n");
    town.run(20_000);
    assert_eq!(town.text(b, "secret.md"), "after c left\n");
    assert_eq!(town.text(c, "secret.md"), "");
    assert_eq!(town.status(a).peers.len(), 1);
}

impl Town {
    /// Kills a host and opens it again from this store, with its folder as it is.
    fn restart_from(&mut self, host: usize, store: MemoryStore, watermark: Watermark) {
        self.restart_as(host, identity(host as u8 + 2), store, watermark);
    }

    fn restart_as(&mut self, host: usize, identity: LocalIdentity, store: MemoryStore, watermark: Watermark) {
        self.disconnect(host);
        let setup = Setup { identity, seed: [100 + self.seed; 32], watermark };
        self.seed += 1;
        self.hosts[host].machine = Workspace::open(setup, self.now, &store).unwrap();
        self.hosts[host].store = store;
        self.hosts[host].inputs.clear();
        self.drain(host);
        let paths: Vec<String> = self.hosts[host].folder.keys().cloned().collect();
        let seen = paths.iter().map(|path| self.look(host, path)).collect();
        self.hosts[host].inputs.push_back(Input::Seen(seen));
        self.hosts[host].inputs.push_back(Input::Scanned { complete: true });
        self.connect(host);
    }
}

/// Whether its watermark tells or only a peer can, a restored database loses no edit, says none twice, and goes on.
#[test]
fn a_restored_backup_begins_a_new_incarnation_and_loses_nothing() {
    for watermark_survives in [true, false] {
        let mut town = Town::new();
        let a = town.found();
        town.write(a, "note.md", "one\ntwo\nthree\n");
        let link = town.invite(a);
        let b = town.join(&link);
        town.run(5_000);
        let backup = (town.hosts[b].store.clone(), town.hosts[b].watermark);
        town.write(b, "note.md", "one\ntwo after the backup\nthree\n");
        town.run(3_000);
        town.write(a, "note.md", "one by a\ntwo after the backup\nthree\n");
        town.run(3_000);
        let watermark = if watermark_survives { town.hosts[b].watermark } else { backup.1 };
        town.restart_from(b, backup.0, watermark);
        town.run(10_000);
        town.write(b, "note.md", "one by a\ntwo after the backup\nthree by b again\n");
        town.run(20_000);
        let (status_a, status_b) = (town.status(a), town.status(b));
        assert_eq!(
            town.text(a, "note.md"),
            "one by a\ntwo after the backup\nthree by b again\n",
            "{status_a:#?} {status_b:#?}"
        );
        assert_eq!(town.text(b, "note.md"), town.text(a, "note.md"));
        assert!(!status_a.rejected.contains_key("fork"), "{status_a:#?}");
        assert!(status_a.settled && status_b.settled, "{status_a:#?} {status_b:#?}");
    }
}

/// Two of three: the founder sends something to b, b goes away, the founder's database is restored from before, and a
/// newcomer is the only one it meets. Then b is back. The reasons anybody refused anything for, and what people are told.
fn after_a_restore_among_newcomers(watermark_survives: bool) -> (Vec<String>, String) {
    let mut town = Town::new();
    let a = town.found();
    town.write(a, "note.md", "one\n");
    let link = town.invite(a);
    let b = town.join(&link);
    town.run(5_000);
    let backup = (town.hosts[a].store.clone(), town.hosts[a].watermark);
    town.write(a, "note.md", "one\ntwo\n");
    town.run(5_000);
    town.disconnect(b);
    town.run(100);
    let watermark = if watermark_survives { town.hosts[a].watermark } else { backup.1 };
    town.restart_from(a, backup.0, watermark);
    town.run(1_000);
    let link = town.invite(a);
    town.join(&link);
    town.run(5_000);
    town.write(a, "other.md", "after the restore\n");
    town.run(5_000);
    town.connect(b);
    town.run(60_000);
    let reasons = (0..3).flat_map(|host| town.status(host).rejected.into_keys()).collect();
    (reasons, (0..3).map(|host| town.problems(host)).collect())
}

/// The watermark alone tells a restored replica that it is one when nobody who knows better is there. Without it the device
/// signs twice for one place, and people are told which one that is.
#[test]
fn without_its_watermark_a_restored_replica_gives_a_number_twice() {
    assert_eq!(after_a_restore_among_newcomers(true), (Vec::new(), String::new()));
    let (without, told) = after_a_restore_among_newcomers(false);
    assert!(without.iter().any(|reason| reason == "fork" || reason == "wrong link"), "{without:?}");
    assert!(told.contains("signed two different envelopes for one place"), "{told}");
}

/// What is held already changes nothing when it comes again; without that check the frontier goes back.
#[test]
fn what_comes_again_is_known() {
    for weakened in [false, true] {
        let mut town = Town::new();
        let a = town.found();
        let link = town.invite(a);
        let b = town.join(&link);
        town.run(5_000);
        for round in 0..4 {
            town.write(a, "note.md", &format!("round {round}\n"));
            town.run(2_000);
        }
        let held = town.hosts[b].machine.frontier().clone();
        if weakened {
            town.hosts[b].machine.weaken(weft_agent_core::setup::Weakness::NoDedupe);
        }
        let by_a = town.status(a).device.0;
        let first = weft_agent_core::store::Read::scan(&town.hosts[a].store, Table::Envelopes, &by_a, None, 1);
        // One of the rooms both are in is their epoch's; in the invite's nobody takes an envelope.
        let rooms: Vec<RoomId> = town.rooms.keys().copied().collect();
        for room in rooms {
            town.frame(b, ServerFrame::Deliver { room, from: peer_id(a), payload: first[0].1.clone() });
        }
        while town.step(b) {}
        assert_eq!(*town.hosts[b].machine.frontier() != held, weakened);
    }
}

impl Town {
    fn root(&self, host: usize) -> weft_agent_core::id::RootKey {
        identity(host as u8 + 2).root_public.sign
    }

    /// A workspace of so many people, all settled.
    fn team(people: u8) -> (Town, Vec<usize>) {
        let mut town = Town::new();
        let first = town.found();
        let link = town.invite(first);
        let mut all = vec![first];
        all.extend((1..people).map(|_| town.join(&link)));
        town.run(10_000);
        (town, all)
    }

    fn problems(&mut self, host: usize) -> String {
        self.status(host).problems.join(" ")
    }
}

#[path = "town/attest.rs"]
mod attest;
#[path = "town/bulk.rs"]
mod bulk;
#[path = "town/checkpoints.rs"]
mod checkpoints;
#[path = "town/forks.rs"]
mod forks;
#[path = "town/held.rs"]
mod held;
#[path = "town/invites.rs"]
mod invites;
#[path = "town/late.rs"]
mod late;
#[path = "town/nacks.rs"]
mod nacks;
#[path = "town/outcasts.rs"]
mod outcasts;
#[path = "town/people.rs"]
mod people;
#[path = "town/removal.rs"]
mod removal;
#[path = "town/rotation.rs"]
mod rotation;
#[path = "town/speakers.rs"]
mod speakers;
