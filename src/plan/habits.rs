//! OpenClaw's habits with the names in its state directory: what it can make again, what only marks a running
//! process, and which files it reads without a guard.
//!
//! Read in the code of 2026.4.14, 2026.7.35 and 2026.9.6. What 2026.9.6 calls volatile and leaves out (sessions, cron
//! runs, logs, delivery queues) is what a backup is for, and stays.

use crate::entry::Kind;

/// A named reason to leave out a name, and the part of the path that it speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Habit<'a> {
    /// The name of the rule.
    pub(super) rule: &'static str,
    /// The path of what is left out: the one that was asked about, or a directory that holds it.
    pub(super) place: &'a [u8],
}

/// Why OpenClaw would not miss `path`, relative to the state directory.
#[inline]
pub(super) fn of_state<'a>(path: &'a [u8], name: &[u8], kind: Kind) -> Option<Habit<'a>> {
    of_place(path, kind).or_else(|| of_name(path, name, kind))
}

fn of_place(path: &[u8], kind: Kind) -> Option<Habit<'_>> {
    let first = component(path, 0);
    let top = match first {
        b"dev" => "regenerable:dev",
        b"git" => "regenerable:git",
        b"npm" => "regenerable:npm",
        b"npm-runtime" => "regenerable:npm-runtime",
        b"tmp" => "regenerable:tmp",
        b"tools" => "regenerable:tools",
        b"plugin-skills" => "regenerable:plugin-skills",
        b"agents" => return temporary_of_agent(path, kind),
        b"browser" => return browser_singleton(path),
        b"extensions" => return dependencies(path, kind),
        b"sandbox" => return below(path, b"sandbox/skills-workspaces", "regenerable:skills-workspaces"),
        b"cache" => return below(path, b"cache/control-ui-assets", "regenerable:control-ui-assets"),
        _ => return None,
    };
    // A plain file with such a name is none of OpenClaw's doing.
    (path.len() > first.len() || kind != Kind::File).then_some(Habit { rule: top, place: first })
}

fn below<'a>(path: &'a [u8], place: &[u8], rule: &'static str) -> Option<Habit<'a>> {
    super::path_set::within(path, place).then(|| Habit { rule, place: &path[..place.len()] })
}

/// `agents/<id>/agent/**/{tmp,.tmp}`.
fn temporary_of_agent(path: &[u8], kind: Kind) -> Option<Habit<'_>> {
    if component(path, 2) != b"agent" {
        return None;
    }
    let place = directory_named(path, 3, kind, |name| name == b"tmp" || name == b".tmp")?;
    Some(Habit { rule: "regenerable:agent-tmp", place })
}

/// `extensions/**/node_modules`.
fn dependencies(path: &[u8], kind: Kind) -> Option<Habit<'_>> {
    let place = directory_named(path, 1, kind, |name| name == b"node_modules")?;
    Some(Habit { rule: "regenerable:node_modules", place })
}

/// `browser/<profile>/user-data/Singleton{Cookie,Lock,Socket}`.
fn browser_singleton(path: &[u8]) -> Option<Habit<'_>> {
    let mut parts = path.split(|&c| c == b'/').skip(2);
    let singleton = matches!(
        (parts.next(), parts.next(), parts.next()),
        (Some(b"user-data"), Some(b"SingletonCookie" | b"SingletonLock" | b"SingletonSocket"), None)
    );
    singleton.then_some(Habit { rule: "regenerable:browser-singleton", place: path })
}

/// The path up to the first component from `skip` on that `wanted` accepts, if that is no plain file.
fn directory_named(path: &[u8], skip: usize, kind: Kind, wanted: impl Fn(&[u8]) -> bool) -> Option<&[u8]> {
    let mut end = 0;
    for (depth, name) in path.split(|&c| c == b'/').enumerate() {
        end += name.len() + usize::from(depth > 0);
        if depth >= skip && wanted(name) && (end < path.len() || kind != Kind::File) {
            return Some(&path[..end]);
        }
    }
    None
}

