//! What somebody wrote before they heard that they were removed, revoked or demoted, and that came after whoever did that
//! had drawn the line.
//!
//! Invariant: it counts for nobody until somebody who could have removed them says so, and then for everybody, up to what
//! was held when they said it. Why: who draws the line knows only what has reached it, and a colleague who leaves has often
//! written something on the last day; but nothing of that may come in by itself. Spec: docs/sealing.md#acceptance.

use std::collections::{BTreeMap, BTreeSet};

use super::Workspace;
use super::command::{LateDetail, Reply};
use super::receive::Held;
use crate::disk::RelPath;
use crate::envelope::Kind;
use crate::files;
use crate::id::{ChainId, OpId, Place, RootKey};
use crate::membership::{Beyond, Lawful, Refused, ends_before};
use crate::op::{ChainPoint, Cut, OpBody};
use crate::store::{Read, Tx};
use crate::time::Timestamp;
use crate::vault::Location;

/// Paths that are listed of one member.
const PATHS_MAX: usize = 8;
/// Envelopes whose content is read to list them.
const READ_MAX: usize = 256;

impl Workspace {
    /// What lies beyond the ends of which members, by the ops that made those ends.
    fn late(&self, read: &dyn Read) -> BTreeMap<RootKey, BTreeMap<OpId, BTreeSet<Place>>> {
        let mut late: BTreeMap<RootKey, BTreeMap<OpId, BTreeSet<Place>>> = BTreeMap::new();
        let Some(ops) = &self.ops else { return late };
        let why = Refused::BeyondCut.to_string();
        // Cuts name no branches: what is in one is settled by the fork.
        for place in self.verdicts.void_places().filter(|place| !place.chain.is_branch()) {
            let Some(held) = self.held(place, read).filter(|held| held.refused == why) else { continue };
            let Some(device) = self.membership.devices.get(&place.chain.device) else { continue };
            let Held { link, kind, op_heads, .. } = held;
            let kind = Kind::from_byte(kind);
            for beyond in ends_before(ops, &self.membership, link, place.chain, place.seq, kind, &op_heads) {
                let Beyond::End(op) = beyond else { continue };
                if self.membership.ends.get(&op).is_some_and(|end| end.chain.is_none()) {
                    late.entry(device.root).or_default().entry(op).or_default().insert(place);
                }
            }
        }
        late
    }

    /// The same, for people.
    pub(super) fn late_details(&mut self, read: &dyn Read) -> Vec<LateDetail> {
        let mut details = Vec::new();
        for (root, by_end) in self.late(read) {
            let places: BTreeSet<Place> = by_end.into_values().flatten().collect();
            let mut paths: BTreeSet<RelPath> = BTreeSet::new();
            for place in places.iter().take(READ_MAX) {
                let Some(content) = self.vault.content(&Location::Sealed(*place), read) else { continue };
                let files = content.documents.iter().filter_map(|(name, _)| files::file_of(name));
                paths.extend(files.filter_map(|id| self.files.path_of(id)));
            }
            let count = places.len() as u64;
            let paths = paths.into_iter().take(PATHS_MAX).collect();
            details.push(LateDetail { root, name: self.member_name(&root), count, paths });
        }
        details
    }

    /// Lets what a member wrote late count: whoever could have drawn the line may draw it further out.
    pub(super) fn keep_late(&mut self, now: Timestamp, root: RootKey, tx: &Tx<'_>) -> Reply {
        let Some(by_end) = self.late(tx).remove(&root) else {
            return Reply::Refused(
                "Nothing of theirs is set aside here. What they wrote offline and never sent is on their computer only."
                    .into(),
            );
        };
        for (op, places) in by_end {
            let mut furthest: BTreeMap<ChainId, u64> = BTreeMap::new();
            for place in places {
                let seq = furthest.entry(place.chain).or_default();
                *seq = place.seq.max(*seq);
            }
            let points = furthest.into_iter().filter_map(|(chain, seq)| {
                let link = self.held(Place { chain, seq }, tx)?.link;
                Some(ChainPoint { chain, seq, link })
            });
            let cut = Cut::new(points.collect());
            let Some(further) = self.sign_op(now, OpBody::ExtendCut { op, cut }) else { break };
            if self.judge(&further) == Lawful::No {
                return Reply::Refused(
                    "Only an admin or owner who ranks at least as high as the member who removed, revoked or demoted them may do this."
                        .into(),
                );
            }
            self.publish_op(&further, tx);
        }
        Reply::Done
    }
}
