//! A folder of documents to share: a given one, or one made up from a seed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::folder::{Snapshot, snapshot};

/// Words of several scripts, so that sizes in bytes and in characters differ.
const WORDS: [&str; 32] = [
    "component",
    "the",
    "render",
    "build",
    "content",
    "une",
    "page",
    "collection",
    "を",
    "コンポーネント",
    "設定",
    "路由",
    "檔案",
    "сборка",
    "страница",
    "Übersicht",
    "läuft",
    "façade",
    "props",
    "`astro.config`",
    "**important**",
    "deploy",
    "server",
    "island",
    "[link](/en/guides/)",
    "import",
    "레이아웃",
    "빌드",
    "hydrate",
    "slot",
    "and",
    "of",
];

/// Documents to fill a workspace with.
pub enum Corpus {
    /// A folder that exists, named by `WEFT_CORPUS`.
    Given(PathBuf),
    /// As many documents as this, from a fixed seed: about 3 KB of Markdown with frontmatter in the median, a few
    /// pictures, folders three deep, names in several scripts.
    Made(usize),
}

impl Corpus {
    /// The folder that `WEFT_CORPUS` names, else `documents` made up ones.
    #[must_use]
    pub fn from_env(documents: usize) -> Self {
        std::env::var_os("WEFT_CORPUS").map_or(Self::Made(documents), |path| Self::Given(PathBuf::from(path)))
    }

    /// Puts the documents into `folder`, and says what they are.
    pub fn place(&self, folder: &Path) -> Result<Snapshot> {
        match self {
            Self::Given(source) => copy(source, folder)?,
            Self::Made(documents) => make(folder, *documents)?,
        }
        snapshot(folder)
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).context("the corpus has nowhere to go")?;
    for entry in std::fs::read_dir(from).with_context(|| format!("{} cannot be read", from.display()))? {
        let entry = entry.context("the corpus cannot be read to its end")?;
        let target = to.join(entry.file_name());
        if entry.file_type().context("a file of the corpus has no type")?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            // The bytes only: a read-only original must not make a read-only copy.
            let bytes = std::fs::read(entry.path()).context("a file of the corpus cannot be read")?;
            std::fs::write(&target, bytes).context("a file of the corpus cannot be written")?;
        }
    }
    Ok(())
}

fn make(folder: &Path, documents: usize) -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let languages = ["en", "fr", "de", "ja", "zh-tw"];
    let sections = ["guides", "reference/errors", "tutorial/2-pages", "recipes", "concepts"];
    for number in 0..documents {
        let language = pick(&mut rng, &languages);
        let section = pick(&mut rng, &sections);
        let parent = folder.join(language).join(section);
        std::fs::create_dir_all(&parent).context("a folder of the corpus")?;
        let text = document(&mut rng, number);
        std::fs::write(
            parent.join(format!("{}-{number}.mdx", pick(&mut rng, &["page", "überblick", "設定", "guide"]))),
            text,
        )
        .context("a document of the corpus")?;
    }
    let pictures = folder.join("assets");
    std::fs::create_dir_all(&pictures).context("a folder of the corpus")?;
    for number in 0..documents.div_ceil(150) {
        let mut bytes = vec![0; 20_000 + (rng.next_u32() % 300_000) as usize];
        rng.fill_bytes(&mut bytes);
        std::fs::write(pictures.join(format!("picture-{number}.png")), bytes).context("a picture of the corpus")?;
    }
    Ok(())
}

fn document(rng: &mut ChaCha8Rng, number: usize) -> String {
    let mut text = format!("---\ntitle: Document {number}\ntags: [docs, \"{}\"]\n---\n\n", pick(rng, &WORDS));
    // Many short, few long: the length doubles with every coin that falls on the same side.
    let mut paragraphs = 2 + rng.next_u32() % 4;
    while rng.next_u32().is_multiple_of(3) && paragraphs < 128 {
        paragraphs *= 2;
    }
    for paragraph in 0..paragraphs {
        if paragraph % 4 == 0 {
            text.push_str(&format!("## {} {}\n\n", pick(rng, &WORDS), paragraph));
        }
        for _ in 0..20 + rng.next_u32() % 60 {
            text.push_str(pick(rng, &WORDS));
            text.push(' ');
        }
        text.push_str("\n\n");
    }
    text
}

fn pick<'a>(rng: &mut ChaCha8Rng, from: &[&'a str]) -> &'a str {
    let index = rng.next_u32() as usize % from.len().max(1);
    from.get(index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The made corpus is the same every time, so that a failure can be repeated.
    #[test]
    fn the_made_corpus_is_the_same_every_time() -> Result<()> {
        let (one, two) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let first = Corpus::Made(40).place(one.path())?;
        assert_eq!(first, Corpus::Made(40).place(two.path())?);
        assert!(first.len() > 40, "documents and pictures");
        Ok(())
    }
}
