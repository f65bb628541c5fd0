use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::entry::Kind;

mod elsewhere;
mod gaps;
mod versions;

/// A home directory, and what an environment says.
struct Home {
    dir: TempDir,
    request: Request,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().canonicalize().expect("canonical");
        let environment = Environment { home: Some(path.clone()), cwd: path, variables: [].into() };
        Self { dir, request: Request::new(environment) }
    }

    /// A home with a state directory, a session in it, and this config.
    fn with_config(config: &str) -> Self {
        Self::new()
            .file(".openclaw/openclaw.json", config)
            .file(".openclaw/agents/main/sessions/0.jsonl", "{}\n")
            .file(".openclaw/workspace/AGENTS.md", "")
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().canonicalize().expect("canonical").join(path)
    }

    fn file(self, path: &str, text: &str) -> Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("directory");
        fs::write(path, text).expect("written");
        self
    }

    fn link(self, target: &str, name: &str) -> Self {
        symlink(self.path(target), self.path(name)).expect("link");
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.request.environment = self.request.environment.with(name, value);
        self
    }

    fn home_variable(self, name: &str, path: &str) -> Self {
        let path = self.path(path);
        self.variable(name, path.to_str().expect("UTF-8"))
    }

    fn source(mut self, source: &str) -> Self {
        self.request.sources.push(source.into());
        self
    }

    fn exclude(mut self, pattern: &str) -> Self {
        self.request.exclude.push(pattern.into());
        self
    }

    fn without_workspace(mut self) -> Self {
        self.request.include_workspace = false;
        self
    }

    fn only_config(mut self) -> Self {
        self.request.only_config = true;
        self
    }

    fn plan(&self) -> Plan {
        plan(&self.request).expect("a plan")
    }

    fn error(&self) -> String {
        plan(&self.request).expect_err("no plan").to_string()
    }

    /// Kinds and paths, the latter relative to the home directory.
    fn roots(&self) -> Vec<(&'static str, String)> {
        self.plan().roots.iter().map(|root| (root.kind.as_str(), self.shown(&root.path))).collect()
    }

    fn covered(&self) -> Vec<(&'static str, String)> {
        self.plan().covered.iter().map(|covered| (covered.kind.as_str(), self.shown(&covered.path))).collect()
    }

    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(self.path("")).unwrap_or(path).display().to_string()
    }

    fn warnings(&self) -> Vec<String> {
        self.plan().warnings.iter().map(ToString::to_string).collect()
    }

    fn workspaces(&self) -> Vec<String> {
        let facts = self.plan().openclaw.expect("an installation");
        facts.workspace_dirs.iter().map(|path| self.shown(path)).collect()
    }

    /// What becomes of `path`, which lies in the home directory.
    fn verdict(&self, path: &str, kind: Kind) -> String {
        let plan = self.plan();
        let path = self.path(path);
        let is_in = |root: &Root| path.starts_with(&root.path);
        let index = plan.roots.iter().position(is_in).expect("in a root");
        let relative = path.strip_prefix(&plan.roots[index].path).expect("inside");
        match plan.rules.judge(index, relative.as_os_str().as_bytes(), kind) {
            Verdict::Keep(class) => format!("{class:?}"),
            Verdict::Exclude(rule) => rule.to_owned(),
        }
    }

    fn file_verdict(&self, path: &str) -> String {
        self.verdict(path, Kind::File)
    }

    fn dir_verdict(&self, path: &str) -> String {
        self.verdict(path, Kind::Directory)
    }
}

const STATE: (&str, &str) = ("state", ".openclaw");

/// The config of a version that reads sessions whatever their links.
const OLD: &str = "{meta: {lastTouchedVersion: '2026.4.14'}}";

/// The same with these agents.
fn old(agents: &str) -> String {
    OLD.replace("}}", &format!("}}, agents: {agents}}}"))
}

