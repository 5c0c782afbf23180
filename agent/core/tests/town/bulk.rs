//! History travels in few frames, whatever it is made of; and what comes in them is bounded and checked like the rest.

use weft_agent_core::envelope::{SEVERAL_MAX, join_several, split_several};
use weft_agent_core::store::Read;

use super::*;

/// A town with somebody who wrote many small envelopes, with them; whoever heard her has gone.
fn historian(saves: usize) -> (Town, usize, Vec<Bytes>) {
    let (mut town, people) = Town::team(2);
    let [ada, dora] = people[..] else { panic!("two") };
    for round in 0..saves {
        town.write(ada, &format!("{}.md", round % 7), &format!("round {round} of many\n"));
        town.run(1_000);
    }
    town.disconnect(dora);
    town.run(5_000);
    let own = town.status(ada).device.0;
    let rows = town.hosts[ada].store.scan(Table::Envelopes, &own, None, 10 * saves);
    (town, ada, rows.into_iter().map(|(_, envelope)| envelope).collect())
}

/// A newcomer gets hundreds of envelopes in a handful of frames, a relay being slow by the frame; and everything is there.
#[test]
fn a_history_comes_in_few_frames() {
    let (mut town, ada, envelopes) = historian(200);
    assert!(envelopes.len() >= 200);
    let link = town.invite(ada);
    town.sent.clear();
    let ben = town.join(&link);
    town.run(20_000);
    for n in 0..7 {
        let name = format!("{n}.md");
        assert_eq!(town.text(ben, &name), town.text(ada, &name));
    }
    assert!(town.hosts[ben].machine.frontier() == town.hosts[ada].machine.frontier());
    let frames = town.sent.iter().filter(|(from, to, _)| (*from, *to) == (ada, ben)).count();
    assert!(frames <= envelopes.len() / SEVERAL_MAX + 20, "{frames} frames for {} envelopes", envelopes.len());
    assert!(town.status(ben).rejected.is_empty(), "{:?}", town.status(ben).rejected);
}

/// A frame of several that is not well formed is refused whole, and named; what comes well formed and again, or in another
/// order, is known or waits.
#[test]
fn a_malformed_frame_of_several_holds_nothing() {
    let (mut town, ada, envelopes) = historian(12);
    let link = town.invite(ada);
    let ben = town.join(&link);
    town.run(20_000);
    town.disconnect(ada);
    let held = town.hosts[ben].machine.frontier().clone();
    let whole = join_several(&envelopes);
    assert_eq!(split_several(&whole).map(|all| all.len()), Ok(envelopes.len()));
    let reversed: Vec<Bytes> = envelopes.iter().rev().cloned().collect();
    let rooms: Vec<RoomId> = town.rooms.keys().copied().collect();
    for payload in [whole.slice(..whole.len() - 1), whole.clone(), join_several(&reversed)] {
        for room in &rooms {
            town.frame(ben, ServerFrame::Deliver { room: *room, from: peer_id(ada), payload: payload.clone() });
        }
    }
    while town.step(ben) {}
    assert_eq!(*town.hosts[ben].machine.frontier(), held);
    let rejected = town.status(ben).rejected;
    assert!(rejected.contains_key("malformed frame of several envelopes"), "{rejected:?}");
}
