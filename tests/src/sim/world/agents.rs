//! Agents: starting, feeding, and doing what they ask.

use weft_agent_core::damage::Damaged;
use weft_agent_core::files::{Halt, Resume};
use weft_agent_core::membership::Role;
use weft_agent_core::setup::Watermark;
use weft_agent_core::store::{MemoryStore, Read, Table};
use weft_agent_core::workspace::command::{Command, InviteTerms, Reply, RequestId, State};
use weft_agent_core::workspace::input::{Input, Token};
use weft_agent_core::workspace::output::Output;

use super::damage::{Checked, aside, damaged, reading};
use super::{Step, World};
use crate::sim::host::{Job, Phase};
use crate::sim::machine::{Machine, Start};
use crate::sim::witness::CANARY;

/// Actions in the folder without an outcome that one machine may have asked for.
const ACTIONS_MAX: usize = 4096;
/// Batches that one machine may have handed out and that are not durable.
const BATCHES_MAX: usize = 4096;
/// How long an invite is good, in milliseconds: longer than any clock is off.
const INVITE_MS: u64 = 30 * 24 * 3_600_000;

/// Keys in `Table::Meta` of how far chains are held: values begin with the sequence number, big-endian.
const TIP: &[u8] = b"tip/";

impl<M: Machine> World<M> {
    /// The first host founds the workspace.
    pub(super) fn found(&mut self) {
        if let Some(host) = self.hosts.first_mut() {
            host.phase = Phase::Active;
            host.role = Role::Owner;
        }
        self.start(0);
    }

    /// The URL of a relay.
    pub(super) fn url(relay: usize) -> String {
        format!("ws://relay{relay}:8787")
    }

    /// Starts an agent that does not run, from what it finds.
    pub(super) fn start(&mut self, index: usize) {
        let now = self.timestamp(index);
        let seed = self.keys.bytes32();
        let urls = (0..self.case.profile.relays).map(Self::url).collect();
        let Some(host) = self.hosts.get_mut(index) else { return };
        let wanted = matches!(host.phase, Phase::Joining | Phase::Active);
        if host.machine.is_some() || !wanted {
            return;
        }
        let checkpoint_every = self.case.profile.checkpoint_every;
        let watermark = if self.sabotage.no_watermark { Watermark::default() } else { host.watermark() };
        let start = Start { identity: &host.identity, seed, watermark };
        // Short values are all read at every start.
        let is_short = |table: Table| ![Table::Envelopes, Table::Pieces].contains(&table);
        let found: Vec<Damaged> = host.damaged.extract_if(.., |(table, _)| is_short(*table)).map(damaged).collect();
        host.disk.store.apply(&aside(&found));
        let fresh = host.disk.store == MemoryStore::default();
        let mut open = || loop {
            let checked = Checked { store: &host.disk.store, marks: &host.damaged };
            match reading(|| M::open(&start, now, &checked)) {
                Ok(opened) => break opened,
                Err(damaged) => host.disk.store.apply(&aside(&[damaged])),
            }
        };
        let machine = match (&host.link, fresh) {
            (_, false) => open(),
            (Some(link), true) => M::join(&start, now, link),
            (None, true) => M::create(&start, now, &format!("{CANARY}-workspace"), urls),
        };
        match machine {
            Ok(mut machine) => {
                self.sabotage.weaknesses().for_each(|weakness| machine.weaken(weakness));
                if checkpoint_every > 0 {
                    machine.checkpoint_every(checkpoint_every);
                }
                host.machine = Some(machine);
            }
            Err(why) => {
                self.witness.fail("open", || format!("host {index} cannot start: {why}"));
                return;
            }
        }
        host.known = M::known_files(&host.disk.store).into_iter().collect();
        for (path, leaves) in M::pending_writes(&host.disk.store) {
            if let Some(unfinished) = host.folder.unfinished(&path, leaves) {
                host.unfinished.insert(path, unfinished);
            }
        }
        let boot = host.boot;
        self.note(|| format!("h{index} starts{}", if fresh { " afresh" } else { "" }));
        self.drain(index);
        self.ask(index, Command::Status);
        let relays = self.case.seats.get(index).map(|seat| seat.relays.clone()).unwrap_or_default();
        for relay in relays {
            let delay_us = self.network.between(100, 20_000);
            self.after(delay_us, Step::Dial { host: index, boot, relay, twin: false });
        }
    }