fn owned((kind, path): (&'static str, &str)) -> (&'static str, String) {
    (kind, path.to_owned())
}

#[test]
fn without_a_source_the_state_directory_is_backed_up_with_what_it_holds() {
    let home = Home::with_config("{}").file(".openclaw/agents/main/agent/x", "");
    assert_eq!(home.roots(), [owned(STATE)]);
    assert_eq!(
        home.covered(),
        [owned(("workspace", ".openclaw/workspace")), owned(("agent", ".openclaw/agents/main/agent"))]
    );
    assert_eq!(home.warnings(), [""; 0]);
    let facts = home.plan().openclaw.expect("an installation");
    assert_eq!(facts.config_path, home.path(".openclaw/openclaw.json"));
    assert_eq!(facts.oauth_dir, home.path(".openclaw/credentials"));
    assert_eq!(facts.workspace_dirs, [home.path(".openclaw/workspace")]);
    let main = AgentRoot { agent_id: "main".into(), path: home.path(".openclaw/agents/main/agent") };
    assert_eq!(facts.agent_roots, Some(vec![main]));
}

#[test]
fn no_state_directory_is_an_error_that_says_where_it_was_looked_for() {
    let error = Home::new().error();
    assert!(error.contains("/.openclaw or ") && error.contains("/.clawdbot"), "{error}");
    assert!(error.contains("set OPENCLAW_STATE_DIR"), "{error}");
    let error = Home::new().variable("OPENCLAW_STATE_DIR", "~/none").error();
    assert!(error.contains("/none (named by OPENCLAW_STATE_DIR)"), "{error}");
}

#[test]
fn the_state_directory_is_found_where_openclaw_finds_it() {
    let legacy = Home::new().file(".clawdbot/clawdbot.json", "{}");
    assert_eq!(legacy.roots(), [owned(("state", ".clawdbot"))]);
    assert_eq!(legacy.plan().openclaw.expect("facts").config_path, legacy.path(".clawdbot/clawdbot.json"));
    let named = Home::with_config("{}").file("s/openclaw.json", "{}").variable("OPENCLAW_STATE_DIR", " ~/s ");
    assert_eq!(named.roots()[1..], [owned(("state", "s"))]);
    let moved = Home::new().file("h/.openclaw/x", "").variable("OPENCLAW_HOME", "~/h");
    assert_eq!(moved.roots(), [owned(("state", "h/.openclaw"))]);
}

#[test]
fn a_symbolic_link_to_the_state_directory_is_followed() {
    let home = Home::new().file("data/claw/openclaw.json", "{}").link("data/claw", ".openclaw");
    assert_eq!(home.roots(), [owned(("state", "data/claw"))]);
    assert_eq!(home.plan().openclaw.expect("facts").state_dir, home.path("data/claw"));
}

#[test]
fn workspaces_come_from_defaults_list_and_entries() {
    let table = [
        ("{agents: {defaults: {workspace: '~/w'}}}", vec!["w"]),
        ("{agents: {list: [{id: 'a', workspace: 'wa'}, {id: 'b'}]}}", vec!["wa", ".openclaw/workspace-b"]),
        ("{agents: {defaults: {workspace: '~/w'}, list: [{id: 'a'}, {id: 'b'}]}}", vec!["w", "w/b"]),
        ("{agents: {defaults: {workspace: '~/w'}, list: [{id: 'a'}, {id: 'b', default: true}]}}", vec!["w/a", "w"]),
        (
            "{agents: {entries: {a: {}, b: {}}, list: [{id: 'c'}]}}",
            vec![".openclaw/workspace-a", ".openclaw/workspace-b", ".openclaw/workspace"],
        ),
        ("{agents: {entries: {a: {}}}}", vec![".openclaw/workspace"]),
        ("{agents: {list: [{id: 'A b'}, {id: 'a-b', workspace: '~/x'}]}}", vec![".openclaw/workspace"]),
        ("{agents: {list: []}}", vec![".openclaw/workspace"]),
        ("{agents: {defaults: {workspace: '${NAME}/w'}}}", vec!["value/w"]),
        ("{agents: {defaults: {workspace: 3}, list: 'x'}}", vec![".openclaw/workspace"]),
        ("{agents: 1}", vec![".openclaw/workspace"]),
    ];
    for (config, expected) in table {
        let home = Home::with_config(config).variable("NAME", "value");
        assert_eq!(home.workspaces(), expected, "{config}");
    }
}

#[test]
fn the_default_workspace_follows_the_environment() {
    let home = || Home::with_config("{}");
    assert_eq!(home().variable("OPENCLAW_WORKSPACE_DIR", "ws").workspaces(), ["ws", ".openclaw/workspace"]);
    assert_eq!(home().variable("OPENCLAW_PROFILE", "dev").workspaces(), [".openclaw-dev/workspace"]);
    assert_eq!(home().variable("OPENCLAW_PROFILE", "Default").workspaces(), [".openclaw/workspace"]);
    let named = home().variable("OPENCLAW_PROFILE", "dev").variable("OPENCLAW_STATE_DIR", "~/.openclaw");
    assert_eq!(named.workspaces(), [".openclaw/workspace"]);
}

#[test]
fn a_profile_without_its_state_directory_is_a_warning() {
    let warnings = Home::with_config("{}").variable("OPENCLAW_PROFILE", "dev").warnings();
    assert!(warnings.iter().any(|warning| warning.contains("OPENCLAW_PROFILE")), "{warnings:?}");
}

#[test]
fn what_lies_outside_the_state_directory_is_a_root_of_its_own() {
    let home = Home::with_config("{agents: {list: [{id: 'a', workspace: '~/w', agentDir: '~/ag'}]}}")
        .file("w/AGENTS.md", "")
        .file("ag/openclaw-agent.sqlite", "")
        .file("etc/claw.json5", "{agents: {list: [{id: 'a', workspace: '~/w', agentDir: '~/ag'}]}}")
        .file("oauth/t.json", "")
        .home_variable("OPENCLAW_CONFIG_PATH", "etc/claw.json5")
        .home_variable("OPENCLAW_OAUTH_DIR", "oauth");
    let expected = [STATE, ("agent", "ag"), ("config", "etc/claw.json5"), ("credentials", "oauth"), ("workspace", "w")];
    assert_eq!(home.roots(), expected.map(owned));
    for path in ["w/x", "ag/x", "oauth/t.json"] {
        assert_eq!(home.file_verdict(path), "Guarded", "{path}");
    }
    assert_eq!(home.plan().rules.class_of_root(2), Class::Guarded);
}

#[test]
fn a_config_that_is_a_link_brings_its_target_along() {
    let home =
        Home::new().file("dot/c.json", "{}").file(".openclaw/x", "").link("dot/c.json", ".openclaw/openclaw.json");
    assert_eq!(home.roots(), [owned(STATE), owned(("config", "dot/c.json"))]);
}

#[test]
fn included_config_files_elsewhere_are_roots() {
    let home = Home::with_config("{$include: '../shared/agents.json5'}")
        .file("shared/agents.json5", "{agents: {defaults: {workspace: '~/w'}}}")
        .file("w/x", "")
        .home_variable("OPENCLAW_INCLUDE_ROOTS", "shared");
    assert_eq!(home.roots(), [owned(STATE), owned(("config", "shared/agents.json5")), owned(("workspace", "w"))]);
}

#[test]
fn included_config_files_in_the_state_directory_are_covered() {
    let home = Home::with_config("{$include: './more.json'}").file(".openclaw/more.json", "{}");
    assert_eq!(home.roots(), [owned(STATE)]);
    assert!(home.covered().contains(&owned(("config", ".openclaw/more.json"))), "{:?}", home.covered());
}

#[test]
fn linked_skills_bring_their_targets_along() {
    let home = Home::with_config("{}")
        .file("mine/pdf/SKILL.md", "")
        .file("group/a/SKILL.md", "")
        .file("other/README", "")
        .file(".openclaw/skills/own/SKILL.md", "")
        .link("mine/pdf", ".openclaw/skills/pdf")
        .link("group", ".openclaw/skills/group")
        .link("other", ".openclaw/skills/other");
    assert_eq!(home.roots(), [owned(STATE), owned(("managed skill", "group")), owned(("managed skill", "mine/pdf"))]);
}

#[test]
fn a_broken_config_is_a_warning_and_the_default_workspace_is_taken() {
    for config in ["{", "[1", "\u{1}"] {
        let home = Home::with_config(config);
        assert_eq!(home.roots(), [owned(STATE)]);
        assert_eq!(home.workspaces(), [".openclaw/workspace"]);
        let warnings = home.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("openclaw.json cannot be understood"), "{warnings:?}");
    }
}

