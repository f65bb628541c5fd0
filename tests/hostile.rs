//! Archives that mean harm, in our own format, and a neighbour who means harm while we restore.
//!
//! Each archive agrees with itself to the last hash, so only the rule that it breaks can refuse it. It must be refused by
//! `verify`, `list` and `restore` alike, and nothing outside of the target may change.

mod proof;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clawsnap::error::Error;
use clawsnap::gate::{CancelFlag, Gate};
use clawsnap::list::{Wanted, list};
use clawsnap::restore::{Ending, RestoreOptions, Restored, restore};
use clawsnap::verify::{Trust, VerifyOptions, verify};
use proof::{Promise, proven};
use support::forge::{Piece, ROOT, forge, own, payload, proofs, written};
use support::{Backup, Looks, differences, leftovers, snapshot, write, write_cold};

/// A place with an outside that nobody may touch, and an inside that is restored to.
struct Scene {
    top: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self::under(&std::env::temp_dir())
    }

    fn under(dir: &Path) -> Self {
        let scene = Self { top: tempfile::tempdir_in(dir).expect("a directory") };
        write_cold(&scene.path("outside/canary"), "sings");
        write_cold(&scene.path("outside/closet/secret"), "sleeps");
        for (name, mode) in [("outside/closet", 0o700), ("outside/canary", 0o600)] {
            fs::set_permissions(scene.path(name), fs::Permissions::from_mode(mode)).expect("sets");
        }
        fs::create_dir(scene.path("inside")).expect("makes");
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    /// All of it, but for what is inside.
    fn outside(&self) -> BTreeMap<PathBuf, Looks> {
        let names = fs::read_dir(self.top.path()).expect("lists").map(|entry| entry.expect("an entry").path());
        names.filter(|path| *path != self.path("inside")).flat_map(|path| snapshot(&path)).collect()
    }

    fn archive(&self, bytes: &[u8]) -> PathBuf {
        let path = self.path("a.tar");
        fs::write(&path, bytes).expect("writes");
        path
    }

    fn restore(&self, archive: &Path) -> Restored {
        let options = RestoreOptions { tails: true, ..RestoreOptions::into_new(self.path("inside/back")) };
        restore(archive, &options, &gate(), &(), &|_| true)
    }

    /// The archive is refused by everybody, for this reason, and nothing came of it.
    fn assert_refused(&self, what: &str, bytes: &[u8], why: &str) {
        let archive = self.archive(bytes);
        let before = self.outside();
        let verdict = verify(&archive, &VerifyOptions::default(), &gate(), &());
        let error = verdict.error.unwrap_or_default();
        assert!(verdict.trust == Trust::Unproven && error.contains(why), "{what}: verify: {:?} {error}", verdict.trust);
        let listed = list(&archive, &Wanted::default(), &gate(), &(), &mut |_| Ok(()));
        assert!(matches!(&listed, Err(Error::Unproven(said)) if *said == error), "{what}: list: {listed:?}");
        let restored = self.restore(&archive);
        let said = restored.error.unwrap_or_default();
        assert!(
            restored.outcome == Ending::Unproven && said == error,
            "{what}: restore: {:?} {said}",
            restored.outcome
        );
        assert_eq!(differences(&before, &self.outside()), [] as [String; 0], "{what}");
        assert_eq!(fs::read_dir(self.path("inside")).expect("lists").count(), 0, "{what}: something is left inside");
    }

    /// The archive means no harm: it is proven, and restored where it should be. Returns where.
    fn assert_restored(&self, what: &str, bytes: &[u8]) -> (PathBuf, Restored) {
        let archive = self.archive(bytes);
        let before = self.outside();
        let verdict = verify(&archive, &VerifyOptions::default(), &gate(), &());
        assert_eq!((verdict.trust, verdict.error), (Trust::Proven, None), "{what}");
        let restored = self.restore(&archive);
        assert!(matches!(restored.outcome, Ending::Complete | Ending::Different), "{what}: {:?}", restored.error);
        assert_eq!(differences(&before, &self.outside()), [] as [String; 0], "{what}");
        (self.path("inside/back"), restored)
    }
}

fn gate() -> Arc<dyn Gate> {
    Arc::new(CancelFlag::new())
}

