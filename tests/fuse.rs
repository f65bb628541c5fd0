//! A source on a filesystem that is ill: it answers EIO or ESTALE about one of its files, or not at all. The first is a
//! loss that is named, and the rest is whole; the second ends the run, which says where, and leaves nothing.

mod proof;
mod sick;
mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fuser::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use proof::{Promise, proven, skipped};
use serde_json::Value;
use sick::{Answer, Call, Sick};
use support::{Archive, leftovers};

const FILES: [(&str, &str); 5] =
    [("a", "first\n"), ("d/b", "ill\n"), ("d/c", "beside\n"), ("e/f/g", "deep\n"), ("z", "last\n")];

/// The calls that can fail, and about what.
const CALLS: [(Call, &str); 6] = [
    (Call::GetAttr, "d/b"),
    (Call::Open, "d/b"),
    (Call::Read, "d/b"),
    (Call::OpenDir, "d"),
    (Call::ReadDir, "d"),
    (Call::ReadDirOn, "d"),
];

/// A filesystem of its own, and a directory for archives.
struct Scene {
    source: Sick,
    top: tempfile::TempDir,
}

impl Scene {
    /// None where nothing can be mounted, which is told.
    fn new() -> Option<Self> {
        Self::with(&FILES)
    }

    fn with(files: &[(&str, impl AsRef<[u8]>)]) -> Option<Self> {
        let top = tempfile::tempdir().expect("a directory");
        fs::create_dir(top.path().join("out")).expect("makes");
        match Sick::mount(&top.path().join("source"), files) {
            Ok(source) => Some(Self { source, top }),
            Err(why) => {
                skipped("a filesystem that is ill", &why);
                None
            }
        }
    }

    fn out(&self) -> PathBuf {
        self.top.path().join("out")
    }

    /// Begins a backup.
    fn create(&self, patience: &str, more: &[&str]) -> Running {
        let words = ["create", "--json", "--compress", "none", "--settle", "200ms", "--patience", patience, "-o"];
        let (out, more) = (self.out(), more.iter().map(OsStr::new));
        let words = words.map(OsStr::new).into_iter().chain([out.as_os_str(), self.source.path().as_os_str()]);
        self.run(&words.chain(more).collect::<Vec<_>>())
    }

    fn run(&self, words: &[&OsStr]) -> Running {
        let said = |name: &str| fs::File::create(self.top.path().join(name)).expect("creates");
        let mut command = Command::new(env!("CARGO_BIN_EXE_clawsnap"));
        command.args(words).stdin(Stdio::null()).process_group(0);
        let child = command.stdout(said("report")).stderr(said("said")).spawn().expect("runs");
        Running { child, top: self.top.path().to_owned() }
    }

    /// What is in the directory for archives.
    fn made(&self) -> Vec<PathBuf> {
        fs::read_dir(self.out()).expect("lists").map(|entry| entry.expect("an entry").path()).collect()
    }

    /// A backup that goes well; returns the archive, and removes it.
    fn backup(&self, more: &[&str]) -> Archive {
        let ran = self.create("2s", more).ends_within(Duration::from_secs(60)).expect("ends");
        assert_eq!(ran.status.code(), Some(0), "{}", ran.said);
        self.only_archive()
    }

    fn only_archive(&self) -> Archive {
        let [path] = &self.made()[..] else { panic!("{:?}", self.made()) };
        let archive = Archive::read(path);
        let verify = Command::new(env!("CARGO_BIN_EXE_clawsnap")).arg("verify").arg(path).output().expect("runs");
        assert!(matches!(verify.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&verify.stdout));
        fs::remove_file(path).expect("removes");
        archive
    }

    /// The files that are whole in an archive.
    fn whole(&self, archive: &Archive) -> Vec<&'static str> {
        let is_whole = |(path, contents): &&(&str, &str)| {
            archive.contents(&self.source.path().join(path)) == Some(contents.as_bytes())
        };
        FILES.iter().filter(is_whole).map(|(path, _)| *path).collect()
    }
}

struct Running {
    child: Child,
    top: PathBuf,
}

/// A run that has ended.
struct Ran {
    status: ExitStatus,
    report: Value,
    said: String,
}

impl Running {
    fn said(&self) -> String {
        fs::read_to_string(self.top.join("said")).expect("reads")
    }

