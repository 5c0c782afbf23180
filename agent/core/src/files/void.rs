//! Taking out of the documents what does not count any more, and keeping what a person here made on top of it.
//!
//! After a removal, or once a fork was settled, some changes that were taken in do not count. The documents concerned are
//! built anew from the rest ([`super::forget`], then the accepted content again). What was made here and not sealed yet
//! may stand on them, and what is on the disk may be them: [`Files::take_along`] takes along what is needed, and
//! [`Files::enter_again`] enters it again. Invariant: nothing that a person here made is lost, and nothing void is entered
//! again as theirs. Why both: the disk alone cannot tell one from the other. Spec: docs/files.md#void.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{ChangeHash as Hash, ScalarValue};
use bytes::Bytes;
use weft_protocol::cbor::to_bytes;

use super::change::parse_change;
use super::counting::{Graph, below, counting};
use super::documents::{has, ours, theirs};
use super::draft::Puts;
use super::entry::{Deletion, Field, Kind, Known, Pointer, decoded};
use super::names::{Document, actor_prefix, bucket, is_actor_of, start_of};
use super::puts::{known_in, puts_of, versions_made, without_void};
use super::record::{Key, OnDisk};
use super::tree::Tree;
use super::{Cx, Files, FilesOutput, Identity, Moved, Versions, text};
use crate::content::{Content, DocumentName, Item};
use crate::disk::Stat;
use crate::id::{ChainId, ChangeHash, FileId, VersionHash};
use crate::store::Tx;
use crate::time::Timestamp;

/// What was set here in a bucket of the tree in one change.
struct OwnPuts {
    bucket: u8,
    made_on: Vec<Hash>,
    change: Hash,
    puts: Vec<Puts>,
}

/// What was made here in one text in one go, and leaves it: the text before it, and after it.
struct OwnEdit {
    id: FileId,
    version: VersionHash,
    made_on: Vec<Hash>,
    last: Hash,
    before: (text::Style, String),
    after: (text::Style, String),
}

/// What is taken along while documents are built anew.
pub(crate) struct Carried {
    documents: BTreeSet<Document>,
    edits: Vec<OwnEdit>,
    puts: Vec<OwnPuts>,
    /// What everything stood on in the documents that something of ours leaves, or that something on the disk is of.
    graph: Graph,
    /// Files of which a version was made here, and those versions.
    written: BTreeSet<FileId>,
    made: BTreeSet<VersionHash>,
    /// Texts with something in them that was written here.
    texts: BTreeSet<(FileId, [u8; 8])>,
    /// What was on disk, or was about to be, of the texts concerned.
    bases: BTreeMap<(Key, VersionHash), Bytes>,
}

impl Carried {
    fn concerns(&self, id: &FileId) -> bool {
        let from = Document::Text(*id, [0; 8]);
        let to = Document::Text(*id, [0xff; 8]);
        self.documents.contains(&Document::Tree(bucket(id))) || self.documents.range(from..=to).next().is_some()
    }
}