/// What people install or write themselves, the workspaces of agents that the config no longer knows among it; there
/// a name like `x.tmp` can mean anything.
fn is_of_people(path: &[u8]) -> bool {
    let first = component(path, 0);
    matches!(first, b"extensions" | b"skills" | b"hooks" | b"workspace") || first.starts_with(b"workspace-")
}

fn of_name<'a>(path: &'a [u8], name: &[u8], kind: Kind) -> Option<Habit<'a>> {
    if kind != Kind::File || !name.contains(&b'.') || is_of_people(path) {
        return None;
    }
    let rule = match name {
        _ if is_sqlite_scratch(name) => "regenerable:sqlite-scratch",
        _ if is_pid(name) => "pid",
        _ if is_lock(name) => "lock",
        _ if is_temporary(name) => "temporary",
        _ => return None,
    };
    Some(Habit { rule, place: path })
}

fn is_pid(name: &[u8]) -> bool {
    name.len() > 4 && ends_with(name, b".pid")
}

/// OpenClaw locks `f.ext` by `f.ext.lock`. A `yarn.lock` is a document.
fn is_lock(name: &[u8]) -> bool {
    name.len() > 5 && ends_with(name, b".lock") && name[..name.len() - 5].contains(&b'.')
}

/// `x.tmp`, `x.tmp.1`, and the name under which a truncated session is written.
fn is_temporary(name: &[u8]) -> bool {
    ends_with(name, b".truncate-tmp")
        || occurrences(name, b".tmp").any(|at| at > 0 && matches!(name.get(at + 4), None | Some(b'.')))
}

/// What OpenClaw builds or backs up a database in, left behind when it was stopped meanwhile.
pub(super) fn is_sqlite_scratch(name: &[u8]) -> bool {
    let main = sidecars().iter().find_map(|suffix| strip_suffix(name, suffix)).unwrap_or(name);
    let Some(at) = find(main, b".sqlite.").filter(|&at| at > 0) else { return false };
    let rest = &main[at + b".sqlite.".len()..];
    let locks: [&[u8]; 3] = [b"generation-lock.sqlite", b"generation-writer.sqlite", b"reindex-lock.sqlite"];
    let copies: [&[u8]; 3] = [b"backup-", b"memory-reindex-", b"tmp-"];
    locks.iter().any(|lock| rest.eq_ignore_ascii_case(lock))
        || copies.iter().any(|copy| strip_prefix(rest, copy).is_some_and(is_uuid))
}

fn is_uuid(text: &[u8]) -> bool {
    let at_dash = |at| matches!(at, 8 | 13 | 18 | 23);
    text.len() == 36
        && text.iter().enumerate().all(|(at, &c)| if at_dash(at) { c == b'-' } else { c.is_ascii_hexdigit() })
}

fn sidecars() -> [&'static [u8]; 3] {
    [b"-wal", b"-shm", b"-journal"]
}

/// Whether a name says that the file is a database or belongs to one.
#[inline]
pub(super) fn is_database_name(name: &[u8]) -> bool {
    let main = sidecars().iter().find_map(|suffix| strip_suffix(name, suffix)).unwrap_or(name);
    let endings: [&[u8]; 4] = [b".sqlite", b".sqlite3", b".db", b".db3"];
    endings.iter().any(|ending| ends_with(main, ending))
}

/// Whether OpenClaw reads and appends to the file, relative to the state directory, whatever links it has.
///
/// Transcripts and cron runs: yes. `sessions.json` and what it was renamed to is a store, trajectories and logs are
/// appended to by a function that refuses files with a second name, and 2026.9.6 proves the identity of what it
/// imported by nlink and ctime.
#[inline]
pub(super) fn is_unguarded(path: &[u8], name: &[u8]) -> bool {
    match component(path, 0) {
        b"agents" => {
            component(path, 2) == b"sessions" && is_transcript(name) && !path.split(|&c| c == b'/').any(is_archive_name)
        }
        b"cron" => component(path, 1) == b"runs" && ends_with(name, b".jsonl"),
        _ => false,
    }
}

