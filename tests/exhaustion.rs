//! Real exhaustion: filesystems that are full, inodes and links that have run out, limits of the process. A backup is whole
//! and proven, or it says what it lacked and leaves nothing; the source is untouched either way.
//!
//! Needs root, to mount what can be filled.

mod mounts;
mod owner;
mod proof;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clawsnap::event::{Event, Observer};
use clawsnap::gate::{Realm, Verb};
use clawsnap::report::Report;
use clawsnap::verify::Trust;
use mounts::{can, made, mount, text};
use owner::{Habit, Owner};
use proof::{Promise, proven};
use support::patient::verdict;
use support::{Archive, Backup, Looks, Script, cool, differences, leftovers, snapshot, write, write_cold};

/// Started again by the tests here as an owner; does nothing else.
#[test]
fn owner() {
    owner::serve();
}

/// Levels of fullness that are tried.
const LEVELS: u64 = 50;

/// Bytes between two levels.
const LEVEL: u64 = 64 << 10;

/// The sizes and kinds that a state has: large cold files that are linked, hot ones and guarded ones that are copied or
/// held, a database that is copied.
fn make_state(state: &Path) {
    let noise = |length: usize, seed: u8| {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    };
    let record = |bytes: Vec<u8>| format!("{{\"said\":\"{}\"}}\n", blake3::hash(&bytes));
    for number in 0..12 {
        let session = state.join(format!("agents/main/sessions/{number:08x}.jsonl"));
        let lines = record(noise(9, number)).repeat(1500);
        if number < 4 { write(&session, lines) } else { write_cold(&session, lines) }
    }
    write_cold(&state.join("media/picture.bin"), noise(1 << 20, 99));
    write_cold(&state.join("workspace/AGENTS.md"), "# Agents\n");
    write_cold(&state.join("openclaw.json"), support::LINKED);
    let database = rusqlite::Connection::open(state.join("tasks.sqlite")).expect("opens");
    database.execute_batch("CREATE TABLE runs (what BLOB)").expect("creates");
    database.execute("INSERT INTO runs VALUES (zeroblob(300000))", []).expect("inserts");
    drop(database);
    cool(&state.join("tasks.sqlite"));
}

/// A file that takes all the room of its filesystem but for a part.
struct Filler {
    file: File,
    most: u64,
}

impl Filler {
    fn new(path: &Path) -> Self {
        let mut file = File::create(path).expect("creates");
        let full = io::copy(&mut io::repeat(7), &mut file).expect_err("is full at last");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        file.flush().and_then(|()| file.sync_all()).expect("syncs");
        let most = file.metadata().expect("is there").len();
        Self { file, most }
    }

    /// More than the last time: a hole fills no room.
    fn leave(&self, bytes: u64) {
        self.file.set_len(self.most - bytes).and_then(|()| self.file.sync_all()).expect("makes room");
    }
}

/// How a run ended that had to be whole or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum End {
    Whole,
    Refused,
}

/// Sees that a backup with little of something is proven, or absent with a reason, and that nothing else has changed.
fn judge(report: &Report, archive: &Path, source: &Path, before: &BTreeMap<PathBuf, Looks>) -> End {
    let told = format!("{:?} {:?}", report.error, report.losses);
    assert_eq!(differences(before, &snapshot(source)), [] as [String; 0], "{told}");
    for dir in [source, source.parent().expect("a parent"), archive.parent().expect("a parent")] {
        assert_eq!(leftovers(dir), [] as [PathBuf; 0], "{told}");
    }
    if !archive.exists() {
        assert!(report.exit_code() > 3 || report.exit_code() == 1, "{}: {told}", report.exit_code());
        return End::Refused;
    }
    assert!(matches!(report.exit_code(), 0 | 3), "{}: {told}", report.exit_code());
    assert_eq!(verdict(archive).trust, Trust::Proven, "{told}");
    End::Whole
}

/// That many trials found each archive proven or absent, what it held right or named, and the source as it was.
fn held(trials: u64, by: &str) {
    proven(&[Promise::Fate, Promise::Untouched, Promise::Name], trials, by);
}

