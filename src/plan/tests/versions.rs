//! What the versions of OpenClaw mean by the same config, where they differ.

use super::*;

fn told(home: &Home) -> Vec<String> {
    home.plan().warnings.iter().filter(|warning| warning.is_gap()).map(ToString::to_string).collect()
}

/// 2026.4 has the default workspace in the home directory, also where the environment puts the state elsewhere: only the
/// state's own was looked for, and the agent's memory was in no archive.
#[test]
fn the_default_workspace_of_a_state_that_is_elsewhere_may_be_in_the_home_directory() {
    let elsewhere = |config: &str| {
        let home = Home::new().file("s/openclaw.json", config).file(".openclaw/workspace/AGENTS.md", "");
        home.file(".openclaw/workspace-dev/AGENTS.md", "").variable("OPENCLAW_STATE_DIR", "~/s")
    };
    let in_home = |name: &str| [("workspace", format!(".openclaw/{name}")), owned(("state", "s"))];
    for config in [OLD, "{}", "{", "{meta: {lastTouchedVersion: '2026.7.35'}}"] {
        assert_eq!(elsewhere(config).roots(), in_home("workspace"), "{config}");
    }
    let of_profile = elsewhere(OLD).variable("OPENCLAW_PROFILE", "dev");
    assert_eq!(of_profile.roots(), in_home("workspace-dev"));
    let later = elsewhere("{meta: {lastTouchedVersion: '2026.9.6'}}");
    assert_eq!(later.roots(), [owned(("state", "s"))], "it may be another installation's");
    for config in ["{agents: {list: [{id: 'a', workspace: '~/s/w'}]}}", "{agents: {defaults: {workspace: '~/s/w'}}}"] {
        assert_eq!(elsewhere(config).roots(), [owned(("state", "s"))], "{config}");
    }
    let away = Home::new().file("s/openclaw.json", OLD).variable("OPENCLAW_STATE_DIR", "~/s");
    assert_eq!((away.workspaces(), told(&away)), (vec!["s/workspace".to_owned()], Vec::new()));
}

/// Under cron nothing says which profile the gateway has, but for the name of its state directory.
#[test]
fn the_name_of_a_state_directory_tells_the_profile_whose_workspace_is_looked_for() {
    let home = Home::new().file(".openclaw-dev/openclaw.json", OLD).file(".openclaw/workspace-dev/AGENTS.md", "");
    let home = home.variable("OPENCLAW_STATE_DIR", "~/.openclaw-dev");
    assert_eq!(home.roots(), [owned(("workspace", ".openclaw/workspace-dev")), owned(("state", ".openclaw-dev"))]);
}

/// To 2026.4 an empty list is `main`'s; here it had no agents, and neither its workspace nor its sessions, put elsewhere
/// by the config, were in the archive or missed.
#[test]
fn an_empty_roster_is_that_of_main() {
    let config = "{session: {store: '~/data/{agentId}.json'}, agents: {defaults: {workspace: '~/ws'}, list: []}}";
    let home = Home::with_config(config).file("ws/AGENTS.md", "").file("data/main.json", "{}");
    assert_eq!(home.roots(), [owned(STATE), owned(("store", "data/main.json")), owned(("workspace", "ws"))]);
    let away = Home::with_config(config);
    assert_eq!(told(&away).len(), 2, "{:?}", told(&away));
}

/// Of several agents that are marked as default, 2026.4 takes the first; here there was no owner, and the directory that
/// the agents share was looked into for `main` and `ops` alone.
#[test]
fn of_several_default_agents_the_first_one_owns_the_shared_workspace() {
    let config =
        "{agents: {defaults: {workspace: '~/ws'}, list: [{id: 'main', default: true}, {id: 'ops', default: true}]}}";
    let home = Home::with_config(config).file("ws/AGENTS.md", "").file("ws/ops/AGENTS.md", "");
    assert_eq!(home.roots(), [owned(STATE), owned(("workspace", "ws"))]);
    assert_eq!((home.workspaces(), told(&home)), (vec!["ws".to_owned(), "ws/ops".to_owned()], Vec::new()));
}

/// Whose the shared workspace was before agents moved from a list to entries is told nowhere in the config.
#[test]
fn a_shared_workspace_is_taken_where_it_exists_whoever_owns_it() {
    let config = "{agents: {defaults: {workspace: '~/ws'}, entries: {a: {}, b: {workspace: '~/wb'}}}}";
    let home = Home::with_config(config).file("ws/AGENTS.md", "").file("ws/a/AGENTS.md", "").file("wb/AGENTS.md", "");
    assert_eq!(home.roots(), [owned(STATE), owned(("workspace", "wb")), owned(("workspace", "ws"))]);
    let away = Home::with_config(config).file("wb/AGENTS.md", "");
    assert_eq!(away.workspaces(), ["ws/a", "wb"], "nobody is known to work in it");
}

/// A config that told no version was taken for an old one's: one that broke, was written by hand or lies elsewhere made
/// sessions linked under versions that refuse to append to them then.
#[test]
fn sessions_are_linked_only_where_an_old_version_is_known_to_own_them() {
    let session = ".openclaw/agents/main/sessions/0.jsonl";
    for (config, expected) in [
        (OLD, "Linkable"),
        ("{meta: {lastTouchedVersion: '2026.7.1'}}", "Guarded"),
        ("{meta: {lastTouchedVersion: 4}}", "Guarded"),
        ("{}", "Guarded"),
        ("{", "Guarded"),
    ] {
        assert_eq!(Home::with_config(config).file_verdict(session), expected, "{config}");
        assert_eq!(Home::with_config(config).source(".openclaw").file_verdict(session), expected, "{config}");
    }
    assert_eq!(Home::new().file(session, "{}\n").file_verdict(session), "Guarded", "its config lies elsewhere");
    assert_eq!(Home::new().file("d/a/0.jsonl", "").source("d").file_verdict("d/a/0.jsonl"), "Linkable");
}