/// Each of these, in the company of a directory, a file before it and a file behind it, is refused for its reason.
fn assert_all_refused(cases: Vec<(&str, Vec<Piece>, &str)>) {
    let scene = Scene::new();
    let count = cases.len();
    for (what, pieces, why) in cases {
        let company = [Piece::dir("s"), Piece::file("s/a", "a")];
        let pieces: Vec<Piece> = company.into_iter().chain(pieces).chain([Piece::file("s/z", "z")]).collect();
        scene.assert_refused(what, &forge(&pieces), why);
    }
    println!("{count} archives refused");
}

#[test]
fn what_agrees_with_itself_and_breaks_no_rule_is_restored() {
    let scene = Scene::new();
    let pieces = [
        Piece::dir("s"),
        Piece::file("s/a", "a"),
        Piece::hard_link("s/b", payload("s/a")),
        Piece::file("s/c", "{}\n").told(|line| line["tail"] = 3.into()),
        Piece::symlink("s/l", &scene.path("outside")),
        Piece::file("s/suid", "x").mode(0o4755),
        Piece::file("s/x", "x").xattr(b"user.note", b"n").record("mtime", "7.500000000").told(|line| {
            line["mtime"] = "7.500000000".into();
        }),
        Piece::tail("s/c", "{\"h"),
    ];
    let (back, restored) = scene.assert_restored("no harm", &forge(&pieces));
    assert_eq!((restored.files, restored.directories), (7, 1), "{restored:?}");
    assert_eq!(fs::read(back.join("s/c.tail")).expect("reads"), b"{\"h");
    let root = fs::metadata("/proc/self").expect("is there").uid() == 0;
    let mode = fs::metadata(back.join("s/suid")).expect("is there").mode() & 0o7777;
    assert_eq!((mode, restored.differences.len()), if root { (0o4755, 0) } else { (0o755, 1) }, "{restored:?}");
}

#[test]
fn names_that_lead_away_or_are_none_are_refused() {
    let file = |path: &str| vec![Piece::file("", "x").at(path)];
    let below = |path: &str| file(&payload(path));
    let outside = Scene::new();
    let absolute = outside.path("outside/x").to_string_lossy().into_owned();
    let long = format!("s/{}x", "d/".repeat(100_000));
    assert_all_refused(vec![
        ("climbs", below("s/../../../../outside/x"), "no plain path"),
        ("climbs at its end", below("s/.."), "no plain path"),
        ("climbs at its start", file("../outside/x"), "outside the root"),
        ("absolute", file(&absolute), "outside the root"),
        ("absolute in a record", vec![Piece::file("s/b", "x").record("path", &absolute)], "outside the root"),
        ("another root", file("other-clawsnap-backup/payload/posix/s/b"), "outside the root"),
        ("no root", file("x"), "beside the root"),
        ("the root alone", file(ROOT), "beside the root"),
        ("an empty part", below("s//b"), "no plain path"),
        ("a dot", below("s/./b"), "no plain path"),
        ("a zero byte", vec![Piece::file("", "x").at(payload("s/b\0c"))], "no plain path"),
        ("a file with a slash", below("s/b/"), "named as what it is not"),
        ("a directory without one", vec![Piece::dir("s/b").record("path", &payload("s/b"))], "named as what it is not"),
        ("beside the payload", file(&format!("{ROOT}/b")), "nothing that belongs there"),
        ("above the payload", vec![Piece::dir("").at(format!("{ROOT}/payload/posix"))], "nothing that belongs there"),
        ("beside our own", file(&format!("{ROOT}/clawsnap/b")), "nothing that belongs there"),
        ("twice", below("s/a"), "comes twice"),
        ("out of order", vec![Piece::file("s/c", "c"), Piece::file("s/b", "b")], "out of order"),
        ("beneath a file", below("s/a/x"), "lies in no directory"),
        ("beneath nothing", below("s/none/x"), "lies in no directory"),
        ("a file that becomes a directory", vec![Piece::dir("s/a")], "comes twice"),
        (
            "a source deeper than any path",
            vec![Piece::file("t", "t"), Piece::file(&format!("t{long}"), "x")],
            "lies in no directory",
        ),
    ]);
}

