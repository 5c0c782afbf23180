//! Names people read, and the four words that tell two equal names apart.
//!
//! Names are content, not identity: bounded, without control characters, and never used to decide anything.
//! Spec: docs/sealing.md#names.

use weft_protocol::cbor::{DecodeError, Decoded, Reader};

use crate::hash;
use crate::id::RootKey;

/// Longest name of a member, device or workspace, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 64;

/// Characters that would let a name rewrite the line it is printed in: controls, and Unicode's direction marks.
fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The name as it may stand on the wire: without control characters, trimmed, cut at [`NAME_BYTES_MAX`].
#[must_use]
pub fn clean_name(name: &str) -> String {
    let mut clean = String::new();
    // Trimmed behind the filter: a control character may stand before white space.
    for c in name.chars().filter(|c| !is_unprintable(*c)).skip_while(|c| c.is_whitespace()) {
        if clean.len() + c.len_utf8() > NAME_BYTES_MAX {
            break;
        }
        clean.push(c);
    }
    clean.truncate(clean.trim_end().len());
    clean
}

/// Reads a name; refuses what [`clean_name`] would change.
pub(crate) fn read_name(reader: &mut Reader<'_>) -> Decoded<String> {
    let name = reader.text_up_to(NAME_BYTES_MAX, "name")?;
    if clean_name(name) != name {
        return Err(DecodeError::Invalid("name"));
    }
    Ok(name.to_owned())
}

/// Four BIP-39 words (44 bits) of the hash of a root key, to compare aloud.
#[must_use]
pub fn fingerprint(root: &RootKey) -> String {
    four_words(&hash::h("fingerprint", &[&root.0]))
}

/// The first 44 bits of a hash as four BIP-39 words.
pub(crate) fn four_words(hash: &[u8; 32]) -> String {
    let bits = hash.iter().take(6).fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte)) >> 4;
    let list = bip39::Language::English.word_list();
    let word = |shift: u32| list.get((bits >> shift) as usize & 0x7ff).copied().unwrap_or_default();
    [word(33), word(22), word(11), word(0)].join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_and_bounded() {
        assert_eq!(clean_name("  Ada\n\u{202e}Lovelace\u{7} "), "AdaLovelace");
        // Cleaning a clean name changes nothing, or whoever has it could not be read.
        assert_eq!(clean_name("\u{4} ?\u{8}"), "?");
        assert_eq!(clean_name(&"é".repeat(40)).len(), 64);
        let long = clean_name(&format!("{} x", "a".repeat(63)));
        assert_eq!(clean_name(&long), long);
        assert_eq!(fingerprint(&RootKey([1; 32])).split(' ').count(), 4);
    }
}
