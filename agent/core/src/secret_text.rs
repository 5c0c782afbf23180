//! Secrets as texts that survive paper, mail and chat: scheme, then base64url(2 ‖ length ‖ CBOR ‖ checksum) without padding.
//!
//! A mail program wraps a long line, quotes it with `>`, or ends it with a dot; a chat puts brackets around it; a person
//! selects one letter too few. So a text is looked for in what was pasted, what cannot be part of it is skipped, its length
//! says where it ends, and a checksum says whether it is right, before anybody is asked over a network.
//!
//! Invariant: what is wiped afterwards is all that was made on the way; a text that is too long is not looked at; a text
//! with one wrong, missing or swapped character never reads as another one.
//! Spec: docs/sealing.md#secret-texts

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use weft_protocol::cbor::{self, DecodeError, Wire};
use zeroize::Zeroizing;

use crate::hash;

/// The version without length and checksum: passes on paper have it, so it is read for ever, and no more made.
const UNCHECKED: u8 = 1;
/// The version of every text that is made now.
const CHECKED: u8 = 2;
/// Version and length.
const HEAD_BYTES: usize = 3;
/// Four bytes let one damaged text in four thousand million pass.
const CHECK_BYTES: usize = 4;
/// A text may stand in so many times its own bound: wrapped, quoted, with the mail around it.
const AROUND: usize = 4;
/// So many places that look like a beginning are tried: "the weft: link is weft:..." has two.
const BEGINNINGS_MAX: usize = 8;

/// Why a text is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TextError {
    /// No such text in it, or too long.
    NotOne,
    /// Characters are missing.
    Incomplete {
        /// So many are there.
        here: usize,
        /// So many belong there; 0: it does not say.
        whole: usize,
    },
    /// The checksum does not fit: a character is wrong.
    Mistyped,
    /// Another version.
    Newer,
    /// The right shape outside, the wrong one inside.
    Damaged(DecodeError),
}

/// How much of a text is there, as part of a sentence.
pub(crate) fn so_many(here: usize, whole: usize) -> String {
    if whole == 0 { String::new() } else { format!(": {here} of its {whole} characters are here") }
}

/// The text.
pub(crate) fn to_text<T: Wire>(scheme: &str, body: &T) -> String {
    let body = Zeroizing::new(cbor::to_bytes(body));
    let mut bytes = Zeroizing::new(vec![CHECKED]);
    // Every kind of text is bounded far below; one that is not is cut here and refused by whoever reads it.
    bytes.extend_from_slice(&u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend_from_slice(&body);
    let check = checksum(scheme, &bytes);
    bytes.extend_from_slice(&check);
    format!("{scheme}{}", URL_SAFE_NO_PAD.encode(bytes.as_slice()))
}

fn checksum(scheme: &str, bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let [a, b, c, d, ..] = hash::h(&format!("text/{scheme}"), &[bytes]);
    [a, b, c, d]
}

/// What a text of at most `bytes_max` says, wherever it stands in what was pasted.
pub(crate) fn from_text<T: Wire>(scheme: &str, bytes_max: usize, pasted: &str) -> Result<T, TextError> {
    if pasted.len() > bytes_max * AROUND {
        return Err(TextError::NotOne);
    }
    let mut first = None;
    for start in beginnings(scheme, pasted).take(BEGINNINGS_MAX) {
        match read(scheme, bytes_max, pasted.get(start..).unwrap_or_default()) {
            Ok(body) => return Ok(body),
            Err(error) => drop(first.get_or_insert(error)),
        }
    }
    Err(first.unwrap_or(TextError::NotOne))
}

/// Where a text may begin: behind the scheme, in letters of any size (a phone writes the first one large).
pub(crate) fn beginnings<'a>(scheme: &'a str, pasted: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = pasted.as_bytes();
    bytes.windows(scheme.len().max(1)).enumerate().filter_map(move |(at, window)| {
        // A word that only ends like the scheme is another one.
        let inside = at > 0 && bytes.get(at - 1).is_some_and(|before| before.is_ascii_alphanumeric());
        (!inside && window.eq_ignore_ascii_case(scheme.as_bytes())).then_some(at + scheme.len())
    })
}

/// What stands behind a scheme.
struct Behind {
    /// The characters that can belong to the text, in order.
    letters: Zeroizing<String>,
    /// How many of them stand before the first white space.
    first_run: usize,
    /// A character that no text has stands right behind one of the text.
    stray: bool,
}

