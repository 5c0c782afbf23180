//! Attacks on the membership, each stopped by one defence: with it the attack fails, without it, it succeeds.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::script::{Cast, further_device, stopped_by};
use crate::id::OpId;
use crate::identity::{DeviceCert, LocalIdentity};
use crate::invite::InviteSecret;
use crate::knock::{Admission, ReplyKey};
use crate::membership::{Defence, Role, evaluate_at};
use crate::op::ops;
use crate::op::{Cut, EpochGrant, OpBody, OpSigner, SignedOp};

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

/// Somebody in between, or another member, writes an op in another's name.
#[test]
fn forged_signature() {
    stopped_by(Defence::Signature, |cast| {
        let honest = cast.removal(0, 3, cast.base(), Cut::default());
        let mut bytes = honest.bytes().to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let forged = SignedOp::parse(&cast.world.workspace(), &bytes).unwrap();
        let _ = cast.world.set.insert(forged);
        cast.role(3).is_none()
    });
}

/// An admin who was removed acts as if it had not heard of it: whatever it does counts as concurrent, and not at all.
#[test]
fn removed_admin_backdates() {
    stopped_by(Defence::RemovalVoids, |cast| {
        let base = cast.base();
        cast.remove(0, 3, base.clone());
        cast.remove(3, 5, base);
        assert_eq!(cast.role(3), None);
        cast.role(5).is_none()
    });
}

/// Admins remove each other.
#[test]
fn admin_removes_admin() {
    stopped_by(Defence::StrictRank, |cast| {
        let base = cast.base();
        cast.remove(3, 4, base);
        cast.role(4).is_none()
    });
}

/// An owner who was removed has named, as if before, an admin who removes people.
#[test]
fn removed_owner_leaves_a_sock_puppet() {
    stopped_by(Defence::Support, |cast| {
        let base = cast.base();
        let removal = cast.remove(0, 1, base.clone());
        let vote = ops::endorse(&cast.by(2, vec![removal]), removal);
        cast.add(vote);
        assert_eq!(cast.role(1), None);
        let named = cast.promote(1, 6, Role::Admin, base);
        cast.remove(6, 5, vec![named]);
        cast.role(5).is_none()
    });
}

/// What such a puppet does voids nothing either: writers' concurrent work stands.
#[test]
fn what_falls_voids_nothing() {
    let mut cast = Cast::ranks();
    let base = cast.base();
    let removal = cast.remove(0, 1, base.clone());
    let vote = ops::endorse(&cast.by(2, vec![removal]), removal);
    cast.add(vote);
    let named = cast.promote(1, 6, Role::Admin, base.clone());
    cast.remove(6, 5, vec![named]);
    let admission = cast.admission.clone();
    let (invite, epoch) = (cast.invite, cast.world.epoch.clone());
    let welcome = ops::welcome(&cast.by(5, base), invite, admission, Role::Writer, &epoch, &mut rng(1)).unwrap();
    cast.add(welcome);
    assert_eq!(cast.world.state().role_of(&cast.guest.device.id()), Some(Role::Writer));
}

/// One owner removes another.
#[test]
fn one_owner_removes_another() {
    stopped_by(Defence::Quorum, |cast| {
        let base = cast.base();
        cast.remove(0, 1, base);
        cast.role(1).is_none()
    });
}

/// One owner names friends owners, to be a quorum with them.
#[test]
fn one_owner_fills_the_electorate() {
    stopped_by(Defence::Quorum, |cast| {
        let base = cast.base();
        let one = cast.promote(0, 5, Role::Owner, base);
        let two = cast.promote(0, 6, Role::Owner, vec![one]);
        cast.role(5) == Some(Role::Owner) && evaluate_at(&cast.world.set, &[two]).is_some()
    });
}

