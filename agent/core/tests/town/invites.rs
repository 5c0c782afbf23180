//! Coming in: by links of all sorts, with and without an admin's word.

use weft_agent_core::id::{DeviceId, OpId};
use weft_agent_core::workspace::command::{JoinRequestDetail, Knocking, State};

use super::*;

impl Town {
    fn link(&mut self, host: usize, terms: InviteTerms) -> (String, OpId) {
        match self.command(host, Command::Invite { terms, lan: vec![] }) {
            Reply::Invite { link, id, .. } => (link, id),
            other => panic!("{other:?}"),
        }
    }

    fn terms(&self) -> InviteTerms {
        let expires_wall_ms = self.now.wall_ms + 24 * 3_600_000;
        InviteTerms { role: Role::Writer, expires_wall_ms, uses: 1, approval: false, whom: None }
    }

    fn requests(&mut self, host: usize) -> Vec<JoinRequestDetail> {
        match self.command(host, Command::Requests) {
            Reply::Requests(requests) => requests,
            other => panic!("{other:?}"),
        }
    }

    fn device(&self, host: usize) -> DeviceId {
        identity(host as u8 + 2).device.id()
    }

    /// What a joiner is told, once it was told something.
    fn told(&mut self, host: usize) -> String {
        let status = self.status(host);
        assert_eq!(status.state, State::Joining);
        match status.knocking.unwrap() {
            Knocking::Unheard => "unheard".into(),
            Knocking::Waiting { fingerprint } => format!("waiting {fingerprint}"),
            Knocking::Refused(why) => why,
        }
    }

    /// A joiner whose identity is given; its host number does not tell its seed.
    fn join_as(&mut self, who: LocalIdentity, link: &str) -> usize {
        self.seed += 1;
        let setup = Setup { identity: who, seed: [self.seed; 32], watermark: Watermark::default() };
        let machine = Workspace::join(setup, self.now, &InviteLink::parse(link).unwrap());
        self.add(machine)
    }

    fn is_in(&mut self, host: usize) -> bool {
        self.status(host).state == State::Active
    }
}

/// By an invite with approval nobody comes in before an admin says so: writers cannot, the admin sees who asks, by which
/// words, since when; then the joiner is in without doing anything more.
#[test]
fn an_admin_lets_in_whoever_asks() {
    let (mut town, hosts) = Town::team(2);
    let [a, b] = hosts[..] else { panic!("two") };
    let (link, id) = town.link(a, InviteTerms { approval: true, ..town.terms() });
    town.run(2_000);
    let c = town.join(&link);
    town.run(5_000);
    let asked = town.requests(a);
    let [request] = asked.as_slice() else { panic!("{asked:?}") };
    let who = identity(c as u8 + 2);
    assert_eq!((request.device, request.root, request.invite), (who.device.id(), who.root_public.sign, id));
    assert_eq!((request.name.as_str(), request.label.as_str(), request.member.as_deref()), ("member-4", "box-4", None));
    assert!(request.first_wall_ms > 1_700_000_000_000);
    assert_eq!(town.told(c), format!("waiting {}", request.fingerprint));
    assert_eq!((town.status(a).requests, town.status(b).requests), (1, 0));
    // A writer neither sees nor decides.
    for command in [Command::Requests, Command::Approve(request.device), Command::Deny(request.device)] {
        let reply = town.command(b, command);
        assert!(matches!(&reply, Reply::Refused(why) if why.contains("You are a writer here")), "{reply:?}");
    }
    town.run(200_000);
    assert!(!town.is_in(c));
    assert_eq!(town.command(a, Command::Approve(request.device)), Reply::Done);
    town.run(5_000);
    assert!(town.is_in(c));
    assert_eq!(town.requests(a), []);
    town.write(c, "c.md", "by c\n");
    town.run(5_000);
    assert_eq!(town.text(b, "c.md"), "by c\n");
}

