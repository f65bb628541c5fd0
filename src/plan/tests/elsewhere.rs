//! What lies elsewhere because somebody said so: an environment file, a store's path, a symbolic link.

use super::*;

fn told(home: &Home) -> Vec<String> {
    home.plan().warnings.iter().filter(|warning| warning.is_gap()).map(ToString::to_string).collect()
}

/// OpenClaw reads `.env` into its environment, and the config's `env` too; here they were good for `${NAME}` alone. After a
/// restore, every channel's login was gone.
#[test]
fn what_openclaw_adds_to_its_environment_says_where_things_are() {
    let home = Home::with_config("{$include: '../inc/c.json', env: {vars: {OPENCLAW_WORKSPACE_DIR: 'w'}}}")
        .file(".openclaw/.env", "# logins\nOPENCLAW_OAUTH_DIR=~/oauth # elsewhere\nOPENCLAW_INCLUDE_ROOTS=\"inc\"\n")
        .file("oauth/whatsapp/creds.json", "{}")
        .file("inc/c.json", "{}")
        .file("w/AGENTS.md", "");
    let elsewhere = [("config", "inc/c.json"), ("credentials", "oauth"), ("workspace", "w")];
    assert_eq!(home.roots(), [&[owned(STATE)][..], &elsewhere.map(owned)].concat());
    assert_eq!(told(&home), [""; 0]);
    let named = home.source(".openclaw").source("oauth").source("inc").source("w");
    assert_eq!(told(&named), [""; 0]);
    let process = Home::with_config("{}").file(".openclaw/.env", "OPENCLAW_OAUTH_DIR=~/a").file("b/x", "");
    let process = process.variable("OPENCLAW_OAUTH_DIR", "~/b");
    assert_eq!(process.roots(), [owned(STATE), owned(("credentials", "b"))]);
}

#[test]
fn a_file_in_the_state_directory_does_not_say_where_that_is() {
    let env = "OPENCLAW_STATE_DIR=~/other\nOPENCLAW_HOME=~/other\n";
    let home = Home::with_config("{}").file(".openclaw/.env", env).file("other/openclaw.json", "{}");
    assert_eq!((home.roots(), home.workspaces()), (vec![owned(STATE)], vec![".openclaw/workspace".to_owned()]));
}

/// Only the agents of the config were looked for in a store that has a directory for each; the sessions of those that were
/// taken from the config, or that only a harness runs, were lost without a word.
#[test]
fn the_stores_of_agents_that_the_config_does_not_name_are_taken_as_well() {
    let config = "{session: {store: '~/data/{agentId}-x/{agentId}.json'}, agents: {list: [{id: 'main'}]}}";
    let home = Home::with_config(config)
        .file("data/main-x/main.json", "{}")
        .file("data/codex-x/codex.json", "{}")
        .file("data/gone-x/0.jsonl", "")
        .file("data/empty-x/notes.txt", "")
        .file("data/Codex-x/0.jsonl", "")
        .file("data/other/0.jsonl", "");
    let stores = ["data/codex-x/codex.json", "data/gone-x", "data/main-x/main.json"];
    assert_eq!(home.roots(), [&[owned(STATE)][..], &stores.map(|path| owned(("store", path)))].concat());
    assert_eq!(told(&home), [""; 0]);
}

#[test]
fn what_only_looks_like_sessions_in_the_home_directory_is_no_store() {
    let home = Home::with_config("{session: {store: '~/{agentId}/sessions.json'}}")
        .file("main/sessions.json", "{}")
        .file("ops/sessions.json", "{}")
        .file("data/training.jsonl", "");
    assert_eq!(home.roots(), [owned(STATE), owned(("store", "main")), owned(("store", "ops"))]);
}

#[test]
fn a_directory_of_stores_that_cannot_be_listed_is_a_gap() {
    let home = Home::with_config("{session: {store: '~/loop/{agentId}/sessions.json'}}").link("loop", "loop");
    assert!(told(&home).iter().any(|words| words.contains("loop cannot be listed")), "{:?}", told(&home));
    let away = Home::with_config("{session: {store: '~/away/{agentId}/sessions.json'}}");
    assert_eq!(told(&away).len(), 1, "what is not there has no more stores than the one of the config");
}

/// A disk was full, and the sessions were moved to another one, with a symbolic link in their place: the archive had the
/// link and no session, and was told to be complete.
#[test]
fn what_lies_behind_a_link_among_openclaws_own_places_is_a_store() {
    for (link, target, inside) in [
        ("agents", "big/agents", "big/agents/main/sessions/0.jsonl"),
        ("agents/main", "big/main", "big/main/sessions/0.jsonl"),
        ("agents/gone/sessions", "big/sessions", "big/sessions/0.jsonl"),
        ("agents/gone/agent", "big/agent", "big/agent/openclaw-agent.sqlite"),
        ("cron/runs", "big/runs", "big/runs/0.jsonl"),
        ("memory", "big/memory", "big/memory/main.sqlite"),
        ("state", "big/state", "big/state/openclaw.sqlite"),
    ] {
        let home = Home::new().file(".openclaw/openclaw.json", "{}").file(&format!(".openclaw/{link}.x/y"), "");
        let home = home.file(inside, "").link(target, &format!(".openclaw/{link}"));
        assert_eq!(home.roots(), [owned(STATE), owned(("store", target))], "{link}");
        assert_eq!((told(&home), home.file_verdict(inside)), (Vec::new(), "Guarded".to_owned()), "{link}");
        let named = home.source(".openclaw");
        assert!(told(&named)[0].contains(&format!("{target} is not in the archive")), "{:?}", told(&named));
    }
}

#[test]
fn links_behind_links_are_followed() {
    let home = Home::new().file(".openclaw/x", "").file("big/agents/main/x", "").file("more/0.jsonl", "");
    let home = home.link("big/agents", ".openclaw/agents").link("more", "big/agents/main/sessions");
    assert_eq!(home.roots(), [owned(STATE), owned(("store", "big/agents")), owned(("store", "more"))]);
}

#[test]
fn a_link_that_leads_nowhere_or_to_everything_is_a_gap_and_one_that_stays_inside_is_none() {
    for (target, gaps) in [("gone", 1), ("", 1), (".openclaw", 0), (".openclaw/kept", 0), (".openclaw/gone", 0)] {
        let home = Home::new().file(".openclaw/kept/x", "").link(target, ".openclaw/memory");
        assert_eq!((home.roots(), told(&home).len()), (vec![owned(STATE)], gaps), "{target:?}: {:?}", told(&home));
    }
}