/// Two owners end a third; a vote of somebody who is no owner any more does not count, nor of one named since.
#[test]
fn owners_decide_together() {
    let mut cast = Cast::ranks();
    let removal = cast.remove(0, 1, cast.base());
    assert_eq!(cast.role(1), Some(Role::Owner));
    let proposal = &cast.world.state().proposals[&removal];
    assert_eq!((proposal.votes.len(), proposal.needed), (1, 2));
    let own = ops::endorse(&cast.by(0, vec![removal]), removal);
    cast.add(own);
    let by_target = ops::endorse(&cast.by(1, vec![removal]), removal);
    cast.add(by_target);
    let by_admin = ops::endorse(&cast.by(3, vec![removal]), removal);
    cast.add(by_admin);
    assert_eq!(cast.role(1), Some(Role::Owner));
    let before = cast.world.set.heads();
    let vote = ops::endorse(&cast.by(2, before), removal);
    cast.add(vote);
    assert_eq!(cast.role(1), None);
    assert!(cast.world.state().proposals.is_empty());

    // The proposer was removed before anybody agreed: what is left is one vote.
    let mut cast = Cast::ranks();
    let stale = cast.remove(0, 1, cast.base());
    let other = cast.remove(1, 0, vec![stale]);
    let vote = ops::endorse(&cast.by(2, vec![other]), other);
    let gone = cast.add(vote);
    assert_eq!(cast.role(0), None);
    let vote = ops::endorse(&cast.by(2, vec![gone]), stale);
    cast.add(vote);
    assert_eq!(cast.role(1), Some(Role::Owner));
}

/// The recovery key removes and names whom it wants, but another key is nobody's.
#[test]
fn the_recovery_key_decides() {
    let mut cast = Cast::ranks();
    let state = cast.world.state();
    let old = [&cast.world.epoch];
    let mut by = cast.by(0, cast.base());
    let stranger = ed25519_dalek::SigningKey::from_bytes(&[3; 32]);
    by.signer = OpSigner::Recovery(&stranger);
    let (op, _) = ops::remove(&by, &state, cast.root(1), Cut::default(), &old, &mut rng(2)).unwrap();
    assert_eq!(cast.world.set.clone().insert(op), Err(crate::membership::InsertError::UnknownSigner));
    by.signer = OpSigner::Recovery(&cast.recovery);
    let (op, _) = ops::remove(&by, &state, cast.root(1), Cut::default(), &old, &mut rng(2)).unwrap();
    let (named, _) = ops::role(&by, &state, cast.root(5), Role::Owner, Cut::default(), &old, &mut rng(3)).unwrap();
    cast.add(op);
    cast.add(named);
    assert_eq!((cast.role(1), cast.role(5)), (None, Some(Role::Owner)));
}

/// Owners who all go at once leave nobody; of such, none counts.
#[test]
fn everybody_leaves() {
    stopped_by(Defence::OwnerLeft, |cast| {
        let base = cast.base();
        for who in 0..3 {
            let leave = ops::leave(&cast.by(who, base.clone()));
            cast.add(leave);
        }
        (0..3).all(|who| cast.role(who).is_none())
    });
}

/// What stands for long is not undone because the last owners go at once: an owner removed before stays removed.
#[test]
fn only_the_latest_ends_are_set_aside() {
    let mut cast = Cast::ranks();
    let removal = cast.remove(0, 1, cast.base());
    let vote = ops::endorse(&cast.by(2, vec![removal]), removal);
    let gone = cast.add(vote);
    for who in [0, 2] {
        let leave = ops::leave(&cast.by(who, vec![gone]));
        cast.add(leave);
    }
    assert_eq!([cast.role(0), cast.role(1), cast.role(2)], [Some(Role::Owner), None, Some(Role::Owner)]);
}

/// A thief with a second device brings the revoked one back.
#[test]
fn thief_brings_a_revoked_device_back() {
    stopped_by(Defence::WordsReadmit, |cast| {
        let who = cast.people[5].clone();
        let phone = further_device(&who, 1);
        let cert = DeviceCert::by_device(&who.device, who.root_public, phone.public());
        let op = ops::device(&cast.by(5, cast.base()), cert.clone(), "phone");
        let added = cast.add(op);
        let state = cast.world.state();
        let by = cast.by(5, vec![added]);
        let old = [&cast.world.epoch];
        let (op, _) = ops::revoke(&by, &state, vec![phone.id()], Cut::default(), &old, &mut rng(3)).unwrap();
        let revoked = cast.add(op);
        assert_eq!(cast.world.state().role_of(&phone.id()), None);
        let op = ops::device(&cast.by(5, vec![revoked]), cert, "phone");
        cast.add(op);
        cast.world.state().role_of(&phone.id()).is_some()
    });
}

