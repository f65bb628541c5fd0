//! From what was asked for to what is backed up: roots that do not overlap, and the rules for each name in them.
//!
//! Planning reads the config and looks at directories, and changes nothing. After it, no absolute path is resolved
//! any more.

mod additions;
mod config;
mod environment;
mod error;
mod exclude;
mod gateway;
mod habits;
mod names;
mod openclaw;
mod outward;
mod path_set;
mod root;
mod roster;
mod rules;
mod source;
mod state_dir;
mod stores;
mod warning;

pub use environment::Environment;
pub use error::PlanError;
pub use exclude::read_exclude_file;
pub use gateway::gateway_at;
pub use names::{NameAudit, Refusal, Refused};
pub use openclaw::{AgentRoot, OpenClaw};
pub use root::{AssetKind, Covered, Missing, Root};
pub use rules::{Class, Rules, Verdict};
pub use warning::Warning;

use std::path::{Path, PathBuf};

use exclude::Excludes;
use openclaw::{Holdings, Looks};
use roster::AGENT_VARIABLES;
use rules::RootRules;
use state_dir::StateDir;

/// What was asked for, independent of any command line.
#[derive(Clone, Debug)]
pub struct Request {
    /// The directories or files to back up; none means OpenClaw's state, as the environment says.
    pub sources: Vec<PathBuf>,
    /// The parts of the process environment that planning depends on.
    pub environment: Environment,
    /// Only OpenClaw's config.
    pub only_config: bool,
    /// The agents' workspaces as well, wherever they are.
    pub include_workspace: bool,
    /// What OpenClaw's habits would leave out as well: what it can make again, and pid, lock and temporary files.
    pub include_regenerable: bool,
    /// Patterns of what to leave out; see [`read_exclude_file`] for files of them.
    pub exclude: Vec<String>,
}

impl Request {
    /// OpenClaw's state with its workspaces, by the default rules.
    pub fn new(environment: Environment) -> Self {
        Self {
            sources: Vec::new(),
            environment,
            only_config: false,
            include_workspace: true,
            include_regenerable: false,
            exclude: Vec::new(),
        }
    }
}

/// What is backed up.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The trees, sorted by path; none lies in another.
    pub roots: Vec<Root>,
    /// What was asked for and lies in a root.
    pub covered: Vec<Covered>,
    /// What was asked for and does not exist.
    pub missing: Vec<Missing>,
    /// What could not be taken as it stood.
    pub warnings: Vec<Warning>,
    /// What is left out, and how the rest may be frozen.
    pub rules: Rules,
    /// The installation that this is a backup of, if it is one.
    pub openclaw: Option<OpenClaw>,
}

/// The variable that names OpenClaw's state directory.
pub const STATE_VARIABLE: &str = "OPENCLAW_STATE_DIR";

/// Where OpenClaw's state is, or would be, as the environment says; without symbolic links as far as it exists.
pub fn state_directory(environment: &Environment) -> PathBuf {
    root::canonical_prefix(&StateDir::of(environment).path)
}

/// Makes the plan for a request.
///
/// # Errors
/// A [`PlanError`] where there is nothing to back up, or something that was named cannot be.
pub fn plan(request: &Request) -> Result<Plan, PlanError> {
    let excludes = Excludes::parse(&request.exclude, &request.environment)?;
    let draft = if request.sources.is_empty() { Draft::of_installation(request)? } else { Draft::of_sources(request)? };
    draft.finish(request, excludes)
}

/// Whose ground a candidate is, and so which rules hold there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ground {
    /// That of the installation with this index.
    OpenClaw(usize),
    /// Guarded, and no more is known.
    Guarded,
    /// Nobody's.
    Plain,
}

/// A plan before it is known which candidates cover others.
#[derive(Debug, Default)]
struct Draft {
    candidates: Vec<(Root, Ground)>,
    missing: Vec<Missing>,
    warnings: Vec<Warning>,
    installations: Vec<Holdings>,
    /// What a plain tree must not link.
    guarded: Vec<PathBuf>,
    /// The state directories that files in the sources lead to.
    led_to: Vec<PathBuf>,
}

