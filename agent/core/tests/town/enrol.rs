//! Further devices of members, and the recovery key, in the least town they can live in.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use weft_agent_core::enrol::{Pass, pairing_words};
use weft_agent_core::epoch::Epoch;
use weft_agent_core::id::RootKey;
use weft_agent_core::identity::{DeviceCert, LocalIdentity, RecoveryKey};
use weft_agent_core::membership::OpSet;
use weft_agent_core::op::{Genesis, OpBody, OpSigner, SignedOp};
use weft_agent_core::setup::{Setup, Watermark};
use weft_agent_core::store::{Read, Table};
use weft_agent_core::workspace::Workspace;
use weft_agent_core::workspace::command::{Command, Pairing, RecoveryDeed, Reply, State};

use super::{Role, Town, identity};

impl Town {
    fn pass(&mut self, host: usize, root: RootKey) -> Pass {
        match self.command(host, Command::Pass { root, lan: vec![] }) {
            Reply::Pass(text) => Pass::parse(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn pair(&mut self, host: usize, for_ms: u64) -> Pass {
        let until_mono_ms = self.now.mono_ms + for_ms;
        match self.command(host, Command::Pair { until_mono_ms, lan: vec!["ws://10.0.0.1:1".into()] }) {
            Reply::Pass(text) => Pass::parse(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn pairing(&mut self, host: usize) -> Pairing {
        match self.command(host, Command::Pairing) {
            Reply::Pairing(pairing) => pairing,
            other => panic!("{other:?}"),
        }
    }

    fn setup_as(&mut self, identity: LocalIdentity, watermark: Watermark) -> Setup {
        self.seed += 1;
        Setup { identity, seed: [self.seed; 32], watermark }
    }

    /// A device of the member that `whose` is, by its words; `device` is whose keys it has.
    fn by_words(&mut self, whose: &LocalIdentity, device: &LocalIdentity, pass: &Pass) -> usize {
        let root = whose.root.clone().unwrap();
        let cert = DeviceCert::by_root(&root, device.device.public());
        let body = OpBody::Device { cert: cert.clone(), label: device.label.clone() };
        let op = SignedOp::make(&pass.workspace, &pass.op_heads, OpSigner::Root(&root), self.now.wall_ms, body);
        let mut known = device.certified(cert, &device.name).unwrap();
        known.root = None;
        let setup = self.setup_as(known, Watermark { incarnation: 3, seq: 9 });
        let machine = Workspace::enrol(setup, self.now, pass.clone(), Some(op));
        self.add(machine)
    }

    fn by_pass(&mut self, identity: LocalIdentity, pass: &Pass) -> usize {
        let setup = self.setup_as(identity, Watermark::default());
        let machine = Workspace::enrol(setup, self.now, pass.clone(), None);
        self.add(machine)
    }

    fn labels(&mut self, host: usize, root: RootKey) -> Vec<(String, bool)> {
        let Reply::Members(members) = self.command(host, Command::Members) else { panic!("members") };
        let member = members.members.iter().find(|member| member.root == root).unwrap();
        member.devices.iter().map(|device| (device.label.clone(), device.active)).collect()
    }
}

fn fresh(seed: u8, label: &str) -> LocalIdentity {
    LocalIdentity::provisional(&mut ChaCha20Rng::from_seed([seed; 32]), "nobody yet", label)
}

/// Whoever lost every computer comes back with their words and a pass, whether they made it or another member did: the new
/// device has every file, is theirs for everybody, and edits flow both ways.
#[test]
fn words_bring_a_member_back() {
    let (mut town, hosts) = Town::team(3);
    let [a, b, c] = hosts[..] else { panic!("three") };
    town.write(a, "note.md", "before\n");
    town.run(5_000);
    let ada = identity(2);
    let own = town.pass(a, ada.root_public.sign);
    town.disconnect(a);
    town.write(b, "since.md", "while ada was away\n");
    town.run(5_000);
    let others = town.pass(c, ada.root_public.sign);
    for (seed, pass) in [(101, own), (102, others)] {
        let device = town.by_words(&ada, &fresh(seed, &format!("new-{seed}")), &pass);
        town.run(15_000);
        let status = town.status(device);
        assert_eq!(status.state, State::Active, "{status:#?}");
        assert_eq!(town.text(device, "since.md"), "while ada was away\n", "{status:#?}");
        let path = format!("by-{seed}.md");
        town.write(device, &path, "I am back\n");
        town.run(5_000);
        assert_eq!((town.text(b, &path), town.text(c, &path)), ("I am back\n".into(), "I am back\n".into()));
        assert_eq!(town.hosts[device].enrolled.as_ref().map(|(_, name)| name.as_str()), Some("member-2"));
        assert!(town.labels(b, ada.root_public.sign).contains(&(format!("new-{seed}"), true)));
    }
    assert_eq!(town.status(b).members.len(), 3);
    town.connect(a);
    town.run(15_000);
    assert_eq!(town.text(a, "by-102.md"), "I am back\n");
    assert!(town.status(b).rejected.is_empty(), "{:#?}", town.status(b));
}

/// Words of somebody who is no member, or was removed, let nobody in; the device is told why.
#[test]
fn the_words_of_a_removed_member_let_nobody_in() {
    let (mut town, hosts) = Town::team(3);
    let [a, _, c] = hosts[..] else { panic!("three") };
    let cid = identity(4);
    let pass = town.pass(c, cid.root_public.sign);
    assert_eq!(town.command(a, Command::RemoveMember(town.root(c))), Reply::Done);
    town.run(10_000);
    let device = town.by_words(&cid, &fresh(101, "new"), &pass);
    let stranger = town.by_words(&identity(99), &fresh(102, "stranger"), &pass);
    town.write(a, "secret.md", "not for cid\n");
    town.run(30_000);
    assert!(town.problems(device).contains("no member any more"), "{}", town.problems(device));
    for host in [device, stranger] {
        assert_eq!((town.status(host).state, town.text(host, "secret.md")), (State::Joining, String::new()));
    }
    assert_eq!(town.status(a).members.len(), 2);
}

/// A revoked device comes back by its member's words and a pass that was made since; an older pass says that it is too old.
#[test]
fn words_bring_a_revoked_device_back() {
    let (mut town, hosts) = Town::team(2);
    let [a, b] = hosts[..] else { panic!("two") };
    let ben = identity(3);
    let old = town.pass(b, ben.root_public.sign);
    assert_eq!(town.command(a, Command::RevokeDevices(vec![ben.device.id()])), Reply::Done);
    town.run(10_000);
    assert_eq!(town.status(b).state, State::Left);
    town.write(a, "since.md", "while ben was out\n");
    town.disconnect(b);
    let refused = town.by_words(&ben, &ben, &old);
    town.run(20_000);
    assert!(town.problems(refused).contains("revoked after this pass was made"), "{}", town.problems(refused));
    assert_eq!(town.text(refused, "since.md"), "");
    town.disconnect(refused);
    let new = town.pass(a, ben.root_public.sign);
    let back = town.by_words(&ben, &ben, &new);
    town.run(20_000);
    assert_eq!(town.text(back, "since.md"), "while ben was out\n", "{:#?}", town.status(back));
    town.write(back, "back.md", "here I am\n");
    town.run(5_000);
    assert_eq!(town.text(a, "back.md"), "here I am\n");
    // Its replica is gone then, and nobody heard of it: it comes by a link like anybody.
    town.disconnect(back);
    town.run(1_000);
    let link = town.invite(a);
    let root = ben.root.clone().unwrap();
    let known = ben.certified(DeviceCert::by_root(&root, ben.device.public()), &ben.name).unwrap();
    let setup = town.setup_as(known, Watermark { incarnation: 5, seq: 9 });
    let machine = Workspace::join(setup, town.now, &weft_agent_core::invite_link::InviteLink::parse(&link).unwrap());
    let again = town.add(machine);
    town.run(20_000);
    assert_eq!(town.text(again, "back.md"), "here I am\n", "{:#?}", town.status(again));
    town.write(again, "again.md", "and here\n");
    town.run(5_000);
    assert_eq!(town.text(a, "again.md"), "and here\n");
}

/// A device lets another of the same member in once the words on both are the same, also when the newcomer was restarted
/// meanwhile; it says who certified it, and goes with that one when that one is revoked.
#[test]
fn a_device_lets_another_in() {
    let (mut town, hosts) = Town::team(2);
    let [a, b] = hosts[..] else { panic!("two") };
    town.write(a, "note.md", "hello\n");
    town.run(5_000);
    let pass = town.pair(b, 600_000);
    assert_eq!(pass.urls, ["ws://relay:1", "ws://10.0.0.1:1"]);
    assert_eq!(town.pairing(b), Pairing::Waiting);
    let phone = fresh(101, "phone");
    let new = town.by_pass(phone.clone(), &pass);
    town.run(5_000);
    let Pairing::Asks { device, label, words } = town.pairing(b) else { panic!("{:?}", town.pairing(b)) };
    assert_eq!((label.as_str(), words), ("phone", pairing_words(&pass.door(), &phone.device.public())));
    assert_eq!(town.text(new, "note.md"), "", "nobody said yes yet");
    let (store, watermark) = (town.hosts[new].store.clone(), town.hosts[new].watermark);
    town.restart_as(new, phone.clone(), store, watermark);
    town.run(5_000);
    let other = Command::AcceptDevice { device: identity(2).device.id(), same: true };
    assert!(matches!(town.command(b, other), Reply::Refused(_)), "not the one whose words were compared");
    assert_eq!(town.command(b, Command::AcceptDevice { device, same: true }), Reply::Done);
    town.run(15_000);
    assert_eq!(town.text(new, "note.md"), "hello\n", "{:#?}", town.status(new));
    assert!(matches!(town.pairing(b), Pairing::Done { .. }));
    let ben = identity(3);
    let (cert, name) = town.hosts[new].enrolled.clone().unwrap();
    assert_eq!((cert.root(), name.as_str()), (ben.root_public, "member-3"));
    town.write(new, "by-phone.md", "from the phone\n");
    town.run(5_000);
    assert_eq!(town.text(a, "by-phone.md"), "from the phone\n");
    // The shell ended before it kept the certificate: it is told again.
    town.hosts[new].enrolled = None;
    let (store, watermark) = (town.hosts[new].store.clone(), town.hosts[new].watermark);
    town.restart_as(new, phone, store, watermark);
    town.run(5_000);
    assert_eq!(town.hosts[new].enrolled.clone(), Some((cert, name)));
    let Reply::Members(members) = town.command(a, Command::Members) else { panic!("members") };
    let devices = members.members.iter().flat_map(|member| &member.devices);
    let takes = devices.clone().find(|device| device.id == ben.device.id()).unwrap().takes.clone();
    assert_eq!(takes.len(), 2);
    assert_eq!(devices.filter(|device| device.certified_by == Some(ben.device.id())).count(), 1);
    assert_eq!(town.command(a, Command::RevokeDevices(takes)), Reply::Done);
    town.run(15_000);
    assert_eq!((town.status(b).state, town.status(new).state), (State::Left, State::Left));
}

/// Nobody is let in whose words differ, when two come by one pass, or after its time.
#[test]
fn a_pass_for_a_device_is_good_for_one_and_not_for_long() {
    let (mut town, hosts) = Town::team(1);
    let a = hosts[0];
    town.write(a, "note.md", "hello\n");
    let pass = town.pair(a, 600_000);
    let declined = town.by_pass(fresh(101, "phone"), &pass);
    town.run(5_000);
    let device = fresh(101, "phone").device.id();
    assert_eq!(town.command(a, Command::AcceptDevice { device, same: false }), Reply::Done);
    town.run(1_000);
    assert!(town.problems(declined).contains("did not let this one in"), "{}", town.problems(declined));
    assert!(matches!(town.command(a, Command::AcceptDevice { device, same: true }), Reply::Refused(_)));
    town.disconnect(declined);

    let pass = town.pair(a, 600_000);
    let both = [town.by_pass(fresh(102, "one"), &pass), town.by_pass(fresh(103, "two"), &pass)];
    town.run(5_000);
    let Pairing::Failed(why) = town.pairing(a) else { panic!("{:?}", town.pairing(a)) };
    assert!(why.contains("somebody else has it"), "{why}");
    for (seed, label) in [(102, "one"), (103, "two")] {
        let device = fresh(seed, label).device.id();
        assert!(matches!(town.command(a, Command::AcceptDevice { device, same: true }), Reply::Refused(_)));
    }
    both.into_iter().for_each(|host| town.disconnect(host));

    let pass = town.pair(a, 10_000);
    town.run(11_000);
    assert_eq!(town.pairing(a), Pairing::None);
    let late = town.by_pass(fresh(104, "late"), &pass);
    town.run(30_000);
    assert_eq!(town.pairing(a), Pairing::None);
    for host in [declined, both[0], both[1], late] {
        assert_eq!(town.text(host, "note.md"), "");
    }
    assert_eq!(town.labels(a, identity(2).root_public.sign).len(), 1);
}

/// The recovery key of the genesis decides who the owners are, whoever uses it; another key does nothing.
#[test]
fn the_recovery_key_decides_who_owns() {
    let mut town = Town::new();
    let key = RecoveryKey::generate(&mut ChaCha20Rng::from_seed([77; 32]));
    let setup = town.setup();
    let relays = vec!["ws://relay:1".into()];
    let machine = Workspace::create_with(setup, town.now, "notes", relays, Some(key.public())).unwrap();
    let a = town.add(machine);
    let link = town.invite(a);
    let b = town.join(&link);
    town.run(10_000);
    assert!(!town.status(a).only_owner, "there is a recovery key");
    let (ada, ben) = (identity(2).root_public.sign, town.root(b));
    let other = RecoveryKey::generate(&mut ChaCha20Rng::from_seed([78; 32]));
    let deed = RecoveryDeed::Role(ben, Role::Owner);
    let refused = town.command(b, Command::ByRecoveryKey(Box::new(other), deed));
    assert!(matches!(&refused, Reply::Refused(why) if why.contains("not this workspace's")), "{refused:?}");
    let last = town.command(b, Command::ByRecoveryKey(Box::new(key.clone()), RecoveryDeed::Remove(ada)));
    assert!(matches!(last, Reply::Refused(_)), "the last owner stays: {last:?}");
    assert_eq!(town.command(b, Command::ByRecoveryKey(Box::new(key.clone()), deed)), Reply::Done);
    town.run(5_000);
    assert_eq!(town.command(b, Command::ByRecoveryKey(Box::new(key), RecoveryDeed::Remove(ada))), Reply::Done);
    town.run(10_000);
    assert_eq!(town.status(a).state, State::Left);
    let status = town.status(b);
    assert!(status.members.len() == 1 && status.members[0].role == Role::Owner, "{status:#?}");
}

/// Without a recovery key an only owner is told so, until there is a second one; nobody else is.
#[test]
fn an_only_owner_is_told() {
    let (mut town, hosts) = Town::team(2);
    let [a, b] = hosts[..] else { panic!("two") };
    assert_eq!((town.status(a).only_owner, town.status(b).only_owner), (true, false));
    assert_eq!(town.command(a, Command::SetRole(town.root(b), Role::Owner)), Reply::Done);
    town.run(5_000);
    assert_eq!((town.status(a).only_owner, town.status(b).only_owner), (false, false));
    let key = RecoveryKey::generate(&mut ChaCha20Rng::from_seed([77; 32]));
    let reply = town.command(a, Command::ByRecoveryKey(Box::new(key), RecoveryDeed::Remove(town.root(b))));
    assert!(matches!(&reply, Reply::Refused(why) if why.contains("has no recovery key")), "{reply:?}");
}

/// A device begins from ops, keys and envelopes that somebody kept, with nobody there: what they hold is in its folder. When
/// the others come, they meet.
#[test]
fn a_device_begins_from_what_was_kept() {
    let (mut town, hosts) = Town::team(2);
    let [a, b] = hosts[..] else { panic!("two") };
    town.write(a, "note.md", "by a\n");
    town.write(b, "other.md", "by b\n");
    town.run(10_000);
    let (ada, kept) = (identity(2), town.hosts[a].store.clone());
    town.disconnect(a);
    town.disconnect(b);
    let genesis = Genesis::parse(&kept.get(Table::Meta, b"genesis").unwrap()).unwrap();
    let workspace = genesis.workspace();
    let mut set = OpSet::new(genesis);
    for (_, op) in kept.scan(Table::Ops, &[], None, 1000) {
        set.insert(SignedOp::parse(&workspace, &op).unwrap()).unwrap();
    }
    let keys = kept.scan(Table::Epochs, &[], None, 1000);
    let keys = || keys.iter().map(|(_, row)| Epoch::from_bytes(&workspace, row).unwrap()).collect::<Vec<_>>();
    let root = ada.root.clone().unwrap();
    let device = fresh(101, "desk");
    let cert = DeviceCert::by_root(&root, device.device.public());
    let device = device.certified(cert.clone(), "ada").unwrap();
    let (relays, now) = (vec!["ws://relay:1".to_owned()], town.now);
    let setup = town.setup_as(device.clone(), Watermark::default());
    assert!(Workspace::restore(setup, now, set.clone(), keys(), &relays).is_none(), "nobody introduced it");
    let body = OpBody::Device { cert, label: "desk".into() };
    set.insert(SignedOp::make(&workspace, &set.heads(), OpSigner::Root(&root), 1, body)).unwrap();
    let setup = town.setup_as(device.clone(), Watermark::default());
    assert!(Workspace::restore(setup, now, set.clone(), Vec::new(), &relays).is_none(), "there is no key");
    let setup = town.setup_as(device, Watermark::default());
    let host = town.add(Workspace::restore(setup, now, set, keys(), &relays).unwrap());
    for (_, envelope) in kept.scan(Table::Envelopes, &[], None, 1000) {
        assert_eq!(town.command(host, Command::TakeIn(envelope)), Reply::Done);
    }
    town.run(5_000);
    assert_eq!((town.text(host, "note.md"), town.text(host, "other.md")), ("by a\n".into(), "by b\n".into()));
    assert!(town.status(host).folder_settled && town.status(host).rejected.is_empty(), "{:#?}", town.status(host));
    town.write(host, "since.md", "by the new one\n");
    town.connect(b);
    town.run(20_000);
    assert_eq!(town.text(b, "since.md"), "by the new one\n", "{:#?}", town.status(b));
}