impl Files {
    /// Takes along what is needed to go on after these documents were built anew; `leaving`: what was made here and is not
    /// in them any more: unsealed, or sealed and void.
    pub(crate) fn take_along(
        &mut self,
        now: Timestamp,
        documents: &BTreeSet<DocumentName>,
        leaving: &[Content],
        versions: &mut dyn Versions,
        tx: &Tx<'_>,
    ) -> Carried {
        let mut cx = Cx { now, versions, tx };
        let documents: BTreeSet<Document> = documents.iter().filter_map(Document::parse).collect();
        let mut own: BTreeMap<Document, BTreeSet<ChangeHash>> = BTreeMap::new();
        let (mut puts, mut made) = (Vec::new(), BTreeSet::new());
        for (name, items) in leaving.iter().flat_map(|content| &content.documents) {
            let Some(document) = Document::parse(name).filter(|document| documents.contains(document)) else {
                continue;
            };
            for item in items {
                let Item::Change(bytes) = item else { continue };
                let Ok(change) = parse_change(bytes) else { continue };
                own.entry(document).or_default().insert(ChangeHash(change.hash().0));
                if let Document::Tree(bucket) = document {
                    let (made_on, change, puts_in) = (change.deps().to_vec(), change.hash(), puts_of(&change));
                    let doc = &self.documents.open(document, cx.tx).doc;
                    made.extend(puts_in.iter().flat_map(|(id, fields)| versions_made(doc, id, fields, &made_on)));
                    puts.push(OwnPuts { bucket, made_on, change, puts: puts_in });
                }
            }
        }
        let edits = own.iter().flat_map(|(document, changes)| self.own_edits(*document, changes, &cx)).collect();
        let versions = |(id, fields): &Puts| fields.contains_key(&Field::Versions).then_some(*id);
        let written = puts.iter().flat_map(|own: &OwnPuts| own.puts.iter().filter_map(versions)).collect();
        let mut stood_on: BTreeSet<Document> = own.into_keys().collect();
        for (id, fields) in puts.iter().flat_map(|own: &OwnPuts| &own.puts) {
            stood_on.extend(known_in(fields).into_iter().map(|known| Document::text(*id, &known.version)));
        }
        let (graph, texts, bases) = (Graph::new(), BTreeSet::new(), BTreeMap::new());
        let mut carried = Carried { documents, edits, puts, graph, written, made, texts, bases };
        for key in self.records.keys().filter(|key| carried.concerns(&key.id)).collect::<Vec<_>>() {
            carried.texts.extend(self.written_here(&key.id, &cx).into_iter().map(|start| (key.id, start)));
            let Some(record) = self.records.whole(key, cx.tx) else { continue };
            for base in record.now.iter().chain(&record.pending) {
                if !base.heads.is_empty() {
                    stood_on.insert(Document::text(key.id, &base.version));
                }
                let bytes = self.text_at(key.id, base, &mut cx).map(|(style, text)| text::render(style, &text));
                carried.bases.insert((key, base.hash), bytes.unwrap_or_default().into());
            }
        }
        let mut order = BTreeMap::new();
        for document in stood_on {
            let doc = &self.documents.open(document, cx.tx).doc;
            for (number, meta) in doc.get_changes_meta(&[]).into_iter().enumerate() {
                order.insert(meta.hash, number);
                carried.graph.insert(meta.hash, meta.deps);
            }
        }
        // What stands on another comes after it; lives and branches of our chain are not in that order.
        carried.puts.sort_by_key(|own| order.get(&own.change).copied());
        carried
    }

    /// What these changes of ours made of a text, run by run: others may have built on some of them.
    fn own_edits(&mut self, document: Document, own: &BTreeSet<ChangeHash>, cx: &Cx<'_, '_>) -> Vec<OwnEdit> {
        let Document::Text(id, start) = document else { return Vec::new() };
        let Some(version) = self.tree.texts.get(&(id, start)).map(|text| text.version) else { return Vec::new() };
        let doc = &self.documents.open(document, cx.tx).doc;
        let mut runs: Vec<(Vec<Hash>, Hash)> = Vec::new();
        // Those that others build on come first.
        for meta in doc.get_changes_meta(&[]) {
            if !own.contains(&ChangeHash(meta.hash.0)) {
                continue;
            }
            match runs.last_mut() {
                Some((_, last)) if meta.deps.as_slice() == [*last] => *last = meta.hash,
                _ => runs.push((meta.deps.clone(), meta.hash)),
            }
        }
        let edit = |(deps, last): (Vec<_>, _)| OwnEdit {
            id,
            version,
            before: text::read(doc, Some(&deps)),
            made_on: deps,
            last,
            after: text::read(doc, Some(&[last])),
        };
        runs.into_iter().map(edit).collect()
    }