#[test]
fn a_config_that_is_a_directory_or_no_object_does_not_stop_the_plan() {
    let home = Home::new().file(".openclaw/openclaw.json/x", "");
    assert_eq!((home.roots(), home.warnings().len()), (vec![owned(STATE)], 2));
    assert_eq!(Home::with_config("[]").roots(), [owned(STATE)]);
    assert_eq!(Home::with_config("null").roots(), [owned(STATE)]);
}

#[test]
fn a_missing_workspace_is_a_warning() {
    let home = Home::with_config("{agents: {defaults: {workspace: '~/gone'}}}");
    assert_eq!(home.plan().missing, [Missing { kind: AssetKind::Workspace, path: home.path("gone") }]);
    assert!(home.warnings()[0].contains("gone does not exist"), "{:?}", home.warnings());
}

#[test]
fn only_the_config_is_one_file() {
    let home = Home::with_config("{").only_config();
    assert_eq!(home.roots(), [owned(("config", ".openclaw/openclaw.json"))]);
    let facts = home.plan().openclaw.expect("facts");
    assert_eq!((facts.include_workspace, facts.only_config), (false, true));
    assert!(facts.workspace_dirs.is_empty() && facts.agent_roots.is_none());
    assert!(home.warnings().len() == 1 && home.warnings()[0].contains("cannot be understood"), "{:?}", home.warnings());
    let error = Home::new().only_config().error();
    assert!(error.contains("there is no") && error.contains("openclaw.json"), "{error}");
}

