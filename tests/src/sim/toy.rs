//! A toy machine, so that the world can be tested by itself: lines of files as counters, sent in clear but masked.
//!
//! It stores before it sends, says what it holds when a peer appears, and enters edits against what it last saw. Its
//! merge is crude (lines of a file in the order of their text), but two of them converge.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use weft_agent_core::content::Manifest;
use weft_agent_core::disk::{Expect, FileBytes, FolderAction, Found, NewContent, Outcome, RelPath, Removal, Seen};
use weft_agent_core::files::ActionId;
use weft_agent_core::id::{DeviceId, OpId, PieceId, RootKey, VersionHash, WorkspaceId};
use weft_agent_core::store::{Read, Table, Write};
use weft_agent_core::time::Timestamp;
use weft_agent_core::workspace::command::{Command, Reply, State, Status};
use weft_agent_core::workspace::input::{Input, LinkId, Token};
use weft_agent_core::workspace::output::{Output, Rank};
use weft_protocol::admission::Audience;
use weft_protocol::admission::proof::{room_id, sign_room};
use weft_protocol::frame::{ClientFrame, ServerFrame};
use weft_protocol::id::RoomId;

use super::dice::Dice;
use super::machine::{Known, Machine, Start};

/// path ‖ 0 ‖ line -> how often it came and went; odd: it is there.
type Lines = BTreeMap<Vec<u8>, u64>;

pub(crate) struct Toy {
    device: u8,
    lines: Lines,
    on_disk: BTreeMap<RelPath, Bytes>,
    links: BTreeMap<LinkId, usize>,
    unsent: BTreeMap<Token, Lines>,
    /// What peers have not confirmed; sent again every second.
    unconfirmed: Lines,
    retry_ms: Option<u64>,
    acting: BTreeMap<ActionId, (RelPath, Bytes)>,
    scanned: bool,
    counter: u64,
    out: VecDeque<Output>,
}

fn room() -> (SigningKey, RoomId) {
    let key = SigningKey::from_bytes(&[7; 32]);
    let id = room_id(&key.verifying_key().to_bytes());
    (key, id)
}

fn mask(bytes: &mut [u8]) {
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
}

fn key(path: &RelPath, line: &str) -> Vec<u8> {
    [path.as_str().as_bytes(), b"\0", line.as_bytes()].concat()
}

