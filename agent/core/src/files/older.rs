//! Builds the change of an edit that was made on an older state of a text.
//!
//! Invariant: the change is, byte for byte, the one that the editing device would have made had its document ended at that
//! state; and it is given out only if the document, with it applied, has the expected text at it. The work is linear in the
//! text and in the number of changes. Why: Automerge's own transaction at older heads walks the text once for each inserted
//! run and for each deleted character, eight seconds for 26 KB with an edit in every line. Spec: docs/files.md#taking-in.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType};
use automerge::{
    ActorId, Automerge, Change, ChangeHash, ChangeMetadata, ExpandedChange, ObjId, ROOT, ReadDoc, ScalarValue,
    ScalarValueRef, ValueRef,
};

use crate::files::names::actor_beside;
use crate::files::text::{self, Edit};

/// Enters an edit into a document at older heads; the new change. `None`: it cannot be built here, and the document must
/// be read again from its rows before it is used.
pub(crate) fn enter(
    edit: &Edit,
    doc: &mut Automerge,
    heads: &[ChangeHash],
    actor: [u8; 16],
    time: i64,
) -> Option<Change> {
    let object = text::object_at(doc, heads)?;
    let elements = Elements::read(doc, &object, heads)?;
    let graph = Graph::of(doc.get_changes_meta(&[]), heads)?;
    let (actor, seq) = graph.actor_for(actor)?;
    let start_op = NonZeroU64::new(graph.max_op.checked_add(1)?)?;
    let mut ops = Ops { list: Vec::new(), actor: actor.clone(), next: start_op.get() };
    let text = op_id(&object)?;
    // From the end, as a transaction does it, so that positions before stay true.
    for hunk in edit.hunks.iter().rev() {
        ops.splice(&text, &elements, hunk.at, hunk.removed, &hunk.inserted)?;
    }
    for (key, value) in edit.flags() {
        ops.put(doc, heads, key, value)?;
    }
    let mut deps = heads.to_vec();
    deps.sort_unstable();
    let change = ExpandedChange {
        operations: ops.list,
        actor_id: actor,
        hash: None,
        seq,
        start_op,
        time,
        message: None,
        deps,
        extra_bytes: Vec::new(),
        author: None,
    };
    let change = Change::from(change);
    let one = change.clone();
    let applied = catch_unwind(AssertUnwindSafe(|| doc.apply_changes([one])));
    // A member's program may have put something else than single characters into the text.
    let (style, now) = text::read(doc, Some(&[change.hash()]));
    let is_right = matches!(applied, Ok(Ok(()))) && style == edit.style.1 && now == edit.applied_to(&elements.text);
    is_right.then_some(change)
}

/// The characters of a text at some heads, and what names each of them.
struct Elements {
    ids: Vec<OpId>,
    text: String,
}

impl Elements {
    /// `None` if something in the text is no single character.
    fn read(doc: &Automerge, object: &ObjId, heads: &[ChangeHash]) -> Option<Self> {
        let (mut ids, mut text) = (Vec::new(), String::new());
        for item in doc.list_range_at(object, .., heads) {
            let ValueRef::Scalar(ScalarValueRef::Str(value)) = &item.value else { return None };
            let mut chars = value.chars();
            text.push(chars.next()?);
            if chars.next().is_some() || item.conflict || item.index != ids.len() {
                return None;
            }
            ids.push(op_id(&item.id())?);
        }
        Some(Self { ids, text })
    }
}

fn op_id(id: &ObjId) -> Option<OpId> {
    match id {
        ObjId::Id(counter, actor, _) => Some(OpId::new(*counter, actor)),
        ObjId::Root => None,
    }
}

/// What is known of the changes of a document, seen from some heads.
struct Graph {
    /// The highest number of an operation at or below the heads.
    max_op: u64,
    /// Of each actor: its last number, and whether all its changes are at or below the heads.
    actors: BTreeMap<ActorId, (u64, bool)>,
}

