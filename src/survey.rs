//! The dry run: walks the sources, writes nothing, and finds the problems that a backup would meet.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::archive::Compression;
use crate::create::{
    Create, Output, archive_path, blank, compression, conclude, least_space, looking_at, outside_of_sources, planned,
    thin_out, wants_a_directory,
};
use crate::entry::{Kind, Stat, Timestamp};
use crate::error::{Error, Result};
use crate::event::{Event, Observer};
use crate::fate::Fate;
use crate::freeze::{Capture, Facts, Options, choose, sidecar_of};
use crate::gate::{self, Gate, Realm};
use crate::lines::is_lines;
use crate::plan::{Class, NameAudit, Plan, Verdict};
use crate::prune::Retention;
use crate::relpath::joined;
use crate::report::{Fated, PathName, RefusedName, Report, SurveyRow};
use crate::sys::{self, Dir};

/// Reports what a backup would hold, how each file would be frozen, and what would be in its way. Nothing is written,
/// and nothing is linked, cloned or held.
pub fn survey(create: &Create, gate: &Arc<dyn Gate>, observer: &dyn Observer) -> Report {
    let begun = Instant::now();
    let mut report = blank(&create.request, sys::now());
    report.dry_run = true;
    let outcome = run(create, gate, observer, &mut report);
    conclude(&mut report, outcome, begun);
    report
}

fn run(create: &Create, gate: &Arc<dyn Gate>, observer: &dyn Observer, report: &mut Report) -> Result<()> {
    let plan = planned(&create.request, report, gate)?;
    looking_at(&create.output, gate, || wants_a_directory(create))?;
    let compression = compression(create);
    report.compression = Some(compression.to_string());
    let options = &create.freeze;
    let mut walk = Walk { plan: &plan, options, hot_since: sys::now().before(options.hot_window), observer, report };
    for (number, root) in plan.roots.iter().enumerate() {
        walk.root(number, &root.path, gate)?;
    }
    let Output::Path(output) = &create.output else { return Ok(()) };
    let place = looking_at(&create.output, gate, || Place::of(output, compression, &plan, report))?;
    look_at_output(&place, compression, gate, report)?;
    // Where there is no directory yet, there are no older archives.
    if let Some(retention) = create.retention.as_ref().filter(|_| place.path.parent() == Some(&place.existing)) {
        let retention = Retention { dry_run: true, ..retention.clone() };
        thin_out(&place.path, &retention, report, gate, observer);
    }
    Ok(())
}

/// Where the archive would go.
struct Place {
    path: PathBuf,
    /// The directory that it would be in, or the deepest above that there is.
    existing: PathBuf,
}

impl Place {
    fn of(output: &Path, compression: Compression, plan: &Plan, report: &mut Report) -> Result<Self> {
        let path = archive_path(output, compression.codec, report)?;
        outside_of_sources(&path, plan)?;
        report.archive_path = Some(path.as_path().into());
        if path.symlink_metadata().is_ok() {
            report
                .warnings
                .push(format!("{} exists: nothing is ever overwritten, choose another --output.", path.display()));
        }
        let existing = path.ancestors().skip(1).find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("/"));
        Ok(Self { existing: existing.to_owned(), path })
    }
}

/// Whether the archive could be published there.
fn look_at_output(place: &Place, compression: Compression, gate: &Arc<dyn Gate>, report: &mut Report) -> Result<()> {
    let existing = &place.existing;
    let dir = Dir::open(existing, Realm::Output, Arc::clone(gate))
        .map_err(|error| Error::failed("open the output directory", existing, error))?;
    report.free_bytes = dir.free_space().ok();
    let (least, bytes) = (least_space(report.counts.bytes, compression.codec), report.counts.bytes);
    if let Some(free) = report.free_bytes.filter(|free| *free < bytes) {
        let verdict = if free < least { "The backup will not fit" } else { "The backup may not fit" };
        report
            .warnings
            .push(format!("{verdict}: {free} bytes are free in {}, contents are {bytes} bytes.", existing.display()));
    }
    if dir.is_read_only().unwrap_or(false) {
        report.warnings.push(format!("{} is on a read-only filesystem.", existing.display()));
    }
    Ok(())
}

/// A walk that only looks.
struct Walk<'a> {
    plan: &'a Plan,
    options: &'a Options,
    hot_since: Timestamp,
    observer: &'a dyn Observer,
    report: &'a mut Report,
}