#[test]
fn without_workspaces_those_inside_the_state_directory_are_left_out_too() {
    let home = Home::with_config(
        "{agents: {defaults: {workspace: '~/w'}, list: [{id: 'a'}, {id: 'b', workspace: '~/.openclaw/wb'}]}}",
    )
    .file("w/x", "")
    .file(".openclaw/wb/x", "")
    .without_workspace();
    assert_eq!(home.roots(), [owned(STATE)]);
    assert_eq!(home.dir_verdict(".openclaw/wb"), "workspace");
    assert_eq!(home.dir_verdict(".openclaw/wb2"), "Guarded");
    assert_eq!(home.workspaces(), [""; 0]);
    assert!(!home.plan().openclaw.expect("facts").include_workspace);
}

#[test]
fn a_workspace_that_holds_the_state_directory_is_not_left_out() {
    let home = Home::with_config(&old("{defaults: {workspace: '~'}}")).without_workspace();
    assert_eq!(home.roots(), [owned(STATE)]);
    assert_eq!(home.file_verdict(".openclaw/agents/main/sessions/0.jsonl"), "Linkable");
}

#[test]
fn a_workspace_that_holds_the_state_directory_covers_it_and_its_rules_hold() {
    let home = Home::with_config(&old("{defaults: {workspace: '~'}}"));
    assert_eq!(home.roots(), [owned(("workspace", ""))]);
    assert_eq!(home.covered()[0], owned(STATE));
    assert_eq!(home.dir_verdict(".openclaw/npm"), "regenerable:npm");
    assert_eq!(home.dir_verdict("npm"), "Guarded");
    assert_eq!(home.file_verdict(".openclaw/agents/main/sessions/0.jsonl"), "Linkable");
    assert_eq!(home.file_verdict("agents/main/sessions/0.jsonl"), "Guarded");
    assert!(home.plan().openclaw.is_some());
}