impl Draft {
    /// Everything that belongs to the installation that the environment speaks of.
    fn of_installation(request: &Request) -> Result<Self, PlanError> {
        let environment = &request.environment;
        let state = StateDir::of(environment);
        if !state.exists() && !request.only_config {
            return Err(PlanError::NoState { looked: state.looked, named: state.named });
        }
        let mut draft = Self::default();
        let holdings = Holdings::survey(&state, &mut draft.warnings);
        if let Some(profile) = roster::profile(environment).filter(|_| !state.named) {
            draft.warnings.push(Warning::ProfileWithoutState { profile, state_dir: state.path });
        }
        if request.only_config {
            draft.add_config(holdings)?;
            return Ok(draft);
        }
        source::check_readable(&holdings.state_dir)?;
        let (roots, missing) = holdings.candidates(request.include_workspace);
        draft.candidates = roots.into_iter().map(|root| (root, Ground::OpenClaw(0))).collect();
        draft.warnings.extend(missing.iter().map(|Missing { kind, path }| {
            let is_named = !holdings.unnamed_workspaces.contains(path);
            Warning::MissingAsset { kind: *kind, path: path.clone(), is_named }
        }));
        draft.missing = missing;
        draft.installations.push(holdings);
        Ok(draft)
    }

    /// What was named, and nothing else.
    fn of_sources(request: &Request) -> Result<Self, PlanError> {
        let mut draft = Self::default();
        let home_ground = HomeGround::of(&request.environment);
        draft.guarded.clone_from(&home_ground.owned);
        for named in &request.sources {
            let path = source::resolve(named, &request.environment)?;
            draft.add_source(path, &home_ground, request)?;
        }
        if !request.only_config {
            draft.warn_of_what_is_elsewhere(request.include_workspace);
        }
        Ok(draft)
    }

    /// Warns of what belongs to the named state directories and lies in no source, and of states that those lead to.
    fn warn_of_what_is_elsewhere(&mut self, include_workspace: bool) {
        let is_named = |path: &Path| {
            let real = root::canonical_prefix(path);
            self.candidates.iter().any(|(root, _)| real.starts_with(&root.path))
        };
        let everything = self.installations.iter().flat_map(|holdings| {
            let (roots, mut missing) = holdings.candidates(include_workspace);
            missing.retain(|missing| !holdings.unnamed_workspaces.contains(&missing.path));
            let there = roots.into_iter().map(|Root { kind, path }| (kind, path));
            there.chain(missing.into_iter().map(|Missing { kind, path }| (kind, path)))
        });
        let led_to = self.led_to.iter().map(|path| (AssetKind::State, path.clone()));
        let elsewhere: Vec<Warning> = everything
            .chain(led_to)
            .filter(|(_, path)| !is_named(path))
            .map(|(kind, path)| Warning::NotNamed { kind, path })
            .collect();
        self.warnings.extend(elsewhere);
    }

    fn add_source(&mut self, path: PathBuf, home_ground: &HomeGround, request: &Request) -> Result<(), PlanError> {
        self.led_to.extend(led_from(&path, &request.environment));
        let looks = home_ground.looks(&path);
        if looks == Looks::State {
            let environment = home_ground.environment_of(&path, &request.environment);
            let state = StateDir { path: path.clone(), ..StateDir::of(&environment) };
            let holdings = Holdings::survey(&state, &mut self.warnings);
            return self.add_state(path, holdings, request);
        }
        if request.only_config {
            return Err(PlanError::OnlyConfigOfTree(path));
        }
        let ground = if looks == Looks::Guarded { Ground::Guarded } else { Ground::Plain };
        match ground {
            Ground::Guarded => self.guarded.push(path.clone()),
            _ => self.guarded.extend(openclaw::lookalikes_in(&path)),
        }
        self.candidates.push((Root { kind: AssetKind::Tree, path }, ground));
        Ok(())
    }

    /// A named state directory: what lies elsewhere was not named, and is warned of when all sources are known.
    fn add_state(&mut self, path: PathBuf, holdings: Holdings, request: &Request) -> Result<(), PlanError> {
        if request.only_config {
            return self.add_config(holdings);
        }
        // An archive has one state at most.
        let is_first = self.candidates.iter().all(|(root, _)| root.kind != AssetKind::State);
        let kind = if is_first { AssetKind::State } else { AssetKind::Tree };
        let ground = Ground::OpenClaw(self.installations.len());
        self.guarded.extend(holdings.everything());
        self.installations.push(holdings);
        self.candidates.push((Root { kind, path }, ground));
        Ok(())
    }

