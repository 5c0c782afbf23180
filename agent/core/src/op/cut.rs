//! Points on chains, and sorted sets of them: what the author of a removal held of each chain concerned.
//! Spec: docs/sealing.md#cuts.

use weft_protocol::cbor::{DecodeError, Decoded, Reader, Wire, Writer};

use crate::id::{ChainId, Link};

/// Most chains in a cut: 64 incarnations of 16 devices.
pub const CUT_CHAINS_MAX: usize = 1024;

/// [device16, inc8, seq, link32]: an envelope of a chain, by number and link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainPoint {
    /// The chain.
    pub chain: ChainId,
    /// The number, from 1.
    pub seq: u64,
    /// The link of that envelope.
    pub link: Link,
}

impl Wire for ChainPoint {
    fn encode(&self, writer: &mut Writer) {
        writer.array(4).item(&self.chain.device).bytes(&self.chain.incarnation.to_be_bytes());
        writer.uint(self.seq).item(&self.link);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        reader.array(4, "chain point")?;
        let device = reader.item()?;
        let incarnation = u64::from_be_bytes(reader.fixed("incarnation")?);
        Ok(Self { chain: ChainId { device, incarnation }, seq: reader.uint()?, link: reader.item()? })
    }
}

/// One point a chain, ascending by chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cut(Vec<ChainPoint>);

impl Cut {
    /// Sorted, the highest point of each chain, at most [`CUT_CHAINS_MAX`] chains.
    #[must_use]
    pub fn new(mut points: Vec<ChainPoint>) -> Self {
        points.sort_by(|one, other| one.chain.cmp(&other.chain).then(other.seq.cmp(&one.seq)));
        points.dedup_by_key(|point| point.chain);
        points.truncate(CUT_CHAINS_MAX);
        Self(points)
    }
    /// The points.
    #[must_use]
    pub fn points(&self) -> &[ChainPoint] {
        &self.0
    }
}

impl Wire for Cut {
    fn encode(&self, writer: &mut Writer) {
        writer.list(&self.0);
    }
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let points: Vec<ChainPoint> = reader.list(CUT_CHAINS_MAX, "cut")?;
        let ascending = points.iter().zip(points.iter().skip(1)).all(|(one, next)| one.chain < next.chain);
        if !ascending || points.iter().any(|point| point.seq == 0) {
            return Err(DecodeError::Invalid("cut"));
        }
        Ok(Self(points))
    }
}