/// What must be in an archive that tells of no loss.
fn assert_holds(archive: &Path, before: &BTreeMap<PathBuf, Looks>, report: &Report) {
    let found = Archive::read(archive);
    let lost: Vec<_> = report.losses.iter().map(|fated| fated.path.0.clone()).collect();
    for (path, looks) in before.iter().filter(|(_, looks)| looks.is_file()) {
        if lost.contains(&path.as_os_str().as_encoded_bytes().to_vec()) {
            continue;
        }
        let contents = found.contents(path).unwrap_or_else(|| panic!("{} has no fate", path.display()));
        let hash = (contents.len(), blake3::hash(contents).to_hex().to_string());
        let is_database = path.extension().is_some_and(|ending| ending == "sqlite");
        assert!(is_database || Some(hash) == looks.contents, "{} is not what it was", path.display());
    }
}

/// Sees that a backup has all of the source, and that nothing else has changed.
fn assert_all_is_archived(source: &Path, archive: &Path) {
    let before = snapshot(source);
    let report = Backup::of(source).serving_databases().to(archive);
    assert_eq!(judge(&report, archive, source, &before), End::Whole);
    assert_eq!((report.exit_code(), report.losses.len()), (0, 0), "{:?}", report.losses);
    assert_holds(archive, &before, &report);
}

#[test]
fn a_full_output_gets_a_whole_archive_or_none() {
    let top = tempfile::tempdir().expect("a directory");
    let Some((_mount, out)) = made(top.path(), "ext4", 16, &["-q", "-m", "0"]) else { return };
    let source = top.path().join("home/state");
    make_state(&source);
    let before = snapshot(&source);
    for name in ["a.tar", "a.tar.zst"] {
        let archive = out.join(name);
        let filler = Filler::new(&out.join("filler"));
        let (mut whole, mut reasons) = (0, BTreeSet::new());
        for level in 0..LEVELS {
            filler.leave(level * LEVEL);
            let report = Backup::of(&source).serving_databases().to(&archive);
            if judge(&report, &archive, &source, &before) == End::Whole {
                fs::remove_file(&archive).expect("removes");
                whole += 1;
            } else {
                let error = report.error.expect("a reason").to_string();
                assert!(error.contains(text(&out)) && error.contains("free space there"), "{error}");
                reasons.extend(["are free", "No space left"].into_iter().filter(|reason| error.contains(reason)));
            }
        }
        println!("a full output: {name}: {whole} of {LEVELS} are whole, the others are absent with a reason");
        held(LEVELS, "a full output");
        assert!((5..LEVELS - 5).contains(&whole), "{whole}");
        assert!(reasons.contains("No space left"), "it was told before in all cases: {reasons:?}");
    }
}

#[test]
fn a_full_source_is_archived_and_what_there_was_no_room_for_is_named() {
    let top = tempfile::tempdir().expect("a directory");
    let Some((_mount, at)) = made(top.path(), "ext4", 16, &["-q", "-m", "0"]) else { return };
    let source = at.join("home/state");
    make_state(&source);
    let (before, filler) = (snapshot(&source), Filler::new(&at.join("filler")));
    let archive = top.path().join("a.tar");
    let mut exits = BTreeMap::<u8, u64>::new();
    for level in 0..LEVELS {
        filler.leave(level * LEVEL);
        let report = Backup::of(&source).serving_databases().to(&archive);
        if judge(&report, &archive, &source, &before) == End::Whole {
            assert_holds(&archive, &before, &report);
            fs::remove_file(&archive).expect("removes");
        }
        *exits.entry(report.exit_code()).or_default() += 1;
    }
    println!("a full source: exit codes {exits:?}");
    held(LEVELS, "a full source");
    assert!(exits[&0] >= 10, "{exits:?}");
}

