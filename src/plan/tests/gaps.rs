//! What an archive may lack, and who is told.

use super::*;

impl Home {
    fn directory(self, path: &str) -> Self {
        fs::create_dir_all(self.path(path)).expect("directory");
        self
    }
}

#[test]
fn what_the_config_or_the_environment_names_is_a_gap_where_it_is_missing() {
    let gaps = |home: Home| home.plan().warnings.iter().filter(|warning| warning.is_gap()).count();
    let with = |config: &str| Home::new().file(".openclaw/openclaw.json", config);
    assert_eq!(gaps(with("{}")), 0);
    assert_eq!(gaps(with("{agents: {list: [{id: 'a'}, {id: 'b'}]}}")), 0);
    assert_eq!(gaps(with("{agents: {list: [{id: 'a'}, {id: 'b', workspace: '~/b'}]}}")), 1);
    assert_eq!(gaps(with("{agents: {defaults: {workspace: '~/w'}, list: [{id: 'a'}, {id: 'b'}]}}")), 2);
    assert_eq!(gaps(with("{agents: {list: [{id: 'a'}, {id: 'b'}]}}").variable("OPENCLAW_WORKSPACE_DIR", "ws")), 1);
    assert_eq!(gaps(with("{").variable("OPENCLAW_OAUTH_DIR", "~/oauth").variable("OPENCLAW_PROFILE", "dev")), 3);
}

