//! Work that begets work, shared among a few threads.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Tasks still to be done. A task may add others.
pub(crate) struct Queue<T> {
    state: Mutex<Pending<T>>,
    changed: Condvar,
}

struct Pending<T> {
    tasks: Vec<T>,
    busy: usize,
    failure: Option<io::Error>,
}

impl<T: Send> Queue<T> {
    /// Does all `tasks`, and all that they add, with `workers` threads, or with fewer where no more can be had. `work` is told
    /// the number of its thread.
    ///
    /// # Errors
    /// The first error of any task; what was not begun by then is dropped.
    pub(crate) fn run(
        workers: usize,
        tasks: Vec<T>,
        work: impl Fn(T, usize, &Queue<T>) -> io::Result<()> + Sync,
    ) -> io::Result<()> {
        let queue = Queue { state: Mutex::new(Pending { tasks, busy: 0, failure: None }), changed: Condvar::new() };
        thread::scope(|scope| {
            for worker in 1..workers {
                let (queue, work) = (&queue, &work);
                if thread::Builder::new().spawn_scoped(scope, move || queue.work(worker, work)).is_err() {
                    break;
                }
            }
            queue.work(0, &work);
        });
        let pending = queue.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        pending.failure.map_or(Ok(()), Err)
    }

    /// Adds a task.
    pub(crate) fn add(&self, task: T) {
        self.lock().tasks.push(task);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Pending<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, worker: usize, work: &impl Fn(T, usize, &Queue<T>) -> io::Result<()>) {
        while let Some(task) = self.next() {
            // The others wait for who is busy: a bug must not leave them waiting.
            let panicked = |_| Err(io::Error::other("a thread of the freeze has panicked"));
            let outcome = catch_unwind(AssertUnwindSafe(|| work(task, worker, self))).unwrap_or_else(panicked);
            self.finished(outcome);
        }
    }

    /// The next task; `None` when nothing is left and nobody is busy who could add something.
    fn next(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(task) = state.tasks.pop() {
                state.busy += 1;
                return Some(task);
            }
            if state.busy == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finished(&self, outcome: io::Result<()>) {
        let mut state = self.lock();
        state.busy -= 1;
        if let Err(error) = outcome {
            state.tasks.clear();
            state.failure.get_or_insert(error);
        }
        if state.busy == 0 || state.failure.is_some() {
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn every_task_and_what_it_adds_is_done_once() {
        let done = AtomicU32::new(0);
        Queue::run(3, vec![4_u32], |depth, _, queue| {
            done.fetch_add(1, Ordering::Relaxed);
            (0..depth).for_each(|_| queue.add(depth - 1));
            Ok(())
        })
        .expect("no task fails");
        // 1 + 4 + 4*3 + 4*3*2 + 4*3*2*1
        assert_eq!(done.into_inner(), 65);
    }

    #[test]
    fn the_first_error_ends_the_work() {
        let outcome = Queue::run(2, vec![0_u32], |n, _, queue| {
            queue.add(n + 1);
            if n == 100 { Err(io::Error::other("enough")) } else { Ok(()) }
        });
        assert_eq!(outcome.expect_err("fails").to_string(), "enough");
    }

    /// The other threads waited for ever for what the one that was gone might still have added.
    #[test]
    fn a_panic_ends_the_work_as_well() {
        let outcome = Queue::run(3, vec![0_u32], |n, _, queue| {
            queue.add(n + 1);
            assert_ne!(n, 100, "a bug");
            Ok(())
        });
        assert_eq!(outcome.expect_err("fails").to_string(), "a thread of the freeze has panicked");
    }
}
