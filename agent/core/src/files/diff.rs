//! The hunks between two texts: lines first, then words inside a line that is still the same line.
//!
//! Invariant: applying the hunks to the old text gives the new one, and the work is bounded whatever the texts are.
//! Why: an unbounded diff of a moved half of a file takes half a minute; a hunk a line wide would clobber what another
//! person typed in the same line; and a line that was rewritten must be replaced whole, or two people who rewrite it at
//! the same time get their words shuffled into each other. Spec: docs/files.md#text.

use imara_diff::{Algorithm, Diff, InternedInput, TokenSource};

/// Hunks larger than this, in bytes of both sides, are replaced whole instead of being looked into word by word.
const WORDS_BYTES_MAX: usize = 64 * 1024;

/// A part of the old text that is replaced. Positions are in characters (Unicode scalar values).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hunk {
    /// Where in the old text.
    pub(crate) at: usize,
    /// How many characters go.
    pub(crate) removed: usize,
    /// What comes in their place.
    pub(crate) inserted: String,
}

/// A text as a list of its words: runs of letters and digits, and every other character by itself.
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;
    fn next(&mut self) -> Option<&'a str> {
        let first = self.0.chars().next()?;
        let end = if first.is_alphanumeric() {
            self.0.find(|c: char| !c.is_alphanumeric()).unwrap_or(self.0.len())
        } else {
            first.len_utf8()
        };
        let (word, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        Some(word)
    }
}

impl<'a> TokenSource for Words<'a> {
    type Token = &'a str;
    type Tokenizer = Self;
    fn tokenize(&self) -> Self {
        Words(self.0)
    }
    fn estimate_tokens(&self) -> u32 {
        u32::try_from(self.0.len() / 3).unwrap_or(u32::MAX)
    }
}

/// Byte lengths of the common start and end, which do not overlap and end at characters.
fn common_edges(old: &str, new: &str) -> (usize, usize) {
    let mut start: usize = old.bytes().zip(new.bytes()).take_while(|(a, b)| a == b).count();
    while !old.is_char_boundary(start) || !new.is_char_boundary(start) {
        start -= 1;
    }
    let room = old.len().min(new.len()) - start;
    let mut end: usize = old.bytes().rev().zip(new.bytes().rev()).take(room).take_while(|(a, b)| a == b).count();
    while !old.is_char_boundary(old.len() - end) || !new.is_char_boundary(new.len() - end) {
        end -= 1;
    }
    (start, end)
}

/// Collects hunks while walking both texts from the start.
struct Collector {
    at: usize,
    hunks: Vec<Hunk>,
}

impl Collector {
    fn same(&mut self, text: &str) {
        self.at += text.chars().count();
    }
    /// `old` became `new`, whole.
    fn replace(&mut self, old: &str, new: &str) {
        let removed = old.chars().count();
        if removed > 0 || !new.is_empty() {
            self.hunks.push(Hunk { at: self.at, removed, inserted: new.to_owned() });
        }
        self.at += removed;
    }
    /// One or several words became others: what is common at their edges is left alone, if it is most of them.
    fn replace_words(&mut self, old: &str, new: &str) {
        let (start, end) = common_edges(old, new);
        if 2 * (start + end) < old.len().min(new.len()) {
            return self.replace(old, new);
        }
        let (head, rest) = old.split_at_checked(start).unwrap_or((old, ""));
        let (gone, tail) = rest.split_at_checked(rest.len().saturating_sub(end)).unwrap_or((rest, ""));
        let come = new.get(start..new.len() - end).unwrap_or_default();
        self.same(head);
        self.replace(gone, come);
        self.same(tail);
    }
    /// Lines became others: those that are still the same lines are looked into, the rest is replaced.
    fn replace_lines(&mut self, old: &str, new: &str) {
        if old.is_empty() || new.is_empty() {
            return self.replace(old, new);
        }
        // As many lines as before, however many: one by one, or an edit of every line of a long text would take out what
        // others wrote in any of them.
        if old.lines().count() > 1 && old.lines().count() == new.lines().count() {
            for (old, new) in old.split_inclusive('\n').zip(new.split_inclusive('\n')) {
                self.replace_lines(old, new);
            }
            return;
        }
        if old.len() + new.len() > WORDS_BYTES_MAX {
            return self.replace(old, new);
        }
        let mut inside = Collector { at: self.at, hunks: Vec::new() };
        inside.walk(Words(old), Words(new), Collector::replace_words);
        // Letters and digits tell whether it is still the same line; what stands between them is the same in many.
        let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).count();
        let gone = |hunk: &Hunk| {
            let chars = old.chars().skip(hunk.at - self.at).take(hunk.removed);
            chars.filter(|c| c.is_alphanumeric()).count()
        };
        let gone: usize = inside.hunks.iter().map(gone).sum();
        let come: usize = inside.hunks.iter().map(|hunk| letters(&hunk.inserted)).sum();
        let (before, after) = (letters(old), letters(new));
        // Of the shorter side more than half is kept: an edit of these lines. Else they are other lines.
        if 2 * gone < before || 2 * come < after {
            *self = Collector { hunks: std::mem::take(&mut self.hunks), at: inside.at };
            self.hunks.append(&mut inside.hunks);
        } else {
            self.replace(old, new);
        }
    }
    /// Walks the hunks between two token lists; `inner` handles each changed pair.
    fn walk<'a, S: TokenSource<Token = &'a str>>(&mut self, old: S, new: S, inner: fn(&mut Self, &str, &str)) {
        let input = InternedInput::new(old, new);
        let diff = Diff::compute(Algorithm::Histogram, &input);
        let mut done = 0usize;
        let mut before = input.before.iter().map(|token| input.interner[*token]);
        let mut after = input.after.iter().map(|token| input.interner[*token]);
        let mut done_after = 0usize;
        for hunk in diff.hunks() {
            let (from, to) = (hunk.before.start as usize, hunk.before.end as usize);
            let same: String = before.by_ref().take(from.saturating_sub(done)).collect();
            self.same(&same);
            let gone: String = before.by_ref().take(to.saturating_sub(from)).collect();
            done = to;
            let (from, to) = (hunk.after.start as usize, hunk.after.end as usize);
            after.by_ref().take(from.saturating_sub(done_after)).for_each(drop);
            let come: String = after.by_ref().take(to.saturating_sub(from)).collect();
            done_after = to;
            inner(self, &gone, &come);
        }
        let same: String = before.collect();
        self.same(&same);
    }
}

