//! What is said when clawsnap itself is wrong.

use std::io;

use color_eyre::config::{HookBuilder, Theme};

use super::terminal;

/// The first thing that whoever sees a panic wants to know.
const WHAT_NOW: &str = "This is a bug in clawsnap. An archive that has its final name is whole all the same, and the next \
                        run on this source removes what this one may have left of its own.";

/// Has panics explained.
pub(super) fn install() {
    let theme = if terminal::paint(&io::stderr()).colours { Theme::dark() } else { Theme::new() };
    let hooks = HookBuilder::default().theme(theme).display_env_section(false).panic_section(WHAT_NOW);
    // Only a second installation fails, and then the first explains.
    let _installed = hooks.install();
}