/// Writers who hear the knock while no admin is there do not let anybody in; the admin who comes later hears it too.
#[test]
fn a_request_waits_for_an_admin_to_come() {
    let (mut town, hosts) = Town::team(2);
    let [a, b] = hosts[..] else { panic!("two") };
    let (link, _) = town.link(a, InviteTerms { approval: true, ..town.terms() });
    town.run(5_000);
    town.disconnect(a);
    town.run(100);
    let c = town.join(&link);
    town.run(30_000);
    assert!(town.told(c).starts_with("waiting "));
    assert_eq!(town.status(b).members.len(), 2);
    town.connect(a);
    town.run(5_000);
    assert_eq!(town.requests(a).len(), 1);
}

/// What waits survives a restart of the admin's agent, also while the joiner is away; it hears the decision when it is back.
#[test]
fn a_request_survives_a_restart() {
    let mut town = Town::new();
    let a = town.found();
    let (link, _) = town.link(a, InviteTerms { approval: true, ..town.terms() });
    let b = town.join(&link);
    town.run(5_000);
    let before = town.requests(a);
    assert_eq!(before.len(), 1);
    town.disconnect(b);
    let (store, watermark) = (town.hosts[a].store.clone(), town.hosts[a].watermark);
    town.restart_from(a, store, watermark);
    town.run(5_000);
    assert_eq!(town.requests(a), before);
    assert_eq!(town.command(a, Command::Approve(before[0].device)), Reply::Done);
    town.run(5_000);
    assert!(!town.is_in(b));
    town.connect(b);
    town.run(10_000);
    assert!(town.is_in(b));
}

/// Whoever is denied is told so, again after a restart of the admin's agent, and stays outside; by another link they ask
/// anew.
#[test]
fn the_denied_are_told_so() {
    let mut town = Town::new();
    let a = town.found();
    let (link, _) = town.link(a, InviteTerms { approval: true, uses: 3, ..town.terms() });
    let (second, _) = town.link(a, InviteTerms { approval: true, ..town.terms() });
    let b = town.join(&link);
    town.run(5_000);
    assert_eq!(town.command(a, Command::Deny(town.device(b))), Reply::Done);
    town.run(500);
    assert!(town.told(b).contains("decided not to let you in"), "{}", town.told(b));
    let (store, watermark) = (town.hosts[a].store.clone(), town.hosts[a].watermark);
    town.restart_from(a, store, watermark);
    town.run(200_000);
    assert!(town.told(b).contains("decided not to let you in"));
    assert_eq!(town.requests(a), []);
    assert!(matches!(town.command(a, Command::Approve(town.device(b))), Reply::Refused(_)));
    let again = town.join_as(identity(b as u8 + 2), &second);
    town.run(5_000);
    assert_eq!(town.requests(a).len(), 1);
    assert!(town.told(again).starts_with("waiting "));
}

/// Requests are bounded, by link and in time: a link that leaked fills only its own share, and who is not heard again is
/// forgotten.
#[test]
fn requests_are_bounded() {
    let mut town = Town::new();
    let a = town.found();
    let (leaked, _) = town.link(a, InviteTerms { approval: true, uses: 100, ..town.terms() });
    let (other, _) = town.link(a, InviteTerms { approval: true, ..town.terms() });
    let crowd: Vec<usize> = (0..20).map(|_| town.join(&leaked)).collect();
    town.run(20_000);
    let honest = town.join(&other);
    town.run(5_000);
    let asked = town.requests(a);
    assert_eq!(asked.len(), 17);
    assert!(asked.iter().any(|request| request.device == town.device(honest)));
    let crowded = crowd.iter().filter(|host| town.told(**host).contains("Too many others wait")).count();
    assert_eq!(crowded, 4);
    // A place that was decided on is given to the next.
    assert_eq!(town.command(a, Command::Deny(asked[0].device)), Reply::Done);
    town.run(70_000);
    assert_eq!(town.requests(a).len(), 17);
    for host in crowd.into_iter().chain([honest]) {
        town.disconnect(host);
    }
    town.run(8 * 24 * 3_600_000);
    assert_eq!(town.requests(a), []);
}

