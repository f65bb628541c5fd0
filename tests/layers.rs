//! The architecture, kept by reading the source: who may import whom, who may call the kernel, who may print.
//!
//! What is read is code alone: comments and strings are blanked first, and test modules cut out. Each check is tried on
//! something that it must refuse. An exception is listed by name, and one that nothing needs any more is refused too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Who stands on whom, from the ground up: a module imports from the layers below its own, and from itself.
const LAYERS: &[&[&str]] = &[
    &["gate"],
    &["relpath", "entry", "event", "lines"],
    &["sys"],
    &["naming", "fate", "report", "error", "transcript", "keep", "leftover"],
    &["plan", "output", "tree", "command", "way_back"],
    &["freeze", "lock"],
    &["archive"],
    &["verify", "seen"],
    &["shelf"],
    &["prune", "status"],
    &["create", "list"],
    &["survey", "restore", "sessions", "stage"],
    &["sweep", "guard"],
    // Ways in for the benchmarks, to whatever they measure.
    &["benching"],
    &["lib"],
    &["cli"],
];

/// Imports that go up. Each is a debt.
const UPWARD: &[(&str, &str)] = &[];

/// The crates that only some places may know.
const CONFINED: &[(&str, &[&str])] = &[
    ("rustix", &["src/sys/"]),
    ("landlock", &["src/sys/"]),
    ("nix", &["src/sys/", "src/cli/", "src/archive/tarball.rs"]),
    ("clap", &["src/cli/"]),
    ("clap_complete", &["src/cli/"]),
    ("clap_mangen", &["src/cli/"]),
    ("indicatif", &["src/cli/"]),
    ("color_eyre", &["src/cli/"]),
    ("rusqlite", &["src/freeze/database/"]),
    // What it cannot do for want of flags is made up for in one place.
    ("liblzma", &["src/archive/codec/"]),
];

/// Macros and functions that reach the terminal.
const PRINTING: &[&str] = &["print!", "println!", "eprint!", "eprintln!", "dbg!", "stdout(", "stderr("];

/// Where it may be reached; a child's streams, which are no terminal, are given to it in the others.
const PRINTERS: &[&str] = &["src/cli/", "src/freeze/database/helper.rs", "src/command.rs"];

/// Words that only somebody who knows OpenClaw says.
const OPENCLAW: &[&str] = &[".openclaw", "OPENCLAW_", ".clawdbot"];

const OPENCLAW_EXPERT: &str = "src/plan/";

/// Lines of a file.
const LONGEST_FILE: usize = 600;

/// Files that are longer.
const LONG_FILES: &[&str] = &["src/archive/codec/tests.rs"];

/// Lines of a function, its signature among them.
const LONGEST_FUNCTION: usize = 60;

/// A file, taken apart.
struct Source {
    /// Relative to the crate.
    path: String,
    lines: usize,
    /// The text with comments, strings and characters blanked, and test modules cut out.
    code: String,
    /// The strings in that code.
    strings: Vec<String>,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let whole = Pieces::of(text);
        let is_test = path.ends_with("/tests.rs") || !path.starts_with("src/");
        let tests = if is_test { std::iter::once(0..whole.code.len()).collect() } else { test_modules(&whole.code) };
        let mut code = whole.code.into_bytes();
        for range in &tests {
            code[range.clone()].iter_mut().filter(|c| **c != b'\n').for_each(|c| *c = b' ');
        }
        let outside = |at: &usize| !tests.iter().any(|range| range.contains(at));
        let strings = whole.strings.into_iter().filter(|(at, _)| outside(at)).map(|(_, string)| string).collect();
        let code = String::from_utf8(code).expect("is blanked by whole characters");
        Self { path: path.to_owned(), lines: text.lines().count(), code, strings }
    }

    /// The module right below the crate's root that the file belongs to.
    fn module(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        below.split(['/', '.']).next().unwrap_or(below)
    }

    /// How many modules lie between the file and the crate's root, itself among them.
    fn depth(&self) -> usize {
        let steps = self.path.matches('/').count();
        if self.path.ends_with("/mod.rs") { steps - 1 } else { steps }
    }

    /// The modules right below the crate's root that the file speaks of.
    fn imports(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for at in words(&self.code, "crate") {
            found.extend(first_segments(&self.code[at + "crate".len()..]));
        }
        let climb = "super::".repeat(self.depth());
        for (at, _) in self.code.match_indices(&climb).filter(|_| !climb.is_empty()) {
            found.extend(first_segments(&self.code[at + climb.len() - "::".len()..]));
        }
        found.remove("*");
        found
    }
}

