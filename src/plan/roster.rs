//! The agents that a config speaks of, and where they work.
//!
//! Versions differ in whose workspace the default one is and where it lies. A backup is made before an upgrade as well
//! as after one, so that what any of them means is taken.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::config::{substitute, version};
use super::environment::Environment;
use super::openclaw::AgentRoot;
use super::root::canonical_prefix;
use super::stores;
use super::warning::Warning;

/// The field that names where sandboxes are. That of `sandbox.ssh` is on another machine.
const SANDBOXES: &str = "workspaceRoot";

type Entry<'a> = (String, Option<&'a Map<String, Value>>);

/// The first version that was read in which the default workspace lies in a state directory that the environment
/// names. 2026.4 has it in the home directory, wherever the state is.
const WORKSPACE_BESIDE_STATE: (u32, u32) = (2026, 9);

/// What names the directory of the agent that a command is run for without one. 2026.4 takes the first that is set,
/// 2026.9 either of them.
pub(super) const AGENT_VARIABLES: [&str; 2] = ["OPENCLAW_AGENT_DIR", "PI_CODING_AGENT_DIR"];

/// Where an agent works.
pub(super) struct Workspace {
    pub(super) path: PathBuf,
    /// The config or the environment says so. Else OpenClaw makes it when it needs it.
    pub(super) is_named: bool,
}

/// The agents that a config speaks of.
pub(super) struct Roster<'a> {
    environment: &'a Environment,
    state_dir: &'a Path,
    config: &'a Value,
    defaults: Option<&'a Value>,
    /// By canonical name, each once.
    agents: Vec<Entry<'a>>,
    /// The agent that the default workspace belongs to.
    owner: Option<String>,
}

impl<'a> Roster<'a> {
    pub(super) fn new(config: &'a Value, state_dir: &'a Path, environment: &'a Environment) -> Self {
        let section = config.get("agents");
        // A roster that is empty is one without agents to 2026.9, and `main`'s to 2026.4.
        let listed = section.and_then(listed_agents).filter(|listed| !listed.is_empty());
        let listed = listed.unwrap_or_else(|| vec![("main".to_owned(), None)]);
        let owner = default_owner(section, &listed);
        let mut agents: Vec<Entry<'_>> = Vec::new();
        for (id, entry) in listed {
            if agents.iter().all(|(known, _)| *known != id) {
                agents.push((id, entry));
            }
        }
        let defaults = section.and_then(|section| section.get("defaults"));
        Self { environment, state_dir, config, defaults, agents, owner }
    }

