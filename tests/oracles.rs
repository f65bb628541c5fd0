//! The judges are judged first: each oracle of the churn must refuse what never was.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

mod churn;

use churn::{Churn, Kind, Load, Log, Notes, Rng, Sample, Span, no_torn_line, now_ns, sample_state};

// Names: stories told by hand.

#[test]
fn a_name_under_creation_may_be_there_or_not_and_afterwards_it_must() {
    let mut notes = Notes::default();
    born(&mut notes, "a/x", 7, 100..110);
    let log = told([notes]);
    refused(log.names_possible_at(0, 99, &names(["a/x"])));
    log.names_possible_at(0, 99, &names([])).unwrap();
    log.names_possible_at(105, 105, &names(["a/x"])).unwrap();
    log.names_possible_at(105, 105, &names([])).unwrap();
    log.names_possible_at(110, 400, &names(["a/x"])).unwrap();
    refused(log.names_possible_at(110, 400, &names([])));
}

#[test]
fn a_renamed_file_is_never_in_both_places_or_in_neither() {
    let log = told([moving("a/t", "b/t", 100..110)]);
    for only in ["a/t", "b/t"] {
        log.names_possible_at(105, 105, &names([only])).unwrap();
        log.names_possible_at(0, 900, &names([only])).unwrap();
    }
    for period in [(0, 900), (105, 105), (100, 110)] {
        refused(log.names_possible_at(period.0, period.1, &names(["a/t", "b/t"])));
        refused(log.names_possible_at(period.0, period.1, &names([])));
    }
    refused(log.names_possible_at(0, 99, &names(["b/t"])));
    refused(log.names_possible_at(110, 900, &names(["a/t"])));
}

#[test]
fn the_refusal_tells_the_names_that_differ() {
    let log = told([moving("a/t", "b/t", 100..110)]);
    let error = log.names_possible_at(0, 50, &names(["b/t"])).unwrap_err();
    assert!(error.contains("2 wrong: a/t (was there), b/t (was not there)"), "{error}");
}

#[test]
fn an_interleaving_that_never_was_is_refused() {
    let log = told([moving("a/x", "b/x", 100..110), moving("a/y", "b/y", 200..210)]);
    log.names_possible_at(0, 900, &names(["a/x", "a/y"])).unwrap();
    log.names_possible_at(0, 900, &names(["b/x", "a/y"])).unwrap();
    log.names_possible_at(0, 900, &names(["b/x", "b/y"])).unwrap();
    refused(log.names_possible_at(0, 900, &names(["a/x", "b/y"])));
    refused(log.names_possible_at(0, 99, &names(["b/x", "a/y"])));
    refused(log.names_possible_at(210, 900, &names(["b/x", "a/y"])));
}

#[test]
fn operations_under_way_together_may_come_in_any_order() {
    let log = told([moving("a/x", "b/x", 100..200), moving("a/y", "b/y", 150..160)]);
    for x in ["a/x", "b/x"] {
        for y in ["a/y", "b/y"] {
            log.names_possible_at(155, 155, &names([x, y])).unwrap();
        }
    }
    log.names_possible_at(170, 180, &names(["a/x", "b/y"])).unwrap();
    refused(log.names_possible_at(170, 180, &names(["a/x", "a/y"])));
}

#[test]
fn a_file_that_goes_and_comes_back_at_once_is_always_in_one_place() {
    let mut notes = moving("a/t", "b/t", 100..110);
    notes.renamed(Span::new(110, 120), Path::new("b/t"), Path::new("a/t"), 0);
    let log = told([notes]);
    refused(log.names_possible_at(0, 900, &names(["a/t", "b/t"])));
    refused(log.names_possible_at(0, 900, &names([])));
    log.names_possible_at(110, 110, &names(["b/t"])).unwrap();
    refused(log.names_possible_at(120, 900, &names(["b/t"])));
}

#[test]
fn a_name_that_the_log_does_not_know_is_not_judged() {
    let log = told([moving("a/t", "b/t", 100..110)]);
    log.names_possible_at(0, 50, &names(["a/t", "openclaw.json"])).unwrap();
    let half = log.only(|path| path.starts_with("a"));
    half.names_possible_at(0, 50, &names(["a/t", "b/t"])).unwrap();
    refused(half.names_possible_at(0, 50, &names(["b/t"])));
}

#[test]
fn a_period_without_a_moment_is_refused() {
    refused(told([Notes::default()]).names_possible_at(2, 1, &names([])));
}