/// The words bring a revoked device back.
#[test]
fn words_bring_a_revoked_device_back() {
    let mut cast = Cast::ranks();
    let who = cast.people[5].clone();
    let (state, old) = (cast.world.state(), cast.world.epoch.clone());
    let by = cast.by(0, cast.base());
    let (op, _) = ops::revoke(&by, &state, vec![who.device.id()], Cut::default(), &[&old], &mut rng(3)).unwrap();
    let revoked = cast.add(op);
    assert_eq!(cast.world.state().role_of(&who.device.id()), None);
    assert_eq!(cast.role(5), Some(Role::Writer));
    let mut by = cast.by(5, vec![revoked]);
    let root = who.root.clone().unwrap();
    by.signer = OpSigner::Root(&root);
    let op = ops::device(&by, DeviceCert::by_root(&root, who.device.public()), "desk");
    cast.add(op);
    assert_eq!(cast.world.state().role_of(&who.device.id()), Some(Role::Writer));
}

/// A stolen laptop certifies the thief's own device while its owner revokes it from another one.
#[test]
fn revoked_device_leaves_an_heir() {
    stopped_by(Defence::RevocationEndsIntroductions, |cast| {
        let who = cast.people[5].clone();
        let (phone, heir) = (further_device(&who, 1), further_device(&who, 2));
        let cert = DeviceCert::by_device(&who.device, who.root_public, phone.public());
        let op = ops::device(&cast.by(5, cast.base()), cert, "phone");
        let added = cast.add(op);
        let state = cast.world.state();
        let old = cast.world.epoch.clone();
        let mut by = cast.by(5, vec![added]);
        by.signer = OpSigner::Device(&phone);
        let (op, _) = ops::revoke(&by, &state, vec![who.device.id()], Cut::default(), &[&old], &mut rng(3)).unwrap();
        cast.add(op);
        let cert = DeviceCert::by_device(&who.device, who.root_public, heir.public());
        let op = ops::device(&cast.by(5, vec![added]), cert, "heir");
        cast.add(op);
        cast.world.state().role_of(&heir.id()).is_some()
    });
}

fn epoch_of(body: &OpBody) -> EpochGrant {
    body.epoch().unwrap().clone()
}

/// Somebody hands the next key to a device that does not belong.
#[test]
fn key_for_the_removed_one() {
    stopped_by(Defence::Recipients, |cast| {
        let removal = cast.removal(0, 3, cast.base(), Cut::default());
        let OpBody::Remove { root, cut, mut epoch } = removal.body().clone() else { panic!("a removal") };
        epoch.recipients.push(cast.device(3));
        epoch.recipients.sort();
        let id = epoch.id(&cast.world.workspace());
        let op = cast.by(0, cast.base()).sign(OpBody::Remove { root, cut, epoch });
        cast.add(op);
        cast.world.state().epochs.get(&id).is_some_and(|facts| facts.grant.recipients.contains(&cast.device(3)))
    });
}

/// A demotion without a new key: the demoted one would go on with the old one.
#[test]
fn half_done_rotation() {
    stopped_by(Defence::Rotation, |cast| {
        let body = OpBody::Role { root: cast.root(5), role: Role::Reader, cut: Cut::default(), epoch: None };
        let op = cast.by(0, cast.base()).sign(body);
        cast.add(op);
        cast.role(5) == Some(Role::Reader)
    });
}

fn let_in(cast: &mut Cast, parents: Vec<OpId>) -> bool {
    let (invite, admission, epoch) = (cast.invite, cast.admission.clone(), cast.world.epoch.clone());
    let welcome = ops::welcome(&cast.by(5, parents), invite, admission, Role::Writer, &epoch, &mut rng(4)).unwrap();
    cast.add(welcome);
    cast.world.state().role_of(&cast.guest.device.id()).is_some()
}

/// A leaked link that was withdrawn.
#[test]
fn leaked_link_after_it_was_withdrawn() {
    stopped_by(Defence::OpenInvite, |cast| {
        let op = ops::uninvite(&cast.by(0, cast.base()), cast.invite);
        let withdrawn = cast.add(op);
        let_in(cast, vec![withdrawn])
    });
}

