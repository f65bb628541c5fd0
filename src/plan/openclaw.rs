//! Where OpenClaw keeps its things.
//!
//! The rules are those of the backups of 2026.4.14 and 2026.9.6, read in their code and measured. Where they differ,
//! what either of them means is taken.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::additions;
use super::config::{self, version};
use super::environment::Environment;
use super::habits;
use super::outward;
use super::root::{AssetKind, Missing, Root, canonical_prefix};
use super::roster::{Roster, is_there};
use super::state_dir::StateDir;
use super::stores;
use super::warning::Warning;

/// What an OpenClaw backup says of the installation that it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenClaw {
    /// The state directory, canonical.
    pub state_dir: PathBuf,
    /// The config, which may be a symbolic link or missing.
    pub config_path: PathBuf,
    /// The credentials directory, which may be missing.
    pub oauth_dir: PathBuf,
    /// The workspaces that are backed up.
    pub workspace_dirs: Vec<PathBuf>,
    /// The directories of the configured agents; `None` where only the config is backed up.
    pub agent_roots: Option<Vec<AgentRoot>>,
    /// Whether the workspaces are backed up.
    pub include_workspace: bool,
    /// Whether only the config is backed up.
    pub only_config: bool,
}

/// An agent's own directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRoot {
    /// The agent, in OpenClaw's canonical spelling.
    pub agent_id: String,
    /// The directory, canonical as far as it exists.
    pub path: PathBuf,
}

/// Everything that an installation of OpenClaw owns.
#[derive(Debug)]
pub(super) struct Holdings {
    pub(super) state_dir: PathBuf,
    pub(super) config_path: PathBuf,
    pub(super) config_files: Vec<PathBuf>,
    /// What OpenClaw reads its environment from.
    pub(super) env_files: Vec<PathBuf>,
    /// Where the state was, or would be if one of those files did not lead away.
    pub(super) left: Vec<PathBuf>,
    pub(super) oauth_dir: PathBuf,
    /// Where the agents work.
    pub(super) workspaces: Vec<PathBuf>,
    /// Those of them that nothing names: OpenClaw makes each when it needs it.
    pub(super) unnamed_workspaces: Vec<PathBuf>,
    pub(super) agents: Vec<AgentRoot>,
    /// Directories of agents that the environment names, and not the config.
    pub(super) agent_dirs: Vec<PathBuf>,
    /// Where the config, or a symbolic link in the state directory, puts sessions, cron jobs, sandboxes and the like.
    pub(super) stores: Vec<PathBuf>,
    pub(super) managed_skills: Vec<PathBuf>,
    /// Whether sessions that have a second name may be refused.
    pub(super) guards_sessions: bool,
}

/// The last release line that appends to a session whatever its link count. 2026.7.35 answers "Refusing to append to
/// hardlinked file" (measured) when it rewrites a transcript, and a migration to SQLite refuses linked transcripts.
const LAST_UNGUARDED: (u32, u32) = (2026, 4);

/// Whether the config was written by a version later than [`LAST_UNGUARDED`], or may have been: one that is broken, was
/// written by hand or lies elsewhere tells no version. To guard a session costs a descriptor, or a copy where there are
/// no more; to link one that is guarded stops a running agent.
fn guards_sessions(config: &Value) -> bool {
    version(config).is_none_or(|version| version > LAST_UNGUARDED)
}

