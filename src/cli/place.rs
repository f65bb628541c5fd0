//! Where an archive goes if only half of that was said.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::plan::{Environment, Request, plan};

/// The current directory; the home directory where the current one lies in a source, as OpenClaw does.
pub(super) fn default_directory(request: &Request) -> PathBuf {
    let Environment { home, cwd, .. } = &request.environment;
    match home {
        Some(home) if cwd.as_os_str().is_empty() || in_a_source(cwd, request) => home.clone(),
        _ => cwd.clone(),
    }
}

/// A request without a plan has no sources to lie in; the run itself will say what is wrong with it.
fn in_a_source(directory: &Path, request: &Request) -> bool {
    let canonical = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    plan(request).is_ok_and(|plan| plan.roots.iter().any(|root| canonical.starts_with(&root.path)))
}

/// A leading `~` as the shell would have taken it, had it seen it: cron lines quote, and `--output=~/x` hides it.
pub(super) fn with_home(path: &Path, home: Option<&Path>) -> PathBuf {
    let Some(home) = home else { return path.to_owned() };
    // By bytes, since a trailing slash says that a directory is meant, and `Path` would lose it.
    match path.as_os_str().as_bytes() {
        b"~" => home.to_owned(),
        [b'~', b'/', below @ ..] => home.join(OsStr::from_bytes(below)),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(source: &Path, cwd: &Path) -> Request {
        let environment = Environment { home: Some("/home/u".into()), cwd: cwd.to_owned(), ..Environment::default() };
        Request { sources: vec![source.to_owned()], ..Request::new(environment) }
    }

    #[test]
    fn an_archive_goes_to_the_current_directory_unless_that_is_backed_up() {
        let source = tempfile::tempdir().expect("makes a directory");
        let source = source.path().canonicalize().expect("resolves");
        let below = source.join("below");
        std::fs::create_dir(&below).expect("makes a directory");
        for (cwd, expected) in [
            ("/", "/"),
            (source.to_str().expect("text"), "/home/u"),
            (below.to_str().expect("text"), "/home/u"),
            ("", "/home/u"),
        ] {
            assert_eq!(default_directory(&request(&source, Path::new(cwd))), Path::new(expected), "{cwd}");
        }
        assert_eq!(default_directory(&request(Path::new("/no/such"), &below)), below);
    }

    #[test]
    fn a_tilde_that_the_shell_did_not_see_is_the_home_directory() {
        for (typed, meant) in
            [("~", "/h"), ("~/x/y/", "/h/x/y/"), ("~other/x", "~other/x"), ("a/~/b", "a/~/b"), ("/x", "/x")]
        {
            assert_eq!(with_home(Path::new(typed), Some(Path::new("/h"))).as_os_str(), meant);
        }
        assert_eq!(with_home(Path::new("~/x"), None), Path::new("~/x"));
    }
}