#[test]
fn a_rename_over_changes_the_inode_when_the_other_name_goes() {
    let log = told([renaming_over()]);
    let bound = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, inode)| (PathBuf::from(name), *inode)).collect();
    let ask = |pairs: &[(&str, u64)]| log.bindings_possible_at(205, 205, &bound(pairs));
    ask(&[("f", 1), ("tmp", 2)]).unwrap();
    ask(&[("f", 2)]).unwrap();
    refused(ask(&[("f", 1)]));
    refused(ask(&[("f", 2), ("tmp", 2)]));
    refused(log.bindings_possible_at(300, 900, &bound(&[("f", 1)])));
}

#[test]
fn a_name_that_changed_its_inode_did_not_exist_throughout() {
    let log = told([renaming_over()]);
    assert_eq!(log.existed_throughout(0, 50), []);
    assert_eq!(log.existed_throughout(1, 200), [(PathBuf::from("f"), 1)]);
    assert_eq!(log.existed_throughout(1, 201), []);
    assert_eq!(log.existed_throughout(210, 900), [(PathBuf::from("f"), 2)]);
    assert_eq!(log.may_have_existed(0, 90), names(["f"]));
    assert_eq!(log.may_have_existed(105, 205), names(["f", "tmp"]));
    assert_eq!(log.may_have_existed(211, 900), names(["f"]));
}

// Contents: stories told by hand.

const ONE: &str = "{\"n\":1}\n";
const TWO: &str = "{\"n\":1}\n{\"n\":2}\n";
const THREE: &str = "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n";

#[test]
fn what_was_appended_is_whole_at_every_record_boundary() {
    let log = told([appending("s.jsonl")]);
    for content in [ONE, TWO, THREE, THREE.trim_end()] {
        held(&log, "s.jsonl", content).unwrap();
    }
}

#[test]
fn a_torn_record_is_refused_and_so_is_a_loss_or_a_gain() {
    let log = told([appending("s.jsonl")]);
    let torn = &TWO[..TWO.len() - 3];
    for content in ["", torn, &THREE[ONE.len()..], "{\"n\":1}\n{\"n\":9}\n", &format!("{THREE}{ONE}")] {
        refused(held(&log, "s.jsonl", content));
    }
    refused(held(&log, "other.jsonl", ONE));
}

#[test]
fn half_a_record_counts_where_it_stood_and_can_be_cut_off() {
    let mut notes = Notes::default();
    let file = notes.found(Path::new("s.jsonl"), 1, ONE.into());
    notes.appended(file, Span::new(100, 110), b"{\"n\"");
    notes.appended(file, Span::new(200, 210), b":2}\n");
    let log = told([notes]);
    let between = |text: &str, from, to| log.bytes_ok_between(Path::new("s.jsonl"), text.as_bytes(), from, to);
    between("{\"n\":1}\n{\"n\"", 120, 190).unwrap();
    between(ONE, 120, 190).unwrap();
    between(TWO, 120, 205).unwrap();
    refused(between("{\"n\":1}\n{\"n", 120, 190));
    refused(between(TWO, 120, 190));
    refused(between(ONE, 220, 900));
}

#[test]
fn only_records_may_be_cut() {
    let log = told([appending("sessions.json")]);
    held(&log, "sessions.json", ONE).unwrap();
    held(&log, "sessions.json", THREE).unwrap();
    refused(held(&log, "sessions.json", TWO));
}

#[test]
fn contents_belong_to_their_time() {
    let log = told([appending("s.jsonl")]);
    let between = |text: &str, from, to| log.bytes_ok_between(Path::new("s.jsonl"), text.as_bytes(), from, to);
    between(ONE, 0, 99).unwrap();
    between(TWO, 105, 105).unwrap();
    between(THREE, 110, 900).unwrap();
    refused(between(THREE, 0, 99));
    refused(between(ONE, 111, 900));
}

#[test]
fn a_rewrite_has_been_empty_and_half_done_but_never_mixed() {
    let mut notes = Notes::default();
    let file = notes.found(Path::new("s.jsonl"), 1, THREE.into());
    notes.truncated(file, Span::new(100, 110));
    notes.appended(file, Span::new(120, 130), b"{\"m\":1}\n{\"m\"");
    notes.appended(file, Span::new(140, 150), b":2}\n");
    let log = told([notes]);
    for content in [THREE, "", "{\"m\":1}\n{\"m\"", "{\"m\":1}\n", "{\"m\":1}\n{\"m\":2}\n"] {
        held(&log, "s.jsonl", content).unwrap();
    }
    refused(held(&log, "s.jsonl", "{\"m\":1}\n{\"n\":2}\n"));
    refused(held(&log, "s.jsonl", TWO));
    refused(log.bytes_ok_between(Path::new("s.jsonl"), b"", 150, 900));
}

