//! OpenClaw's config: JSON5 that may include other files and refer to the environment.
//!
//! Nothing in here fails: what cannot be read or understood becomes a [`Warning`], and the rest is taken as it is. A
//! broken config must not stop a backup, least of all the one that is made because the config broke.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::environment::Environment;
use super::root::canonical_prefix;
use super::warning::Warning;

const INCLUDE: &str = "$include";
/// OpenClaw's own limits.
const MAX_DEPTH: usize = 10;
const MAX_BYTES: u64 = 2 << 20;

/// OpenClaw's config as far as it could be understood.
#[derive(Debug, Default)]
pub(super) struct Config {
    /// The values, with included files merged in. Null where there is no config, or a broken one.
    pub(super) value: Value,
    /// The files that it was read from, canonical.
    pub(super) files: Vec<PathBuf>,
}

/// Reads the config at `path`, if there is one.
pub(super) fn read(path: &Path, environment: &Environment, warnings: &mut Vec<Warning>) -> Config {
    let mut reader = Reader { allowed: allowed_roots(path, environment), files: Vec::new(), warnings };
    let value = if path.symlink_metadata().is_ok() { reader.load(path, 0) } else { Some(Value::Null) };
    Config { value: value.unwrap_or_default(), files: reader.files }
}

/// The directories in which included files may lie.
fn allowed_roots(path: &Path, environment: &Environment) -> Vec<PathBuf> {
    let listed = environment.variable("OPENCLAW_INCLUDE_ROOTS").unwrap_or_default();
    let listed = std::env::split_paths(&listed).filter(|root| !root.as_os_str().is_empty());
    let named = listed.map(|root| environment.user_path(root.as_os_str()));
    named.chain(path.parent().map(Path::to_path_buf)).map(|root| canonical_prefix(&root)).collect()
}

struct Reader<'a> {
    allowed: Vec<PathBuf>,
    files: Vec<PathBuf>,
    warnings: &'a mut Vec<Warning>,
}

impl Reader<'_> {
    fn load(&mut self, path: &Path, depth: usize) -> Option<Value> {
        let real = canonical_prefix(path);
        // One that cannot be read is still to be archived.
        if real.is_file() && !self.files.contains(&real) {
            self.files.push(real);
        }
        match parse(path) {
            Ok(value) => Some(self.resolve(value, path, depth)),
            Err(cause) => {
                self.warnings.push(Warning::BrokenConfig { path: path.to_path_buf(), cause });
                None
            }
        }
    }

    fn resolve(&mut self, value: Value, file: &Path, depth: usize) -> Value {
        match value {
            Value::Array(items) => items.into_iter().map(|item| self.resolve(item, file, depth)).collect(),
            Value::Object(fields) => self.resolve_object(fields, file, depth),
            other => other,
        }
    }

    /// The included files first, then what stands beside them, which wins.
    fn resolve_object(&mut self, mut fields: Map<String, Value>, file: &Path, depth: usize) -> Value {
        let Some(include) = fields.remove(INCLUDE) else {
            return fields.into_iter().map(|(key, value)| (key, self.resolve(value, file, depth))).collect();
        };
        let mut merged = Value::Object(Map::new());
        for name in included_names(&include) {
            if let Some(value) = self.include(name, file, depth + 1) {
                merged = merge(merged, value);
            }
        }
        if fields.is_empty() {
            return merged;
        }
        let beside = self.resolve_object(fields, file, depth);
        merge(merged, beside)
    }

    fn include(&mut self, name: &str, file: &Path, depth: usize) -> Option<Value> {
        let path = file.parent().unwrap_or(file).join(name);
        let real = canonical_prefix(&path);
        let cause = if depth > MAX_DEPTH {
            "it is included more than ten levels deep, or by itself"
        } else if !self.allowed.iter().any(|root| real.starts_with(root)) {
            "it is included from outside the config's directory"
        } else {
            return self.load(&path, depth);
        };
        self.warnings.push(Warning::BrokenConfig { path, cause: cause.to_owned() });
        None
    }
}