    /// The config alone. What it says does not matter then; that it cannot be understood is still worth a word.
    fn add_config(&mut self, holdings: Holdings) -> Result<(), PlanError> {
        self.warnings.retain(|warning| matches!(warning, Warning::BrokenConfig { .. }));
        let missing = |_| PlanError::NoConfig(holdings.config_path.clone());
        let path = holdings.config_path.canonicalize().map_err(missing)?;
        source::check_readable(&path)?;
        let ground = Ground::OpenClaw(self.installations.len());
        self.candidates.push((Root { kind: AssetKind::Config, path }, ground));
        self.installations.push(holdings);
        Ok(())
    }

    fn finish(mut self, request: &Request, excludes: Excludes) -> Result<Plan, PlanError> {
        let candidates: Vec<Root> = self.candidates.iter().map(|(root, _)| root.clone()).collect();
        let (mut roots, mut covered) = root::disjoint(candidates);
        self.drop_excluded(&mut roots, &excludes);
        covered.retain(|covered| roots.iter().any(|root| root.path == covered.covered_by));
        if roots.is_empty() {
            return Err(PlanError::NothingLeft);
        }
        self.warn_of_what_is_empty(&roots, &covered, &excludes);
        let rules = roots.iter().map(|root| self.rules(&root.path, &covered, request.include_workspace)).collect();
        let openclaw = self.facts(&roots, request);
        let rules = Rules::new(rules, excludes, request.include_regenerable);
        Ok(Plan { roots, covered, missing: self.missing, warnings: self.warnings, rules, openclaw })
    }

    fn drop_excluded(&mut self, roots: &mut Vec<Root>, excludes: &Excludes) {
        let paths: Vec<PathBuf> = roots.iter().map(|root| root.path.clone()).collect();
        self.warnings.extend(excludes.idle(&paths).map(|pattern| Warning::IdlePattern(pattern.to_owned())));
        roots.retain(|root| match excludes.find_root(&root.path) {
            Some(rule) => {
                self.warnings.push(Warning::ExcludedRoot { path: root.path.clone(), rule: rule.to_owned() });
                false
            }
            None => true,
        });
    }

    /// Warns of directories that hold nothing, as the mount point of a disk that is away does, unless OpenClaw has made them
    /// or will.
    fn warn_of_what_is_empty(&mut self, roots: &[Root], covered: &[Covered], excludes: &Excludes) {
        let covered = covered.iter().map(|covered| (covered.kind, &covered.path));
        let all = roots.iter().map(|root| (root.kind, &root.path)).chain(covered);
        let is_made = |path: &Path| self.installations.iter().any(|holdings| holdings.makes(path));
        let empty: Vec<Warning> = all
            .filter(|(_, path)| source::holds_nothing(path) && !is_made(path) && excludes.find_root(path).is_none())
            .map(|(kind, path)| Warning::EmptyAsset { kind, path: path.clone() })
            .collect();
        self.warnings.extend(empty);
    }

    fn ground(&self, root: &Path) -> Ground {
        let found = self.candidates.iter().find(|(candidate, _)| candidate.path == root);
        found.map_or(Ground::Guarded, |(_, ground)| *ground)
    }

    fn rules(&self, root: &Path, covered: &[Covered], include_workspace: bool) -> RootRules {
        match self.ground(root) {
            Ground::Plain => RootRules::plain(root).guard(self.guarded.iter().map(PathBuf::as_path)),
            Ground::Guarded => RootRules::guarded(root),
            Ground::OpenClaw(index) => match self.installations.get(index) {
                Some(holdings) => {
                    // What somebody names is wanted, wherever it lies.
                    let named = covered.iter().filter(|covered| covered.kind == AssetKind::Tree);
                    rules_of(root, holdings, named.map(|covered| &covered.path), include_workspace)
                }
                None => RootRules::guarded(root),
            },
        }
    }

