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

/// OpenClaw recommends to say so in `~/.openclaw/.env`, and goes there. `~/.openclaw` was archived, which held that file and
/// nothing else, and the archive called itself complete.
#[test]
fn a_file_in_the_usual_state_directory_may_say_that_it_is_elsewhere() {
    for (env, state) in [
        ("OPENCLAW_STATE_DIR=~/data/claw\n", "data/claw"),
        ("OPENCLAW_HOME=~/svc\n", "svc/.openclaw"),
        ("OPENCLAW_HOME=~/svc\nOPENCLAW_STATE_DIR=~/data\n", "svc/data"),
    ] {
        let home = Home::new().file(".openclaw/.env", env).file(&format!("{state}/agents/main/sessions/0.jsonl"), "");
        let home =
            home.file(&format!("{state}/openclaw.json"), OLD).file(&format!("{state}/.env"), "OPENCLAW_OAUTH_DIR=~/x");
        assert_eq!(home.roots(), [owned(("config", ".openclaw")), owned(("state", state))], "{env}");
        assert_eq!(told(&home).len(), 1, "the file that is there is read as well: {:?}", told(&home));
        assert_eq!(home.dir_verdict(&format!("{state}/npm")), "regenerable:npm");
        assert_eq!(state_directory(&home.request.environment), home.path(state));
        let said = home.variable("OPENCLAW_HOME", "~").variable("OPENCLAW_STATE_DIR", "~/.openclaw");
        assert_eq!(said.roots(), [owned(STATE)], "what the process has set stands");
    }
}

#[test]
fn files_that_lead_to_each_other_come_to_an_end() {
    let home = Home::new().file("b/.openclaw/.env", "OPENCLAW_HOME=~\nOPENCLAW_STATE_DIR=.openclaw\n");
    let home = home.file(".openclaw/.env", "OPENCLAW_HOME=~/b\n").file("b/.openclaw/openclaw.json", "{}");
    assert_eq!(home.roots(), [owned(STATE), owned(("config", "b/.openclaw"))]);
}

#[test]
fn the_gateways_own_file_may_say_it_too_and_is_archived() {
    let gateway = ".config/openclaw/gateway.env";
    let home = Home::with_config("{}").file(gateway, "OPENCLAW_STATE_DIR=~/s\n").file("s/openclaw.json", "{}");
    assert_eq!(home.roots(), [("config", gateway), ("config", ".openclaw"), ("state", "s")].map(owned));
    let usual = Home::with_config("{}").file(gateway, "KEY=1\n");
    assert_eq!(usual.roots(), [("config", gateway), STATE].map(owned));
    assert!(told(&usual.source(".openclaw"))[0].contains("gateway.env is not in the archive"));
}

#[test]
fn a_named_state_directory_from_which_a_file_leads_away_is_a_gap() {
    let home =
        || Home::with_config("{}").file(".openclaw/.env", "OPENCLAW_STATE_DIR=~/s\n").file("s/openclaw.json", "{}");
    let named = home().source(".openclaw");
    assert!(told(&named)[0].contains("/s is not in the archive"), "{:?}", told(&named));
    assert_eq!(told(&home().source(".openclaw").source("s")), [""; 0]);
    assert_eq!(told(&home().home_variable("OPENCLAW_STATE_DIR", "s").source(".openclaw")).len(), 1);
    assert_eq!(told(&home().home_variable("OPENCLAW_STATE_DIR", ".openclaw")), [""; 0]);
    let mut others = home().source(".openclaw");
    others.request.environment.home = Some(others.path("root"));
    assert!(told(&others)[0].contains("/s is not in the archive"), "{:?}", told(&others));
}

