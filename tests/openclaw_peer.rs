//! What the real OpenClaw makes of us: it accepts our archives, and its agent does not notice our backups.
//!
//! The peers come from `scripts/peers`. Where one is not installed its tests say so and pass, unless
//! `CLAWSNAP_REQUIRE_PEERS=1` is set.

mod peer;

use std::fs::{self, File};
use std::io::Write;
use std::mem::discriminant;
use std::path::{Path, PathBuf};

use peer::{
    Home, Peer, REPLY, SESSIONS_IN_FILES, SESSIONS_IN_ROWS, assert_same, below, contents, databases_in_use, holds,
    links, session_ids,
};
use serde_json::Value;

/// A line that only the workspace's AGENTS.md can have put into a prompt.
const MARKER: &str = "the-house-rule-number-4711";

/// What is said to the agent before and after a backup.
const BEFORE: &str = "the-word-before-the-backup";
const AFTER: &str = "the-word-after-the-backup";

/// Where OpenClaw keeps what it shares, and an agent its sessions.
const CORE_DATABASES: [&str; 2] = ["state/openclaw.sqlite", "agents/main/agent/openclaw-agent.sqlite"];

#[test]
fn openclaw_verifies_and_restores_the_archives_of_a_state_that_it_wrote() {
    let Some(peer) = Peer::find() else { return };
    let home = Home::onboard(peer);
    home.turn("hi");
    home.leave_older_session();
    home.leave_awkward_things();
    home.hire_helper();
    let state = contents(&home.state());
    let workspace = contents(&home.helpers_workspace());
    // Both before OpenClaw runs again, for that changes the state.
    let archives = both_archives(&home);
    for archive in &archives {
        assert_folded(&home.back_up(archive), &home);
    }
    assert_same(&contents(&home.state()), &state);

    for archive in &archives {
        assert_eq!(home.verify(archive)["ok"], true);
        let restored = home.restore(archive);
        assert_same(&contents(&below(&restored, &home.state())), &state);
        assert_same(&contents(&below(&restored, &home.helpers_workspace())), &workspace);
        assert_remembers_the_turn(&below(&restored, &home.state()));
    }
}

/// Since 2026.8 a session is rows in its agent's database.
fn assert_remembers_the_turn(state: &Path) {
    let database = fs::read(state.join("agents/main/agent/openclaw-agent.sqlite")).expect("the agent's database");
    assert!(holds(&database, REPLY), "the restored database does not know the turn's answer");
}

#[test]
fn a_backup_beside_a_running_gateway_is_a_state_in_which_openclaw_goes_on() {
    let Some(peer) = Peer::find() else { return };
    let home = Home::onboard(peer);
    home.forgo_memory();
    let mut gateway = home.start_gateway();
    home.turn_by_gateway(BEFORE);

    let archives = both_archives(&home);
    for archive in &archives {
        let open = databases_in_use(&home.state());
        let report = home.back_up(archive);
        assert!(CORE_DATABASES.iter().all(|path| open.contains(&home.state().join(path))), "open were {open:?}");
        assert_folded(&report, &home);
    }

    home.assert_no_trace();
    home.assert_databases_sound();
    let prompt = home.turn_by_gateway(AFTER);
    assert!(prompt.contains(BEFORE) && prompt.contains(AFTER), "the gateway lost its session");
    assert!(gateway.is_running(), "the gateway did not outlive the backups");
    assert_refused_under_gateway(&home, &archives[0]);
    gateway.stop();

    for archive in &archives {
        assert_eq!(home.verify(archive)["ok"], true);
    }
    home.take_over(&below(&home.restore(&archives[0]), &home.state()));
    let prompt = home.turn("and now?");
    assert!(prompt.contains(BEFORE), "the restored state does not know the turn before the backup");
    assert!(!prompt.contains(AFTER), "the restored state knows a turn that came after the backup");
    home.assert_databases_sound();
}

/// OpenClaw accepts two codecs.
fn both_archives(home: &Home) -> [PathBuf; 2] {
    ["backup.tar.zst", "backup.tar.gz"].map(|name| home.path(name))
}

/// The backup found logs beside the databases, and archived what was in them as part of the databases.
fn assert_folded(report: &Value, home: &Home) {
    let folded = report["folded"].as_array().expect("what was folded");
    for database in CORE_DATABASES {
        let log = home.state().join(format!("{database}-wal"));
        assert!(
            folded.iter().any(|fated| Path::new(fated["path"].as_str().unwrap_or_default()) == log),
            "no log of {database} in {folded:?}"
        );
    }
}

#[test]
fn a_real_agent_turn_during_a_slow_backup_reads_its_agents_md() {
    let Some(peer) = Peer::find() else { return };
    let home = Home::onboard(peer);
    home.forgo_memory();
    add_marker(&home);
    fill(&home.workspace().join("0-more-than-a-pipe-holds"));
    home.age_workspace();

    let mut backup = home.hold_backup();
    let prompt = home.turn("hi");
    assert!(prompt.contains(MARKER), "the agent did not read its AGENTS.md");
    assert_eq!(links(&home.agents_md()), 1);
    assert!(backup.is_running(), "the backup was over before the turn, so this proves nothing");

    let (status, archive) = backup.release();
    assert!(holds(&archive, MARKER), "the archive has no AGENTS.md");
    assert_eq!(status.code(), Some(0), "{status}");
}

/// The test above can fail: this is what the agent would have seen if the backup held a link.
#[test]
fn an_agent_does_not_read_an_agents_md_that_has_a_second_link() {
    let Some(peer) = Peer::find() else { return };
    let home = Home::onboard(peer);
    home.forgo_memory();
    add_marker(&home);
    fs::hard_link(home.agents_md(), home.path("a-second-link")).expect("a second link");

    let prompt = home.turn("hi");

    assert!(!prompt.contains(MARKER), "OpenClaw reads hard-linked files now: the guard that we plan for is gone");
}

