//! A larger archive of each codec, cut at ten thousand random places, and with ten thousand random bits flipped: it is
//! never taken for whole.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clawsnap::gate::{CancelFlag, Gate};
use clawsnap::restore::{Ending, RestoreOptions, Restored, restore};
use support::patient::{ENDINGS, Patient, verdict};
use support::{Backup, differences, leftovers, snapshot, write_cold};

const RUNS: usize = 10_000;
const RESTORES: usize = 300;
const SEED: u64 = 0x005e_edc1_a150_a902;

/// A source of sessions, and what one thread needs to harm archives of it.
struct Scene {
    top: tempfile::TempDir,
}

impl Scene {
    /// `sessions` of some 29 KB each.
    fn new(sessions: usize) -> Self {
        let scene = Self { top: tempfile::tempdir().expect("a directory") };
        let mut random = Random(SEED);
        for session in 0..sessions {
            let lines: String = (0..200).map(|line| record(line, &mut random)).collect();
            let name = format!("source/agents/a{}/sessions/{session}.jsonl", session % 3);
            write_cold(&scene.path(&name), lines);
        }
        std::os::unix::fs::symlink("agents", scene.path("source/link")).expect("links");
        fs::hard_link(scene.path("source/agents/a0/sessions/0.jsonl"), scene.path("source/second")).expect("links");
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    /// An archive for each thread.
    fn patients(&self, ending: &str) -> Vec<Patient> {
        let archive = self.path(&format!("archive.{ending}"));
        assert_eq!(Backup::of(&self.path("source")).to(&archive).exit_code(), 0);
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
        let copies = (0..threads).map(|thread| self.path(&format!("{thread}/copy.{ending}")));
        let patients = copies.map(|copy| {
            fs::create_dir_all(copy.parent().expect("has one")).expect("makes");
            fs::copy(&archive, &copy).expect("copies");
            Patient::of(&copy)
        });
        patients.collect()
    }
}

/// A line of text that packs as sessions do.
fn record(line: u64, random: &mut Random) -> String {
    const WORDS: [&str; 8] = ["the agent", "reads", "writes", "a file", "and then", "asks", "its owner", "again"];
    let text: Vec<&str> = (0..12).map(|_| WORDS[random.below(WORDS.len())]).collect();
    format!("{{\"n\":{line},\"id\":\"{:016x}\",\"text\":\"{}\"}}\n", random.next(), text.join(" "))
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("is less than the end")
    }

    fn many(seed: u64, count: usize, end: usize) -> Vec<usize> {
        let mut random = Self(SEED ^ seed);
        (0..count).map(|_| random.below(end)).collect()
    }
}

/// Does `work` with each patient on a thread of its own, which is given its number; the sum of what came of it.
fn on_all(patients: &[Patient], work: impl Fn(u64, &Patient) -> usize + Sync) -> usize {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..).zip(patients).map(|(number, patient)| scope.spawn(move || work(number, patient))).collect();
        threads.into_iter().map(|thread| thread.join().expect("does not panic")).sum()
    })
}

fn descending(mut lengths: Vec<usize>) -> Vec<usize> {
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    lengths
}

#[test]
fn ten_thousand_flipped_bits_and_cuts_of_each_codec_are_refused() {
    // As much as each can be made to unpack in the time: xz is the slowest.
    for (ending, sessions) in ENDINGS.into_iter().zip([24, 16, 16, 6]) {
        let (scene, begun) = (Scene::new(sessions), Instant::now());
        let patients = scene.patients(ending);
        let (length, whole) = (patients[0].bytes.len(), patients[0].whole());
        let before = snapshot(&scene.path("source"));
        let share = RUNS.div_ceil(patients.len());
        let idle = on_all(&patients, |number, patient| {
            let bits = Random::many(number, share, length * 8);
            let missed = bits.into_iter().filter(|bit| patient.flipped(*bit, |path| verdict(path).exit_code()) != 4);
            missed.map(|bit| assert!(patient.is_idle(bit, &whole), "{ending}, bit {bit} of {length} bytes")).count()
        });
        let flipped = begun.elapsed();
        on_all(&patients, |number, patient| {
            assert_eq!(verdict(&patient.path).exit_code(), 0, "healed");
            for at in descending(Random::many(!number, share, length)) {
                let code = patient.cut_to(at, |path| verdict(path).exit_code());
                assert_eq!(code, 4, "{ending} cut to {at} of {length}");
            }
            0
        });
        let (unpacked, cut) = (whole.len(), begun.elapsed() - flipped);
        println!(
            "{ending}: {length} bytes of {unpacked}; {RUNS} flips in {flipped:.1?}, {idle} idle; {RUNS} cuts in {cut:.1?}"
        );
        assert!(idle * 100 < RUNS, "{idle} of {RUNS} bits of {ending} say nothing");
        assert_eq!(differences(&before, &snapshot(&scene.path("source"))), [] as [String; 0]);
    }
}

/// Restores beside the archive.
fn restored(archive: &Path) -> Restored {
    let target = archive.with_file_name("back");
    let options = RestoreOptions { tails: true, ..RestoreOptions::into_new(target) };
    let gate: Arc<dyn Gate> = Arc::new(CancelFlag::new());
    restore(archive, &options, &gate, &(), &|_| true)
}

/// What is not proven leaves nothing; what is, by a bit that says nothing, is whole. Tells which it was.
fn assert_all_or_nothing(restored: &Restored, patient: &Patient, what: &str) -> bool {
    let dir = patient.path.parent().expect("has one");
    let is_whole = restored.outcome == Ending::Complete;
    if is_whole {
        fs::remove_dir_all(dir.join("back")).expect("removes");
    } else {
        assert_eq!(restored.outcome, Ending::Unproven, "{what}: {:?}", restored.error);
    }
    let names = fs::read_dir(dir).expect("lists").count();
    assert_eq!((names, leftovers(dir).len()), (1, 0), "{what}: something is left");
    is_whole
}

#[test]
fn a_restore_of_what_is_damaged_leaves_nothing() {
    let scene = Scene::new(6);
    for ending in ENDINGS {
        let begun = Instant::now();
        let patients = scene.patients(ending);
        let (length, whole) = (patients[0].bytes.len(), patients[0].whole());
        let before = snapshot(&scene.path("source"));
        let share = RESTORES.div_ceil(patients.len());
        let idle = on_all(&patients, |number, patient| {
            let bits = Random::many(number ^ 7, share, length * 8).into_iter();
            let missed = bits.filter(|bit| {
                let what = format!("{ending}, bit {bit} of {length} bytes");
                patient.flipped(*bit, |path| assert_all_or_nothing(&restored(path), patient, &what))
            });
            missed.map(|bit| assert!(patient.is_idle(bit, &whole), "{ending}, bit {bit}")).count()
        });
        on_all(&patients, |number, patient| {
            for at in descending(Random::many(!number ^ 7, share, length)) {
                let what = format!("{ending} cut to {at} of {length}");
                assert!(!patient.cut_to(at, |path| assert_all_or_nothing(&restored(path), patient, &what)), "{what}");
            }
            0
        });
        println!("{ending}: {RESTORES} flips, {idle} idle, and {RESTORES} cuts in {:.1?}", begun.elapsed());
        assert_eq!(differences(&before, &snapshot(&scene.path("source"))), [] as [String; 0]);
        patients.iter().for_each(|patient| fs::remove_file(&patient.path).expect("removes"));
    }
}
