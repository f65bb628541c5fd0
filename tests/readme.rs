//! The README is a test: what it lists is all that there is, and what it tells people to type is understood.

mod everything;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use clawsnap::fate::Fate;
use clawsnap::freeze::Way;
use clawsnap::report::{Outcome, Report};
use clawsnap::restore::{BroughtBack, Place, Restored};
use clawsnap::sessions::Session;
use clawsnap::status::{Doubted, Made, SourceStatus, State, Status};
use clawsnap::sweep::{Found, Purpose, Standing, Swept};
use clawsnap::verify::{Origin, Trust, Verdict};
use everything::{CAPTURES, full, name};
use serde_json::Value;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("is readable")
}

/// The part of the README below a heading, up to the next one.
fn section<'a>(readme: &'a str, heading: &str) -> &'a str {
    let (_, after) = readme.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("there is no {heading}"));
    after.split("\n#").next().unwrap_or(after)
}

/// The rows of the table whose first column has that title, cell by cell.
fn table(text: &str, title: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let inner = line.trim().trim_matches('|').replace("\\|", "\u{0}");
        inner.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect::<Vec<String>>()
    };
    let rows = text.lines().skip_while(|line| !line.starts_with(&format!("| {title} |")));
    rows.skip(2).take_while(|line| line.starts_with('|')).map(cells).collect()
}

/// What stands in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The fields that a first column lists: "`a`, `b[]`", or "`a`: `b`, `c`" for those within another.
fn listed_fields(cell: &str) -> Vec<String> {
    match cell.split_once(':') {
        Some((parent, inner)) => {
            let parent = quoted(parent).join("");
            quoted(inner).into_iter().map(|name| format!("{parent}.{name}")).collect()
        }
        None => quoted(cell).into_iter().map(str::to_owned).collect(),
    }
}

/// The paths of all leaves: `a`, `b[].c`, `d[]`.
fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(inner, &path, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| leaves(item, &format!("{path}[]"), found)),
        _ => drop(found.insert(path.to_owned())),
    }
}

/// Which names are in one list alone.
fn differences(documented: &BTreeSet<String>, there: &BTreeSet<String>) -> Vec<String> {
    let missing = there.difference(documented).map(|name| format!("{name} is not documented"));
    missing.chain(documented.difference(there).map(|name| format!("{name} does not exist"))).collect()
}

fn documented_fields(readme: &str) -> BTreeSet<String> {
    let rows = table(section(readme, "### `--json`"), "field");
    rows.iter().flat_map(|row| listed_fields(&row[0])).collect()
}

fn fields_of(report: &Report) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    leaves(&serde_json::to_value(report).expect("serializes"), "", &mut found);
    found
}

#[test]
fn every_field_of_the_report_is_documented_and_no_other() {
    let (documented, there) = (documented_fields(&read("README.md")), fields_of(&full()));
    assert!(there.len() > 70, "{there:?}");
    assert_eq!(differences(&documented, &there), [""; 0]);
}

#[test]
fn a_field_that_is_missing_or_invented_is_noticed() {
    let readme = "\n### `--json`\n\n| field | meaning |\n|---|---|\n| `rounds`, `moon` | a |\n| `assets[]`: `kind`, `weight` | b |\n\n";
    let documented = documented_fields(readme);
    assert_eq!(documented.iter().collect::<Vec<_>>(), ["assets[].kind", "assets[].weight", "moon", "rounds"]);
    let found = differences(&documented, &fields_of(&full()));
    for line in ["moon does not exist", "assets[].weight does not exist", "counts.torn is not documented"] {
        assert!(found.iter().any(|found| found == line), "{line}: {found:?}");
    }
    assert!(!found.iter().any(|line| line.starts_with("rounds") || line.starts_with("assets[].kind")), "{found:?}");
}

#[test]
fn every_field_of_a_verdict_is_documented() {
    let text = || Some("x".to_owned());
    let verdict = Verdict {
        archive_path: name(),
        trust: Trust::Proven,
        error: text(),
        origin: Some(Origin::Clawsnap),
        archive_root: text(),
        created_at: text(),
        consistent: text(),
        instant: text(),
        archive_bytes: 1,
        entries: 1,
        bytes: 1,
        flagged: 1,
        losses: 1,
        databases: 1,
        inventory_blake3: text(),
        warnings: vec!["x".to_owned()],
        elapsed_milliseconds: 1,
    };
    assert_told(&verdict);
}

