//! A workspace with a founder, and people who join it the whole way: link, knock, welcome, answer.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::epoch::Epoch;
use crate::id::{OpId, WorkspaceId};
use crate::identity::LocalIdentity;
use crate::invite::{InviteSecret, KnockKeys};
use crate::invite_link::InviteLink;
use crate::knock::{Answer, AnswerOpener, Knock, ReplyKey, make_answer, make_knock, open_knock};
use crate::membership::{Inserted, OpSet, Role, evaluate};
use crate::op::ops::{self, Author};
use crate::op::{Genesis, OpSigner, Policy, SignedOp};

#[derive(Clone)]
pub(super) struct World {
    pub(super) rng: ChaCha20Rng,
    pub(super) founder: LocalIdentity,
    pub(super) set: OpSet,
    pub(super) epoch: Epoch,
}

pub(super) const HOUR: u64 = 3_600_000;

impl World {
    pub(super) fn found(seed: u8) -> Self {
        Self::found_with(seed, None)
    }
    pub(super) fn found_with(seed: u8, recovery: Option<[u8; 32]>) -> Self {
        let mut rng = ChaCha20Rng::from_seed([seed; 32]);
        let founder = LocalIdentity::generate(&mut rng, "Ada", "laptop");
        let genesis = Genesis::found(&founder, "notes", Policy::default(), recovery, &mut rng).unwrap();
        let set = OpSet::new(genesis);
        let author = author(&set, &founder);
        let (op, epoch) = ops::epoch(&author, &evaluate(&set), &[], &mut rng).unwrap();
        let mut world = Self { rng, founder, set, epoch };
        world.add(op);
        world
    }
    pub(super) fn workspace(&self) -> WorkspaceId {
        self.set.workspace()
    }
    /// Inserts an op that must be new and whose parents must be here.
    pub(super) fn add(&mut self, op: SignedOp) -> OpId {
        let id = op.id();
        assert!(matches!(self.set.insert(op), Ok(Inserted::Added(_))));
        id
    }
    pub(super) fn invite(&mut self, by: &LocalIdentity, role: Role) -> (InviteLink, OpId) {
        let secret = InviteSecret::generate(&mut self.rng);
        let op = ops::invite(&author(&self.set, by), &secret, role, HOUR, 5, false);
        let id = self.add(op);
        let link = InviteLink {
            workspace: self.workspace(),
            secret,
            op_heads: vec![id],
            inviter: by.device.id(),
            urls: vec!["wss://relay.example:443".to_owned()],
            name: "notes".to_owned(),
        };
        (InviteLink::parse(&link.to_text()).unwrap(), id)
    }
    pub(super) fn knock(&mut self, link: &InviteLink, who: &LocalIdentity, reply: &ReplyKey) -> Knock {
        let state = evaluate(&self.set);
        let invite = state.invites.get(&link.invite()).unwrap();
        let keys = KnockKeys::new(&self.workspace(), &invite.knock);
        assert_eq!(keys.room.id, link.keys().knock.room.id);
        let knock = make_knock(link, who, reply, &mut self.rng).unwrap();
        open_knock(&self.workspace(), link.invite(), invite, &keys, knock.bytes()).unwrap()
    }
    /// Lets a new person in at `role`, invited and welcomed by `by`; returns them with what their machine holds.
    pub(super) fn join(&mut self, by: &LocalIdentity, role: Role, name: &str) -> (LocalIdentity, Answer) {
        let (link, _) = self.invite(by, role);
        let who = LocalIdentity::generate(&mut self.rng, name, "desk");
        let reply = ReplyKey::generate(&mut self.rng);
        let knock = self.knock(&link, &who, &reply);
        let author = author(&self.set, by);
        let op = ops::welcome(&author, link.invite(), knock.admission, role, &self.epoch, &mut self.rng).unwrap();
        self.add(op);
        let keys = link.keys().knock;
        let parts = make_answer(&self.set, link.invite(), &keys, &knock.reply_key, &mut self.rng).unwrap();
        let mut opener = AnswerOpener::new(link, reply, who.device.id(), vec![who.device.kem_secret().clone()]);
        let mut answer = None;
        for part in parts {
            answer = opener.push(part.bytes()).unwrap();
        }
        (who, answer.unwrap())
    }
    pub(super) fn state(&self) -> std::sync::Arc<crate::membership::Membership> {
        evaluate(&self.set)
    }
}

pub(super) fn author<'a>(set: &OpSet, who: &'a LocalIdentity) -> Author<'a> {
    at(set, who, set.heads())
}

pub(super) fn at<'a>(set: &OpSet, who: &'a LocalIdentity, parents: Vec<OpId>) -> Author<'a> {
    Author { workspace: set.workspace(), parents, signer: OpSigner::Device(&who.device), wall_ms: 1 }
}