#[test]
fn what_the_config_puts_in_a_regenerable_place_is_kept() {
    let home = Home::with_config("{agents: {list: [{id: 'a', workspace: '~/.openclaw/tools/w/a'}, {id: 'b', agentDir: '~/.openclaw/agents/b/agent/tmp/x'}]}}")
        .file(".openclaw/tools/w/a/x.pid", "");
    for (path, expected) in [
        (".openclaw/tools", "Guarded"),
        (".openclaw/tools/w", "Guarded"),
        (".openclaw/tools/w/a", "Guarded"),
        (".openclaw/tools/w/a/tmp", "Guarded"),
        (".openclaw/tools/w/b", "regenerable:tools"),
        (".openclaw/tools/v", "regenerable:tools"),
        (".openclaw/npm", "regenerable:npm"),
        (".openclaw/agents/b/agent/tmp", "Guarded"),
        (".openclaw/agents/b/agent/tmp/x/tmp", "Guarded"),
        (".openclaw/agents/b/agent/tmp/y", "regenerable:agent-tmp"),
        (".openclaw/agents/a/agent/tmp", "regenerable:agent-tmp"),
    ] {
        assert_eq!(home.dir_verdict(path), expected, "{path}");
    }
    assert_eq!(home.file_verdict(".openclaw/tools/w/a/x.pid"), "Guarded");
}

#[test]
fn the_state_directory_is_judged_by_openclaws_habits() {
    let home = Home::with_config(OLD);
    for (path, expected) in [
        ("agents/main/sessions/0.jsonl", "Linkable"),
        ("agents/main/sessions/sessions.json", "Guarded"),
        ("openclaw.json", "Guarded"),
        ("credentials/whatsapp/a.json", "Guarded"),
        ("state/openclaw.sqlite", "Guarded"),
        ("logs/gateway.log", "Guarded"),
        ("cron/runs/a.jsonl", "Linkable"),
        ("workspace/SOUL.md", "Guarded"),
        ("workspace/a.pid", "Guarded"),
        ("workspace/agents/x/sessions/0.jsonl", "Guarded"),
        ("a.pid", "pid"),
        ("x/y.json.lock", "lock"),
        ("x/y.json.tmp", "temporary"),
        ("tmp/x", "regenerable:tmp"),
    ] {
        assert_eq!(home.file_verdict(&format!(".openclaw/{path}")), expected, "{path}");
    }
    assert_eq!(home.verdict(".openclaw/agents/main/sessions/0.jsonl", Kind::Symlink), "Guarded");
}

#[test]
fn what_cannot_be_archived_and_what_is_ours_is_always_left_out() {
    let mut home = Home::with_config("{}");
    home.request.include_regenerable = true;
    let ours = ".openclaw/x/.clawsnap-20260101T000000Z-0123abcd";
    for (path, kind, expected) in [
        (".openclaw/a.sock", Kind::Socket, "socket"),
        (".openclaw/workspace/p", Kind::Fifo, "special-file"),
        (".openclaw/d", Kind::Device, "special-file"),
        (ours, Kind::Directory, "clawsnap"),
        (ours, Kind::File, "Guarded"),
        (".openclaw/.clawsnap-20260101T000000Z-0123ABCD", Kind::Directory, "Guarded"),
        (".openclaw/.clawsnap-20260101T000000Z-0123abcde", Kind::Directory, "Guarded"),
        (".openclaw/.clawsnap-20260101T000000Z-00000001.partial", Kind::File, "clawsnap"),
        (".openclaw/npm", Kind::Directory, "Guarded"),
        (".openclaw/a.pid", Kind::File, "Guarded"),
    ] {
        assert_eq!(home.verdict(path, kind), expected, "{path}");
    }
}

