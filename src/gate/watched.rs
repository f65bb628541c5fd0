//! A gate behind which somebody sees what each thread is doing: a filesystem that hangs never answers, and the thread that
//! asked it cannot be asked.
//!
//! A step costs two locks that nobody else wants, and a copy of its name into a buffer that is there already. No clock is
//! read: whoever looks counts how often it has seen the same step. That is also right for a process that was stopped for
//! an hour.

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{At, Gate, Realm, Step, Verb};

/// A gate, and who is behind it. Clones see the same.
#[derive(Clone)]
pub struct Watched {
    gate: Arc<dyn Gate>,
    threads: Arc<Threads>,
}

/// Those that took a step; one that has ended is forgotten.
type Threads = Mutex<Vec<Weak<Mutex<Deed>>>>;

/// What a thread does, or did last.
#[derive(Default)]
struct Deed {
    step: Option<(Verb, Realm, At)>,
    /// Kept for its room when the step is over.
    name: Vec<u8>,
    /// How often somebody saw it.
    seen: u32,
}

/// A step that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// What is being done.
    pub verb: Verb,
    /// Where.
    pub realm: Realm,
    /// Beneath what.
    pub at: At,
    /// The name that the step has there; for a file, its path below its root.
    pub name: Vec<u8>,
    /// How often it was seen before.
    pub seen: u32,
}

/// Where a thread says what it does, and to whom.
struct Own {
    deed: Arc<Mutex<Deed>>,
    threads: Arc<Threads>,
}

thread_local! {
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
}

impl Watched {
    /// Steps pass `gate`.
    pub fn new(gate: Arc<dyn Gate>) -> Self {
        Self { gate, threads: Arc::default() }
    }

    /// The step that was seen most often, among those that are `wanted`; to look is to see them all.
    pub fn longest(&self, wanted: impl Fn(Verb) -> bool) -> Option<UnderWay> {
        let mut threads = locked(&self.threads);
        threads.retain(|thread| thread.strong_count() > 0);
        let deeds = threads.iter().filter_map(Weak::upgrade);
        let steps = deeds.filter_map(|deed| locked(&deed).look());
        steps.filter(|step| wanted(step.verb)).max_by_key(|step| step.seen)
    }

    fn note(&self, note: impl FnOnce(&mut Deed)) {
        // Where a thread is ending, nobody sees its last steps.
        let _seen = OWN.try_with(|own| {
            let mut own = own.borrow_mut();
            match &*own {
                Some(own) if Arc::ptr_eq(&own.threads, &self.threads) => note(&mut locked(&own.deed)),
                _ => {
                    let deed = Arc::new(Mutex::new(Deed::default()));
                    note(&mut locked(&deed));
                    locked(&self.threads).push(Arc::downgrade(&deed));
                    *own = Some(Own { deed, threads: Arc::clone(&self.threads) });
                }
            }
        });
    }
}

impl Gate for Watched {
    fn pass(&self, step: &Step<'_>) -> io::Result<()> {
        self.gate.pass(step)
    }

    fn begun(&self, step: &Step<'_>, at: At) {
        self.note(|deed| deed.begin(step, at));
    }

    fn ended(&self) {
        self.note(|deed| deed.step = None);
    }
}

impl Deed {
    fn begin(&mut self, step: &Step<'_>, at: At) {
        (self.step, self.seen) = (Some((step.verb, step.realm, at)), 0);
        self.name.clear();
        self.name.extend_from_slice(step.name);
    }

    fn look(&mut self) -> Option<UnderWay> {
        let (verb, realm, at) = self.step?;
        let seen = self.seen;
        self.seen = seen.saturating_add(1);
        Some(UnderWay { verb, realm, at, name: self.name.clone(), seen })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::{CancelFlag, Unstoppable, take};
    use super::*;

    const READ: Step<'_> = Step { verb: Verb::Read, realm: Realm::Source, dir: b"a/b", name: b"c" };

    fn watched() -> (CancelFlag, Watched) {
        let flag = CancelFlag::new();
        (flag.clone(), Watched::new(Arc::new(flag)))
    }

    #[test]
    fn a_step_is_seen_while_it_is_taken_and_by_each_thread() {
        let (_, gate) = watched();
        assert_eq!(gate.longest(|_| true), None);
        let step = take(&gate, &READ, At::Dir(3)).expect("passes");
        let seen = gate.longest(|_| true).expect("is under way");
        let expected = (Verb::Read, Realm::Source, At::Dir(3), &b"c"[..]);
        assert_eq!((seen.verb, seen.realm, seen.at, &*seen.name), expected);
        let other = Step { name: b"d", ..READ };
        std::thread::scope(|scope| {
            let later = scope.spawn(|| take(&gate, &other, At::Nowhere).map(|_step| gate.longest(|_| true)));
            let longest = later.join().expect("ends").expect("passes").expect("is under way");
            assert!(longest.name == b"c" && longest.seen == 1, "{longest:?}");
        });
        drop(step);
        assert_eq!(gate.longest(|_| true), None, "the other thread has ended");
    }

    #[test]
    fn the_next_step_counts_from_its_own_beginning() {
        let (_, gate) = watched();
        for _ in 0..2 {
            let _step = take(&gate, &READ, At::Dir(3)).expect("passes");
            let seen = || gate.longest(|_| true).map(|step| step.seen);
            assert_eq!([seen(), seen()], [Some(0), Some(1)]);
        }
    }

    #[test]
    fn what_may_not_pass_is_not_under_way_but_a_clean_up_is() {
        let (flag, gate) = watched();
        flag.cancel();
        assert!(take(&gate, &READ, At::Dir(3)).is_err());
        assert_eq!(gate.longest(|_| true), None);
        let gate = Arc::new(gate);
        let cleaning = Unstoppable(Arc::clone(&gate) as Arc<dyn Gate>);
        let _step = take(&cleaning, &READ, At::File(3)).expect("passes all the same");
        assert!(gate.longest(|_| true).is_some());
    }

    #[test]
    fn two_runs_do_not_see_each_other() {
        let ((_, one), (_, other)) = (watched(), watched());
        let _step = take(&one, &READ, At::Nowhere).expect("passes");
        assert_eq!(other.longest(|_| true), None);
        let _another = take(&other, &READ, At::Nowhere).expect("passes");
        assert!(other.longest(|_| true).is_some());
    }
}
