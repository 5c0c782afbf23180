//! Figures for a large import: 10,000 files of 2 KB taken in by one replica and received by another.
//!
//! `cargo run --profile ci -p weft-agent-core --example import_files [files]` prints the CPU time of each step
//! and the memory of the machine a file (Linux). No disk is used: the
//! store is in memory and the folder is what the actions say.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a measurement reads how long it ran and its own memory and prints; it is no part of the pure core"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use weft_agent_core::content::{Content, Item, Manifest, VersionBytes};
use weft_agent_core::disk::{FileBytes, FolderAction, Found, Outcome, RelPath, Seen, Stat};
use weft_agent_core::files::{Author, Files, FilesOutput, Identity, Versions};
use weft_agent_core::id::{ChainId, DeviceId, VersionHash, WorkspaceId};
use weft_agent_core::store::{MemoryStore, Read, Tx};
use weft_agent_core::time::Timestamp;

const WORKSPACE: WorkspaceId = WorkspaceId([5; 32]);
/// So many looks the shell hands over at once.
const LOOKS: usize = 256;

#[derive(Default)]
struct Held(BTreeMap<VersionHash, Bytes>);

impl Versions for Held {
    fn version(&mut self, hash: &VersionHash, _: &dyn Read) -> Option<Bytes> {
        self.0.get(hash).cloned()
    }
    fn manifest(&mut self, _: &VersionHash, _: &dyn Read) -> Option<Manifest> {
        None
    }
}

struct Replica {
    identity: Identity,
    files: Files,
    store: MemoryStore,
    held: Held,
    published: Vec<Content>,
    actions: Vec<(weft_agent_core::files::ActionId, FolderAction)>,
    now: u64,
    longest: Duration,
}

impl Replica {
    fn new(number: u8) -> Self {
        let chain = ChainId { device: DeviceId([number; 16]), incarnation: 1 };
        let identity = Identity { workspace: WORKSPACE, chain };
        let store = MemoryStore::default();
        let files = Files::open(identity, &store);
        Self {
            identity,
            files,
            store,
            held: Held::default(),
            published: Vec::new(),
            actions: Vec::new(),
            now: 0,
            longest: Duration::ZERO,
        }
    }
    /// One call; the time it takes counts without the store's.
    fn call(&mut self, f: impl FnOnce(&mut Files, Timestamp, &mut Held, &Tx<'_>)) -> Duration {
        self.now += 1;
        let now = Timestamp { mono_ms: self.now, wall_ms: 1_700_000_000_000 + self.now };
        let tx = Tx::new(&self.store);
        let start = cpu();
        f(&mut self.files, now, &mut self.held, &tx);
        let took = cpu().saturating_sub(start);
        self.longest = self.longest.max(took);
        let writes = tx.into_writes();
        self.store.apply(&writes);
        while let Some(output) = self.files.poll_output() {
            if let FilesOutput::Publish(content) = output {
                self.keep(&content);
                self.published.push(content);
            } else if let FilesOutput::Act(id, action) = output {
                self.actions.push((id, action));
            }
        }
        took
    }
    fn keep(&mut self, content: &Content) {
        for item in content.documents.iter().flat_map(|(_, items)| items) {
            if let Item::Version { hash, bytes: VersionBytes::Inline(bytes) } = item {
                self.held.0.insert(*hash, bytes.clone());
            }
        }
    }
    /// Does all that is asked for; the time the machine took for it.
    fn act(&mut self) -> Duration {
        let mut took = Duration::ZERO;
        loop {
            let next = std::mem::take(&mut self.actions);
            let due = self.files.poll_timeout();
            if let (true, Some(due)) = (next.is_empty(), due) {
                self.now = self.now.max(due);
                took += self.call(|files, now, held, tx| files.handle_timeout(now, held, tx));
            } else if next.is_empty() {
                return took;
            }
            for (id, _) in next {
                let done = Outcome::Done(Stat { mtime_ns: 1, ctime_ns: 1, size: 2048, inode: self.now });
                took += self.call(|files, now, held, tx| files.handle_acted(now, id, done, held, tx));
            }
        }
    }
    fn longest(&mut self) -> f64 {
        millis(std::mem::take(&mut self.longest))
    }
}

/// Time that this process has run on a CPU.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or_default())
}

