//! A knock that waits for an admin: what is kept of it until somebody decides, also over a restart.
//!
//! [admission, reply key32, first wall ms, last wall ms, denied]. Invariant: what is kept came in a knock that
//! opened and whose admission verified; it grants nothing by itself. Spec: docs/sealing.md#approval.

use weft_protocol::cbor::{Decoded, Reader, Wire, Writer};

use super::{Admission, Knock};
use crate::id::DeviceId;

/// Somebody asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// Signed by the joiner's device and by the link's key; names the invite.
    pub admission: Admission,
    /// Where to seal the answer to.
    pub reply_key: [u8; 32],
    /// When it was first heard, by the listener's clock.
    pub first_wall_ms: u64,
    /// When it was last heard.
    pub last_wall_ms: u64,
    /// Somebody here said no; kept so that it is said again.
    pub denied: bool,
}

impl JoinRequest {
    /// Of a knock heard now.
    #[must_use]
    pub fn new(knock: &Knock, wall_ms: u64) -> Self {
        Self {
            admission: knock.admission.clone(),
            reply_key: knock.reply_key,
            first_wall_ms: wall_ms,
            last_wall_ms: wall_ms,
            denied: false,
        }
    }
    /// The device that asks.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.admission.cert().device().id()
    }
}

impl Wire for JoinRequest {
    fn encode(&self, writer: &mut Writer) {
        writer.array(5).item(&self.admission).bytes(&self.reply_key);
        writer.uint(self.first_wall_ms).uint(self.last_wall_ms).bool(self.denied);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(5, "join request")?;
        Ok(Self {
            admission: reader.item()?,
            reply_key: reader.item()?,
            first_wall_ms: reader.uint()?,
            last_wall_ms: reader.uint()?,
            denied: reader.bool()?,
        })
    }
}