/// A text whose comments, strings and characters are blanked, and the strings with the places where they stood.
#[derive(Default)]
struct Pieces {
    code: String,
    strings: Vec<(usize, String)>,
}

impl Pieces {
    fn of(text: &str) -> Self {
        let mut pieces = Self::default();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let taken = pieces.take(rest, c);
            rest = &rest[taken..];
        }
        pieces
    }

    /// Takes the next piece, and tells its length.
    fn take(&mut self, rest: &str, c: char) -> usize {
        let in_word = self.code.ends_with(|before: char| before.is_alphanumeric() || before == '_');
        let raw = if in_word { None } else { raw_string(rest) };
        if let Some((length, string)) = raw.or_else(|| quoted(rest)) {
            self.strings.push((self.code.len(), string));
            self.blank(&rest[..length]);
            return length;
        }
        let length = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '\'' => character(rest).unwrap_or(0),
            _ => 0,
        };
        match length {
            0 => self.code.push(c),
            _ => self.blank(&rest[..length]),
        }
        length.max(c.len_utf8())
    }

    fn blank(&mut self, piece: &str) {
        self.code.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
    }
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// `"…"`, whatever prefix stood before it.
fn quoted(text: &str) -> Option<(usize, String)> {
    let inner = text.strip_prefix('"')?;
    let mut escaped = false;
    let end = inner.find(|c: char| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    Some((end + 2, inner[..end].to_owned()))
}

/// `r"…"`, `r#"…"#`, `br#"…"#`.
fn raw_string(text: &str) -> Option<(usize, String)> {
    let after = text.strip_prefix('b').unwrap_or(text).strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let inner = after[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = inner.find(&close)?;
    Some((text.len() - inner.len() + end + close.len(), inner[..end].to_owned()))
}

/// `'x'`, `'\n'`, `'\u{1f}'`; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    let end = match first {
        '\\' => 2 + inner.get(2..)?.find('\'')?,
        _ => first.len_utf8(),
    };
    inner[end..].starts_with('\'').then_some(end + 2)
}

/// Where the modules for tests stand in blanked code.
fn test_modules(code: &str) -> Vec<std::ops::Range<usize>> {
    let marks = code.match_indices("#[cfg(test)]").map(|(at, _)| at);
    marks.map(|at| at..end_of_item(code, at)).collect()
}

/// Where the item that begins at `at` ends: after its semicolon, or its closing brace.
fn end_of_item(code: &str, at: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, c) in code[at..].char_indices() {
        match c {
            ';' if depth == 0 => return at + offset + 1,
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && c == '}' {
                    return at + offset + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// Where `word` stands in blanked code, not as a part of another word.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let ends_open = word.ends_with(|c: char| c.is_alphanumeric());
        let (before, after) = (code[..at].chars().next_back(), code[at + word.len()..].chars().next());
        !(is_part(before) || ends_open && is_part(after))
    })
}

/// The first names after `::`, which are several in `::{a::b, c}`.
fn first_segments(after: &str) -> Vec<String> {
    let Some(path) = after.strip_prefix("::") else { return Vec::new() };
    let name = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '*')).collect();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut depth = 0_i32;
    let mut names = vec![String::new()];
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => names.push(String::new()),
            _ => names.last_mut().expect("is never empty").push(c),
        }
        depth += i32::from(c == '{') - i32::from(c == '}');
    }
    names.iter().map(|text| name(text)).filter(|name: &String| !name.is_empty()).collect()
}

/// The layer of a module. What is no module is an item of the crate's root.
fn layer(module: &str) -> usize {
    let at = |wanted: &str| LAYERS.iter().position(|modules| modules.contains(&wanted));
    at(module).or_else(|| at("lib")).expect("the crate has a root")
}

/// The imports that do not go down.
fn upward(sources: &[Source]) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for source in sources.iter().filter(|source| !matches!(source.module(), "lib" | "main")) {
        let module = source.module();
        let others = source.imports().into_iter().filter(|other| other != module);
        found.extend(others.filter(|other| layer(other) >= layer(module)).map(|other| (module.to_owned(), other)));
    }
    found
}

