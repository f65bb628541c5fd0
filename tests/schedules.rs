//! What starts clawsnap when nobody does: the systemd units, the lines for cron, and the script for upgrades.
#![cfg(feature = "cli")]

mod stage;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use stage::{Stage, text};

const SERVICE: &str = "scripts/systemd/clawsnap.service";
const TIMER: &str = "scripts/systemd/clawsnap.timer";
const CRON: &str = "scripts/cron/clawsnap.cron";
const CONFIG: &str = "home/.openclaw/openclaw.json";
const SESSION: &str = "home/.openclaw/agents/main/sessions/4f1c.jsonl";

fn in_checkout(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(in_checkout(name)).expect("is readable")
}

/// A home with a state, and clawsnap where cargo installs it.
fn home() -> Stage {
    let stage = Stage::new().file(CONFIG, b"{}").file(SESSION, b"{\"n\":1}\n");
    for name in ["home/.cargo/bin", "home/.openclaw/workspace"] {
        fs::create_dir_all(stage.path(name)).expect("makes a directory");
    }
    symlink(env!("CARGO_BIN_EXE_clawsnap"), stage.path("home/.cargo/bin/clawsnap")).expect("links");
    stage
}

impl Stage {
    /// A command as systemd, cron or a login starts it: in the home, with little else.
    fn at_home(&self, program: impl AsRef<Path>) -> Command {
        let home = self.path("home");
        let mut command = Command::new(program.as_ref());
        command.env_clear().env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()));
        command.env("HOME", &home).current_dir(home).stdin(Stdio::null());
        command
    }

    fn shell(&self, line: &str) -> Output {
        self.at_home("/bin/sh").args(["-c", line]).output().expect("runs")
    }

    fn kept(&self, directory: &str) -> usize {
        let found = fs::read_dir(self.path(directory)).into_iter().flatten();
        let names = found.map(|entry| entry.expect("lists").file_name().into_string().expect("is text"));
        names.filter(|name| name.starts_with("clawsnap-") && name.ends_with(".tar.zst")).count()
    }

    fn assert_proven(&self, directory: &str) {
        let all = self.path(directory);
        let output = self.shell(&format!("~/.cargo/bin/clawsnap verify {}/clawsnap-*", all.display()));
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
}

