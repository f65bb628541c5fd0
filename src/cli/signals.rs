//! Signals that ask the command to end, without a handler: they are held back from every thread, and one thread waits
//! for them.
//!
//! The first cancels the run, which then removes what it made; a second one leaves at once. When the clean-up is done
//! the first is raised again with its default action, so that whoever waits for us sees a death by that signal.

use std::fs;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use color_eyre::eyre::{Result, WrapErr};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::command::Ward;

/// The signals that ask a command to end. Who typed Ctrl-\ wants a core dump, not a clean-up: SIGQUIT is left alone.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Who asks a whole group to end, as timeout(1) and systemd do, may be heard twice, and where a session is closed, by two
/// different signals: logind sends SIGHUP right behind SIGTERM. What comes so soon is no second one.
const ECHO: Duration = Duration::from_millis(100);

/// The signals that end a run, held back. Clones know of the same first one.
#[derive(Clone)]
pub(super) struct Signals {
    held: SigSet,
    first: Arc<AtomicI32>,
}

impl Signals {
    /// Holds them back from this thread and from all that it starts later; so it must come before any of those.
    ///
    /// SIGXFSZ is held back as well, for good: a file that grows beyond `ulimit -f` is an error that is told, with a
    /// clean-up, and no death.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) fn hold() -> Result<Self> {
        let ignored = ignored_at_start();
        let held: SigSet = ENDING.into_iter().filter(|signal| !is_in(ignored, *signal)).collect();
        let blocked: SigSet = held.iter().chain([Signal::SIGXFSZ]).collect();
        blocked.thread_block().wrap_err("cannot hold signals back")?;
        Ok(Self { held, first: Arc::default() })
    }

    /// Has a thread wait for them: the first is told to `on_first`, but for those that a command takes.
    ///
    /// # Errors
    /// No thread can be had.
    pub(super) fn watch(&self, ward: Ward, on_first: impl FnOnce() + Send + 'static) -> Result<()> {
        let first = Arc::clone(&self.first);
        let signals = SignalFd::with_flags(&self.held, SfdFlags::SFD_CLOEXEC).wrap_err("cannot watch for signals")?;
        let watcher = thread::Builder::new().name("signals".to_owned());
        watcher.spawn(move || watch(&signals, &first, &ward, on_first)).wrap_err("cannot watch for signals")?;
        Ok(())
    }

    /// The first that came.
    pub(super) fn first(&self) -> Option<Signal> {
        Signal::try_from(self.first.load(Ordering::Acquire)).ok()
    }

    /// Whether it is one of those.
    pub(super) fn end(signal: Signal) -> bool {
        ENDING.contains(&signal)
    }

    /// Ends this process by `signal`; returns only if the kernel will not have it.
    pub(super) fn die_by(signal: Signal) {
        let _unblocked = SigSet::from(signal).thread_unblock();
        let _survived = raise(signal);
    }
}

fn watch(signals: &SignalFd, first: &AtomicI32, ward: &Ward, on_first: impl FnOnce()) {
    let Some(signal) = next(signals, ward) else { return };
    let heard = Instant::now();
    first.store(signal, Ordering::Release);
    on_first();
    while let Some(second) = next(signals, ward) {
        if heard.elapsed() > ECHO {
            std::process::exit(128 + second);
        }
    }
}

/// The next signal that no command takes. What is typed at a terminal, its kernel sends to the command as well.
fn next(signals: &SignalFd, ward: &Ward) -> Option<i32> {
    loop {
        let info = signals.read_signal().ok().flatten()?;
        let signal = i32::try_from(info.ssi_signo).ok()?;
        if !ward.take(signal, info.ssi_code == nix::libc::SI_KERNEL) {
            return Some(signal);
        }
    }
}

/// What `nohup`, or a shell that puts us in the background, had ignored must stay ignored: the mask of `SigIgn`.
fn ignored_at_start() -> u64 {
    static MASK: OnceLock<u64> = OnceLock::new();
    *MASK.get_or_init(|| sig_ign(&fs::read_to_string("/proc/self/status").unwrap_or_default()))
}

/// Whether a signal is ignored, as whoever started us had it.
pub(super) fn is_ignored(signal: Signal) -> bool {
    is_in(ignored_at_start(), signal)
}

fn sig_ign(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

fn is_in(mask: u64, signal: Signal) -> bool {
    mask >> (signal as i32 - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_mask_of_ignored_signals_is_understood() {
        // As under nohup: SIGHUP, and SIGPIPE by Rust's own start.
        let mask = sig_ign("Name:\tclawsnap\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\nSigCgt:\t0\n");
        assert!(is_in(mask, Signal::SIGHUP) && is_in(mask, Signal::SIGPIPE));
        assert!(!is_in(mask, Signal::SIGINT) && !is_in(mask, Signal::SIGTERM));
        assert_eq!(sig_ign("no such line"), 0);
    }
}