impl Toy {
    fn new(start: &Start<'_>) -> Self {
        Self {
            device: start.identity[0],
            lines: Lines::new(),
            on_disk: BTreeMap::new(),
            links: BTreeMap::new(),
            unsent: BTreeMap::new(),
            unconfirmed: Lines::new(),
            retry_ms: None,
            acting: BTreeMap::new(),
            scanned: false,
            counter: 0,
            out: VecDeque::new(),
        }
    }
    fn persist(&mut self, changed: Lines) {
        self.counter += 1;
        let token = Token(self.counter);
        let batch = changed
            .iter()
            .map(|(key, count)| Write {
                table: Table::Meta,
                key: key.clone(),
                value: Some(Bytes::copy_from_slice(&count.to_be_bytes())),
            })
            .collect();
        self.out.push_back(Output::Persist { token, batch });
        self.unsent.insert(token, changed);
    }
    fn publish(&mut self, kind: u8, lines: &Lines) {
        for (link, _) in self.links.clone() {
            let mut payload = vec![kind, 1, 9];
            for (key, count) in lines {
                payload.extend((key.len() as u32).to_be_bytes());
                payload.extend(key);
                payload.extend(count.to_be_bytes());
            }
            mask(&mut payload[3..]);
            let frame = ClientFrame::Publish { room: room().1, payload: Bytes::from(payload) };
            self.out.push_back(Output::Send { link, rank: Rank::Live, frame });
        }
    }
    fn text(&self, path: &RelPath) -> Option<Bytes> {
        let prefix = key(path, "");
        let lines = self.lines.range(prefix.clone()..).take_while(|(found, _)| found.starts_with(&prefix));
        let lines: Vec<&[u8]> =
            lines.filter(|(_, count)| *count % 2 == 1).map(|(found, _)| &found[prefix.len()..]).collect();
        (!lines.is_empty()).then(|| Bytes::from(lines.join(&b'\n')))
    }
    /// Asks for the writes that bring the disk to what the lines say.
    fn project(&mut self) {
        let mut paths: BTreeSet<RelPath> = self.on_disk.keys().cloned().collect();
        for found in self.lines.keys() {
            let at = found.iter().position(|byte| *byte == 0).unwrap();
            paths.extend(RelPath::new(std::str::from_utf8(&found[..at]).unwrap()));
        }
        for path in paths {
            if self.acting.values().any(|(acting, _)| *acting == path) {
                continue;
            }
            let (old, new) = (self.on_disk.get(&path), self.text(&path));
            if old == new.as_ref() || !self.scanned {
                continue;
            }
            let expect = old.map_or(Expect::Absent, |old| Expect::File(hash(old)));
            let above: Vec<RelPath> = std::iter::successors(path.parent(), RelPath::parent).collect();
            for folder in above.into_iter().rev().filter(|_| new.is_some()) {
                self.counter += 1;
                let make = FolderAction::MakeFolder { path: folder };
                self.out.push_back(Output::Act(ActionId(self.counter), make));
            }
            self.counter += 1;
            let action = ActionId(self.counter);
            let what = match new.clone() {
                Some(bytes) => FolderAction::Write {
                    path: path.clone(),
                    expect,
                    hash: hash(&bytes),
                    content: NewContent::Bytes(bytes),
                    executable: false,
                },
                None => FolderAction::Remove { path: path.clone(), expect, why: Removal::Deleted },
            };
            self.acting.insert(action, (path, new.unwrap_or_default()));
            self.out.push_back(Output::Act(action, what));
        }
    }
    fn enter(&mut self, seen: Seen) -> Lines {
        let old = self.on_disk.remove(&seen.path).unwrap_or_default();
        let new = match seen.found {
            Found::File { bytes: FileBytes::Here(bytes), .. } => {
                self.on_disk.insert(seen.path.clone(), bytes.clone());
                bytes
            }
            Found::Absent | Found::File { .. } | Found::Symlink { .. } | Found::Folder => Bytes::new(),
        };
        let split = |bytes: &Bytes| -> BTreeSet<String> {
            String::from_utf8_lossy(bytes).split('\n').filter(|line| !line.is_empty()).map(str::to_owned).collect()
        };
        let mut changed = Lines::new();
        for line in split(&old).symmetric_difference(&split(&new)) {
            let key = key(&seen.path, line);
            let count = self.lines.entry(key.clone()).or_default();
            let wanted = u64::from(split(&new).contains(line));
            if *count % 2 != wanted {
                *count += 1;
                changed.insert(key, *count);
            }
        }
        changed
    }
}

fn hash(bytes: &[u8]) -> VersionHash {
    VersionHash(*blake3::hash(bytes).as_bytes())
}