#[test]
fn what_a_named_state_directory_has_elsewhere_is_a_gap_unless_it_is_named_too() {
    let config = "{agents: {defaults: {workspace: '~/w'}, list: [{id: 'a', agentDir: '~/ag'}]}}";
    let home = || Home::with_config(config).file("w/x", "").source(".openclaw");
    let elsewhere = |home: Home| {
        let told = home.plan().warnings.into_iter().filter_map(|warning| match warning {
            Warning::NotNamed { path, .. } => Some(home.shown(&path)),
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    assert_eq!(elsewhere(home().file("ag/x", "")), ["w", "ag"]);
    assert_eq!(elsewhere(home()), ["w", "ag"], "what is away is missed all the more");
    assert_eq!(elsewhere(home().file("ag/x", "").source("w").source("ag")), [""; 0]);
    assert_eq!(elsewhere(home().file("ag/x", "").without_workspace()), ["ag"]);
    assert_eq!(elsewhere(Home::with_config("{}").source(".openclaw")), [""; 0]);
    assert_eq!(elsewhere(Home::with_config("{}").file("w/x", "").source("w")), [""; 0]);
}

/// `session.store` and `cron.store` were not followed: no session was in the archive, which was told to be complete.
#[test]
fn sessions_and_cron_jobs_that_the_config_puts_elsewhere_are_in_the_plan() {
    let config = "{session: {store: '~/data/{agentId}/sessions.json'}, cron: {store: '~/cron/mine.json'},
        agents: {list: [{id: 'Main'}, {id: 'b'}]}}";
    let home = Home::with_config(config).file("data/main/sessions.json", "{}").file("data/b/0.jsonl", "");
    let home = home.file("cron/mine.json", "{}").file("cron/runs/0.jsonl", "").file("cron/other", "");
    let stores = ["cron/mine.json", "cron/runs", "data/b", "data/main"].map(|path| ("store", path.to_owned()));
    assert_eq!(home.roots(), [&[owned(STATE)], &stores[..]].concat());
    assert_eq!(home.file_verdict("data/b/0.jsonl"), "Guarded");
    let away = Home::with_config(config).file("data/b/0.jsonl", "");
    let missing: Vec<String> = away.plan().missing.iter().map(|missing| away.shown(&missing.path)).collect();
    assert!(missing.ends_with(&["cron/mine.json".to_owned(), "data/main/sessions.json".to_owned()]), "{missing:?}");
    assert_eq!(away.plan().warnings.iter().filter(|warning| warning.is_gap()).count(), 2);
}

/// A disk that is away leaves its mount point, empty: that was backed up as if it were the state, or a workspace, without a word.
#[test]
fn a_directory_that_holds_nothing_is_a_gap_unless_openclaw_makes_it_when_it_needs_it() {
    let empty = |home: Home| {
        let told = home.plan().warnings.into_iter().filter(Warning::is_gap).filter_map(|warning| match warning {
            Warning::EmptyAsset { kind, path } => Some((kind.as_str(), home.shown(&path))),
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    let named = "{agents: {defaults: {workspace: '~/w'}, list: [{id: 'a', default: true, agentDir: '~/ag'}]}}";
    assert_eq!(empty(Home::new().directory(STATE.1)), [STATE].map(owned));
    assert_eq!(
        empty(Home::with_config(named).directory("w").directory("ag")),
        [("agent", "ag"), ("workspace", "w")].map(owned)
    );
    assert_eq!(empty(Home::with_config(named).directory("w/.git").file("ag/auth-profiles.json", "{}")), []);
    let inside = named.replace("~/w", "~/.openclaw/ws");
    assert_eq!(empty(Home::with_config(&inside).directory(".openclaw/ws")), [("workspace", ".openclaw/ws")].map(owned));
    let stores = "{session: {store: '~/data/{agentId}/sessions.json'}}";
    assert_eq!(empty(Home::with_config(stores).directory("data/main")), []);
    let usual = "{agents: {list: [{id: 'a'}, {id: 'b'}]}}";
    let usual = Home::with_config(usual).directory(".openclaw/workspace-b").directory(".openclaw/agents/b/agent");
    assert_eq!(empty(usual), []);
    let tree = || Home::new().directory("t").file("u/x", "").source("t").source("u");
    assert_eq!(empty(tree()), [("tree", "t")].map(owned));
    assert_eq!(empty(tree().directory("t/.clawsnap-20231114T221320Z-0123abcd")), [("tree", "t")].map(owned));
    let away = tree().exclude("t");
    let path = away.path("t");
    assert_eq!(empty(away.exclude(path.to_str().expect("UTF-8"))), []);
    let told = tree().warnings();
    assert!(told.len() == 1 && told[0].ends_with("/t holds nothing: is its disk mounted?"), "{told:?}");
}

#[test]
fn a_store_does_not_bring_the_home_directory_along() {
    let config = "{session: {store: '~/sessions.json'}, agents: {list: [{id: 'a'}, {id: 'b'}]}}";
    let home = Home::with_config(config).file("sessions.json", "{}").file("0.jsonl", "");
    assert_eq!(home.roots(), [owned(STATE), owned(("store", "sessions.json"))]);
    let wide = home.plan().warnings.into_iter().filter(|warning| matches!(warning, Warning::WideStore { .. }));
    assert_eq!(wide.count(), 1);
}

#[test]
fn a_store_in_the_state_directory_comes_with_it_even_from_where_things_are_left_out() {
    let config = "{session: {store: '~/.openclaw/tmp/{agentId}/sessions.json'}}";
    let home = Home::with_config(config).file(".openclaw/tmp/main/sessions.json", "{}");
    assert_eq!(home.roots(), [owned(STATE)]);
    assert_eq!(home.file_verdict(".openclaw/tmp/main/sessions.json"), "Guarded");
    assert_eq!(home.dir_verdict(".openclaw/tmp/x"), "regenerable:tmp");
    let usual = Home::with_config("{session: {store: '~/.openclaw/agents/{agentId}/sessions/sessions.json'}}");
    assert_eq!((usual.roots(), usual.plan().missing), (vec![owned(STATE)], Vec::new()));
}

/// Under cron, where the shell's variables are not set, `$PWD/${MYWS}` was taken for the workspace.
#[test]
fn a_path_with_a_variable_that_is_not_set_is_a_gap_and_no_path() {
    let home = || Home::with_config("{agents: {defaults: {workspace: '${MYWS}/w'}}, cron: {store: '${MYWS}/jobs'}}");
    let gaps: Vec<Warning> = home().plan().warnings.into_iter().filter(Warning::is_gap).collect();
    assert_eq!((gaps.len(), home().plan().missing), (2, Vec::new()));
    assert!(gaps[0].to_string().starts_with("MYWS is not set here"), "{}", gaps[0]);
    let set = home().variable("MYWS", "~/d").file("d/w/SOUL.md", "").file("d/jobs", "{}");
    assert_eq!(set.roots(), [owned(STATE), owned(("store", "d/jobs")), owned(("workspace", "d/w"))]);
    assert_eq!(set.warnings(), [""; 0]);
}
