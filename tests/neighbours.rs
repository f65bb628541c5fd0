//! Neighbours who mean harm, or mean nothing and never rest: whatever they do while a backup runs, it ends, reads nothing
//! from outside of its source, and changes nothing anywhere.
//!
//! `CLAWSNAP_DEPTH` is how deep the deepest tree is, 10000 for all: it takes a minute.

mod proof;
mod support;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clawsnap::gate::{CancelFlag, Gate};
use clawsnap::report::{Consistency, Report};
use clawsnap::restore::{Ending, RestoreOptions, restore};
use clawsnap::verify::Trust;
use proof::{Promise, proven};
use rustix::fs::{self as sys, CWD, FileType, Mode, OFlags, RenameFlags};
use support::patient::verdict;
use support::{Archive, Backup, Looks, differences, leftovers, snapshot, write, write_cold};

/// What only files outside of the source say.
const SECRET: &str = "this is nobody's business";

/// What a file says that the neighbour gives a name inside as well.
const SHARED: &str = "this is shared";

/// How long a backup of next to nothing may take, whatever happens beside it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A source, and an outside that nobody may touch.
struct Scene {
    top: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { top: tempfile::tempdir().expect("a directory") };
        write_cold(&scene.path("outside/secret.jsonl"), SECRET);
        write_cold(&scene.path("outside/closet/secret.jsonl"), SECRET);
        write_cold(&scene.path("outside/shared.jsonl"), SHARED);
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    fn state(&self) -> PathBuf {
        self.path("home/state")
    }

    /// A backup while `neighbour` is at work until it is told to stop, and how long it took.
    fn beside(&self, neighbour: impl FnOnce(&AtomicBool) + Send) -> (Report, Archive) {
        let (stop, archive) = (AtomicBool::new(false), self.path("a.tar"));
        let (report, took) = thread::scope(|scope| {
            scope.spawn(|| neighbour(&stop));
            thread::sleep(Duration::from_millis(50));
            let begun = Instant::now();
            let report = Backup::of(&self.state()).to(&archive);
            stop.store(true, Ordering::Relaxed);
            (report, begun.elapsed())
        });
        assert!(took < PATIENCE, "{took:?}");
        assert!(matches!(report.exit_code(), 0 | 3), "{:?}", report.error);
        assert_eq!(verdict(&archive).trust, Trust::Proven);
        assert_eq!(leftovers(&self.path("home")), [] as [PathBuf; 0]);
        let found = Archive::read(&archive);
        fs::remove_file(archive).expect("removes");
        (report, found)
    }
}

/// What may take a name's place. Each is an entry of the neighbour's wardrobe, and swapped in one call.
const DISGUISES: [&str; 9] =
    ["link-to-secret", "link-to-closet", "link-to-root", "fifo", "device", "shared", "directory", "file", "socket"];

/// A neighbour who swaps names of the source for something else.
struct Swapper {
    wardrobe: OwnedFd,
    /// Held open: wherever they are moved to, a name in them is a name in them.
    directories: Vec<(OwnedFd, Vec<String>)>,
    swaps: AtomicU64,
}

