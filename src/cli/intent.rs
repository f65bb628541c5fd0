//! What the typed words mean.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args;
use super::place;
use crate::archive::Compression;
use crate::entry::Timestamp;
use crate::freeze::Options;
use crate::plan::{Environment, Request, read_exclude_file};
use crate::prune::Retention;

/// What shall be done.
#[derive(Debug)]
pub(super) struct Intent {
    /// What is backed up.
    pub(super) request: Request,
    /// Where the archive goes.
    pub(super) destination: Destination,
    /// How it is compressed, where that was said.
    pub(super) compression: Option<Compression>,
    /// How the source is frozen.
    pub(super) freeze: Options,
    /// Whether the archive is read back.
    pub(super) verify: bool,
    /// Whether nothing is written if nothing has changed.
    pub(super) if_changed: bool,
    /// How long another run is waited for.
    pub(super) wait: Duration,
    /// Whether nothing is written.
    pub(super) dry_run: bool,
    /// When the backup is said to be made, where that is said.
    pub(super) created_at: Option<Timestamp>,
    /// Which older archives stay, where that is said.
    pub(super) retention: Option<Retention>,
}

/// Where the archive goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// To a file, or into a directory.
    Path(PathBuf),
    /// To standard output.
    Stdout,
}

impl Intent {
    /// What `typed` means in `environment`.
    ///
    /// # Errors
    /// What does not go together, or cannot be, in a sentence.
    pub(super) fn of(typed: args::Create, environment: Environment, stdout_is_terminal: bool) -> Result<Self, String> {
        let to_stdout = typed.archive.output.as_deref() == Some(Path::new("-"));
        if to_stdout {
            check_stdout(&typed, stdout_is_terminal)?;
        }
        let created_at = source_date(&environment)?;
        let freeze = typed.freezing.options();
        let retention = typed.keep.retention(false, false);
        let request = request(&typed.what, environment)?;
        let destination = match &typed.archive.output {
            _ if to_stdout => Destination::Stdout,
            path => Destination::Path(output(path.as_deref(), &request)),
        };
        let args::Create { no_verify, if_changed, dry_run, .. } = typed;
        let (compression, wait, verify) = (typed.archive.compress, typed.unattended.wait, !no_verify);
        Ok(Self { request, destination, compression, freeze, verify, if_changed, wait, dry_run, created_at, retention })
    }
}

fn check_stdout(typed: &args::Create, is_terminal: bool) -> Result<(), String> {
    let refused = |reason: &str| Err(reason.to_owned());
    if typed.unattended.json {
        return refused("--json and --output - both want standard output: write the archive to a file");
    }
    if !typed.keep.is_empty() {
        return refused("--keep-… is about the archives in a directory, and --output - is none");
    }
    if typed.verify {
        return refused("--verify does not go with --output -: a stream cannot be read back");
    }
    if is_terminal && !typed.dry_run {
        return refused(
            "an archive is not for a terminal: redirect or pipe standard output, or name a file with --output",
        );
    }
    Ok(())
}

/// Where an archive goes, if not to a stream.
pub(super) fn output(typed: Option<&Path>, request: &Request) -> PathBuf {
    match typed {
        Some(path) => place::with_home(path, request.environment.home.as_deref()),
        None => place::default_directory(request),
    }
}

/// What is backed up.
///
/// # Errors
/// A file of patterns that cannot be read, in a sentence.
pub(super) fn request(typed: &args::What, environment: Environment) -> Result<Request, String> {
    let mut exclude = typed.exclude.clone();
    for file in &typed.exclude_from {
        let file = place::with_home(file, environment.home.as_deref());
        exclude.extend(read_exclude_file(&file).map_err(|error| error.to_string())?);
    }
    Ok(Request {
        sources: typed.sources.clone(),
        only_config: typed.only_config,
        include_workspace: !typed.no_include_workspace,
        include_regenerable: typed.include_regenerable,
        exclude,
        ..Request::new(environment)
    })
}

/// The time that the builders of reproducible archives agree upon, whole seconds since the epoch.
pub(super) fn source_date(environment: &Environment) -> Result<Option<Timestamp>, String> {
    let value = match environment.variables.get(OsStr::new("SOURCE_DATE_EPOCH")) {
        Some(value) if !value.is_empty() => value,
        _ => return Ok(None),
    };
    let seconds = value.to_str().and_then(|text| text.parse::<u32>().ok());
    let seconds =
        seconds.ok_or_else(|| format!("SOURCE_DATE_EPOCH is {value:?}: whole seconds since 1970 are wanted"))?;
    Ok(Some(Timestamp { seconds: seconds.into(), nanos: 0 }))
}

#[cfg(test)]
mod tests {
    use super::super::args::{Typed, Verb};
    use super::*;
    use clap::Parser;

    fn environment() -> Environment {
        Environment { home: Some("/home/u".into()), cwd: "/work".into(), ..Environment::default() }
    }

    fn meant(line: &str, environment: Environment, is_terminal: bool) -> Result<Intent, String> {
        let words = std::iter::once("clawsnap").chain(line.split_whitespace());
        let Verb::Create(typed) = Typed::try_parse_from(words).expect(line).verb else { panic!("{line}") };
        Intent::of(*typed, environment, is_terminal)
    }

    #[test]
    fn two_writers_to_standard_output_are_one_too_many() {
        let error = meant("create --output - --json", environment(), false).expect_err("refused");
        assert!(error.contains("standard output"), "{error}");
        let error = meant("create --output - --verify", environment(), false).expect_err("refused");
        assert!(error.contains("read back"), "{error}");
    }

    #[test]
    fn a_terminal_gets_no_archive() {
        assert!(meant("create --output -", environment(), true).is_err());
        assert!(meant("create --output - --dry-run", environment(), true).is_ok());
        let piped = meant("create --output -", environment(), false).expect("means something");
        assert_eq!(piped.destination, Destination::Stdout);
    }

    #[test]
    fn what_is_left_out_is_said_in_the_negative() {
        let plain = meant("create", environment(), true).expect("means something");
        assert!(plain.verify && plain.request.include_workspace && !plain.request.include_regenerable);
        let line = "create --no-verify --no-include-workspace --include-regenerable";
        let other = meant(line, environment(), true).expect("means something");
        assert!(!other.verify && !other.request.include_workspace && other.request.include_regenerable);
    }

    #[test]
    fn patterns_are_read_from_files_too() {
        let file = tempfile::NamedTempFile::new().expect("makes a file");
        std::fs::write(&file, "# nothing\n*.bak\n").expect("writes");
        let line = format!("create --exclude *.log --exclude-from {}", file.path().display());
        let intent = meant(&line, environment(), true).expect("means something");
        assert_eq!(intent.request.exclude, ["*.log", "*.bak"]);
        assert!(meant("create --exclude-from /no/such", environment(), true).is_err());
    }

    #[test]
    fn reproducible_archives_are_dated_by_their_source() {
        let at = |value: &str| meant("create", environment().with("SOURCE_DATE_EPOCH", value), true);
        let date = at("1700000000").expect("means something").created_at;
        assert_eq!(date, Some(Timestamp { seconds: 1_700_000_000, nanos: 0 }));
        assert_eq!(at("").expect("is unset").created_at, None);
        assert!(at("yesterday").is_err() && at("-5").is_err());
    }
}
