//! Who this agent is: a member's root key, a device's keys, and the certificate that joins them.
//!
//! A member is an Ed25519 root key from 24 words; a device has an Ed25519 signing key and an X25519 key, certified by the
//! root or by another active device of the member. Invariant: whatever decodes has sound keys, and its certificate's
//! signature was checked. Spec: docs/sealing.md#identity.

mod cert;
mod device;
mod local;
mod name;
mod recovery;
mod root;

pub use cert::{CertError, Certifier, DeviceCert};
pub use device::{DeviceKeys, DevicePublic};
pub use local::{IdentityError, LocalIdentity};
pub use name::{NAME_BYTES_MAX, clean_name, fingerprint};
pub(crate) use name::{four_words, read_name};
pub use recovery::RecoveryKey;
pub use root::{RootPublic, RootSecret, WordsError};
