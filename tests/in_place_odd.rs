//! Restoring in place where things lie oddly: behind links, behind modes, and where somebody has tidied up meanwhile.

mod place;

use std::sync::Arc;

use clawsnap::gate::CancelFlag;
use clawsnap::plan::Environment;
use clawsnap::restore::{Destination, Ending, InPlace, Mapping};
use place::support::write;
use place::{Scene, name, restore, said, tree};

/// The state of another profile was mapped to where it had been, and took the place of the caller's own state.
#[test]
fn a_state_that_is_mapped_to_where_it_was_goes_there() {
    let scene = Scene::new();
    let archive = scene.archive();
    let archived = tree(&scene.state());
    scene.go_on();
    let theirs = scene.path("theirs");
    write(&theirs.join(".openclaw/openclaw.json"), "good");
    let environment = Environment { home: Some(theirs.clone()), ..scene.environment() };
    let mut options = scene.options(&[]);
    options.destination = Destination::InPlace(InPlace { environment, force: false });
    for same in [scene.state(), scene.path("home"), "/".into()] {
        options.mapping = Mapping::default().and(&same, &same).expect("is absolute");
        let restored = restore(&archive, &options, Arc::new(CancelFlag::new()));
        assert_eq!(restored.outcome, Ending::Complete, "{:?}", restored.error);
        assert_eq!(restored.places[0].restored_to, name(&scene.state()));
        assert_eq!(said(&theirs.join(".openclaw/openclaw.json")), "good");
    }
    assert_eq!(tree(&scene.state()), archived);
}
