//! Who belongs changes while the folder is in use: removals, roles, owners together, revoked devices.

use super::*;

/// A member who is online is removed: it hears why at once, nothing new reaches it, the others go on under a new key, and
/// what it goes on writing reaches nobody.
#[test]
fn a_removed_member_who_is_online_hears_why_and_gets_nothing_more() {
    let (mut town, hosts) = Town::team(3);
    let [a, b, c] = hosts[..] else { panic!("three") };
    town.write(c, "before.md", "by c\n");
    town.run(5_000);
    assert_eq!(town.command(a, Command::RemoveMember(town.root(c))), Reply::Done);
    town.run(5_000);
    let status = town.status(c);
    assert_eq!(status.state, weft_agent_core::workspace::command::State::Left, "{status:#?}");
    assert!(town.problems(c).contains("member-2 removed you from 'notes'"), "{}", town.problems(c));
    town.write(a, "secret.md", "after\n");
    town.write(c, "mine.md", "by nobody\n");
    town.run(20_000);
    assert_eq!((town.text(b, "secret.md"), town.text(b, "before.md")), ("after\n".into(), "by c\n".into()));
    assert_eq!((town.text(c, "secret.md"), town.text(b, "mine.md")), (String::new(), String::new()));
    for host in [a, b] {
        let status = town.status(host);
        assert!(status.settled && status.rejected.is_empty(), "{status:#?}");
        assert_eq!(status.members.len(), 2);
    }
    // What it wrote since waits for nobody, and whatever it asks for, it hears that it does not belong.
    let status = town.status(c);
    assert_eq!((status.pending_send, status.kept_here), (0, 1), "{status:#?}");
    let until_mono_ms = town.now.mono_ms + 600_000;
    let flushed = town.command(c, Command::Flush { until_mono_ms, peers: 1 });
    assert!(matches!(&flushed, Reply::Flushed { complete: false, missing, .. } if missing.contains("any more")));
    let pair = Command::Pair { until_mono_ms, lan: Vec::new() };
    for asked in [Command::RemoveMember(town.root(b)), pair, Command::Approve(town.status(b).device)] {
        let reply = town.command(c, asked);
        let Reply::Refused(why) = reply else { panic!("{reply:?}") };
        assert_eq!(why, "You do not belong to 'notes' any more; `weft status` says why.");
    }
    // Others see who wrote what was written before, and so does it.
    for host in [a, b, c] {
        let log = town.command(host, Command::Log { since_wall_ms: 0, limit: 100 });
        let Reply::Log { entries, names, own } = log else { panic!("{log:?}") };
        let before = entries.iter().find(|entry| format!("{:?}", entry.what).contains("before.md")).unwrap();
        assert_eq!(names[&before.device.unwrap_or(own)], "member-4");
    }
    let Reply::Members(members) = town.command(b, Command::Members) else { panic!("members") };
    assert_eq!(members.former.len(), 1);
    assert_eq!((members.former[0].1.what.as_str(), members.former[0].1.by.as_str()), ("removed member-4", "member-2"));
}

/// A member is removed while it is away, and others away with it hear of it later: it is told when it comes back, and its
/// offline edits stay with it; the others' offline edits do not.
#[test]
fn a_member_removed_while_away_is_told_when_it_comes_back() {
    let (mut town, hosts) = Town::team(4);
    let [a, b, c, d] = hosts[..] else { panic!("four") };
    for away in [c, d] {
        town.disconnect(away);
    }
    town.run(100);
    town.write(c, "c.md", "offline by c\n");
    town.write(d, "d.md", "offline by d\n");
    assert_eq!(town.command(a, Command::RemoveMember(town.root(c))), Reply::Done);
    town.write(a, "secret.md", "after\n");
    town.run(10_000);
    town.connect(d);
    town.run(20_000);
    town.connect(c);
    town.run(90_000);
    let status = town.status(c);
    assert_eq!(status.state, weft_agent_core::workspace::command::State::Left, "{status:#?}");
    assert!(town.problems(c).contains("removed you from"), "{}", town.problems(c));
    for host in [a, b, d] {
        assert_eq!(
            (town.text(host, "d.md"), town.text(host, "secret.md")),
            ("offline by d\n".into(), "after\n".into())
        );
        assert_eq!(town.text(host, "c.md"), "");
        assert!(town.status(host).settled);
    }
    assert_eq!(town.text(c, "secret.md"), "");
    // It is told again after a restart, and comes back by a new link only.
    let (store, watermark) = (town.hosts[c].store.clone(), town.hosts[c].watermark);
    town.restart_from(c, store, watermark);
    town.run(1_000);
    assert!(town.problems(c).contains("removed you from"), "{}", town.problems(c));
}

