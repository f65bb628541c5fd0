//! The main job, end to end: plan, freeze, archive, prove, publish.

mod fill;
mod prover;

use std::io::{self, Write};
use std::iter::successors;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::archive::{self, Codec, Compression, Payload, payload_path};
use crate::entry::Timestamp;
use crate::error::{Error, Result};
use crate::event::{Event, Observer};
use crate::freeze::{self, Frozen, Quarters, State};
use crate::gate::{self, Gate, Realm, Verb};
use crate::lock::{self, Locks};
use crate::naming::{archive_name, next_archive_name};
use crate::output::{Draft, Marked, Sealed, Sink, Stream, Target};
use crate::plan::{Plan, Request, Warning, plan};
use crate::prune::{Fresh, Retention, prune};
use crate::relpath::{joined, shown};
use crate::report::{
    AgentRoot, Asset, Counts, FORMAT_VERSION, Outcome, PathName, Report, Skipped, SoFar, milliseconds_since,
};
use crate::seen::{Mark, Seen};
use crate::shelf;
use crate::sys;
pub(crate) use fill::fill;
use prover::Prover;

/// Compressed archives are refused for want of space only if they would not fit at this ratio.
const BEST_RATIO: u64 = 10;

/// `openclaw backup verify` refuses archives that unpack to more than this many times their length.
const OPENCLAW_RATIO: u64 = 1_100;

/// What a backup shall be.
pub struct Create {
    /// What is backed up.
    pub request: Request,
    /// Where the archive goes.
    pub output: Output,
    /// How it is compressed; by the ending of its name where that is not said.
    pub compression: Option<Compression>,
    /// How the source is frozen.
    pub freeze: freeze::Options,
    /// Whether the archive is read back before it gets its name.
    pub verify: bool,
    /// Whether nothing shall be written if nothing differs from the newest such archive in the directory.
    pub if_changed: bool,
    /// How long another run on the same source is waited for.
    pub wait: Duration,
    /// When the backup is said to be made; now, where that is not said. It is part of every name in the archive, so
    /// a fixed one makes archives of the same input comparable.
    pub created_at: Option<Timestamp>,
    /// Which older archives of the same source stay in the directory that the archive goes to; all of them, where that
    /// is not said.
    pub retention: Option<Retention>,
}

/// Where an archive goes.
pub enum Output {
    /// To this file, or under a name with the time into this directory. Nothing is ever overwritten.
    Path(PathBuf),
    /// To a stream, which nobody can read back: it is stated as unverified.
    Stream(Box<dyn Write + Send>),
}

/// Makes a backup. The report tells how it ended, and [`Report::exit_code`] sums that up.
pub fn create(create: Create, gate: &Arc<dyn Gate>, observer: &dyn Observer) -> Report {
    create_telling(create, gate, observer, &|_| {})
}

/// The same, which tells `so_far` that the archive has its name.
pub(crate) fn create_telling(
    create: Create,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
    so_far: &SoFar<'_>,
) -> Report {
    let begun = Instant::now();
    let mut report = blank(&create.request, create.created_at.unwrap_or_else(sys::now));
    let outcome = run(create, &mut report, gate, observer, so_far);
    conclude(&mut report, outcome, begun);
    report
}

/// Freezes and lets go again: nothing is archived. The report tells whether the tree came to rest, how long that took,
/// and how each file would be held.
pub fn rehearse(request: &Request, options: &freeze::Options, gate: &Arc<dyn Gate>, observer: &dyn Observer) -> Report {
    let begun = Instant::now();
    let mut report = blank(request, sys::now());
    report.dry_run = true;
    let outcome = planned(request, &mut report, gate).and_then(|plan| {
        let frozen = freeze::freeze(&plan, options, &Quarters::fresh(&std::env::temp_dir()), gate, observer)?;
        let counts = Counts { files: frozen.files, bytes: frozen.bytes, ..Counts::default() };
        fill(&mut report, &plan, &frozen, Payload { counts, external: Vec::new() });
        frozen.release()
    });
    conclude(&mut report, outcome, begun);
    report
}