    /// Nothing if it goes on for longer.
    fn ends_within(mut self, limit: Duration) -> Option<Ran> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("is ours") {
                let read = |name: &str| fs::read_to_string(self.top.join(name)).expect("reads");
                let report = serde_json::from_str(&read("report")).unwrap_or_default();
                return Some(Ran { status, report, said: read("said") });
            }
            if begun.elapsed() > limit {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn errors() -> [(Errno, &'static str); 2] {
    [(Errno::EIO, "Input/output error"), (Errno::ESTALE, "Stale file handle")]
}

#[test]
fn what_an_ill_filesystem_refuses_is_lost_by_name_and_the_rest_is_whole() {
    let Some(scene) = Scene::new() else { return };
    let mut trials = 0;
    for ((call, path), (errno, words)) in CALLS.into_iter().flat_map(|call| errors().map(|error| (call, error))) {
        scene.source.fall_ill(call, path, Answer::Errno(errno));
        let ran = scene.create("2s", &[]).ends_within(Duration::from_secs(60)).expect("ends");
        scene.source.get_well();
        let what = format!("{call:?} {path} {words}: {} {}", ran.report, ran.said);
        assert_eq!(ran.status.code(), Some(3), "{what}");
        let losses = ran.report["losses"].as_array().expect("is a list");
        let named =
            |loss: &&Value| Path::new(loss["path"].as_str().unwrap_or_default()) == scene.source.path().join(path);
        let loss = losses.iter().find(named).unwrap_or_else(|| panic!("it is not named: {what}"));
        assert!(loss["reason"].as_str().is_some_and(|reason| reason.contains(words)), "{what}");
        let whole = scene.whole(&scene.only_archive());
        let expected: Vec<&str> = FILES.iter().map(|(name, _)| *name).filter(|name| !name.starts_with(path)).collect();
        assert!(expected.iter().all(|name| whole.contains(name)), "{whole:?}: {what}");
        trials += 1;
    }
    proven(&[Promise::Whole, Promise::Fate], trials, "fuse, errors");
}

/// What a directory told before it was gone for good, by its own words, is not known to have left: it is lost, each by name.
#[test]
fn what_a_directory_told_before_it_went_stale_is_lost_by_name() {
    let Some(scene) = Scene::new() else { return };
    scene.source.fall_ill(Call::ReadDirOn, "d", Answer::Errno(Errno::ESTALE));
    let ran = scene.create("2s", &[]).ends_within(Duration::from_secs(60)).expect("ends");
    scene.source.get_well();
    let fate = |path: &str| {
        let is_it = |loss: &&Value| loss["path"] == scene.source.path().join(path).to_str().expect("is UTF-8");
        ran.report["losses"].as_array()?.iter().find(is_it)?["fate"].as_str()
    };
    assert_eq!(["d", "d/b", "d/c"].map(fate), [Some("hollow"), Some("lost"), Some("lost")], "{}", ran.report);
}

/// A name that goes and comes back while a directory is read can be read twice (seen on XFS, in directories that take
/// several calls): the archive had it twice, and was not proven.
#[test]
fn a_name_that_is_listed_twice_is_archived_once() {
    let Some(scene) = Scene::new() else { return };
    scene.source.fall_ill(Call::ReadDir, "d", Answer::Twice);
    let listed = fs::read_dir(scene.source.path().join("d")).expect("lists").count();
    let archive = scene.backup(&[]);
    let names = FILES.iter().filter(|(path, _)| path.starts_with("d/")).count();
    assert_eq!(listed, 2 * names);
    assert_eq!(scene.whole(&archive).len(), FILES.len());
}

/// A run on NFS or FUSE used to wait for ever, and so did the next one that cron began.
#[test]
fn a_filesystem_that_hangs_ends_the_run_which_says_where_and_publishes_nothing() {
    let cases: Vec<_> = CALLS.into_iter().chain([(Call::GetAttr, ""), (Call::OpenDir, "")]).collect();
    let trials = std::thread::scope(|scope| {
        let running: Vec<_> = cases.into_iter().map(|(call, path)| scope.spawn(move || hangs(call, path))).collect();
        running.into_iter().filter_map(|case| case.join().expect("holds")).count()
    });
    if trials > 0 {
        proven(&[Promise::Name], trials as u64, "fuse, hangs");
    }
}

/// Nothing where nothing can be mounted.
fn hangs(call: Call, path: &str) -> Option<()> {
    let scene = Scene::new()?;
    scene.source.fall_ill(call, path, Answer::Silence);
    let ran = scene.create("2s", &[]).ends_within(Duration::from_secs(30));
    let made = scene.made();
    assert!(scene.source.waiting() > 0, "{call:?} {path}: nobody waits");
    scene.source.get_well();
    let ran = ran.unwrap_or_else(|| panic!("{call:?} {path}: it goes on"));
    let what = format!("{call:?} {path}: {} {}", ran.report, ran.said);
    assert_eq!((ran.status.code(), &ran.report["outcome"]), (Some(1), &"failed".into()), "{what}");
    let place = scene.source.path().join(path);
    let place = place.to_str().expect("is UTF-8").trim_end_matches('/');
    assert!(ran.said.contains(&format!("{place} has not come back")), "{what}");
    assert!(made.iter().all(|path| !path.to_string_lossy().ends_with(".tar")), "{made:?}");
    // The hang is over, and with it the deputy.
    let waited = ["--wait", "10s"];
    assert_eq!(scene.whole(&scene.backup(&waited)).len(), FILES.len(), "the next run succeeds: {what}");
    assert_eq!(leftovers(scene.top.path()), [] as [PathBuf; 0], "{what}");
    assert_eq!(leftovers(&scene.out()), [] as [PathBuf; 0], "{what}");
    Some(())
}

#[test]
fn a_signal_reaches_a_run_that_waits_for_a_filesystem_and_it_cleans_up_when_that_answers() {
    let Some(scene) = Scene::new() else { return };
    scene.source.fall_ill(Call::Read, "d/b", Answer::Silence);
    let running = scene.create("1m", &[]);
    let begun = Instant::now();
    while scene.source.waiting() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody waits");
        std::thread::sleep(Duration::from_millis(5));
    }
    // To all its processes, as systemd does.
    killpg(Pid::from_raw(running.child.id().cast_signed()), Signal::SIGTERM).expect("sends");
    std::thread::sleep(Duration::from_millis(300));
    scene.source.get_well();
    let ran = running.ends_within(Duration::from_secs(30)).expect("ends");
    assert_eq!((ran.status.signal(), &ran.report["outcome"]), (Some(15), &"cancelled".into()), "{}", ran.said);
    assert_eq!(scene.made(), [] as [PathBuf; 0]);
    assert_eq!(leftovers(scene.top.path()), [] as [PathBuf; 0]);
}

/// Its helper could not be ended, and the run waited for that.
#[test]
fn a_database_on_a_filesystem_that_hangs_is_torn_by_name_and_the_run_ends() {
    let database = database();
    let Some(scene) = Scene::with(&[("a", &b"first\n"[..]), ("d/jobs.sqlite", &database)]) else { return };
    scene.source.fall_ill(Call::ReadOn, "d/jobs.sqlite", Answer::Silence);
    let ran = scene.create("1m", &["--sqlite-timeout", "100ms"]).ends_within(Duration::from_secs(60));
    assert!(scene.source.waiting() > 0, "the helper does not wait");
    let archive = scene.only_archive();
    scene.source.get_well();
    let ran = ran.expect("ends");
    let what = format!("{} {}", ran.report, ran.said);
    assert_eq!((ran.status.code(), &ran.report["losses"][0]["fate"]), (Some(3), &"torn".into()), "{what}");
    let reason = ran.report["losses"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("its helper said nothing for 10 s"), "{what}");
    assert_eq!(archive.contents(&scene.source.path().join("d/jobs.sqlite")), Some(&*database), "the bytes are there");
    proven(&[Promise::Fate], 1, "fuse, a database that hangs");
}

/// One of more than a page.
fn database() -> Vec<u8> {
    let top = tempfile::tempdir().expect("a directory");
    let path = top.path().join("jobs.sqlite");
    let database = rusqlite::Connection::open(&path).expect("opens");
    database.execute_batch("CREATE TABLE jobs (words); INSERT INTO jobs VALUES (zeroblob(50000));").expect("is filled");
    database.close().expect("closes");
    fs::read(path).expect("reads")
}

/// It waited for ever, `--patience` or not: what looked at the output asked nobody before.
#[test]
fn an_output_on_a_filesystem_that_hangs_ends_the_run_which_says_where() {
    std::thread::scope(|scope| {
        for (call, path) in [(Call::GetAttr, ""), (Call::GetAttr, "d"), (Call::GetAttr, "a")] {
            for verb in [&["create"][..], &["create", "--dry-run"], &["create", "--keep-last=1"]] {
                scope.spawn(move || output_hangs(call, path, verb));
            }
        }
    });
}

fn output_hangs(call: Call, path: &str, verb: &[&str]) {
    let Some(scene) = Scene::new() else { return };
    let output = scene.source.path().join(path);
    let source = scene.out();
    fs::write(source.join("a.txt"), "alpha").expect("writes");
    scene.source.fall_ill(call, path, Answer::Silence);
    let mut words: Vec<&OsStr> = verb.iter().map(OsStr::new).collect();
    words.extend(["--patience", "2s", "-o"].map(OsStr::new));
    words.extend([output.as_os_str(), source.as_os_str()]);
    let ran = scene.run(&words).ends_within(Duration::from_secs(30));
    assert!(scene.source.waiting() > 0, "{call:?} {path} {verb:?}: nobody waits");
    scene.source.get_well();
    let ran = ran.unwrap_or_else(|| panic!("{call:?} {path} {verb:?}: it goes on"));
    assert_eq!(ran.status.code(), Some(1), "{call:?} {path} {verb:?}: {}", ran.said);
    let place = output.to_str().expect("is UTF-8").trim_end_matches('/').to_owned();
    assert!(ran.said.contains(&place) && ran.said.contains(" has not come back"), "{verb:?} {}", ran.said);
    assert_eq!(leftovers(scene.top.path()), [] as [PathBuf; 0], "{}", ran.said);
}

/// An archive is read to be judged, and to be restored.
#[test]
fn an_archive_on_a_filesystem_that_hangs_ends_the_run_that_reads_it() {
    let archive = "clawsnap-20231114T221320Z.tar";
    std::thread::scope(|scope| {
        for call in [Call::Open, Call::Read] {
            scope.spawn(move || {
                let Some(scene) = Scene::with(&[(archive, [0; 4096])]) else { return };
                scene.source.fall_ill(call, archive, Answer::Silence);
                let source = scene.out();
                let words = ["create", "--dry-run", "--keep-last=1", "--patience", "2s", "-o"].map(OsStr::new);
                let words: Vec<&OsStr> =
                    words.into_iter().chain([scene.source.path().as_os_str(), source.as_os_str()]).collect();
                let ran = scene.run(&words).ends_within(Duration::from_secs(30));
                assert!(scene.source.waiting() > 0, "{call:?}: nobody waits");
                scene.source.get_well();
                let ran = ran.unwrap_or_else(|| panic!("{call:?}: it goes on"));
                let told = format!("{archive} has not come back");
                assert!(ran.status.code() == Some(1) && ran.said.contains(&told), "{call:?}: {}", ran.said);
            });
        }
    });
}

/// `status` and the others waited for ever, deaf to SIGTERM: no mail, no metrics, and each hour one more of them.
#[test]
fn whoever_looks_after_archives_on_a_filesystem_that_hangs_says_so_and_ends() {
    let archive = "clawsnap-20231114T221320Z.tar";
    std::thread::scope(|scope| {
        for verb in ["status", "prune --keep-last 1", "verify", "list", "list --sessions", "restore"] {
            for call in [Call::Open, Call::GetAttr] {
                scope.spawn(move || looking_hangs(call, archive, verb));
            }
        }
    });
}

fn looking_hangs(call: Call, archive: &str, verb: &str) {
    let Some(scene) = Scene::with(&[(archive, [0; 4096])]) else { return };
    scene.source.fall_ill(call, archive, Answer::Silence);
    let (place, metrics, back) = (scene.source.path().to_owned(), scene.out().join("m.prom"), scene.out().join("back"));
    let is_status = verb == "status";
    let more = match verb {
        "status" => Some(["--metrics".as_ref(), metrics.as_os_str()]),
        "restore" => Some(["--target".as_ref(), back.as_os_str()]),
        _ => None,
    };
    let place = if is_status || verb.starts_with("prune") { place } else { place.join(archive) };
    let words = verb.split(' ').chain(["--patience", "2s"]).map(OsStr::new).chain([place.as_os_str()]);
    let ran =
        scene.run(&words.chain(more.into_iter().flatten()).collect::<Vec<_>>()).ends_within(Duration::from_secs(30));
    assert!(scene.source.waiting() > 0, "{call:?} {verb}: nobody waits");
    scene.source.get_well();
    let ran = ran.unwrap_or_else(|| panic!("{call:?} {verb}: it goes on"));
    let told = format!("{archive} has not come back");
    assert!(ran.status.code() == Some(1) && ran.said.contains(&told), "{call:?} {verb}: {}", ran.said);
    let metrics = fs::read_to_string(metrics).unwrap_or_default();
    assert_eq!(metrics.contains("clawsnap_directory_readable{") && metrics.contains("} 0\n"), is_status, "{metrics}");
}

/// They waited for ever.
#[test]
fn a_restore_to_and_a_sweep_of_a_filesystem_that_hangs_say_so_and_end() {
    std::thread::scope(|scope| {
        for (call, verb) in [
            (Call::ReadDir, "restore --target HANGING/new"),
            (Call::MakeDir, "restore --target HANGING/new"),
            (Call::MakeDir, "restore --in-place --map PLAIN/notes=HANGING/notes"),
            (Call::GetAttr, "sweep HANGING"),
            (Call::ReadDir, "sweep --output HANGING PLAIN/notes"),
        ] {
            scope.spawn(move || acting_hangs(call, verb));
        }
    });
}

fn acting_hangs(call: Call, verb: &str) {
    let Some(scene) = Scene::new() else { return };
    let (hanging, plain) = (scene.source.path().to_owned(), scene.top.path().canonicalize().expect("resolves"));
    fs::create_dir(plain.join("notes")).expect("makes");
    fs::write(plain.join("notes/a.txt"), "alpha").expect("writes");
    let archive = plain.join("a.tar");
    let made = ["create".as_ref(), "--output".as_ref(), archive.as_os_str(), plain.join("notes").as_os_str()]
        .map(OsStr::to_owned);
    let made = scene.run(&made.iter().map(|word| &**word).collect::<Vec<_>>()).ends_within(Duration::from_secs(60));
    assert_eq!(made.map(|ran| ran.status.code()), Some(Some(0)));
    scene.source.fall_ill(call, "", Answer::Silence);
    let place = |path: &Path| path.to_str().expect("is UTF-8").to_owned();
    let typed = verb.replace("HANGING", &place(&hanging)).replace("PLAIN", &place(&plain));
    let words = typed.split(' ').chain(["--patience", "2s"]).map(OsStr::new);
    let is_restore = verb.starts_with("restore");
    let ran = scene.run(&words.chain(is_restore.then_some(archive.as_os_str())).collect::<Vec<_>>());
    let ran = ran.ends_within(Duration::from_secs(30));
    assert!(scene.source.waiting() > 0, "{call:?} {verb}: nobody waits: {:?}", ran.map(|ran| ran.said));
    scene.source.get_well();
    let ran = ran.unwrap_or_else(|| panic!("{call:?} {verb}: it goes on"));
    let told = ran.said.contains(" has not come back") && ran.said.contains(&place(&hanging));
    assert!(ran.status.code() == Some(1) && told, "{call:?} {verb}: {}", ran.said);
    assert_eq!(ran.said.contains("the same command is run again"), verb.contains("--in-place"), "{}", ran.said);
    assert_eq!(leftovers(&plain), [] as [PathBuf; 0], "{call:?} {verb}");
}

/// It was told as a command that was not started.
#[test]
fn a_rollback_that_hangs_is_told_as_one_with_the_way_back_and_the_exit_code_of_the_command() {
    let Some(scene) = Scene::new() else { return };
    let top = scene.top.path();
    let state = scene.source.path().join("d");
    let script = format!("cd '{}'; touch ran; while ! test -e go; do sleep 0.02; done; exit 7", top.display());
    let words = ["guard", "--json", "--rollback", "--settle", "200ms", "--patience", "2s", "-o"].map(OsStr::new);
    let out = scene.out().join("a.tar");
    let more = [out.as_os_str(), state.as_os_str()].into_iter().chain(["--", "sh", "-c", &script].map(OsStr::new));
    let words: Vec<&OsStr> = words.into_iter().chain(more).collect();
    let running = scene.run(&words);
    let begun = Instant::now();
    while !top.join("ran").exists() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it does not start: {}", running.said());
        std::thread::sleep(Duration::from_millis(5));
    }
    scene.source.fall_ill(Call::MakeDir, "", Answer::Silence);
    fs::write(top.join("go"), "").expect("writes");
    let ran = running.ends_within(Duration::from_secs(30));
    assert!(scene.source.waiting() > 0, "nobody waits: {:?}", ran.map(|ran| ran.said));
    scene.source.get_well();
    let ran = ran.expect("ends");
    let what = format!("{} {}", ran.report, ran.said);
    assert_eq!((ran.status.code(), &ran.report["ran"]["exitCode"]), (Some(7), &7.into()), "{what}");
    assert_eq!(
        (&ran.report["verified"], &ran.report["ran"]["rollback"]["done"]),
        (&true.into(), &false.into()),
        "{what}"
    );
    assert!(ran.said.contains("nothing was brought back: making ") && !ran.said.contains("not started"), "{what}");
    assert!(ran.said.contains("has not come back") && ran.said.contains("\nthe way back: "), "{what}");
}