#[test]
fn every_field_of_a_session_is_explained() {
    let text = || "x".to_owned();
    let session = Session {
        agent: text(),
        id: text(),
        path: name(),
        state: clawsnap::transcript::State::Current,
        fate: text(),
        records: 1,
        unparsed: 1,
        first_message: Some(text()),
        last_time: text(),
    };
    assert_told(&session);
}

#[test]
fn every_field_of_a_restore_and_of_the_way_back_is_documented() {
    let place = Place { path: name(), restored_to: name(), kept: Some(name()) };
    let restored = Restored {
        target: Some(name()),
        places: vec![place.clone()],
        error: Some("x".to_owned()),
        warnings: vec!["x".to_owned()],
        ..Restored::default()
    };
    assert_told(&restored);
    assert_told(&place);
    assert_told(&BroughtBack { error: Some("x".to_owned()), warnings: vec!["x".to_owned()], ..BroughtBack::default() });
}

#[test]
fn every_field_of_a_status_and_every_metric_is_documented() {
    let made = Made { elapsed_milliseconds: Some(1), ..Made::default() };
    let source = SourceStatus { newest: made.clone(), archives: vec![made.clone()], ..SourceStatus::default() };
    let sources = vec![source.clone()];
    let doubted = Doubted { path: name(), error: "x".to_owned() };
    let mut status = Status { sources, unproven: vec![doubted.clone()], max_age_seconds: Some(1), ..Status::default() };
    let metrics = clawsnap::status::metrics(&status);
    status.error = Some("x".to_owned());
    let readme = read("README.md");
    let section = section(&readme, "### `clawsnap prune` and `status`");
    let all = [
        untold_in(section, &made),
        untold_in(section, &source),
        untold_in(section, &doubted),
        untold_in(section, &status),
    ];
    assert_eq!(all.concat(), [""; 0]);
    let there = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let told: BTreeSet<&str> = quoted(section).into_iter().filter(|word| word.starts_with("clawsnap_")).collect();
    assert_eq!(told, there.collect());
    for state in [State::Fresh, State::Lossy, State::Unproven, State::Old, State::Missing, State::Failed] {
        assert!(quoted(section).contains(&state.as_str()), "{state:?}");
    }
}

#[test]
fn every_field_and_word_of_a_sweep_is_documented() {
    let text = || Some("x".to_owned());
    assert_told(&Swept { error: text(), ..Swept::default() });
    let readme = read("README.md");
    let words = quoted(section(&readme, "### `clawsnap verify`, `list` and `restore`"));
    for purpose in [Purpose::Staging, Purpose::Draft, Purpose::Swap] {
        assert_told(&Found { path: name(), purpose, standing: Standing::Busy, reason: text(), command: text() });
        let word = serde_json::to_value(purpose).expect("serializes");
        assert!(words.contains(&word.as_str().expect("a word")), "{word}");
    }
    use Standing::{Busy, Foreign, Removable, Removed, Stuck, Unfinished};
    for standing in [Busy, Foreign, Removable, Removed, Stuck, Unfinished] {
        let word = serde_json::to_value(standing).expect("serializes");
        assert!(words.contains(&word.as_str().expect("a word")), "{word}");
    }
}

/// The README names each field of it.
fn assert_told(said: &impl serde::Serialize) {
    let readme = read("README.md");
    let section = section(&readme, "### `clawsnap verify`, `list` and `restore`");
    assert_eq!(untold_in(section, said), [""; 0]);
}

/// The fields that a section does not name.
fn untold_in(section: &str, said: &impl serde::Serialize) -> Vec<String> {
    let told: BTreeSet<&str> = quoted(section).into_iter().map(|word| word.trim_end_matches("[]")).collect();
    let value = serde_json::to_value(said).expect("serializes");
    let fields = value.as_object().expect("an object").keys();
    fields.filter(|field| !told.contains(field.as_str())).cloned().collect()
}