#[test]
fn a_plain_source_is_a_tree_with_nothing_left_out() {
    let home = Home::with_config("{}").file("data/tmp/a.pid", "").source("data");
    assert_eq!(home.roots(), [owned(("tree", "data"))]);
    assert!(home.plan().openclaw.is_none());
    for path in ["data/tmp/a.pid", "data/npm/x.tmp", "data/x.json.lock", "data/agents/a"] {
        assert_eq!(home.file_verdict(path), "Linkable", "{path}");
    }
    for path in
        ["data/x.sqlite", "data/SOUL.md", "data/u/.openclaw/credentials/x", "data/session-sqlite-import-archive/x"]
    {
        assert_eq!(home.file_verdict(path), "Guarded", "{path}");
    }
}

#[test]
fn a_named_state_directory_keeps_its_rules_but_brings_nothing_along() {
    let config = &old("{defaults: {workspace: '~/w'}}");
    let home = Home::with_config(config).file("w/x", "").source(".openclaw");
    assert_eq!(home.roots(), [owned(STATE)]);
    assert_eq!(home.dir_verdict(".openclaw/npm"), "regenerable:npm");
    let strange = Home::new().file("s/openclaw.json", config).file("s/agents/a/sessions/0.jsonl", "").source("s/");
    assert_eq!(strange.roots(), [owned(("state", "s"))]);
    assert_eq!(strange.plan().openclaw.expect("facts").state_dir, strange.path("s"));
    assert_eq!(strange.file_verdict("s/agents/a/sessions/0.jsonl"), "Linkable");
    assert_eq!(strange.file_verdict("s/x"), "Guarded");
}

#[test]
fn a_source_that_only_may_be_openclaws_is_guarded_and_nothing_is_left_out() {
    let home = Home::new().file("s/openclaw.json", "{}").file("s/tmp/x", "").source("s");
    assert_eq!(home.roots(), [owned(("tree", "s"))]);
    assert_eq!(home.file_verdict("s/tmp/x"), "Guarded");
    for source in [".openclaw/workspace", ".openclaw/agents", "w"] {
        let home = Home::with_config("{agents: {defaults: {workspace: '~/w'}}}").file("w/x", "").source(source);
        assert_eq!(home.file_verdict(&format!("{source}/main/x")), "Guarded", "{source}");
    }
}

#[test]
fn a_plain_source_that_holds_openclaws_things_does_not_link_them() {
    let home =
        Home::with_config("{agents: {defaults: {workspace: '~/w'}}}").file("w/x", "").file("c/openclaw.json", "");
    let home = home.source(".");
    for path in [".openclaw/agents/main/sessions/0.jsonl", "w/x", "c/x"] {
        assert_eq!(home.file_verdict(path), "Guarded", "{path}");
    }
    assert_eq!(home.file_verdict("x"), "Linkable");
    assert_eq!(home.dir_verdict(".openclaw/npm"), "Guarded");
}

#[test]
fn sources_may_be_files_repeated_and_nested() {
    let home = Home::new().file("a/b/c", "").file("f", "").source("a/b").source("a").source("f").source("./a/../f");
    assert_eq!(home.roots(), [owned(("tree", "a")), owned(("tree", "f"))]);
    assert_eq!(home.covered(), [owned(("tree", "a/b"))]);
    assert_eq!(home.plan().rules.class_of_root(1), Class::Linkable);
}

#[test]
fn two_state_directories_are_one_state_and_one_tree_by_the_same_rules() {
    let home = Home::with_config("{}").file("s/state/openclaw.sqlite", "").source(".openclaw").source("s");
    assert_eq!(home.roots(), [owned(STATE), owned(("tree", "s"))]);
    assert_eq!(home.dir_verdict("s/npm"), "regenerable:npm");
}

#[test]
fn a_tilde_that_the_shell_left_is_expanded_unless_it_is_a_name() {
    let home = Home::new().file("d/x", "").source("~/d");
    assert_eq!(home.roots(), [owned(("tree", "d"))]);
    let literal = Home::new().file("~/d/x", "").file("d/x", "").source("~/d");
    assert_eq!(literal.roots(), [owned(("tree", "~/d"))]);
    assert!(Home::new().source("~nobody/d").error().contains("did not expand the ~"));
}

