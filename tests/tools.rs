//! Stock tools read our archives: GNU tar, bsdtar and Python's tarfile, behind stock zstd, xz and gzip.

mod support;
mod tool;

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use support::{Backup, write};
use tool::{Seen, differing, view};

/// What differs, a line each. `precision` is what a tool keeps of times, in nanoseconds.
fn differences(source: &Path, copy: &Path, precision: i128) -> Vec<String> {
    let nanos = |seen: &Seen| i128::from(seen.mtime.0) * 1_000_000_000 + i128::from(seen.mtime.1);
    let same = |a: &Seen, b: &Seen| {
        // What keeps times roughly (Python) keeps none of symbolic links.
        let timely = (nanos(a) - nanos(b)).abs() < precision || (precision > 1 && a.is_symlink());
        timely && (a.mode, &a.contents, &a.same_as) == (b.mode, &b.contents, &b.same_as)
    };
    differing(&view(source), &view(copy), same)
}

/// A tree with all that a tar can hold.
fn rich_tree(top: &Path) -> PathBuf {
    let source = top.join("source");
    write(&source.join("empty"), "");
    write(&source.join("sessions/a.jsonl"), "{\"a\":1}\n");
    write(&source.join("n".repeat(255)), "long name");
    let deep: PathBuf = (0..12).map(|n| format!("{n}-{}", "d".repeat(40))).collect();
    write(&source.join(&deep).join("deep file"), "deep");
    write(&source.join(OsStr::from_bytes(b"not-text-\xff\xfe")), "bytes");
    write(&source.join(&deep).join(OsStr::from_bytes(b"deep-not-text-\xff")), "bytes");
    write(&source.join("two\nlines 'and' \"quotes\" \\ ü"), "odd");
    write(&source.join("noise"), noise(3 << 20));
    write(&source.join("read-only/inside"), "x");
    for (name, mode) in [("setuid", 0o4755), ("sticky", 0o1644), ("closed", 0o000), ("sessions/group", 0o664)] {
        write(&source.join(name), name);
        fs::set_permissions(source.join(name), Permissions::from_mode(mode)).expect("sets the mode");
    }
    fs::hard_link(source.join("noise"), source.join("sessions/z-noise")).expect("links");
    symlink("nowhere/at/all", source.join("dangling")).expect("links");
    symlink("/etc/hostname", source.join("absolute")).expect("links");
    symlink("t".repeat(300), source.join("long target")).expect("links");
    let sparse = File::create(source.join("sparse")).expect("creates");
    sparse.set_len(64 << 20).expect("grows");
    sparse.write_all_at(b"island", 40 << 20).expect("writes");
    let at = |seconds: i64, nanos: u32| match u64::try_from(seconds) {
        Ok(after) => SystemTime::UNIX_EPOCH + Duration::new(after, nanos),
        Err(_) => SystemTime::UNIX_EPOCH - Duration::new(seconds.unsigned_abs(), nanos),
    };
    for (name, time) in
        [("empty", at(1_600_000_000, 123_456_789)), ("noise", at(-86_400, 0)), ("setuid", at(4_000_000_000, 5))]
    {
        let file = File::open(source.join(name)).expect("opens");
        file.set_times(FileTimes::new().set_modified(time)).expect("sets the time");
    }
    fs::set_permissions(source.join("read-only"), Permissions::from_mode(0o555)).expect("sets the mode");
    source
}

/// Bytes that do not compress, the same every time.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn is_installed(tool: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {tool} >/dev/null")]).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        eprintln!("skipped: {tool} is not installed");
    }
    found
}

