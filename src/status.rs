//! How well a directory of archives is: the newest proven one of each source, its age, and the trend.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::event::Observer;
use crate::gate::{self, Gate, Realm, Verb};
use crate::naming::partial_name;
use crate::relpath::{joined, shown};
use crate::report::PathName;
use crate::shelf::{Known, Manner, Shelf, Shelved};
use crate::sys::{self, Dir};

/// How well it is, from good to bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The newest archive is proven, without a loss, and young enough.
    Fresh,
    /// The newest proven archive has losses.
    Lossy,
    /// There is an archive that is not proven.
    Unproven,
    /// The newest proven archive is too old.
    Old,
    /// No archive is proven.
    Missing,
    /// Nobody could look.
    #[default]
    Failed,
}

impl State {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Lossy => "lossy",
            Self::Unproven => "unproven",
            Self::Old => "old",
            Self::Missing => "missing",
            Self::Failed => "failed",
        }
    }

    /// The exit code: 0 fresh, 1 failed, 3 lossy, 4 unproven or missing, 6 too old.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Fresh => 0,
            Self::Failed => 1,
            Self::Lossy => 3,
            Self::Unproven | Self::Missing => 4,
            Self::Old => 6,
        }
    }
}

/// A proven archive.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Made {
    /// Where it lies.
    pub path: PathName,
    /// When it was made: ISO 8601, UTC.
    pub created_at: String,
    /// How long ago that was.
    pub age_seconds: u64,
    /// Its length.
    pub bytes: u64,
    /// Names that were lost when it was made.
    pub losses: u64,
    /// `instant` or `window`.
    pub consistent: String,
    /// What it took to freeze and to write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_milliseconds: Option<u64>,
    /// The moment in seconds since the epoch.
    #[serde(skip)]
    pub seconds: i64,
}

/// The archives of one source.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// What they are backups of.
    pub sources: Vec<String>,
    /// How well it is.
    pub state: State,
    /// The newest that is proven.
    pub newest: Made,
    /// All that are, the oldest first.
    pub archives: Vec<Made>,
}

/// An archive with a name of ours that is not proven.
#[derive(Clone, Debug, Serialize)]
pub struct Doubted {
    /// Where it lies.
    pub path: PathName,
    /// Why it is not.
    pub error: String,
}

/// How well a directory of archives is.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The directory.
    pub directory: PathName,
    /// When that was looked at: ISO 8601, UTC.
    pub checked_at: String,
    /// How old the newest archive may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u64>,
    /// The worst of all.
    pub state: State,
    /// Each source that has a proven archive.
    pub sources: Vec<SourceStatus>,
    /// Archives that are not proven.
    pub unproven: Vec<Doubted>,
    /// Why nobody could look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Looks at the archives in `directory`. With `again`, each is read, though it is noted on it that it was proven.
pub fn status(
    directory: &Path,
    max_age: Option<Duration>,
    again: bool,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
) -> Status {
    let mut status = Status::unseen(directory, max_age);
    let now = sys::now().seconds;
    match Shelf::open(directory, Manner { again, note: true }, gate, observer) {
        Ok(shelf) => status.fill(&shelf, now),
        Err(error) => status.error = Some(error.to_string()),
    }
    status
}

impl Status {
    /// That of a directory at which nobody could look so far.
    pub(crate) fn unseen(directory: &Path, max_age: Option<Duration>) -> Self {
        Self {
            directory: directory.into(),
            checked_at: jiff::Timestamp::from_second(sys::now().seconds).map(|now| now.to_string()).unwrap_or_default(),
            max_age_seconds: max_age.map(|age| age.as_secs()),
            ..Self::default()
        }
    }

    fn fill(&mut self, shelf: &Shelf, now: i64) {
        self.directory = shelf.path.as_path().into();
        for archive in &shelf.archives {
            let path = PathName(joined(&self.directory.0, &archive.name));
            match &archive.known {
                Err(error) => self.unproven.push(Doubted { path, error: error.clone() }),
                Ok(known) => self.take(&known.about.sources, made(path, archive, known, now)),
            }
        }
        self.sources.sort_by(|one, other| one.sources.cmp(&other.sources));
        let max_age = self.max_age_seconds;
        self.sources.iter_mut().for_each(|source| source.conclude(max_age));
        self.state = self.worst();
    }

