//! The power is cut at any write to the disk that holds source and archives: what has the name of an archive is whole, what
//! a run had published before it returned is there, and the next run leaves the source as it was.
//!
//! Needs root, FUSE, loop devices, ext4 and btrfs. `CLAWSNAP_CUTS=2000` cuts more often.
#![cfg(feature = "cli")]

mod disk;
mod mounts;
mod proof;
#[allow(dead_code, unreachable_pub, reason = "each test uses its own part")]
#[path = "churn/rng.rs"]
mod rng;
mod stage;
mod support;
mod tool;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clawsnap::gate::Realm;
use disk::{Deed, Disk, Mounted, SECTOR, formatted};
use mounts::{made, mount};
use proof::{Promise, proven, skipped};
use rng::Rng;
use stage::{Stage, text};
use support::patient::verdict;
use support::{Backup, Script, leftovers, write_cold};
use tool::has;

/// How often the power is cut.
fn cuts() -> usize {
    std::env::var("CLAWSNAP_CUTS").map_or(120, |cuts| cuts.parse().expect("is a number"))
}

const THEN: u64 = 1_700_000_000;

/// How often it is cut in one story: there are not many more ways.
const CUTS_OF_A_STORY: usize = 120;

/// The source, on the disk.
const SOURCE: &str = "home/source";

/// Files in it that nobody touches.
const COLD: [&str; 2] = ["a.txt", "below/b.jsonl"];

/// Backups that are made on the disk, by their endings.
const ENDINGS: [&str; 6] = ["tar.zst", "tar", "tar.gz", "tar.zst", "tar.xz", "tar"];

/// The copy of an archive that is made as archives must not be made.
const CARELESS: &str = "careless.tar.zst";

/// A disk, and all that happened to it.
struct Story {
    fresh: Vec<u8>,
    deeds: Vec<Deed>,
}

impl Story {
    /// Backups under new names, and some that remove old ones; each is noted when it has returned.
    fn told(stage: &Stage, chapter: u64) -> Result<Self, String> {
        let fresh = formatted(16 << 20, stage.top())?;
        let disk = Disk::mount(fresh.clone(), stage.top())?;
        for name in ["out", "kept", "home"] {
            fs::create_dir(disk.path().join(name)).expect("makes a directory");
        }
        disk::run(Command::new("cp").arg("-a").arg(stage.path("source")).arg(disk.path().join(SOURCE)))?;
        sync(disk.path());
        for (number, ending) in ENDINGS.iter().enumerate() {
            let noise = Rng::new(chapter * 100 + number as u64).bytes(4096 * number);
            fs::write(disk.path().join(SOURCE).join("hot"), noise).expect("writes");
            backup(stage, disk.path(), &format!("out/{number}.{ending}"), number);
            backup(stage, disk.path(), "kept/ --keep-last 1", number);
            disk.say(number + 1);
        }
        careless(&disk.path().join("out"));
        sync(disk.path());
        Ok(Self { fresh, deeds: disk.deeds() })
    }

    /// Cuts the power, evenly spread, and has `look` at what is on the disk then, and at how many runs had returned. How
    /// often that left something that no other cut had.
    fn cut(&self, dice: &mut Rng, mut look: impl FnMut(&[u8], usize)) -> usize {
        let (mut durable, mut since, mut said) = (self.fresh.clone(), Vec::new(), 0);
        let (mut last_durable, mut seen) = (0, BTreeSet::new());
        for (number, deed) in self.deeds.iter().enumerate() {
            match deed {
                Deed::Written { at, bytes } => since.push((number, *at, &bytes[..])),
                Deed::Flushed => since.drain(..).for_each(|(number, at, bytes)| {
                    put(&mut durable, at, bytes);
                    last_durable = number;
                }),
                Deed::Said(what) => said = *what,
            }
            let share = |number: usize| number * CUTS_OF_A_STORY / self.deeds.len();
            for turn in 0..share(number + 1) - share(number) {
                let mut image = durable.clone();
                let mut kept = Vec::new();
                for (deed, at, bytes) in &since {
                    let length = if turn == 0 { bytes.len() } else { part(dice, bytes.len()) };
                    put(&mut image, *at, &bytes[..length]);
                    kept.push((*deed, length));
                }
                // Else the same things are on the disk as after another cut.
                if seen.insert((said, last_durable, kept)) {
                    look(&image, said);
                }
            }
        }
        seen.len()
    }
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn backup(stage: &Stage, disk: &Path, to: &str, number: usize) {
    let disk = disk.display();
    let mut command = stage.command(&format!("create {disk}/{SOURCE} -q -o {disk}/{to}"));
    let output = command.env("SOURCE_DATE_EPOCH", (THEN + number as u64).to_string()).output().expect("runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// A name that lasts before the contents do.
fn careless(out: &Path) {
    fs::copy(out.join("0.tar.zst"), out.join(CARELESS)).expect("copies");
    File::open(out).and_then(|dir| dir.sync_all()).expect("makes names last");
}

fn sync(at: &Path) {
    disk::run(Command::new("sync").arg("-f").arg(at)).expect("syncs");
}

/// Of what was being written: all, nothing, or some whole sectors.
fn part(dice: &mut Rng, length: usize) -> usize {
    match dice.below(4) {
        0 | 1 => length,
        2 => 0,
        _ => dice.below(length / SECTOR + 1) * SECTOR,
    }
}

/// What is in a directory with a name of its own.
fn named(dir: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.expect("an entry").path());
    let hidden =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".clawsnap-"));
    found.filter(|path| !hidden(path)).collect()
}

fn is_whole(archive: &Path) -> bool {
    verdict(archive).exit_code() == 0
}