#[test]
fn a_source_without_inodes_is_archived_and_what_there_was_none_for_is_named() {
    let top = tempfile::tempdir().expect("a directory");
    let Some((_mount, at)) = made(top.path(), "ext4", 16, &["-q", "-m", "0", "-N", "128"]) else { return };
    let source = at.join("home/state");
    make_state(&source);
    let fillers: Vec<PathBuf> =
        (0..).map(|number| at.join(format!("filler-{number}"))).take_while(|path| File::create(path).is_ok()).collect();
    assert!(fillers.len() > 30);
    let before = snapshot(&source);
    let archive = top.path().join("a.tar");
    let mut exits = BTreeMap::<u8, u64>::new();
    for filler in std::iter::once(None).chain(fillers.iter().take(30).map(Some)) {
        if let Some(path) = filler {
            fs::remove_file(path).expect("makes room");
        }
        let report = Backup::of(&source).serving_databases().to(&archive);
        if judge(&report, &archive, &source, &before) == End::Whole {
            assert_holds(&archive, &before, &report);
            fs::remove_file(&archive).expect("removes");
        }
        *exits.entry(report.exit_code()).or_default() += 1;
    }
    println!("a source without inodes: exit codes {exits:?}");
    held(exits.values().sum(), "a source without inodes");
    assert!(exits[&0] >= 10, "{exits:?}");
}

/// btrfs limits root as well, which the quotas of users do not.
#[test]
fn a_quota_that_is_reached_ends_a_run_without_an_archive() {
    let top = tempfile::tempdir().expect("a directory");
    let Some((_mount, at)) = made(top.path(), "btrfs", 256, &["-q"]) else { return };
    let out = at.join("limited");
    let can_limit = can(&["btrfs", "quota", "enable", text(&at)]) && can(&["btrfs", "subvolume", "create", text(&out)]);
    assert!(can_limit, "btrfs has quotas");
    let source = top.path().join("home/state");
    make_state(&source);
    let before = snapshot(&source);
    let archive = out.join("a.tar");
    for (limit, wanted) in [("512K", End::Refused), ("1M", End::Refused), ("2M", End::Refused), ("none", End::Whole)] {
        assert!(can(&["btrfs", "qgroup", "limit", limit, text(&out)]));
        let report = Backup::of(&source).serving_databases().to(&archive);
        assert_eq!(judge(&report, &archive, &source, &before), wanted, "{limit}: {:?}", report.error);
        if let Some(error) = report.error {
            assert!(error.to_string().contains("quota"), "{limit}: {error}");
        }
    }
    held(4, "a quota");
}

#[test]
fn a_file_with_as_many_names_as_can_be_is_archived_without_another() {
    /// ext4's `EXT4_LINK_MAX`.
    const MOST: u64 = 65_000;
    let top = tempfile::tempdir().expect("a directory");
    let Some((_mount, at)) = made(top.path(), "ext4", 64, &["-q"]) else { return };
    let source = at.join("home/state");
    make_state(&source);
    let session = source.join("agents/main/sessions/linked.jsonl");
    write_cold(&session, "{\"said\":\"much\"}\n");
    fs::create_dir(at.join("elsewhere")).expect("makes");
    (1..MOST).for_each(|number| fs::hard_link(&session, at.join(format!("elsewhere/{number}"))).expect("links"));
    assert!(fs::hard_link(&session, at.join("one-more")).is_err());
    assert_all_is_archived(&source, &top.path().join("a.tar"));
    assert_eq!(fs::metadata(&session).expect("is there").nlink(), MOST);
    held(1, "a file with as many names as can be");
}

/// Files that nobody may change, and one that may only grow, refuse a second name even to root.
#[test]
fn immutable_and_append_only_files_are_archived_and_stay_so() {
    let top = tempfile::tempdir().expect("a directory");
    let Some((_mount, at)) = made(top.path(), "ext4", 64, &["-q"]) else { return };
    let source = at.join("home/state");
    make_state(&source);
    let sessions = source.join("agents/main/sessions");
    let flags =
        [("+i", "00000004.jsonl"), ("+a", "00000005.jsonl"), ("+i", "00000000.jsonl"), ("+a", "00000001.jsonl")];
    for (flag, name) in flags {
        assert!(can(&["chattr", flag, text(&sessions.join(name))]), "ext4 has attributes");
    }
    assert!(can(&["chattr", "+i", text(&source.join("media"))]));
    assert_all_is_archived(&source, &top.path().join("a.tar"));
    held(1, "immutable and append-only files");
}

