//! The patterns by which people leave things out.
//!
//! A pattern means what it means in a `.gitignore`, but for absolute ones:
//! - without a slash, it matches the name of anything at any depth: `node_modules`, `*.log`;
//! - with a slash, it matches from the top of each source: `logs/*.log`, `./logs`, `**/cache/**`;
//! - with a slash at its end, it matches directories only;
//! - starting with `/` or `~/`, it matches absolute paths.
//!
//! `*` and `?` stop at slashes, `**` does not; `[abc]`, `{a,b}` and `\` work as usual. What a matched directory holds
//! is left out with it. A pattern that starts with `!` is refused: nothing that was left out can be taken back in.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};

use super::environment::{Environment, expand};
use super::error::PlanError;
use super::root::canonical_prefix;
use crate::entry::Kind;
use crate::relpath::joined;

/// Patterns that are matched against the same part of a path.
#[derive(Clone, Debug, Default)]
struct Group {
    set: GlobSet,
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    rule: String,
    glob: String,
    directories_only: bool,
}

impl Group {
    fn of(patterns: Vec<Pattern>) -> Result<Self, PlanError> {
        let mut builder = GlobSetBuilder::new();
        for pattern in &patterns {
            let glob = GlobBuilder::new(&pattern.glob).literal_separator(true).backslash_escape(true).build();
            builder.add(glob.map_err(|error| bad(&pattern.glob, error.kind().to_string()))?);
        }
        let set = builder.build().map_err(|error| bad("", error.kind().to_string()))?;
        Ok(Self { set, patterns })
    }

    fn find(&self, path: &[u8], kind: Kind) -> Option<&str> {
        if self.patterns.is_empty() {
            return None;
        }
        let candidate = Candidate::from_bytes(path);
        if !self.set.is_match_candidate(&candidate) {
            return None;
        }
        let hits = self.set.matches_candidate(&candidate);
        let mut hit = hits.iter().map(|&index| &self.patterns[index]);
        hit.find(|pattern| !pattern.directories_only || kind == Kind::Directory).map(|pattern| pattern.rule.as_str())
    }
}

/// The patterns by which people leave things out.
#[derive(Clone, Debug, Default)]
pub(super) struct Excludes {
    names: Group,
    rooted: Group,
    absolute: Group,
    /// The absolute ones again, with the last name resolved too where it is a symbolic link, as sources are: who names a
    /// link to a source means the source, and who names a link in a source means the link.
    sources: Group,
}

impl Excludes {
    /// Understands the patterns, in the sense of the module's documentation.
    pub(super) fn parse(patterns: &[String], environment: &Environment) -> Result<Self, PlanError> {
        let (mut names, mut rooted, mut absolute, mut sources) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for written in patterns {
            let (place, pattern) = understood(written)?;
            match place {
                Place::Name => names.push(pattern),
                Place::Rooted => rooted.push(pattern),
                Place::Absolute => {
                    let resolved = |how| Pattern { glob: resolved(&pattern.glob, environment, how), ..pattern.clone() };
                    absolute.push(resolved(canonical_parent));
                    sources.push(resolved(canonical_prefix));
                }
            }
        }
        let (names, rooted) = (Group::of(names)?, Group::of(rooted)?);
        Ok(Self { names, rooted, absolute: Group::of(absolute)?, sources: Group::of(sources)? })
    }

    /// The rule that leaves out `path` in the source at `root`.
    #[inline]
    pub(super) fn find(&self, root: &Path, path: &[u8], name: &[u8], kind: Kind) -> Option<&str> {
        let found = self.names.find(name, kind).or_else(|| self.rooted.find(path, kind));
        if found.is_some() || self.absolute.patterns.is_empty() {
            return found;
        }
        self.absolute.find(&joined(root.as_os_str().as_bytes(), path), kind)
    }

    /// The rule that leaves out a whole source, because an absolute pattern names it or a directory that holds it.
    pub(super) fn find_root(&self, root: &Path) -> Option<&str> {
        let kind = if root.is_dir() { Kind::Directory } else { Kind::File };
        let itself = self.sources.find(root.as_os_str().as_bytes(), kind);
        itself.or_else(|| {
            let mut above = root.ancestors().skip(1);
            above.find_map(|dir| self.sources.find(dir.as_os_str().as_bytes(), Kind::Directory))
        })
    }