#[test]
fn a_half_written_version_was_never_under_the_name_it_got_when_it_was_whole() {
    let log = told([renaming_over()]);
    held(&log, "tmp", "").unwrap();
    held(&log, "tmp", "new").unwrap();
    held(&log, "f", "old").unwrap();
    held(&log, "f", "new").unwrap();
    refused(held(&log, "f", ""));
    refused(held(&log, "tmp", "old"));
    refused(log.bytes_ok_between(Path::new("f"), b"new", 0, 199));
}

#[test]
fn every_line_must_be_a_record() {
    no_torn_line(b"").unwrap();
    no_torn_line(THREE.as_bytes()).unwrap();
    no_torn_line(THREE.trim_end().as_bytes()).unwrap();
    for torn in
        ["{\"n\":1}\n{\"n\"", "{\"n\":1}\n\n{\"n\":2}\n", "\"n\":1}\n", "{\"n\":{\"n\":1}\n", "{\"n\":\"\u{fffd}\n"]
    {
        refused(no_torn_line(torn.as_bytes()));
    }
}

// The churn itself.

#[test]
fn when_the_churn_has_stopped_the_log_and_the_directory_agree() {
    for (number, load) in [Load::light().scaled(8.0), Load::heavy(), Load::moves_only()].into_iter().enumerate() {
        let state = State::new(&format!("agree-{number}"));
        let log = state.churned(load.seed(3 + number as u64), Duration::from_millis(500));
        let found = state.sessions();
        assert!(log.tally().values().sum::<u64>() > 20, "{}", log.summary());
        log.names_possible_at(log.ended_ns, log.ended_ns, &found.keys().cloned().collect()).unwrap();
        log.bindings_possible_at(log.ended_ns, log.ended_ns, &found).unwrap();
        for path in found.keys() {
            state.check_content(&log, path, log.ended_ns);
        }
    }
}

#[test]
fn every_kind_of_operation_is_done() {
    let state = State::new("kinds");
    let log = state.churned(Load::heavy(), Duration::from_millis(700));
    let done: Vec<&str> = log.tally().keys().copied().collect();
    let all = "appended archived compacted created deleted indexed locked moved rewritten split";
    assert_eq!(done.join(" "), all);
}

/// Asks the filesystem about single names while the churn runs, with a clock before and after each question.
#[test]
fn what_a_witness_saw_is_what_the_log_says() {
    let state = State::new("witness");
    let churn = Churn::start(&state.0, Load::heavy().without_rewrites().scaled(2.0));
    let seen = state.witness(Duration::from_millis(800));
    let log = clean(churn.stop());
    assert!(seen.len() > 1000);
    for sight in &seen {
        sight.check(&log);
    }
    let (there, gone): (Vec<_>, Vec<_>) = seen.iter().partition(|sight| sight.content.is_some());
    assert!(there.len() > 100 && gone.len() > 100, "{} and {}", there.len(), gone.len());
}

#[test]
fn one_pass_over_two_directories_is_caught() {
    let state = State::new("naive");
    let churn = Churn::start(&state.0, Load::moves_only().rate(Kind::Move, 2000.0));
    let passes: Vec<_> = (0..10).map(|_| state.pass(Duration::from_millis(20))).collect();
    let log = clean(churn.stop());
    let wrong = passes.iter().filter(|(from, to, names)| log.names_possible_at(*from, *to, names).is_err());
    assert!(wrong.count() > 0);
}

#[test]
fn a_listing_made_while_nothing_moved_is_accepted() {
    let state = State::new("quiet");
    let churn = Churn::start(&state.0, Load::moves_only().rate(Kind::Move, 60.0));
    let passes: Vec<_> = (0..60).map(|_| state.pass(Duration::from_millis(3))).collect();
    let log = clean(churn.stop());
    let quiet: Vec<_> = passes.iter().filter(|(from, to, _)| at_rest(&log, *from, *to)).collect();
    assert!(!quiet.is_empty());
    for (from, to, names) in quiet {
        log.names_possible_at(*from, *to, names).unwrap();
    }
}

#[test]
fn links_that_somebody_else_holds_do_not_disturb_it() {
    let state = State::new("links");
    let churn = Churn::start(&state.0, Load::heavy());
    let staging = state.0.join("staging");
    fs::create_dir(&staging).unwrap();
    let end = Instant::now() + Duration::from_millis(400);
    for number in 0.. {
        for (at, path) in state.sessions().into_keys().enumerate() {
            fs::hard_link(state.0.join(path), staging.join(format!("{number}-{at}"))).ok();
        }
        if Instant::now() > end {
            break;
        }
    }
    clean(churn.stop());
}

