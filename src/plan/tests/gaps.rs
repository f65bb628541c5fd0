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