    /// The documents were built anew from what counts: enters what was made here once more, and makes every record one
    /// that the documents can answer for. The shell looks at everything afterwards.
    pub(crate) fn enter_again(
        &mut self,
        now: Timestamp,
        mut carried: Carried,
        versions: &mut dyn Versions,
        tx: &Tx<'_>,
    ) {
        let mut cx = Cx { now, versions, tx };
        let mut again = Graph::new();
        let mut edits = std::mem::take(&mut carried.edits);
        for own in &carried.puts {
            // Who replaced or deleted a text had seen what they had written into it; nobody misses it if it has no place now.
            let known = own.puts.iter().flat_map(|(id, fields)| known_in(fields).into_iter().map(|known| (*id, known)));
            for (id, known) in known.collect::<Vec<_>>() {
                let seen = below(&carried.graph, theirs(&known.heads));
                let is_seen =
                    |edit: &OwnEdit| edit.id == id && edit.version == known.version && seen.contains(&edit.last);
                let first;
                (first, edits) = edits.into_iter().partition(is_seen);
                self.enter_edits(&first, &carried.graph, &mut again, &mut cx);
            }
            let doc = &self.documents.open(Document::Tree(own.bucket), cx.tx).doc;
            let heads = counting(doc, &own.made_on, &carried.graph, &again);
            let puts = own.puts.iter().filter_map(|put| without_void(doc, put, &carried.made)).collect::<Vec<_>>();
            let puts: Vec<Puts> =
                puts.into_iter().map(|put| self.knowing_again(put, &carried.graph, &again, &cx)).collect();
            if puts.is_empty() {
                continue;
            }
            let entered = self.enter_bucket(own.bucket, puts, Some(&heads), &cx);
            let Some((change, bytes)) = entered else { continue };
            again.insert(own.change, vec![change]);
            let documents = vec![(Document::Tree(own.bucket).name(), vec![Item::Change(bytes)])];
            self.outputs.push_back(FilesOutput::Publish(Content { documents }));
            for (id, _) in &own.puts {
                self.refresh(id, &cx);
            }
        }
        let adrift = self.enter_edits(&edits, &carried.graph, &mut again, &mut cx);
        self.publish(&mut cx);
        for key in self.records.keys().filter(|key| carried.concerns(&key.id)).collect::<Vec<_>>() {
            let anew = self.is_met_anew(key, &carried, &adrift, &mut cx);
            self.void_record(key, &carried, anew, &mut cx);
        }
        self.moved = Some(Moved::default());
        self.building = false;
        self.settle(&mut cx);
    }

    /// Enters these edits once more; the files and versions of those that have no place any more.
    fn enter_edits(
        &mut self,
        edits: &[OwnEdit],
        graph: &Graph,
        again: &mut Graph,
        cx: &mut Cx<'_, '_>,
    ) -> BTreeSet<(FileId, VersionHash)> {
        let mut adrift = BTreeSet::new();
        for edit in edits {
            match self.enter_own(edit, graph, again, cx) {
                Some(heads) => {
                    again.insert(edit.last, heads);
                }
                None => {
                    adrift.insert((edit.id, edit.version));
                }
            }
        }
        adrift
    }

    /// What was set here, with what its author had seen of texts as that is now: their own edits as they were entered again.
    fn knowing_again(&mut self, (id, mut fields): Puts, graph: &Graph, again: &Graph, cx: &Cx<'_, '_>) -> Puts {
        let mut now = |known: &mut Known| {
            let doc = &self.documents.open(Document::text(id, &known.version), cx.tx).doc;
            known.heads = ours(&counting(doc, &theirs(&known.heads), graph, again));
        };
        if let Some(mut pointer) = fields.get(&Field::Versions).and_then(decoded::<Pointer>) {
            pointer.replaced.iter_mut().for_each(&mut now);
            fields.insert(Field::Versions, ScalarValue::Bytes(to_bytes(&pointer)));
        }
        if let Some(mut deletion) = fields.get(&Field::Deleted).and_then(decoded::<Deletion>) {
            deletion.known.iter_mut().for_each(&mut now);
            fields.insert(Field::Deleted, ScalarValue::Bytes(to_bytes(&deletion)));
        }
        (id, fields)
    }

    /// Enters an edit made here once more, at what it was made on, as far as that counts. Its new heads.
    fn enter_own(&mut self, edit: &OwnEdit, graph: &Graph, again: &Graph, cx: &mut Cx<'_, '_>) -> Option<Vec<Hash>> {
        let (version, now) = self.place_of(edit, cx)?;
        let doc = &self.documents.open(Document::text(edit.id, &version), cx.tx).doc;
        let made_on = ours(&counting(doc, &edit.made_on, graph, again));
        let heads = if made_on.is_empty() { now } else { made_on };
        let (_, heads) = self.enter_into(edit.id, (version, heads), &edit.before, &edit.after, cx)?;
        Some(theirs(&heads))
    }

    /// Where an edit made here is entered again: in the text it was made on, if the entry still knows that, shown or not. If
    /// others replaced or deleted it without having seen the edit, it is shown for it, as it was.
    fn place_of(&mut self, edit: &OwnEdit, cx: &Cx<'_, '_>) -> Option<(VersionHash, Vec<ChangeHash>)> {
        let registers = Tree::registers(&edit.id, &mut self.documents, cx.tx)?;
        let text = self.tree.texts.get(&(edit.id, start_of(&edit.version)));
        registers.names(&edit.version).then(|| (edit.version, text.map(|text| text.heads.clone()).unwrap_or_default()))
    }