    /// The variables that paths in the config refer to, and that are not set.
    pub(super) fn unset_variables(&self) -> Vec<Warning> {
        let fields = |entry: Option<&'a Map<String, Value>>| {
            ["workspace", "agentDir"].map(|key| entry.and_then(|entry| entry.get(key)))
        };
        let shared = self.defaults.and_then(|defaults| defaults.get("workspace"));
        let stores = ["session", "cron"].map(|section| self.config[section].get("store"));
        let sandboxes = self.sandbox_fields().into_iter().map(|sandbox| sandbox.get(SANDBOXES));
        let paths = self.agents.iter().flat_map(|(_, entry)| fields(*entry)).chain([shared]).chain(stores);
        let paths = paths.chain(sandboxes).flatten();
        let mut unset: Vec<Warning> = Vec::new();
        for written in paths.filter_map(Value::as_str) {
            let name = substitute(written, self.environment).err();
            let warning = name.map(|name| Warning::UnsetVariable { name, written: written.to_owned() });
            unset.extend(warning.filter(|warning| !unset.contains(warning)));
        }
        unset
    }

    /// A path that the config gives, unless it refers to a variable that is not set.
    fn path(&self, field: Option<&Value>) -> Option<PathBuf> {
        self.written_path(field?.as_str()?)
    }

    fn written_path(&self, written: &str) -> Option<PathBuf> {
        let written = substitute(written, self.environment).ok()?;
        let written = written.trim().replace('\0', "");
        (!written.is_empty()).then(|| self.environment.user_path(OsStr::new(&written)))
    }

    /// Where the agents work, each place once; of the places that only another version means, those that there are.
    pub(super) fn workspaces(&self) -> Vec<Workspace> {
        let agents = self.agents.iter().map(|(id, entry)| self.workspace(id, *entry));
        let perhaps = self.perhaps().into_iter().filter(|workspace| is_there(&workspace.path));
        let mut workspaces: Vec<Workspace> = Vec::new();
        for found in agents.chain(perhaps) {
            match workspaces.iter_mut().find(|known| known.path == found.path) {
                Some(known) => known.is_named &= found.is_named,
                None => workspaces.push(found),
            }
        }
        workspaces
    }

    fn workspace(&self, id: &str, entry: Option<&Map<String, Value>>) -> Workspace {
        let named = |path| Workspace { path, is_named: true };
        if let Some(own) = self.own_workspace(entry) {
            return named(own);
        }
        match (self.shared_workspace(), self.owner.as_deref() == Some(id)) {
            (Some(shared), true) => named(shared),
            (Some(shared), false) => named(shared.join(id)),
            (None, true) => self.default_workspace(),
            (None, false) => Workspace { path: self.state_dir.join(format!("workspace-{id}")), is_named: false },
        }
    }

    fn own_workspace(&self, entry: Option<&Map<String, Value>>) -> Option<PathBuf> {
        self.path(entry.and_then(|entry| entry.get("workspace")))
    }

    fn shared_workspace(&self) -> Option<PathBuf> {
        self.path(self.defaults.and_then(|defaults| defaults.get("workspace")))
    }

    /// What some version takes for an agent's workspace, whoever owns the default one there: the directory that all
    /// share, else those that nothing names.
    fn perhaps(&self) -> Vec<Workspace> {
        if let Some(path) = self.shared_workspace() {
            return vec![Workspace { path, is_named: true }];
        }
        let is_owner = |(id, _): &&Entry<'_>| self.owner.as_ref() == Some(id);
        let owner = self.agents.iter().find(is_owner);
        if owner.is_some_and(|(_, entry)| self.own_workspace(*entry).is_some()) {
            return Vec::new();
        }
        let in_home = self.workspaces_in_home().into_iter().map(|path| Workspace { path, is_named: false });
        [self.default_workspace()].into_iter().chain(in_home).collect()
    }

    fn default_workspace(&self) -> Workspace {
        let environment = self.environment;
        if let Some(named) = environment.variable("OPENCLAW_WORKSPACE_DIR") {
            // Here, and only here, OpenClaw takes a ~ literally.
            return Workspace { path: environment.absolute(Path::new(&named)), is_named: true };
        }
        let state_dir = if environment.variable("OPENCLAW_STATE_DIR").is_some() {
            self.state_dir.to_path_buf()
        } else {
            let suffix = profile(environment).map(|profile| format!("-{profile}")).unwrap_or_default();
            environment.effective_home().join(format!(".openclaw{suffix}"))
        };
        Workspace { path: state_dir.join("workspace"), is_named: false }
    }

    /// The default workspace of versions that have it in the home directory. Which profile their gateway has is told by
    /// the environment or, where this runs without it, by the state directory's name.
    fn workspaces_in_home(&self) -> Vec<PathBuf> {
        if version(self.config).is_some_and(|version| version >= WORKSPACE_BESIDE_STATE) {
            return Vec::new();
        }
        let by_environment = profile(self.environment).map_or_else(String::new, |profile| format!("-{profile}"));
        let name = self.state_dir.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let by_name = name.strip_prefix(".openclaw").filter(|rest| rest.starts_with('-'));
        let home = self.environment.effective_home().join(".openclaw");
        let suffixes = [Some(by_environment.as_str()), by_name].into_iter().flatten();
        suffixes.map(|suffix| home.join(format!("workspace{suffix}"))).collect()
    }

    /// The store of each agent's sessions, if the config names it: of the agents in the config, and of those that are
    /// on disk. One that was taken from the config, or that only a harness runs, has sessions all the same.
    pub(super) fn session_stores(&self, warnings: &mut Vec<Warning>) -> Vec<PathBuf> {
        let template = self.config["session"]["store"].as_str().and_then(|written| self.written_path(written));
        let Some(template) = template else { return Vec::new() };
        let configured = self.agents.iter().map(|(id, _)| stores::of_agent(&template, id));
        let is_agent = |id: &str| agent_id(id) == id;
        configured.chain(stores::on_disk(&template, is_agent, &self.wide(), warnings)).collect()
    }

    pub(super) fn cron_store(&self) -> Option<PathBuf> {
        self.path(self.config["cron"].get("store"))
    }

    /// Where sandboxed agents work, if the config names it. What does not exist is missed where there is a sandbox.
    pub(super) fn sandboxes(&self, warnings: &mut Vec<Warning>) -> Vec<PathBuf> {
        let (shared, own) = (self.shared_sandbox(), self.sandbox_fields());
        let said = |sandbox: &Value, key| sandbox.get(key).or_else(|| shared?.get(key)).cloned();
        let mut found: Vec<PathBuf> = Vec::new();
        for sandbox in own {
            let Some(path) = self.path(said(sandbox, SANDBOXES).as_ref()) else { continue };
            let is_used = said(sandbox, "mode").is_some_and(|mode| mode != "off");
            if (is_used || is_there(&path)) && !found.contains(&path) {
                found.push(path);
            }
        }
        let state_dir = canonical_prefix(self.state_dir);
        found.retain(|path| {
            let real = canonical_prefix(path);
            let is_wide = !real.starts_with(&state_dir) && self.wide().iter().any(|inner| inner.starts_with(&real));
            warnings.extend(is_wide.then(|| Warning::WideSandbox { path: path.clone() }));
            !is_wide
        });
        found
    }

    /// What the config says of sandboxes: for all agents, and for each.
    fn sandbox_fields(&self) -> Vec<&'a Value> {
        let own = self.agents.iter().filter_map(|(_, entry)| entry.as_ref()?.get("sandbox"));
        self.shared_sandbox().into_iter().chain(own).collect()
    }

    fn shared_sandbox(&self) -> Option<&'a Value> {
        self.defaults?.get("sandbox")
    }

    /// What nothing may bring along: the home directory, the state directory, and what holds them.
    pub(super) fn wide(&self) -> [PathBuf; 2] {
        [self.environment.effective_home(), self.state_dir.to_path_buf()].map(|path| canonical_prefix(&path))
    }

    pub(super) fn agent_roots(&self) -> Vec<AgentRoot> {
        let root = |(id, entry): &Entry<'_>| {
            let own = self.path(entry.and_then(|entry| entry.get("agentDir")));
            let path = own.unwrap_or_else(|| self.state_dir.join("agents").join(id).join("agent"));
            AgentRoot { agent_id: id.clone(), path: canonical_prefix(&path) }
        };
        self.agents.iter().map(root).collect()
    }

    /// The agents' directories that the environment names, where there are any that the config does not.
    pub(super) fn further_agent_dirs(&self) -> Vec<PathBuf> {
        let named = AGENT_VARIABLES.iter().filter_map(|name| self.environment.variable(name));
        let dirs = named.map(|dir| canonical_prefix(&self.environment.user_path(&dir)));
        let known = self.agent_roots();
        let mut further: Vec<PathBuf> =
            dirs.filter(|dir| is_there(dir) && known.iter().all(|agent| agent.path != *dir)).collect();
        further.dedup();
        further
    }
}