    /// One input to a machine that runs, and everything it asks for.
    pub(super) fn feed(&mut self, index: usize, input: Input) {
        if self.is_former(index) {
            return self.former_hears(index, input);
        }
        let now = self.timestamp(index);
        if self.trace {
            let line = summary(&format!("{input:?}"));
            self.note(|| format!("h{index} <- {line}"));
        }
        let Some(host) = self.hosts.get_mut(index) else { return };
        let Some(machine) = &mut host.machine else { return };
        let checked = Checked { store: &host.disk.store, marks: &host.damaged };
        match reading(|| machine.handle(now, input, &checked)) {
            Ok(()) => self.drain(index),
            Err(damaged) => self.found_damage(index, &damaged),
        }
    }

    fn drain(&mut self, index: usize) {
        while let Some(output) =
            self.hosts.get_mut(index).and_then(|host| host.machine.as_mut()).and_then(Machine::poll_output)
        {
            self.output(index, output);
        }
        let Some(host) = self.hosts.get_mut(index) else { return };
        let Some(machine) = &host.machine else { return };
        let wake_us =
            machine.poll_timeout().map(|mono_ms| (mono_ms.saturating_sub(host.mono_base_ms) * 1000).max(self.now_us));
        // An earlier wake that is still queued asks again when it comes.
        if let Some(at_us) = wake_us
            && host.wake_us.is_none_or(|queued_us| queued_us > at_us)
        {
            host.wake_us = Some(at_us);
            let boot = host.boot;
            self.at(at_us, Step::Wake { host: index, boot });
        }
    }

    pub(super) fn wake(&mut self, index: usize, boot: u64) {
        if !self.runs(index, boot) {
            return;
        }
        let now = self.timestamp(index);
        let Some(host) = self.hosts.get_mut(index) else { return };
        if host.wake_us.is_some_and(|at_us| at_us > self.now_us) {
            return;
        }
        host.wake_us = None;
        let due = host.machine.as_ref().and_then(Machine::poll_timeout).is_some_and(|at_ms| at_ms <= now.mono_ms);
        if due {
            self.feed(index, Input::Wake);
        } else {
            self.drain(index);
        }
        // A deadline that stays where it was, in the past, would stop virtual time.
        if let Some(host) = self.hosts.get_mut(index)
            && host.wake_us == Some(self.now_us)
        {
            host.wake_us = None;
            self.after(1000, Step::Wake { host: index, boot });
        }
    }

