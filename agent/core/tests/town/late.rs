//! What somebody wrote before they heard of their removal, and that came late.

use super::*;
use weft_agent_core::workspace::command::Members;

impl Town {
    fn members(&mut self, host: usize) -> Members {
        let Reply::Members(members) = self.command(host, Command::Members) else { panic!("members") };
        *members
    }
}

/// Ada was away while Cid wrote something that Ben got, and removes Cid before she hears of that. It counts nowhere, and is
/// listed with the file it is about; a writer may not change that; Ada keeps it, and from then on it counts for everybody, who
/// was away then too. Nothing that Cid makes later ever does.
#[test]
fn who_removed_somebody_may_keep_what_came_late() {
    let (mut town, hosts) = Town::team(4);
    let [a, b, c, d] = hosts[..] else { panic!("four") };
    town.write(a, "plan.md", "one\n");
    town.run(10_000);
    town.disconnect(a);
    town.disconnect(d);
    town.run(100);
    town.write(c, "plan.md", "one\nlast words of c\n");
    town.run(10_000);
    assert_eq!(town.text(b, "plan.md"), "one\nlast words of c\n");
    town.disconnect(b);
    town.disconnect(c);
    let cid = town.root(c);
    assert_eq!(town.command(a, Command::RemoveMember(cid)), Reply::Done);
    town.connect(a);
    town.run(1_000);
    town.connect(b);
    town.run(20_000);
    for host in [a, b] {
        assert_eq!(town.text(host, "plan.md"), "one\n");
        let late = town.members(host).late;
        assert_eq!((late.len(), late[0].root, late[0].count), (1, cid, 1), "{late:?}");
        assert_eq!(late[0].paths[0].as_str(), "plan.md");
    }
    assert!(matches!(town.command(b, Command::KeepLate(cid)), Reply::Refused(why) if why.contains("admin")));
    let nobody = town.root(d);
    assert!(matches!(town.command(a, Command::KeepLate(nobody)), Reply::Refused(why) if why.contains("Nothing")));

    assert_eq!(town.command(a, Command::KeepLate(cid)), Reply::Done);
    town.run(10_000);
    town.connect(d);
    town.run(20_000);
    for host in [a, b, d] {
        assert_eq!(town.text(host, "plan.md"), "one\nlast words of c\n");
        assert!(town.members(host).late.is_empty() && town.status(host).settled, "{:#?}", town.status(host));
    }
    town.write(c, "plan.md", "one\nlast words of c\nand more\n");
    town.connect(c);
    town.run(60_000);
    for host in [a, b, d] {
        assert_eq!(town.text(host, "plan.md"), "one\nlast words of c\n");
    }
}
