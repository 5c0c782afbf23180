//! What a newcomer waits for who joins a workspace with a long history, with a checkpoint and without.
//!
//! The machines that ship, their stores and folders in memory, joined by a relay that costs nothing: what is measured is
//! the work, and the bytes that a link would have to carry. Prints one line a newcomer: bytes and time until the whole
//! folder is there, and until everything is verified; the time is the processor's, of the newcomer alone and of everybody.
//! `cargo run --profile ci -p weft-tests --bin bench_checkpoint -- --changes 100000`.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Parser;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use weft_agent_core::disk::{FileBytes, FolderAction, Found, NewContent, Outcome, RelPath, Seen, Stat};
use weft_agent_core::identity::LocalIdentity;
use weft_agent_core::invite_link::InviteLink;
use weft_agent_core::membership::Role;
use weft_agent_core::setup::{Setup, Watermark};
use weft_agent_core::store::{MemoryStore, Table};
use weft_agent_core::time::Timestamp;
use weft_agent_core::workspace::Workspace;
use weft_agent_core::workspace::command::{Command, InviteTerms, Reply, RequestId};
use weft_agent_core::workspace::input::{Input, LinkId, LinkKind, LinkUp};
use weft_agent_core::workspace::output::Output;
use weft_protocol::frame::{ClientFrame, Peer, PeerId, ServerFrame};
use weft_protocol::id::{ConnectionKey, RelayDevice, RoomId};

#[derive(Parser)]
#[command(about = "A newcomer's join with a long history, with a checkpoint and without")]
struct Arguments {
    /// How many edits there were, each an envelope.
    #[arg(long, default_value_t = 100_000)]
    changes: usize,
    /// Over how many files.
    #[arg(long, default_value_t = 1_000)]
    files: usize,
    /// Size of each before the first edit, in bytes.
    #[arg(long, default_value_t = 2_000)]
    bytes: usize,
}

/// Edits of one file before the next.
const EDITS_AT_ONCE: usize = 20;
const LINK: LinkId = LinkId(1);

struct Host {
    machine: Workspace,
    store: MemoryStore,
    folder: BTreeMap<String, Bytes>,
    inputs: VecDeque<Input>,
    reply: Option<Reply>,
    online: bool,
    busy: Duration,
    received: u64,
    /// Paths whose content is another than the founder's.
    differing: usize,
}

struct Village {
    now: Timestamp,
    hosts: Vec<Host>,
    rooms: BTreeMap<RoomId, Vec<usize>>,
}

fn setup(number: u8) -> Setup {
    let mut rng = ChaCha20Rng::from_seed([number; 32]);
    let identity = LocalIdentity::generate(&mut rng, &format!("member-{number}"), &format!("box-{number}"));
    Setup { identity, seed: [number; 32], watermark: Watermark::default() }
}

