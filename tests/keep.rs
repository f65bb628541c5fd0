//! A directory of archives over time: which stay, which go, and how fresh they are. Ages are made by
//! `SOURCE_DATE_EPOCH`, which dates an archive by name and report.
#![cfg(feature = "cli")]

mod shelf;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use shelf::{CLAWSNAP, DAY, HOUR, NOBODY, Stage, THEN, json, named, now, text};

/// The names of those archives in a report for which `is` holds.
fn chosen(pruned: &Value, is: impl Fn(&Value) -> bool) -> Vec<String> {
    let archives = pruned["archives"].as_array().expect("are listed").iter().filter(|archive| is(archive));
    let name = |archive: &Value| archive["path"].as_str().expect("is text").rsplit('/').next().map(str::to_owned);
    archives.filter_map(name).collect()
}

fn removed(pruned: &Value) -> Vec<String> {
    chosen(pruned, |archive| archive["removed"] == true)
}

#[test]
fn prune_keeps_one_a_day_and_tells_why() {
    let times = [THEN - 3 * DAY, THEN - 2 * DAY - HOUR, THEN - 2 * DAY, THEN - HOUR, THEN];
    let stage = Stage::new().with(&times);
    let before = stage.names();
    let dry = stage.run("prune out --keep-daily 2 --dry-run");
    let said = text(&dry.stdout);
    assert_eq!((dry.status.code(), stage.names()), (Some(0), before.clone()), "{said}");
    assert!(said.starts_with(&format!("{}: 5 archives\n", stage.path("source").display())), "{said}");
    for (time, start, end) in [
        (times[0], "goes    2023-11-11 22:13:20", ""),
        (times[1], "goes    2023-11-12 21:13:20", ""),
        (times[2], "stays   2023-11-12 22:13:20", "daily"),
        (times[3], "goes    2023-11-14 21:13:20", ""),
        (times[4], "stays   2023-11-14 22:13:20", "newest, newest without loss, daily"),
    ] {
        let end = format!("{}  {end}", named(time));
        let row = said.lines().find(|row| row.trim_start().starts_with(start)).expect(start);
        assert!(row.ends_with(end.trim_end()), "{row}");
    }
    assert!(said.ends_with("dry run: 3 would go, 2 would stay\n"), "{said}");
    let real = stage.run("prune out --keep-daily 2 --json");
    assert_eq!((real.status.code(), text(&real.stderr)), (Some(0), String::new()));
    assert_eq!(removed(&json(&real)), [named(times[0]), named(times[1]), named(times[3])]);
    assert_eq!(stage.names(), [named(times[2]), named(times[4])]);
    let again = stage.run("prune out --keep-daily 2 --quiet");
    assert_eq!((again.status.code(), again.stdout.len(), again.stderr.len()), (Some(0), 0, 0));
    assert_eq!(stage.names().len(), 2);
}

#[test]
fn days_are_those_of_the_local_clock() {
    // Half past two and half past three in the afternoon, UTC: on two days in Japan.
    let times = [1_699_972_200, 1_699_975_800];
    let stage = Stage::new().with(&times);
    for (zone, gone) in [("UTC0", 1), ("JST-9", 0)] {
        let mut command = stage.command("prune out --keep-daily 2 --keep-last 1 --dry-run --json");
        let output = command.env("TZ", zone).output().expect("runs");
        let goes = chosen(&json(&output), |archive| archive["stays"] == Value::Array(Vec::new()));
        // With one day, the oldest stays too while a second day is wanted.
        let daily = chosen(&json(&output), |archive| {
            archive["stays"].as_array().is_some_and(|stays| stays.contains(&"daily".into()))
        });
        assert_eq!((goes.len(), daily.len()), (0, 2 - gone), "{zone}");
    }
}

#[test]
fn rules_are_or_ed_and_within_counts_from_the_newest() {
    let times = [THEN - 40 * DAY, THEN - 20 * DAY, THEN - 3 * DAY, THEN - DAY, THEN];
    let stage = Stage::new().with(&times);
    let output = stage.run("prune out --keep-within 1d12h --keep-monthly 2 --json");
    assert_eq!(removed(&json(&output)), [named(times[0]), named(times[2])]);
    assert_eq!(stage.names(), [named(times[1]), named(times[3]), named(times[4])]);
}