impl Swapper {
    fn new(scene: &Scene) -> Self {
        let wardrobe = scene.path("wardrobe");
        write_cold(&wardrobe.join("directory/inner.jsonl"), "mine");
        write_cold(&wardrobe.join("file"), "mine");
        symlink(scene.path("outside/secret.jsonl"), wardrobe.join("link-to-secret")).expect("links");
        symlink(scene.path("outside/closet"), wardrobe.join("link-to-closet")).expect("links");
        symlink("/", wardrobe.join("link-to-root")).expect("links");
        fs::hard_link(scene.path("outside/shared.jsonl"), wardrobe.join("shared")).expect("links");
        let node = |name: &str, kind: FileType, device: u64| {
            sys::mknodat(CWD, wardrobe.join(name), kind, Mode::RUSR | Mode::WUSR, device)
        };
        node("fifo", FileType::Fifo, 0).expect("makes");
        node("socket", FileType::Socket, 0).expect("makes");
        // That of endless zeros, which takes a privilege.
        if let Err(error) = node("device", FileType::CharacterDevice, sys::makedev(1, 5)) {
            proof::skipped("a device in place of a file", &error.to_string());
            write_cold(&wardrobe.join("device"), "mine");
        }
        let mut directories = Vec::new();
        for number in 0..6 {
            let dir = scene.state().join(format!("d{number}"));
            let names: Vec<String> = (0..8).map(|number| format!("{number}.jsonl")).collect();
            names.iter().for_each(|name| write_cold(&dir.join(name), "mine"));
            directories.push((open(&dir), names));
        }
        directories.push((open(&scene.state()), (0..6).map(|number| format!("d{number}")).collect()));
        Self { wardrobe: open(&wardrobe), directories, swaps: AtomicU64::new(0) }
    }

    fn swap_until(&self, stop: &AtomicBool) {
        for number in (0_usize..).take_while(|_| !stop.load(Ordering::Relaxed)) {
            let (dir, names) = &self.directories[number * 5 % self.directories.len()];
            let name = &names[number * 7 / 3 % names.len()];
            let disguise = DISGUISES[number * 11 / 7 % DISGUISES.len()];
            let swapped = sys::renameat_with(dir, name.as_str(), &self.wardrobe, disguise, RenameFlags::EXCHANGE);
            self.swaps.fetch_add(u64::from(swapped.is_ok()), Ordering::Relaxed);
        }
    }
}