/// A removed admin's links go on working; so do those of one who is no admin any more.
#[test]
fn invites_of_a_removed_admin() {
    for removed in [true, false] {
        stopped_by(Defence::IssuerStays, |cast| {
            let secret = InviteSecret::generate(&mut rng(5));
            let op = ops::invite(&cast.by(3, cast.base()), &secret, Role::Writer, 9, 1, false);
            cast.invite = cast.add(op);
            let keys = secret.keys(&cast.world.workspace());
            cast.admission = Admission::make(&cast.world.workspace(), cast.invite, &keys.sign, &cast.guest);
            let after = vec![cast.invite];
            let ended = if removed { cast.remove(0, 3, after) } else { cast.promote(0, 3, Role::Writer, after) };
            let_in(cast, vec![ended])
        });
    }
}

/// A link that was made for one person leaks to another.
#[test]
fn link_for_somebody_else() {
    stopped_by(Defence::NamedGuest, |cast| {
        let (secret, whom) = (InviteSecret::generate(&mut rng(5)), Some(cast.root(6)));
        let op = ops::invite_for(&cast.by(0, cast.base()), &secret, Role::Writer, 9, 1, false, whom);
        cast.invite = cast.add(op);
        let keys = secret.keys(&cast.world.workspace());
        cast.admission = Admission::make(&cast.world.workspace(), cast.invite, &keys.sign, &cast.guest);
        let after = vec![cast.invite];
        let_in(cast, after)
    });
}

/// Somebody who was removed has kept a link for several people, which they did not come by.
#[test]
fn removed_member_comes_back_by_a_link_they_kept() {
    stopped_by(Defence::InvitedSince, |cast| {
        let keys = kept_link(cast);
        let removed = cast.remove(0, 6, vec![cast.invite]);
        let who = cast.people[6].clone();
        cast.admission = Admission::make(&cast.world.workspace(), cast.invite, &keys.sign, &who);
        let (invite, admission, epoch) = (cast.invite, cast.admission.clone(), cast.world.epoch.clone());
        let by = cast.by(5, vec![removed]);
        let welcome = ops::welcome(&by, invite, admission, Role::Writer, &epoch, &mut rng(4)).unwrap();
        cast.add(welcome);
        cast.role(6).is_some()
    });
    // A link that was made since lets them in again.
    let mut cast = Cast::ranks();
    let removed = cast.remove(0, 6, cast.base());
    let secret = InviteSecret::generate(&mut rng(5));
    let op = ops::invite(&cast.by(0, vec![removed]), &secret, Role::Writer, 9, 1, false);
    let invite = cast.add(op);
    let keys = secret.keys(&cast.world.workspace());
    let admission = Admission::make(&cast.world.workspace(), invite, &keys.sign, &cast.people[6]);
    let epoch = cast.world.epoch.clone();
    let welcome =
        ops::welcome(&cast.by(5, vec![invite]), invite, admission, Role::Writer, &epoch, &mut rng(4)).unwrap();
    cast.add(welcome);
    assert_eq!(cast.role(6), Some(Role::Writer));
}

/// An invite for several people on the base; becomes the cast's.
fn kept_link(cast: &mut Cast) -> crate::invite::InviteKeys {
    let secret = InviteSecret::generate(&mut rng(5));
    let op = ops::invite(&cast.by(0, cast.base()), &secret, Role::Writer, 9, 5, false);
    cast.invite = cast.add(op);
    secret.keys(&cast.world.workspace())
}

/// A link for a member's lost device ends when that member is removed, or leaves.
#[test]
fn link_for_a_member_ends_with_the_member() {
    for leaves in [false, true] {
        let mut cast = Cast::ranks();
        let (secret, whom) = (InviteSecret::generate(&mut rng(5)), Some(cast.root(6)));
        let op = ops::invite_for(&cast.by(0, cast.base()), &secret, Role::Reader, 9, 1, false, whom);
        let invite = cast.add(op);
        assert!(cast.world.state().invites[&invite].open);
        if leaves {
            let op = ops::leave(&cast.by(6, vec![invite]));
            cast.add(op);
        } else {
            cast.remove(0, 6, vec![invite]);
        }
        assert!(!cast.world.state().invites[&invite].open);
        let anew = cast.world.set.state_anew(&cast.world.set.heads()).unwrap();
        assert_eq!(anew, *cast.world.state());
    }
}