#[test]
fn an_archive_that_is_cut_takes_nobodys_place_and_stays() {
    let times = [THEN - 2 * DAY, THEN - DAY, THEN];
    let stage = Stage::new().with(&times);
    stage.cut(&named(THEN));
    let output = stage.run("prune out --keep-last 1");
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert_eq!(stage.names(), [named(THEN - DAY), named(THEN)]);
    let said = text(&output.stderr);
    assert!(said.starts_with("warning: ") && said.contains(&named(THEN)) && said.contains("not proven"), "{said}");
    assert!(text(&output.stdout).contains("not proven: 1 archive\n"), "{}", text(&output.stdout));
    let quiet = stage.run("prune out --keep-last 1 --quiet");
    assert_eq!((quiet.stdout.len(), text(&quiet.stderr)), (0, said));
}

#[test]
fn what_only_looks_like_ours_is_left_alone() {
    let stage = Stage::new().with(&[THEN - DAY, THEN]);
    let out = stage.path("out");
    let copy = |from: &str, to: &str| assert!(fs::copy(out.join(from), out.join(to)).is_ok());
    // Not our names: nobody looks at them.
    copy(&named(THEN), "clawsnap-20200101T000000Z.tar.zst.old");
    copy(&named(THEN), ".clawsnap-20200101T000000Z-0a1b2c3d.partial");
    copy(&named(THEN), "monday.tar.zst");
    fs::write(out.join("clawsnap-notes.tar.zst"), "x").expect("writes");
    // Our names, and something else in them.
    copy(&named(THEN), "clawsnap-20200102T000000Z.tar.zst");
    fs::write(out.join("clawsnap-20200103T000000Z.tar.zst"), "not an archive").expect("writes");
    fs::write(out.join("clawsnap-20200104T000000Z.tar"), "").expect("writes");
    symlink(named(THEN - DAY), out.join("clawsnap-20200105T000000Z.tar.zst")).expect("links");
    fs::create_dir(out.join("clawsnap-20200106T000000Z.tar.zst")).expect("makes a directory");
    tar(&stage, "clawsnap-20200107T000000Z.tar");
    let before = stage.names();
    let output = stage.run("prune out --keep-last 1 --json");
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    let pruned = json(&output);
    assert_eq!(removed(&pruned), [named(THEN - DAY)]);
    let after: Vec<String> = before.into_iter().filter(|name| *name != named(THEN - DAY)).collect();
    assert_eq!(stage.names(), after);
    let doubted: Vec<Value> = pruned["archives"]
        .as_array()
        .expect("are listed")
        .iter()
        .filter(|archive| archive["proven"] == false)
        .map(|archive| archive["error"].clone())
        .collect();
    assert_eq!(doubted.len(), 6, "{doubted:?}");
    for (error, part) in
        doubted.iter().zip(["another time", "", "", "no regular file", "no regular file", "no inventory"])
    {
        assert!(error.as_str().is_some_and(|error| error.contains(part)), "{error}: {part}");
    }
}

/// An archive that somebody else made, under a name like ours.
fn tar(stage: &Stage, name: &str) {
    let mut tar = Command::new("tar");
    let status =
        tar.arg("-cf").arg(stage.path("out").join(name)).arg("-C").arg(stage.path("other")).arg("a.txt").status();
    assert!(status.expect("runs").success());
}

#[test]
fn each_source_is_judged_by_itself() {
    let stage = Stage::new().with(&[THEN - 2 * DAY, THEN - DAY]);
    for time in [THEN - 5 * DAY, THEN - 4 * DAY] {
        stage.create("other", time);
    }
    let output = stage.run("create source --output out/ --keep-last 2 --json");
    let report = json(&output);
    assert_eq!(removed(&report["pruned"]), [named(THEN - 2 * DAY)]);
    assert_eq!(chosen(&report["pruned"], |_| true).len(), 3, "of the other source nothing is said");
    assert_eq!(stage.names()[..2], [named(THEN - 5 * DAY), named(THEN - 4 * DAY)]);
    let output = stage.run("prune out --keep-last 1 --json");
    assert_eq!(removed(&json(&output)), [named(THEN - 5 * DAY), named(THEN - DAY)]);
}

