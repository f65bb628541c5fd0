//! The parts of the process environment that planning depends on.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// The parts of the process environment that planning depends on. Tests pass their own.
#[derive(Clone, Default)]
pub struct Environment {
    /// The user's home directory.
    pub home: Option<PathBuf>,
    /// The current directory; empty where it is not known.
    pub cwd: PathBuf,
    /// The environment variables: `OPENCLAW_*`, and those that a config refers to as `${NAME}`.
    pub variables: BTreeMap<OsString, OsString>,
}

/// Values stay unsaid: an environment holds secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("home", &self.home).field("cwd", &self.cwd).finish_non_exhaustive()
    }
}

impl Environment {
    /// That of this process.
    pub fn of_process() -> Self {
        Self {
            home: std::env::home_dir(),
            cwd: std::env::current_dir().unwrap_or_default(),
            variables: std::env::vars_os().collect(),
        }
    }

    /// The same with one variable set.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// The same with one variable unset.
    #[must_use]
    pub(super) fn without(mut self, name: &str) -> Self {
        self.variables.remove(OsStr::new(name));
        self
    }

    /// Whether a variable is set, be it to nothing.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.variables.contains_key(OsStr::new(name))
    }

    /// A variable's value, trimmed; `None` where nothing is left, as OpenClaw reads its variables.
    pub(super) fn variable(&self, name: &str) -> Option<OsString> {
        let value = self.variables.get(OsStr::new(name))?;
        let trimmed = value.to_str().map_or_else(|| value.clone(), |text| text.trim().into());
        (!trimmed.is_empty()).then_some(trimmed)
    }

    /// The home directory as OpenClaw sees it: `OPENCLAW_HOME` goes before the user's own.
    pub(super) fn effective_home(&self) -> PathBuf {
        let own = self.home.as_deref().filter(|home| is_home_value(home.as_os_str()));
        let home = match self.variable("OPENCLAW_HOME").filter(|value| is_home_value(value)) {
            Some(value) => expand(Path::new(&value), own),
            None => own.map(Path::to_path_buf).unwrap_or_default(),
        };
        self.absolute(&home)
    }

    /// Where OpenClaw looks for its state directory: at `OPENCLAW_STATE_DIR`, else in the usual places.
    pub(super) fn state_dirs(&self) -> Vec<PathBuf> {
        if let Some(named) = self.variable("OPENCLAW_STATE_DIR") {
            return vec![self.user_path(&named)];
        }
        let home = self.effective_home();
        vec![home.join(".openclaw"), home.join(".clawdbot")]
    }

    /// The first of them that exists, else the one that OpenClaw would make.
    pub(super) fn state_dir(&self) -> PathBuf {
        let mut places = self.state_dirs();
        places.swap_remove(places.iter().position(|place| place.exists()).unwrap_or(0))
    }

    /// A path that the user or a config wrote: `~` is the home directory, relative is relative to the current one.
    pub(super) fn user_path(&self, written: &OsStr) -> PathBuf {
        let trimmed = written.to_str().map_or(written, |text| OsStr::new(text.trim()));
        self.absolute(&expand(Path::new(trimmed), Some(&self.effective_home())))
    }

    /// `path` made absolute and freed from `.` and `..`, without asking the filesystem.
    pub(super) fn absolute(&self, path: &Path) -> PathBuf {
        let mut absolute = PathBuf::new();
        for component in self.cwd.join(path).components() {
            match component {
                Component::CurDir => {}
                Component::ParentDir => _ = absolute.pop(),
                other => absolute.push(other),
            }
        }
        absolute
    }
}

/// Scripts that stringify a missing variable leave these words behind.
fn is_home_value(value: &OsStr) -> bool {
    !value.is_empty() && value != "undefined" && value != "null"
}

/// Replaces a leading `~` component by `home`; `~user` stays as it is.
pub(super) fn expand(path: &Path, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        Environment { home: Some("/home/u".into()), cwd: "/work".into(), variables: BTreeMap::new() }
    }

    #[test]
    fn user_paths_expand_the_tilde_and_are_relative_to_the_current_directory() {
        for (written, path) in [
            ("~", "/home/u"),
            ("~/ws", "/home/u/ws"),
            ("  ~/ws ", "/home/u/ws"),
            ("~other/ws", "/work/~other/ws"),
            ("ws/../a/./b", "/work/a/b"),
            ("/abs/../../x", "/x"),
        ] {
            assert_eq!(environment().user_path(OsStr::new(written)), Path::new(path), "{written}");
        }
    }

    #[test]
    fn openclaw_home_goes_before_home() {
        let at = |value: &str| environment().with("OPENCLAW_HOME", value).effective_home();
        assert_eq!(at("/srv/claw"), Path::new("/srv/claw"));
        assert_eq!(at("~/claw"), Path::new("/home/u/claw"));
        assert_eq!(at("undefined"), Path::new("/home/u"));
        assert_eq!(at("  "), Path::new("/home/u"));
    }

    #[test]
    fn secrets_in_the_environment_are_not_shown() {
        let shown = format!("{:?}", environment().with("API_KEY", "s3cret"));
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