#[test]
fn nothing_lies_beneath_a_symbolic_link() {
    let scene = Scene::new();
    let link = |path: &str, to: &str| Piece::symlink(path, &scene.path(to));
    assert_all_refused(vec![
        ("a file", vec![link("s/l", "outside"), Piece::file("s/l/x", "x")], "lies in no directory"),
        ("a file over another", vec![link("s/l", "outside"), Piece::file("s/l/canary", "x")], "lies in no directory"),
        ("a directory", vec![link("s/l", "outside"), Piece::dir("s/l/closet").mode(0o777)], "lies in no directory"),
        ("a link", vec![link("s/l", "outside"), link("s/l/m", "inside")], "lies in no directory"),
        ("two links deep", vec![link("s/l", "outside"), Piece::file("s/l/closet/x", "x")], "lies in no directory"),
        ("the link becomes a directory", vec![link("s/l", "outside"), Piece::dir("s/l").mode(0o777)], "comes twice"),
        ("the link becomes a file", vec![link("s/l", "outside/canary"), Piece::file("s/l", "x")], "comes twice"),
        (
            "in a record",
            vec![link("s/l", "outside"), Piece::file("s/m", "x").record("path", &payload("s/l/x"))],
            "lies in no directory",
        ),
        ("no target", vec![Piece::symlink("s/l", Path::new(""))], "leads nowhere"),
        ("a zero byte", vec![Piece { link: b"a\0b".to_vec(), ..Piece::odd(b'2', "s/l") }], "leads nowhere"),
        ("a link that has contents", vec![link("s/l", "outside").holding("x")], "larger than a symlink"),
        ("a file that leads somewhere", vec![Piece { link: b"a".to_vec(), ..Piece::file("s/l", "") }], "is no link"),
    ]);
}

#[test]
fn a_hard_link_leads_to_a_file_before_it_and_nowhere_else() {
    let scene = Scene::new();
    let hard = |target: &str| vec![Piece::hard_link("s/b", target)];
    let to = |path: &str| hard(&payload(path));
    let canary = scene.path("outside/canary");
    let leading = |first: Piece| vec![first, Piece::hard_link("s/c", payload("s/b"))];
    assert_all_refused(vec![
        ("an absolute path", hard(&canary.to_string_lossy()), "outside the root"),
        ("a path that climbs", hard("../../outside/canary"), "outside the root"),
        ("a path that climbs from the root", hard(&format!("{ROOT}/../../outside/canary")), "no file before it"),
        ("a path that climbs from the payload", to("s/../../outside/canary"), "no file before it"),
        ("up", to("s/.."), "no file before it"),
        ("nothing", to("s/none"), "no file before it"),
        ("nowhere", hard(""), "leads nowhere"),
        ("a zero byte", vec![Piece::hard_link("s/b", format!("{}\0", payload("s/a")))], "no file before it"),
        ("a directory", to("s"), "no file before it"),
        ("itself", to("s/b"), "no file before it"),
        ("a later file", to("s/z"), "no file before it"),
        ("a link out", leading(Piece::symlink("s/b", &canary)), "no file before it"),
        ("a hard link", vec![to("s/a").remove(0), Piece::hard_link("s/c", payload("s/b"))], "no file before it"),
        ("the inventory", hard(&format!("{ROOT}/clawsnap/inventory.jsonl")), "no file before it"),
        ("the manifest", hard(&format!("{ROOT}/manifest.json")), "no file before it"),
        ("a link that has contents", vec![to("s/a").remove(0).holding("x")], "larger than a hardlink"),
    ]);
}

#[test]
fn kinds_that_we_never_write_are_refused() {
    let kinds = b"346789gLKSDMNVXAEZ\xff";
    assert_all_refused(
        kinds.iter().map(|kind| ("a kind", vec![Piece::odd(*kind, "s/b")], "a kind that we never write")).collect(),
    );
    let long_name = Piece::odd(b'L', "").at("././@LongLink").holding("s/b\0");
    let global = Piece::odd(b'g', "").at("pax_global_header").holding("16 path=/etc/me\n");
    let sparse = Piece::file("s/b", "x").record("GNU.sparse.major", "1").record("GNU.sparse.name", "s/c");
    assert_all_refused(vec![
        ("a fifo with a record", vec![Piece::odd(b'6', "s/b").xattr(b"user.a", b"")], "a kind that we never write"),
        ("a long name of GNU's", vec![long_name], "outside the root"),
        ("a global header", vec![global], "beside the root"),
        ("a sparse file of POSIX", vec![sparse], "PAX records that we never write"),
        ("another record", vec![Piece::file("s/b", "x").record("SCHILY.dev", "1")], "PAX records that we never write"),
        ("a comment", vec![Piece::file("s/b", "x").record("comment", "hello")], "has a comment"),
        ("a record twice", vec![Piece::file("s/b", "x").record("uid", "0").record("uid", "0")], "never write"),
        (
            "two records of one entry",
            vec![Piece::odd(b'x', "s/b").holding("8 uid=1\n"), Piece::odd(b'x', "s/b")],
            "no entry",
        ),
    ]);
}

