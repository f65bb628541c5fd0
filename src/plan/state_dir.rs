//! Where OpenClaw's state directory is.

use std::path::PathBuf;

use super::additions;
use super::environment::Environment;

/// Where OpenClaw's state directory is, or was looked for.
#[derive(Debug)]
pub(super) struct StateDir {
    pub(super) path: PathBuf,
    pub(super) looked: Vec<PathBuf>,
    /// Whether `OPENCLAW_STATE_DIR` says so.
    pub(super) named: bool,
    /// The environment as OpenClaw has it when it has read its files.
    pub(super) environment: Environment,
    /// Those files.
    pub(super) env_files: Vec<PathBuf>,
    /// Directories that were the state directory until one of those files led away from there.
    pub(super) left: Vec<PathBuf>,
}

impl StateDir {
    /// `OPENCLAW_STATE_DIR`, else `~/.openclaw`, else `~/.clawdbot` if only that exists.
    ///
    /// What is read from a file there may set that variable, or the home directory: OpenClaw goes on from where it leads.
    /// Nothing that is set is set again and no file is read twice, so that this ends.
    pub(super) fn of(environment: &Environment) -> Self {
        let mut environment = environment.clone();
        let (mut left, mut read, mut env_files) = (Vec::new(), Vec::new(), Vec::new());
        let mut path = environment.state_dir();
        while let Some(file) = additions::files(&environment, &path).into_iter().find(|file| !read.contains(file)) {
            if let Some(text) = additions::read(&file) {
                environment = additions::of_text(environment, &text);
                env_files.push(file.clone());
            }
            read.push(file);
            let next = environment.state_dir();
            if next != path {
                left.push(std::mem::replace(&mut path, next));
            }
        }
        left.retain(|dir| *dir != path && dir.is_dir());
        let named = environment.variable("OPENCLAW_STATE_DIR").is_some();
        Self { path, looked: environment.state_dirs(), named, environment, env_files, left }
    }

    pub(super) fn exists(&self) -> bool {
        self.path.is_dir()
    }
}