#[test]
fn a_second_churn_finds_what_the_first_one_left() {
    let state = State::new("twice");
    for _ in 0..2 {
        state.churned(Load::heavy().seed(5), Duration::from_millis(200));
    }
}

#[test]
fn a_directory_without_agents_gets_two_to_move_between() {
    let state = State(empty_dir("bare"));
    let log = state.churned(Load::moves_only(), Duration::from_millis(200));
    assert!(log.tally()["moved"] > 0);
}

#[test]
fn a_churn_that_is_dropped_writes_no_more() {
    let state = State::new("dropped");
    drop(Churn::start(&state.0, Load::heavy()));
    let before = state.sessions();
    thread::sleep(Duration::from_millis(100));
    assert_eq!(state.sessions(), before);
}

// The sample.

#[test]
fn one_seed_makes_one_sample() {
    let (one, two, other) = (State::seeded("same", 4), State::seeded("same", 4), State::seeded("same", 5));
    assert_eq!(one.contents(), two.contents());
    assert_ne!(one.contents(), other.contents());
}

#[test]
fn a_sample_is_a_state_that_can_be_read() {
    let state = State::new("readable");
    let config = fs::read_to_string(state.0.join("openclaw.json")).unwrap();
    let config: serde_json::Value = json5::from_str(&config).unwrap();
    assert_eq!(config["agents"]["defaults"]["workspace"], state.0.join("workspace").to_str().unwrap());
    for (path, bytes) in state.contents() {
        if path.extension().is_some_and(|ending| ending == "jsonl") {
            no_torn_line(&bytes).unwrap();
        }
    }
}

#[test]
fn most_sessions_of_a_sample_are_cold() {
    let state = State::new("cold");
    let hour = Duration::from_secs(3600);
    let old = |path: &PathBuf| {
        let modified = fs::metadata(state.0.join(path)).unwrap().modified().unwrap();
        SystemTime::now().duration_since(modified).unwrap_or_default() >= hour
    };
    let sessions = state.sessions();
    let cold = sessions.keys().filter(|path| old(path)).count();
    assert!(cold < sessions.len() && cold * 10 > sessions.len() * 8, "{cold} of {}", sessions.len());
}

#[test]
fn an_empty_database_has_the_magic() {
    let page = churn::empty_database();
    assert_eq!((&page[..16], page.len()), (b"SQLite format 3\0".as_slice(), 4096));
}

// Helpers.