/// The hunks that make `new` out of `old`, in ascending order, not overlapping.
///
/// A line is the same line whether it ends or not: the end of a last line that has none is compared as if it were there, or the
/// line would be looked into together with those before it.
pub(crate) fn diff(old: &str, new: &str) -> Vec<Hunk> {
    let ends = |text: &str| text.ends_with('\n');
    if old.is_empty() || new.is_empty() || ends(old) && ends(new) {
        return diff_lines(old, new);
    }
    let ended = |text: &str| if ends(text) { text.to_owned() } else { format!("{text}\n") };
    let (ended_old, ended_new) = (ended(old), ended(new));
    let mut hunks = diff_lines(&ended_old, &ended_new);
    if !ends(new) {
        take_end_from_new(&mut hunks, ended_old.chars().count());
    }
    if !ends(old) {
        take_end_from_old(&mut hunks, old.chars().count());
    }
    hunks
}

/// The hunks were made for an old text that ends a line more, at `end`.
fn take_end_from_old(hunks: &mut Vec<Hunk>, end: usize) {
    let mut stays = true;
    for hunk in hunks.iter_mut().filter(|hunk| hunk.removed > 0 && hunk.at + hunk.removed > end) {
        hunk.removed -= 1;
        stays = false;
    }
    match hunks.last_mut().filter(|last| last.at > end) {
        Some(last) => {
            last.at = end;
            if stays {
                last.inserted.insert(0, '\n');
            }
        }
        None if stays => hunks.push(Hunk { at: end, removed: 0, inserted: "\n".to_owned() }),
        None => {}
    }
    hunks.retain(|hunk| hunk.removed > 0 || !hunk.inserted.is_empty());
}

/// The hunks were made for a new text that ends a line more than it does; the old one has `end` characters.
fn take_end_from_new(hunks: &mut Vec<Hunk>, mut end: usize) {
    for at in (0..hunks.len()).rev() {
        let Some(hunk) = hunks.get_mut(at).filter(|hunk| hunk.at + hunk.removed == end) else { break };
        if hunk.inserted.pop().is_some() {
            return;
        }
        end = hunk.at;
    }
    // It is one that was there before.
    let after = hunks.partition_point(|hunk| hunk.at < end);
    match hunks.get_mut(after) {
        Some(next) if next.at == end => (next.at, next.removed) = (end.saturating_sub(1), next.removed + 1),
        _ => hunks.insert(after, Hunk { at: end.saturating_sub(1), removed: 1, inserted: String::new() }),
    }
}

fn diff_lines(old: &str, new: &str) -> Vec<Hunk> {
    let (start, end) = common_edges(old, new);
    let mut collector = Collector { at: 0, hunks: Vec::new() };
    // Back to line starts, so that the line diff sees whole lines.
    let start = old.get(..start).and_then(|same| same.rfind('\n')).map_or(0, |at| at + 1);
    let tail = |text: &str| text.len() - end;
    let end_lines = old.get(tail(old)..).and_then(|same| same.find('\n')).map_or(0, |at| end - at - 1);
    let old_middle = old.get(start..old.len() - end_lines).unwrap_or_default();
    let new_middle = new.get(start..new.len() - end_lines).unwrap_or_default();
    collector.same(old.get(..start).unwrap_or_default());
    collector.walk(old_middle, new_middle, Collector::replace_lines);
    collector.hunks
}

