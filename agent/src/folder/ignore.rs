//! Which paths stay out: our own litter, the defaults, `.gitignore`, and over them `.weftignore`.
//!
//! Invariant: rules only ever keep a path from being taken in; a path that is known and becomes ignored is left as it
//! is, here and elsewhere. Within one kind the deeper file wins, then the later line; `.weftignore` beats `.gitignore`
//! beats the defaults, so `!.env` in `.weftignore` shares it after all.
//! Spec: docs/using.md#what-stays-at-home.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use weft_agent_core::disk::RelPath;

use super::marker;

/// Names that our unfinished writes have; never taken in, whatever the rules say.
pub(crate) const TEMP_PREFIX: &str = ".weft-tmp-";
/// Of these, those that are about to be exchanged, or were: they may hold what was in the file before.
pub(crate) const EXCHANGED_PREFIX: &str = ".weft-tmp-x";

/// What is ignored unless `.weftignore` says otherwise; gitignore syntax.
pub(crate) const DEFAULTS: &[&str] = &[
    "node_modules/",
    ".venv/",
    "__pycache__/",
    ".env",
    ".env.*",
    // What shows others which variables there are holds no secret.
    "!.env.example",
    "!.env.sample",
    "!.env.template",
    "!.env.dist",
    "*.pem",
    ".trash/",
    ".Trash-*/",
    // Editors: swap files, locks, backups, and what changes at every click.
    "*.swp",
    "*.swo",
    "*.swx",
    "4913",
    "*~",
    ".#*",
    "\\#*#",
    ".~lock.*#",
    "~$*",
    "*.tmp",
    ".goutputstream-*",
    ".obsidian/workspace*.json",
    ".obsidian/cache",
    // Operating systems.
    ".DS_Store",
    "._*",
    ".Spotlight-V100/",
    ".Trashes/",
    ".fseventsd/",
    "Thumbs.db",
    "desktop.ini",
    ".fuse_hidden*",
    ".nfs*",
    ".directory",
    "lost+found/",
    "$RECYCLE.BIN/",
];

/// Build tools put what they make into `target`; people put other things there. It is a build folder if one of these is beside
/// it, or if it says that it can be made again.
const BUILDS: [&str; 4] = ["Cargo.toml", "pom.xml", "build.sbt", "project.clj"];

#[derive(Default)]
struct Here {
    git: Option<Gitignore>,
    weft: Option<Gitignore>,
    nested_repository: bool,
}

/// The rules of one folder, read as they are met.
pub(crate) struct Rules {
    root: PathBuf,
    defaults: Gitignore,
    folders: HashMap<String, Here>,
}

impl Rules {
    pub(crate) fn new(root: &Path) -> Rules {
        let mut builder = GitignoreBuilder::new(root);
        for line in DEFAULTS {
            // Constant patterns; the test below builds every one of them.
            let _known_good = builder.add_line(None, line);
        }
        Rules {
            root: root.to_path_buf(),
            defaults: builder.build().unwrap_or_else(|_| Gitignore::empty()),
            folders: HashMap::new(),
        }
    }

    /// Forgets what was read, because a rule file changed or a whole look begins.
    pub(crate) fn reload(&mut self) {
        self.folders.clear();
    }

    /// Whether a change of this path changes rules.
    pub(crate) fn is_rule_file(path: &RelPath) -> bool {
        matches!(path.name(), ".gitignore" | ".weftignore")
    }