/// Whether there is something at `path`, as far as can be told: what cannot be looked at counts as there.
pub(super) fn is_there(path: &Path) -> bool {
    let is_away = |error: std::io::Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
    !fs::metadata(path).is_err_and(is_away)
}

/// The profile that the environment names, unless it is the default one.
pub(super) fn profile(environment: &Environment) -> Option<String> {
    let profile = environment.variable("OPENCLAW_PROFILE")?.into_string().ok()?;
    (!profile.eq_ignore_ascii_case("default")).then_some(profile)
}

/// The agents in `agents.entries`, by their keys, or else in `agents.list`; `None` where the config has neither.
fn listed_agents(section: &Value) -> Option<Vec<Entry<'_>>> {
    if let Some(entries) = section.get("entries").filter(|entries| !entries.is_null()) {
        let entries = entries.as_object().into_iter().flatten();
        return Some(entries.filter_map(|(id, entry)| Some((agent_id(id), Some(entry.as_object()?)))).collect());
    }
    let list = section.get("list").filter(|list| !list.is_null())?.as_array().into_iter().flatten();
    let entry = |entry: &'_ Map<String, Value>| agent_id(entry.get("id").and_then(Value::as_str).unwrap_or_default());
    Some(list.filter_map(Value::as_object).map(|fields| (entry(fields), Some(fields))).collect())
}

/// The first agent that is marked as default, else the only one, else the first of a list. Where several are marked,
/// 2026.9 has no owner; their own workspaces lie below the one that they share, or in the state directory.
fn default_owner(section: Option<&Value>, listed: &[Entry<'_>]) -> Option<String> {
    let is_marked =
        |entry: &&Entry<'_>| entry.1.is_some_and(|fields| fields.get("default").and_then(Value::as_bool) == Some(true));
    let is_explicit = section.and_then(|section| section.get("ownership")).and_then(Value::as_str) == Some("explicit");
    let marked = listed.iter().find(|entry| !is_explicit && is_marked(entry));
    let is_list = section.is_some_and(|section| section.get("entries").is_none_or(Value::is_null));
    let owner = match (marked, listed) {
        (Some(marked), _) => Some(marked),
        (None, [only]) => Some(only),
        (None, _) => listed.first().filter(|_| is_list),
    };
    owner.map(|(id, _)| id.clone())
}

/// OpenClaw's canonical spelling of an agent's name: one dash for each run of what a name may not hold.
fn agent_id(written: &str) -> String {
    let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-');
    let lower = written.trim().to_lowercase();
    if lower.len() <= 64 && lower.starts_with(|c: char| c.is_ascii_alphanumeric()) && lower.chars().all(allowed) {
        return lower;
    }
    let mut id = String::new();
    let mut in_run = false;
    for c in lower.chars() {
        match allowed(c) {
            true => id.push(c),
            false if !in_run => id.push('-'),
            false => {}
        }
        in_run = !allowed(c);
    }
    let id: String = id.trim_matches('-').chars().take(64).collect();
    if id.is_empty() { "main".to_owned() } else { id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_names_are_spelled_as_openclaw_spells_them() {
        let table = [
            ("main", "main"),
            (" Main ", "main"),
            ("a b!c", "a-b-c"),
            ("--x--", "x"),
            ("a -b", "a--b"),
            ("é", "main"),
            ("", "main"),
            ("_x", "_x"),
            ("x-", "x-"),
        ];
        for (written, spelled) in table {
            assert_eq!(agent_id(written), spelled, "{written:?}");
        }
        assert_eq!(agent_id(&"a".repeat(80)).len(), 64);
    }
}