impl Machine for Toy {
    fn identity(dice: &mut Dice, _name: &str, _label: &str) -> Vec<u8> {
        vec![dice.any() as u8]
    }
    fn root(_identity: &[u8]) -> Option<RootKey> {
        None
    }
    fn create(start: &Start<'_>, _now: Timestamp, _name: &str, _relays: Vec<String>) -> Result<Self, String> {
        let mut toy = Self::new(start);
        toy.persist(Lines::from([(b"\0".to_vec(), 2)]));
        toy.out.push_back(Output::Admitted { name: String::new() });
        Ok(toy)
    }
    fn join(start: &Start<'_>, now: Timestamp, _link: &str) -> Result<Self, String> {
        Self::create(start, now, "", Vec::new())
    }
    fn open(start: &Start<'_>, _now: Timestamp, read: &dyn Read) -> Result<Self, String> {
        let mut toy = Self::new(start);
        for (key, value) in read.scan(Table::Meta, &[], None, usize::MAX) {
            toy.lines.insert(key, u64::from_be_bytes(value[..].try_into().unwrap()));
        }
        toy.out.push_back(Output::Admitted { name: String::new() });
        Ok(toy)
    }
    fn workspace(&self) -> WorkspaceId {
        WorkspaceId([1; 32])
    }
    fn handle(&mut self, now: Timestamp, input: Input, _read: &dyn Read) {
        match input {
            Input::LinkUp(up) => {
                self.links.insert(up.link, 0);
                let (key, room) = room();
                let audience = Audience::from_url(&up.url).unwrap();
                let proof = sign_room(&key, &audience, &up.nonce, &up.connection);
                let frame = ClientFrame::Join { room, key: key.verifying_key().to_bytes(), proof };
                self.out.push_back(Output::Send { link: up.link, rank: Rank::Control, frame });
            }
            Input::LinkDown { link } => {
                self.links.remove(&link);
            }
            Input::Frame { link, frame: ServerFrame::Joined { peers, .. } } => {
                self.links.insert(link, peers.len());
                self.publish(0, &self.lines.clone());
            }
            Input::Frame { link, frame: ServerFrame::PeerJoined { .. } } => {
                *self.links.entry(link).or_default() += 1;
                self.publish(0, &self.lines.clone());
            }
            Input::Frame { link, frame: ServerFrame::PeerLeft { .. } } => {
                *self.links.entry(link).or_default() -= 1;
            }
            Input::Frame { frame: ServerFrame::Deliver { payload, .. }, .. } => {
                let mut payload = payload.to_vec();
                mask(&mut payload[3..]);
                let mut rest = &payload[3..];
                let (mut changed, mut heard) = (Lines::new(), Lines::new());
                while !rest.is_empty() {
                    let len = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
                    let key = rest[4..4 + len].to_vec();
                    let count = u64::from_be_bytes(rest[4 + len..12 + len].try_into().unwrap());
                    rest = &rest[12 + len..];
                    if self.unconfirmed.get(&key).is_some_and(|mine| *mine <= count) {
                        self.unconfirmed.remove(&key);
                    }
                    heard.insert(key.clone(), count);
                    if self.lines.get(&key).is_none_or(|mine| *mine < count) {
                        self.lines.insert(key.clone(), count);
                        changed.insert(key, count);
                    }
                }
                if payload[0] == 0 && changed.is_empty() {
                    self.publish(1, &heard);
                }
                if !changed.is_empty() {
                    self.persist(changed);
                    self.project();
                }
            }
            Input::Persisted(token) => {
                let later = self.unsent.split_off(&Token(token.0 + 1));
                let durable: Lines = core::mem::replace(&mut self.unsent, later).into_values().flatten().collect();
                if !durable.is_empty() {
                    self.unconfirmed.extend(durable.clone());
                    self.publish(0, &durable);
                    self.retry_ms = Some(now.after_ms(1000));
                }
            }
            Input::Wake => {
                self.retry_ms = None;
                if !self.unconfirmed.is_empty() && self.links.values().any(|peers| *peers > 0) {
                    self.publish(0, &self.unconfirmed.clone());
                    self.retry_ms = Some(now.after_ms(1000));
                }
            }
            Input::Seen(seen) => {
                let changed: Lines = seen.into_iter().flat_map(|seen| self.enter(seen)).collect();
                if !changed.is_empty() {
                    self.persist(changed);
                }
                self.project();
            }
            Input::Scanned { .. } => {
                self.scanned = true;
                self.project();
            }
            Input::Acted { action, outcome } => {
                let Some((path, bytes)) = self.acting.remove(&action) else { return };
                match outcome {
                    Outcome::Done(_) if bytes.is_empty() => drop(self.on_disk.remove(&path)),
                    Outcome::Done(_) => drop(self.on_disk.insert(path, bytes)),
                    Outcome::Differs(seen) => {
                        let changed = self.enter(seen);
                        self.persist(changed);
                    }
                    Outcome::Failed(_) => return,
                }
                self.project();
            }
            Input::Command(request, Command::Status) => {
                let alone = self.links.values().all(|peers| *peers == 0);
                let settled = self.scanned
                    && self.acting.is_empty()
                    && self.unsent.is_empty()
                    && (self.unconfirmed.is_empty() || alone);
                let status = Status {
                    workspace: self.workspace(),
                    name: String::new(),
                    state: State::Active,
                    settled,
                    folder_settled: settled,
                    files: 0,
                    document_bytes: 0,
                    changes: 0,
                    frontier_gap: 0,
                    pending_send: self.unconfirmed.len() as u64,
                    bytes_to_send: 0,
                    held_by: 0,
                    lacks_bytes: 0,
                    kept_here: 0,
                    decisions: 0,
                    in_touch: !alone,
                    pending_receive: 0,
                    halt: None,
                    links: Vec::new(),
                    peers: Vec::new(),
                    relays: Vec::new(),
                    problems: Vec::new(),
                    unverified: None,
                    rejected: BTreeMap::new(),
                    members: Vec::new(),
                    device: DeviceId([self.device; 16]),
                    requests: 0,
                    knocking: None,
                    only_owner: false,
                };
                self.out.push_back(Output::Reply(request, Reply::Status(Box::new(status))));
            }
            Input::Command(request, Command::Invite { .. }) => {
                let reply = Reply::Invite { link: String::new(), id: OpId([0; 32]), beyond_lan: true };
                self.out.push_back(Output::Reply(request, reply));
            }
            Input::Frame { .. }
            | Input::LinkDrained { .. }
            | Input::RootLost { .. }
            | Input::RootBack
            | Input::Command(..) => {}
        }
    }
    fn slices(&self, seen: Vec<Seen>) -> Vec<Vec<Seen>> {
        vec![seen]
    }
    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }
    fn poll_timeout(&self) -> Option<u64> {
        self.retry_ms
    }
    fn malice(_: &[u8], _: &dyn Read) -> Option<crate::sim::malice::Malice> {
        None
    }
    fn weaken(&mut self, _weakness: weft_agent_core::setup::Weakness) {}
    fn checkpoint_every(&mut self, _envelopes: u64) {}
    fn version_hash(_workspace: &WorkspaceId, bytes: &[u8]) -> VersionHash {
        hash(bytes)
    }
    fn pending_writes(_read: &dyn Read) -> Vec<(RelPath, VersionHash)> {
        Vec::new()
    }
    fn known_files(_read: &dyn Read) -> Vec<(RelPath, Known)> {
        Vec::new()
    }
    fn cut(&self, _bytes: &[u8], _dice: &mut Dice) -> Result<(Manifest, Vec<(PieceId, Bytes)>), String> {
        Err("a toy has no blobs".to_owned())
    }
    fn splice(&self, _manifest: &Manifest, _read: &dyn Read) -> Result<Bytes, String> {
        Err("a toy has no blobs".to_owned())
    }
}

