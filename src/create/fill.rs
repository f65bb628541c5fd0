//! What the report says of what was frozen, and of what became of it.

use crate::archive::Payload;
use crate::fate::Fate;
use crate::freeze::{Frozen, Held, Rest, State};
use crate::plan::{NameAudit, Plan};
use crate::relpath::joined;
use crate::report::{Consistency, CopiedDatabase, Counts, Fated, PathName, RefusedName, Report, RestlessPath};

/// Enters what the freeze and the payload were into the report.
pub(crate) fn fill(report: &mut Report, plan: &Plan, frozen: &Frozen, payload: Payload) {
    report.external_symbolic_links = payload.external;
    report.rounds = frozen.rounds;
    report.freeze_microseconds = frozen.width_us;
    report.captures = frozen.captures.iter().map(|(capture, count)| (capture.as_str(), *count)).collect();
    fill_rest(report, frozen);
    fill_fates(report, frozen);
    fill_databases(report, frozen);
    let noted = |wanted: fn(&Fate) -> bool| frozen.ledger.count(wanted);
    let mut counts = Counts {
        prefix: noted(|fate| *fate == Fate::Prefix),
        later: noted(|fate| *fate == Fate::Later),
        departed: noted(|fate| *fate == Fate::Departed),
        excluded: noted(|fate| matches!(fate, Fate::Excluded(_))),
        folded: noted(|fate| matches!(fate, Fate::Folded(_))),
        torn: noted(|fate| matches!(fate, Fate::Torn(_))),
        hollow: noted(|fate| matches!(fate, Fate::Hollow(_))),
        lost: noted(|fate| matches!(fate, Fate::Lost(_))),
        ..payload.counts
    };
    let held = counts.files + counts.directories;
    counts.kept = held.saturating_sub(counts.prefix + counts.later + counts.torn + counts.hollow);
    report.counts = counts;
    report.skipped_volatile_count = counts.excluded;
    drop_lost_assets(report);
    if plan.openclaw.is_some() {
        fill_refused(report, frozen);
    }
}

/// A source that is lost as a whole is no asset: OpenClaw refuses one without an entry.
fn drop_lost_assets(report: &mut Report) {
    let lost: Vec<&PathName> = report.losses.iter().filter(|loss| loss.fate == "lost").map(|loss| &loss.path).collect();
    report.assets.retain(|asset| !lost.contains(&&asset.source_path));
}

fn absolute(frozen: &Frozen, root: u16, path: &[u8]) -> PathName {
    PathName(joined(&frozen.bases[usize::from(root)].prefix, path))
}

fn fill_rest(report: &mut Report, frozen: &Frozen) {
    match &frozen.rest {
        Rest::Instant(moment) => {
            report.consistent = Some(Consistency::Instant);
            report.instant = Some(moment.to_string());
        }
        Rest::Window(restless) => {
            report.consistent = Some(Consistency::Window);
            let told = restless.iter().map(|restless| RestlessPath {
                path: absolute(frozen, restless.root, restless.path.as_bytes()),
                why: restless.why.as_str(),
            });
            report.restless = told.collect();
        }
    }
}

fn fill_fates(report: &mut Report, frozen: &Frozen) {
    for (root, path, fate) in frozen.ledger.iter() {
        let list = match fate {
            Fate::Torn(_) | Fate::Hollow(_) | Fate::Lost(_) => &mut report.losses,
            Fate::Departed => &mut report.departed,
            Fate::Prefix | Fate::Later => &mut report.moved,
            Fate::Excluded(_) => &mut report.excluded,
            Fate::Folded(_) => &mut report.folded,
            Fate::Kept => continue,
        };
        let path = absolute(frozen, root, path.as_bytes());
        list.push(Fated { path, fate: fate.as_str(), reason: fate.reason().map(str::to_owned) });
    }
}

/// How each database was copied.
fn fill_databases(report: &mut Report, frozen: &Frozen) {
    for node in frozen.nodes.iter().filter(|node| node.state != State::Gone) {
        for entry in &node.entries {
            let Held::Database(database) = &entry.held else { continue };
            let Ok(finished) = database.finished() else { continue };
            let copied = finished.copied.clone();
            report.databases.push(CopiedDatabase {
                path: absolute(frozen, node.root, node.path.join(&entry.name).as_bytes()),
                way: copied.way.as_str(),
                journal: copied.journal,
                page_size: copied.page_size,
                pages: copied.pages,
                user_version: copied.user_version,
                check: copied.check,
                locked_microseconds: copied.locked_us,
            });
        }
    }
}

/// Names that OpenClaw's restore would refuse are archived all the same, and told.
fn fill_refused(report: &mut Report, frozen: &Frozen) {
    let audit = NameAudit;
    for node in frozen.nodes.iter().filter(|node| node.state != State::Gone) {
        let dir = joined(&frozen.bases[usize::from(node.root)].prefix, node.path.as_bytes());
        let refused = audit.audit_directory(&dir, node.entries.iter().map(|entry| &*entry.name));
        report.refused_names.extend(
            refused.into_iter().map(|refused| RefusedName {
                path: PathName(refused.path.as_bytes().to_vec()),
                why: refused.to_string(),
            }),
        );
    }
}