    fn output(&mut self, index: usize, output: Output) {
        if self.trace {
            let line = summary(&format!("{output:?}"));
            self.note(|| format!("h{index} -> {line}"));
        }
        let Some(host) = self.hosts.get_mut(index) else { return };
        let boot = host.boot;
        match output {
            Output::Persist { token, batch } => {
                for write in &batch {
                    self.digest.update(&write.key);
                    if !host.damaged.is_empty() {
                        host.damaged.remove(&(write.table, write.key.clone()));
                    }
                    if write.table == Table::Envelopes
                        && let Some(value) = &write.value
                    {
                        host.unflushed.push_back((token, write.key.clone(), *blake3::hash(value).as_bytes()));
                    }
                    if write.table == Table::Meta
                        && write.key.starts_with(TIP)
                        && let (Some(now), Some(before)) = (&write.value, host.disk.store.get(Table::Meta, &write.key))
                        && now.get(..8) < before.get(..8)
                        // A proven fork ends the liar's chain before it.
                        && !self.case.profile.has_liar()
                        // An envelope that nobody else had ends the chain before it.
                        && self.case.profile.damages == 0
                    {
                        self.witness.fail("backwards", || format!("host {index} holds less of a chain than before"));
                    }
                }
                host.disk.write(token, &batch);
                if host.disk.pending() > BATCHES_MAX {
                    self.witness.fail("limits", || format!("host {index}: more than {BATCHES_MAX} batches under way"));
                }
                self.former_learnt(index, &batch);
                if self.sabotage.early_persisted {
                    self.after(0, Step::Flushed { host: index, boot, token: Token(u64::MAX) });
                }
                self.flush_soon(index);
            }
            Output::Send { link, rank, frame } => self.send(index, link, rank, frame),
            Output::Close { link, why } => {
                self.note(|| format!("h{index} closes {link:?}: {why}"));
                if self.case.profile.lies > 0 && !self.healed {
                    self.cut(link.0, 1_000);
                } else {
                    self.witness.fail("misbehaved", || format!("host {index} gave up an honest link: {why}"));
                }
            }
            Output::Act(action, what) => {
                if host.jobs.len() > ACTIONS_MAX {
                    self.witness.fail("limits", || format!("host {index}: more than {ACTIONS_MAX} actions under way"));
                }
                if !host.admitted {
                    self.witness.fail("early", || format!("host {index} touched its folder before it was admitted"));
                }
                self.job(index, Job::Act(action, what));
            }
            Output::Look(paths) if paths.is_empty() => self.job(index, Job::Scan { only_changes: false }),
            Output::Look(paths) => self.job(index, Job::Look { paths, only_changes: false }),
            Output::Watermark { incarnation, seq } => host.disk.watermark = Watermark { incarnation, seq },
            Output::Halted(Some(Halt::MassDelete { .. })) => {
                host.asks = true;
                // The person meant it: the files are gone from this folder, and stay gone everywhere.
                let command = Command::Resume(Resume::AcceptDeletes);
                self.after(2_000_000, Step::Answer { host: index, boot, command });
            }
            // The root is never lost here: this says that a restored backup waits for a peer.
            Output::Halted(halt) => host.asks = halt.is_some(),
            // Nobody enrols a further device here.
            Output::Addresses { .. } | Output::Enrolled { .. } | Output::Event(_) => {}
            Output::Admitted { .. } => self.admitted(index),
            Output::Reply(request, reply) => self.reply(index, request, reply),
        }
    }

    /// From now on the folder may be touched.
    fn admitted(&mut self, index: usize) {
        let Some(host) = self.hosts.get_mut(index) else { return };
        if !host.admitted {
            host.admitted = true;
            host.phase = Phase::Active;
            self.note(|| format!("h{index} is admitted"));
            self.job(index, Job::Scan { only_changes: true });
        }
    }

    fn reply(&mut self, index: usize, request: RequestId, reply: Reply) {
        match reply {
            Reply::Status(status) => {
                if let Some(host) = self.hosts.get_mut(index) {
                    // A crash took the admission back.
                    if status.state == State::Joining && host.phase == Phase::Active {
                        host.phase = Phase::Joining;
                    }
                    host.status = Some(status);
                }
            }
            Reply::Invite { link, .. } => {
                let Some((joiner, role, uses)) = self.invites.remove(&(index, request)) else { return };
                self.spare_links.extend((1..uses).map(|_| link.clone()));
                self.join(joiner, link, role);
                if self.hosts.get(index).is_some_and(|host| host.phase == Phase::Left) {
                    // Its maker left while it made it: nobody may know of it.
                    self.after(40_000_000, Step::AskAgain { joiner });
                }
            }
            // A crash took the inviter's own admission back; the invite is asked for again.
            Reply::Refused(_) if self.invites.remove(&(index, request)).is_some() => {}
            // Who removes somebody may have been removed itself, or the other may be gone.
            Reply::Refused(_) if self.removals.contains_key(&(index, request)) => {
                if let Some(whom) = self.removals.remove(&(index, request)) {
                    self.not_removed(whom);
                }
            }
            Reply::Refused(why) => self.witness.fail("refused", || format!("host {index}: {why}")),
            Reply::Done
            | Reply::Invites(_)
            | Reply::Flushed { .. }
            | Reply::Log { .. }
            | Reply::Members(_)
            | Reply::Requests(_)
            | Reply::Pairing(_)
            | Reply::Pass(_)
            | Reply::Proposed { .. } => {}
        }
    }