impl Graph {
    /// `None` if one of the heads is not there.
    fn of(changes: Vec<ChangeMetadata<'_>>, heads: &[ChangeHash]) -> Option<Self> {
        let by_hash: BTreeMap<ChangeHash, &ChangeMetadata<'_>> =
            changes.iter().map(|change| (change.hash, change)).collect();
        let mut below: BTreeSet<ChangeHash> = BTreeSet::new();
        let mut todo: Vec<ChangeHash> = heads.to_vec();
        let mut max_op = 0;
        while let Some(hash) = todo.pop() {
            if below.insert(hash) {
                let change = by_hash.get(&hash)?;
                max_op = max_op.max(change.max_op);
                todo.extend(&change.deps);
            }
        }
        let mut actors: BTreeMap<ActorId, (u64, bool)> = BTreeMap::new();
        for change in &changes {
            let (last, all_below) = actors.entry(change.actor.as_ref().clone()).or_insert((0, true));
            *last = (*last).max(change.seq);
            *all_below &= below.contains(&change.hash);
        }
        Some(Self { max_op, actors })
    }

    /// Who makes the change, and its number: this actor, or the first of those that stand beside it of which no change is
    /// beyond the heads. Why: one actor's changes follow one another, or others refuse them.
    fn actor_for(&self, actor: [u8; 16]) -> Option<(ActorId, u64)> {
        let beside = (1..=self.actors.len() as u64 + 1).map(|level| actor_beside(&actor, level));
        for actor in std::iter::once(actor.to_vec()).chain(beside) {
            let actor = ActorId::from(actor);
            match self.actors.get(&actor) {
                None => return Some((actor, 1)),
                Some((last, true)) => return Some((actor, last.checked_add(1)?)),
                Some((_, false)) => {}
            }
        }
        None
    }
}

/// The operations of a change, in order.
struct Ops {
    list: Vec<Op>,
    actor: ActorId,
    next: u64,
}

