//! The log of what happened to files, for people.
//!
//! Invariant: what somebody did keeps their name when they belong no more. Why names are told with it: an entry holds a
//! device, and only the membership's history knows whose that was. Spec: docs/using.md.

use std::collections::BTreeMap;

use super::Workspace;
use super::command::Reply;
use crate::files::{LogEntry, decode_log};
use crate::id::{DeviceId, RootKey};
use crate::op::OpBody;
use crate::store::{Read, Table};

/// Log entries in one answer.
const LOG_LIMIT_MAX: u32 = 10_000;

impl Workspace {
    pub(super) fn log(&self, since_wall_ms: u64, limit: u32, read: &dyn Read) -> Reply {
        Reply::Log { entries: read_log(since_wall_ms, limit, read), names: self.device_names(), own: self.my_device() }
    }

    /// Whose each device is that ever belonged, by name.
    fn device_names(&self) -> BTreeMap<DeviceId, String> {
        let Some(ops) = &self.ops else { return BTreeMap::new() };
        let mut roots: BTreeMap<RootKey, &str> = BTreeMap::new();
        roots.insert(ops.genesis().root().sign, ops.genesis().member_name());
        for op in ops.ops() {
            if let OpBody::Welcome { admission, .. } = op.body() {
                roots.entry(admission.cert().root().sign).or_insert_with(|| admission.name());
            }
        }
        roots.extend(self.membership.members.iter().map(|(root, member)| (*root, member.name.as_str())));
        let named = |(device, root): (&DeviceId, &RootKey)| Some((*device, (*roots.get(root)?).to_owned()));
        self.membership.devices.iter().filter_map(|(device, facts)| named((device, &facts.root))).collect()
    }
}

fn read_log(since_wall_ms: u64, limit: u32, read: &dyn Read) -> Vec<LogEntry> {
    let limit = limit.min(LOG_LIMIT_MAX) as usize;
    let mut entries = Vec::new();
    let mut after = Some(since_wall_ms.to_be_bytes().to_vec());
    loop {
        let page = read.scan(Table::Log, &[], after.as_deref(), 512);
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        entries.extend(page.iter().filter_map(|(_, row)| decode_log(row)));
        if entries.len() > 2 * limit {
            entries.drain(..entries.len() - limit);
        }
    }
    if entries.len() > limit {
        entries.drain(..entries.len() - limit);
    }
    entries
}