impl Holdings {
    /// Those of a state directory, and what the environment and the config say of the rest.
    pub(super) fn survey(state: &StateDir, warnings: &mut Vec<Warning>) -> Self {
        let (state_dir, environment) = (state.path.as_path(), &state.environment);
        let config_path = config_path(state_dir, environment);
        let config = config::read(&config_path, environment, warnings);
        let environment = &additions::of_config(environment, &config.value);
        let oauth = environment.variable("OPENCLAW_OAUTH_DIR");
        let roster = Roster::new(&config.value, state_dir, environment);
        warnings.extend(roster.unset_variables());
        let real = canonical_prefix(state_dir);
        let mut stores = stores::find(&roster.session_stores(warnings), roster.cron_store(), &roster.wide(), warnings);
        stores.extend(roster.sandboxes(warnings));
        let workspaces = roster.workspaces();
        let oauth_dir = oauth.map_or_else(|| state_dir.join("credentials"), |dir| environment.user_path(&dir));
        let places = workspaces.iter().map(|workspace| &workspace.path).chain([&config_path, &oauth_dir]);
        let followed: Vec<PathBuf> = places.chain(&state.env_files).map(|path| canonical_prefix(path)).collect();
        let linked = outward::find(&real, &roster.wide(), warnings);
        stores.extend(linked.into_iter().filter(|target| !followed.contains(target)));
        let unnamed = workspaces.iter().filter(|workspace| !workspace.is_named);
        Self {
            config_path,
            oauth_dir,
            workspaces: workspaces.iter().map(|workspace| workspace.path.clone()).collect(),
            unnamed_workspaces: unnamed.map(|workspace| workspace.path.clone()).collect(),
            agents: roster.agent_roots(),
            agent_dirs: roster.further_agent_dirs(),
            stores,
            managed_skills: managed_skills(state_dir),
            guards_sessions: guards_sessions(&config.value),
            config_files: config.files,
            env_files: state.env_files.clone(),
            left: state.left.clone(),
            state_dir: real,
        }
    }

    /// All that OpenClaw may read through a guard, canonical.
    pub(super) fn everything(&self) -> Vec<PathBuf> {
        let mut all = vec![self.state_dir.clone(), self.config_path.clone(), self.oauth_dir.clone()];
        let files = self.config_files.iter().chain(&self.env_files).chain(&self.left);
        all.extend(files.chain(&self.workspaces).chain(&self.stores).chain(&self.managed_skills).cloned());
        all.extend(self.agents.iter().map(|agent| &agent.path).chain(&self.agent_dirs).cloned());
        all.iter().map(|path| canonical_prefix(path)).collect()
    }

    /// The agents' directories that lie elsewhere than OpenClaw puts them.
    pub(super) fn custom_agents(&self) -> impl Iterator<Item = &Path> {
        let usual =
            |agent: &AgentRoot| canonical_prefix(&self.state_dir.join("agents").join(&agent.agent_id).join("agent"));
        let configured = self.agents.iter().filter(move |agent| agent.path != usual(agent)).map(|agent| &agent.path);
        configured.chain(&self.agent_dirs).map(PathBuf::as_path)
    }

    /// The workspaces, canonical.
    pub(super) fn real_workspaces(&self) -> Vec<PathBuf> {
        self.workspaces.iter().map(|path| canonical_prefix(path)).collect()
    }

    /// Whether OpenClaw makes the directory at this canonical path when it needs it, as nothing names that.
    pub(super) fn makes(&self, path: &Path) -> bool {
        let is_usual = |agent: &AgentRoot| agent.path == path && self.custom_agents().all(|custom| custom != path);
        self.unnamed_workspaces.iter().any(|own| canonical_prefix(own) == path) || self.agents.iter().any(is_usual)
    }