/// Enters how a run ended into its report.
pub(crate) fn conclude(report: &mut Report, outcome: Result<()>, begun: Instant) {
    report.elapsed_milliseconds = Some(milliseconds_since(begun));
    report.peak_memory_bytes = Some(sys::peak_memory());
    report.outcome = match &outcome {
        Ok(()) if report.outcome == Outcome::Unchanged => Outcome::Unchanged,
        Ok(()) => verdict(report),
        Err(Error::Usage(_)) => Outcome::Usage,
        Err(Error::Failed { .. }) => Outcome::Failed,
        Err(Error::Unproven(_)) => Outcome::Unproven,
        Err(Error::Locked(_)) => Outcome::Locked,
        Err(Error::Cancelled) => Outcome::Cancelled,
    };
    report.error = outcome.err().map(|error| error.to_string());
}

fn verdict(report: &Report) -> Outcome {
    let touched = report.ran.as_ref().map_or(0, |ran| ran.touched.len() as u64);
    if report.counts.losses() + touched == 0 { Outcome::Complete } else { Outcome::Lossy }
}

/// A report that knows when it was begun and what was asked for.
pub(crate) fn blank(request: &Request, at: Timestamp) -> Report {
    Report {
        created_at: iso(at),
        archive_root: format!("{}-clawsnap-backup", sys::utc_stamp(at)),
        include_workspace: request.include_workspace && !request.only_config,
        only_config: request.only_config,
        version: env!("CARGO_PKG_VERSION"),
        format_version: FORMAT_VERSION,
        ..Report::default()
    }
}

fn iso(at: Timestamp) -> String {
    let nanos = i32::try_from(at.nanos / 1_000_000 * 1_000_000).unwrap_or(0);
    jiff::Timestamp::new(at.seconds, nanos).map_or_else(|_| at.to_string(), |time| format!("{time:.3}"))
}

fn run(
    create: Create,
    report: &mut Report,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
    so_far: &SoFar<'_>,
) -> Result<()> {
    let plan = planned(&create.request, report, gate)?;
    let compression = compression(&create);
    report.compression = Some(compression.to_string());
    looking_at(&create.output, gate, || {
        wants_a_directory(&create)?;
        comparable(&create)?;
        let Output::Path(path) = &create.output else { return Ok(()) };
        outside_of_sources(&archive_path(path, compression.codec, report)?, &plan)
    })?;
    let order = Order { request: &create.request, wait: create.wait, dated: create.created_at };
    let (plan, _locks) = locked(plan, &order, report, gate, observer)?;
    let compare = create.if_changed.then_some(&create.request);
    let job = Job { plan, options: create.freeze, compression, compare, begun: Instant::now(), gate, observer, so_far };
    match create.output {
        Output::Stream(out) => job.to_stream(out, report),
        Output::Path(path) => {
            // Only now: a run that was waited for may have taken the name, or what is backed up may be more by now.
            let (fresh, fixed) = looking_at_path(&path, gate, || {
                let fresh = archive_path(&path, compression.codec, report)?;
                outside_of_sources(&fresh, &job.plan)?;
                Ok((fresh, !is_directory(&path)))
            })?;
            let made = job.to_file(&fresh, fixed, create.verify, report)?;
            if let (Some(made), Some(retention)) = (made, &create.retention) {
                thin_out(&made, retention, report, gate, observer);
            }
            Ok(())
        }
    }
}

/// Looks at where an archive goes, before there is a directory that is held. To whoever watches for what hangs that is one
/// step.
pub(crate) fn looking_at<T>(output: &Output, gate: &Arc<dyn Gate>, look: impl FnOnce() -> Result<T>) -> Result<T> {
    match output {
        Output::Path(path) => looking_at_path(path, gate, look),
        Output::Stream(_) => look(),
    }
}

fn looking_at_path<T>(path: &Path, gate: &Arc<dyn Gate>, look: impl FnOnce() -> Result<T>) -> Result<T> {
    let step = gate::take_at(&**gate, Verb::Stat, Realm::Output, path);
    let _step = step.map_err(|error| Error::failed("look at the output", path, error))?;
    look()
}

