//! Oracles for contents: did this name ever hold these bytes?

use std::path::Path;

use super::log::{Change, Incarnation, Log, Version};

/// A reader can see a write half done, but only by whole pages.
const PAGE: usize = 4096;

impl Log {
    /// Ok if the name held these bytes at some moment. For `*.jsonl` the bytes may be cut at a record boundary.
    pub fn bytes_ok(&self, path: &Path, bytes: &[u8]) -> Result<(), String> {
        self.bytes_ok_between(path, bytes, 0, u64::MAX)
    }

    /// Ok if the name held these bytes at some moment from `from_ns` to `to_ns`.
    pub fn bytes_ok_between(&self, path: &Path, bytes: &[u8], from_ns: u64, to_ns: u64) -> Result<(), String> {
        let lives = self.lives_of(path);
        if lives.is_empty() {
            return Err(format!("{}: the log knows no such name", path.display()));
        }
        let records = is_jsonl(path);
        let held = lives.iter().filter(|life| life.touches(from_ns, to_ns)).any(|life| {
            let window = Window {
                from: from_ns.max(life.born.before),
                to: to_ns.min(life.gone.map_or(u64::MAX, |gone| gone.after)),
            };
            self.incarnations[life.incarnation].held(bytes, window, records)
        });
        match held {
            true => Ok(()),
            false => Err(self.stranger(path, bytes)),
        }
    }

    fn stranger(&self, path: &Path, bytes: &[u8]) -> String {
        let known: Vec<String> =
            self.lives_of(path).iter().map(|life| self.incarnations[life.incarnation].told(bytes)).collect();
        format!("{}: never held these {} bytes in that time; {}", path.display(), bytes.len(), known.join("; "))
    }
}

/// Ok if every line is JSON by itself, the last one too.
pub fn no_torn_line(bytes: &[u8]) -> Result<(), String> {
    let lines = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if lines.is_empty() {
        return Ok(());
    }
    for (number, line) in lines.split(|&byte| byte == b'\n').enumerate() {
        serde_json::from_slice::<serde_json::Value>(line)
            .map_err(|error| format!("line {} ({} bytes) is no record: {error}", number + 1, line.len()))?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Window {
    from: u64,
    to: u64,
}

impl Incarnation {
    /// Whether some content that it can have had inside the window is these bytes.
    fn held(&self, bytes: &[u8], window: Window, records: bool) -> bool {
        self.versions.iter().enumerate().any(|(number, version)| {
            let next = self.versions.get(number + 1);
            let begun = version.span.before <= window.to;
            let over = next.is_some_and(|next| next.span.after < window.from);
            begun && !over && self.was(version, bytes, records)
                || self.was_on_the_way(version, next, bytes, window, records)
        })
    }

    fn was(&self, version: &Version, bytes: &[u8], records: bool) -> bool {
        let whole = &self.generations[version.generation][..version.len];
        bytes == whole || records && bytes == &whole[..last_boundary(whole)]
    }

    /// A prefix between two versions: a write is not atomic for who reads meanwhile.
    fn was_on_the_way(
        &self,
        version: &Version,
        next: Option<&Version>,
        bytes: &[u8],
        window: Window,
        records: bool,
    ) -> bool {
        let Some(next) = next.filter(|next| next.change == Change::Append) else {
            return false;
        };
        let going_on = next.span.before <= window.to && next.span.after >= window.from;
        let text = &self.generations[version.generation];
        let between = version.len < bytes.len() && bytes.len() < next.len;
        going_on && between && text.starts_with(bytes) && may_end(text, bytes.len(), records)
    }

    fn told(&self, bytes: &[u8]) -> String {
        let same = self.generations.iter().map(|text| text.iter().zip(bytes).take_while(|(a, b)| a == b).count()).max();
        format!(
            "inode {} had {} versions in {} generations, ends with {} bytes, and shares the first {}",
            self.inode,
            self.versions.len(),
            self.generations.len(),
            self.content().len(),
            same.unwrap_or(0)
        )
    }
}

/// Records end at a newline, or just before one: a last record without its newline is whole as well.
fn may_end(text: &[u8], len: usize, records: bool) -> bool {
    match records {
        true => text[len - 1] == b'\n' || text.get(len) == Some(&b'\n'),
        false => len.is_multiple_of(PAGE),
    }
}

/// The length up to and with the last newline.
fn last_boundary(text: &[u8]) -> usize {
    text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1)
}

fn is_jsonl(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "jsonl")
}