#[test]
fn the_report_of_a_backup_says_all_that_openclaw_says_of_its_own() {
    let Some(peer) = Peer::find() else { return };
    let home = Home::onboard(peer);
    home.hire_helper();

    let ours = home.back_up(&home.path("backup.tar.gz"));
    let theirs = home.openclaws_report();

    for (field, value) in theirs.as_object().expect("an object") {
        let said = &ours[field];
        assert_eq!(discriminant(said), discriminant(value), "{field} is {said}, but {value} there");
    }
    for field in ["dryRun", "includeWorkspace", "onlyConfig", "agentRoots"] {
        assert_eq!(ours[field], theirs[field], "{field}");
    }
    assert_eq!(sources(&ours["assets"]), sources(&theirs["assets"]));

    let verdict = home.verify_by_clawsnap(&home.path("openclaws-own.tar.gz"));
    assert_eq!((&verdict["trust"], &verdict["origin"]), (&"proven".into(), &"openclaw".into()), "{verdict:#}");
    assert!(verdict["databases"].as_u64().is_some_and(|sound| sound > 0), "{verdict:#}");
}

/// What each asset is, apart from where it lies in its archive.
fn sources(assets: &Value) -> Vec<[&Value; 3]> {
    let assets = assets.as_array().expect("assets").iter();
    assets.map(|asset| ["kind", "sourcePath", "displayPath"].map(|field| &asset[field])).collect()
}

#[test]
fn a_state_with_its_sessions_in_files_is_lost_and_openclaw_goes_on_in_the_restored_one() {
    let Some(peer) = Peer::of(SESSIONS_IN_FILES) else { return };
    let home = Home::onboard(peer);
    home.openclaws_report();
    let verdict = home.verify_by_clawsnap(&home.path("openclaws-own.tar.gz"));
    assert_eq!((&verdict["trust"], &verdict["origin"]), (&"proven".into(), &"openclaw".into()), "{verdict:#}");
    assert!(verdict["warnings"][0].as_str().is_some_and(|text| text.contains("no inventory")), "{verdict:#}");

    loses_its_state_and_goes_on(&home);
    let gateway = home.start_gateway();
    assert_refused_under_gateway(&home, &home.path("backup.tar.zst"));
    gateway.stop();
}

/// Nothing is exchanged under a gateway, which is known by its lock.
fn assert_refused_under_gateway(home: &Home, archive: &Path) {
    let said = home.restore_in_place(archive).expect_err("the gateway is running");
    assert!(said.contains("gateway is running there"), "{said}");
}

#[test]
fn a_state_with_its_sessions_in_rows_is_lost_and_openclaw_goes_on_in_the_restored_one() {
    let Some(peer) = Peer::of(SESSIONS_IN_ROWS) else { return };
    loses_its_state_and_goes_on(&Home::onboard(peer));
}

#[test]
fn an_upgrade_that_fails_is_brought_back_and_the_older_version_goes_on() {
    let (Some(older), Some(newer)) = (Peer::of(SESSIONS_IN_FILES), Peer::of(SESSIONS_IN_ROWS)) else { return };
    let home = Home::onboard(older);
    home.forgo_memory();
    home.turn(BEFORE);
    let kept = home.sessions();
    let before = contents(&home.state());

    let report = home.fail_to_upgrade_to(&newer);

    let rollback = &report["ran"]["rollback"];
    assert_eq!(rollback["done"], true, "{report:#}");
    let left = Path::new(rollback["kept"][0].as_str().expect("is kept"));
    assert!(contents(left) != before, "the newer version changed nothing, so this proves nothing");
    assert_same(&contents(&home.state()), &before);
    home.assert_no_trace();
    assert_eq!(home.sessions(), kept);
    let prompt = home.turn("and now?");
    assert!(prompt.contains(BEFORE), "the older version does not know the turn before the upgrade");
}

/// The ways from an archive to a state in the place of the lost one.
const WAYS_BACK: [fn(&Home, &Path); 2] = [restored_beside_and_moved, restored_in_place];

fn restored_in_place(home: &Home, archive: &Path) {
    home.restore_in_place(archive).unwrap_or_else(|said| panic!("refused: {said}"));
}

fn restored_beside_and_moved(home: &Home, archive: &Path) {
    home.take_over(&below(&home.restore_by_clawsnap(archive), &home.state()));
}

fn loses_its_state_and_goes_on(home: &Home) {
    home.forgo_memory();
    home.turn(BEFORE);
    let archive = home.path("backup.tar.zst");
    home.back_up(&archive);
    let listed = home.sessions_in(&archive);
    let kept = session_ids(&listed, "id");
    assert_eq!(kept.len(), 1, "{listed:#}");
    let told = ["agent", "state", "firstMessage"].map(|field| listed[0][field].as_str().unwrap_or_default());
    assert_eq!(told, ["main", "current", BEFORE], "{listed:#}");

    for way_back in WAYS_BACK {
        way_back(home, &archive);
        assert_eq!(home.sessions(), kept);
        let prompt = home.turn("and now?");
        assert!(prompt.contains(BEFORE), "the restored state does not know the turn before the backup");
    }
}

fn add_marker(home: &Home) {
    let mut file = File::options().append(true).open(home.agents_md()).expect("an AGENTS.md");
    writeln!(file, "\n{MARKER}").expect("a further line");
}

/// Eight megabytes without a pattern.
fn fill(path: &Path) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let bytes: Vec<u8> = words.take(1 << 20).flatten().collect();
    fs::write(path, bytes).expect("a large file");
}