/// `create ~/.openclaw` leaves out a workspace elsewhere, and yet was of the same source as plain `create`: with
/// `--keep-last 1` it removed every archive that held the workspace.
#[test]
fn a_state_directory_that_is_named_alone_is_another_source_than_with_what_belongs_to_it() {
    let stage = Stage::new();
    fs::create_dir_all(stage.path("home/.openclaw")).expect("makes a directory");
    let config = |text: &str| fs::write(stage.path("home/.openclaw/openclaw.json"), text).expect("writes");
    config("{agents: {defaults: {workspace: '~/../other'}}}");
    let create = |line: &str| json(&stage.run(&format!("create {line} --output out/ --keep-last 1 --json")));
    create("");
    let alone = create("home/.openclaw");
    assert_eq!((&alone["stateAlone"], removed(&alone["pruned"]).len()), (&true.into(), 0), "{alone}");
    let gap = alone["gaps"][0].as_str().expect("has one");
    assert!(gap.contains(&stage.path("other").display().to_string()) && gap.contains("is not in the archive"), "{gap}");
    assert_eq!(stage.names().len(), 2);
    assert_eq!(removed(&create("home/.openclaw")["pruned"]).len(), 1, "of those that are like it");
    for line in ["home/.openclaw other", "home/.openclaw --no-include-workspace"] {
        let report = create(line);
        assert_eq!((&report["stateAlone"], &report["gaps"]), (&false.into(), &Value::Null), "{line}");
    }
    assert_eq!(stage.names().len(), 4);
    config("{}");
    assert_eq!(
        removed(&create("home/.openclaw")["pruned"]).len(),
        1,
        "where nothing is elsewhere, it is the same source"
    );
}

#[test]
fn create_thins_out_after_it_has_published_and_says_what_went_and_why() {
    let stage = Stage::new().with(&[THEN - DAY, THEN]);
    let output = stage.run("create source --output out/ --keep-last 1");
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(said.contains("  pruned     2 archives removed, 1 of this source there\n"), "{said}");
    assert!(said.contains("removed 2023-11-14 22:13:20  ") && said.contains(&named(THEN)), "{said}");
    assert!(said.contains("  newest, newest without loss, last\n"), "{said}");
    assert_eq!(stage.names().len(), 1);
    let quiet = stage.run("create source --output out/ --keep-last 1 --quiet");
    assert_eq!((quiet.status.code(), quiet.stdout.len(), quiet.stderr.len()), (Some(0), 0, 0));
    assert_eq!(stage.names().len(), 1);
}

#[test]
fn what_was_just_made_stays_whatever_its_date() {
    let stage = Stage::new().with(&[THEN - DAY, THEN]);
    let mut command = stage.command("create source --output out/ --keep-last 1 --no-verify --json");
    let output = command.env("SOURCE_DATE_EPOCH", (THEN - 9 * DAY).to_string()).output().expect("runs");
    let report = json(&output);
    assert_eq!((removed(&report["pruned"]), &report["verified"]), (vec![named(THEN - DAY)], &false.into()));
    assert_eq!(stage.names(), [named(THEN - 9 * DAY), named(THEN)]);
    let stays = &report["pruned"]["archives"][0];
    assert_eq!((&stays["stays"][0], &stays["proven"]), (&"just made".into(), &true.into()), "{stays}");
}

#[test]
fn a_dry_run_tells_what_would_go_if_there_were_one_more() {
    let stage = Stage::new().with(&[THEN - DAY, THEN]);
    let output = stage.run("create source --output out/ --keep-last 2 --dry-run");
    let said = text(&output.stdout);
    assert!(said.contains("  pruned     1 archive would go, 1 of this source there\n"), "{said}");
    assert!(said.contains("goes    2023-11-13 22:13:20 ") && said.contains("  last\n"), "{said}");
    let new = stage.run("create source --output new/ --keep-last 2 --dry-run");
    assert_eq!((new.status.code(), stage.names().len()), (Some(0), 2));
    assert!(!text(&new.stdout).contains("pruned"));
}

#[test]
fn a_backup_that_fails_removes_nothing() {
    let stage = Stage::new().with(&[THEN - DAY, THEN]);
    for (line, code) in [
        ("create no-such --output out/ --keep-last 1", 2),
        ("create source --output out/new.tar --keep-last 1", 2),
        ("create source --output - --keep-last 1", 2),
        ("create source --output out/ --keep-last 0", 2),
        ("create source --output out/ --keep-within 5m", 2),
        ("create source --output out/ --keep-last 1 --dry-run", 0),
        ("create source --output out/ --quiet", 0),
    ] {
        let output = stage.run(line);
        assert_eq!(output.status.code(), Some(code), "{line}: {}", text(&output.stderr));
        assert!(stage.names().starts_with(&[named(THEN - DAY), named(THEN)]), "{line}");
        assert!(!stage.path("out/new.tar").exists());
    }
}