    /// What a backup consists of, in OpenClaw's order, and what of it does not exist.
    pub(super) fn candidates(&self, include_workspace: bool) -> (Vec<Root>, Vec<Missing>) {
        use AssetKind::{Agent, Config, Credentials, ManagedSkill, State, Store, Workspace};
        let mut named = vec![(State, self.state_dir.clone())];
        // Of what lies in the state directory by default, OpenClaw does not speak.
        let own = [(Config, &self.config_path), (Credentials, &self.oauth_dir)];
        let adding = self.left.iter().chain(&self.env_files).map(|path| (Config, path));
        let elsewhere =
            own.into_iter().chain(adding).filter(|(_, path)| !canonical_prefix(path).starts_with(&self.state_dir));
        named.extend(elsewhere.map(|(kind, path)| (kind, path.clone())));
        let config = canonical_prefix(&self.config_path);
        let included = self.config_files.iter().filter(|file| **file != config);
        named.extend(included.map(|file| (Config, file.clone())));
        if include_workspace {
            named.extend(self.workspaces.iter().map(|path| (Workspace, path.clone())));
        }
        // An agent that has not run yet has no directory; that is no news unless the config names one.
        let custom: Vec<&Path> = self.custom_agents().collect();
        let agents = self.agents.iter().filter(|agent| agent.path.exists() || custom.contains(&agent.path.as_path()));
        named.extend(agents.map(|agent| &agent.path).chain(&self.agent_dirs).map(|path| (Agent, path.clone())));
        let elsewhere = self.stores.iter().filter(|path| !canonical_prefix(path).starts_with(&self.state_dir));
        named.extend(elsewhere.map(|path| (Store, path.clone())));
        let (mut roots, missing) = existing(named);
        let apart = |skill: &&PathBuf| {
            roots.iter().all(|root| !skill.starts_with(&root.path) && !root.path.starts_with(skill.as_path()))
        };
        let skills: Vec<PathBuf> = self.managed_skills.iter().filter(apart).cloned().collect();
        roots.extend(skills.into_iter().map(|path| Root { kind: ManagedSkill, path }));
        (roots, missing)
    }

    /// The facts for the manifest.
    pub(super) fn facts(&self, include_workspace: bool, only_config: bool) -> OpenClaw {
        let include_workspace = include_workspace && !only_config;
        OpenClaw {
            state_dir: self.state_dir.clone(),
            config_path: self.config_path.clone(),
            oauth_dir: self.oauth_dir.clone(),
            workspace_dirs: if include_workspace { self.workspaces.clone() } else { Vec::new() },
            agent_roots: (!only_config).then(|| self.agents.clone()),
            include_workspace,
            only_config,
        }
    }
}

/// Splits what was named into what there is and what is missing. The loss of what cannot be looked at must show when it
/// is read.
fn existing(named: Vec<(AssetKind, PathBuf)>) -> (Vec<Root>, Vec<Missing>) {
    let (mut roots, mut missing) = (Vec::new(), Vec::new());
    for (kind, path) in named {
        match is_there(&path) {
            true => roots.push(Root { kind, path: canonical_prefix(&path) }),
            false => missing.push(Missing { kind, path }),
        }
    }
    (roots, missing)
}

/// `OPENCLAW_CONFIG_PATH`, else the first config that exists in the state directory or, where the environment names
/// no state directory, in the usual ones.
fn config_path(state_dir: &Path, environment: &Environment) -> PathBuf {
    if let Some(named) = environment.variable("OPENCLAW_CONFIG_PATH") {
        return environment.user_path(&named);
    }
    let mut dirs = vec![state_dir.to_path_buf()];
    if environment.variable("OPENCLAW_STATE_DIR").is_none() {
        let home = environment.effective_home();
        dirs.extend([home.join(".openclaw"), home.join(".clawdbot")]);
    }
    let names = |dir: &PathBuf| [dir.join("openclaw.json"), dir.join("clawdbot.json")];
    let found = dirs.iter().flat_map(names).find(|path| path.exists());
    found.unwrap_or_else(|| state_dir.join("openclaw.json"))
}

/// Where the links among the managed skills lead, if that is a skill or a group of skills.
fn managed_skills(state_dir: &Path) -> Vec<PathBuf> {
    let mut targets = Vec::new();
    collect_skill_targets(&state_dir.join("skills"), 0, &mut targets);
    targets.sort();
    targets.dedup();
    targets
}

/// How deep OpenClaw looks for skills.
const SKILL_DEPTH: usize = 6;
/// How many names of a directory are looked at: a link may lead to anything, however large.
const SKILL_NAMES: usize = 10_000;