    fn take(&mut self, sources: &[String], made: Made) {
        match self.sources.iter_mut().find(|known| known.sources == sources) {
            Some(source) => source.archives.push(made),
            None => {
                let archives = vec![made];
                self.sources.push(SourceStatus { sources: sources.to_vec(), archives, ..SourceStatus::default() });
            }
        }
    }

    fn worst(&self) -> State {
        let missing = self.sources.is_empty().then_some(State::Missing);
        let unproven = (!self.unproven.is_empty()).then_some(State::Unproven);
        let states = self.sources.iter().map(|source| source.state);
        states.chain(missing).chain(unproven).max().unwrap_or(State::Missing)
    }
}

impl SourceStatus {
    fn conclude(&mut self, max_age: Option<u64>) {
        self.newest = self.archives.last().cloned().unwrap_or_default();
        self.state = match &self.newest {
            newest if max_age.is_some_and(|max| newest.age_seconds > max) => State::Old,
            newest if newest.losses > 0 => State::Lossy,
            _ => State::Fresh,
        };
    }
}

fn made(path: PathName, archive: &Shelved, known: &Known, now: i64) -> Made {
    let seconds = known.at.as_second();
    Made {
        path,
        created_at: known.about.created_at.clone(),
        age_seconds: u64::try_from(now.saturating_sub(seconds)).unwrap_or(0),
        bytes: archive.stat.size,
        losses: known.about.losses,
        consistent: known.about.consistent.clone(),
        elapsed_milliseconds: known.about.elapsed_milliseconds,
        seconds,
    }
}

/// The status in the text format of Prometheus.
pub fn metrics(status: &Status) -> String {
    let mut text = String::new();
    let directory = label("directory", &shown(&status.directory.0));
    let mut family = |name: &str, help: &str, samples: Vec<(String, String)>| {
        if samples.is_empty() {
            return;
        }
        // Writing to a string does not fail.
        let _told = writeln!(text, "# HELP clawsnap_{name} {help}\n# TYPE clawsnap_{name} gauge");
        for (labels, value) in samples {
            let _told = writeln!(text, "clawsnap_{name}{{{labels}}} {value}");
        }
    };
    let readable = u8::from(status.error.is_none()).to_string();
    family(
        "directory_readable",
        "Whether the directory of archives could be read.",
        vec![(directory.clone(), readable)],
    );
    let checked: jiff::Timestamp = status.checked_at.parse().unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let checked = vec![(directory.clone(), checked.as_second().to_string())];
    family("checked_timestamp_seconds", "When the directory was last looked at.", checked);
    if status.error.is_none() {
        let count = status.unproven.len().to_string();
        family("archives_unproven", "Archives that are not what they should be.", vec![(directory.clone(), count)]);
    }
    for (name, help, value) in OF_A_SOURCE {
        let of = |source: &SourceStatus| {
            let labels = format!("{directory},{}", label("source", &source.sources.join(", ")));
            Some((labels, value(source)?))
        };
        family(name, help, status.sources.iter().filter_map(of).collect());
    }
    text
}

/// Takes a number from a source, where it has one.
type Value = fn(&SourceStatus) -> Option<String>;

/// What is told of each source: name, help, value.
const OF_A_SOURCE: [(&str, &str, Value); 6] = [
    ("archives", "Proven archives.", |source| Some(source.archives.len().to_string())),
    ("newest_timestamp_seconds", "When the newest proven archive was made.", |source| {
        Some(source.newest.seconds.to_string())
    }),
    ("newest_complete_timestamp_seconds", "When the newest proven archive without a loss was made.", |source| {
        let complete = source.archives.iter().rfind(|made| made.losses == 0)?;
        Some(complete.seconds.to_string())
    }),
    ("newest_size_bytes", "Length of the newest proven archive.", |source| Some(source.newest.bytes.to_string())),
    ("newest_losses", "Names that were lost when the newest proven archive was made.", |source| {
        Some(source.newest.losses.to_string())
    }),
    ("newest_duration_seconds", "What it took to freeze and write the newest proven archive.", |source| {
        let milliseconds = source.newest.elapsed_milliseconds?;
        Some(format!("{}.{:03}", milliseconds / 1_000, milliseconds % 1_000))
    }),
];

fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{name}=\"{value}\"")
}

/// Writes a file that is never seen half-written: under a hidden name beside it first, which is renamed over it.
///
/// # Errors
/// Those of the kernel; the file is as it was then.
pub fn write_metrics(file: &Path, text: &str, gate: &Arc<dyn Gate>) -> Result<()> {
    let name = file.file_name().ok_or_else(|| Error::Usage(format!("{} names no file", file.display())))?;
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let parent = {
            let _step = gate::take_at(&**gate, Verb::Stat, Realm::Output, parent)?;
            parent.canonicalize()?
        };
        let dir = Dir::open(&parent, Realm::Output, Arc::clone(gate))?;
        let hidden = partial_name(sys::now())?.into_bytes();
        let mut draft = dir.create(&hidden)?;
        let written = draft.write_all(text.as_bytes()).and_then(|()| draft.set_mode(0o644)).and_then(|()| draft.sync());
        written.and_then(|()| dir.rename_over(&hidden, name.as_bytes())).inspect_err(|_| {
            let _gone: std::io::Result<()> = dir.unlink(&hidden);
        })
    };
    write().map_err(|error| Error::failed("write the metrics to", file, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, losses: u64) -> SourceStatus {
        let made = |seconds, losses| Made { seconds, losses, bytes: 10, ..Made::default() };
        let archives = vec![made(100, 0), Made { elapsed_milliseconds: Some(1_050), ..made(200, losses) }];
        let mut source = SourceStatus { sources: vec![name.to_owned()], archives, ..SourceStatus::default() };
        source.conclude(None);
        source
    }

    #[test]
    fn metrics_have_units_help_and_escaped_labels() {
        let sources = vec![source("/a \"b\\", 0), source("/c", 2)];
        let directory = PathName(b"/backup".to_vec());
        let checked_at = "1970-01-01T00:05:00Z".to_owned();
        let text = metrics(&Status { directory, checked_at, sources, ..Status::default() });
        for line in [
            "# HELP clawsnap_newest_timestamp_seconds When the newest proven archive was made.",
            "# TYPE clawsnap_newest_timestamp_seconds gauge",
            "clawsnap_newest_timestamp_seconds{directory=\"/backup\",source=\"/a \\\"b\\\\\"} 200",
            "clawsnap_newest_complete_timestamp_seconds{directory=\"/backup\",source=\"/c\"} 100",
            "clawsnap_newest_duration_seconds{directory=\"/backup\",source=\"/c\"} 1.050",
            "clawsnap_checked_timestamp_seconds{directory=\"/backup\"} 300",
            "clawsnap_archives_unproven{directory=\"/backup\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert_eq!(text.matches("# TYPE clawsnap_archives gauge").count(), 1);
    }

    #[test]
    fn of_a_directory_that_cannot_be_read_only_that_is_told() {
        let text = metrics(&Status { error: Some("gone".to_owned()), ..Status::default() });
        assert!(text.contains("clawsnap_directory_readable{directory=\"\"} 0\n"), "{text}");
        assert!(!text.contains("clawsnap_archives") && !text.contains("newest"), "{text}");
    }

    #[test]
    fn the_worst_decides() {
        let doubted = Doubted { path: PathName::default(), error: String::new() };
        let worst = |sources: &[u64], unproven| {
            let sources = sources.iter().map(|losses| source("/x", *losses)).collect();
            Status { sources, unproven, ..Status::default() }.worst()
        };
        assert_eq!(worst(&[0, 0], vec![]), State::Fresh);
        assert_eq!(worst(&[0, 1], vec![]), State::Lossy);
        assert_eq!(worst(&[0, 1], vec![doubted.clone()]), State::Unproven);
        assert_eq!(worst(&[], vec![doubted]), State::Missing);
        let codes = [State::Fresh, State::Lossy, State::Unproven, State::Old, State::Missing, State::Failed];
        assert_eq!(codes.map(State::exit_code), [0, 3, 4, 6, 4, 1]);
    }
}