#[test]
fn prune_needs_a_rule_and_a_directory() {
    let stage = Stage::new().with(&[THEN]);
    for (line, code, word) in [
        ("prune out", 2, "--keep-last"),
        ("prune --keep-last 1", 2, "DIR"),
        ("prune no-such --keep-last 1", 1, "error: cannot open the directory no-such: No such file"),
        ("prune source/a.txt --keep-last 1", 1, "Not a directory"),
    ] {
        let output = stage.run(line);
        assert_eq!(output.status.code(), Some(code), "{line}");
        assert!(text(&output.stderr).contains(word), "{line}: {}", text(&output.stderr));
    }
    let help = text(&stage.run("prune --help").stdout);
    assert!(help.contains("clawsnap prune /backup --keep-daily 7") && help.contains("ISO weeks"), "{help}");
    let empty = stage.run("prune home --keep-last 1");
    assert_eq!((empty.status.code(), text(&empty.stdout)), (Some(0), "0 removed (0 B), 0 stay\n".to_owned()));
}

/// Somebody who may not do everything; none where we are not root.
fn as_nobody(command: &Command) -> Option<Command> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0);
    if !is_root || Command::new("setpriv").arg("--version").output().is_err() {
        eprintln!("skipped: only root can become somebody else, with setpriv");
        return None;
    }
    let mut other = Command::new("setpriv");
    other
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(command.get_program())
        .args(command.get_args());
    other.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    other.current_dir(command.get_current_dir().expect("is set")).stdin(Stdio::null());
    Some(other)
}

fn give(path: &Path, uid: u32, mode: u32) {
    std::os::unix::fs::chown(path, Some(uid), Some(uid)).expect("gives");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("sets the mode");
}

#[test]
fn what_cannot_be_removed_is_named_and_the_rest_is_done() {
    let stage = Stage::new().with(&[THEN - 2 * DAY, THEN - DAY, THEN]);
    let Some(mut command) = as_nobody(&stage.command("prune out --keep-last 1")) else { return };
    give(stage.dir.path(), NOBODY, 0o755);
    for time in [THEN - 2 * DAY, THEN - DAY, THEN] {
        give(&stage.path("out").join(named(time)), NOBODY, 0o600);
    }
    // Nobody may write there.
    give(&stage.path("out"), 0, 0o755);
    let output = command.output().expect("runs");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.matches("cannot remove it: Permission denied").count(), 2, "{said}");
    assert_eq!(stage.names().len(), 3);
    // A directory whose files are their owners' alone, as /tmp.
    give(&stage.path("out"), 0, 0o1777);
    give(&stage.path("out").join(named(THEN - DAY)), NOBODY - 1, 0o644);
    let output = command.output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stage.names(), [named(THEN - DAY), named(THEN)]);
}

#[test]
fn trouble_with_older_archives_is_a_warning_and_the_new_one_is_made() {
    let stage = Stage::new().with(&[THEN - DAY, THEN]);
    let line = "create source --output out/ --keep-last 1";
    let Some(mut command) = as_nobody(&stage.command(line)) else { return };
    give(stage.dir.path(), NOBODY, 0o755);
    give(&stage.path("source"), NOBODY, 0o755);
    give(&stage.path("out"), 0, 0o1777);
    give(&stage.path("out").join(named(THEN - DAY)), 0, 0o644);
    give(&stage.path("out").join(named(THEN)), 0, 0o600);
    for quiet in [false, true] {
        let output = command.args(quiet.then_some("--quiet")).output().expect("runs");
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("cannot remove it: ") && said.contains("Permission denied"), "{said}");
        assert_eq!(said.contains("complete, and of one instant"), !quiet, "{said}");
        assert_eq!(stage.names().len(), 3, "the two of somebody else, and the newest");
    }
}