/// OpenClaw reads the `.env` beside a config that is named alone; here it was neither read nor archived.
#[test]
fn the_file_beside_a_config_that_is_named_alone_is_read_and_archived() {
    let home =
        || Home::with_config("{}").file("etc/claw.json", "{}").home_variable("OPENCLAW_CONFIG_PATH", "etc/claw.json");
    let home = || home().file("etc/.env", "OPENCLAW_OAUTH_DIR=~/oauth\n").file("oauth/x", "");
    let beside = [("config", "etc/.env"), ("config", "etc/claw.json"), ("credentials", "oauth")];
    assert_eq!(home().roots(), [&[owned(STATE)][..], &beside.map(owned)].concat());
    let both = home().file(".openclaw/.env", "OPENCLAW_OAUTH_DIR=~/o\n").file("o/x", "");
    assert!(
        both.roots().contains(&owned(("credentials", "o"))),
        "that in the state directory goes before: {:?}",
        both.roots()
    );
    let stated = home().home_variable("OPENCLAW_STATE_DIR", ".openclaw");
    assert_eq!(stated.roots(), [STATE, ("config", "etc/claw.json")].map(owned));
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

/// Only seven of OpenClaw's places were looked at: of linked logins, skills, media and the like an archive had the link alone,
/// without a word.
#[test]
fn what_lies_behind_any_other_link_of_openclaws_is_a_store_too() {
    for link in [
        "skills",
        "media",
        "extensions",
        "sandboxes",
        "identity",
        "session-delivery-queue",
        "agents/main/qmd",
        "agents/main/agent/auth-profiles.json",
        "cron/jobs.json",
    ] {
        let home = Home::with_config("{}").file(&format!(".openclaw/{link}.x/y"), "").file("big/it/SKILL.md", "");
        let dir = home.link("big/it", &format!(".openclaw/{link}"));
        assert_eq!((dir.roots(), told(&dir).len()), (vec![owned(STATE), owned(("store", "big/it"))], 0), "{link}");
        let home = Home::with_config("{}").file(&format!(".openclaw/{link}.x/y"), "").file("big/it", "");
        let file = home.link("big/it", &format!(".openclaw/{link}"));
        assert_eq!((file.roots(), told(&file).len()), (vec![owned(STATE), owned(("store", "big/it"))], 0), "{link}");
    }
}

#[test]
fn a_link_is_not_followed_where_its_target_is_of_no_worth_or_followed_already() {
    for link in ["tmp", "plugin-skills", "agents/main/agent/.tmp"] {
        let home = Home::with_config("{}").file(".openclaw/agents/main/agent/x", "").file("big/x", "");
        let home = home.link("big", &format!(".openclaw/{link}")).link("gone", ".openclaw/tools");
        assert_eq!((home.roots(), told(&home).len()), (vec![owned(STATE)], 0), "{link}: {:?}", told(&home));
    }
    let home = Home::new().file(".openclaw/openclaw.json", "{}");
    symlink("/dev/null", home.path(".openclaw/gateway.log")).expect("link");
    assert_eq!((home.roots(), told(&home).len()), (vec![owned(STATE)], 0));
    let home = home.file("dot/env", "KEY=1").link("dot/env", ".openclaw/.env").file("dot/creds/x", "");
    let home = home.link("dot/creds", ".openclaw/credentials").file("w/x", "").link("w", ".openclaw/workspace");
    let followed = [STATE, ("credentials", "dot/creds"), ("config", "dot/env"), ("workspace", "w")];
    assert_eq!(home.roots(), followed.map(owned));
    let home = home.without_workspace();
    assert_eq!(home.roots(), followed[..3].iter().copied().map(owned).collect::<Vec<_>>());
    assert_eq!(told(&home.source(".openclaw")).len(), 2, "each once");
}

/// What sandboxed agents wrote was left out without a word.
#[test]
fn where_the_config_puts_sandboxes_is_a_store() {
    let config = "{agents: {defaults: {sandbox: {mode: 'all', workspaceRoot: '~/sbx'}}, list: [{id: 'a'},
        {id: 'b', sandbox: {workspaceRoot: '${BOXES}/b', ssh: {workspaceRoot: '/far'}}}]}}";
    let home = || Home::with_config(config).file("sbx/agent-a/x", "");
    let set = home().file("boxes/b/x", "").home_variable("BOXES", "boxes");
    assert_eq!(set.roots(), [STATE, ("store", "boxes/b"), ("store", "sbx")].map(owned));
    assert_eq!(told(&set), [""; 0]);
    assert!(told(&home())[0].starts_with("BOXES is not set here"), "{:?}", told(&home()));
    assert_eq!(told(&home().home_variable("BOXES", "boxes")).len(), 1, "what is not there is missed");
    let unused = Home::with_config("{agents: {defaults: {sandbox: {mode: 'off', workspaceRoot: '~/sbx'}}}}");
    assert_eq!(told(&unused), [""; 0]);
    assert_eq!(unused.file("sbx/x", "").roots(), [STATE, ("store", "sbx")].map(owned));
    for (place, gaps) in [("~", 1), ("/", 1), ("~/.openclaw", 0), ("~/.openclaw/x", 0)] {
        let config = format!("{{agents: {{defaults: {{sandbox: {{workspaceRoot: '{place}'}}}}}}}}");
        let home = Home::with_config(&config);
        assert_eq!((home.roots(), told(&home).len()), (vec![owned(STATE)], gaps), "{place}: {:?}", told(&home));
    }
}