fn behind(text: &str, letters_max: usize) -> Behind {
    let mut found = Behind { letters: Zeroizing::new(String::with_capacity(letters_max)), first_run: 0, stray: false };
    let mut spaced = false;
    let mut in_first_run = true;
    for c in text.chars() {
        if found.letters.len() >= letters_max {
            break;
        }
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') {
            found.letters.push(c);
            spaced = false;
        } else if is_around(c) {
            spaced |= c.is_whitespace();
            in_first_run &= !spaced;
        } else {
            found.stray = !spaced;
            break;
        }
        if in_first_run {
            found.first_run = found.letters.len();
        }
    }
    found
}

/// What mail and chat put around a text and into it: white space, marks of quotation, brackets, punctuation, padding, and
/// signs that nobody sees.
fn is_around(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '>' | '<'
                | '|'
                | '('
                | ')'
                | '['
                | ']'
                | '{'
                | '}'
                | '"'
                | '\''
                | '`'
                | '*'
                | '~'
                | '.'
                | ','
                | ';'
                | '!'
                | '?'
                | '='
                | '\\'
        )
        || matches!(c, '‘' | '’' | '‚' | '“' | '”' | '„' | '«' | '»' | '‹' | '›' | '…')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ad}')
}

fn read<T: Wire>(scheme: &str, bytes_max: usize, text: &str) -> Result<T, TextError> {
    let behind = behind(text, bytes_max.saturating_sub(scheme.len()));
    let letters = behind.letters.as_str();
    // Three bytes are four characters: version and length.
    let Some(head) = letters.get(..4) else { return Err(TextError::Incomplete { here: letters.len(), whole: 0 }) };
    match *decode(head)?.as_slice() {
        [UNCHECKED, ..] => {
            let run = letters.get(..behind.first_run).unwrap_or(letters);
            unchecked(letters).or_else(|error| unchecked(run).map_err(|_| error))
        }
        [CHECKED, high, low] => {
            let bytes = HEAD_BYTES + usize::from(u16::from_be_bytes([high, low])) + CHECK_BYTES;
            let whole = (bytes * 4).div_ceil(3);
            let Some(letters) = letters.get(..whole) else {
                let missing = TextError::Incomplete { here: letters.len(), whole };
                return Err(if behind.stray { TextError::Mistyped } else { missing });
            };
            checked(scheme, &decode(letters)?)
        }
        _ => Err(TextError::Newer),
    }
}

fn decode(letters: &str) -> Result<Zeroizing<Vec<u8>>, TextError> {
    URL_SAFE_NO_PAD.decode(letters).map(Zeroizing::new).map_err(|_| TextError::Mistyped)
}

fn checked<T: Wire>(scheme: &str, bytes: &[u8]) -> Result<T, TextError> {
    let at = bytes.len().saturating_sub(CHECK_BYTES);
    let (said, check) = bytes.split_at_checked(at).ok_or(TextError::Mistyped)?;
    if check != checksum(scheme, said) {
        return Err(TextError::Mistyped);
    }
    cbor::from_bytes(said.get(HEAD_BYTES..).unwrap_or_default()).map_err(TextError::Damaged)
}