/// Two lines of a crontab begin in the same second: the slower one threw its proven archive away, every night.
#[test]
fn sources_that_are_backed_up_in_the_same_second_get_an_archive_each() {
    let stage = Stage::new();
    let sources = ["source", "other"].into_iter().cycle().take(8);
    let runs: Vec<_> = sources
        .map(|source| {
            let line = format!("create {source} --output out/ --quiet --wait 50s");
            stage.command(&line).env("SOURCE_DATE_EPOCH", THEN.to_string()).spawn().expect("runs")
        })
        .collect();
    for mut run in runs {
        assert_eq!(run.wait().expect("ends").code(), Some(0));
    }
    assert_eq!(stage.names().len(), 8, "{:?}", stage.names());
}

#[test]
fn an_archive_of_the_future_does_not_push_out_those_of_today() {
    let stage = Stage::new().with(&[THEN - DAY, THEN, now() + 400 * DAY]);
    let output = stage.run("prune out --keep-within 30d");
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("in the future"), "{}", text(&output.stderr));
    assert_eq!(stage.names().len(), 3);
}

/// The row of a page with that label.
fn row<'a>(page: &'a str, label: &str) -> &'a str {
    let found = page.lines().find_map(|line| line.strip_prefix(&format!("  {label} ")));
    found.unwrap_or_else(|| panic!("no {label} in\n{page}")).trim()
}

#[test]
fn status_tells_age_size_verdict_and_trend() {
    let newest = now() - HOUR;
    let stage = Stage::new().with(&[newest - 2 * DAY, newest - DAY, newest]);
    let output = stage.run("status out --max-age 2h");
    let page = text(&output.stdout);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{page}");
    let out = stage.path("out").canonicalize().expect("resolves");
    assert!(page.starts_with(&format!("fresh: {}\n", out.display())), "{page}");
    assert_eq!(row(&page, "newest"), out.join(named(newest)).to_str().expect("is text"));
    assert!(row(&page, "made").contains(", 1 h 0 min ago"), "{page}");
    assert_eq!(row(&page, "verdict"), "complete, and of one instant");
    assert!(row(&page, "size").ends_with(" in 3 archives"), "{page}");
    for label in ["sizes", "durations"] {
        let bars = row(&page, label).split(' ').next().expect("has bars");
        assert!(bars.chars().count() == 3 && bars.contains('#') && page.is_ascii(), "{page}");
    }
    let quiet = stage.run("status out --max-age 2h --quiet");
    assert_eq!((quiet.status.code(), quiet.stdout.len(), quiet.stderr.len()), (Some(0), 0, 0));
}

#[test]
fn status_ends_with_a_code_that_says_what_is_wrong() {
    let stage = Stage::new();
    for (line, code, word) in [
        ("status out", 4, "missing: "),
        ("status out --max-age soon", 2, ""),
        ("status no-such --max-age 1d", 1, ""),
        ("status", 2, ""),
    ] {
        let output = stage.run(line);
        assert_eq!(output.status.code(), Some(code), "{line}");
        assert!(text(&output.stdout).starts_with(word), "{line}");
        assert_eq!(output.stderr.is_empty(), code == 4, "{line}");
    }
    let newest = now() - 2 * HOUR;
    let stage = stage.with(&[newest - DAY, newest]);
    let old = stage.run("status out --max-age 1h30m -q");
    assert_eq!((old.status.code(), old.stdout.len()), (Some(6), 0));
    assert!(
        text(&old.stderr).contains("too old: 2 h 0 min, and at most 1 h 30 min is wanted"),
        "{}",
        text(&old.stderr)
    );
    assert_eq!(stage.run("status out").status.code(), Some(0), "without a limit nothing is too old");
    stage.cut(&named(newest));
    let cut = stage.run("status out --max-age 30h --json");
    let status = json(&cut);
    assert_eq!((cut.status.code(), &status["state"]), (Some(4), &"unproven".into()));
    assert!(status["sources"][0]["newest"]["path"].as_str().is_some_and(|path| path.ends_with(&named(newest - DAY))));
    assert!(status["unproven"][0]["path"].as_str().is_some_and(|path| path.ends_with(&named(newest))), "{status}");
    stage.cut(&named(newest - DAY));
    assert_eq!(json(&stage.run("status out --json"))["state"], "missing");
}