fn is_transcript(name: &[u8]) -> bool {
    !name.starts_with(b"sessions.json") && find(name, b".trajectory").is_none() && !is_database_name(name)
}

/// Whether a migration to SQLite keeps its originals in a directory of this name.
#[inline]
pub(super) fn is_archive_name(name: &[u8]) -> bool {
    name.starts_with(b"session-sqlite-") && matches!(&name[15..], b"import-archive" | b"migration-runs")
}

/// Whether a file of this name is read by agents through a guard, wherever it lies.
#[inline]
pub(super) fn is_bootstrap_name(name: &[u8]) -> bool {
    match name.len() {
        7 => matches!(name, b"SOUL.md" | b"USER.md" | b"BOOT.md"),
        8 => matches!(name, b"TOOLS.md" | b"SKILL.md"),
        9 => matches!(name, b"AGENTS.md" | b"MEMORY.md"),
        11 => name == b"IDENTITY.md",
        12 => matches!(name, b"HEARTBEAT.md" | b"BOOTSTRAP.md"),
        13 => matches!(name, b"openclaw.json" | b"clawdbot.json"),
        _ => false,
    }
}

/// Whether a directory of this name is, by custom, a state directory: `.openclaw`, `.openclaw-<profile>`, `.clawdbot`.
#[inline]
pub(super) fn is_state_name(name: &[u8]) -> bool {
    name == b".openclaw" || name == b".clawdbot" || name.starts_with(b".openclaw-")
}

/// The component at `depth`; empty where the path is not that deep.
fn component(path: &[u8], depth: usize) -> &[u8] {
    path.split(|&c| c == b'/').nth(depth).unwrap_or_default()
}

#[inline]
fn ends_with(name: &[u8], suffix: &[u8]) -> bool {
    strip_suffix(name, suffix).is_some()
}

#[inline]
fn strip_suffix<'a>(name: &'a [u8], suffix: &[u8]) -> Option<&'a [u8]> {
    let at = name.len().checked_sub(suffix.len())?;
    name[at..].eq_ignore_ascii_case(suffix).then(|| &name[..at])
}

fn strip_prefix<'a>(name: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let head = name.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &name[prefix.len()..])
}

fn find(name: &[u8], wanted: &[u8]) -> Option<usize> {
    occurrences(name, wanted).next()
}