fn unchecked<T: Wire>(letters: &str) -> Result<T, TextError> {
    // One character too few or too many is no number of whole bytes.
    let bytes = URL_SAFE_NO_PAD.decode(letters).map(Zeroizing::new);
    let bytes = bytes.map_err(|_| TextError::Incomplete { here: letters.len(), whole: 0 })?;
    cbor::from_bytes(bytes.get(1..).unwrap_or_default()).map_err(|error| {
        let is_cut = error == DecodeError::Malformed("truncated");
        if is_cut { TextError::Incomplete { here: letters.len(), whole: 0 } } else { TextError::Damaged(error) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrol::{PASS_SCHEME, Pass, Way};
    use crate::id::{OpId, RootKey, WorkspaceId};
    use crate::secret::Secret;
    use proptest::prelude::*;

    const MAX: usize = 4096;

    fn pass(urls: usize) -> Pass {
        Pass {
            way: Way::Words,
            workspace: WorkspaceId([1; 32]),
            secret: Secret::new([0xab; 32]),
            op_heads: vec![OpId([2; 32])],
            root: RootKey([3; 32]),
            urls: (0..urls).map(|at| format!("wss://relay{at}.example:443")).collect(),
            name: "notes".into(),
        }
    }

    fn reads(text: &str) -> Result<Pass, TextError> {
        from_text(PASS_SCHEME, MAX, text)
    }

    /// As it was made before there were length and checksum.
    fn old_text(pass: &Pass) -> String {
        let mut bytes = vec![UNCHECKED];
        bytes.extend_from_slice(&cbor::to_bytes(pass));
        format!("{PASS_SCHEME}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Mail, chat, paper and phones do these things to a text, and it reads all the same, of either version.
    #[test]
    fn what_programs_do_to_a_text_is_forgiven() {
        let pass = pass(2);
        for text in [to_text(PASS_SCHEME, &pass), old_text(&pass)] {
            let lines: Vec<&str> = text.as_bytes().chunks(40).map(|line| std::str::from_utf8(line).unwrap()).collect();
            for pasted in [
                format!("  {text}\n"),
                format!("<{text}>"),
                format!("({text})."),
                format!("[{text}],"),
                format!("“{text}”!"),
                format!("'{text}'"),
                format!("`{text}`"),
                lines.join("\n"),
                lines.join("\r\n  "),
                lines.join("=\r\n"),
                format!("> {}", lines.join("\n> ")),
                format!(">> On Monday Ann wrote:\n>> {}\n", lines.join("\n>> ")),
                format!("Here is the weft-pass: you asked for:\n{text}"),
                text.replacen("weft", "Weft", 1),
                format!("weft join '{text}'"),
                lines.join("\u{200b}"),
            ] {
                assert_eq!(reads(&pasted), Ok(pass.clone()), "{pasted}");
            }
            // What stands behind it, in a line of its own or not.
            assert_eq!(reads(&format!("weft join '{text}' ./notes")), Ok(pass.clone()));
            assert_eq!(reads(&format!("{text}\n\nSee you on Monday\nAnn")), Ok(pass.clone()));
        }
    }

    /// A text that was cut is told as incomplete, wherever it was cut, and says how much is there.
    #[test]
    fn a_cut_text_is_incomplete() {
        let text = to_text(PASS_SCHEME, &pass(1));
        let whole = text.len() - PASS_SCHEME.len();
        for cut in PASS_SCHEME.len()..text.len() {
            let here = cut - PASS_SCHEME.len();
            let said = if here < 4 { 0 } else { whole };
            assert_eq!(reads(&text[..cut]), Err(TextError::Incomplete { here, whole: said }), "{cut}");
        }
        let old = old_text(&pass(1));
        for cut in PASS_SCHEME.len()..old.len() {
            assert!(reads(&old[..cut]).is_err(), "{cut}");
        }
        assert_eq!(reads("hello"), Err(TextError::NotOne));
        assert_eq!(reads(&format!("{PASS_SCHEME}{}", "A".repeat(MAX * AROUND))), Err(TextError::NotOne));
        // A text of one kind is none of another.
        assert_eq!(from_text::<Pass>("weft:", MAX, &text), Err(TextError::NotOne));
        assert_eq!(from_text::<Pass>("weft:", MAX, &text.replace("weft-pass:", "weft:")), Err(TextError::Mistyped));
    }

    proptest! {
        /// One character that is another, missing, doubled or swapped with its neighbour is never read as anything.
        #[test]
        fn a_mistyped_text_is_refused(at in 0usize..300, other in "[A-Za-z0-9_-]", what in 0u8..4) {
            let text = to_text(PASS_SCHEME, &pass(1));
            let at = PASS_SCHEME.len() + at % (text.len() - PASS_SCHEME.len() - 1);
            let (before, here, next, after) = (&text[..at], &text[at..=at], &text[at + 1..at + 2], &text[at + 2..]);
            let typed = match what {
                0 => format!("{before}{other}{next}{after}"),
                1 => format!("{before}{next}{after}"),
                2 => format!("{before}{here}{here}{next}{after}"),
                _ => format!("{before}{next}{here}{after}"),
            };
            // Doubling the last of several equal ones, or swapping two of them, changes nothing that is read.
            prop_assume!(!typed.starts_with(&text));
            prop_assert!(reads(&typed).is_err(), "{typed}");
        }

        /// Nothing that is pasted panics, or reads as a text by chance.
        #[test]
        fn nothing_strange_reads(pasted in "\\PC{0,300}") {
            prop_assert!(reads(&pasted).is_err());
            let _judged = reads(&format!("{PASS_SCHEME}Ag{pasted}"));
        }
    }
}