#[test]
fn a_length_is_told_once_and_in_one_way() {
    let sized = |header: fn(&mut tar::Header)| vec![Piece::file("s/b", vec![b'x'; 512]).header(header)];
    let huge = vec![
        Piece::file("s/b", "")
            .header(|header| header.set_size(1 << 63))
            .told(|line| line["size"] = (1_u64 << 63).into()),
    ];
    let record = |contents: usize, told: &str| vec![Piece::file("s/b", vec![0; contents]).record("size", told)];
    assert_all_refused(vec![
        ("2^63", huge, "larger than a file can be"),
        ("2^64-1", sized(|header| header.set_size(u64::MAX)), "larger than a file can be"),
        ("2^63 in a record", record(512, "9223372036854775808"), "two lengths"),
        ("longer in a record", record(0, "512"), "two lengths"),
        ("shorter in a record", record(1024, "0"), "two lengths"),
        ("a record with a zero before it", record(512, "0512"), "two lengths"),
        ("a record with a sign", record(512, "+512"), "two lengths"),
        ("more than is there", sized(|header| header.set_size(1 << 40)), "cut"),
        ("a directory that has contents", vec![Piece::dir("s/b").holding("x")], "larger than a directory"),
        ("binary", sized(|header| header.as_old_mut().size = *b"\x80\0\0\0\0\0\0\0\0\0\x02\0"), "header is damaged"),
        (
            "binary beyond 64 bits",
            sized(|header| header.as_old_mut().size = *b"\x80\x01\0\0\0\0\0\0\0\0\x02\0"),
            "header is damaged",
        ),
        ("with spaces", sized(|header| header.as_old_mut().size = *b"       1000\0"), "header is damaged"),
        ("with something behind", sized(|header| header.as_old_mut().size = *b"00001000\x00777"), "header is damaged"),
        ("the old kind of file", sized(|header| header.as_old_mut().linkflag = [0]), "header is damaged"),
        (
            "GNU's kind of header",
            sized(|header| header.as_old_mut().pad[..8].copy_from_slice(b"ustar  \0")),
            "header is damaged",
        ),
    ]);
}

#[test]
fn a_mode_an_owner_a_time_and_an_attribute_are_what_they_can_be() {
    let record = |key: &str, value: &str| vec![Piece::file("s/b", "x").record(key, value)];
    let beyond = "170141183460469231731687303715884105727.000000000";
    assert_all_refused(vec![
        ("a mode with a kind", vec![Piece::file("s/b", "x").mode(0o104_755)], "no permissions"),
        ("an owner beyond all", record("uid", "4294967296"), "an owner is no number"),
        ("an owner below all", record("gid", "-1"), "an owner is no number"),
        ("an owner with a sign", record("uid", "+0"), "an owner is no number"),
        ("a time beyond all numbers", record("mtime", beyond), "has no time"),
        ("a time below all numbers", record("mtime", &format!("-{beyond}")), "has no time"),
        ("a time of another form", record("mtime", "5"), "has no time"),
        ("an attribute without a name", vec![Piece::file("s/b", "x").xattr(b"", b"v")], "never write"),
        ("an attribute with a zero byte", vec![Piece::file("s/b", "x").xattr(b"user.\0", b"v")], "never write"),
        ("an attribute of two spellings", vec![Piece::file("s/b", "x").xattr(b"user.%41", b"v")], "never write"),
    ]);
}