    fn here(&mut self, folder: &str) -> &Here {
        let root = &self.root;
        self.folders.entry(folder.to_owned()).or_insert_with(|| {
            let dir = root.join(folder);
            let read = |name: &str| {
                let file = dir.join(name);
                // A link could point to a secret of this machine: what it holds must not shape what is shared.
                if !file.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
                    return None;
                }
                let mut builder = GitignoreBuilder::new(&dir);
                if let Some(error) = builder.add(&file) {
                    tracing::warn!(%error, "some lines of an ignore file have no meaning and are skipped");
                }
                builder.build().ok()
            };
            Here {
                git: read(".gitignore"),
                weft: read(".weftignore"),
                nested_repository: !folder.is_empty() && dir.join(".git").exists(),
            }
        })
    }

    /// Whether a path, or a folder above it, stays out.
    pub(crate) fn ignored(&mut self, path: &RelPath, is_folder: bool) -> bool {
        let text = path.as_str();
        let mut ends: Vec<usize> = text.match_indices('/').map(|(at, _)| at).collect();
        ends.push(text.len());
        ends.iter().any(|end| {
            let part = text.get(..*end).unwrap_or(text);
            self.ignored_itself(part, is_folder || *end < text.len())
        })
    }

    /// Whether this path by itself stays out; the folders above it are known not to.
    pub(crate) fn ignored_itself(&mut self, path: &str, is_folder: bool) -> bool {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name == marker::DIR || name == ".git" || name.starts_with(TEMP_PREFIX) || name.starts_with(".weft-new-") {
            return true;
        }
        let full = self.root.join(path);
        let mut folders: Vec<&str> = vec![parent];
        let mut rest = parent;
        while !rest.is_empty() {
            rest = rest.rsplit_once('/').map_or("", |(above, _)| above);
            folders.push(rest);
        }
        let mut by_git = None;
        for folder in &folders {
            let here = self.here(folder);
            match here.weft.as_ref().map(|rules| rules.matched(&full, is_folder)) {
                Some(Match::Ignore(_)) => return true,
                Some(Match::Whitelist(_)) => return false,
                Some(Match::None) | None => {}
            }
            if by_git.is_none() {
                by_git = match here.git.as_ref().map(|rules| rules.matched(&full, is_folder)) {
                    Some(Match::Ignore(_)) => Some(true),
                    Some(Match::Whitelist(_)) => Some(false),
                    Some(Match::None) | None => None,
                };
            }
        }
        if is_folder && self.is_nested_repository(path) {
            return true;
        }
        by_git.unwrap_or_else(|| {
            let builds = || BUILDS.iter().any(|file| self.root.join(parent).join(file).exists());
            let is_build = is_folder && name == "target" && (builds() || full.join("CACHEDIR.TAG").exists());
            is_build || self.defaults.matched(&full, is_folder).is_ignore()
        })
    }

    /// Whether a folder is a git repository inside the workspace.
    pub(crate) fn is_nested_repository(&mut self, folder: &str) -> bool {
        self.here(folder).nested_repository
    }

    /// The rule files in force, and the defaults, for `weft ignore`.
    pub(crate) fn shown(&mut self) -> Vec<(String, Vec<String>)> {
        let mut defaults: Vec<String> = DEFAULTS.iter().map(|line| (*line).to_owned()).collect();
        defaults.push(format!("target/ (beside {}, or with a CACHEDIR.TAG in it)", BUILDS.join(", ")));
        let mut shown = vec![("defaults".to_owned(), defaults)];
        for name in [".gitignore", ".weftignore"] {
            if let Ok(text) = std::fs::read_to_string(self.root.join(name)) {
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
                shown.push((name.to_owned(), lines.map(str::to_owned).collect()));
            }
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    /// Every default is a pattern that builds.
    #[test]
    fn defaults_build() {
        let mut builder = GitignoreBuilder::new("/");
        for line in DEFAULTS {
            builder.add_line(None, line).unwrap();
        }
        let rules = builder.build().unwrap();
        assert_eq!((rules.num_ignores() + rules.num_whitelists()) as usize, DEFAULTS.len());
    }

    /// Defaults, then `.gitignore`, then `.weftignore`; deeper over higher; what is ours always stays out.
    #[test]
    fn rules_override_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["a/b", "app", "made/target"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("app/Cargo.toml"), "").unwrap();
        fs::write(dir.path().join("made/target/CACHEDIR.TAG"), "").unwrap();
        fs::write(dir.path().join(".gitignore"), "*.log\nbuild/\n!keep.tmp\n").unwrap();
        fs::write(dir.path().join("a/.weftignore"), "!important.log\n!.env\n/only-here\n").unwrap();
        let mut rules = Rules::new(dir.path());
        for (ignored, text, folder) in [
            (true, "x.log", false),
            (true, "a/x.log", false),
            (false, "a/important.log", false),
            (false, "a/b/important.log", false),
            (true, "important.log", false),
            (true, "build/out.txt", false),
            (true, ".env", false),
            (false, "a/.env", false),
            (true, "a/only-here", false),
            (false, "a/b/only-here", false),
            (false, "keep.tmp", false),
            (true, "other.tmp", false),
            (true, "a/node_modules/x/index.js", false),
            (true, ".weft/marker.toml", false),
            (true, "a/.git", true),
            (true, "a/.weft-tmp-00", false),
            (false, "notes/target", false),
            (false, "notes/target", true),
            (true, "app/target", true),
            (true, "app/target/debug/x.o", false),
            (true, "made/target", true),
            (true, ".env.local", false),
            (false, ".env.example", false),
            (false, "a/.env.template", false),
            (true, ".note.md.swp", false),
            (true, "#note.md#", false),
            (true, ".obsidian/workspace-mobile.json", false),
            (false, ".obsidian/app.json", false),
        ] {
            assert_eq!(rules.ignored(&path(text), folder), ignored, "{text}");
        }
    }

    /// A repository inside stays out, unless `.weftignore` lets it in.
    #[test]
    fn nested_repositories_stay_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("code/.git")).unwrap();
        fs::create_dir_all(dir.path().join("lib/.git")).unwrap();
        fs::write(dir.path().join(".weftignore"), "!lib/\n").unwrap();
        let mut rules = Rules::new(dir.path());
        assert!(rules.ignored(&path("code/main.rs"), false));
        assert!(!rules.ignored(&path("lib/main.rs"), false));
        assert!(rules.ignored(&path("lib/.git/HEAD"), false));
    }

    /// A changed rule file counts after a reload.
    #[test]
    fn reload_reads_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut rules = Rules::new(dir.path());
        assert!(!rules.ignored(&path("draft"), false));
        fs::write(dir.path().join(".weftignore"), "draft\n").unwrap();
        rules.reload();
        assert!(rules.ignored(&path("draft"), false));
        assert!(Rules::is_rule_file(&path("a/.weftignore")));
    }
}
