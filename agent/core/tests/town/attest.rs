//! Which accounts members say are theirs.

use weft_agent_core::attestation;
use weft_agent_core::op::{OpSigner, SignedOp, ops};
use weft_agent_core::store::Write;

use super::*;

const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";

impl Town {
    fn attest(&mut self, host: usize, did: &str) -> Reply {
        let root = identity(host as u8 + 2).root.unwrap();
        let proof = attestation::sign(&root, did).to_vec();
        self.command(host, Command::Attest { did: did.to_owned(), proof })
    }

    /// What `host` is shown of the accounts of `of`, and how many it is not.
    fn accounts(&mut self, host: usize, of: usize) -> (Vec<String>, usize) {
        let Reply::Members(members) = self.command(host, Command::Members) else { panic!("members") };
        let root = self.root(of);
        let member = members.members.into_iter().find(|member| member.root == root).unwrap();
        (member.accounts, member.accounts_unsound)
    }

    /// An op that a member's device signs, whatever it says, as another host holds it.
    fn plant(&mut self, host: usize, of: usize, did: &str, proof: Vec<u8>) -> SignedOp {
        let (set, device) = (self.op_set(host), identity(of as u8 + 2).device);
        let signer = OpSigner::Device(&device);
        let wall_ms = self.now.wall_ms;
        let author = ops::Author { workspace: set.workspace(), parents: set.heads(), signer, wall_ms };
        let op = ops::attest(&author, did, proof);
        let key = [[0xff; 8].as_slice(), &op.id().0].concat();
        let mut store = self.hosts[host].store.clone();
        store.apply(&[Write { table: Table::Ops, key, value: Some(op.bytes().clone()) }]);
        let watermark = self.hosts[host].watermark;
        self.restart_from(host, store, watermark);
        self.run(5_000);
        op
    }
}

/// What a member's root signed is said once, however often the program asks, and everybody sees it: those who are there and
/// those who come later.
#[test]
fn an_account_is_said_once_and_seen_by_all() {
    let (mut town, hosts) = Town::team(2);
    let [a, b] = hosts[..] else { panic!("two") };
    let before = town.op_set(a).ops().count();
    for _ in 0..3 {
        assert_eq!(town.attest(a, DID), Reply::Done);
        town.run(2_000);
    }
    let (store, watermark) = (town.hosts[a].store.clone(), town.hosts[a].watermark);
    town.restart_from(a, store, watermark);
    town.run(2_000);
    assert_eq!(town.attest(a, DID), Reply::Done);
    town.run(5_000);
    assert_eq!(town.op_set(a).ops().count(), before + 1);
    assert_eq!(town.accounts(b, a), (vec![DID.to_owned()], 0));
    assert_eq!(town.accounts(b, b), (Vec::new(), 0));
    let link = town.invite(a);
    let c = town.join(&link);
    town.run(5_000);
    assert_eq!(town.accounts(c, a), (vec![DID.to_owned()], 0));
    assert!(town.status(b).rejected.is_empty());
}

/// A reader has accounts too.
#[test]
fn a_reader_says_who_they_are() {
    let (mut town, hosts) = Town::team(2);
    let [a, b] = hosts[..] else { panic!("two") };
    assert_eq!(town.command(a, Command::SetRole(town.root(b), Role::Reader)), Reply::Done);
    town.run(5_000);
    assert_eq!(town.attest(b, DID), Reply::Done);
    town.run(5_000);
    assert_eq!(town.accounts(a, b), (vec![DID.to_owned()], 0));
}

/// The machine makes no op of a signature that is not its root's, nor a ninth that nobody would see.
#[test]
fn what_would_not_be_shown_is_not_said() {
    let mut town = Town::new();
    let a = town.found();
    town.run(1_000);
    let proof = attestation::sign(&identity(99).root.unwrap(), DID).to_vec();
    let reply = town.command(a, Command::Attest { did: DID.to_owned(), proof });
    assert!(matches!(reply, Reply::Refused(_)), "{reply:?}");
    assert!(matches!(town.attest(a, "did:plc:a\u{1b}[2J"), Reply::Refused(_)));
    for n in 0..8 {
        assert_eq!(town.attest(a, &format!("did:web:{n}.example")), Reply::Done);
    }
    let reply = town.attest(a, "did:web:9.example");
    assert!(matches!(&reply, Reply::Refused(why) if why.contains("8 accounts")), "{reply:?}");
    assert_eq!(town.accounts(a, a).0.len(), 8);
}

/// A device can say in its member's name what the root did not sign: it counts, and is shown to nobody. Nor does text get
/// through that is no DID, also where the root did sign it.
#[test]
fn what_the_root_did_not_sign_is_not_shown() {
    let (mut town, hosts) = Town::team(2);
    let [a, b] = hosts[..] else { panic!("two") };
    assert_eq!(town.attest(b, DID), Reply::Done);
    town.run(5_000);
    town.plant(a, b, "did:plc:somebodyelse", vec![7; 64]);
    assert_eq!(town.accounts(a, b), (vec![DID.to_owned()], 1));
    let odd = "did:web:a.example/<b>";
    let proof = attestation::sign(&identity(b as u8 + 2).root.unwrap(), odd).to_vec();
    town.plant(a, b, odd, proof);
    assert_eq!(town.accounts(a, b), (vec![DID.to_owned()], 2));
    // In place of the good one: it is shown no more.
    town.plant(a, b, DID, vec![7; 64]);
    assert_eq!(town.accounts(a, b), (Vec::new(), 3));
}

/// What would write on a terminal is no op at all.
#[test]
fn an_op_with_control_characters_is_refused() {
    let mut town = Town::new();
    let a = town.found();
    town.run(1_000);
    let (set, device) = (town.op_set(a), identity(a as u8 + 2).device);
    for odd in ["did:plc:a\u{1b}[2J", "did:plc:\u{202e}a", "did:plc:a\nb"] {
        let (parents, signer) = (set.heads(), OpSigner::Device(&device));
        let author = ops::Author { workspace: set.workspace(), parents, signer, wall_ms: 1 };
        let op = ops::attest(&author, odd, vec![7; 64]);
        assert!(SignedOp::parse(&set.workspace(), op.bytes()).is_err(), "{odd:?}");
    }
}