/// Memory in use by this process, in bytes (Linux).
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default();
    pages * 4096
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn looks(count: usize) -> Vec<Seen> {
    let one = |n: usize| {
        let line = format!("file {n}, some words that make up a line of a note about nothing much\n");
        let bytes: Bytes = line.repeat(2048 / line.len() + 1).into_bytes().into_iter().take(2048).collect();
        let path = RelPath::new(&format!("notes/{}/{}/note-{n}.md", n / 1000, (n / 50) % 20)).unwrap();
        let stat = Stat { mtime_ns: 1, ctime_ns: 1, size: 2048, inode: n as u64 + 1 };
        let found = Found::File { bytes: FileBytes::Here(bytes), executable: false, stat };
        Seen::new(path, found)
    };
    (0..count).map(one).collect()
}

fn main() {
    let count = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let mut one = Replica::new(1);
    let seen = looks(count);
    let mut took = Duration::ZERO;
    for part in seen.chunks(LOOKS) {
        took += one.call(|files, now, held, tx| files.handle_seen(now, part.to_vec(), held, tx));
    }
    took += one.call(|files, now, held, tx| files.handle_scanned(now, true, held, tx));
    let published: usize = one.published.iter().map(Content::size_hint).sum();
    println!(
        "import:  {:7.0} ms, longest call {:.0} ms, {} envelopes of {} bytes in all",
        millis(took),
        one.longest(),
        one.published.len(),
        published
    );

    let mut two = Replica::new(2);
    let author = Author { chain: one.identity.chain, wall_ms: 1 };
    let mut took = Duration::ZERO;
    for content in &one.published {
        two.keep(content);
        took += two.call(|files, now, held, tx| {
            let refused = files.handle_content(now, author, content, held, tx);
            assert!(refused.is_empty(), "{refused:?}");
        });
    }
    println!("receive: {:7.0} ms, longest call {:.0} ms", millis(took), two.longest());
    let took = two.act();
    println!("write:   {:7.0} ms, longest call {:.0} ms", millis(took), two.longest());
    assert!(two.files.settled() && two.files.figures().files == count as u64);

    // Other people's envelopes may come one by one, each with one edited file.
    let edits = count.min(200);
    one.published.clear();
    for look in seen.iter().take(edits) {
        let mut look = look.clone();
        if let Found::File { bytes: FileBytes::Here(bytes), .. } = &mut look.found {
            *bytes = [bytes, &b"one more line\n"[..]].concat().into();
        }
        one.call(|files, now, held, tx| files.handle_seen(now, vec![look], held, tx));
    }
    println!("edit:    longest call {:.1} ms", one.longest());
    let mut took = Duration::ZERO;
    for content in std::mem::take(&mut one.published) {
        two.keep(&content);
        took += two.call(|files, now, held, tx| {
            files.handle_content(now, author, &content, held, tx);
        });
    }
    println!("edits:   {:7.2} ms each to receive, longest {:.1} ms", millis(took) / edits as f64, two.longest());
    two.act();

    // Several machines over one store at once: what one more takes is not hidden by memory that was free already.
    let start = cpu();
    let mut machines = vec![Files::open(two.identity, &two.store)];
    println!("open:    {:7.0} ms", millis(cpu().saturating_sub(start)));
    let project = |files: &mut Files| {
        let tx = Tx::new(&two.store);
        files.handle_timeout(Timestamp { mono_ms: 0, wall_ms: 0 }, &mut Held::default(), &tx);
    };
    let mut before = 0;
    for n in 0..12 {
        if n == 4 {
            before = resident();
        }
        let mut files = Files::open(two.identity, &two.store);
        project(&mut files);
        machines.push(files);
    }
    let bytes = resident().saturating_sub(before) / 8;
    println!("memory:  {} bytes a file", bytes / count as u64);
}