    /// Asks something; the answer comes as an output.
    pub(super) fn ask(&mut self, index: usize, command: Command) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.feed(index, Input::Command(request, command));
        request
    }

    /// Asks every running host for its status.
    pub fn ask_all(&mut self) {
        for index in 0..self.hosts.len() {
            if let Some(host) = self.hosts.get_mut(index) {
                host.status = None;
            }
            self.ask(index, Command::Status);
        }
    }

    /// A member who may invite makes a link for `joiner`, or an open one is used again; once more in two seconds, until
    /// there is one.
    pub(super) fn invite(&mut self, joiner: usize, pick: u64) {
        if self.hosts.get(joiner).is_none_or(|host| host.phase != Phase::Outside) {
            return;
        }
        if pick.is_multiple_of(3)
            && let Some(link) = self.spare_links.pop()
        {
            self.join(joiner, link, Role::Writer);
            return;
        }
        if let Some(host) = self.hosts.get_mut(joiner) {
            host.waits_for_link = true;
        }
        self.after(2_000_000, Step::Invite { joiner, pick });
        let may =
            |host: &crate::sim::host::Host<M>| host.admitted && host.phase == Phase::Active && host.role >= Role::Admin;
        let inviters: Vec<usize> =
            self.hosts.iter().enumerate().filter(|(_, host)| may(host)).map(|(index, _)| index).collect();
        let Some(inviter) = inviters.get((pick / 16 % inviters.len().max(1) as u64) as usize).copied() else { return };
        // Only an owner makes admins.
        let role = if inviter == 0 && pick.is_multiple_of(4) { Role::Admin } else { Role::Writer };
        let uses = if role == Role::Writer { 1 + (pick / 256 % 3) as u32 } else { 1 };
        let expires_wall_ms = self.timestamp(inviter).wall_ms + INVITE_MS;
        let terms = InviteTerms { role, expires_wall_ms, uses, approval: false, whom: None };
        let command = Command::Invite { terms, lan: Vec::new() };
        self.requests += 1;
        let request = RequestId(self.requests);
        self.invites.insert((inviter, request), (joiner, role, uses));
        self.feed(inviter, Input::Command(request, command));
    }

    fn join(&mut self, joiner: usize, link: String, role: Role) {
        if let Some(host) = self.hosts.get_mut(joiner)
            && host.phase == Phase::Outside
        {
            host.waits_for_link = false;
            host.link = Some(link);
            host.role = role;
            host.phase = Phase::Joining;
            self.start(joiner);
        }
    }
}

/// A line short enough to read.
fn summary(text: &str) -> String {
    match text.char_indices().nth(220) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl<M: Machine> World<M> {
    /// Whether every other member holds all envelopes of this host's chains that it holds itself.
    pub(super) fn peers_hold_all_of(&self, index: usize) -> bool {
        let Some(host) = self.hosts.get(index) else { return false };
        let mine = host.disk.store.scan(Table::Envelopes, &[], None, usize::MAX);
        let others = self.active().filter(|(other, _)| *other != index);
        let mut any = false;
        let all = others.into_iter().all(|(_, other)| {
            any = true;
            // What a crash may take back is not held yet.
            other.disk.newest_pending().is_none()
                && mine.iter().all(|(key, _)| other.disk.store.get(Table::Envelopes, key).is_some())
        });
        any && all
    }
}
