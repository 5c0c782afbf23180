//! What the thread tells the core, and in which order.

use std::fs;
use std::sync::mpsc::channel;

use super::*;

struct World {
    folder: tempfile::TempDir,
    _home: tempfile::TempDir,
    inbox: Arc<Inbox>,
    looker: Looker,
    _orders: Receiver<Order>,
}

impl World {
    fn new() -> World {
        let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let device = weft_agent_core::id::DeviceId([1; 16]);
        let marker = Marker { workspace: WorkspaceId([3; 32]), device };
        super::super::marker::write(folder.path(), &marker).unwrap();
        drop(Store::open(home.path()).unwrap());
        let (inbox, glance) = (Arc::new(Inbox::default()), Arc::new(Glance::default()));
        let (orders, waiting) = channel();
        let reader = Store::open_reader(home.path()).unwrap();
        let root = folder.path().to_path_buf();
        let looker = Looker::new(root, marker, reader, Arc::clone(&inbox), &orders, glance);
        World { folder, _home: home, inbox, looker, _orders: waiting }
    }
    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    /// What the core was told since the last call: `+path`, `-path`, or what else.
    #[allow(clippy::wildcard_enum_match_arm, reason = "the folder's thread tells few of all inputs")]
    fn told(&self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some((task, _)) = self.inbox.next() {
            let Task::Input(input) = task else { continue };
            match input {
                Input::Seen(seen) => all.extend(seen.into_iter().map(|seen| {
                    let sign = if seen.found == Found::Absent { '-' } else { '+' };
                    format!("{sign}{}", seen.path)
                })),
                Input::RootLost { .. } => all.push("lost".to_owned()),
                Input::RootBack => all.push("back".to_owned()),
                Input::Scanned { .. } => all.push("scanned".to_owned()),
                other => all.push(format!("{other:?}")),
            }
        }
        all
    }
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

/// While the core stands still nothing that it would not take in is called known: the look that ends the halt tells it, what
/// was made, what was changed and what was deleted.
#[test]
fn what_happens_while_the_core_stands_still_is_told_afterwards() {
    let mut world = World::new();
    for name in ["1.md", "2.md", "3.md"] {
        world.write(name, name);
    }
    assert!(world.looker.look_everywhere());
    assert_eq!(world.told(), ["+1.md", "+2.md", "+3.md", "scanned"]);
    assert!(world.looker.lose("something below cannot be read".to_owned()));
    world.write("2.md", "edited");
    world.write("new.md", "made");
    fs::remove_file(world.folder.path().join("3.md")).unwrap();
    assert!(world.looker.noticed(["2.md", "3.md", "new.md"].map(path).to_vec()));
    assert!(world.looker.look_at(&[path("2.md")]));
    assert!(world.looker.look_everywhere());
    let told = world.told();
    assert_eq!(told.get(..2), Some(&["lost".to_owned(), "back".to_owned()][..]), "{told:?}");
    for one in ["+2.md", "-3.md", "+new.md"] {
        assert!(told.iter().any(|told| told == one), "{one} in {told:?}");
    }
}

/// A folder that moved is told as gone before what is in it is told as there, though the watcher told of the new place alone.
#[test]
fn what_moved_is_gone_before_it_is_there() {
    let mut world = World::new();
    world.write("lib/a/1.md", "one");
    world.write("lib/2.md", "two");
    world.write("top.md", "top");
    assert!(world.looker.look_everywhere());
    world.told();
    fs::create_dir(world.folder.path().join("archive")).unwrap();
    fs::rename(world.folder.path().join("lib"), world.folder.path().join("archive/lib")).unwrap();
    assert!(world.looker.noticed(vec![path("archive")]));
    let told = world.told();
    let at = |what: &str| told.iter().position(|told| told == what);
    assert!(at("-lib").is_some() && at("-lib") < at("+archive/lib/a/1.md"), "{told:?}");
    assert!(at("-lib") < at("+archive/lib/2.md"), "{told:?}");
}
