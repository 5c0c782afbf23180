//! The events of the plan.

use weft_agent_core::content::INLINE_BYTES_MAX;
use weft_agent_core::membership::Role;
use weft_agent_core::workspace::command::{Command, RequestId};
use weft_agent_core::workspace::input::Input;

use super::{Step, World};
use crate::sim::folder::Node;
use crate::sim::host::{Backup, Phase};
use crate::sim::machine::Machine;
use crate::sim::plan::What;
use crate::sim::witness::markers;

impl<M: Machine> World<M> {
    /// An event of the plan is due.
    pub(super) fn plan(&mut self, index: usize) {
        let Some(event) = self.case.events.get(index).copied() else { return };
        let host = event.host;
        if !matches!(event.what, What::Deed(_)) {
            self.note(|| format!("PLAN h{host} {:?}", event.what));
        }
        match event.what {
            What::Deed(deed) => self.deed(host, deed, event.pick),
            What::Join => self.invite(host, event.pick),
            What::Leave => self.leave(host),
            What::Remove => self.remove_member(host, event.pick),
            What::Lie if self.case.profile.former > 0 => self.haunt(event.pick),
            What::Lie => self.lie(host, event.pick),
            What::Expel => self.expel(event.pick),
            What::Crash { down_ms } => {
                self.crash(host, event.pick);
                self.after(down_ms * 1000, Step::Start(host));
            }
            What::Cut { notice_ms } => {
                if let Some(id) = self.some_connection(host, event.pick) {
                    self.cut(id, notice_ms * 1000);
                }
            }
            What::Partition { ms } => {
                let until_us = self.now_us + ms * 1000;
                let relays = self.case.seats.get(host).map(|seat| seat.relays.clone()).unwrap_or_default();
                for relay in relays {
                    if let Some(host) = self.hosts.get_mut(host) {
                        host.cut_off_until_us.insert(relay, until_us);
                    }
                }
                while let Some(id) = self.some_connection(host, event.pick) {
                    self.cut(id, 2_000_000);
                    if let Some(host) = self.hosts.get_mut(host) {
                        host.doubted.insert(id);
                    }
                }
            }
            What::Twin => {
                if let Some(host_now) = self.hosts.get(host)
                    && let Some(relay) = host_now.conns.keys().next().copied()
                {
                    let boot = host_now.boot;
                    self.after(0, Step::Dial { host, boot, relay, twin: true });
                }
            }
            What::RelayRestart { down_ms } => {
                let relay = (event.pick % self.relays.len().max(1) as u64) as usize;
                self.relay_stop(relay);
                self.after(down_ms * 1000, Step::RelayStart(relay));
            }
            What::Backup => {
                // A backup of a file that was just emptied is one that the person emptied: nobody can tell.
                if let Some(host) = self.hosts.get_mut(host)
                    && host.phase == Phase::Active
                    && host.saving == 0
                {
                    host.backup = Some(Backup { disk: host.disk.backup(), folder: host.folder.clone() });
                }
            }
            What::Restore { watermark, store_only } => self.restore(host, event.pick, watermark, store_only),
            What::Damage { running, gone } => self.damage(host, running, gone, event.pick),
            What::ClockJump { by_ms } => {
                if let Some(host) = self.hosts.get_mut(host) {
                    host.wall_base_ms = host.wall_base_ms.saturating_add_signed(by_ms);
                }
            }
        }
    }

    fn some_connection(&self, index: usize, pick: u64) -> Option<u64> {
        let host = self.hosts.get(index)?;
        let open: Vec<u64> = host.conns.values().copied().filter(|id| !host.doubted.contains(id)).collect();
        open.get((pick % open.len().max(1) as u64) as usize).copied()
    }

    /// An agent dies: what was not durable may be lost, in its database and in its folder.
    pub(super) fn crash(&mut self, index: usize, pick: u64) {
        if self.hosts.get(index).is_none_or(|host| host.machine.is_none()) {
            return;
        }
        // The kernel resets the sockets of a dead process; a dead machine's peers learn it later.
        self.drop_connections(index, if pick.is_multiple_of(2) { 1_000 } else { 20_000_000 });
        let mut dice = crate::sim::dice::Dice::new(pick, "crash", 0);
        let mono_base_ms = self.disks.below(1 << 40);
        let Some(host) = self.hosts.get_mut(index) else { return };
        let lost = host.disk.crash(&mut dice);
        let keep = dice.between(0, host.told.len() as u64) as usize;
        while host.told.len() > keep {
            if let Some(told) = host.told.pop_back() {
                host.folder.undo(told.undo);
            }
        }
        host.told.clear();
        host.halt();
        host.mono_base_ms = mono_base_ms;
        self.lost_batches += lost as u64;
        self.former_forgotten(index);
        self.invites.retain(|(asked, _), _| *asked != index);
        self.note(|| format!("h{index} dies; {lost} batches are lost"));
    }