impl Ops {
    fn push(&mut self, obj: ObjectId, key: Key, action: OpType, pred: Vec<OpId>, insert: bool) {
        self.list.push(Op { action, obj, key, pred: pred.into(), insert });
        self.next += 1;
    }
    /// Puts characters at a position, and takes out as many as follow there.
    fn splice(&mut self, text: &OpId, elements: &Elements, at: usize, removed: usize, inserted: &str) -> Option<()> {
        let mut after = match at.checked_sub(1) {
            None => ElementId::Head,
            Some(before) => ElementId::Id(elements.ids.get(before)?.clone()),
        };
        let mut buffer = [0; 4];
        for one in inserted.chars() {
            let id = OpId::new(self.next, &self.actor);
            let put = OpType::Put(ScalarValue::Str((&*one.encode_utf8(&mut buffer)).into()));
            self.push(ObjectId::Id(text.clone()), Key::Seq(after), put, Vec::new(), true);
            after = ElementId::Id(id);
        }
        for id in elements.ids.get(at..at.checked_add(removed)?)? {
            let key = Key::Seq(ElementId::Id(id.clone()));
            self.push(ObjectId::Id(text.clone()), key, OpType::Delete, vec![id.clone()], false);
        }
        Some(())
    }
    /// Sets a flag of the document.
    fn put(&mut self, doc: &Automerge, heads: &[ChangeHash], key: &str, value: bool) -> Option<()> {
        let replaced = doc.get_all_at(ROOT, key, heads).ok()?;
        let pred = replaced.iter().map(|(_, id)| op_id(id)).collect::<Option<Vec<_>>>()?;
        let put = OpType::Put(ScalarValue::Boolean(value));
        self.push(ObjectId::Root, Key::Map(key.into()), put, pred, false);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable;
    use automerge::{LoadOptions, TextEncoding};
    use proptest::prelude::*;

    use super::*;
    use crate::files::diff::diff;
    use crate::files::names::is_actor_of;
    use crate::files::text::Style;
    use crate::id::{FileId, VersionHash};

    fn begin(text: &str) -> Automerge {
        text::found(&FileId([3; 16]), &VersionHash([4; 32]), text.as_bytes()).unwrap()
    }
    fn edit(doc: &Automerge, heads: &[ChangeHash], new: &str, style: Style) -> Edit {
        let (old_style, old) = text::read(doc, Some(heads));
        Edit { hunks: diff(&old, new), style: (old_style, style) }
    }
    fn save(doc: &mut Automerge, actor: u8, new: &str) {
        let heads = doc.get_heads();
        let edit = edit(doc, &heads, new, text::read(doc, None).0);
        assert!(edit.is_empty() || edit.enter(doc, &heads, [actor; 16], 7).is_some());
    }
    fn again(doc: &Automerge) -> Automerge {
        let options = LoadOptions::new().text_encoding(TextEncoding::UnicodeCodePoint);
        Automerge::load_with_options(&doc.save(), options).unwrap()
    }

    /// The change of this edit in a document that ends where it was made.
    fn made_there(edit: &Edit, doc: &mut Automerge, actor: ActorId) -> Change {
        doc.set_actor(actor);
        let object = text::object_at(doc, &doc.get_heads()).unwrap();
        let mut tx = doc.transaction();
        for hunk in edit.hunks.iter().rev() {
            tx.splice_text(&object, hunk.at, hunk.removed as isize, &hunk.inserted).unwrap();
        }
        for (key, value) in edit.flags() {
            tx.put(ROOT, key, value).unwrap();
        }
        let (hash, _) = tx.commit_with(automerge::transaction::CommitOptions::default().with_time(9));
        doc.get_change_by_hash(&hash.unwrap()).unwrap()
    }

    /// One step of a history: somebody edits, or hears of everything that another has.
    #[derive(Debug, Clone)]
    enum Step {
        Edit { who: usize, lines: Vec<(prop::sample::Index, String)> },
        Hear { who: usize, from: usize },
    }
    fn step() -> impl Strategy<Value = Step> {
        let lines = prop::collection::vec((any::<prop::sample::Index>(), "[a-cé ]{0,6}\n?"), 1..4);
        prop_oneof![
            3 => (0usize..3, lines).prop_map(|(who, lines)| Step::Edit { who, lines }),
            1 => (0usize..3, 0usize..3).prop_map(|(who, from)| Step::Hear { who, from }),
        ]
    }
    fn changed(text: &str, lines: &[(prop::sample::Index, String)]) -> String {
        let mut all: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
        for (at, line) in lines {
            let at = at.index(all.len().max(1));
            match all.get_mut(at) {
                Some(old) => old.clone_from(line),
                None => all.push(line.clone()),
            }
        }
        all.concat()
    }

    proptest! {
        /// At whatever state of whatever history an edit is made: the change is the one that a document makes which ends at
        /// that state, every replica can take it, and the text at it is what the editor saved.
        #[test]
        fn it_is_the_change_of_a_document_that_ended_there(
            steps in prop::collection::vec(step(), 1..14),
            at in any::<prop::sample::Index>(),
            lines in prop::collection::vec((any::<prop::sample::Index>(), "[a-cé ]{0,6}\n?"), 1..5),
            style in (any::<bool>(), any::<bool>()),
            who in 1u8..4,
        ) {
            let first = begin("a b c\nb c a\n\nc c é\nab\n");
            let mut docs = [first.fork(), first.fork(), first.fork()];
            let mut states = vec![first.get_heads()];
            for step in steps {
                let who = match step {
                    Step::Edit { who, lines } => {
                        let new = changed(&text::read(&docs[who], None).1, &lines);
                        save(&mut docs[who], who as u8 + 1, &new);
                        who
                    }
                    Step::Hear { who, from } => {
                        let mut other = docs[from].fork();
                        docs[who].merge(&mut other).unwrap();
                        who
                    }
                };
                states.push(docs[who].get_heads());
            }
            let [mut doc, mut two, mut three] = docs;
            doc.merge(&mut two).unwrap();
            doc.merge(&mut three).unwrap();
            let heads = states[at.index(states.len())].clone();
            let new = changed(&text::read(&doc, Some(&heads)).1, &lines);
            let edit = edit(&doc, &heads, &new, Style { crlf: style.0, bom: style.1 });
            prop_assume!(!edit.is_empty());
            let (mut other, mut there) = (again(&doc), doc.fork_at(&heads).unwrap());

            let change = enter(&edit, &mut doc, &heads, [who; 16], 9).unwrap();
            prop_assert_eq!(text::read(&doc, Some(&[change.hash()])), (edit.style.1, new));
            prop_assert!(is_actor_of(change.actor_id().to_bytes(), &[who; 16]));
            other.apply_changes([Change::from_bytes(change.raw_bytes().to_vec()).unwrap()]).unwrap();
            prop_assert_eq!(other.get_heads(), doc.get_heads());
            prop_assert_eq!(text::read(&other, None), text::read(&doc, None));
            prop_assert_eq!(text::read(&again(&doc), None), text::read(&doc, None));

            let expected = made_there(&edit, &mut there, change.actor_id().clone());
            if expected.deps() == change.deps() {
                prop_assert_eq!(expected.raw_bytes(), change.raw_bytes());
            } else {
                // A transaction also names the actor's own last change, which lies below one of the heads.
                prop_assert_eq!(expected.decode().operations, change.decode().operations);
                prop_assert_eq!((expected.seq(), expected.start_op()), (change.seq(), change.start_op()));
            }
        }
    }

    /// Edits beside one's own newer changes are by actors that Automerge would have chosen, one after the other.
    #[test]
    fn actors_beside_are_those_of_automerge() {
        let mut doc = begin("one\ntwo\nthree\n");
        let old = doc.get_heads();
        save(&mut doc, 1, "one\ntwo\nTHREE\n");
        for level in 1..200u32 {
            let edit = edit(&doc, &old, &format!("one {level}\ntwo\nthree\n"), Style::default());
            let theirs = edit.enter_by_transaction(&mut doc.clone(), Some(&old), [1; 16], 0);
            let ours = enter(&edit, &mut doc, &old, [1; 16], 0).unwrap();
            assert_eq!(ours.actor_id(), theirs.unwrap().actor_id());
            assert_eq!(ours.seq(), 1);
        }
    }

    /// A text in which a character was overwritten, or several put as one, is not built by hand. Through Automerge the edit
    /// comes out right, or not at all: never as something else than what was saved.
    #[test]
    fn a_text_of_other_than_single_characters_is_left_to_automerge() {
        for (value, fits) in [("x", true), ("xyz", false)] {
            let mut doc = begin("one\ntwo\n");
            let object = text::object_at(&doc, &doc.get_heads()).unwrap();
            doc.set_actor(ActorId::from([9; 16]));
            let mut tx = doc.transaction();
            tx.put(&object, 1, value).unwrap();
            tx.commit();
            let old = doc.get_heads();
            let longer = format!("{}three\n", text::read(&doc, None).1);
            save(&mut doc, 2, &longer);
            let new = text::read(&doc, Some(&old)).1.replace('x', "yy");
            let edit = edit(&doc, &old, &new, Style::default());
            let mut spoiled = again(&doc);
            assert!(enter(&edit, &mut spoiled, &old, [1; 16], 0).is_none(), "{value}");
            let change = edit.enter_by_transaction(&mut doc, Some(&old), [1; 16], 0);
            assert_eq!(change.is_some(), fits, "{value}");
            assert!(change.is_none_or(|change| text::read(&doc, Some(&[change.hash()])).1 == new));
        }
    }
}
