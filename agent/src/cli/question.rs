//! Questions to a person: yes or no, a line, a secret; and what Ctrl-C does to them.
//!
//! Invariant: Ctrl-C ends the command at every question, with exit code 130 and nothing done that was asked about; whatever
//! ends it, the terminal shows again what is typed. Why a thread of its own for signals: a command that began with something
//! (`weft up`, `weft demo`) has to end it, so it must hear of the signal and not be ended by it.
//! Spec: docs/using.md#questions

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use super::term::note;
use crate::daemon::wire::Failure;

/// How many signals a [`Listening`] has asked for; without one a signal ends the process.
static LISTENERS: AtomicUsize = AtomicUsize::new(0);
/// What the terminal was like before a secret was asked for.
static SHOWN: Mutex<Option<Termios>> = Mutex::new(None);
/// Where signals come out, once they are caught; nothing if they cannot be.
static SIGNALS: OnceLock<Option<UnixStream>> = OnceLock::new();

/// The signal's number, as the shell adds it to 128.
pub(crate) const INTERRUPT: u8 = 2;

/// While it lives, signals that would end this process are heard instead.
pub(crate) struct Listening(());

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENERS.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Begins to hear signals.
pub(crate) fn listen() -> Listening {
    let _signals = SIGNALS.get_or_init(|| catch_signals().ok());
    LISTENERS.fetch_add(1, Ordering::AcqRel);
    Listening(())
}

impl Listening {
    /// The signal that came, waiting so long for one.
    pub(crate) fn ended_within(&self, time: Duration) -> Option<u8> {
        let Some(Some(signals)) = SIGNALS.get() else {
            std::thread::sleep(time);
            return None;
        };
        let until = Instant::now() + time;
        let mut ready = [PollFd::new(signals, PollFlags::IN)];
        loop {
            match wait(&mut ready, Some(until.saturating_duration_since(Instant::now()))) {
                Ok(0) => return None,
                Ok(_) => return next_signal(),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }
    /// Fails if a signal came.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.ended_within(Duration::ZERO).map_or(Ok(()), |signal| Err(Failure::interrupted(signal)))
    }
}

fn wait(ready: &mut [PollFd<'_>], time: Option<Duration>) -> rustix::io::Result<usize> {
    let time = time.map(|time| Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    });
    poll(ready, time.as_ref())
}

fn next_signal() -> Option<u8> {
    let Some(Some(mut signals)) = SIGNALS.get().map(Option::as_ref) else { return None };
    let mut signal = [0];
    signals.read(&mut signal).ok().filter(|read| *read == 1).map(|_| signal[0])
}

/// Catches the signals that end a program, from now on.
fn catch_signals() -> io::Result<UnixStream> {
    let (reading, mut writing) = UnixStream::pair()?;
    reading.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut quit = signal(SignalKind::quit())?;
    drop(entered);
    std::thread::Builder::new().name("weft-signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                let signal = tokio::select! {
                    _ = interrupt.recv() => INTERRUPT,
                    _ = terminate.recv() => 15,
                    _ = hangup.recv() => 1,
                    _ = quit.recv() => 3,
                };
                show_typing();
                if LISTENERS.load(Ordering::Acquire) == 0 || writing.write_all(&[signal]).is_err() {
                    std::process::exit(128 + i32::from(signal));
                }
            }
        });
    })?;
    Ok(reading)
}

/// The terminal shows again what is typed.
fn show_typing() {
    if let Some(shown) = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _gone = tcsetattr(io::stdin(), OptionalActions::Flush, &shown);
    }
}

/// A line from the terminal or from standard input; empty at its end. Ctrl-C fails.
fn read_line() -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::new());
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        stdin.lock().read_line(&mut line)?;
        return Ok(line);
    }
    let listening = listen();
    let signals = SIGNALS.get().and_then(Option::as_ref);
    loop {
        // A terminal gives one line at a time, so that nothing waits where the poll does not look.
        let typed = PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN);
        let ready = match signals {
            Some(signals) => wait(&mut [typed, PollFd::new(signals, PollFlags::IN)], None),
            None => Ok(1),
        };
        match ready {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(io::Error::from(error).into()),
        }
        if let Err(interrupted) = listening.check() {
            note("");
            return Err(interrupted);
        }
        let typed = PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN);
        if signals.is_none() || wait(&mut [typed], Some(Duration::ZERO)).is_ok_and(|ready| ready > 0) {
            stdin.lock().read_line(&mut line)?;
            return Ok(line);
        }
    }
}

fn prompt(question: &str) -> io::Result<()> {
    let mut err = io::stderr().lock();
    write!(err, "{question} ")?;
    err.flush()
}

/// Goes on if told to by a flag or by a person; otherwise says what is left undone.
pub(crate) fn agreed(yes: bool, question: &str, undone: &str) -> Result<(), Failure> {
    if yes || confirm(question)? {
        return Ok(());
    }
    if io::stdin().is_terminal() {
        return Err(Failure::new(undone));
    }
    Err(Failure::usage(format!("{undone}; give --yes where nobody can be asked")))
}

/// Asks yes or no; without a terminal the answer is no.
pub(crate) fn confirm(question: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    prompt(&format!("{question} [y/N]"))?;
    Ok(matches!(read_line()?.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Asks for a line.
pub(crate) fn ask(question: &str) -> Result<String, Failure> {
    if io::stdin().is_terminal() {
        prompt(question)?;
    }
    Ok(read_line()?.trim().to_owned())
}

/// How far a text has come that may stand on several lines.
pub(crate) enum SoFar {
    /// It is whole, or wrong in a way that no further line mends.
    Enough,
    /// More belongs to it.
    More,
    /// It has not begun: what came stands before it.
    NotBegun,
}

/// Asks for a text that may have been wrapped on its way: reads lines until it is whole, or an empty one, or `bytes_max`.
pub(crate) fn ask_wrapped(
    question: &str,
    bytes_max: usize,
    so_far: impl Fn(&str) -> SoFar,
) -> Result<Zeroizing<String>, Failure> {
    let on_terminal = io::stdin().is_terminal();
    if on_terminal {
        prompt(question)?;
    }
    let mut text = Zeroizing::new(String::new());
    let mut now = SoFar::NotBegun;
    while text.len() < bytes_max {
        let line = read_line()?;
        // Behind a pipe a mail's head and an empty line may stand before it.
        let ends = line.trim().is_empty() && (on_terminal || matches!(now, SoFar::More));
        if line.is_empty() || ends {
            break;
        }
        text.push_str(&line);
        now = so_far(&text);
        if matches!(now, SoFar::Enough) {
            break;
        }
    }
    Ok(text)
}

/// Asks for a secret: on a terminal without showing what is typed, else a line of standard input.
pub(crate) fn ask_secret(question: &str) -> Result<String, Failure> {
    let stdin = io::stdin();
    if let Ok(shown) = tcgetattr(&stdin) {
        prompt(question)?;
        // From here on a signal puts the terminal back before it ends anything.
        let _listening = listen();
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        hidden.local_modes.insert(LocalModes::ECHONL);
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        let read = tcsetattr(&stdin, OptionalActions::Flush, &hidden)
            .map_err(|error| io::Error::from(error).into())
            .and_then(|()| read_line());
        show_typing();
        return Ok(read?.trim().to_owned());
    }
    Ok(read_line()?.trim().to_owned())
}