#[test]
fn a_source_that_cannot_be_backed_up_is_an_error_with_its_name() {
    let socket = Home::new();
    let _listener = std::os::unix::net::UnixListener::bind(socket.path("s")).expect("socket");
    for (home, expected) in [
        (Home::new().source("gone"), "gone: there is no such file"),
        (Home::new().source(""), "an empty argument"),
        (Home::new().link("gone", "l").source("l"), "l: it is a symbolic link to something that is not there"),
        (socket.source("s"), "s: it is neither a directory nor a regular file"),
        (Home::new().file("f", "").source("f/x"), "f/x: reading it failed"),
        (Home::new().file("d/x", "").source("d").only_config(), "d: it is no OpenClaw state directory"),
    ] {
        let error = home.error();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn exclude_patterns_hold_in_every_root_and_can_leave_out_a_whole_one() {
    let home = Home::with_config("{agents: {defaults: {workspace: '~/w'}}}").file("w/x", "").exclude("*.log");
    assert_eq!(home.file_verdict("w/a/b.log"), "exclude:*.log");
    assert_eq!(home.file_verdict(".openclaw/logs/b.log"), "exclude:*.log");
    let home = home.exclude("~/w");
    assert_eq!(home.roots(), [owned(STATE)]);
    assert!(home.warnings()[0].contains("w is left out as a whole (exclude:~/w)"), "{:?}", home.warnings());
    let home = home.exclude("/none/*");
    assert!(home.warnings()[0].contains("touches no source"), "{:?}", home.warnings());
    let home = home.exclude("~/.openclaw/");
    assert!(home.error().contains("leave out every source"));
}

#[test]
fn paths_that_are_not_utf8_are_taken_as_they_are() {
    let home = Home::new();
    let path = home.path("").join(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
    fs::create_dir(&path).expect("directory");
    let mut home = home.exclude("*.log");
    home.request.sources.push(path.clone());
    assert_eq!(home.plan().roots[0].path, path);
}

fn assert_shareable<T: Send + Sync + 'static>() {}

#[test]
fn the_rules_can_be_asked_from_several_threads() {
    assert_shareable::<Rules>();
    assert_shareable::<Plan>();
}

#[test]
fn a_root_that_is_not_in_the_plan_is_guarded() {
    let plan = Home::with_config("{}").plan();
    assert_eq!(plan.rules.judge(9, b"x", Kind::File), Verdict::Keep(Class::Guarded));
}

proptest::proptest! {
    #[test]
    fn judging_never_panics(
        path in proptest::collection::vec(proptest::num::u8::ANY, 1..200),
        parts in proptest::collection::vec(
            proptest::sample::select(vec![
                "agents", "main", "agent", "sessions", "tmp", "extensions", "node_modules", "browser", "user-data",
                "cache", "a.sqlite.tmp-", ".tmp", ".lock", "", "-wal", "workspace", ".clawsnap-", ".openclaw",
            ]),
            1..8,
        ),
        kind in proptest::sample::select(vec![Kind::File, Kind::Directory, Kind::Symlink, Kind::Socket]),
    ) {
        let home = JUDGED.get_or_init(|| Home::with_config("{}").exclude("a*/b").exclude("~/x*").plan().rules);
        let plain = PLAIN.get_or_init(|| Home::with_config("{}").source(".").plan().rules);
        for rules in [home, plain] {
            rules.judge(0, &path, kind);
            rules.judge(0, parts.join("/").as_bytes(), kind);
            rules.judge(0, parts.concat().as_bytes(), kind);
        }
    }
}

static JUDGED: std::sync::OnceLock<Rules> = std::sync::OnceLock::new();
static PLAIN: std::sync::OnceLock<Rules> = std::sync::OnceLock::new();