/// The modules that no layer names.
fn unknown(sources: &[Source]) -> BTreeSet<&str> {
    let known: BTreeSet<&str> = LAYERS.iter().flat_map(|modules| modules.iter().copied()).chain(["main"]).collect();
    sources.iter().map(Source::module).filter(|module| !known.contains(module)).collect()
}

/// The places that say one of `wanted` without being one of `allowed`.
fn trespassers(sources: &[Source], wanted: &[&str], allowed: &[&str]) -> Vec<String> {
    let elsewhere = sources.iter().filter(|source| !allowed.iter().any(|place| source.path.starts_with(place)));
    let says = |source: &Source| wanted.iter().find(|word| words(&source.code, word).next().is_some()).copied();
    elsewhere.filter_map(|source| Some(format!("{} says {}", source.path, says(source)?))).collect()
}

/// The strings outside of [`OPENCLAW_EXPERT`] that only it should hold.
fn knowing_too_much(sources: &[Source]) -> Vec<String> {
    let others = sources.iter().filter(|source| !source.path.starts_with(OPENCLAW_EXPERT));
    let strings = others.flat_map(|source| source.strings.iter().map(|string| (&source.path, string)));
    // `{OPENCLAW_X}` is a constant of ours, put into a sentence.
    let says = |string: &str| OPENCLAW.iter().any(|word| string.replace("{OPENCLAW_", "").contains(word));
    let telling = strings.filter(|(_, string)| says(string));
    telling.map(|(path, string)| format!("{path}: {string:?}")).collect()
}

fn too_long(sources: &[Source]) -> Vec<String> {
    let long = sources.iter().filter(|source| source.lines > LONGEST_FILE);
    long.filter(|source| !LONG_FILES.contains(&&*source.path)).map(|source| source.path.clone()).collect()
}

/// All functions with their lengths in lines.
fn functions(sources: &[Source]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for source in sources {
        for at in words(&source.code, "fn") {
            let name: String = source.code[at + 2..].trim_start().chars().take_while(|c| !"(<".contains(*c)).collect();
            let end = end_of_item(&source.code, at);
            // A type such as `fn(u64) -> bool` has no name.
            if !name.is_empty() && source.code[at..end].ends_with('}') {
                found.push((source.code[at..end].lines().count(), format!("{} in {}", name, source.path)));
            }
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    found
}

/// The values of a table in a manifest, by key. A value that spans lines is its first one.
fn table<'a>(manifest: &'a str, name: &str) -> BTreeMap<&'a str, &'a str> {
    let header = format!("[{name}]");
    let lines = manifest.lines().map(str::trim).skip_while(|line| *line != header).skip(1);
    let own = lines.take_while(|line| !line.starts_with('['));
    own.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.trim(), value.trim())).collect()
}

fn forbids_unsafe(manifest: &str) -> bool {
    table(manifest, "lints.rust").get("unsafe_code") == Some(&r#""forbid""#)
}

/// The crates for the terminal that the core would be built with too.
fn unavoidable(manifest: &str) -> Vec<&'static str> {
    let dependencies = table(manifest, "dependencies");
    let optional = |name: &&str| dependencies.get(name).is_some_and(|value| value.contains("optional = true"));
    ["clap", "indicatif", "color-eyre"].into_iter().filter(|name| !optional(name)).collect()
}

fn crate_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn manifest() -> String {
    fs::read_to_string(crate_root().join("Cargo.toml")).expect("the crate has a manifest")
}

/// All Rust files below `dirs`.
fn read(dirs: &[&str]) -> Vec<Source> {
    let mut open: Vec<PathBuf> = dirs.iter().map(|dir| crate_root().join(dir)).filter(|dir| dir.is_dir()).collect();
    let mut sources = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).expect("lists").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let name = path.strip_prefix(crate_root()).expect("lies below").to_str().expect("is UTF-8");
            sources.push(Source::new(name, &fs::read_to_string(&path).expect("is readable")));
        }
    }
    sources
}

fn core() -> Vec<Source> {
    let sources = read(&["src"]);
    assert!(sources.len() > 40, "only {} files were found", sources.len());
    sources
}

const NONE: [String; 0] = [];