fn open(dir: &Path) -> OwnedFd {
    sys::open(dir, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("opens")
}

/// What a neighbour does at the least, whatever the time.
const SWAPS: u64 = 1_000_000;

/// And during how many backups.
const RUNS: u64 = 30;

#[test]
fn a_neighbour_who_swaps_names_for_links_fifos_and_devices_leads_no_backup_outside() {
    let scene = Scene::new();
    let swapper = Swapper::new(&scene);
    let before = snapshot(&scene.path("outside"));
    let (mut runs, mut files, mut special) = (0, 0, 0);
    while swapper.swaps.load(Ordering::Relaxed) < SWAPS || runs < RUNS {
        let (report, archive) = scene.beside(|stop| swapper.swap_until(stop));
        for (path, member) in &archive.payload {
            let said = String::from_utf8_lossy(&member.contents);
            assert!(!said.contains(SECRET), "{} tells what lies outside", path.display());
            assert!(said.is_empty() || said == "mine" || said == SHARED, "{} says {said}", path.display());
            files += u64::from(!said.is_empty());
        }
        special += report.counts.losses() + report.counts.departed + report.counts.excluded;
        assert_eq!(differences(&before, &snapshot(&scene.path("outside"))), [] as [String; 0]);
        runs += 1;
    }
    for dir in ["home/state", "wardrobe"] {
        assert_eq!(more_than_their_names(&scene.path(dir)), [] as [PathBuf; 0], "a second name of ours is left");
    }
    let swaps = swapper.swaps.load(Ordering::Relaxed);
    println!("{swaps} swaps during {runs} backups, which hold {files} files");
    assert!(files > 50 && special > 0, "{files} {special}");
    proven(&[Promise::Untouched, Promise::Fate], swaps, "a neighbour's swaps during backups");
}

/// Files with more names than the neighbour gave them.
fn more_than_their_names(top: &Path) -> Vec<PathBuf> {
    let looks: BTreeMap<PathBuf, Looks> = snapshot(top);
    let is_ours = |looks: &Looks| looks.is_file() && looks.nlink > 1 + u64::from(is_shared(looks));
    looks.iter().filter(|(_, looks)| is_ours(looks)).map(|(path, _)| path.clone()).collect()
}

fn is_shared(looks: &Looks) -> bool {
    looks.contents.as_ref().is_some_and(|(_, hash)| *hash == blake3::hash(SHARED.as_bytes()).to_hex().to_string())
}

#[test]
fn a_session_that_grows_faster_than_it_is_read_is_archived_as_far_as_it_was() {
    let scene = Scene::new();
    let session = scene.state().join("agents/main/sessions/endless.jsonl");
    let record = [b"{\"said\":\"".to_vec(), vec![b'x'; 100_000], b"\"}\n".to_vec()].concat();
    write(&session, record.repeat(500));
    let (report, archive) = scene.beside(|stop| {
        let mut file = OpenOptions::new().append(true).open(&session).expect("opens");
        // As fast as it can from when it is about to be frozen, and no further than a slow disk takes in good time.
        let (mut is_begun, mut left) = (false, 4_000);
        while !stop.load(Ordering::Relaxed) {
            is_begun = is_begun || !leftovers(&scene.path("home")).is_empty();
            if is_begun && left > 0 {
                left -= 1;
            } else {
                thread::sleep(Duration::from_millis(1));
            }
            file.write_all(&record).expect("appends");
        }
    });
    let contents = archive.contents(&session).expect("is archived");
    assert!(contents.len().is_multiple_of(record.len()), "{} bytes are no whole records", contents.len());
    assert!(contents.chunks(record.len()).all(|chunk| chunk == record));
    assert_eq!(report.counts.losses(), 0, "{:?}", report.losses);
    let (archived, in_the_end) = (contents.len() as u64, fs::metadata(&session).expect("is there").len());
    println!("{archived} of {in_the_end} bytes");
    assert!(in_the_end > archived, "it did not grow");
    proven(&[Promise::Whole], 1, "a session that outgrows its reader");
}

#[test]
fn a_directory_that_gains_a_name_every_millisecond_is_named_and_does_not_keep_the_run() {
    let scene = Scene::new();
    let restless = scene.state().join("restless");
    write_cold(&restless.join("first"), "mine");
    write_cold(&scene.state().join("quiet/file"), "mine");
    let (report, archive) = scene.beside(|stop| {
        for number in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
            write(&restless.join(format!("{number}")), "mine");
            thread::sleep(Duration::from_millis(1));
        }
    });
    // Between two names there may be a moment of rest; if there was none, the directory is named, and no other. Where the
    // clock is coarse, so are the files that came just before.
    let named: Vec<&Path> = report.restless.iter().map(|restless| restless.path.as_path()).collect();
    match report.consistent {
        Some(Consistency::Instant) => assert!(named.is_empty()),
        _ => assert!(named.contains(&&*restless) && named.iter().all(|path| path.starts_with(&restless)), "{named:?}"),
    }
    assert!(archive.contents(&scene.state().join("quiet/file")).is_some());
    proven(&[Promise::Instant], 1, "a directory that never rests");
}

#[test]
fn files_that_shrink_to_nothing_and_grow_again_are_whole_or_named() {
    let scene = Scene::new();
    let sessions = scene.state().join("agents/main/sessions");
    let long = "{\"said\":\"much\"}\n".repeat(200_000);
    let names: Vec<PathBuf> = (0..6).map(|number| sessions.join(format!("{number}.jsonl"))).collect();
    names.iter().for_each(|name| write_cold(name, &long));
    let mut files = 0;
    for _ in 0..10 {
        let (report, archive) = scene.beside(|stop| {
            for number in (0_usize..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                let file = OpenOptions::new().write(true).open(&names[number % names.len()]).expect("opens");
                let length = if (number / names.len()).is_multiple_of(2) { 0 } else { long.len() as u64 };
                file.set_len(length).expect("cuts");
                thread::sleep(Duration::from_micros(300));
            }
        });
        let torn: Vec<&[u8]> = report.losses.iter().map(|fated| &*fated.path.0).collect();
        for name in &names {
            let contents = archive.contents(name).expect("has a fate");
            let is_named = torn.contains(&name.as_os_str().as_encoded_bytes());
            // As it was at some time: written, cut, or grown again with zeros.
            let was = contents.is_empty() || contents == long.as_bytes() || contents.iter().all(|byte| *byte == 0);
            assert!(was || is_named, "{} is torn, and nobody says so", name.display());
            files += 1;
        }
        names.iter().for_each(|name| write_cold(name, &long));
    }
    proven(&[Promise::Whole], files, "files that shrink while they are read");
}