#[test]
fn the_fates_are_those_of_the_code() {
    let reason = || Box::<str>::from("x");
    let all = [
        Fate::Kept,
        Fate::Prefix,
        Fate::Later,
        Fate::Departed,
        Fate::Excluded(reason()),
        Fate::Folded(reason()),
        Fate::Torn(reason()),
        Fate::Hollow(reason()),
        Fate::Lost(reason()),
    ];
    let rows = table(section(&read("README.md"), "## The report"), "fate");
    let told: BTreeMap<String, (bool, bool)> =
        rows.iter().map(|row| (quoted(&row[0]).join(""), (!row[1].starts_with("no:"), row[2] == "**yes**"))).collect();
    let there = all.map(|fate| (fate.as_str().to_owned(), (fate.is_archived(), fate.is_loss())));
    assert_eq!(told, there.into());
}

#[test]
fn the_exit_codes_are_those_of_the_code() {
    let rows = table(section(&read("README.md"), "## The report"), "exit code");
    let told: BTreeMap<String, String> = rows.iter().map(|row| (quoted(&row[1]).join(""), row[0].clone())).collect();
    let all = [
        Outcome::Complete,
        Outcome::Unchanged,
        Outcome::Lossy,
        Outcome::Failed,
        Outcome::Usage,
        Outcome::Unproven,
        Outcome::Locked,
        Outcome::Cancelled,
    ];
    let there = all.map(|outcome| {
        let report = Report { outcome, signal: Some(2), ..Report::default() };
        let code = if outcome == Outcome::Cancelled { "128+n".to_owned() } else { report.exit_code().to_string() };
        let name = serde_json::to_value(outcome).expect("serializes");
        (name.as_str().expect("is a string").to_owned(), code)
    });
    assert_eq!(told, there.into());
}

#[test]
fn the_captures_are_those_of_the_code() {
    let rows = table(section(&read("README.md"), "## What is frozen, and how"), "how");
    let told: BTreeSet<String> = rows.iter().map(|row| quoted(&row[0]).join("")).collect();
    assert_eq!(told, CAPTURES.map(|capture| capture.as_str().to_owned()).into());
    let limit = clawsnap::freeze::Options::default().hold_limit >> 20;
    assert!(rows.iter().any(|row| row[2].contains(&format!("up to {limit} MiB each"))), "{limit} MiB");
}

#[test]
fn the_ways_to_copy_a_database_are_those_of_the_code() {
    let rows = table(section(&read("README.md"), "## What is frozen, and how"), "way");
    let told: Vec<String> = rows.iter().map(|row| quoted(&row[0]).join("")).collect();
    assert_eq!(told, Way::ALL.map(|way| way.as_str().to_owned()));
}