fn collect_skill_targets(dir: &Path, depth: usize, targets: &mut Vec<PathBuf>) {
    for (path, kind) in visible_entries(dir) {
        if kind.is_symlink() {
            targets.extend(path.canonicalize().ok().filter(|target| holds_skill(target)));
        } else if kind.is_dir() && depth < SKILL_DEPTH {
            collect_skill_targets(&path, depth + 1, targets);
        }
    }
}

/// Whether a link's target is a skill or a group of skills; deeper than that is not looked.
fn holds_skill(dir: &Path) -> bool {
    let is_skill = |dir: &Path| dir.join("SKILL.md").is_file();
    is_skill(dir) || visible_entries(dir).any(|(path, kind)| kind.is_dir() && is_skill(&path))
}

fn visible_entries(dir: &Path) -> impl Iterator<Item = (PathBuf, fs::FileType)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().take(SKILL_NAMES);
    let visible = entries.filter(|entry| {
        let name = entry.file_name();
        !name.as_bytes().starts_with(b".") && name != "node_modules"
    });
    visible.filter_map(|entry| Some((entry.path(), entry.file_type().ok()?)))
}

/// How much a directory looks like OpenClaw's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looks {
    /// Surely a state directory: its habits hold.
    State,
    /// Perhaps OpenClaw reads it: nothing is left out, and nothing is linked.
    Guarded,
    /// Not like OpenClaw's.
    Plain,
}

/// How much the directory at `dir` looks like OpenClaw's.
///
/// To call a plain directory a state directory would leave out its `tmp` and `tools`: that takes a tell-tale that
/// nothing else has. To take it for guarded costs only time.
pub(super) fn looks(dir: &Path) -> Looks {
    let has = |path: &str| dir.join(path).exists();
    let has_config = has("openclaw.json") || has("clawdbot.json");
    let is_named = dir.file_name().is_some_and(|name| habits::is_state_name(name.as_bytes()));
    if has("state/openclaw.sqlite") || has_sessions(dir) || (has_config && (is_named || has("agents"))) {
        Looks::State
    } else if has_config || is_named || (has("AGENTS.md") && has("SOUL.md")) {
        Looks::Guarded
    } else {
        Looks::Plain
    }
}

/// The directories right below `dir` that look like OpenClaw's.
pub(super) fn lookalikes_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().take(LOOKALIKES);
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
    dirs.filter(|dir| looks(dir) != Looks::Plain).collect()
}

/// How many names of a plain source are looked at.
const LOOKALIKES: usize = 1_000;

fn has_sessions(dir: &Path) -> bool {
    let mut agents = fs::read_dir(dir.join("agents")).into_iter().flatten().flatten();
    agents.any(|agent| {
        let has = |path: &str| agent.path().join(path).exists();
        has("sessions/sessions.json") || has("agent/openclaw-agent.sqlite") || has_transcript(&agent.path())
    })
}

fn has_transcript(agent: &Path) -> bool {
    let mut sessions = fs::read_dir(agent.join("sessions")).into_iter().flatten().flatten();
    sessions.any(|session| session.file_name().as_bytes().ends_with(b".jsonl"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_guarded_where_the_version_refuses_linked_ones() {
        for (version, guarded) in [
            ("2026.4.14", false),
            ("2025.12.1", false),
            ("2026.7.35", true),
            ("2026.9.6", true),
            ("2026.9.6-beta.1", true),
            ("2027.1.0", true),
            ("", true),
            ("unknown", true),
        ] {
            let config = serde_json::json!({ "meta": { "lastTouchedVersion": version } });
            assert_eq!(guards_sessions(&config), guarded, "{version:?}");
        }
        assert!(guards_sessions(&serde_json::json!({})), "it may have been written by hand");
        assert!(guards_sessions(&Value::Null), "there is none here, or a broken one");
    }
}
