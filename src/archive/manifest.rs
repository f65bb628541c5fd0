//! `manifest.json`: exactly what `openclaw backup verify` and `restore` demand, and the last entry of the archive.

use serde::Serialize;

use crate::plan::{AssetKind, Plan};
use crate::relpath::walk_order;
use crate::report::{AgentRoot, ExternalLink, PathName, Report};

/// OpenClaw refuses a manifest that is longer.
pub(crate) const LONGEST: usize = 1024 * 1024;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    created_at: &'a str,
    archive_root: &'a str,
    runtime_version: String,
    platform: &'static str,
    options: Options,
    paths: Paths<'a>,
    assets: Vec<Asset<'a>>,
    skipped: Vec<Skipped<'a>>,
    external_symbolic_links: &'a [ExternalLink],
    clawsnap: Ours<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Options {
    include_workspace: bool,
    only_config: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Paths<'a> {
    state_dir: PathName,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_path: Option<PathName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oauth_dir: Option<PathName>,
    workspace_dirs: Vec<PathName>,
    #[serde(skip_serializing_if = "<[AgentRoot]>::is_empty")]
    agent_roots: &'a [AgentRoot],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Asset<'a> {
    kind: &'a str,
    source_path: &'a PathName,
    archive_path: &'a PathName,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Skipped<'a> {
    kind: &'a str,
    source_path: &'a PathName,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    covered_by: Option<&'a PathName>,
}

/// What other readers ignore.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ours<'a> {
    version: &'a str,
    format_version: u32,
    inventory: &'a str,
    inventory_blake3: &'a str,
}

/// The directory that OpenClaw measures symbolic links against: the state directory, or the first source where there
/// is none.
pub(crate) fn boundary(plan: &Plan) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let state = plan.openclaw.as_ref().map(|openclaw| openclaw.state_dir.as_os_str().as_bytes().to_vec());
    let named = plan.roots.iter().find(|root| root.kind == AssetKind::State).or(plan.roots.first());
    let named = named.map(|root| root.path.as_os_str().as_bytes().to_vec());
    state.or(named).unwrap_or_default()
}

/// Whether a symbolic link leads out of `boundary`, judged by its text alone, as OpenClaw does.
pub(crate) fn is_external(boundary: &[u8], link: &[u8], target: &[u8]) -> bool {
    let inside: Vec<&[u8]> = boundary.split(|&c| c == b'/').filter(|name| !name.is_empty()).collect();
    let resolved = if target.starts_with(b"/") {
        resolve(Vec::new(), target, true)
    } else {
        let parent = link.iter().rposition(|&c| c == b'/').map_or(&b""[..], |at| &link[..at]);
        resolve(parent.split(|&c| c == b'/').filter(|name| !name.is_empty()).collect(), target, false)
    };
    !resolved.is_some_and(|resolved| resolved.starts_with(&inside))
}

/// The components of `target`, seen from the directory with the components `from`.
///
/// `None` where it climbs above the root: an absolute path stays at the root then, but a relative one is judged by its
/// place in the archive, and that lies deeper.
fn resolve<'a>(from: Vec<&'a [u8]>, target: &'a [u8], absolute: bool) -> Option<Vec<&'a [u8]>> {
    let mut components = from;
    for component in target.split(|&c| c == b'/') {
        match component {
            b"" | b"." => {}
            b".." if components.pop().is_some() || absolute => {}
            b".." => return None,
            name => components.push(name),
        }
    }
    Some(components)
}

/// The text of the manifest.
///
/// # Errors
/// Those of the serializer.
pub(crate) fn text(plan: &Plan, report: &Report, inventory: &str) -> serde_json::Result<Vec<u8>> {
    let name = |path: &std::path::Path| PathName::from(path);
    let openclaw = plan.openclaw.as_ref();
    let mut workspaces: Vec<PathName> =
        openclaw.map(|o| o.workspace_dirs.iter().map(|dir| name(dir)).collect()).unwrap_or_default();
    workspaces.sort_by(|a, b| walk_order(&a.0, &b.0));
    let manifest = Manifest {
        schema_version: 1,
        created_at: &report.created_at,
        archive_root: &report.archive_root,
        runtime_version: format!("clawsnap {}", report.version),
        platform: "linux",
        options: Options { include_workspace: report.include_workspace, only_config: report.only_config },
        paths: Paths {
            state_dir: PathName(boundary(plan)),
            config_path: openclaw.map(|o| name(&o.config_path)),
            oauth_dir: openclaw.map(|o| name(&o.oauth_dir)),
            workspace_dirs: workspaces,
            agent_roots: &report.agent_roots,
        },
        assets: report
            .assets
            .iter()
            .map(|asset| Asset { kind: asset.kind, source_path: &asset.source_path, archive_path: &asset.archive_path })
            .collect(),
        skipped: report
            .skipped
            .iter()
            .map(|skipped| Skipped {
                kind: &skipped.kind,
                source_path: &skipped.source_path,
                reason: &skipped.reason,
                covered_by: skipped.covered_by.as_ref(),
            })
            .collect(),
        external_symbolic_links: &report.external_symbolic_links,
        clawsnap: Ours {
            version: report.version,
            format_version: report.format_version,
            inventory: "clawsnap/inventory.jsonl",
            inventory_blake3: inventory,
        },
    };
    let mut text = serde_json::to_vec_pretty(&manifest)?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_external_when_its_text_leads_out_of_the_state_directory() {
        for (link, target, external) in [
            ("/s/a", "b", false),
            ("/s/d/a", "../b", false),
            ("/s/d/a", "../../b", true),
            ("/s/a", "/s/b", false),
            ("/s/a", "/s", false),
            ("/s/a", "/sb", true),
            ("/s/a", "/etc/hostname", true),
            ("/s/a", "/s/../t", true),
            ("/w/a", "b", true),
            ("/s/a", "./x//y/..", false),
            ("/s/a", "../s/b", false),
            ("/s/a", "../../../s/b", true),
            ("/s/a", "/../s/b", false),
        ] {
            assert_eq!(is_external(b"/s", link.as_bytes(), target.as_bytes()), external, "{link} -> {target}");
        }
    }
}
