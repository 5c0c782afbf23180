//! What a relay can and cannot learn, in one place: `GET /`, `weft-relay learn` and docs/security.md say the same.

/// What a relay is, for people.
pub const ABOUT: &str = "This is weft-relay. It forwards sealed bytes between the peers of a room, and keeps nothing.";

/// What it can learn.
pub const LEARNS: &[&str] = &[
    "the IP addresses that connect, and when",
    "a pseudonymous key of each device, stable at this relay and another at the next; with named DIDs, the DID",
    "which connections meet in which room, hence how many they are; room names are hashes that change with the group's keys",
    "when and how much each one sends, padded",
];

/// What it cannot learn or do.
pub const CANNOT_LEARN: &[&str] = &[
    "file names and contents",
    "names of people and workspaces, and which workspace a room belongs to",
    "who wrote what",
    "a key that opens what passes: it holds none, and links no code that could",
    "a way to forge or change what passes without being noticed",
];

/// The whole text.
#[must_use]
pub fn text() -> String {
    let list = |lines: &[&str]| lines.iter().map(|line| format!("  - {line}\n")).collect::<String>();
    format!("{ABOUT}\n\nIt can learn:\n{}\nIt cannot learn:\n{}", list(LEARNS), list(CANNOT_LEARN))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text that people read in the documentation is this one.
    #[test]
    fn the_documentation_says_the_same() {
        let security = include_str!("../../docs/security.md");
        for line in LEARNS.iter().chain(CANNOT_LEARN) {
            assert!(security.contains(line), "docs/security.md lacks: {line}");
        }
    }
}