/// Rules for what stays are about a directory.
pub(crate) fn wants_a_directory(create: &Create) -> Result<()> {
    match &create.output {
        Output::Path(path) if is_directory(path) => Ok(()),
        _ if create.retention.is_none() => Ok(()),
        _ => Err(Error::Usage("--keep-… is about the archives in a directory: give one as --output".to_owned())),
    }
}

/// Removes older archives of the same source, now that the new one has its name. What goes wrong changes nothing for it.
pub(crate) fn thin_out(
    made: &Path,
    retention: &Retention,
    report: &mut Report,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
) {
    let (Some(directory), Some(name)) = (made.parent(), made.file_name()) else { return };
    let is_whole = report.counts.losses() == 0 && report.gaps.is_empty();
    let fresh = Fresh { name, created_at: &report.created_at, sources: &shelf::sources_of(report), is_whole };
    let pruned = prune(directory, retention, Some(fresh), gate, observer);
    report.warnings.extend(pruned.error.iter().map(|error| format!("Older archives were not pruned: {error}")));
    for judged in &pruned.archives {
        if let Some(error) = &judged.error {
            report.warnings.push(format!("{}: {error}", shown(&judged.path.0)));
        }
    }
    report.pruned = Some(pruned);
}

/// Only archives in a directory can be compared with.
fn comparable(create: &Create) -> Result<()> {
    match &create.output {
        Output::Path(path) if !create.if_changed || is_directory(path) => Ok(()),
        Output::Stream(_) if !create.if_changed => Ok(()),
        _ => Err(Error::Usage(
            "--if-changed compares with the newest archive in a directory: name one, as in --output /backup/"
                .to_owned(),
        )),
    }
}

/// What a run that may have to wait was asked for.
pub(crate) struct Order<'a> {
    pub(crate) request: &'a Request,
    /// How long another run is waited for.
    pub(crate) wait: Duration,
    /// When it is said to have begun, where that is fixed.
    pub(crate) dated: Option<Timestamp>,
}

/// Locks the sources of `plan`, and enters into the report what came of that. A run that had to wait begins when it need
/// not any more: it plans again, as the config may name another workspace by then, and locks that one too.
pub(crate) fn locked(
    mut plan: Plan,
    order: &Order<'_>,
    report: &mut Report,
    gate: &Arc<dyn Gate>,
    observer: &dyn Observer,
) -> Result<(Plan, Locks)> {
    let begun = Instant::now();
    let locks = loop {
        let locks = lock::lock(&plan, (begun, order.wait), gate, observer)?;
        if !locks.waited {
            break locks;
        }
        let fresh = blank(order.request, order.dated.unwrap_or_else(sys::now));
        *report = Report { compression: report.compression.take(), ..fresh };
        let locked = std::mem::replace(&mut plan, planned(order.request, report, gate)?);
        if plan.roots.iter().map(|root| &root.path).eq(locked.roots.iter().map(|root| &root.path)) {
            break locks;
        }
    };
    let unlocked = |(path, error): &(PathBuf, std::io::Error)| {
        format!("{} cannot be locked: another run may work on it meanwhile ({error}).", path.display())
    };
    report.warnings.extend(locks.missing.iter().map(unlocked));
    Ok((plan, locks))
}

/// Plans. To whoever watches for what hangs that is one step: it looks at sources, and at nothing else for long.
pub(crate) fn plan_behind(gate: &Arc<dyn Gate>, request: &Request) -> Result<Plan> {
    let source = request.sources.first().map_or(Path::new(""), PathBuf::as_path);
    let step = gate::take_at(&**gate, Verb::Stat, Realm::Source, source);
    let _step = step.map_err(|error| Error::failed("look at", source, error))?;
    Ok(plan(request)?)
}

/// Plans, and enters the plan into the report.
pub(crate) fn planned(request: &Request, report: &mut Report, gate: &Arc<dyn Gate>) -> Result<Plan> {
    let plan = plan_behind(gate, request)?;
    let home = request.environment.home.as_deref();
    describe(&plan, home, report);
    Ok(plan)
}