    /// The facts of the installation whose state or config is a root.
    fn facts(&self, roots: &[Root], request: &Request) -> Option<OpenClaw> {
        let of_root = |root: &Root| match self.ground(&root.path) {
            Ground::OpenClaw(index) => self.installations.get(index),
            _ => None,
        };
        let mut own = roots.iter().filter(|root| root.kind != AssetKind::Tree);
        let holdings = own.find_map(of_root)?;
        Some(holdings.facts(request.include_workspace, request.only_config))
    }
}

fn rules_of<'a>(
    root: &Path,
    holdings: &Holdings,
    named: impl Iterator<Item = &'a PathBuf>,
    include_workspace: bool,
) -> RootRules {
    let workspaces = holdings.real_workspaces();
    let included = if include_workspace { &workspaces[..] } else { &[] };
    let excluded = if include_workspace { &[] } else { &workspaces[..] };
    let paths = |paths: &[PathBuf]| paths.to_vec();
    let mut protected = paths(included);
    protected.extend(named.cloned());
    protected.extend(holdings.config_files.iter().chain(&holdings.left).cloned());
    protected.extend(holdings.env_files.iter().map(|path| root::canonical_prefix(path)));
    protected.extend([&holdings.config_path, &holdings.oauth_dir].map(|path| root::canonical_prefix(path)));
    protected.extend([holdings.config_path.clone(), holdings.oauth_dir.clone()]);
    protected.extend(holdings.agents.iter().map(|agent| &agent.path).chain(&holdings.agent_dirs).cloned());
    protected.extend(holdings.stores.iter().map(|path| root::canonical_prefix(path)));
    RootRules::guarded(root)
        .guard_sessions(holdings.guards_sessions)
        .state(&holdings.state_dir)
        .foreign(included.iter().map(PathBuf::as_path), holdings.custom_agents())
        .leave_out(excluded.iter().map(PathBuf::as_path))
        .protect(protected.iter().map(PathBuf::as_path))
}

/// The state that OpenClaw has instead of the one at `path`, if a file leads it from there to another: as this
/// environment has it, or one whose home directory `path` lies in.
fn led_from(path: &Path, environment: &Environment) -> Option<PathBuf> {
    let home = Environment { home: path.parent().map(Path::to_path_buf), ..environment.clone() };
    let home =
        [STATE_VARIABLE, "OPENCLAW_HOME", "OPENCLAW_CONFIG_PATH"].iter().fold(home, |home, name| home.without(name));
    [environment, &home].into_iter().map(StateDir::of).find_map(|state| {
        let is_left = state.left.iter().any(|left| root::canonical_prefix(left) == path);
        is_left.then(|| root::canonical_prefix(&state.path))
    })
}

/// The installation that the environment speaks of, seen from sources that were named.
struct HomeGround {
    state_dir: Option<PathBuf>,
    owned: Vec<PathBuf>,
}

impl HomeGround {
    fn of(environment: &Environment) -> Self {
        let state = StateDir::of(environment);
        if !state.exists() {
            return Self { state_dir: None, owned: Vec::new() };
        }
        // Its config is not what was asked about: trouble with it is no news here.
        let holdings = Holdings::survey(&state, &mut Vec::new());
        Self { state_dir: Some(holdings.state_dir.clone()), owned: holdings.everything() }
    }

    /// How much a source looks like OpenClaw's, by itself and by where it lies.
    fn looks(&self, path: &Path) -> Looks {
        if self.state_dir.as_deref() == Some(path) {
            return Looks::State;
        }
        let looks = openclaw::looks(path);
        let is_inside = || {
            let in_owned = self.owned.iter().any(|owned| path.starts_with(owned));
            in_owned || path.ancestors().skip(1).any(|above| openclaw::looks(above) != Looks::Plain)
        };
        if looks == Looks::Plain && is_inside() { Looks::Guarded } else { looks }
    }

    /// The environment as OpenClaw would see it with its state at `path`.
    fn environment_of(&self, path: &Path, environment: &Environment) -> Environment {
        if self.state_dir.as_deref() == Some(path) {
            return environment.clone();
        }
        let mut other = environment.clone().with(STATE_VARIABLE, path);
        for name in
            ["OPENCLAW_CONFIG_PATH", "OPENCLAW_OAUTH_DIR", "OPENCLAW_WORKSPACE_DIR"].iter().chain(&AGENT_VARIABLES)
        {
            other = other.without(name);
        }
        other
    }
}

#[cfg(test)]
mod tests;
