//! The name that somebody probably meant.
//!
//! Invariant: only ever a suggestion; nothing is done to what was not named exactly.

/// The nearest of `names` to what was typed, if it is near: the same in other letters, or about one slip in three characters.
pub(crate) fn nearest<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    let length = typed.chars().count();
    let slips_max = (length / 3).max(usize::from(length > 1));
    let near = names.into_iter().filter_map(|name| {
        let lower = name.to_lowercase();
        // Of a longer name, its beginning is what people remember.
        let slips =
            if length > 2 && lower.starts_with(&typed) { 0 } else { strsim::damerau_levenshtein(&typed, &lower) };
        (slips <= slips_max && !name.is_empty()).then_some((slips, name))
    });
    near.min_by_key(|(slips, _)| *slips).map(|(_, name)| name)
}

/// The end of a sentence that says that nothing is called so: a suggestion, or a full stop if no name is near.
pub(crate) fn did_you_mean<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(typed, names).map_or_else(|| ".".to_owned(), |name| format!("; did you mean {name:?}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slips, letters of another size and beginnings find their name; another word finds none.
    #[test]
    fn slips_find_their_name() {
        let names = ["Ann", "Benedict", "lan_port", "notes/plan.md"];
        for (typed, meant) in [
            ("ann", Some("Ann")),
            ("Bendict", Some("Benedict")),
            ("bene", Some("Benedict")),
            ("lan-prot", Some("lan_port")),
            ("notes/pln.md", Some("notes/plan.md")),
            ("Zoe", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, names), meant, "{typed}");
        }
        assert_eq!(did_you_mean("Anm", names), "; did you mean \"Ann\"?");
        assert_eq!(did_you_mean("Zoe", names), ".");
    }
}
