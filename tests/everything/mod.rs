//! A report that lacks nothing.

#![allow(unreachable_pub, reason = "a module of a test")]

use clawsnap::fate::Fate;
use clawsnap::freeze::Capture;
use clawsnap::report::{
    AgentRoot, Asset, Consistency, CopiedDatabase, Counts, ExternalLink, Fated, Judged, Outcome, PathName, Pruned, Ran,
    RefusedName, Report, RestlessPath, Rollback, Skipped, SurveyRow,
};

/// Any path.
pub fn name() -> PathName {
    PathName(b"/x".to_vec())
}

fn fated(fate: Fate) -> Vec<Fated> {
    vec![Fated { path: name(), fate: fate.as_str(), reason: fate.reason().map(str::to_owned) }]
}

/// A report that has everything. Every field is named, so that a new one does not compile until it is here.
pub fn full() -> Report {
    let text = || "x".to_owned();
    Report {
        created_at: text(),
        archive_root: text(),
        archive_path: Some(name()),
        dry_run: true,
        include_workspace: true,
        only_config: true,
        state_alone: true,
        verified: true,
        assets: vec![Asset { kind: "tree", source_path: name(), display_path: name(), archive_path: name() }],
        agent_roots: vec![AgentRoot { agent_id: text(), source_path: name() }],
        skipped: vec![Skipped {
            kind: text(),
            source_path: name(),
            display_path: name(),
            reason: text(),
            covered_by: Some(name()),
        }],
        skipped_volatile_count: 1,
        warnings: vec![text()],
        gaps: vec![text()],
        barred: Some(String::new()),
        leftovers: vec![text()],
        external_symbolic_links: vec![ExternalLink { entry_path: name(), linkpath: name() }],
        version: "0",
        format_version: 1,
        outcome: Outcome::Complete,
        error: Some(text()),
        signal: Some(1),
        consistent: Some(Consistency::Instant),
        instant: Some(text()),
        restless: vec![RestlessPath { path: name(), why: "names" }],
        rounds: 1,
        freeze_microseconds: 1,
        counts: Counts::default(),
        captures: CAPTURES.map(|capture| (capture.as_str(), 1)).into(),
        survey: vec![SurveyRow { kind: "file", capture: "pin", files: 1, bytes: 1 }],
        compression: Some(text()),
        archive_bytes: Some(1),
        inventory_blake3: Some(text()),
        inventory_entries: Some(1),
        losses: fated(Fate::Torn("x".into())),
        departed: fated(Fate::Departed),
        moved: fated(Fate::Prefix),
        excluded: fated(Fate::Excluded("x".into())),
        folded: fated(Fate::Folded("x".into())),
        databases: vec![CopiedDatabase {
            path: name(),
            way: "raw",
            journal: text(),
            page_size: 1,
            pages: 1,
            user_version: 1,
            check: text(),
            locked_microseconds: 1,
        }],
        refused_names: vec![RefusedName { path: name(), why: text() }],
        free_bytes: Some(1),
        mounts: vec![name()],
        ran: Some(Ran {
            command: vec![name()],
            directory: Some(name()),
            exit_code: Some(1),
            signal: Some(1),
            error: Some(text()),
            elapsed_milliseconds: 1,
            touched: fated(Fate::Torn("x".into())),
            differences: fated(Fate::Torn("x".into())),
            way_back: Some(text()),
            way_back_kept_until: Some(text()),
            rollback: Some(Rollback { done: true, error: Some(text()), kept: vec![name()], warnings: vec![text()] }),
        }),
        pruned: Some(Pruned {
            directory: name(),
            dry_run: true,
            archives: vec![Judged {
                path: name(),
                bytes: 1,
                proven: true,
                created_at: Some(text()),
                sources: vec![text()],
                losses: 1,
                gaps: 1,
                stays: vec![text()],
                removed: true,
                error: Some(text()),
            }],
            error: Some(text()),
        }),
        elapsed_milliseconds: Some(1),
        peak_memory_bytes: Some(1),
    }
}

pub const CAPTURES: [Capture; 6] =
    [Capture::Link, Capture::Clone, Capture::Hold, Capture::Pin, Capture::Copy, Capture::Database];