/// How much a list of hunks changes, in characters: to choose the likelier of two bases.
pub(crate) fn weight(hunks: &[Hunk]) -> usize {
    hunks.iter().map(|hunk| hunk.removed + hunk.inserted.chars().count()).sum()
}

/// Whether two lists of hunks over one text, each in ascending order, touch nowhere.
pub(crate) fn apart(one: &[Hunk], other: &[Hunk]) -> bool {
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    while let (Some(a), Some(b)) = (one.peek(), other.peek()) {
        if a.at + a.removed < b.at {
            one.next();
        } else if b.at + b.removed < a.at {
            other.next();
        } else {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn apply(old: &str, hunks: &[Hunk]) -> String {
        let mut chars: Vec<char> = old.chars().collect();
        for hunk in hunks.iter().rev() {
            chars.splice(hunk.at..hunk.at + hunk.removed, hunk.inserted.chars());
        }
        chars.into_iter().collect()
    }

    /// A changed letter touches only its word, in a text of many lines.
    #[test]
    fn a_small_edit_is_a_small_hunk() {
        let old: String = (0..1000).map(|n| format!("line {n} of the text\n")).collect();
        let new = old.replace("line 500 of", "line 500 off");
        let hunks = diff(&old, &new);
        assert_eq!(hunks.len(), 1);
        assert_eq!((hunks[0].removed, hunks[0].inserted.as_str()), (0, "f"));
    }

    /// A rewritten line goes as a whole, so that two people who rewrite it at once leave two whole lines.
    #[test]
    fn a_rewritten_line_is_replaced_whole() {
        let hunks = diff("a\n1ac713 two key000 6f0c86\nb\n", "a\n0ea0f9 - task key003 7140ab\nb\n");
        assert_eq!(hunks, vec![Hunk { at: 2, removed: 25, inserted: "0ea0f9 - task key003 7140ab\n".into() }]);
    }

    /// Of several changed lines each is judged by itself.
    #[test]
    fn an_edited_line_beside_a_rewritten_one_stays_an_edit() {
        let hunks = diff("keep this line as it is\nfirst second\n", "keep this line as it was\nother words\n");
        assert_eq!(hunks.len(), 2);
        assert_eq!(hunks[1], Hunk { at: 24, removed: 13, inserted: "other words\n".into() });
    }

    /// A last line that nobody touched but for its end is the same line; what stands before it is judged by itself.
    #[test]
    fn the_end_of_the_last_line_is_a_hunk_of_its_own() {
        let (old, new) = ("first old words\nlast line\n", "quite another thing\nand more\nlast line");
        let replaced = Hunk { at: 0, removed: 16, inserted: "quite another thing\nand more\n".into() };
        let ended = Hunk { at: 25, removed: 1, inserted: String::new() };
        assert_eq!(diff(old, new), vec![replaced, ended]);
        let ended = Hunk { at: 37, removed: 0, inserted: "\n".into() };
        let replaced = Hunk { at: 0, removed: 29, inserted: "first old words\n".into() };
        assert_eq!(diff(new, old), vec![replaced, Hunk { at: 38, ..ended }]);
        let (old, new) = ("first old words\nsecond one\nthird line", "quite another thing\nsecond one");
        let replaced = Hunk { at: 0, removed: 16, inserted: "quite another thing\n".into() };
        assert_eq!(diff(old, new), vec![replaced, Hunk { at: 26, removed: 11, inserted: String::new() }]);
    }

    /// An edit of every line of a text of any length touches only the words that it changed.
    #[test]
    fn an_edit_of_every_line_of_a_long_text_is_made_of_small_hunks() {
        let old: String = (0..2000).map(|n| format!("line {n} of the text with some words in it {n}\n")).collect();
        assert!(old.len() > WORDS_BYTES_MAX);
        let hunks = diff(&old, &old.replace("words", "WORDS"));
        assert_eq!(hunks.len(), 2000);
        assert!(hunks.iter().all(|hunk| hunk.removed == 5 && hunk.inserted == "WORDS"));
    }

    proptest! {
        /// Two lists of hunks are apart if no hunk of one touches a hunk of the other.
        #[test]
        fn apart_is_as_it_says(old in "[ab\n]{0,40}", one in "[ab\n]{0,40}", other in "[ab\n]{0,40}") {
            let (one, other) = (diff(&old, &one), diff(&old, &other));
            let touch = |a: &Hunk, b: &Hunk| a.at + a.removed >= b.at && b.at + b.removed >= a.at;
            let expected = one.iter().all(|a| other.iter().all(|b| !touch(a, b)));
            prop_assert_eq!(apart(&one, &other), expected);
        }

        /// Whatever the two texts are, the hunks of their difference make the one out of the other.
        #[test]
        fn hunks_apply(old in "[ab\nä ]{0,60}", new in "[ab\nä ]{0,60}") {
            prop_assert_eq!(apply(&old, &diff(&old, &new)), new);
        }
    }
}