    /// The absolute patterns whose fixed part neither lies in nor leads to one of `roots`.
    pub(super) fn idle<'a>(&'a self, roots: &'a [PathBuf]) -> impl Iterator<Item = &'a str> {
        let fixed = |pattern: &Pattern| PathBuf::from(split_fixed(&pattern.glob).0);
        self.absolute.patterns.iter().zip(&self.sources.patterns).filter_map(move |(pattern, source)| {
            let (inner, outer) = (fixed(pattern), fixed(source));
            let touches =
                |root: &PathBuf| inner.starts_with(root) || root.starts_with(&inner) || root.starts_with(&outer);
            (!roots.iter().any(touches)).then_some(pattern.rule.trim_start_matches("exclude:"))
        })
    }
}

enum Place {
    Name,
    Rooted,
    Absolute,
}

fn understood(written: &str) -> Result<(Place, Pattern), PlanError> {
    if written.starts_with('!') {
        return Err(bad(
            written,
            "what was left out cannot be taken back in; for a name that starts with !, write \\!",
        ));
    }
    let trimmed = written.trim_end_matches('/');
    let body = trimmed.strip_prefix("./").unwrap_or(trimmed);
    if body.is_empty() || body == "." {
        return Err(bad(written, "it is empty"));
    }
    if body.split('/').any(|component| component == "..") {
        return Err(bad(written, "no path in an archive contains .."));
    }
    let place = match body {
        _ if is_absolute(body) => Place::Absolute,
        _ if trimmed.contains('/') => Place::Rooted,
        _ => Place::Name,
    };
    let directories_only = trimmed.len() < written.len();
    Ok((place, Pattern { rule: format!("exclude:{written}"), glob: body.to_owned(), directories_only }))
}

fn is_absolute(pattern: &str) -> bool {
    pattern.starts_with('/') || pattern == "~" || pattern.starts_with("~/")
}

/// The fixed part of an absolute pattern, with symbolic links resolved: all of them where more follows, else as `whole`
/// does; and the rest.
fn resolved(pattern: &str, environment: &Environment, whole: fn(&Path) -> PathBuf) -> String {
    let (fixed, rest) = split_fixed(pattern);
    let home = environment.effective_home();
    let resolve = if rest.is_empty() { whole } else { canonical_prefix };
    let real = resolve(&expand(Path::new(fixed), Some(&home)));
    match real.to_str() {
        Some(real) if rest.is_empty() => globset::escape(real),
        Some(real) => format!("{}/{rest}", globset::escape(real.trim_end_matches('/'))),
        None => pattern.to_owned(),
    }
}

/// With the symbolic links above the last name resolved.
fn canonical_parent(path: &Path) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => canonical_prefix(parent).join(name),
        _ => path.to_owned(),
    }
}

/// The leading components without glob characters, and the rest.
fn split_fixed(pattern: &str) -> (&str, &str) {
    match pattern.find(['*', '?', '[', '{', '\\']) {
        None => (pattern, ""),
        Some(special) => {
            let slash = pattern[..special].rfind('/').unwrap_or(0);
            (if slash == 0 { "/" } else { &pattern[..slash] }, &pattern[slash + 1..])
        }
    }
}

fn bad(pattern: &str, cause: impl Into<String>) -> PlanError {
    PlanError::BadPattern { pattern: pattern.to_owned(), cause: cause.into() }
}