#[test]
fn an_inventory_that_tells_otherwise_is_refused_though_all_hashes_agree() {
    let told = |line: fn(&mut serde_json::Value)| vec![Piece::file("s/b", "x").told(line)];
    let link = |line: fn(&mut serde_json::Value)| vec![Piece::hard_link("s/b", payload("s/a")).told(line)];
    const OTHER: &str = "is not what the inventory says";
    assert_all_refused(vec![
        ("another path", told(|line| line["path"] = "payload/posix/s/c".into()), OTHER),
        ("another kind", told(|line| line["kind"] = "directory".into()), OTHER),
        ("another length", told(|line| line["size"] = 2.into()), OTHER),
        ("another mode", told(|line| line["mode"] = 0o4755.into()), OTHER),
        ("another owner", told(|line| line["uid"] = 1.into()), OTHER),
        ("another group", told(|line| line["gid"] = 1.into()), OTHER),
        ("another time", told(|line| line["mtime"] = "1.000000000".into()), OTHER),
        ("a link that is none", told(|line| line["link"] = "payload/posix/s/a".into()), OTHER),
        ("other contents", told(|line| line["blake3"] = "00".into()), OTHER),
        ("no contents", told(|line| line["blake3"] = serde_json::Value::Null), OTHER),
        ("an attribute that is none", told(|line| line["xattrs"] = "00".into()), OTHER),
        ("another target", link(|line| line["link"] = "payload/posix/s/z".into()), OTHER),
        ("an entry that is not told", told(|line| *line = serde_json::Value::Null), OTHER),
        ("no line at all", told(|line| *line = 5.into()), "inventory: "),
        ("a name that is none", told(|line| line["path"] = serde_json::json!({"hex": "f"})), "a name that is none"),
        ("a record that is missing", told(|line| line["tail"] = 3.into()), "is missing"),
        ("a record of no file", vec![Piece::file("s/b", "x"), Piece::tail("s/b", "x")], "cut off no file"),
    ]);
    let scene = Scene::new();
    let file = Piece::file("s", "x").told(|line| line["tail"] = 4.into());
    scene.assert_refused("a record of another length", &forge(&[file, Piece::tail("s", "{\"h")]), "cut off no file");
    let untold = Piece::file("s", "x").told(|line| *line = serde_json::Value::Null);
    scene.assert_refused("the last is not told", &forge(&[untold]), "entries after the 0 that the inventory lists");
}

#[test]
fn nothing_stands_beside_inventory_report_and_manifest() {
    let scene = Scene::new();
    let pieces = [Piece::dir("s"), Piece::file("s/a", "a")];
    let whole = proofs(&pieces);
    let [inventory, report, manifest] = whole.clone();
    let stray = || Piece::file("s/b", "b");
    let records = Piece::odd(b'x', "").at(format!("{ROOT}/x")).holding("8 uid=1\n");
    let odd = |piece: &Piece, kind: u8| Piece { kind, ..piece.clone() };
    let follows = "follows the manifest";
    for (what, behind, why) in [
        ("an entry", vec![stray()], follows),
        ("records", vec![records.clone()], "belong to no entry"),
        ("records twice", vec![records.clone(), records], "belong to no entry"),
        ("another manifest", vec![manifest.clone()], follows),
    ] {
        scene.assert_refused(what, &written(&[&pieces[..], &whole, &behind].concat()), why);
    }
    let other = own("manifest.json", b"{\"schemaVersion\":1,\"archiveRoot\":\"x-clawsnap-backup\"}");
    for (what, rest, why) in [
        (
            "an entry behind the inventory",
            vec![inventory.clone(), stray(), report.clone(), manifest.clone()],
            "follows the inventory",
        ),
        (
            "two inventories",
            vec![inventory.clone(), inventory.clone(), report.clone(), manifest.clone()],
            "two inventories",
        ),
        ("no inventory", vec![report.clone(), manifest.clone()], "no inventory"),
        ("no report", vec![inventory.clone(), manifest.clone()], "not the one that its report"),
        ("no manifest", vec![inventory.clone(), report.clone()], "no manifest"),
        ("another root in the manifest", vec![inventory.clone(), report.clone(), other], "names another root"),
        ("an inventory that is a link", vec![odd(&inventory, b'1'), report.clone(), manifest.clone()], "is no file"),
        ("a report that is a fifo", vec![inventory.clone(), odd(&report, b'6'), manifest.clone()], "is no file"),
        ("a manifest that is a link", vec![inventory.clone(), report.clone(), odd(&manifest, b'2')], "is no file"),
    ] {
        scene.assert_refused(what, &written(&[&pieces[..], &rest].concat()), why);
    }
}