    /// A backup is put back. What nobody else has of what came after it is lost.
    fn restore(&mut self, index: usize, pick: u64, watermark: bool, store_only: bool) {
        let Some(backup) = self.hosts.get_mut(index).and_then(|host| host.backup.take()) else { return };
        if self.hosts.get(index).is_none_or(|host| host.phase != Phase::Active) {
            return;
        }
        if self.someone_is_unproven(index) || self.has_large_files_alone(index) {
            return;
        }
        self.crash(index, pick);
        let peers_ahead = self.peers_hold_all_of(index) && !self.someone_may_come(index);
        let Some(host) = self.hosts.get_mut(index) else { return };
        let watermark_now = host.disk.watermark;
        host.disk = backup.disk;
        // Put back too, the watermark can only be told from the true one by peers that hold what came after: whoever it
        // meets first must be one of those.
        if !(watermark && peers_ahead) {
            host.disk.watermark = watermark_now;
        } else if host.disk.watermark != watermark_now {
            host.unproven = Some(watermark_now);
        }
        if !store_only {
            let now: Vec<usize> = content(&host.folder);
            host.folder = backup.folder;
            let kept = content(&host.folder);
            let lost: Vec<usize> = now.into_iter().filter(|number| !kept.contains(number)).collect();
            self.excuse_unless_elsewhere(index, &lost);
        }
        self.links_may_be_void();
        self.witness.forgotten(index);
        self.note(|| format!("h{index} is put back (watermark {watermark} {peers_ahead}, store only {store_only})"));
        self.after(50_000, Step::Start(index));
    }

    /// Whether another host was put back, watermark and all, and has not heard of that yet: this one may be the last that
    /// knows what it sent before.
    fn someone_is_unproven(&self, index: usize) -> bool {
        self.hosts.iter().enumerate().any(|(other, host)| other != index && host.is_unproven())
    }

    /// Whether anybody else is about to become a member.
    fn someone_may_come(&self, index: usize) -> bool {
        let comes = |host: &crate::sim::host::Host<M>| matches!(host.phase, Phase::Outside | Phase::Joining);
        self.hosts.iter().enumerate().any(|(other, host)| other != index && comes(host))
    }

    /// Whether a large file is nowhere but here: its pieces have not travelled yet, and if they are lost now, everybody who
    /// heard of it waits for ever.
    pub(super) fn has_large_files_alone(&self, index: usize) -> bool {
        let Some(host) = self.hosts.get(index) else { return false };
        let large = |node: &Node| matches!(node, Node::File { bytes, .. } if bytes.len() > INLINE_BYTES_MAX);
        let same = |one: &Node, other: &Node| match (one, other) {
            (Node::File { bytes: one, .. }, Node::File { bytes: other, .. }) => one == other,
            _ => false,
        };
        let others: Vec<&Node> = self
            .hosts
            .iter()
            .enumerate()
            .filter(|(other, host)| *other != index && host.phase == Phase::Active)
            .flat_map(|(_, host)| host.folder.iter().map(|(_, node)| node).filter(|node| large(node)))
            .collect();
        let mut mine = host.folder.iter().map(|(_, node)| node).filter(|node| large(node));
        mine.any(|node| !others.iter().any(|other| same(node, other)))
    }

    /// A member leaves; what nobody else has of theirs goes with them. Nobody leaves while a large file of theirs has not
    /// arrived anywhere: the others would wait for it for ever, and `weft leave` cannot know.
    fn leave(&mut self, index: usize) {
        if index == 0
            || !self.hosts.get(index).is_some_and(|host| host.phase == Phase::Active && host.machine.is_some())
        {
            return;
        }
        if self.has_large_files_alone(index) || self.someone_is_unproven(index) {
            return;
        }
        let mine: Vec<usize> = self.hosts.get(index).map(|host| content(&host.folder)).unwrap_or_default();
        self.excuse_unless_elsewhere(index, &mine);
        self.ask(index, Command::Leave);
        self.links_may_be_void();
        if let Some(host) = self.hosts.get_mut(index) {
            host.phase = Phase::Left;
        }
    }

