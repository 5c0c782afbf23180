//! One workspace's folder: a thread that looks at it and acts in it, and nothing else does.
//!
//! The thread takes, in this order: what it is told to do (acts and looks, in the order given), what the watcher
//! noticed (debounced), and slowly, all the time, a whole look at everything, because watchers miss things.
//!
//! Invariant: events are hints; only content decides. What cannot be read is never reported as absent; if it is the root,
//! that is reported as lost. All absences of one scan leave in one message, so that a mass delete shows as one, and before
//! what is present, so that what moved is not a new file.
//! Spec: docs/files.md#folder.

pub(crate) mod act;
pub(crate) mod at;
mod closed;
pub(crate) mod emptied;
pub(crate) mod glance;
pub(crate) mod guard;
pub(crate) mod ignore;
pub(crate) mod kept;
pub(crate) mod known;
pub(crate) mod look;
pub(crate) mod marker;
pub(crate) mod orders;
pub(crate) mod patience;
pub(crate) mod place;
pub(crate) mod refuse;
pub(crate) mod scan;
pub(crate) mod thread;
pub(crate) mod watch;
pub(crate) mod writers;