/// Extracts with a shell command that sees `$A`, the archive, and `$D`, the directory to extract into.
fn extract(archive: &Path, into: &Path, script: &str) {
    fs::create_dir(into).expect("makes");
    let output = Command::new("bash").args(["-o", "pipefail", "-c", script]).env("A", archive).env("D", into).output();
    let output = output.expect("runs");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

const PYTHON: &str = "import sys, tarfile\nwith tarfile.open(fileobj=sys.stdin.buffer, mode='r|') as t:\n    t.extractall(sys.argv[1], filter='fully_trusted')\n";

#[test]
fn stock_tools_give_back_exactly_what_was_archived() {
    let top = tempfile::tempdir().expect("a directory");
    let source = rich_tree(top.path());
    for (ending, unpack) in [("tar", "cat"), ("tar.zst", "zstd"), ("tar.xz", "xz"), ("tar.gz", "gzip")] {
        let archive = top.path().join(format!("a.{ending}"));
        let report = Backup::of(&source).to(&archive);
        assert_eq!(report.exit_code(), 0, "{:?} {:?}", report.error, report.losses);
        if !is_installed(unpack) {
            continue;
        }
        let decode = if unpack == "cat" { "cat \"$A\"".to_owned() } else { format!("{unpack} -dc \"$A\"") };
        let readers = [
            ("tar", format!("{decode} | tar -xp --xattrs -C \"$D\""), 1),
            ("bsdtar", format!("{decode} | bsdtar -xpf - -C \"$D\""), 1),
            ("python3", format!("{decode} | python3 -c \"{PYTHON}\" \"$D\""), 2_000),
        ];
        for (tool, script, precision) in readers.into_iter().filter(|(tool, ..)| is_installed(tool)) {
            let into = top.path().join(format!("{tool}-{unpack}"));
            extract(&archive, &into, &script);
            let below = source.strip_prefix("/").expect("is absolute");
            let copy = into.join(&report.archive_root).join("payload/posix").join(below);
            let wrong = differences(&source, &copy, precision);
            assert!(wrong.is_empty(), "{tool} behind {unpack}: {wrong:#?}");
        }
    }
}

#[test]
fn the_comparison_finds_what_differs() {
    let top = tempfile::tempdir().expect("a directory");
    let (one, two) = (top.path().join("one"), top.path().join("two"));
    let make = |dir: &Path| {
        write(&dir.join("f"), "same");
        fs::hard_link(dir.join("f"), dir.join("g")).expect("links");
        let time = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
        File::open(dir.join("f")).expect("opens").set_times(time).expect("sets the time");
    };
    make(&one);
    make(&two);
    assert_eq!(differences(&one, &two, 1), [] as [String; 0]);
    let breaks: [fn(&Path); 4] = [
        |dir| fs::set_permissions(dir.join("f"), Permissions::from_mode(0o600)).expect("sets the mode"),
        |dir| {
            let time = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(1));
            File::open(dir.join("f")).expect("opens").set_times(time).expect("sets the time");
        },
        |dir| {
            fs::remove_file(dir.join("g")).expect("removes");
            fs::copy(dir.join("f"), dir.join("g")).expect("copies");
        },
        |dir| fs::write(dir.join("new"), "").expect("writes"),
    ];
    for harm in breaks {
        harm(&two);
        assert!(!differences(&one, &two, 1).is_empty());
        fs::remove_dir_all(&two).expect("removes");
        make(&two);
    }
}

#[test]
fn extended_attributes_and_acls_come_back() {
    if !["setfattr", "setfacl", "getfacl", "getfattr", "tar"].into_iter().all(is_installed) {
        return;
    }
    let top = tempfile::tempdir().expect("a directory");
    let source = top.path().join("source");
    write(&source.join("f"), "x");
    let set = "setfattr -n user.note -v 'a\nb' \"$A/f\" && setfacl -m u:1234:r \"$A/f\"";
    let done = Command::new("sh").args(["-c", set]).env("A", &source).status().expect("runs");
    if !done.success() {
        eprintln!("skipped: this filesystem takes no extended attributes");
        return;
    }
    let archive = top.path().join("a.tar");
    let report = Backup::of(&source).to(&archive);
    let into = top.path().join("out");
    extract(&archive, &into, "tar -xpf \"$A\" --xattrs --xattrs-include='*' -C \"$D\"");
    let copy =
        into.join(&report.archive_root).join("payload/posix").join(source.strip_prefix("/").expect("is absolute"));
    let show = "cd \"$A\" && getfattr -n user.note f && getfacl -cn f";
    let shown = |at: &Path| Command::new("sh").args(["-c", show]).env("A", at).output().expect("runs").stdout;
    assert_eq!(String::from_utf8_lossy(&shown(&copy)), String::from_utf8_lossy(&shown(&source)));
}

#[test]
fn the_same_input_gives_the_same_bytes_apart_from_the_report() {
    let top = tempfile::tempdir().expect("a directory");
    let source = rich_tree(top.path());
    let made = |name: &str| {
        let archive = top.path().join(name);
        assert_eq!(Backup::of(&source).at(1_700_000_000).to(&archive).exit_code(), 0);
        let bytes = fs::read(&archive).expect("reads");
        // The report and the manifest come last, and the report holds times; its hash stands in two blocks before it.
        let report = bytes.windows(20).rposition(|part| part == b"clawsnap/report.json").expect("has a report");
        bytes[..report / 512 * 512 - 1024].to_vec()
    };
    let (one, two) = (made("one.tar"), made("two.tar"));
    assert!(one.len() > 3 << 20);
    assert!(one == two, "the payload or the inventory differs");
}