    /// Whether what a person here wrote into a file is in nothing that counts any more, the file or the version that it was
    /// written into: then it is met as a file of theirs. A name or a mode that they gave it, entered again, makes no file.
    fn is_met_anew(
        &mut self,
        key: Key,
        carried: &Carried,
        adrift: &BTreeSet<(FileId, VersionHash)>,
        cx: &mut Cx<'_, '_>,
    ) -> bool {
        let registers = Tree::registers(&key.id, &mut self.documents, cx.tx);
        if registers.as_ref().is_none_or(|known| known.pointers.is_empty()) {
            let texts = carried.texts.range((key.id, [0; 8])..=(key.id, [0xff; 8]));
            return carried.written.contains(&key.id) || texts.count() > 0;
        }
        let Some(record) = self.records.whole(key, cx.tx) else { return false };
        let ours = |base: &&OnDisk| carried.texts.contains(&(key.id, start_of(&base.version)));
        let known = |base: &OnDisk| registers.as_ref().is_some_and(|registers| registers.names(&base.version));
        let lost = |base: &OnDisk| adrift.contains(&(key.id, base.version)) || ours(&base) && !known(base);
        record.now.iter().chain(&record.pending).any(lost)
    }

    /// The texts of a file that this device changed.
    fn written_here(&mut self, id: &FileId, cx: &Cx<'_, '_>) -> Vec<[u8; 8]> {
        let Identity { workspace, chain } = self.identity;
        let prefixes: Vec<[u8; 16]> = (1..=chain.incarnation)
            .map(|incarnation| actor_prefix(&workspace, ChainId { incarnation, ..chain }))
            .collect();
        let mut starts: Vec<[u8; 8]> =
            self.tree.texts.range((*id, [0; 8])..=(*id, [0xff; 8])).map(|((_, start), _)| *start).collect();
        starts.retain(|start| {
            let doc = &self.documents.open(Document::Text(*id, *start), cx.tx).doc;
            let changes = doc.get_changes_meta(&[]);
            changes.iter().any(|meta| prefixes.iter().any(|prefix| is_actor_of(meta.actor.to_bytes(), prefix)))
        });
        starts
    }

    fn void_record(&mut self, key: Key, carried: &Carried, anew: bool, cx: &mut Cx<'_, '_>) {
        let Some(mut record) = self.records.whole(key, cx.tx) else { return };
        if anew && record.kind != Kind::Folder {
            // What was made of it here has no place in the documents any more: the file is met as something new.
            self.records.remove(key, cx.tx);
            self.work.add([key]);
            return;
        }
        let shown = self.alternative(key).map(super::tree::Alternative::hash);
        let current = self.current(key);
        let bases = [record.now.take(), record.pending.take()].map(|base| {
            let base = base?;
            if Some(base.hash) == shown
                && let Some((version, heads)) = current.clone()
            {
                return Some(OnDisk { version, heads, void: None, ..base });
            }
            if self.stands(key, &base, cx) {
                return Some(base);
            }
            let bytes = || carried.bases.get(&(key, base.hash)).cloned().unwrap_or_default();
            let void = Some(base.void.clone().unwrap_or_else(bytes));
            // Whoever deletes the file has seen what still counts of it, and nothing else of what is there now.
            let doc = &self.documents.open(Document::text(key.id, &base.version), cx.tx).doc;
            let heads = ours(&counting(doc, &theirs(&base.heads), &carried.graph, &Graph::new()));
            Some(OnDisk { void, heads, ..base })
        });
        [record.now, record.pending] = bases;
        if record.kind == Kind::Folder && !self.tree.entries.contains_key(&key.id) {
            record.pending = Some(OnDisk::revoked_folder());
        }
        record.recent.clear();
        record.stat = Stat::default();
        self.records.put(key, &record, cx.tx);
        self.work.add([key]);
    }

    /// Whether the documents still know this content.
    fn stands(&mut self, key: Key, base: &OnDisk, cx: &Cx<'_, '_>) -> bool {
        let Some(registers) = Tree::registers(&key.id, &mut self.documents, cx.tx) else { return false };
        let named = registers.names(&base.version);
        if !named || base.heads.is_empty() {
            return named;
        }
        let doc = &self.documents.open(Document::text(key.id, &base.version), cx.tx).doc;
        theirs(&base.heads).iter().all(|head| has(doc, head))
    }
}