/// The compression that was asked for, else the one that the archive's name says, else the default.
pub(crate) fn compression(create: &Create) -> Compression {
    let by_name = match &create.output {
        Output::Path(path) => Compression::from_file_name(path),
        Output::Stream(_) => None,
    };
    create.compression.or(by_name).unwrap_or_default()
}

/// Whether an output is a directory, or shall be one.
fn is_directory(output: &Path) -> bool {
    output.is_dir() || output.as_os_str().as_bytes().ends_with(b"/")
}

/// The archive's path: the one that was named, or a fresh name in the directory that was named.
pub(crate) fn archive_path(output: &Path, codec: Codec, report: &Report) -> Result<PathBuf> {
    let path = std::path::absolute(output).map_err(|error| Error::failed("resolve the output", output, error))?;
    if !is_directory(output) {
        return Ok(path);
    }
    let stamp = report.archive_root.split('-').next().unwrap_or_default();
    let first = archive_name(stamp, 1, codec.extension());
    // Who takes the name before it is published keeps it: then this is published under the next one.
    let mut names = successors(Some(first), |name| next_archive_name(name.as_bytes())).map(|name| path.join(name));
    Ok(names.find(|name| name.symlink_metadata().is_err()).unwrap_or(path))
}

/// An archive inside its own source would be part of the next one.
pub(crate) fn outside_of_sources(path: &Path, plan: &Plan) -> Result<()> {
    let existing = path.ancestors().skip(1).find_map(|ancestor| ancestor.canonicalize().ok());
    let inside = |root: &Path| existing.as_deref().is_some_and(|parent| root.is_dir() && parent.starts_with(root));
    match plan.roots.iter().find(|root| inside(&root.path)) {
        None => Ok(()),
        Some(root) => Err(Error::Usage(format!(
            "the output {} lies inside the source {}: choose an --output outside of it",
            path.display(),
            root.path.display()
        ))),
    }
}

/// Enters a plan into a report.
fn describe(plan: &Plan, home: Option<&Path>, report: &mut Report) {
    let display = |path: &Path| PathName(displayed(path, home));
    let archived = |path: &Path| joined(report.archive_root.as_bytes(), &payload_path(path.as_os_str().as_bytes()));
    let assets = plan.roots.iter().map(|root| Asset {
        kind: root.kind.as_str(),
        source_path: root.path.as_path().into(),
        display_path: display(&root.path),
        archive_path: PathName(archived(&root.path)),
    });
    report.assets = assets.collect();
    // OpenClaw's order: the sort is stable, and the roots come sorted by path.
    report.assets.sort_by_key(|asset| asset.source_path.0.len());
    let covered = plan.covered.iter().map(|covered| Skipped {
        kind: covered.kind.as_str().to_owned(),
        source_path: covered.path.as_path().into(),
        display_path: display(&covered.path),
        reason: "covered".to_owned(),
        covered_by: Some(display(&covered.covered_by)),
    });
    let missing = plan.missing.iter().map(|missing| Skipped {
        kind: missing.kind.as_str().to_owned(),
        source_path: missing.path.as_path().into(),
        display_path: display(&missing.path),
        reason: "missing".to_owned(),
        covered_by: None,
    });
    report.skipped = covered.chain(missing).collect();
    report.warnings.extend(plan.warnings.iter().map(ToString::to_string));
    report.state_alone = plan.warnings.iter().any(|warning| matches!(warning, Warning::NotNamed { .. }));
    report.gaps = plan.warnings.iter().filter(|warning| warning.is_gap()).map(ToString::to_string).collect();
    let agents = plan.openclaw.iter().filter_map(|openclaw| openclaw.agent_roots.as_ref()).flatten();
    report.agent_roots = agents
        .map(|agent| AgentRoot { agent_id: agent.agent_id.clone(), source_path: agent.path.as_path().into() })
        .collect();
}

/// A path with the home directory as `~`.
fn displayed(path: &Path, home: Option<&Path>) -> Vec<u8> {
    match home.and_then(|home| path.strip_prefix(home).ok()) {
        Some(below) => joined(b"~", below.as_os_str().as_bytes()),
        None => path.as_os_str().as_bytes().to_vec(),
    }
}