/// A demoted writer's edits stay with it until it is promoted again; a reader gets everything meanwhile.
#[test]
fn a_reader_reads_and_what_it_writes_waits() {
    let (mut town, hosts) = Town::team(2);
    let [a, b] = hosts[..] else { panic!("two") };
    let reader = Command::SetRole(town.root(b), Role::Reader);
    assert_eq!(town.command(a, reader), Reply::Done);
    town.run(10_000);
    town.write(b, "mine.md", "by the reader\n");
    town.write(a, "news.md", "for all\n");
    town.run(10_000);
    assert_eq!((town.text(b, "news.md"), town.text(a, "mine.md")), ("for all\n".into(), String::new()));
    // Nobody else has it, so this is not settled: it is told that this stays here, and no flush waits for what will not come.
    let status = town.status(b);
    assert_eq!((status.settled, status.pending_send, status.kept_here), (false, 0, 1), "{status:#?}");
    let until_mono_ms = town.now.mono_ms + 600_000;
    let flushed = town.command(b, Command::Flush { until_mono_ms, peers: 1 });
    assert!(
        matches!(&flushed, Reply::Flushed { complete: false, missing, .. } if missing.contains("only read")),
        "{flushed:?}"
    );
    let writer = Command::SetRole(town.root(b), Role::Writer);
    assert_eq!(town.command(a, writer), Reply::Done);
    town.run(10_000);
    assert_eq!(town.text(a, "mine.md"), "by the reader\n");
    let status = town.status(a);
    assert!(status.settled && status.rejected.is_empty(), "{status:#?}");
    assert_eq!((town.status(b).settled, town.status(b).kept_here), (true, 0));
}

/// Nobody does what its role does not allow, and two owners are needed to end a third.
#[test]
fn roles_are_kept_and_owners_decide_together() {
    let (mut town, hosts) = Town::team(4);
    let [a, b, c, d] = hosts[..] else { panic!("four") };
    for (who, whom) in [(b, a), (b, c)] {
        let reply = town.command(who, Command::RemoveMember(town.root(whom)));
        assert!(matches!(reply, Reply::Refused(_)), "{reply:?}");
    }
    assert!(matches!(town.command(b, Command::RemoveMember(town.root(b))), Reply::Refused(_)));
    assert_eq!(town.command(a, Command::SetRole(town.root(b), Role::Owner)), Reply::Done);
    town.run(5_000);
    // Now there are two: the second must agree.
    // Of two, neither can be ended by the other, and is not proposed to be.
    for asked in [Command::RemoveMember(town.root(b)), Command::SetRole(town.root(b), Role::Writer)] {
        let reply = town.command(a, asked);
        assert!(matches!(&reply, Reply::Refused(why) if why.contains("takes 2 other owners")), "{reply:?}");
    }
    let reply = town.command(a, Command::SetRole(town.root(c), Role::Owner));
    let Reply::Proposed { id, needed: 2 } = reply else { panic!("{reply:?}") };
    town.run(5_000);
    // Said twice it is one proposal, and one's own vote is given once.
    let again = town.command(a, Command::SetRole(town.root(c), Role::Owner));
    assert_eq!(again, Reply::Proposed { id, needed: 2 });
    let reply = town.command(a, Command::Agree(id));
    assert!(matches!(&reply, Reply::Refused(why) if why.contains("already")), "{reply:?}");
    assert!(matches!(town.command(d, Command::Agree(id)), Reply::Refused(_)));
    assert_eq!(town.command(b, Command::Agree(id)), Reply::Done);
    town.run(5_000);
    let reply = town.command(a, Command::RemoveMember(town.root(b)));
    let Reply::Proposed { id, needed: 2 } = reply else { panic!("{reply:?}") };
    town.run(5_000);
    assert_eq!(town.status(b).state, weft_agent_core::workspace::command::State::Active);
    let reply = town.command(b, Command::Agree(id));
    assert!(matches!(&reply, Reply::Refused(why) if why.contains("about you")), "{reply:?}");
    // It waits for the one owner who is neither its author nor its target.
    let waits: Vec<u64> = hosts.iter().map(|host| town.status(*host).decisions).collect();
    assert_eq!(waits, [0, 0, 1, 0]);
    assert_eq!(town.command(c, Command::Agree(id)), Reply::Done);
    town.run(10_000);
    assert_eq!(town.status(b).state, weft_agent_core::workspace::command::State::Left);
    town.write(d, "on.md", "we go on\n");
    town.run(20_000);
    for host in [a, c, d] {
        assert_eq!(town.text(host, "on.md"), "we go on\n");
    }
    assert_eq!(town.text(b, "on.md"), "");
}

/// A revoked device hears why; its member stays.
#[test]
fn a_revoked_device_hears_why() {
    let (mut town, hosts) = Town::team(2);
    let [a, b] = hosts[..] else { panic!("two") };
    let device = identity(b as u8 + 2).device.id();
    assert_eq!(town.command(a, Command::RevokeDevices(vec![device])), Reply::Done);
    town.run(10_000);
    assert!(town.problems(b).contains("member-2 revoked this device"), "{}", town.problems(b));
    assert!(town.problems(b).contains("`weft identity recover PASS DIR --merge`"), "{}", town.problems(b));
    let Reply::Members(members) = town.command(a, Command::Members) else { panic!("members") };
    assert_eq!(members.members.len(), 2);
    assert!(members.members.iter().flat_map(|member| &member.devices).any(|device| !device.active));
}
