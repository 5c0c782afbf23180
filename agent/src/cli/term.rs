//! The terminal: what is printed, and how times and sizes read. Questions are in `question`.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::termios::tcgetwinsize;

pub(crate) use super::question::{agreed, ask, ask_secret, confirm};
use crate::daemon::wire::Failure;

/// Prints a line to standard output; a reader that hung up is no error.
pub(crate) fn say(text: &str) {
    let mut out = io::stdout().lock();
    let text = for_screen(&out, text);
    let _hung_up = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints a line for people, beside what was asked for.
pub(crate) fn note(text: &str) {
    let mut err = io::stderr().lock();
    let text = for_screen(&err, text);
    let _hung_up = writeln!(err, "{text}");
}

/// A text as wide as the terminal, if it goes to one.
fn for_screen<'a>(stream: &(impl IsTerminal + AsFd), text: &'a str) -> Cow<'a, str> {
    if !stream.is_terminal() {
        return Cow::Borrowed(text);
    }
    match tcgetwinsize(stream) {
        Ok(size) if size.ws_col >= COLUMNS_MIN => Cow::Owned(wrapped(text, usize::from(size.ws_col))),
        Ok(_) | Err(_) => Cow::Borrowed(text),
    }
}

/// On a narrower terminal nothing helps.
const COLUMNS_MIN: u16 = 20;

/// Breaks lines between words, and sets what follows in by two. What has no spaces (a link, a path) is never broken: it is
/// there to be copied.
fn wrapped(text: &str, columns: usize) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| wrapped_line(line, columns)).collect();
    lines.join("\n")
}

fn wrapped_line(line: &str, columns: usize) -> String {
    if width(line) <= columns {
        return line.to_owned();
    }
    let indent = line.len() - line.trim_start_matches(' ').len();
    let (mut out, mut used) = (" ".repeat(indent), indent);
    let mut first = true;
    for word in line.get(indent..).unwrap_or_default().split(' ') {
        let wide = width(word);
        if !first && used + 1 + wide > columns {
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
            out.push_str(&" ".repeat(indent + 2));
            used = indent + 2;
        } else if !first {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += wide;
        first = false;
    }
    out
}

/// How many columns a text takes; what only colours it takes none.
fn width(text: &str) -> usize {
    let mut columns = 0;
    let mut in_colour = false;
    for c in text.chars() {
        if in_colour {
            in_colour = !c.is_ascii_alphabetic();
        } else if c == '\x1b' {
            in_colour = true;
        } else {
            columns += 1;
        }
    }
    columns
}

/// Prints an error.
pub(crate) fn complain(text: &str) {
    let mark = if colours_on(&io::stderr()) { "\x1b[31merror:\x1b[0m" } else { "error:" };
    note(&format!("{mark} {text}"));
}

fn colours_on(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether somebody looks at standard output.
pub(crate) fn is_watched() -> bool {
    io::stdout().is_terminal()
}

/// A style, if standard output is a terminal.
#[derive(Clone, Copy)]
pub(crate) enum Style {
    Bold,
    Dim,
    Green,
    Yellow,
    Red,
    Cyan,
}

/// Text in a style.
pub(crate) fn paint(style: Style, text: &str) -> String {
    if !colours_on(&io::stdout()) {
        return text.to_owned();
    }
    let code = match style {
        Style::Bold => "1",
        Style::Dim => "2",
        Style::Green => "32",
        Style::Yellow => "33",
        Style::Red => "31",
        Style::Cyan => "36",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// A spinner with a message, on a terminal only.
pub(crate) fn spinner(message: &str) -> indicatif::ProgressBar {
    let spinner = indicatif::ProgressBar::new_spinner().with_message(message.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// Bytes as people read them.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("B");
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {name}") }
}

/// A count with its noun, and separators from ten thousand on.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    let digits = number.to_string();
    let grouped = if digits.len() > 4 {
        let mut out = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                out.push(',');
            }
            out.push(digit);
        }
        out
    } else {
        digits
    };
    format!("{grouped} {}", if number == 1 { one } else { many })
}

/// How long ago, roughly.
pub(crate) fn ago(then_ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    match seconds {
        0..=9 => "just now".to_owned(),
        10..=119 => format!("{seconds} s ago"),
        120..=7199 => format!("{} min ago", seconds / 60),
        7200..=172_799 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// A time span: 30s, 5m, 2h, 7d, 1w; a bare number is seconds.
pub(crate) fn span(text: &str) -> Result<Duration, Failure> {
    let wrong = || Failure::usage(format!("{text:?} is no time span; write 30s, 5m, 2h or 7d"));
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(wrong()),
    };
    Ok(Duration::from_secs(number.checked_mul(seconds).ok_or_else(wrong)?))
}

/// A moment: a span back from now, or RFC 3339. Milliseconds since the epoch.
pub(crate) fn moment(text: &str, now_ms: u64) -> Result<u64, Failure> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(u64::try_from(time.as_millisecond()).unwrap_or(0));
    }
    let back = span(text)
        .map_err(|_| Failure::usage(format!("{text:?} is no moment; write 2d, 3h or 2026-01-31T12:00:00Z")))?;
    Ok(now_ms.saturating_sub(u64::try_from(back.as_millis()).unwrap_or(u64::MAX)))
}

/// A moment in local time.
pub(crate) fn local(wall_ms: u64) -> String {
    let time = i64::try_from(wall_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(String::new, |time| {
        time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
    })
}

/// A QR code of a text, for a terminal.
pub(crate) fn qr(text: &str) -> Result<String, Failure> {
    let code = qrcode::QrCode::with_error_correction_level(text, qrcode::EcLevel::L)
        .map_err(|_| Failure::new("the link is too long for a QR code; send it as text"))?;
    Ok(code
        .render::<qrcode::render::unicode::Dense1x2>()
        .dark_color(qrcode::render::unicode::Dense1x2::Light)
        .light_color(qrcode::render::unicode::Dense1x2::Dark)
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines are broken between words only, what is coloured counts as what is seen, and a link stays whole.
    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrapped("short", 20), "short");
        assert_eq!(wrapped("  one two three four five", 14), "  one two\n    three four\n    five");
        let link = format!("weft:{}", "A".repeat(60));
        assert_eq!(wrapped(&link, 20), link);
        assert_eq!(wrapped(&format!("this is it: {link} now"), 20), format!("this is it:\n  {link}\n  now"));
        let green = "\x1b[32mconnected\x1b[0m";
        assert_eq!(wrapped(&format!("relay {green}"), 15), format!("relay {green}"));
        assert_eq!(wrapped("a b\n\nc", 3), "a b\n\nc");
    }

    /// Spans and moments as the help shows them; nonsense is bad usage.
    #[test]
    fn times_are_understood() {
        assert_eq!(span("30s").unwrap().as_secs(), 30);
        assert_eq!(span("7d").unwrap().as_secs(), 604_800);
        assert_eq!(span("15").unwrap().as_secs(), 15);
        for wrong in ["", "d", "7x", "-1s", "99999999999999999999d"] {
            assert_eq!(span(wrong).unwrap_err().exit, 2, "{wrong}");
        }
        assert_eq!(moment("1d", 86_400_001).unwrap(), 1);
        assert_eq!(moment("1970-01-01T00:00:01Z", 0).unwrap(), 1000);
    }

    /// Sizes and counts read well.
    #[test]
    fn numbers_read_well() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_500_000), "1.5 MB");
        assert_eq!(count(1, "file", "files"), "1 file");
        assert_eq!(count(1_234_567, "file", "files"), "1,234,567 files");
        assert_eq!(ago(0, 7_200_000), "2 h ago");
    }
}
