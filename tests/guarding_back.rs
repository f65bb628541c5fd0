//! The way back that `clawsnap guard` prints, pasted into a shell that was opened later.
#![cfg(feature = "cli")]

mod stage;
mod ward;

use std::path::{Path, PathBuf};
use std::process::Output;

use stage::{Stage, text};
use ward::{kept, tree, way_back};

/// What a shell must not take apart.
const ODD: &str = "it's a \"home\" $HOME `x` \\ ; #";

/// What no upgrade should do.
const RUIN: &str = r#"cd "$RUINED" && rm -r agents && echo ruined > openclaw.json && mkdir new && exit 7"#;

/// A home whose path a shell would take apart.
struct Scene {
    stage: Stage,
    home: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let stage = Stage::new();
        let home = stage.path(ODD);
        std::fs::create_dir(&home).expect("makes a directory");
        Self { stage, home }
    }

    /// Something that looks like a state directory, below the home.
    fn state(&self, name: &str) -> PathBuf {
        let state = self.home.join(name);
        for (name, words) in [("openclaw.json", "{}"), ("agents/main/sessions/4f1c0a3e-1.jsonl", "{\"said\":1}\n")] {
            let below = state.strip_prefix(self.stage.top()).expect("lies below").join(name);
            let below = below.to_str().expect("text");
            self.stage.write(below, words.as_bytes());
            self.stage.cool(below);
        }
        state
    }

    /// A guarded ruin of `ruined`, where `words` are typed and `variables` set.
    fn ruin(&self, ruined: &Path, words: &[&Path], variables: &[(&str, &Path)], more: &[&str]) -> Output {
        let mut command = self.stage.command("guard -q");
        command.env("HOME", &self.home).env("RUINED", ruined).envs(variables.iter().copied());
        command.arg("-o").arg(self.home.join("archives/")).args(words).args(more);
        command.args(["--", "sh", "-c", RUIN]).output().expect("runs")
    }

    /// That the printed way leads back, and nothing else changes.
    fn assert_leads_back(&self, ruined: &Path, words: &[&Path], variables: &[(&str, &Path)]) {
        let before = tree(ruined);
        let output = self.ruin(ruined, words, variables, &[]);
        assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
        let (way, after) = (way_back(&output), tree(ruined));
        assert_ne!(after, before);
        let back = self.stage.later(&way, &self.home);
        assert_eq!(back.status.code(), Some(0), "{way}: {}", text(&back.stderr));
        assert_eq!(tree(ruined), before, "{way}");
        let kept = kept(ruined);
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert_eq!(tree(&kept[0]), after, "{way}");
    }
}

#[test]
fn it_leads_back_to_the_state_in_the_home_directory() {
    let scene = Scene::new();
    let state = scene.state(".openclaw");
    scene.assert_leads_back(&state, &[], &[]);
}

#[test]
fn it_leads_back_to_the_state_that_a_variable_named() {
    let scene = Scene::new();
    let state = scene.state("else where/claw's");
    scene.assert_leads_back(&state, &[], &[("OPENCLAW_STATE_DIR", &state)]);
    assert!(!scene.home.join(".openclaw").exists());
}

#[test]
fn it_leads_back_to_the_state_below_the_home_that_openclaw_was_given() {
    let scene = Scene::new();
    let state = scene.state("second home/.openclaw");
    let second = state.parent().expect("has one").to_owned();
    scene.assert_leads_back(&state, &[], &[("OPENCLAW_HOME", &second)]);
    assert!(!scene.home.join(".openclaw").exists());
}

#[test]
fn it_leads_back_to_a_state_that_was_named_and_lies_elsewhere() {
    let scene = Scene::new();
    let (state, own) = (scene.state("other/state"), scene.state(".openclaw"));
    let before = tree(&own);
    scene.assert_leads_back(&state, &[&state], &[]);
    assert_eq!((tree(&own), kept(&own).len()), (before, 0), "that of the home is not touched");
}