#[test]
fn an_archive_with_losses_is_no_fresh_one() {
    let stage = Stage::new().with(&[now() - 2 * DAY]);
    // SQLite would not have it.
    let broken = [&b"SQLite format 3\0"[..], &[7; 5_000]].concat();
    fs::write(stage.path("source/broken.sqlite"), broken).expect("writes");
    stage.create("source", now() - 60);
    let output = stage.run("status out --json");
    let source = &json(&output)["sources"][0];
    assert_eq!((output.status.code(), &source["state"]), (Some(3), &"lossy".into()), "{source}");
    assert_eq!((&source["newest"]["losses"], source["archives"].as_array().map(Vec::len)), (&1.into(), Some(2)));
    let pruned = stage.run("prune out --keep-last 1 --json");
    assert_eq!(removed(&json(&pruned)), [""; 0], "the newest without a loss stays");
    assert_eq!(stage.names().len(), 2);
}

#[test]
fn one_stale_source_among_fresh_ones_is_noticed() {
    let stage = Stage::new().with(&[now() - HOUR]);
    stage.create("other", now() - 3 * DAY);
    let output = stage.run("status out --max-age 1d --json");
    let status = json(&output);
    let states: Vec<&Value> = status["sources"].as_array().expect("a list").iter().map(|it| &it["state"]).collect();
    assert_eq!((output.status.code(), states), (Some(6), vec![&Value::from("old"), &Value::from("fresh")]));
    let said = text(&stage.run("status out --max-age 1d -q").stderr);
    assert!(said.contains("/other: too old") && !said.contains("/source"), "{said}");
}

#[test]
fn metrics_replace_the_file_in_one_step_and_anybody_may_read_them() {
    let newest = now() - HOUR;
    let stage = Stage::new().with(&[newest]);
    let file = stage.path("home/clawsnap.prom");
    fs::write(&file, "old").expect("writes");
    let before = fs::metadata(&file).expect("stats").ino();
    let output = stage.run("status out --metrics home/clawsnap.prom --quiet");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    let found = fs::metadata(&file).expect("stats");
    assert_eq!((found.mode() & 0o777, found.ino() == before), (0o644, false));
    let metrics = fs::read_to_string(&file).expect("reads");
    let (out, source) = (stage.path("out"), stage.path("source"));
    let labels = format!("directory=\"{}\",source=\"{}\"", out.display(), source.display());
    for line in [
        format!("clawsnap_newest_timestamp_seconds{{{labels}}} {newest}"),
        format!("clawsnap_archives{{{labels}}} 1"),
        format!("clawsnap_directory_readable{{directory=\"{}\"}} 1", out.display()),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    for sample in metrics.lines().filter(|line| !line.starts_with('#')) {
        let name = sample.split('{').next().expect("has a name");
        assert!(metrics.contains(&format!("# TYPE {name} gauge\n")), "{sample}");
        assert!(sample.rsplit(' ').next().is_some_and(|value| value.parse::<f64>().is_ok()), "{sample}");
    }
    assert_eq!(stage.run("status no-such --metrics home/clawsnap.prom").status.code(), Some(1));
    let metrics = fs::read_to_string(&file).expect("reads");
    assert!(metrics.contains("clawsnap_directory_readable{directory=\"no-such\"} 0\n"), "{metrics}");
    fs::create_dir(stage.path("home/x.prom")).expect("makes a directory");
    for target in ["home/x.prom", "no-such/x.prom"] {
        let output = stage.run(&format!("status out --metrics {target}"));
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).starts_with("error: cannot write the metrics to "), "{}", text(&output.stderr));
    }
    let left = fs::read_dir(stage.path("home")).expect("lists").count();
    assert_eq!(left, 3, "a.txt, clawsnap.prom, x.prom");
}

#[test]
fn a_terminal_of_utf_8_is_shown_blocks() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: script is not installed");
        return;
    }
    let stage = Stage::new().with(&[THEN, THEN + DAY]);
    for (locale, blocks) in [("C.UTF-8", true), ("C", false)] {
        let mut script = Command::new("script");
        script.args(["-qec", &format!("{CLAWSNAP} status out"), "/dev/null"]).current_dir(stage.dir.path());
        script.env("LC_ALL", locale).env("TERM", "xterm").stdin(Stdio::null());
        let output = script.output().expect("runs");
        let page = text(&output.stdout);
        assert!(page.contains("sizes") && page.contains('█') == blocks, "{locale}: {page}");
    }
}