#[test]
fn attributes_of_any_name_are_set_where_the_kernel_takes_them_and_named_where_not() {
    let scene = Scene::new();
    let capability = [&b"\x01\0\0\x02"[..], &[0xff; 4], &[0; 12]].concat();
    let pieces = [
        Piece::dir("s").xattr(b"trusted.overlay.opaque", b"y"),
        Piece::file("s/a", "a").xattr(b"security.capability", &capability),
        Piece::file("s/b", "b").xattr(b"nonsense", b"v").xattr(&[b'n'; 300], b"v"),
        Piece::file("s/c", "c").xattr(b"system.posix_acl_access", b"no list"),
        Piece::symlink("s/l", &scene.path("outside/canary")).xattr(b"user.note", b"v"),
    ];
    let (back, restored) = scene.assert_restored("odd attributes", &forge(&pieces));
    assert_eq!(restored.outcome, Ending::Different);
    let told: Vec<&str> = restored.differences.iter().map(|difference| &*difference.what).collect();
    assert!(told.iter().any(|what| what.contains("nonsense")) && told.len() >= 3, "{told:?}");
    assert_eq!(fs::read(back.join("s/b")).expect("reads"), b"b");
}

/// Not refused: a tree can be like this, and what we back up we must restore.
#[test]
fn a_path_of_two_thousand_directories_is_restored_and_removed_with_few_descriptors() {
    const DEPTH: usize = 2_000;
    let scene = Scene::new();
    let mut pieces: Vec<Piece> = (1..=DEPTH).map(|depth| Piece::dir(&["d"; DEPTH][..depth].join("/"))).collect();
    pieces.push(Piece::file(&format!("{}/bottom", ["d"; DEPTH].join("/")), "x"));
    let whole = forge(&pieces);
    let begun = Instant::now();
    let (back, restored) = scene.assert_restored("deep", &whole);
    assert_eq!((restored.directories, restored.files), (DEPTH as u64, 1));
    println!("restored in {:?}", begun.elapsed());
    remove(&back);
    let begun = Instant::now();
    let [.., last] = &mut pieces[..] else { unreachable!("there are some") };
    last.line = |line| line["mode"] = 0o600.into();
    scene.assert_refused("deep, and not what is told", &forge(&pieces), "is not what the inventory says");
    println!("refused thrice, and removed, in {:?}", begun.elapsed());
}

/// As deep as it may be.
fn remove(path: &Path) {
    let status = std::process::Command::new("rm").arg("-rf").arg(path).status().expect("runs");
    assert!(status.success());
}

/// Restoring is not bounded by the archive's length, as a backup of a sparse disk image must come back: it is bounded by
/// what the archive proves. Zeros take no room, and of what is not proven nothing stays.
#[test]
fn a_bomb_is_refused_by_verify_and_takes_no_more_room_than_it_proves() {
    const SIZE: usize = 80 << 20;
    let scene = Scene::new();
    let pack = |pieces: &[Piece]| zstd::encode_all(&forge(pieces)[..], 3).expect("packs");
    let bomb = |byte: u8| Piece::file("bomb", vec![byte; SIZE]);
    for byte in [0, b'A'] {
        let archive = scene.archive(&pack(&[bomb(byte)]));
        let verdict = verify(&archive, &VerifyOptions::default(), &gate(), &());
        assert!(verdict.error.is_some_and(|error| error.contains("--any-ratio")), "{byte}");
        list(&archive, &Wanted::default(), &gate(), &(), &mut |_| Ok(())).expect("lists: that takes no room");
        assert_eq!(scene.restore(&archive).outcome, Ending::Complete, "{byte}");
        let found = fs::metadata(scene.path("inside/back/bomb")).expect("is there");
        let room = if byte == 0 { 0 } else { SIZE as u64 };
        assert!(found.len() == SIZE as u64 && found.blocks() * 512 <= room + 65_536, "{byte}: {found:?}");
        remove(&scene.path("inside/back"));
    }
    let lying = bomb(b'A').told(|line| line["size"] = 5.into());
    let archive = scene.archive(&pack(&[lying]));
    assert_eq!(scene.restore(&archive).outcome, Ending::Unproven);
    assert_eq!(fs::read_dir(scene.path("inside")).expect("lists").count(), 0);
}

/// Swaps directories of a draft for symbolic links, and back, as fast as it can.
struct Neighbour {
    inside: PathBuf,
    /// Which restore is running.
    round: Arc<AtomicU64>,
    /// Directories below a draft; the first is the draft itself.
    victims: Vec<PathBuf>,
    outside: PathBuf,
}