fn told<const N: usize>(notes: [Notes; N]) -> Log {
    Log::new(0, 1000, notes.into())
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<PathBuf> {
    names.into_iter().map(PathBuf::from).collect()
}

fn refused(answer: Result<(), String>) {
    assert!(answer.is_err(), "this never was, and has been accepted");
}

fn held(log: &Log, path: &str, text: &str) -> Result<(), String> {
    log.bytes_ok(Path::new(path), text.as_bytes())
}

fn clean(log: Log) -> Log {
    assert_eq!(log.errors(), [] as [String; 0]);
    log
}

/// Whether no operation on any name touches the period.
fn at_rest(log: &Log, from: u64, to: u64) -> bool {
    let spans =
        log.names().flat_map(|path| log.lives_of(path)).flat_map(|life| std::iter::once(life.born).chain(life.gone));
    spans.into_iter().all(|span| span.after < from || to < span.before)
}

fn born(notes: &mut Notes, path: &str, inode: u64, span: std::ops::Range<u64>) -> usize {
    let span = Span::new(span.start, span.end);
    let incarnation = notes.incarnate(span, inode, Vec::new());
    notes.bound(span, Path::new(path), incarnation);
    incarnation
}

fn moving(from: &str, to: &str, span: std::ops::Range<u64>) -> Notes {
    let mut notes = Notes::default();
    let file = notes.found(Path::new(from), 1, Vec::new());
    notes.renamed(Span::new(span.start, span.end), Path::new(from), Path::new(to), file);
    notes
}

/// `ONE` was there; two more records came by one write.
fn appending(path: &str) -> Notes {
    let mut notes = Notes::default();
    let file = notes.found(Path::new(path), 1, ONE.into());
    notes.appended(file, Span::new(100, 110), &THREE.as_bytes()[ONE.len()..]);
    notes
}

/// `f` (inode 1) is replaced by `tmp` (inode 2) at 200.
fn renaming_over() -> Notes {
    let mut notes = Notes::default();
    notes.found(Path::new("f"), 1, b"old".to_vec());
    let new = born(&mut notes, "tmp", 2, 100..110);
    notes.appended(new, Span::new(110, 120), b"new");
    notes.renamed(Span::new(200, 210), Path::new("tmp"), Path::new("f"), new);
    notes
}

/// A state directory that goes when it is dropped.
struct State(PathBuf);

impl State {
    fn new(name: &str) -> Self {
        State::seeded(name, 1)
    }

    fn seeded(name: &str, seed: u64) -> Self {
        let dir = empty_dir(name);
        let usual = Sample::default();
        sample_state(&dir, &Sample { seed, ..usual });
        State(dir)
    }

    fn churned(&self, load: Load, time: Duration) -> Log {
        let churn = Churn::start(&self.0, load);
        thread::sleep(time);
        clean(churn.stop())
    }

    /// Every file in the session directories, with its inode.
    fn sessions(&self) -> BTreeMap<PathBuf, u64> {
        let mut found = BTreeMap::new();
        for home in fs::read_dir(self.0.join("agents")).unwrap() {
            let home = home.unwrap().path().join("sessions");
            found.extend(self.names_in(&home));
        }
        found
    }

    fn names_in(&self, dir: &Path) -> Vec<(PathBuf, u64)> {
        let path = |entry: fs::DirEntry| entry.path().strip_prefix(&self.0).unwrap().to_owned();
        let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
        entries
            .filter_map(|entry| Some((entry.metadata().ok()?.ino(), entry)))
            .map(|(inode, entry)| (path(entry), inode))
            .collect()
    }

    fn check_content(&self, log: &Log, path: &Path, at: u64) {
        let bytes = fs::read(self.0.join(path)).unwrap();
        log.bytes_ok_between(path, &bytes, at, at).unwrap();
        if path.extension().is_some_and(|ending| ending == "jsonl") {
            no_torn_line(&bytes).unwrap();
        }
    }

    /// Looks at names that come and go, one at a time.
    fn witness(&self, time: Duration) -> Vec<Sight> {
        let (mut rng, mut seen, mut known) = (Rng::new(9), Vec::new(), BTreeSet::new());
        let end = Instant::now() + time;
        while Instant::now() < end {
            known.extend(self.sessions().into_keys());
            let known: Vec<&PathBuf> = known.iter().collect();
            seen.extend((0..100).map(|_| Sight::of(&self.0, rng.pick::<&PathBuf>(&known))));
        }
        seen
    }

    /// What a copy makes that lists one directory after the other.
    fn pass(&self, pause: Duration) -> (u64, u64, BTreeSet<PathBuf>) {
        let from = now_ns();
        let mut names = BTreeSet::new();
        for agent in ["main", "helper-1"] {
            let dir = self.0.join("agents").join(agent).join("sessions");
            names.extend(self.names_in(&dir).into_iter().map(|(path, _)| path));
            thread::sleep(pause);
        }
        (from, now_ns(), names)
    }

    /// The bytes of every plain file; the state's own path in the config is left out.
    fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = walkdir(&self.0).into_iter().filter(|path| path.file_name().unwrap() != "openclaw.json");
        files.map(|path| (path.strip_prefix(&self.0).unwrap().to_owned(), fs::read(&path).unwrap())).collect()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn walkdir(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .flat_map(|entry| match entry.file_type().unwrap() {
            kind if kind.is_dir() => walkdir(&entry.path()),
            kind if kind.is_file() => vec![entry.path()],
            _ => vec![],
        })
        .collect()
}

fn empty_dir(name: &str) -> PathBuf {
    let unique = format!("churn-{name}-{}-{}", std::process::id(), now_ns());
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// One name as it was seen.
struct Sight {
    path: PathBuf,
    from: u64,
    to: u64,
    content: Option<Vec<u8>>,
}

impl Sight {
    fn of(state: &Path, path: &Path) -> Self {
        let from = now_ns();
        let content = fs::read(state.join(path)).ok();
        Sight { path: path.to_owned(), from, to: now_ns(), content }
    }

    fn check(&self, log: &Log) {
        match &self.content {
            Some(bytes) => self.check_content(log, bytes),
            None => {
                let lasting = log.existed_throughout(self.from, self.to);
                assert!(!lasting.iter().any(|(path, _)| *path == self.path), "{:?} was there", self.path);
            }
        }
    }

    /// The name was opened between the two clocks, but its file may have lost the name while it was read.
    fn check_content(&self, log: &Log, bytes: &[u8]) {
        assert!(log.may_have_existed(self.from, self.to).contains(&self.path));
        let cut = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let records = self.path.extension().is_some_and(|ending| ending == "jsonl");
        let bytes = if records { &bytes[..cut] } else { bytes };
        log.bytes_ok_between(&self.path, bytes, self.from, self.to).unwrap();
    }
}