/// How long this thread has had a processor: other programs on this computer do not count. Zero where that is not told.
fn cpu() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(told.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

fn peer(host: usize) -> PeerId {
    PeerId([host as u8; 16])
}

impl Village {
    fn host(&mut self, host: usize) -> Result<&mut Host> {
        self.hosts.get_mut(host).context("a host")
    }

    fn add(&mut self, mut machine: Workspace, every: u64) -> Result<usize> {
        machine.checkpoint_every(every);
        let differing = self.hosts.first().map_or(0, |founder| founder.folder.len());
        self.hosts.push(Host {
            machine,
            store: MemoryStore::default(),
            folder: BTreeMap::new(),
            inputs: VecDeque::new(),
            reply: None,
            online: true,
            busy: Duration::ZERO,
            received: 0,
            differing,
        });
        let host = self.hosts.len() - 1;
        self.drain(host)?;
        let up = LinkUp {
            link: LINK,
            kind: LinkKind::Relay,
            url: "ws://relay:1".into(),
            audience: "relay:1".into(),
            connection: ConnectionKey([host as u8; 32]),
            nonce: [host as u8; 32],
            queue_bytes: 4 << 20,
            frame_bytes_max: 1 << 20,
        };
        self.host(host)?.inputs.extend([Input::LinkUp(up), Input::Scanned { complete: true }]);
        Ok(host)
    }

    fn frame(&mut self, host: usize, frame: ServerFrame) -> Result<()> {
        let host = self.host(host)?;
        if let ServerFrame::Deliver { payload, .. } = &frame {
            host.received += payload.len() as u64;
        }
        host.inputs.push_back(Input::Frame { link: LINK, frame });
        Ok(())
    }

    /// What a relay does with a frame.
    fn relay(&mut self, from: usize, frame: ClientFrame) -> Result<()> {
        if !self.host(from)?.online {
            return Ok(());
        }
        match frame {
            ClientFrame::Join { room, .. } => {
                let there = self.rooms.entry(room).or_default().clone();
                let as_peer = |host: usize| Peer { peer: peer(host), device: RelayDevice([host as u8; 16]) };
                for other in &there {
                    self.frame(*other, ServerFrame::PeerJoined { room, peer: as_peer(from) })?;
                }
                self.rooms.entry(room).or_default().push(from);
                let peers = there.into_iter().map(as_peer).collect();
                self.frame(from, ServerFrame::Joined { room, you: peer(from), peers })
            }
            ClientFrame::Leave { room } => self.leave(from, room),
            ClientFrame::Publish { room, payload } => {
                for other in self.rooms.get(&room).cloned().unwrap_or_default() {
                    if other != from {
                        let payload = payload.clone();
                        self.frame(other, ServerFrame::Deliver { room, from: peer(from), payload })?;
                    }
                }
                Ok(())
            }
            ClientFrame::Send { room, to, payload } => {
                let to = to.0.first().copied().unwrap_or_default() as usize;
                self.frame(to, ServerFrame::Deliver { room, from: peer(from), payload })
            }
            ClientFrame::Prove { .. } | ClientFrame::Refresh { .. } | ClientFrame::Ping { .. } => Ok(()),
        }
    }

    fn leave(&mut self, host: usize, room: RoomId) -> Result<()> {
        let there = self.rooms.entry(room).or_default();
        there.retain(|other| *other != host);
        for other in there.clone() {
            self.frame(other, ServerFrame::PeerLeft { room, peer: peer(host) })?;
        }
        Ok(())
    }

    fn disconnect(&mut self, host: usize) -> Result<()> {
        self.host(host)?.online = false;
        self.host(host)?.inputs.push_back(Input::LinkDown { link: LINK });
        for room in self.rooms.keys().copied().collect::<Vec<_>>() {
            if self.rooms.get(&room).is_some_and(|there| there.contains(&host)) {
                self.leave(host, room)?;
            }
        }
        Ok(())
    }

    fn drain(&mut self, host: usize) -> Result<()> {
        loop {
            let begun = cpu();
            let this = self.host(host)?;
            let Some(output) = this.machine.poll_output() else { return Ok(()) };
            if let Output::Persist { batch, .. } = &output {
                this.store.apply(batch);
            }
            this.busy += cpu() - begun;
            match output {
                Output::Persist { token, .. } => this.inputs.push_back(Input::Persisted(token)),
                Output::Send { frame, .. } => {
                    this.inputs.push_back(Input::LinkDrained { link: LINK, queued_bytes: 0 });
                    self.relay(host, frame)?;
                }
                Output::Act(action, what) => {
                    let outcome = self.act(host, what)?;
                    self.host(host)?.inputs.push_back(Input::Acted { action, outcome });
                }
                Output::Reply(_, reply) => this.reply = Some(reply),
                Output::Look(paths) => {
                    let seen = paths.iter().map(|path| look(&this.folder, path)).collect();
                    this.inputs.push_back(Input::Seen(seen));
                }
                Output::Close { .. }
                | Output::Watermark { .. }
                | Output::Halted(_)
                | Output::Addresses { .. }
                | Output::Admitted { .. }
                | Output::Enrolled { .. }
                | Output::Event(_) => {}
            }
        }
    }

    fn act(&mut self, host: usize, action: FolderAction) -> Result<Outcome> {
        let right = |hosts: &[Host], path: &RelPath, bytes: Option<&Bytes>| {
            hosts.first().is_some_and(|founder| founder.folder.get(path.as_str()) == bytes)
        };
        match action {
            FolderAction::Write { path, content: NewContent::Bytes(bytes), .. } => {
                let before = self.host(host)?.folder.insert(path.as_str().to_owned(), bytes.clone());
                let was = before.is_some() && right(&self.hosts, &path, before.as_ref());
                let is = right(&self.hosts, &path, Some(&bytes));
                let this = self.host(host)?;
                this.differing =
                    this.differing + usize::from(was) - usize::from(is).min(this.differing + usize::from(was));
                Ok(Outcome::Done(Stat { size: bytes.len() as u64, ..Stat::default() }))
            }
            // Files are small and named once here: folders, blobs, moves and removals do not come.
            FolderAction::MakeFolder { .. }
            | FolderAction::Write { .. }
            | FolderAction::Move { .. }
            | FolderAction::Remove { .. }
            | FolderAction::SetExecutable { .. } => Ok(Outcome::Done(Stat::default())),
        }
    }

    fn step(&mut self, host: usize) -> Result<bool> {
        let now = self.now;
        let this = self.host(host)?;
        let Some(input) = this.inputs.pop_front() else { return Ok(false) };
        let begun = cpu();
        this.machine.handle(now, input, &this.store);
        this.busy += cpu() - begun;
        self.drain(host)?;
        Ok(true)
    }

    /// Everything that is due now, each host in turn; whether there was anything.
    fn round(&mut self) -> Result<bool> {
        let mut any = false;
        for host in 0..self.hosts.len() {
            any |= self.step(host)?;
        }
        Ok(any)
    }

    /// Until nothing is left to do now; `done` ends it earlier.
    fn settle(&mut self, mut done: impl FnMut(&Self) -> bool) -> Result<bool> {
        while self.round()? {
            if done(self) {
                return Ok(true);
            }
        }
        Ok(done(self))
    }

    /// Jumps from deadline to deadline until something holds, for at most so many virtual milliseconds.
    fn until(&mut self, ms: u64, mut done: impl FnMut(&Self) -> bool) -> Result<()> {
        let end = self.now.mono_ms + ms;
        while !self.settle(&mut done)? {
            let next = self.hosts.iter().filter_map(|host| host.machine.poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= end) else { bail!("it did not happen within {ms} ms") };
            self.pass(next.saturating_sub(self.now.mono_ms));
        }
        Ok(())
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_ms += ms;
        let now = self.now.mono_ms;
        for host in &mut self.hosts {
            if host.machine.poll_timeout().is_some_and(|at| at <= now) {
                host.inputs.push_back(Input::Wake);
            }
        }
    }

    fn write(&mut self, path: &str, text: String) -> Result<()> {
        let founder = self.host(0)?;
        founder.folder.insert(path.to_owned(), text.into());
        let seen = look(&founder.folder, &RelPath::new(path).context("a path")?);
        founder.inputs.push_back(Input::Seen(vec![seen]));
        Ok(())
    }

    fn join(&mut self, every: u64) -> Result<usize> {
        let expires_wall_ms = self.now.wall_ms + 1_000_000_000;
        let terms = InviteTerms { role: Role::Writer, expires_wall_ms, uses: 1, approval: false, whom: None };
        self.host(0)?.inputs.push_back(Input::Command(RequestId(1), Command::Invite { terms, lan: Vec::new() }));
        self.settle(|_| false)?;
        let Some(Reply::Invite { link, .. }) = self.host(0)?.reply.take() else { bail!("no invite") };
        let number = self.hosts.len() as u8 + 1;
        let machine = Workspace::join(setup(number), self.now, &InviteLink::parse(&link)?);
        self.add(machine, every)
    }

    fn gap(&self, host: usize) -> u64 {
        let frontier = |host: usize| self.hosts.get(host).map(|host| host.machine.frontier());
        frontier(0).zip(frontier(host)).map_or(u64::MAX, |(all, held)| held.gap_to(all))
    }

    /// Somebody joins: prints what it took.
    fn newcomer(&mut self, how: &str, every: u64) -> Result<()> {
        let host = self.join(every)?;
        let begun = cpu();
        let figures = |village: &Self| {
            village.hosts.get(host).map_or((0.0, 0.0), |host| (host.busy.as_secs_f64(), host.received as f64 / 1e6))
        };
        self.until(600_000, |village| village.hosts.get(host).is_some_and(|host| host.differing == 0))?;
        let ((busy, megabytes), all) = (figures(self), (cpu() - begun).as_secs_f64());
        println!(
            "{how}: whole folder after {busy:.1} s of its own ({all:.1} s of everybody's), {megabytes:.1} MB received"
        );
        self.until(600_000, |village| {
            let row = |host: &Host| weft_agent_core::store::Read::has(&host.store, Table::Meta, b"checkpoint/taking");
            village.gap(host) == 0 && village.hosts.get(host).is_some_and(|host| !row(host))
        })?;
        let ((busy, megabytes), all) = (figures(self), (cpu() - begun).as_secs_f64());
        println!(
            "{how}: verified after {busy:.1} s of its own ({all:.1} s of everybody's), {megabytes:.1} MB received"
        );
        self.disconnect(host)
    }
}

fn look(folder: &BTreeMap<String, Bytes>, path: &RelPath) -> Seen {
    let found = folder.get(path.as_str()).map_or(Found::Absent, |bytes| Found::File {
        bytes: FileBytes::Here(bytes.clone()),
        executable: false,
        stat: Stat { size: bytes.len() as u64, ..Stat::default() },
    });
    Seen::new(path.clone(), found)
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let now = Timestamp { mono_ms: 1_000, wall_ms: 1_700_000_000_000 };
    let mut village = Village { now, hosts: Vec::new(), rooms: BTreeMap::new() };
    let founder = Workspace::create(setup(1), now, "notes", vec!["ws://relay:1".into()])?;
    village.add(founder, u64::MAX)?;
    let begun = cpu();
    for number in 0..arguments.files {
        let mut text = format!("# Document {number}\n\n");
        while text.len() < arguments.bytes {
            let hash = blake3::hash(format!("{number} {}", text.len()).as_bytes()).to_hex();
            text.push_str(&format!("Line of {number} says {hash}.\n"));
        }
        village.write(&format!("{number}.md"), text)?;
    }
    village.settle(|_| false)?;
    // Somebody must be there for edits to be sealed.
    let reader = village.join(u64::MAX)?;
    village.until(600_000, |village| village.gap(reader) == 0)?;
    for change in 0..arguments.changes {
        if change % 10_000 == 9_999 {
            eprintln!("{} changes after {:.0} s", change + 1, (cpu() - begun).as_secs_f64());
        }
        // A line of a file is another: files do not grow with their history. People stay with one for a while.
        let path = format!("{}.md", change / EDITS_AT_ONCE % arguments.files);
        let text = village.host(0)?.folder.get(&path).context("a file")?.to_vec();
        let mut lines: Vec<String> = String::from_utf8(text)?.lines().map(str::to_owned).collect();
        let at = 2 + change * 7 % (lines.len() - 2);
        *lines.get_mut(at).context("a line")? = format!("Edit {change} says something else here.");
        village.write(&path, lines.join("\n") + "\n")?;
        village.settle(|_| false)?;
        village.pass(1);
    }
    village.until(600_000, |village| village.gap(reader) == 0)?;
    let stored: usize = village.host(0)?.store.table_bytes(Table::Envelopes);
    let documents = village.host(0)?.store.table_bytes(Table::Documents);
    println!(
        "{} changes of {} files: envelopes {:.1} MB, documents {:.1} MB; made and taken in by two in {:.0} s",
        arguments.changes,
        arguments.files,
        stored as f64 / 1e6,
        documents as f64 / 1e6,
        (cpu() - begun).as_secs_f64()
    );
    village.newcomer("without a checkpoint", u64::MAX)?;
    let (busy, pieces) = (village.host(0)?.busy, village.host(0)?.store.table_bytes(Table::Pieces));
    village.host(0)?.machine.checkpoint_every(2_000);
    village.write("last.md", "one more\n".to_owned())?;
    village.until(60_000, |village| {
        village
            .hosts
            .first()
            .is_some_and(|host| weft_agent_core::store::Read::has(&host.store, Table::Meta, b"checkpoint/known"))
    })?;
    println!(
        "a checkpoint: made in {:.1} s of the founder's, {:.1} MB",
        (village.host(0)?.busy - busy).as_secs_f64(),
        (village.host(0)?.store.table_bytes(Table::Pieces) - pieces) as f64 / 1e6
    );
    village.newcomer("with a checkpoint", 2_000)
}