impl Neighbour {
    /// How often it swapped something for a link, until it is told to stop.
    fn swap_until(&self, stop: &AtomicBool) -> u64 {
        let mut swaps = 0;
        let mut draft = None;
        for turn in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let parent = self.inside.join(self.round.load(Ordering::Relaxed).to_string());
            if turn % 16 == 0 || draft.is_none() {
                draft = drafts(&parent).into_iter().next();
            }
            let Some(draft) = &draft else { continue };
            // The draft itself now and then only: without it nothing goes on.
            let victim = if turn % 199 == 0 { 0 } else { 1 + turn % (self.victims.len() - 1) };
            let aside = parent.join(format!("aside-{turn}"));
            // Most are swapped back, so that some restores get far.
            swaps += u64::from(self.swap(&draft.join(&self.victims[victim]), &aside, turn % 64 != 1));
        }
        swaps
    }

    fn swap(&self, victim: &Path, aside: &Path, back: bool) -> bool {
        if fs::symlink_metadata(victim).is_ok_and(|found| found.is_symlink()) || fs::rename(victim, aside).is_err() {
            return false;
        }
        let swapped = symlink(&self.outside, victim).is_ok();
        if back {
            let _unless_it_was_faster = fs::remove_file(victim).and_then(|()| fs::rename(aside, victim));
        }
        swapped
    }
}

fn drafts(dir: &Path) -> Vec<PathBuf> {
    if dir.is_dir() { leftovers(dir) } else { Vec::new() }
}

#[test]
fn a_neighbour_who_swaps_directories_for_links_cannot_lead_a_restore_outside() {
    const TIME: Duration = Duration::from_secs(5);
    // In memory, where there is such a place: the more swaps, the more is proven.
    let memory = Path::new("/dev/shm");
    let place = if tempfile::tempdir_in(memory).is_ok() { memory.to_owned() } else { std::env::temp_dir() };
    let scene = Scene::under(&place);
    let source = scene.path("source");
    let dirs: Vec<String> = (0..6).flat_map(|a| (0..6).map(move |b| format!("d{a}/closet{b}"))).collect();
    for dir in &dirs {
        ["canary", "secret", "x", "y"].iter().for_each(|name| write(&source.join(dir).join(name), "from the archive"));
        fs::set_permissions(source.join(dir), fs::Permissions::from_mode(0o777)).expect("sets");
    }
    let archive = scene.path("a.tar");
    assert_eq!(Backup::of(&source).to(&archive).exit_code(), 0);
    let before = scene.outside();
    let below = source.strip_prefix("/").expect("is absolute");
    let victims = [PathBuf::new(), below.to_owned()].into_iter().chain(dirs.iter().flat_map(|dir| {
        let dir = below.join(dir);
        [dir.parent().expect("has one").to_owned(), dir]
    }));
    let round = Arc::new(AtomicU64::new(0));
    let neighbour = Neighbour {
        inside: scene.path("inside"),
        round: Arc::clone(&round),
        victims: victims.collect(),
        outside: scene.path("outside"),
    };
    let stop = AtomicBool::new(false);
    let (mut whole, mut failed) = (0, 0);
    let swaps = std::thread::scope(|scope| {
        let swapping = scope.spawn(|| neighbour.swap_until(&stop));
        let begun = Instant::now();
        while begun.elapsed() < TIME {
            let target = scene.path("inside").join(round.load(Ordering::Relaxed).to_string()).join("back");
            let restored = restore(&archive, &RestoreOptions::into_new(target), &gate(), &(), &|_| true);
            let is_whole = matches!(restored.outcome, Ending::Complete | Ending::Different);
            (whole, failed) = (whole + u64::from(is_whole), failed + u64::from(!is_whole));
            round.fetch_add(1, Ordering::Relaxed);
        }
        stop.store(true, Ordering::Relaxed);
        swapping.join().expect("ends")
    });
    println!("{swaps} swaps; of {} restores {failed} failed", whole + failed);
    assert_eq!(differences(&before, &scene.outside()), [] as [String; 0]);
    assert!(swaps > 100 && failed > 10, "{swaps} swaps, {failed} of {} failed", whole + failed);
    proven(&[Promise::Untouched], swaps, "a neighbour's swaps during restores");
}