/// A link that is over, used up, revoked, of somebody who was removed or no longer may, for somebody else, or older than
/// the joiner's removal: the joiner is told which, in words, and nobody comes in.
#[test]
fn every_bad_link_says_what_is_wrong_with_it() {
    let (mut town, hosts) = Town::team(4);
    let [a, b, c, d] = hosts[..] else { panic!("four") };
    assert_eq!(town.command(a, Command::SetRole(town.root(b), Role::Admin)), Reply::Done);
    town.run(5_000);
    let good = town.terms();
    let (over, _) = town.link(a, InviteTerms { expires_wall_ms: town.now.wall_ms + 1_000, ..good.clone() });
    let (used, _) = town.link(a, good.clone());
    let (revoked, id) = town.link(a, good.clone());
    let (by_removed, _) = town.link(b, good.clone());
    let (for_c, _) = town.link(a, InviteTerms { whom: Some(town.root(c)), ..good.clone() });
    let (kept, _) = town.link(a, InviteTerms { uses: 9, ..good.clone() });
    town.run(5_000);
    let e = town.join(&used);
    town.run(5_000);
    assert!(town.is_in(e));
    assert_eq!(town.command(a, Command::RevokeInvite(id)), Reply::Done);
    for gone in [b, d] {
        assert_eq!(town.command(a, Command::RemoveMember(town.root(gone))), Reply::Done);
    }
    town.run(10_000);
    let members = town.status(a).members.len();
    for (link, words) in [
        (&over, "has expired"),
        (&used, "was used as often as it may be"),
        (&revoked, "was revoked"),
        (&by_removed, "may not invite any more"),
        (&for_c, "was made for somebody else"),
    ] {
        let f = town.join(link);
        town.run(5_000);
        assert!(town.told(f).contains(words), "{words}: {}", town.told(f));
        town.disconnect(f);
    }
    // The removed one, by a link it kept and had not come by.
    let back = town.join_as(identity(d as u8 + 2), &kept);
    town.run(5_000);
    assert!(town.told(back).contains("You were removed"), "{}", town.told(back));
    town.disconnect(back);
    // A link whose secret was made up meets nobody; one whose history was is not believed.
    let mut made_up = InviteLink::parse(&kept).unwrap();
    made_up.secret = weft_agent_core::invite::InviteSecret::new(weft_agent_core::secret::Secret::new([7; 32]));
    let f = town.join(&made_up.to_text());
    town.run(5_000);
    assert_eq!(town.told(f), "unheard");
    assert_eq!(town.status(a).members.len(), members);
    let mut forked = InviteLink::parse(&kept).unwrap();
    forked.op_heads.push(OpId([9; 32]));
    let f = town.join(&forked.to_text());
    town.run(5_000);
    assert!(town.told(f).contains("not what the link promises"), "{}", town.told(f));
    assert_eq!(town.text(f, "anything"), "");
}

/// A link for a member brings that member's new device in, with the role the member has, once; its words decide who that is.
#[test]
fn a_member_comes_in_with_a_new_device() {
    let (mut town, hosts) = Town::team(3);
    let [a, b, _] = hosts[..] else { panic!("three") };
    let root = town.root(b);
    let (link, _) = town.link(a, InviteTerms { role: Role::Admin, whom: Some(root), ..town.terms() });
    let Reply::Invites(open) = town.command(a, Command::Invites) else { panic!("invites") };
    assert_eq!(open[1].whom.as_deref().or(open[0].whom.as_deref()), Some("member-3"));
    let old = identity(b as u8 + 2);
    let words = old.root.as_ref().unwrap();
    let new =
        || LocalIdentity::for_root(words.clone(), &mut ChaCha20Rng::from_seed([99; 32]), "member-3", "new laptop");
    let n = town.join_as(new(), &link);
    town.run(10_000);
    assert!(town.is_in(n), "{}", town.told(n));
    let status = town.status(a);
    let member = status.members.iter().find(|member| member.root == root).unwrap();
    assert_eq!((member.role, member.devices, status.members.len()), (Role::Writer, 2, 3));
    town.write(n, "n.md", "by the new one\n");
    town.run(5_000);
    assert_eq!(town.text(a, "n.md"), "by the new one\n");
}