impl Walk<'_> {
    fn root(&mut self, number: usize, path: &Path, gate: &Arc<dyn Gate>) -> Result<()> {
        let failed = |error| Error::failed("look at the source", path, error);
        let prefix = path.as_os_str().as_bytes();
        if let (false, Some(parent), Some(name)) = (path.is_dir(), path.parent(), path.file_name()) {
            let dir = Dir::open(parent, Realm::Source, Arc::clone(gate)).map_err(failed)?;
            let stat = dir.stat(name.as_bytes()).map_err(failed)?;
            self.file(&dir, parent.as_os_str().as_bytes(), name.as_bytes(), &stat, Class::Guarded);
            return Ok(());
        }
        let dir = Dir::open(path, Realm::Source, Arc::clone(gate)).map_err(failed)?;
        let mut mounts = BTreeSet::from([dir.mount().map_err(failed)?]);
        self.report.mounts.push(PathName(prefix.to_vec()));
        let mut open = vec![Vec::new()];
        while let Some(below) = open.pop() {
            self.directory(number, prefix, &dir, &below, &mut open, &mut mounts)?;
        }
        Ok(())
    }

    fn directory(
        &mut self,
        number: usize,
        prefix: &[u8],
        root: &Dir,
        below: &[u8],
        open: &mut Vec<Vec<u8>>,
        mounts: &mut BTreeSet<u64>,
    ) -> Result<()> {
        let absolute = joined(prefix, below);
        let listed = root.open_dir(below).and_then(|dir| Ok((dir.list()?, dir.mount()?, dir)));
        let (listing, mount, dir) = match listed {
            Ok(listed) => listed,
            Err(error) if gate::is_cancelled(&error) => return Err(Error::Cancelled),
            Err(error) => {
                self.note(&absolute, &Fate::Hollow(format!("cannot be listed: {error}").into()));
                return Ok(());
            }
        };
        if mounts.insert(mount) {
            self.report.mounts.push(PathName(absolute.clone()));
        }
        self.report.counts.directories += 1;
        let mut kept = Vec::new();
        let mut databases: Vec<&[u8]> = Vec::new();
        for listed in &listing.names {
            let stat = match dir.stat(&listed.name) {
                Ok(stat) => stat,
                Err(error) if gate::is_cancelled(&error) => return Err(Error::Cancelled),
                // It left while we looked; a backup would note that.
                Err(_) => continue,
            };
            let path = joined(below, &listed.name);
            if let Some(base) = sidecar_of(&listed.name).filter(|base| databases.contains(base)) {
                self.note(&joined(&absolute, &listed.name), &Fate::folded_into(base));
                continue;
            }
            match self.plan.rules.judge(number, &path, stat.kind) {
                Verdict::Exclude(rule) => self.note(&joined(&absolute, &listed.name), &Fate::Excluded(rule.into())),
                Verdict::Keep(_) if stat.kind == Kind::Directory => {
                    kept.push(&*listed.name);
                    open.push(path);
                }
                Verdict::Keep(class) => {
                    kept.push(&*listed.name);
                    if self.file(&dir, &absolute, &listed.name, &stat, class) {
                        databases.push(&listed.name);
                    }
                }
            }
        }
        self.audit(&absolute, kept);
        let counts = &self.report.counts;
        self.observer.on(Event::Freezing { files: counts.files, directories: counts.directories });
        Ok(())
    }

    /// Counts a file; says whether it is a database that has its log and journal in its copy.
    fn file(&mut self, dir: &Dir, absolute: &[u8], name: &[u8], stat: &Stat, class: Class) -> bool {
        self.report.counts.files += 1;
        if stat.kind == Kind::Symlink {
            return false;
        }
        let path = joined(absolute, name);
        if !dir.may_read(name) {
            self.note(&path, &Fate::Lost("may not be read".into()));
            return false;
        }
        self.report.counts.kept += 1;
        self.report.counts.bytes += stat.size;
        let facts = Facts {
            class,
            hot: stat.mtime >= self.hot_since,
            database: crate::freeze::is_database(dir, name, stat),
            holdable: stat.size <= self.options.hold_limit,
            staged: true,
            clones: false,
        };
        self.count(name, stat.size, facts);
        if facts.database && !self.is_served() {
            self.note(&path, &Fate::Torn("raw database".into()));
        }
        facts.database && self.is_served()
    }

    /// Whether databases can be copied as such.
    fn is_served(&self) -> bool {
        !self.options.databases.helper.is_empty()
    }

    fn count(&mut self, name: &[u8], bytes: u64, facts: Facts) {
        let served = !facts.database || self.is_served();
        let capture = if served { choose(self.options.mode, facts) } else { Capture::Copy }.as_str();
        *self.report.captures.entry(capture).or_default() += 1;
        let lines = if is_lines(name) { "jsonl" } else { "file" };
        let kind = if facts.database { "database" } else { lines };
        let rows = &mut self.report.survey;
        let known = rows.iter().position(|row| (row.kind, row.capture) == (kind, capture));
        let at = known.unwrap_or_else(|| {
            rows.push(SurveyRow { kind, capture, files: 0, bytes: 0 });
            rows.len() - 1
        });
        rows[at].files += 1;
        rows[at].bytes += bytes;
    }

    fn note(&mut self, path: &[u8], fate: &Fate) {
        let counts = &mut self.report.counts;
        let (count, list) = match fate {
            Fate::Excluded(_) => (&mut counts.excluded, &mut self.report.excluded),
            Fate::Folded(_) => (&mut counts.folded, &mut self.report.folded),
            Fate::Hollow(_) => (&mut counts.hollow, &mut self.report.losses),
            Fate::Torn(_) => (&mut counts.torn, &mut self.report.losses),
            _ => (&mut counts.lost, &mut self.report.losses),
        };
        *count += 1;
        list.push(Fated {
            path: PathName(path.to_vec()),
            fate: fate.as_str(),
            reason: fate.reason().map(str::to_owned),
        });
    }

    fn audit(&mut self, absolute: &[u8], names: Vec<&[u8]>) {
        let refused = NameAudit.audit_directory(absolute, names);
        let told =
            refused.into_iter().map(|r| RefusedName { path: PathName(r.path.as_bytes().to_vec()), why: r.to_string() });
        self.report.refused_names.extend(told);
    }
}