/// The logins of models lie there, and were left out.
#[test]
fn the_directory_of_an_agent_that_the_environment_names_is_taken() {
    for name in ["OPENCLAW_AGENT_DIR", "PI_CODING_AGENT_DIR"] {
        let home = || Home::with_config("{}").file(".openclaw/.env", &format!("{name}=~/ag\n"));
        let there = home().file("ag/auth-profiles.json", "{}");
        assert_eq!(there.roots(), [owned(STATE), owned(("agent", "ag"))], "{name}");
        assert_eq!(there.plan().openclaw.expect("facts").agent_roots.map(|agents| agents.len()), Some(1));
        assert!(told(&there.source(".openclaw"))[0].contains("/ag is not in the archive"));
        assert_eq!(told(&home()), [""; 0], "an agent that has not run has none");
        let other =
            home().file("ag/x", "").file("s/agents/a/sessions/0.jsonl", "").home_variable(name, "ag").source("s");
        let is_told = |words: &String| words.contains("/ag is not");
        assert!(!told(&other).iter().any(is_told), "it belongs to the state of this environment");
    }
    let usual = Home::with_config("{}").file(".openclaw/agents/main/agent/x", "");
    let usual = usual.home_variable("OPENCLAW_AGENT_DIR", ".openclaw/agents/main/agent");
    assert_eq!((usual.roots(), usual.covered().len()), (vec![owned(STATE)], 2));
}

/// Sessions that were moved into a place of the state which is left out were left out with it, and so was what somebody named
/// there beside the state: both were told as covered by the state.
#[test]
fn what_is_left_out_is_kept_where_a_link_leads_to_it_or_somebody_names_it() {
    let home = Home::with_config("{}").file(".openclaw/agents/b/x", "").file(".openclaw/tmp/moved/0.jsonl", "");
    let home = home.file(".openclaw/tmp/x", "").link(".openclaw/tmp/moved", ".openclaw/agents/b/sessions");
    assert_eq!(home.file_verdict(".openclaw/tmp/moved/0.jsonl"), "Guarded");
    assert_eq!(home.file_verdict(".openclaw/tmp/x"), "regenerable:tmp");
    let home = Home::with_config("{}").file(".openclaw/tools/mine.sh", "").file(".openclaw/npm/x", "");
    assert_eq!(home.dir_verdict(".openclaw/tools"), "regenerable:tools");
    let home = home.source(".openclaw").source(".openclaw/tools");
    assert_eq!(home.file_verdict(".openclaw/tools/mine.sh"), "Guarded");
    assert_eq!(home.dir_verdict(".openclaw/npm"), "regenerable:npm");
}