#[test]
fn imports_run_one_way() {
    let sources = core();
    assert_eq!(unknown(&sources), BTreeSet::new(), "a new module needs a layer");
    let allowed = UPWARD.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    assert_eq!(upward(&sources), allowed, "left: what goes up; right: what is known to");
    let archive = sources.iter().filter(|source| source.module() == "archive").flat_map(Source::imports);
    let archive: BTreeSet<String> = archive.collect();
    assert!(archive.contains("freeze") && archive.contains("sys"), "imports are found: {archive:?}");
}

#[test]
fn only_a_few_places_know_the_kernel_and_the_terminal() {
    let sources = core();
    for (name, allowed) in CONFINED {
        assert_eq!(trespassers(&sources, &[name], allowed), NONE);
        let exceptions = allowed.iter().filter(|place| place.ends_with(".rs"));
        for place in exceptions {
            let rest: Vec<&str> = allowed.iter().copied().filter(|other| other != place).collect();
            assert!(
                !trespassers(&sources, &[name], &rest).is_empty(),
                "{place} needs no exception for {name} any more"
            );
        }
    }
    assert_eq!(trespassers(&sources, PRINTING, PRINTERS), NONE);
    assert!(!trespassers(&sources, &["rustix"], &[]).is_empty() && !trespassers(&sources, PRINTING, &[]).is_empty());
}

#[test]
fn only_the_plan_knows_openclaw() {
    assert_eq!(knowing_too_much(&core()), NONE);
}

#[test]
fn the_crate_has_no_unsafe_code_and_its_core_needs_no_terminal() {
    let manifest = manifest();
    assert!(forbids_unsafe(&manifest));
    assert_eq!(unavoidable(&manifest), [""; 0]);
}

#[test]
fn files_and_functions_can_be_read_at_a_sitting() {
    let everything = read(&["src", "tests", "benches", "examples"]);
    assert_eq!(too_long(&everything), NONE);
    let still_long =
        |path: &&&str| everything.iter().any(|source| source.path == **path && source.lines > LONGEST_FILE);
    assert_eq!(LONG_FILES.iter().filter(still_long).count(), LONG_FILES.len(), "an exception is not needed any more");
    let functions = functions(&core());
    let quantile = |percent: usize| functions[functions.len() * (100 - percent) / 100].0;
    println!("{} functions: median {} lines, 90 % {} lines", functions.len(), quantile(50), quantile(90));
    functions.iter().take(12).for_each(|(lines, name)| println!("{lines:4} {name}"));
    assert!(functions[0].0 <= LONGEST_FUNCTION, "{:?}", functions[0]);
    assert!(quantile(50) <= 10 && quantile(90) <= 30);
}

#[test]
fn an_import_that_goes_up_is_refused() {
    let refused = |path: &str, text: &str| !upward(&[Source::new(path, text)]).is_empty();
    for (path, text) in [
        ("src/freeze/mod.rs", "use crate::archive::Codec;"),
        ("src/sys/dir.rs", "use crate::{entry::Kind, error::{Error, Result}};"),
        ("src/gate.rs", "fn f() -> crate::entry::Kind {}"),
        ("src/plan/rules.rs", "use crate::freeze::{self};"),
        ("src/output.rs", "use crate::plan::Plan;"),
        ("src/create.rs", "use crate::cli::Show;"),
        ("src/create.rs", "use crate::Output;"),
        ("src/sys/file.rs", "use super::super::report::Report;"),
        ("src/plan/mod.rs", "use super::create;"),
        ("src/gate.rs", "pub(in crate::cli) fn f() {}"),
        ("src/archive/codec/gzip.rs", "use super::super::super::verify;"),
    ] {
        assert!(refused(path, text), "{path}: {text}");
    }
    for (path, text) in [
        ("src/freeze/mod.rs", "use crate::plan::Class; use super::gate; use crate::freeze::choice;"),
        ("src/cli/run.rs", "use crate::{Create, Output}; use crate::report::Report;"),
        ("src/sys/file.rs", "use super::dir::Dir; // crate::cli"),
        ("src/gate.rs", "#[cfg(test)]\nmod tests { use super::*; use crate::cli; }"),
        ("src/gate.rs", "pub(crate) fn f() { \"crate::cli\" }"),
        ("src/archive/codec/gzip.rs", "use super::super::exact;"),
    ] {
        assert!(!refused(path, text), "{path}: {text}: {:?}", upward(&[Source::new(path, text)]));
    }
    assert_eq!(unknown(&[Source::new("src/new.rs", ""), Source::new("src/main.rs", "")]), BTreeSet::from(["new"]));
}