fn included_names(include: &Value) -> Vec<&str> {
    match include {
        Value::String(name) => vec![name.as_str()],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn parse(path: &Path) -> Result<Value, String> {
    let metadata = path.metadata().map_err(|error| error.to_string())?;
    // A FIFO would make the read wait for ever.
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if metadata.len() > MAX_BYTES {
        return Err("it is larger than 2 MiB".to_owned());
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        Err(_) if nests_too_deep(text) => Err("it is nested too deep".to_owned()),
        Err(_) => json5::from_str(text).map_err(|error| error.to_string()),
    }
}

/// The JSON5 parser recurses without a limit: a hostile file must not overflow the stack.
fn nests_too_deep(text: &str) -> bool {
    let mut depth = 0_i32;
    text.bytes().any(|c| {
        depth += i32::from(matches!(c, b'[' | b'{')) - i32::from(matches!(c, b']' | b'}'));
        depth > 256
    })
}

/// Objects merge, arrays join, anything else is replaced.
fn merge(below: Value, above: Value) -> Value {
    match (below, above) {
        (Value::Object(mut below), Value::Object(above)) => {
            for (key, value) in above {
                let merged = match below.remove(&key) {
                    Some(old) => merge(old, value),
                    None => value,
                };
                below.insert(key, merged);
            }
            Value::Object(below)
        }
        (Value::Array(mut below), Value::Array(above)) => {
            below.extend(above);
            Value::Array(below)
        }
        (_, above) => above,
    }
}

/// `text` with every `${NAME}` replaced by what the environment says; `$${NAME}` is a literal one.
///
/// # Errors
/// The first name that stands for nothing here: whoever wrote it has it set somewhere else.
pub(super) fn substitute(text: &str, environment: &Environment) -> Result<String, String> {
    let value = |name: &str| {
        let value = environment.variables.get(OsStr::new(name)).and_then(|value| value.to_str());
        value.filter(|value| !value.is_empty()).ok_or(name.to_owned())
    };
    let (mut done, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        let Some((name, after)) = reference(from) else {
            done.push_str(before);
            done.push_str("${");
            rest = &from[2..];
            continue;
        };
        let whole = &from[..from.len() - after.len()];
        match before.strip_suffix('$') {
            Some(before) => done.extend([before, whole]),
            None => done.extend([before, value(name)?]),
        }
        rest = after;
    }
    Ok(done + rest)
}

/// The name in a leading `${NAME}`, and what follows it.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.strip_prefix("${")?.split_once('}')?;
    let mut chars = name.bytes();
    let starts = matches!(chars.next()?, b'A'..=b'Z' | b'_');
    (starts && chars.all(|c| matches!(c, b'A'..=b'Z' | b'0'..=b'9' | b'_'))).then_some((name, after))
}

/// The release line of the version that last wrote the config, as year and month; `None` where it does not tell.
pub(super) fn version(config: &Value) -> Option<(u32, u32)> {
    let version = config["meta"]["lastTouchedVersion"].as_str()?;
    let mut parts = version.trim().split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    Some((parts.next()?, parts.next()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_in(dir: &Path, name: &str) -> (Config, Vec<Warning>) {
        let mut warnings = Vec::new();
        let config = read(&dir.join(name), &Environment::default(), &mut warnings);
        (config, warnings)
    }

    fn dir_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temporary directory");
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        dir
    }

    #[test]
    fn json5_is_understood() {
        let dir = dir_with(&[("c", "\u{feff}// a comment\n{ agents: { list: [{id: 'a',}], }, }")]);
        let (config, warnings) = read_in(dir.path(), "c");
        assert_eq!(config.value, json!({"agents": {"list": [{"id": "a"}]}}));
        assert!(warnings.is_empty());
    }

    #[test]
    fn a_broken_config_is_a_warning_and_still_a_file_to_archive() {
        for broken in ["{", "", "{a:1}}", "\u{0}", &"[".repeat(256), &"[".repeat(100_000)] {
            let dir = dir_with(&[("c", broken)]);
            let (config, warnings) = read_in(dir.path(), "c");
            assert!(config.value.is_null());
            assert_eq!((warnings.len(), config.files.len()), (1, 1));
        }
    }

    #[test]
    fn no_config_is_no_trouble() {
        let dir = dir_with(&[]);
        let (config, warnings) = read_in(dir.path(), "c");
        assert!(config.files.is_empty() && warnings.is_empty());
    }

    #[test]
    fn included_files_are_merged_below_what_stands_beside_them() {
        let dir = dir_with(&[
            ("c", r#"{"$include": ["a", "b"], "x": 1, "n": {"$include": "a"}}"#),
            ("a", r#"{"x": 2, "y": 2, "l": [1]}"#),
            ("b", r#"{"y": 3, "l": [2]}"#),
        ]);
        let (config, warnings) = read_in(dir.path(), "c");
        assert_eq!(config.value, json!({"x": 1, "y": 3, "l": [1, 2], "n": {"x": 2, "y": 2, "l": [1]}}));
        assert_eq!((config.files.len(), warnings.len()), (3, 0));
    }

    #[test]
    fn an_include_that_is_missing_circular_or_outside_is_a_warning() {
        let outside = dir_with(&[("o", "{}")]);
        let escape = format!(r#"{{"$include": "{}"}}"#, outside.path().join("o").display());
        for text in [r#"{"$include": "none"}"#, r#"{"$include": "c"}"#, &escape] {
            let dir = dir_with(&[("c", text)]);
            let (config, warnings) = read_in(dir.path(), "c");
            assert_eq!((config.value, warnings.len()), (json!({}), 1), "{text}");
        }
    }

    #[test]
    fn references_to_the_environment_are_replaced() {
        let environment = Environment::default().with("A", "process").with("B", "b b").with("EMPTY", "");
        for (text, expected) in [
            ("${A}/${B}", "process/b b"),
            ("$${A}/$${NONE}", "${A}/${NONE}"),
            ("${A}/${a}/${", "process/${a}/${"),
            ("plain $A", "plain $A"),
        ] {
            assert_eq!(substitute(text, &environment).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(substitute("${A}/${NONE}/${NEITHER}", &environment), Err("NONE".to_owned()));
        assert_eq!(substitute("${EMPTY}", &environment), Err("EMPTY".to_owned()));
    }
}