fn said(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

fn assert_silent(output: &Output, code: i32) {
    assert_eq!((output.status.code(), said(output)), (Some(code), String::new()));
}

mod units {
    use super::{Command, Output, Path, SERVICE, Stage, Stdio, TIMER, assert_silent, fs, home, read, said};

    /// The values of a directive, each as one line.
    fn values(unit: &str, directive: &str) -> Vec<String> {
        let (unit, start) = (unit.replace("\\\n", " "), format!("{directive}="));
        unit.lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
    }

    /// Nothing, and why, where it is not installed.
    fn analyze(stage: &Stage, words: &[&str]) -> Option<Output> {
        let runtime = stage.path("runtime");
        fs::create_dir_all(&runtime).expect("makes a directory");
        let mut command = Command::new("systemd-analyze");
        command.args(words).env("HOME", stage.path("home")).env("XDG_RUNTIME_DIR", runtime).stdin(Stdio::null());
        match command.output() {
            Ok(output) => Some(output),
            Err(error) => {
                let required = std::env::var_os("CLAWSNAP_REQUIRE_TOOLS").is_some_and(|value| value == "1");
                assert!(!required, "systemd-analyze: {error}");
                eprintln!("skipped: systemd-analyze: {error}");
                None
            }
        }
    }

    /// What systemd has to say against the units, whose text may be altered first.
    fn complaints(stage: &Stage, alter: impl Fn(&str) -> String) -> Option<String> {
        let paths = [SERVICE, TIMER].map(|name| {
            let path = stage.path("units").join(Path::new(name).file_name().expect("has one"));
            fs::create_dir_all(path.parent().expect("has one")).expect("makes a directory");
            fs::write(&path, alter(&read(name))).expect("writes");
            path.into_os_string().into_string().expect("is text")
        });
        let output = analyze(stage, &["--user", "verify", &paths[0], &paths[1]])?;
        let failed = (!output.status.success()).then(|| format!("{}\n", output.status));
        Some(said(&output) + &failed.unwrap_or_default())
    }

    #[test]
    fn systemd_has_nothing_to_say_against_the_units() {
        let stage = home();
        if let Some(complaints) = complaints(&stage, str::to_owned) {
            assert_eq!(complaints, "");
        }
    }

    #[test]
    fn a_broken_unit_is_noticed() {
        let stage = home();
        for (right, wrong) in [
            ("NoNewPrivileges=", "NoNewPriviledges="),
            ("RandomizedDelaySec=30min", "RandomizedDelaySec=soon"),
            ("OnCalendar=*-*-* 03:17:00", "OnCalendar=*-*-* 33:17:00"),
            ("%h/.cargo/bin/clawsnap", "%h/.cargo/bin/clawsnip"),
        ] {
            assert!((read(SERVICE) + &read(TIMER)).contains(right), "{right}");
            let Some(complaints) = complaints(&stage, |unit| unit.replace(right, wrong)) else { return };
            assert_ne!(complaints, "", "{wrong}");
        }
    }

    #[test]
    fn the_timer_fires_every_night_and_makes_up_for_what_it_missed() {
        let (stage, timer) = (home(), read(TIMER));
        assert_eq!(values(&timer, "Persistent"), ["true"]);
        assert_eq!(values(&timer, "WantedBy"), ["timers.target"]);
        let when = values(&timer, "OnCalendar");
        let Some(output) = analyze(&stage, &["calendar", "--iterations=3", &when[0]]) else { return };
        assert!(output.status.success() && when.len() == 1, "{}", said(&output));
        assert_eq!(said(&output).matches(" 03:17:00 ").count(), 3, "{}", said(&output));
    }

    /// By words, as systemd does without a shell.
    fn start(stage: &Stage) -> Output {
        let lines = values(&read(SERVICE), "ExecStart");
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line = lines[0].replace("%h", stage.path("home").to_str().expect("is text"));
        let mut words = line.split_whitespace();
        stage.at_home(words.next().expect("has a program")).args(words).output().expect("runs")
    }

    #[test]
    fn the_service_makes_a_proven_archive_and_no_second_one_of_the_same() {
        let stage = home();
        // What was just made is too young to be trusted.
        std::thread::sleep(std::time::Duration::from_millis(2500));
        for outcome in ["complete", "unchanged"] {
            assert_silent(&start(&stage), 0);
            let log = fs::read_to_string(stage.path("home/.clawsnap.log")).expect("is there");
            assert!(log.lines().last().is_some_and(|line| line.contains(&format!(" {outcome}"))), "{log}");
            assert_eq!(stage.kept("home/backups"), 1);
        }
        stage.assert_proven("home/backups");
    }

    #[test]
    fn the_service_fails_where_a_name_is_lost() {
        let broken = [&b"SQLite format 3\0"[..], &[0xaa; 8192]].concat();
        let stage = home().file("home/.openclaw/broken.sqlite", &broken);
        let output = start(&stage);
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
        assert_eq!(values(&read(SERVICE), "SuccessExitStatus"), [""; 0]);
        assert_eq!(values(&read(SERVICE), "Type"), ["oneshot"]);
    }
}

mod cron {
    use super::{CRON, assert_silent, fs, home, read, said};

    /// The command of a line, whose five fields are numbers within their bounds, `*`, `*/n` or `a-b`, by commas.
    fn command(line: &str) -> Result<String, String> {
        let mut rest = line;
        for (least, most) in [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)] {
            let (field, after) = rest.split_once(' ').ok_or_else(|| format!("too few fields: {line}"))?;
            if !field.split(',').all(|part| is_within(part, least, most)) {
                return Err(format!("{field} is not within {least} and {most}: {line}"));
            }
            rest = after.trim_start();
        }
        match rest {
            "" => Err(format!("no command: {line}")),
            // Cron makes a line end of it.
            _ if rest.contains('%') => Err(format!("a percent sign: {line}")),
            _ => Ok(rest.to_owned()),
        }
    }

    fn is_within(part: &str, least: u8, most: u8) -> bool {
        let number = |text: &str| {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u8>().ok().filter(|number| is_number && (least..=most).contains(number))
        };
        match (part.strip_prefix("*/"), part.split_once('-')) {
            (Some(step), _) => number(step).is_some_and(|step| step > 0),
            (None, Some((from, to))) => number(from).zip(number(to)).is_some_and(|(from, to)| from <= to),
            _ => part == "*" || number(part).is_some(),
        }
    }

    fn lines(text: &str) -> impl Iterator<Item = &str> {
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    }

    fn commands() -> [String; 2] {
        let all: Vec<String> = lines(&read(CRON)).map(|line| command(line).expect("is a line for cron")).collect();
        all.try_into().expect("two lines")
    }

    #[test]
    fn a_line_that_cron_would_refuse_is_noticed() {
        for line in ["17 3 * * *  x", "*/5 0-6 1,15 * 7 x y"] {
            assert!(command(line).is_ok(), "{line}");
        }
        for line in [
            "60 3 * * * x",
            "1 24 * * * x",
            "1 1 0 * * x",
            "1 1 * * x",
            "1 1 * * *",
            "+1 1 * * * x",
            "1 1 * * * date +%s",
        ] {
            assert!(command(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_nightly_line_makes_a_proven_archive_and_the_hourly_one_is_content() {
        let stage = home();
        let [nightly, hourly] = commands();
        for archives in [1, 2] {
            assert_silent(&stage.shell(&nightly), 0);
            assert_eq!(stage.kept("home/backups"), archives);
            assert_silent(&stage.shell(&hourly), 0);
        }
        stage.assert_proven("home/backups");
    }

    #[test]
    fn the_hourly_line_complains_where_there_is_no_archive_or_an_old_one() {
        let stage = home();
        let [nightly, hourly] = commands();
        assert_eq!(stage.shell(&hourly).status.code(), Some(1), "without a directory");
        fs::create_dir(stage.path("home/backups")).expect("makes a directory");
        let output = stage.shell(&hourly);
        assert_eq!(output.status.code(), Some(4));
        assert!(said(&output).contains("no archive is proven"), "{}", said(&output));
        assert_silent(&stage.shell(&format!("SOURCE_DATE_EPOCH=1700000000 {nightly}")), 0);
        let output = stage.shell(&hourly);
        assert_eq!(output.status.code(), Some(6));
        assert!(said(&output).contains("too old"), "{}", said(&output));
    }

    /// What a README that names the file quotes otherwise.
    fn misquoted<'a>(readme: &'a str, file: &str) -> Vec<&'a str> {
        let blocks = readme.split("\n```cron\n").skip(1).filter_map(|after| after.split("\n```").next());
        let quoted = blocks.flat_map(lines).filter(|_| readme.contains(CRON));
        quoted.filter(|quote| !lines(file).any(|line| line == *quote)).collect()
    }

    #[test]
    fn the_lines_that_the_readme_quotes_are_those_of_the_file() {
        assert_eq!(misquoted(&read("README.md"), &read(CRON)), [""; 0]);
        let readme = format!("{CRON}\n```cron\n1 1 * * *  x\n2 2 * * *  y\n```\n");
        assert_eq!(misquoted(&readme, "# z\n2 2 * * *  y\n"), ["1 1 * * *  x"]);
    }
}

mod upgrade {
    use super::{Output, PermissionsExt, SESSION, Stage, fs, home, in_checkout, said, text};

    const HARM: &str = "rm -r ~/.openclaw/agents; exit 7";

    fn upgrade(stage: &Stage, words: &[&str]) -> Output {
        stage.at_home(in_checkout("scripts/pre-upgrade")).args(words).output().expect("runs")
    }

    #[test]
    fn the_command_runs_once_there_is_a_proven_archive() {
        let stage = home();
        let output = upgrade(&stage, &["--", "sh", "-c", "ls ~/backups/clawsnap-*.tar.zst > ~/seen"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let seen = fs::read_to_string(stage.path("home/seen")).expect("the command ran");
        assert_eq!((seen.lines().count(), stage.kept("home/backups")), (1, 1));
        stage.assert_proven("home/backups");
    }

    #[test]
    fn a_command_that_fails_passes_its_exit_code_on_and_the_way_back_is_told_and_works() {
        let stage = home();
        let output = upgrade(&stage, &["--output", "elsewhere", "--", "sh", "-c", HARM]);
        assert_eq!(output.status.code(), Some(7), "{}", said(&output));
        assert_eq!((stage.kept("home/elsewhere"), stage.path(SESSION).exists()), (1, false));
        let told = text(&output.stderr);
        let way_back = told.lines().find_map(|line| line.strip_prefix("the way back: ")).expect("is told");
        let restored = stage.shell(&format!("PATH=$PATH:~/.cargo/bin; {way_back}"));
        assert_eq!(restored.status.code(), Some(0), "{way_back}: {}", said(&restored));
        assert_eq!(fs::read(stage.path(SESSION)).expect("is back"), b"{\"n\":1}\n");
    }

    #[test]
    fn a_rollback_brings_the_state_back_at_once() {
        let stage = home();
        let output = upgrade(&stage, &["--rollback", "--output=out/", "--", "sh", "-c", HARM]);
        assert_eq!(output.status.code(), Some(7), "{}", said(&output));
        assert_eq!(fs::read(stage.path(SESSION)).expect("is back"), b"{\"n\":1}\n");
        assert_eq!(stage.kept("home/out"), 1);
    }

    #[test]
    fn without_a_command_openclaw_is_upgraded_by_npm() {
        let stage = home();
        stage.write("bin/npm", b"#!/bin/sh\nprintf '%s\\n' \"$@\" > ~/npm\n");
        fs::set_permissions(stage.path("bin/npm"), fs::Permissions::from_mode(0o755)).expect("sets the mode");
        let output = upgrade(&stage, &[]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_eq!(fs::read_to_string(stage.path("home/npm")).expect("ran"), "install\n-g\nopenclaw@latest\n");
        assert_eq!(stage.kept("home/backups"), 1);
    }

    #[test]
    fn what_makes_no_sense_is_told_and_nothing_is_done() {
        let stage = home();
        for (words, reason) in [
            (&["--frobnicate"][..], "no such option: --frobnicate"),
            (&["--output"], "--output wants a directory"),
            (&["--"], "there is no command after --"),
            (&["npm", "install"], "a command stands after --: -- npm install"),
        ] {
            let output = upgrade(&stage, words);
            assert_eq!(output.status.code(), Some(2), "{words:?}: {}", said(&output));
            assert!(text(&output.stderr).contains(reason) && output.stdout.is_empty(), "{}", said(&output));
        }
        assert!(!stage.path("home/backups").exists());
        fs::remove_file(stage.path("home/.cargo/bin/clawsnap")).expect("removes");
        assert_eq!(upgrade(&stage, &["--", "touch", "made"]).status.code(), Some(127));
        assert!(!stage.path("home/made").exists());
    }

    #[test]
    fn the_help_tells_the_defaults() {
        let stage = home();
        let output = upgrade(&stage, &["--help"]);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
        for part in ["~/backups", "npm install -g openclaw@latest", "--rollback", "openclaw gateway stop"] {
            assert!(text(&output.stdout).contains(part), "{part}");
        }
    }
}