#[test]
fn a_trespasser_is_found() {
    let found = |path: &str, text: &str, words: &[&str]| trespassers(&[Source::new(path, text)], words, &["src/sys/"]);
    for text in ["use rustix::fs;", "fn f() { rustix::io::Errno::INTR }", "use {rustix as kernel};"] {
        assert_eq!(found("src/freeze/x.rs", text, &["rustix"]).len(), 1, "{text}");
    }
    for text in ["// rustix", "let x = \"rustix\";", "let rustixes = 1;", "/* a /* b */ rustix */", "r#\"\"rustix\"#"] {
        assert_eq!(found("src/freeze/x.rs", text, &["rustix"]), NONE, "{text}");
    }
    assert_eq!(found("src/sys/dir.rs", "use rustix::fs;", &["rustix"]), NONE);
    for text in ["print!(\"\")", "std::println!()", "{ dbg!(x) }", "io::stdout().lock()", "eprintln!(\"{x}\")"] {
        assert_eq!(found("src/create.rs", text, PRINTING).len(), 1, "{text}");
    }
    for text in [
        "self.finger.print(x)",
        "pretty_print!(x)",
        "fn print(out: X) {}",
        "\"println!\"",
        "#[cfg(test)] mod t { dbg!(1) }",
    ] {
        assert_eq!(found("src/create.rs", text, PRINTING), NONE, "{text}");
    }
}

#[test]
fn knowledge_of_openclaw_in_the_wrong_place_is_found() {
    let found = |path: &str, text: &str| knowing_too_much(&[Source::new(path, text)]).len();
    for text in ["env(\"OPENCLAW_STATE_DIR\")", "home.join(\".openclaw\")", "b\".openclaw-x\"", "r#\".clawdbot\"#"] {
        assert_eq!(found("src/create.rs", text), 1, "{text}");
        assert_eq!(found("src/plan/rules.rs", text), 0, "{text}");
    }
    for text in [
        "/// ~/.openclaw",
        "plan.openclaw",
        "const OPENCLAW_RATIO: u64 = 1;",
        "\"{OPENCLAW_RATIO} times\"",
        "'\"'; // \".openclaw\"",
    ] {
        assert_eq!(found("src/create.rs", text), 0, "{text}");
    }
}

#[test]
fn a_manifest_that_allows_too_much_is_found() {
    assert!(forbids_unsafe("[lints.rust]\nx = 1\nunsafe_code = \"forbid\"\n"));
    for text in ["", "[lints.rust]\nunsafe_code = \"deny\"\n", "[lints.rust]\n[other]\nunsafe_code = \"forbid\"\n"] {
        assert!(!forbids_unsafe(text), "{text}");
    }
    let text = "[dependencies]\nclap = { version = \"4\", optional = true }\nindicatif = \"0.18\"\n";
    assert_eq!(unavoidable(text), ["indicatif", "color-eyre"]);
}

#[test]
fn long_files_and_functions_are_found_with_their_lengths() {
    let text = "x\n".repeat(LONGEST_FILE + 1);
    let [long, short] = [Source::new("src/a.rs", &text), Source::new("src/b.rs", &text[2..])];
    assert_eq!(too_long(&[long, short]), ["src/a.rs"]);
    let text =
        "fn short() {}\ntrait T { fn none(&self); }\nfn long<T>(f: fn(u8))\nwhere T: Sized {\n  if x {\n '{'; }\n}\n";
    let found = functions(&[Source::new("src/a.rs", text)]);
    assert_eq!(found, [(5, "long in src/a.rs".to_owned()), (1, "short in src/a.rs".to_owned())]);
}

#[test]
fn a_text_is_taken_apart_into_code_and_strings() {
    let text = "let a = \"x\\\"y\"; 'a: loop { '\\''; b'\"'; } /* \" */ br##\"z\"#\"##; // \"\nfor \"u";
    let pieces = Pieces::of(text);
    let strings: Vec<&str> = pieces.strings.iter().map(|(_, string)| &**string).collect();
    assert_eq!(strings, ["x\\\"y", "z\"#"]);
    assert_eq!(pieces.code.split_whitespace().collect::<Vec<_>>().join(" "), "let a = ; 'a: loop { ; b ; } ; for \"u");
    assert_eq!(pieces.code.lines().count(), text.lines().count());
}