#[test]
fn it_leads_back_to_a_plain_directory() {
    let scene = Scene::new();
    let (state, own) = (scene.home.join("plain 'notes'"), scene.state(".openclaw"));
    std::fs::create_dir_all(state.join("agents")).expect("makes a directory");
    std::fs::write(state.join("openclaw.txt"), "words").expect("writes");
    let before = tree(&own);
    scene.assert_leads_back(&state, &[&state], &[]);
    assert_eq!((tree(&own), kept(&own).len()), (before, 0), "that of the home is not touched");
}

#[test]
fn it_leads_back_to_all_of_several_sources() {
    let scene = Scene::new();
    let (state, notes) = (scene.state(".openclaw"), scene.home.join("notes"));
    std::fs::create_dir_all(notes.join("below")).expect("makes a directory");
    std::fs::write(notes.join("below/n.md"), "words").expect("writes");
    let before = tree(&notes);
    scene.assert_leads_back(&state, &[&notes, &state], &[]);
    assert_eq!(tree(&notes), before);
}

#[test]
fn it_leads_back_to_the_old_name_of_a_state_that_was_moved_to_the_new_one() {
    let scene = Scene::new();
    let old = scene.state(".clawdbot");
    let before = tree(&old);
    let mut command = scene.stage.command("guard -q");
    command.env("HOME", &scene.home).arg("-o").arg(scene.home.join("archives/"));
    let script = "cd && mv .clawdbot .openclaw && echo ruined > .openclaw/openclaw.json; exit 1";
    let output = command.args(["--", "sh", "-c", script]).output().expect("runs");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let back = scene.stage.later(&way_back(&output), &scene.home);
    assert_eq!(back.status.code(), Some(0), "{}", text(&back.stderr));
    assert_eq!(tree(&old), before);
}

/// Where the variable names another state than the one that is guarded.
#[test]
fn it_leads_to_what_was_guarded_though_a_variable_names_another_state() {
    for rollback in [false, true] {
        let scene = Scene::new();
        let (state, other) = (scene.state(".openclaw"), scene.state("other"));
        let (before, of_other) = (tree(&state), tree(&other));
        let more: &[&str] = if rollback { &["--rollback"] } else { &[] };
        let output = scene.ruin(&state, &[&state], &[("OPENCLAW_STATE_DIR", &other)], more);
        if !rollback {
            let way = format!("export OPENCLAW_STATE_DIR=\"$HOME/other\"; {}", way_back(&output));
            let back = scene.stage.later(&way, &scene.home);
            assert_eq!(back.status.code(), Some(0), "{way}: {}", text(&back.stderr));
        }
        assert_eq!(tree(&state), before, "{}", text(&output.stderr));
        assert_eq!((tree(&other), kept(&other).len()), (of_other, 0), "{}", text(&output.stderr));
    }
}

/// Sessions that were moved to a larger disk, with a link left for them, were in no archive: it held the link.
#[test]
fn sessions_behind_a_link_are_brought_back_with_it() {
    let scene = Scene::new();
    let (state, disk) = (scene.state(".openclaw"), scene.home.join("disk"));
    let (sessions, moved) = (state.join("agents/main/sessions"), disk.join("sessions"));
    std::fs::create_dir(&disk).expect("makes a directory");
    std::fs::rename(&sessions, &moved).expect("moves");
    std::os::unix::fs::symlink(&moved, &sessions).expect("links");
    let before = (tree(&state), tree(&moved));
    let mut command = scene.stage.command("guard -q --rollback");
    command.env("HOME", &scene.home).arg("-o").arg(scene.home.join("archives/"));
    let ruin = "cd && rm -r .openclaw/agents disk/sessions/* && exit 7";
    let output = command.args(["--", "sh", "-c", ruin]).output().expect("runs");
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert!(kept(&state).len() == 1 && kept(&moved).len() == 1, "{}", text(&output.stderr));
    assert_eq!((tree(&state), tree(&moved)), before);
}
