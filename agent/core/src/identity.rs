//! Who this agent is.

/// Who this agent is: its member's root key (while it still has it), its device keys and their certificate.
pub struct LocalIdentity {}