mod tests {
    use super::*;
    use crate::sim::folder::{Folder, Node};
    use crate::sim::oracle;
    use crate::sim::plan::{Case, Deed, What};
    use crate::sim::sabotage::Sabotage;
    use crate::sim::witness::{Fate, markers};
    use crate::sim::world::World;

    /// A case with only what the toy understands: text that is made and gets new lines.
    fn case(seed: u64, profile: &str) -> Case {
        let mut case = Case::draw(seed, Some(profile)).unwrap();
        for event in &mut case.events {
            if let What::Deed(deed) = &mut event.what
                && !matches!(deed, Deed::Create | Deed::Insert | Deed::DropLine | Deed::Replace)
            {
                *deed = Deed::Insert;
            }
        }
        case
    }

    fn finish(case: &Case, sabotage: Sabotage) -> World<Toy> {
        let mut world = World::new(case.clone(), sabotage, false);
        world.run_until(case.profile.span_ms * 1000);
        world.heal();
        world.run_until(world.now_us + 120_000_000);
        world.ask_all();
        world
    }

    /// A toy knows files only; folders that became empty stay.
    fn files(folder: &Folder) -> Vec<(&RelPath, &Bytes)> {
        let files = folder.iter().filter_map(|(path, node)| match node {
            Node::File { bytes, .. } => Some((path, bytes)),
            Node::Symlink(_) | Node::Folder => None,
        });
        files.collect()
    }

    fn lost(world: &World<Toy>) -> usize {
        let folder = &world.hosts[0].folder;
        let files = folder.iter().filter_map(|(_, node)| match node {
            Node::File { bytes, .. } => Some(bytes.clone()),
            Node::Symlink(_) | Node::Folder => None,
        });
        let found: BTreeSet<usize> = files.flat_map(|bytes| markers(&bytes)).collect();
        let all = world.witness.markers.iter().enumerate();
        all.filter(|(number, marker)| marker.fate == Fate::Live && !found.contains(number)).count()
    }

    /// Whatever is cut, split or killed, toys that store before they send converge, and lose nothing.
    #[test]
    fn toys_converge_in_an_honest_world() {
        for profile in ["calm", "flaky", "crashy", "split", "bridge", "slow"] {
            for seed in 0..12 {
                let case = case(seed, profile);
                let world = finish(&case, Sabotage::default());
                let context = format!("{profile} {seed}: {}", oracle::unsettled(&world));
                assert_eq!(world.witness.violation, None, "{context}");
                for host in &world.hosts {
                    assert_eq!(files(&host.folder), files(&world.hosts[0].folder), "{context}");
                }
                assert_eq!(lost(&world), 0, "{context}");
                assert!(!world.witness.markers.is_empty(), "{context}");
            }
        }
    }

    /// The same case gives the same digest, another seed another one.
    #[test]
    fn a_run_is_a_function_of_its_case() {
        let digest = |seed| finish(&case(seed, "mixed"), Sabotage::default()).digest();
        assert_eq!(digest(3), digest(3));
        assert_ne!(digest(3), digest(4));
    }

    /// A folder whose writes do not look first loses what users write at the same time.
    #[test]
    fn blind_writes_lose_edits() {
        let sabotage = Sabotage { blind_writes: true, ..Sabotage::default() };
        assert!((0..60).any(|seed| lost(&finish(&case(seed, "split"), sabotage)) > 0));
    }
}