/// A file below an overlay is copied up when it gets its second name; nobody who looks can tell.
#[test]
fn files_below_an_overlay_are_archived_and_look_as_before() {
    let top = tempfile::tempdir().expect("a directory");
    let (lower, at) = (top.path().join("lower"), top.path().join("merged"));
    make_state(&lower.join("home/state"));
    for name in ["upper", "work"] {
        fs::create_dir(top.path().join(name)).expect("makes");
    }
    let [upper, work] = ["upper", "work"].map(|name| top.path().join(name));
    let layers = format!("lowerdir={},upperdir={},workdir={}", text(&lower), text(&upper), text(&work));
    let Some(_mount) = mount(&["-t", "overlay", "overlay", "-o", &layers], &at) else { return };
    let source = at.join("home/state");
    write(&source.join("agents/main/sessions/upper.jsonl"), "{}\n");
    assert_all_is_archived(&source, &top.path().join("a.tar"));
    held(1, "an overlay");
}

/// As containers see a state: parts of it are mounts, of directories and of single files.
#[test]
fn a_source_over_several_mounts_is_archived_as_one() {
    let top = tempfile::tempdir().expect("a directory");
    let Some((_mount, other)) = made(top.path(), "ext4", 64, &["-q"]) else { return };
    let source = top.path().join("home/state");
    make_state(&source);
    make_state(&other.join("state"));
    write_cold(&top.path().join("bound.jsonl"), "{\"bound\":1}\n");
    write_cold(&source.join("agents/main/sessions/bound.jsonl"), "covered");
    let file = source.join("agents/main/sessions/bound.jsonl");
    let shm = source.join("tmpfs");
    let mounts = [
        mount(&["--bind", text(&other.join("state/agents"))], &source.join("agents/other")),
        mount(&["--bind", text(&source.join("media"))], &source.join("again")),
        mount(&["-t", "tmpfs", "tmpfs"], &shm),
    ];
    assert!(mounts.iter().all(Option::is_some));
    assert!(can(&["mount", "--bind", text(&top.path().join("bound.jsonl")), text(&file)]));
    write_cold(&shm.join("sessions/in-memory.jsonl"), "{}\n");
    let checked = std::panic::catch_unwind(|| {
        assert_all_is_archived(&source, &top.path().join("a.tar"));
        [&source, &shm, &source.join("agents/other"), &source.join("again")]
            .iter()
            .for_each(|dir| assert_eq!(leftovers(dir), [] as [PathBuf; 0]));
    });
    assert!(can(&["umount", text(&file)]));
    checked.expect("holds");
    held(1, "several mounts");
}

/// The command under limits of the shell's.
fn limited(limit: &str, source: &Path, archive: &Path) -> std::process::Output {
    let mut command = Command::new("prlimit");
    command.args([limit, env!("CARGO_BIN_EXE_clawsnap"), "create", "-o", text(archive)]);
    command.env("OPENCLAW_STATE_DIR", source).env("HOME", source.parent().expect("a home")).output().expect("runs")
}