/// What a stream is called.
const STANDARD_OUTPUT: &str = "to standard output";

/// The sink's trouble ends the run: a disk that is full, a pipe that nobody reads.
fn unwritten(to: &Path, cause: io::Error) -> Error {
    Error::failed("write the archive", to, cause).if_full("free space there, or choose another --output")
}

/// A backup that is planned.
struct Job<'a> {
    plan: Plan,
    options: freeze::Options,
    compression: Compression,
    begun: Instant,
    /// What was asked for, where it matters whether anything has changed.
    compare: Option<&'a Request>,
    gate: &'a Arc<dyn Gate>,
    observer: &'a dyn Observer,
    so_far: &'a SoFar<'a>,
}

impl Job<'_> {
    /// Where the archive is in the end; nothing where none was made, as nothing has changed.
    fn to_file(&self, path: &Path, fixed: bool, verify: bool, report: &mut Report) -> Result<Option<PathBuf>> {
        let target = Target::open(path, fixed, self.gate)?;
        report.archive_path = Some(target.path().as_path().into());
        report.free_bytes = target.free_space();
        let mut frozen = self.freeze(&target.directory)?;
        let seen = self.seen(&frozen)?;
        if let Some(same) = seen.as_ref().map(|seen| same(&target, seen)).transpose()?.flatten() {
            self.unchanged(frozen, same, report)?;
            return Ok(None);
        }
        enough_space(frozen.bytes, self.compression.codec, report.free_bytes, &target.directory)?;
        let draft = Draft::create(target)?;
        let back = verify.then(|| draft.read_back()).transpose()?;
        let all_written = prover::AllWritten::default();
        thread::scope(|scope| {
            let prover = back.map(|back| Prover::start(scope, back, &all_written, self.observer)).transpose()?;
            let written = self.write(&mut frozen, draft, path, report)?;
            release(frozen, report);
            let sealed = written.sink.seal()?;
            self.publish(sealed, prover, &written.inventory, seen, report).map(Some)
        })
    }

    fn freeze(&self, spool: &Path) -> Result<Frozen> {
        freeze::freeze(&self.plan, &self.options, &Quarters::fresh(spool), self.gate, self.observer)
    }

    /// What was frozen, in a few bytes, where it matters.
    fn seen(&self, frozen: &Frozen) -> Result<Option<Seen>> {
        let Some(request) = self.compare else { return Ok(None) };
        let how = format!("{} {:?}", self.compression, self.options.databases.check);
        Seen::of(frozen, &self.plan, request, &how)
            .map_err(|error| Error::failed("look at what was frozen of", &self.plan.roots[0].path, error))
    }

    /// Lets go of everything: the archive is there.
    fn unchanged(&self, frozen: Frozen, same: Marked, report: &mut Report) -> Result<()> {
        let directories = frozen.nodes.iter().filter(|node| node.state != State::Gone).count() as u64;
        let counts = Counts { files: frozen.files, bytes: frozen.bytes, directories, ..Counts::default() };
        fill(report, &self.plan, &frozen, Payload { counts, external: Vec::new() });
        release(frozen, report);
        report.archive_path = Some(same.path.as_path().into());
        report.archive_bytes = Some(same.stat.size);
        report.outcome = Outcome::Unchanged;
        Ok(())
    }

    fn to_stream(&self, out: Box<dyn Write + Send>, report: &mut Report) -> Result<()> {
        report.archive_path = Some(PathName(b"-".to_vec()));
        let mut frozen = self.freeze(&std::env::temp_dir())?;
        let out = Stream::new(out, Arc::clone(self.gate));
        let mut written = self.write(&mut frozen, out, STANDARD_OUTPUT.as_ref(), report)?;
        release(frozen, report);
        written.sink.flush().map_err(|error| unwritten(STANDARD_OUTPUT.as_ref(), error))?;
        report.archive_bytes = Some(written.sink.written);
        report.warnings.push("A stream cannot be read back: verify what was stored of it.".to_owned());
        Ok(())
    }

    fn write<W: Sink>(
        &self,
        frozen: &mut Frozen,
        sink: W,
        to: &Path,
        report: &mut Report,
    ) -> Result<archive::Written<W>> {
        let root = report.archive_root.clone();
        let fill = |frozen: &Frozen, payload: Payload, inventory: &str, entries: u64| {
            fill(report, &self.plan, frozen, payload);
            report.inventory_blake3 = Some(inventory.to_owned());
            report.inventory_entries = Some(entries);
            report.outcome = verdict(report);
            report.elapsed_milliseconds = Some(milliseconds_since(self.begun));
            report.clone()
        };
        archive::write(frozen, &self.plan, sink, self.compression, &root, self.observer, fill)
            .map_err(|error| unwritten(to, error))
    }

    fn publish(
        &self,
        sealed: Sealed,
        prover: Option<Prover<'_>>,
        inventory: &str,
        seen: Option<Seen>,
        report: &mut Report,
    ) -> Result<PathBuf> {
        let bytes = sealed.bytes();
        report.archive_bytes = Some(bytes);
        self.observer.on(Event::Sealed { bytes });
        let verify = prover.is_some();
        let verified = if let Some(prover) = prover {
            sealed.verify(|| prover.conclude(inventory, report.inventory_entries))?
        } else {
            report.warnings.push("The archive was not read back (--no-verify): nothing proves it yet.".to_owned());
            sealed.trust()
        };
        // What is not proven, or not whole, is no reason not to make another one.
        if let Some(seen) = seen.filter(|_| verify && report.counts.losses() == 0)
            && let Err(error) = verified.mark(|archive| seen.mark(archive))
        {
            let mark = "The archive cannot be marked with what it was made of, so that the next run makes another one";
            report.warnings.push(format!("{mark} ({error})."));
        }
        let path = verified.publish()?;
        report.verified = verify;
        report.archive_path = Some(path.as_path().into());
        (self.so_far)(report);
        if verify {
            shelf::note_published(&path, report, self.gate);
        }
        if report.counts.bytes / bytes.max(1) > OPENCLAW_RATIO {
            report.warnings.push(format!(
                "This archive unpacks to more than {OPENCLAW_RATIO} times its length: OpenClaw's own verify refuses it, and \
                 `clawsnap verify` needs --any-ratio. --compress gzip stays below."
            ));
        }
        self.observer.on(Event::Published);
        Ok(path)
    }
}