#[test]
fn the_longest_name_of_the_worst_bytes_goes_there_and_back() {
    let scene = Scene::new();
    let names = ["\n".repeat(255), "\u{7f}\u{1b}[2J".repeat(40), " ".repeat(255), "-".repeat(255), "\\".repeat(255)];
    for name in &names {
        write_cold(&scene.state().join(name).join(name), name);
    }
    assert_there_and_back(&scene, names.len());
    proven(&[Promise::Whole, Promise::Fate], names.len() as u64, "names of the worst bytes");
}

#[test]
fn a_tree_deeper_than_any_path_goes_there_and_back() {
    let depth = std::env::var("CLAWSNAP_DEPTH").map_or(2_500, |told| told.parse().expect("a number"));
    let scene = Scene::new();
    fs::create_dir_all(scene.state()).expect("makes");
    let mut dir = open(&scene.state());
    for _ in 0..depth {
        sys::mkdirat(&dir, "d", Mode::RWXU).expect("makes");
        dir = sys::openat(&dir, "d", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("opens");
    }
    let file = sys::openat(&dir, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR | Mode::WUSR).expect("makes");
    fs::File::from(file).write_all(b"mine").expect("writes");
    let names_before = sys::fstat(&dir).expect("is there").st_nlink;
    let archive = scene.path("a.tar");
    let report = Backup::of(&scene.state()).to(&archive);
    assert_eq!((report.exit_code(), report.counts.directories), (0, depth + 1), "{:?}", report.losses.first());
    assert_eq!(verdict(&archive).trust, Trust::Proven);
    assert_eq!(leftovers(&scene.path("home")), [] as [PathBuf; 0]);
    assert_eq!(sys::fstat(&dir).expect("is there").st_nlink, names_before);
    let restored = restore(&archive, &RestoreOptions::into_new(scene.path("back")), &gate(), &(), &|_| true);
    assert_eq!(restored.outcome, Ending::Complete, "{:?}", restored.error);
    proven(&[Promise::Whole, Promise::Untouched], depth, "directories below each other");
    // Deeper than any path, for std as well.
    let removed = Command::new("rm").arg("-rf").args(["home", "back"]).current_dir(scene.top.path()).status();
    assert!(removed.expect("runs").success());
}

fn gate() -> Arc<dyn Gate> {
    Arc::new(CancelFlag::new())
}

fn assert_there_and_back(scene: &Scene, files: usize) {
    let archive = scene.path("a.tar");
    let report = Backup::of(&scene.state()).to(&archive);
    assert_eq!((report.exit_code(), report.counts.files), (0, files as u64), "{:?} {:?}", report.error, report.losses);
    let back = scene.path("back");
    let restored = restore(&archive, &RestoreOptions::into_new(back.clone()), &gate(), &(), &|_| true);
    assert_eq!(restored.outcome, Ending::Complete);
    let state = scene.state();
    let below = |root: &Path| -> BTreeMap<PathBuf, (u32, Option<(usize, String)>)> {
        let all = snapshot(root).into_iter();
        all.map(|(path, looks)| (path.strip_prefix(root).expect("is below").to_owned(), (looks.mode, looks.contents)))
            .collect()
    };
    assert_eq!(below(&state), below(&back.join(state.strip_prefix("/").expect("is absolute"))));
}