/// A run that was denied a thread (`ulimit -u`, `TasksMax=` of systemd, a container's limit) called that a bug in clawsnap,
/// with a trace. With fewer threads there is a backup all the same; with nearly none there is an error that names it.
#[test]
fn fewer_threads_make_a_backup_too() {
    let top = tempfile::tempdir().expect("a directory");
    let home = top.path().join("home");
    make_state(&home.join("state"));
    let program = top.path().join("clawsnap");
    fs::copy(env!("CARGO_BIN_EXE_clawsnap"), &program).expect("copies");
    // A user of whom nothing else runs, not even this test beside this one: their threads would be counted together.
    let user = (100_000 + std::process::id()).to_string();
    assert!(can(&["chown", "-R", &format!("{user}:{user}"), text(top.path())]));
    let before = snapshot(&home.join("state"));
    let mut ended = BTreeMap::new();
    for limit in 1..=24 {
        let archive = top.path().join(format!("{limit}.tar"));
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups", "prlimit"]);
        command.args([&format!("--nproc={limit}:{limit}"), text(&program), "create", "-q"]);
        command.args(["-o", text(&archive)]).env("OPENCLAW_STATE_DIR", home.join("state")).env("HOME", &home);
        let output = command.current_dir("/").output().expect("runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("a bug") && !said.contains("panicked"), "{limit}: {said}");
        assert_eq!(archive.exists(), matches!(output.status.code(), Some(0 | 3)), "{limit}: {said}");
        assert_eq!(leftovers(&home), [] as [PathBuf; 0]);
        ended.insert(limit, output.status.code());
    }
    assert_eq!((ended[&1], ended[&24]), (Some(1), Some(0)), "{ended:?}");
    assert_eq!(differences(&before, &snapshot(&home.join("state"))), [] as [String; 0]);
    held(24, "threads");
}

/// Small copies were opened far ahead of their turn, and with more guarded files than descriptors some were lost.
#[test]
fn nothing_is_lost_for_want_of_descriptors() {
    let top = tempfile::tempdir().expect("a directory");
    let source = top.path().join("home/state");
    make_state(&source);
    // Each of them is held open, as long as there are descriptors, and copied when there are none.
    write(&source.join("workspace/.git/config"), "[core]\n");
    (0..2000).for_each(|number| write_cold(&source.join(format!("workspace/{number}.md")), "mine"));
    let before = snapshot(&source);
    let archive = top.path().join("a.tar");
    for limit in [40, 64, 300, 700, 1500] {
        let output = limited(&format!("--nofile={limit}:{limit}"), &source, &archive);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{limit}: {said}");
        assert_eq!(differences(&before, &snapshot(&source)), [] as [String; 0]);
        assert_eq!(leftovers(&source), [] as [PathBuf; 0]);
        assert_eq!(verdict(&archive).trust, Trust::Proven, "{said}");
        fs::remove_file(&archive).expect("removes");
    }
    held(5, "limits on descriptors");
}

#[test]
fn a_limit_on_the_size_of_files_ends_a_run_with_a_reason_and_nothing_is_left() {
    let top = tempfile::tempdir().expect("a directory");
    let source = top.path().join("home/state");
    make_state(&source);
    let before = snapshot(&source);
    let archive = top.path().join("a.tar");
    let output = limited("--fsize=1048576", &source, &archive);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("File too large"), "{said}");
    assert!(!archive.exists());
    assert_eq!(differences(&before, &snapshot(&source)), [] as [String; 0]);
    for dir in [&source, source.parent().expect("a parent"), top.path()] {
        assert_eq!(leftovers(dir), [] as [PathBuf; 0]);
    }
    held(1, "a limit on the size of files");
}

/// The inventory of an archive that somebody else stores was gathered where temporary files are: where that was full, no
/// backup came about, and standard output was said to be.
#[test]
fn an_archive_on_standard_output_needs_no_room_for_temporary_files() {
    let top = tempfile::tempdir().expect("a directory");
    let source = top.path().join("home/state");
    make_state(&source);
    let before = snapshot(&source);
    let temporary = top.path().join("tmp");
    let Some(_mount) = mount(&["-t", "tmpfs", "-o", "size=64k", "none"], &temporary) else { return };
    let _full = Filler::new(&temporary.join("filler"));
    let archive = top.path().join("a.tar");
    let mut command = Command::new(env!("CARGO_BIN_EXE_clawsnap"));
    command.args(["create", "-o", "-", "--compress", "none"]).stdout(File::create(&archive).expect("creates"));
    command.env("TMPDIR", &temporary).env("OPENCLAW_STATE_DIR", &source).env("HOME", top.path().join("home"));
    let output = command.output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(verdict(&archive).trust, Trust::Proven, "{said}");
    assert_eq!(differences(&before, &snapshot(&source)), [] as [String; 0]);
    held(1, "no room for temporary files");
}

/// What the owner of a large hot file does while that is archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Nothing,
    Appends,
    Rewrites,
}