/// The newest archive that was made of the same, where no later one was made of something else.
fn same(target: &Target, seen: &Seen) -> Result<Option<Marked>> {
    let marked = target.marked().map_err(|error| Error::failed("look at the archives in", &target.directory, error))?;
    let mut told = marked.into_iter().map(|marked| (seen.compare(&marked.mark, &marked.stat), marked));
    let newest = told.find(|(mark, _)| *mark != Mark::Other);
    Ok(newest.and_then(|(mark, marked)| (mark == Mark::Same).then_some(marked)))
}

/// Lets go of the source. What cannot be removed does not spoil the archive, and is told.
pub(crate) fn release(frozen: Frozen, report: &mut Report) {
    if let Err(error) = frozen.release() {
        report.warnings.push(error.to_string());
        report.leftovers.push(error.to_string());
    }
}

/// What an archive of `bytes` needs at least, by how it is compressed.
pub(crate) fn least_space(bytes: u64, codec: Codec) -> u64 {
    if codec == Codec::None { bytes } else { bytes / BEST_RATIO }
}

fn enough_space(bytes: u64, codec: Codec, free: Option<u64>, directory: &Path) -> Result<()> {
    let least = least_space(bytes, codec);
    match free {
        Some(free) if free < least => {
            let cause = std::io::Error::new(
                std::io::ErrorKind::StorageFull,
                format!("{free} bytes are free, and {bytes} bytes of contents need {least} at the very least"),
            );
            Err(Error::failed("make the archive in", directory, cause)
                .remedy("free space there, or choose another --output"))
        }
        _ => Ok(()),
    }
}
