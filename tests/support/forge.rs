//! Archives in our format that nobody ever backed up: any entries whatsoever, with an inventory, a report and a manifest
//! that agree with them to the last hash. What is refused of them is refused for what it is, not for a hash.
//!
//! Written from the format alone, without the code that it is to deceive.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::{Value, json};

pub const ROOT: &str = "20260101T000000Z-clawsnap-backup";

/// An entry, and the line of the inventory that tells it.
#[derive(Clone)]
pub struct Piece {
    /// The whole path in the archive; a directory's without its slash.
    pub path: Vec<u8>,
    pub kind: u8,
    pub contents: Vec<u8>,
    /// The whole target.
    pub link: Vec<u8>,
    pub mode: u32,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// More PAX records.
    pub records: Vec<(Vec<u8>, Vec<u8>)>,
    /// The last touch before the checksum.
    pub header: fn(&mut tar::Header),
    /// The last touch to its line; what it makes null has none.
    pub line: fn(&mut Value),
}

impl Piece {
    /// At a path below the source that is named so.
    fn new(kind: u8, path: &str) -> Self {
        Self {
            path: payload(path).into_bytes(),
            kind,
            contents: Vec::new(),
            link: Vec::new(),
            mode: 0o644,
            xattrs: Vec::new(),
            records: Vec::new(),
            header: |_| {},
            line: |_| {},
        }
    }

    pub fn dir(path: &str) -> Self {
        Self::new(b'5', path).mode(0o755)
    }

    pub fn file(path: &str, contents: impl Into<Vec<u8>>) -> Self {
        Self { contents: contents.into(), ..Self::new(b'0', path) }
    }

    /// Something of another kind.
    pub fn odd(kind: u8, path: &str) -> Self {
        Self::new(kind, path)
    }

    pub fn symlink(path: &str, target: &Path) -> Self {
        Self { link: target.as_os_str().as_bytes().to_vec(), ..Self::new(b'2', path).mode(0o777) }
    }

    /// To this path, word for word.
    pub fn hard_link(path: &str, target: impl Into<Vec<u8>>) -> Self {
        Self { link: target.into(), ..Self::new(b'1', path) }
    }

    /// A half-written record of a file.
    pub fn tail(path: &str, contents: &str) -> Self {
        Self { path: format!("{ROOT}/clawsnap/tails/{path}").into_bytes(), ..Self::file(path, contents) }
    }

    /// At this path, word for word.
    pub fn at(self, path: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), ..self }
    }

    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub fn holding(self, contents: impl Into<Vec<u8>>) -> Self {
        Self { contents: contents.into(), ..self }
    }

    pub fn xattr(mut self, name: &[u8], value: &[u8]) -> Self {
        self.xattrs.push((name.to_vec(), value.to_vec()));
        self
    }

    pub fn record(mut self, key: &str, value: &str) -> Self {
        self.records.push((key.as_bytes().to_vec(), value.as_bytes().to_vec()));
        self
    }

    pub fn header(self, header: fn(&mut tar::Header)) -> Self {
        Self { header, ..self }
    }

    /// As the inventory has it.
    pub fn told(self, line: fn(&mut Value)) -> Self {
        Self { line, ..self }
    }

    fn is_tail(&self) -> bool {
        self.path.starts_with(format!("{ROOT}/clawsnap/tails/").as_bytes())
    }

    fn below(path: &[u8]) -> &[u8] {
        path.strip_prefix(ROOT.as_bytes()).and_then(|rest| rest.strip_prefix(b"/")).unwrap_or(path)
    }

    fn line(&self) -> Value {
        let (kind, link) = match self.kind {
            b'5' => ("directory", None),
            b'2' => ("symlink", Some(&self.link[..])),
            b'1' => ("hardlink", Some(Self::below(&self.link))),
            _ if self.is_tail() => ("tail", None),
            _ => ("file", None),
        };
        let mut line = json!({
            "path": name(Self::below(&self.path)), "kind": kind, "size": self.contents.len(), "mode": self.mode,
            "uid": 0, "gid": 0, "mtime": "0.000000000", "fate": "kept",
        });
        if let Some(link) = link.filter(|link| !link.is_empty()) {
            line["link"] = name(link);
        }
        if matches!(kind, "file" | "tail") {
            line["blake3"] = hash(&self.contents).into();
        }
        if !self.xattrs.is_empty() {
            line["xattrs"] = xattrs_hash(&self.xattrs).into();
        }
        (self.line)(&mut line);
        line
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut path = self.path.clone();
        if self.kind == b'5' {
            path.push(b'/');
        }
        let mut records = Vec::new();
        let plain = |text: &[u8]| text.len() <= 100 && !text.contains(&0);
        if !plain(&path) {
            push(&mut records, b"path", &path);
        }
        if !plain(&self.link) {
            push(&mut records, b"linkpath", &self.link);
        }
        self.xattrs.iter().for_each(|(name, value)| push(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value));
        self.records.iter().for_each(|(key, value)| push(&mut records, key, value));
        if !records.is_empty() {
            append(out, b'x', b"PaxHeaders/entry", b"", 0o644, &records, |_| {});
        }
        append(out, self.kind, &path, &self.link, self.mode, &self.contents, self.header);
    }
}

