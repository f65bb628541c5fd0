//! What an archive may lack, and who is told.

use super::*;

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