/// Where `wanted`, which starts with a dot, occurs in `name`; its first byte tells most places apart at once.
fn occurrences<'a>(name: &'a [u8], wanted: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let dots = name.iter().enumerate().filter(|(_, c)| **c == b'.').map(|(at, _)| at);
    dots.filter(move |&at| strip_prefix(&name[at..], wanted).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(path: &str) -> &[u8] {
        path.rsplit('/').next().unwrap_or(path).as_bytes()
    }

    fn rule(path: &str, kind: Kind) -> Option<&'static str> {
        of_state(path.as_bytes(), name_of(path), kind).map(|habit| habit.rule)
    }

    #[test]
    fn regenerable_places_are_left_out_by_a_named_rule() {
        let table = [
            ("npm", "regenerable:npm"),
            ("npm/a/b", "regenerable:npm"),
            ("dev", "regenerable:dev"),
            ("git", "regenerable:git"),
            ("npm-runtime", "regenerable:npm-runtime"),
            ("tmp", "regenerable:tmp"),
            ("tools", "regenerable:tools"),
            ("plugin-skills", "regenerable:plugin-skills"),
            ("extensions/a/node_modules", "regenerable:node_modules"),
            ("extensions/@s/a/b/node_modules/c", "regenerable:node_modules"),
            ("agents/main/agent/tmp", "regenerable:agent-tmp"),
            ("agents/main/agent/a/.tmp", "regenerable:agent-tmp"),
            ("browser/p/user-data/SingletonLock", "regenerable:browser-singleton"),
            ("sandbox/skills-workspaces", "regenerable:skills-workspaces"),
            ("cache/control-ui-assets/x", "regenerable:control-ui-assets"),
        ];
        for (path, expected) in table {
            assert_eq!(rule(path, Kind::Directory), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_marks_a_running_process_is_left_out_by_a_named_rule() {
        let table = [
            ("gateway.pid", "pid"),
            ("agents/main/sessions/a.jsonl.lock", "lock"),
            (".fs-safe-write-00.lock", "lock"),
            ("sessions.json.tmp", "temporary"),
            ("x/y.TMP.123", "temporary"),
            ("agents/main/sessions/a.jsonl.truncate-tmp", "temporary"),
            ("a/b.sqlite.memory-reindex-e7ed3846-31ac-4554-971d-cedbb235d201-wal", "regenerable:sqlite-scratch"),
            ("a/b.sqlite.reindex-lock.sqlite-journal", "regenerable:sqlite-scratch"),
        ];
        for (path, expected) in table {
            assert_eq!(rule(path, Kind::File), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_a_backup_is_for_is_kept() {
        let files = [
            "openclaw.json",
            "agents/main/sessions/0.jsonl",
            "agents/main/sessions/0.jsonl.deleted.1",
            "agents/main/sessions/sessions.json",
            "agents/main/sessions/tmp/x",
            "agents/main/agent/openclaw-agent.sqlite",
            "agents/main/agent/openclaw-agent.sqlite-wal",
            "cron/runs/j.jsonl",
            "logs/a.log",
            "delivery-queue/1.json",
            "delivery-queue/1.delivered",
            "state/openclaw.sqlite",
            "x/tools/a",
            "git",
            "yarn.lock",
            ".lock",
            ".tmp",
            ".pid",
            "a.tmpl",
            "a.sqlite.backup-2026",
            "skills/a/b.tmp",
            "workspace-gone/b.tmp",
            "extensions/a/poetry.toml.lock",
            "browser/p/user-data/SingletonLock/x",
            "browser/p/user-data/Cookies",
            "cache/control-ui-assets2",
            "agents/tmp/agent",
            "agents/main/agent/tmp",
        ];
        for path in files {
            assert_eq!(rule(path, Kind::File), None, "{path}");
        }
        assert_eq!(rule("a.tmp", Kind::Directory), None, "a directory can hold anything");
    }

    #[test]
    fn only_transcripts_and_cron_runs_are_read_without_a_guard() {
        let unguarded = |path: &str| is_unguarded(path.as_bytes(), name_of(path));
        for path in [
            "agents/main/sessions/0.jsonl",
            "agents/main/sessions/0.jsonl.reset.2026",
            "agents/main/sessions/archive/0.jsonl.gz",
            "cron/runs/j.jsonl",
        ] {
            assert!(unguarded(path), "{path}");
        }
        for path in [
            "agents/main/sessions/sessions.json",
            "agents/main/sessions/sessions.json.bak.1",
            "agents/main/sessions/0.trajectory.jsonl",
            "agents/main/sessions/x.sqlite-wal",
            "agents/main/sessions/session-sqlite-import-archive/0.jsonl",
            "agents/main/session-sqlite-import-archive/0.jsonl",
            "agents/main/agent/a.jsonl",
            "agents/main",
            "cron/jobs.json",
            "logs/gateway.log",
            "sessions/0.jsonl",
            "workspace/AGENTS.md",
            "",
        ] {
            assert!(!unguarded(path), "{path}");
        }
    }

    #[test]
    fn databases_are_known_by_name_with_their_sidecars() {
        for name in ["a.sqlite", "a.SQLITE3", "a.db", "a.db3", "a.db-wal", "a.sqlite-shm", "a.sqlite-journal", ".db"] {
            assert!(is_database_name(name.as_bytes()), "{name}");
        }
        for name in ["a.dbx", "db", "sqlite", "a.sqlite.jsonl", "-wal", ""] {
            assert!(!is_database_name(name.as_bytes()), "{name}");
        }
    }
}