/// The whole path of a source's path.
pub fn payload(path: &str) -> String {
    format!("{ROOT}/payload/posix/{path}")
}

/// One of our own files.
pub fn own(path: &str, contents: &[u8]) -> Piece {
    let comment = format!("blake3={}", hash(contents));
    Piece::file("", contents).at(format!("{ROOT}/{path}")).mode(0o600).record("comment", &comment)
}

/// A whole archive of these entries.
pub fn forge(pieces: &[Piece]) -> Vec<u8> {
    written(&[pieces, &proofs(pieces)].concat())
}

/// These entries, word for word, and the end-of-archive mark.
pub fn written(pieces: &[Piece]) -> Vec<u8> {
    let mut bytes = Vec::new();
    pieces.iter().for_each(|piece| piece.write(&mut bytes));
    bytes.extend([0; 1024]);
    bytes
}

/// Inventory, report and manifest.
pub fn proofs(pieces: &[Piece]) -> [Piece; 3] {
    let lines = pieces.iter().map(Piece::line).filter(|line| !line.is_null());
    let inventory: String = lines.map(|line| format!("{line}\n")).collect();
    let blake3 = hash(inventory.as_bytes());
    let report = json!({"createdAt": "now", "consistent": "instant", "inventoryBlake3": blake3, "losses": []});
    let manifest = json!({"schemaVersion": 1, "archiveRoot": ROOT, "clawsnap": {"inventoryBlake3": blake3}});
    [
        own("clawsnap/inventory.jsonl", inventory.as_bytes()),
        own("clawsnap/report.json", report.to_string().as_bytes()),
        own("manifest.json", manifest.to_string().as_bytes()),
    ]
}

/// Appends a block of anything: its header in our form, its contents, its padding.
fn append(
    out: &mut Vec<u8>,
    kind: u8,
    path: &[u8],
    link: &[u8],
    mode: u32,
    contents: &[u8],
    touch: fn(&mut tar::Header),
) {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(contents.len() as u64);
    let ustar = header.as_ustar_mut().expect("is ustar");
    let put = |field: &mut [u8], text: &[u8]| {
        let length = text.len().min(field.len());
        field[..length].copy_from_slice(&text[..length]);
    };
    put(&mut ustar.name, path);
    put(&mut ustar.linkname, link);
    touch(&mut header);
    header.set_cksum();
    out.extend(header.as_bytes());
    out.extend(contents);
    out.resize(out.len().next_multiple_of(512), 0);
}

/// `LENGTH KEY=VALUE\n`.
fn push(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let length = (rest + 1..).find(|length| rest + length.to_string().len() == *length).expect("there is one");
    records.extend([length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat());
}

fn name(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({"hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()}),
    }
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn xattrs_hash(xattrs: &[(Vec<u8>, Vec<u8>)]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in xattrs.iter().flat_map(|(name, value)| [name, value]) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex().to_string()
}