/// The names of rules in the code that leaves things out.
fn rules() -> BTreeSet<String> {
    let code = read("src/plan/habits.rs") + &read("src/plan/rules.rs");
    let regenerable = code.split('"').filter_map(|string| string.strip_prefix("regenerable:"));
    regenerable
        .filter(|rule| rule.bytes().all(|c| c.is_ascii_lowercase() || b"-_".contains(&c)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_rule_that_leaves_something_out_is_named() {
    let readme = read("README.md");
    let told: BTreeSet<&str> = quoted(section(&readme, "## What is frozen, and how")).into_iter().collect();
    let rules = rules();
    assert!(rules.contains("npm") && rules.len() > 10, "{rules:?}");
    let others = ["socket", "special-file", "clawsnap", "workspace", "pid", "lock", "temporary"].map(str::to_owned);
    let unnamed: Vec<&String> = rules.iter().chain(&others).filter(|rule| !told.contains(&***rule)).collect();
    assert_eq!(unnamed, [""; 0]);
}

#[test]
fn every_field_of_an_inventory_line_is_named() {
    let code = read("src/archive/inventory.rs");
    let (_, line) = code.split_once("struct Line {").expect("there are lines");
    let fields =
        line.lines().take_while(|line| *line != "}").filter_map(|line| line.trim().strip_prefix("pub(crate) "));
    let there: BTreeSet<String> = fields.filter_map(|field| Some(field.split_once(':')?.0.to_owned())).collect();
    let readme = read("README.md");
    let (_, paragraph) = readme.split_once("A line of the inventory has ").expect("tells");
    let told = quoted(paragraph.split("\n\n").next().unwrap_or(paragraph)).into_iter().map(str::to_owned).collect();
    assert!(there.contains("blake3"), "{there:?}");
    assert_eq!(differences(&told, &there), [""; 0]);
}

#[test]
fn the_promise_is_that_of_the_library_in_five_sentences() {
    let bold = |text: &str| -> Vec<String> {
        let items = text.lines().map(|line| line.trim_start_matches("//!").trim());
        let heads = items.filter_map(|line| line.split_once(". **")?.1.split_once("**"));
        heads.map(|(head, _)| head.to_owned()).collect()
    };
    let readme = read("README.md");
    let promise = section(&readme, "## The promise");
    assert_eq!(bold(promise), bold(&read("src/lib.rs")));
    let items: Vec<&str> = promise.split("**").skip(2).step_by(2).collect();
    assert_eq!(items.len(), 5);
    for item in items {
        // The number of the next item stands at the end of this one.
        let is_number = |line: &&str| line.trim().trim_end_matches('.').parse::<u32>().is_ok();
        let text: Vec<&str> = item.lines().filter(|line| !is_number(line)).map(str::trim).collect();
        let text = text.join(" ");
        let text = text.trim();
        assert!(text.ends_with('.') && !text.contains(". "), "one sentence: {text}");
    }
}

/// The parts of the README that scripts write.
const MARKS: [&str; 2] = ["bench-peers", "prove"];

#[test]
fn the_readme_is_short_and_what_it_points_to_is_there() {
    let readme = read("README.md");
    // What scripts put between marks is as long as what they found.
    let written = MARKS.iter().fold(readme.clone(), |text, mark| {
        let (before, after) = text.split_once(&format!("<!-- {mark} -->")).expect("has the mark");
        format!("{before}{}", after.split_once(&format!("<!-- /{mark} -->")).expect("has its end").1)
    });
    assert!(written.lines().count() < 450);
    let words = readme.split(|c: char| c.is_whitespace() || "`,:()".contains(c));
    let scripts: BTreeSet<&str> = words.filter(|word| word.starts_with("scripts/")).collect();
    assert!(scripts.len() >= 2, "{scripts:?}");
    for name in scripts.into_iter().chain(["LICENSE", "LICENSE-MIT", "LICENSE-APACHE", "CHANGELOG.md"]) {
        assert!(!read(name).is_empty(), "{name}");
    }
    assert!(read("benches/freeze.rs").contains("cp -al") && readme.contains("cargo bench --bench freeze"));
}

/// What people type.
#[cfg(feature = "cli")]
mod commands {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::process::{Command, Output};

    use super::*;

    /// In the place of the programs that the README has clawsnap run: nothing is to be installed, or sent anywhere.
    const FAKE: &str = "#!/bin/sh\nexit 0\n";

    /// The words after each `clawsnap` in the blocks of code, as the shell would give them.
    fn commands(readme: &str) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        let mut language = None;
        for line in readme.lines() {
            match (line.strip_prefix("```"), language) {
                (Some(_), Some(_)) => language = None,
                (Some(opened), None) => language = Some(opened),
                (None, Some("sh" | "cron")) => found.extend(command(line)),
                _ => {}
            }
        }
        found
    }

    /// The words after `clawsnap` up to the end of that command.
    fn command(line: &str) -> Option<Vec<String>> {
        let words = words(line);
        let at = words.iter().position(|word| word.rsplit('/').next() == Some("clawsnap"))?;
        let ends = |word: &&String| !matches!(word.as_str(), "|" | "||" | "&&" | ";" | "&" | ">" | "}" | ")");
        Some(words[at + 1..].iter().take_while(ends).cloned().collect())
    }

    /// Splits at blanks outside of quotes; a comment ends the line.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quote = None;
        for c in line.chars() {
            let word = words.last_mut().expect("is never empty");
            match (c, quote) {
                ('#', None) if word.is_empty() => break,
                ('\'' | '"', None) => quote = Some(c),
                _ if quote == Some(c) => quote = None,
                (' ', None) => words.push(String::new()),
                (';', None) => words.extend([";".to_owned(), String::new()]),
                _ => word.push(c),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    /// A home with a small state directory, and what the README's examples name.
    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().expect("makes a directory");
        for (name, contents) in [
            (".openclaw/openclaw.json", "{}"),
            (".openclaw/agents/main/sessions/4f1c0a3e-7.jsonl", "{}\n"),
            ("notes/a.txt", "a"),
            ("backups/.keep", ""),
            ("bin/npm", FAKE),
            ("bin/openclaw", FAKE),
            ("bin/restic", FAKE),
            ("bin/borg", FAKE),
            ("bin/rclone", FAKE),
            ("bin/rsync", FAKE),
        ] {
            let path = home.path().join(name);
            fs::create_dir_all(path.parent().expect("has one")).expect("makes a directory");
            fs::write(&path, contents).expect("writes");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("sets");
        }
        for output in ["~/backups/claw.tar.zst", "~/backups/"] {
            let archive = ["create", "-o", output].map(str::to_owned);
            assert_eq!(run(&archive, home.path(), false).status.code(), Some(0));
        }
        home
    }

    fn run(words: &[String], home: &Path, dry: bool) -> Output {
        let in_home =
            |word: &String| word.strip_prefix("~/").map_or_else(|| PathBuf::from(word), |rest| home.join(rest));
        let mut command = Command::new(env!("CARGO_BIN_EXE_clawsnap"));
        let is_create = words.first().is_some_and(|word| word == "create");
        let is_said = !is_create || words.iter().any(|word| word == "--dry-run" || word == "--help");
        command.args(words.iter().map(in_home)).args((dry && !is_said).then_some("--dry-run"));
        command.env_clear().env("HOME", home).env("PATH", home.join("bin")).current_dir(home).output().expect("runs")
    }

    /// Whether the command line itself was not understood, as opposed to what it asks for being impossible here.
    fn is_misunderstood(output: &Output) -> bool {
        let said = String::from_utf8_lossy(&output.stderr);
        output.status.code() == Some(2) && said.contains("--help")
    }

    #[test]
    fn every_command_is_understood() {
        let home = home();
        let commands = commands(&read("README.md"));
        assert!(commands.len() >= 8, "{commands:?}");
        for words in commands {
            let output = run(&words, home.path(), true);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!is_misunderstood(&output), "{words:?}: {said}");
            assert!(matches!(output.status.code(), Some(0 | 3)), "{words:?}: {said}");
        }
    }

    #[test]
    fn a_command_that_is_not_understood_is_noticed() {
        let home = home();
        let readme = "```sh\nclawsnap create --frobnicate # no\nx && clawsnap melt; y\n```\n`clawsnap nothing`\n";
        let commands = commands(readme);
        assert_eq!(commands, [vec!["create", "--frobnicate"], vec!["melt"]]);
        for words in commands {
            assert!(is_misunderstood(&run(&words, home.path(), true)), "{words:?}");
        }
        let impossible = ["create".to_owned(), "/no/such/place".to_owned()];
        assert!(!is_misunderstood(&run(&impossible, home.path(), true)));
    }

    #[test]
    fn a_line_is_split_as_the_shell_does() {
        let line = "{ ~/bin/clawsnap create -o 'a b' || [ $? -eq 3 ]; } && x";
        assert_eq!(command(line).expect("is one"), ["create", "-o", "a b"]);
        assert_eq!(command("# clawsnap create"), None);
        assert_eq!(command("cargo install clawsnap-x"), None);
    }

    /// The labels of the rows of a report.
    fn labels(page: &str) -> BTreeSet<String> {
        let rows = page.lines().filter_map(|line| line.strip_prefix("  ")).filter(|row| !row.starts_with(' '));
        rows.map(|row| row.get(..11).unwrap_or(row).trim().to_owned()).collect()
    }

    #[test]
    fn every_row_of_a_report_is_explained() {
        let home = home();
        let readme = read("README.md");
        let report = section(&readme, "## The report");
        let (_, block) = report.split_once("```text\n").expect("shows one");
        let (shown, prose) = block.split_once("```").expect("ends");
        let mut told = labels(shown);
        told.extend(quoted(prose).into_iter().map(str::to_owned));
        for dry in [true, false] {
            let words = ["create", "-o", "~/backups/"].map(str::to_owned);
            let output = run(&words, home.path(), dry);
            let page = String::from_utf8_lossy(&output.stdout).into_owned();
            let there = labels(&page);
            assert!(there.contains("archive") && there.len() > 4, "{page}");
            assert_eq!(there.difference(&told).collect::<Vec<_>>(), [""; 0], "{page}");
        }
        let code = read("src/cli/summary.rs") + &read("src/cli/dry_run.rs");
        let rows = ["page.row(\"", "page.row_if(\"", "page.list(\"", "&mut page, \""];
        for label in rows.iter().flat_map(|row| code.split(row).skip(1)).filter_map(|after| after.split('"').next()) {
            assert!(label.is_empty() || told.contains(label), "{label}");
        }
    }
}