/// Two owners disagree on somebody's role at once: ids ground until they sort first give nothing.
#[test]
fn ground_ids() {
    let attack = |cast: &mut Cast, wall_ms: u64| {
        let base = cast.base();
        cast.promote(0, 5, Role::Reader, base.clone());
        let mut by = cast.by(1, base);
        by.wall_ms = wall_ms;
        let body = OpBody::Role { root: cast.root(5), role: Role::Admin, cut: Cut::default(), epoch: None };
        let op = by.sign(body);
        cast.add(op);
        cast.role(5) == Some(Role::Admin)
    };
    let with = |lacks: Option<Defence>| {
        (0..16).any(|wall_ms| {
            let mut cast = Cast::ranks();
            cast.world.set.lacks = lacks;
            attack(&mut cast, wall_ms)
        })
    };
    assert!(!with(None));
    assert!(with(Some(Defence::LeastPrivilege)));
}

/// Epochs that nobody is entitled to hand out are none: a reader's, a stranger's parents, one that exists.
#[test]
fn unlawful_epochs() {
    let mut cast = Cast::ranks();
    let demoted = cast.promote(0, 5, Role::Reader, cast.base());
    let (state, old) = (cast.world.state(), cast.world.epoch.clone());
    let (op, _) = ops::epoch(&cast.by(5, vec![demoted]), &state, &[&old], &mut rng(6)).unwrap();
    let by_reader = cast.add(op);
    assert!(!cast.world.set.is_authorised(&by_reader));
    let (op, _) = ops::epoch(&cast.by(0, vec![demoted]), &state, &[&old], &mut rng(7)).unwrap();
    let mut grant = epoch_of(op.body());
    grant.parents[0].parent = crate::id::EpochId([9; 16]);
    let unknown_parent = cast.by(0, vec![demoted]).sign(OpBody::Epoch(grant));
    let unknown_parent = cast.add(unknown_parent);
    assert!(!cast.world.set.is_authorised(&unknown_parent));
    let lawful = cast.add(op.clone());
    assert!(cast.world.set.is_authorised(&lawful));
    let again = cast.by(1, vec![lawful]).sign(op.body().clone());
    let again = cast.add(again);
    assert!(!cast.world.set.is_authorised(&again));
}

/// The founder race: whoever names the same people and the same name founds another workspace.
#[test]
fn founder_race() {
    let mut rng = rng(8);
    let founder = LocalIdentity::generate(&mut rng, "Ada", "laptop");
    let found = |rng: &mut ChaCha20Rng| {
        crate::op::Genesis::found(&founder, "notes", crate::op::Policy::default(), None, rng).unwrap()
    };
    let (one, other) = (found(&mut rng), found(&mut rng));
    assert_ne!(one.workspace(), other.workspace());
    let mut bytes = one.bytes().to_vec();
    bytes[5] ^= 1;
    assert!(crate::op::Genesis::parse(&bytes).is_err());
}

/// A member's other root key, or a device of somebody else, cannot come in under a known name.
#[test]
fn keys_stay_with_their_member() {
    let mut cast = Cast::ranks();
    let mut thief = LocalIdentity::generate(&mut rng(9), "Person 5", "desk");
    thief.device = cast.people[5].device.clone();
    thief.cert = DeviceCert::by_root(thief.root.as_ref().unwrap(), thief.device.public());
    let (link, invite) = {
        let founder = cast.people[0].clone();
        cast.world.invite(&founder, Role::Writer)
    };
    let admission = cast.world.knock(&link, &thief, &ReplyKey::generate(&mut rng(10))).admission;
    let epoch = cast.world.epoch.clone();
    let by = cast.by(0, vec![invite]);
    let op = ops::welcome(&by, invite, admission, Role::Writer, &epoch, &mut rng(11)).unwrap();
    let id = cast.add(op);
    assert!(!cast.world.set.is_authorised(&id));
}