/// What one cut left.
struct Found<'a> {
    stage: &'a Stage,
    at: &'a Path,
    /// How many runs had returned.
    returned: usize,
}

impl Found<'_> {
    /// Whether the careless copy has its name, and is no archive.
    fn is_careless(&self) -> bool {
        let copy = self.at.join("out").join(CARELESS);
        copy.exists() && !is_whole(&copy)
    }

    fn judge(&self) {
        let (out, kept) = (named(&self.at.join("out")), named(&self.at.join("kept")));
        for archive in out.iter().chain(&kept).filter(|path| !path.ends_with(CARELESS)) {
            let verdict = verdict(archive);
            assert_eq!(verdict.exit_code(), 0, "{} is not whole: {verdict:?}", archive.display());
        }
        for (number, ending) in ENDINGS.iter().enumerate().take(self.returned) {
            let archive = self.at.join(format!("out/{number}.{ending}"));
            assert!(archive.exists(), "{} was published, and is gone", archive.display());
        }
        assert!(self.returned == 0 || !kept.is_empty(), "after {} runs none is kept", self.returned);
    }

    /// The next run succeeds there, and leaves nothing behind.
    fn goes_on(&self) {
        let (out, source) = (self.at.join("out"), self.at.join(SOURCE));
        if named(&self.at.join("kept")).is_empty() {
            return;
        }
        backup(self.stage, self.at, "out/next.tar.zst", 99);
        assert_eq!((leftovers(&out), leftovers(&self.at.join("home"))), (Vec::new(), Vec::new()));
        for name in COLD {
            let (is, was) = (source.join(name), self.stage.path("source").join(name));
            assert_eq!(fs::metadata(&is).expect("is there").nlink(), 1, "{name}");
            assert_eq!(fs::read(is).expect("reads"), fs::read(was).expect("reads"), "{name}");
        }
    }
}

#[test]
fn what_has_the_name_of_an_archive_after_a_power_cut_is_whole() {
    if !has("mkfs.ext4") {
        return skipped("power cuts", "mkfs.ext4 is not installed");
    }
    let (mut careless, mut went_on, mut trials) = (0, 0, 0);
    let mut dice = Rng::new(1);
    for chapter in 0.. {
        if trials >= cuts() {
            break;
        }
        let stage = Stage::quick();
        let story = match Story::told(&stage, chapter) {
            Ok(story) => story,
            Err(why) => return skipped("power cuts", &why),
        };
        let flushes = story.deeds.iter().filter(|deed| matches!(deed, Deed::Flushed)).count();
        assert!(flushes > 2 * ENDINGS.len(), "{flushes} flushes: the disk is not told what must last");
        let (image, at) = (stage.path("image"), stage.path("cut"));
        fs::create_dir(&at).expect("makes a directory");
        let mut number = 0;
        let cuts = story.cut(&mut dice, |bytes, returned| {
            fs::write(&image, bytes).expect("writes");
            let mounted = Mounted::image(&image, at.clone()).expect("the journal makes it whole");
            let found = Found { stage: &stage, at: mounted.path(), returned };
            careless += u64::from(found.is_careless());
            found.judge();
            if number % 4 == 0 {
                found.goes_on();
                went_on += 1;
            }
            number += 1;
        });
        assert!(cuts > CUTS_OF_A_STORY / 2, "only {cuts} cuts differ");
        trials += cuts;
    }
    println!("{trials} power cuts; {went_on} next runs; a careless copy was no archive after {careless}");
    assert!(careless > 0, "no cut hurt even a careless copy: nothing was tried");
    proven(&[Promise::Name], trials as u64, "power cut");
    proven(&[Promise::Untouched], went_on, "power cut");
}

/// An fsync on btrfs writes down the names of that one file and what is above them, not what is beside: when the power was cut,
/// the directory of the run was there without its lock. It counted for somebody else's, and the second name stayed for good.
#[test]
fn what_a_power_cut_on_btrfs_leaves_is_removed_by_the_next_run() {
    let top = tempfile::tempdir().expect("a directory");
    let cut = top.path().join("cut.img");
    let cold = Path::new("home/source/cold");
    let Some((disk, at)) = made(top.path(), "btrfs", 256, &["-q"]) else { return };
    write_cold(&at.join(cold), "cold\n".repeat(5000));
    sync(&at);
    let (image, owned, to) = (top.path().join("btrfs.img"), at.join(cold), cut.clone());
    let gate = Script::new(move |_, step| {
        if step.realm == Realm::Output && fs::metadata(&owned)?.nlink() == 2 && !to.exists() {
            let mut owner = File::options().append(true).open(&owned)?;
            owner.write_all(b"more\n").and_then(|()| owner.sync_all())?;
            fs::copy(&image, &to)?;
        }
        Ok(())
    });
    Backup::of(&at.join("home/source")).gate(gate).to(&top.path().join("a.tar"));
    assert!(cut.exists(), "it was never held by a link");
    // Two of the same number cannot be mounted at once.
    drop(disk);
    let Some(_disk) = mount(&["-o", "loop", mounts::text(&cut)], &at) else { return };
    assert_eq!(fs::metadata(at.join(cold)).expect("is there").nlink(), 2, "the cut left nothing to remove");
    assert_eq!(Backup::of(&at.join("home/source")).to(&top.path().join("next.tar")).exit_code(), 0);
    assert_eq!(fs::metadata(at.join(cold)).expect("is there").nlink(), 1);
    assert_eq!(leftovers(&at.join("home")), [] as [PathBuf; 0]);
    proven(&[Promise::Untouched], 1, "power cut on btrfs");
}