/// A large hot file was copied beside the source until there was no room left for its owner, for the rest of the run, and was
/// lost then, though it could have been read where it is.
#[test]
fn a_large_hot_file_that_there_is_no_room_to_copy_is_read_where_it_is_and_its_owner_keeps_the_room() {
    let top = tempfile::tempdir().expect("a directory");
    let Some((_mount, at)) = made(top.path(), "ext4", 64, &["-q", "-m", "0"]) else { return };
    let source = at.join("home/state");
    make_state(&source);
    let log = source.join("agents/main/sessions/large.jsonl");
    let promised = "{\"said\":\"much\"}\n".repeat(24 << 16).into_bytes();
    write(&log, &promised);
    Filler::new(&at.join("filler")).leave(12 << 20);
    for does in [Does::Nothing, Does::Appends, Does::Rewrites] {
        let archive = top.path().join(format!("{does:?}.tar"));
        let before = snapshot(&source);
        let (refused, reads) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
        let (owner, path, count) = (at.join("owner"), log.clone(), Arc::clone(&refused));
        let gate = Script::new(move |number, step| {
            if step.verb == Verb::Read && step.realm == Realm::Staging {
                let file = owner.with_extension(number.to_string());
                count.fetch_add(u64::from(fs::write(&file, [7; 1 << 20]).is_err()), Ordering::SeqCst);
                fs::remove_file(&file)?;
                if reads.fetch_add(1, Ordering::SeqCst) == 50 {
                    let file = fs::OpenOptions::new().write(true).open(&path)?;
                    let length = file.metadata()?.len();
                    match does {
                        Does::Nothing => {}
                        Does::Appends => file.write_all_at(b"{\"more\":1}\n", length)?,
                        Does::Rewrites => file.write_all_at(b"rewritten", length / 2)?,
                    }
                }
            }
            Ok(())
        });
        let report = Backup::of(&source).serving_databases().gate(gate).to(&archive);
        assert_eq!(refused.load(Ordering::SeqCst), 0, "{does:?}: its owner had no room");
        let counts = (report.counts.prefix, report.counts.torn, report.exit_code());
        let found = Archive::read(&archive);
        match does {
            Does::Nothing => {
                assert_eq!(judge(&report, &archive, &source, &before), End::Whole);
                assert_eq!(counts, (0, 0, 0), "{:?}", report.losses);
                assert_holds(&archive, &before, &report);
            }
            Does::Appends => {
                assert_eq!(counts, (1, 0, 0), "{:?}", report.losses);
                assert!(found.contents(&log) == Some(&promised[..]));
            }
            Does::Rewrites => {
                assert_eq!(counts, (0, 1, 3), "{:?}", report.losses);
                assert_eq!(report.losses[0].path.as_path(), log);
            }
        }
    }
    held(3, "no room for a copy");
}

/// A database of so many bytes that its owner has just written, and its owner.
fn make_database(path: &Path, journal: &str, bytes: u64) -> rusqlite::Connection {
    let owner = rusqlite::Connection::open(path).expect("opens");
    owner.query_row(&format!("PRAGMA journal_mode={journal}"), [], |_| Ok(())).expect("has a journal");
    owner.execute_batch("CREATE TABLE runs (what BLOB)").expect("creates");
    owner.execute(&format!("INSERT INTO runs VALUES (zeroblob({bytes}))"), []).expect("inserts");
    owner
}

/// Sees that this database is lost for want of room, and nothing else but what belongs to it.
fn assert_lacked_room(report: &Report, path: &Path) {
    let fated = report.losses.first().expect("is lost");
    assert_eq!((fated.path.as_path(), fated.fate), (path, "lost"), "{:?}", report.losses);
    assert!(fated.reason.as_deref().is_some_and(|reason| reason.contains("no room")), "{:?}", report.losses);
    let others = report.losses.iter().filter(|fated| !fated.path.0.starts_with(path.as_os_str().as_encoded_bytes()));
    assert_eq!(others.count(), 0, "{:?}", report.losses);
}

/// Empties the log of a database as soon as all is frozen, and keeps whether somebody was in the way.
struct Checkpoint {
    path: PathBuf,
    in_the_way: Arc<AtomicU64>,
}