    /// A member removes another, who may go on writing until it hears of it. What nobody else has of theirs is theirs to lose.
    fn remove_member(&mut self, index: usize, pick: u64) {
        let runs = |host: &crate::sim::host::Host<M>| host.phase == Phase::Active && host.machine.is_some();
        if self.hosts.get(index).is_none_or(|host| !runs(host) || host.role < Role::Admin) {
            return;
        }
        let others = self.hosts.iter().enumerate();
        let others: Vec<usize> = others
            .filter(|(other, host)| *other != 0 && *other != index && host.phase == Phase::Active)
            .map(|(other, _)| other)
            .collect();
        let Some(whom) = others.get((pick % others.len().max(1) as u64) as usize).copied() else { return };
        if self.has_large_files_alone(whom) {
            return;
        }
        let Some(root) = self.hosts.get(whom).and_then(|host| M::root(&host.identity)) else { return };
        self.excuse_content_of(whom);
        self.links_may_be_void();
        // A crash may hide whether it was done: from here on it counts as gone, unless the answer says that it is not.
        if let Some(host) = self.hosts.get_mut(whom) {
            host.phase = Phase::Left;
        }
        self.note(|| format!("h{index} removes h{whom}"));
        self.requests += 1;
        let request = RequestId(self.requests);
        self.removals.insert((index, request), whom);
        self.feed(index, Input::Command(request, Command::RemoveMember(root)));
    }

    /// The removal was refused.
    pub(super) fn not_removed(&mut self, whom: usize) {
        if let Some(host) = self.hosts.get_mut(whom) {
            host.phase = Phase::Active;
        }
        self.note(|| format!("h{whom} is not removed"));
    }

    /// Links made by who left, or since a backup that was put back, let nobody in: whoever still waits in a while throws
    /// theirs away and asks for another.
    pub(super) fn links_may_be_void(&mut self) {
        self.spare_links.clear();
        let joining =
            |(index, host): (usize, &crate::sim::host::Host<M>)| (host.phase == Phase::Joining).then_some(index);
        let waiting: Vec<usize> = self.hosts.iter().enumerate().filter_map(joining).collect();
        for joiner in waiting {
            self.after(40_000_000, Step::AskAgain { joiner });
        }
    }

    /// A person whose link lets nobody in begins anew with another one.
    pub(super) fn ask_again(&mut self, joiner: usize) {
        if self.hosts.get(joiner).is_none_or(|host| host.phase != Phase::Joining) {
            return;
        }
        self.drop_connections(joiner, 1_000);
        let Some(host) = self.hosts.get_mut(joiner) else { return };
        host.halt();
        host.told.clear();
        host.disk = crate::sim::disk::Disk::default();
        host.link = None;
        host.phase = Phase::Outside;
        self.note(|| format!("h{joiner} asks for another link"));
        self.after(1_000, Step::Invite { joiner, pick: 1 });
    }

    /// What nobody else has of a host's is its own to lose.
    pub(super) fn excuse_content_of(&mut self, index: usize) {
        let mine: Vec<usize> = self.hosts.get(index).map(|host| content(&host.folder)).unwrap_or_default();
        self.excuse_unless_elsewhere(index, &mine);
    }

    fn excuse_unless_elsewhere(&mut self, index: usize, numbers: &[usize]) {
        let elsewhere: Vec<usize> = self
            .hosts
            .iter()
            .enumerate()
            .filter(|(other, host)| *other != index && host.phase == Phase::Active)
            .flat_map(|(_, host)| content(&host.folder))
            .collect();
        for number in numbers {
            if !elsewhere.contains(number) {
                self.witness.excuse(*number);
            }
        }
    }
}

fn content(folder: &crate::sim::folder::Folder) -> Vec<usize> {
    let files = folder.iter().filter_map(|(_, node)| match node {
        Node::File { bytes, .. } => Some(bytes),
        Node::Symlink(_) | Node::Folder => None,
    });
    files.flat_map(|bytes| markers(bytes)).collect()
}