/// Reads exclude patterns from a file: one a line; blank lines and lines that start with `#` say nothing.
///
/// # Errors
/// [`PlanError::ExcludeFile`] where the file cannot be read or is not UTF-8.
pub fn read_exclude_file(path: &Path) -> Result<Vec<String>, PlanError> {
    let text = std::fs::read_to_string(path).map_err(|error| PlanError::ExcludeFile(path.to_path_buf(), error))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    // Trailing blanks mean nothing, as in a .gitignore; they also take a CR.
    let lines = text.lines().map(str::trim_end);
    Ok(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pattern: &str) -> Result<Excludes, PlanError> {
        let environment = Environment { home: Some("/home/u".into()), ..Environment::default() };
        Excludes::parse(&[pattern.to_owned()], &environment)
    }

    fn matches(pattern: &str, path: &str, kind: Kind) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        let excludes = parsed(pattern).expect("a good pattern");
        excludes.find(Path::new("/home/u/src"), path.as_bytes(), name.as_bytes(), kind).is_some()
    }

    #[test]
    fn patterns_mean_what_they_mean_in_a_gitignore() {
        let table = [
            ("*.log", "a.log", true),
            ("*.log", "a/b/c.log", true),
            ("*.log", "a.log/b", false),
            ("node_modules", "x/node_modules", true),
            ("logs/*.log", "logs/a.log", true),
            ("logs/*.log", "x/logs/a.log", false),
            ("logs/*.log", "logs/a/b.log", false),
            ("./logs", "logs", true),
            ("./logs", "a/logs", false),
            ("**/cache/**", "a/cache/b/c", true),
            ("a/**/z", "a/z", true),
            ("{a,b}c", "x/bc", true),
            ("[!a]x", "bx", true),
            ("\\!x", "!x", true),
            ("~/src/a*", "abc", true),
            ("~/src/a*", "b/abc", false),
            ("/home/u/src/a", "a", true),
            ("/a", "a", false),
            ("/home/*/src/a", "a", true),
            ("/home/u/other", "other", false),
        ];
        for (pattern, path, expected) in table {
            assert_eq!(matches(pattern, path, Kind::File), expected, "{pattern} against {path}");
        }
    }

    #[test]
    fn a_trailing_slash_means_directories_only() {
        for pattern in ["tmp/", "./tmp/", "~/src/tmp/"] {
            assert!(matches(pattern, "tmp", Kind::Directory), "{pattern}");
            assert!(!matches(pattern, "tmp", Kind::File), "{pattern}");
        }
        assert!(matches("tmp/", "a/tmp", Kind::Directory), "the slash at the end does not bind it to the top");
    }

    #[test]
    fn a_bad_pattern_is_refused_by_name() {
        for pattern in ["[a", "", "/", "!keep", "a/../b", "{a"] {
            let error = parsed(pattern).expect_err(pattern).to_string();
            assert!(error.contains(&format!("{pattern:?}")), "{error}");
        }
    }

    #[test]
    fn the_rule_names_the_pattern_as_it_was_written() {
        let excludes = parsed("tmp/").expect("good");
        assert_eq!(excludes.find(Path::new("/"), b"tmp", b"tmp", Kind::Directory), Some("exclude:tmp/"));
    }

    #[test]
    fn an_absolute_pattern_leaves_out_whole_sources_and_says_when_it_touches_none() {
        let excludes = parsed("/data/w*").expect("good");
        assert_eq!(excludes.find_root(Path::new("/data/ws")), Some("exclude:/data/w*"));
        assert_eq!(excludes.find_root(Path::new("/data/ws/inner")), Some("exclude:/data/w*"));
        assert_eq!(excludes.find_root(Path::new("/data/x")), None);
        assert_eq!(excludes.idle(&["/data/x".into()]).count(), 0);
        assert_eq!(excludes.idle(&["/srv".into()]).collect::<Vec<_>>(), ["/data/w*"]);
    }

    #[test]
    fn an_absolute_pattern_through_a_link_matches_the_real_path() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let real = dir.path().canonicalize().expect("canonical").join("real");
        std::fs::create_dir(&real).expect("directory");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).expect("link");
        let excludes = parsed(&format!("{}/*.log", link.display())).expect("good");
        assert!(excludes.find(&real, b"a.log", b"a.log", Kind::File).is_some());
    }

    /// `--exclude ~/notes/current` of a link to `2026` left out `2026`, and kept the link.
    #[test]
    fn an_absolute_pattern_that_names_a_link_means_the_link_in_a_source_and_the_source_behind_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let top = dir.path().canonicalize().expect("canonical");
        std::fs::create_dir(top.join("2026")).expect("directory");
        std::os::unix::fs::symlink("2026", top.join("current")).expect("link");
        let excludes = parsed(&format!("{}/current", top.display())).expect("good");
        assert!(excludes.find(&top, b"current", b"current", Kind::Symlink).is_some());
        assert!(excludes.find(&top, b"2026", b"2026", Kind::Directory).is_none());
        assert!(excludes.find_root(&top.join("2026")).is_some(), "as a source it would be named by its real path");
        assert_eq!(excludes.idle(&[top.join("2026")]).count() + excludes.idle(std::slice::from_ref(&top)).count(), 0);
        assert_eq!(excludes.idle(&["/srv".into()]).count(), 1);
    }

    #[test]
    fn an_exclude_file_may_have_comments_blank_lines_and_windows_line_ends() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("exclude");
        std::fs::write(&file, "\u{feff}# logs\r\n*.log\r\n\r\n  \ntmp/  \n\\#x").expect("written");
        assert_eq!(read_exclude_file(&file).expect("read"), ["*.log", "tmp/", "\\#x"]);
        let error = read_exclude_file(&dir.path().join("none")).expect_err("missing").to_string();
        assert!(error.contains("none"), "{error}");
    }
}