impl Observer for Checkpoint {
    fn on(&self, event: Event) {
        if matches!(event, Event::Frozen { .. }) {
            let connection = rusqlite::Connection::open(&self.path).expect("opens");
            connection.busy_timeout(Duration::ZERO).expect("does not wait");
            let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
            let busy: i64 = connection.query_row(checkpoint, [], |row| row.get(0)).expect("answers");
            self.in_the_way.store(busy.unsigned_abs(), Ordering::SeqCst);
        }
    }
}

/// The helper of a database that there was no room to copy kept its read transaction until the archive was made, and its
/// owner's log grew all that time where room was short already.
#[test]
fn a_database_that_there_is_no_room_to_copy_is_let_go_of_at_once() {
    let top = tempfile::tempdir().expect("a directory");
    let Some((_mount, at)) = made(top.path(), "ext4", 64, &["-q", "-m", "0"]) else { return };
    let source = at.join("home/state");
    make_state(&source);
    let path = source.join("owned.sqlite");
    drop(make_database(&path, "wal", 12 << 20));
    let _owner = Owner::start(&source, "wal", Habit::KeepsLog);
    Filler::new(&at.join("filler")).leave(4 << 20);
    let in_the_way = Arc::new(AtomicU64::new(u64::MAX));
    let checkpoint = Checkpoint { path: path.clone(), in_the_way: Arc::clone(&in_the_way) };
    let report = Backup::of(&source).serving_databases().observer(checkpoint).to(&top.path().join("a.tar"));
    assert_eq!(in_the_way.load(Ordering::SeqCst), 0, "a helper reads it still");
    assert_eq!(report.exit_code(), 3);
    assert_lacked_room(&report, &path);
    held(1, "no room for a database");
}

/// A database with a rollback journal is copied while it is frozen, and nobody asked whether there was room: its owner found
/// the disk full, and what was copied stayed there.
#[test]
fn a_database_that_is_frozen_by_its_copy_leaves_its_owner_the_room() {
    let top = tempfile::tempdir().expect("a directory");
    let Some((_mount, at)) = made(top.path(), "ext4", 64, &["-q", "-m", "0"]) else { return };
    let source = at.join("home/state");
    make_state(&source);
    let path = source.join("live.sqlite");
    drop(make_database(&path, "delete", 24 << 20));
    Filler::new(&at.join("filler")).leave(12 << 20);
    let (refused, owner) = (Arc::new(AtomicU64::new(0)), at.join("owner"));
    let count = Arc::clone(&refused);
    let gate = Script::new(move |number, step| {
        if step.verb == Verb::Ask || step.verb == Verb::Read && step.realm == Realm::Staging {
            let file = owner.with_extension(number.to_string());
            count.fetch_add(u64::from(fs::write(&file, [7; 1 << 20]).is_err()), Ordering::SeqCst);
            fs::remove_file(&file)?;
        }
        Ok(())
    });
    let (before, archive) = (snapshot(&source), top.path().join("a.tar"));
    let report = Backup::of(&source).serving_databases().gate(gate).to(&archive);
    assert_eq!(refused.load(Ordering::SeqCst), 0, "its owner had no room");
    assert_eq!(judge(&report, &archive, &source, &before), End::Whole);
    assert_holds(&archive, &before, &report);
    assert_lacked_room(&report, &path);
    held(1, "no room to freeze a database");
}

/// What was copied while it was frozen had to find room for another copy when its turn came, and was lost without that.
#[test]
fn a_database_that_is_frozen_by_its_copy_needs_the_room_once() {
    let top = tempfile::tempdir().expect("a directory");
    let Some((_mount, at)) = made(top.path(), "ext4", 64, &["-q", "-m", "0"]) else { return };
    let source = at.join("home/state");
    make_state(&source);
    drop(make_database(&source.join("live.sqlite"), "delete", 8 << 20));
    Filler::new(&at.join("filler")).leave(20 << 20);
    assert_all_is_archived(&source, &top.path().join("a.tar"));
    held(1, "room for one copy");
}
