//! Blinded tags: how agents of one workspace recognise each other on a network without saying which workspace it is.
//!
//! Invariant: a tag is 8 bytes of a keyed hash over the hour; without the workspace id (which only members and holders
//! of a link know) two hours of one workspace look unrelated.

use weft_agent_core::id::WorkspaceId;

const HOUR_MS: u64 = 3_600_000;

/// The tag of a workspace in an hour, in hexadecimal.
fn in_hour(workspace: &WorkspaceId, hour: u64) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("weft/v1/lan-tag");
    hasher.update(workspace.as_bytes()).update(&hour.to_be_bytes());
    hasher.finalize().to_hex().chars().take(16).collect()
}

/// The tag to say now.
pub(crate) fn now(workspace: &WorkspaceId, wall_ms: u64) -> String {
    in_hour(workspace, wall_ms / HOUR_MS)
}

/// Whether somebody who says `tag` is of this workspace; clocks may differ by an hour.
pub(crate) fn is_of(workspace: &WorkspaceId, tag: &str, wall_ms: u64) -> bool {
    let hour = wall_ms / HOUR_MS;
    (hour.saturating_sub(1)..=hour.saturating_add(1)).any(|hour| in_hour(workspace, hour) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members recognise it within an hour's difference; it changes; others differ.
    #[test]
    fn recognised_by_members_only() {
        let (mine, other) = (WorkspaceId([1; 32]), WorkspaceId([2; 32]));
        let tag = now(&mine, 10 * HOUR_MS);
        assert!(is_of(&mine, &tag, 11 * HOUR_MS) && is_of(&mine, &tag, 9 * HOUR_MS));
        assert!(!is_of(&mine, &tag, 12 * HOUR_MS) && !is_of(&other, &tag, 10 * HOUR_MS));
        assert_ne!(tag, now(&mine, 11 * HOUR_MS));
    }
}
