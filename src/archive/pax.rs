//! PAX records: `LENGTH KEY=VALUE\n`, for everything that a ustar header cannot say.
//!
//! Written and read here by their lengths, as POSIX has it: the tar crate's reader takes them line by line, and a
//! name or an attribute may hold a newline.

use std::collections::HashSet;

use crate::entry::Xattrs;

/// The prefix of PAX keys for extended attributes, as GNU tar, bsdtar and star write it.
const XATTR_PREFIX: &str = "SCHILY.xattr.";

/// Most records of one entry: the kernel lists the names of attributes in 64 KiB, and each takes two bytes there.
const MOST_RECORDS: usize = 33_000;

/// The records of one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    /// The value of `key`; the last one counts.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.iter().rev().find(|(found, _)| found == key).map(|(_, value)| &value[..])
    }

    /// Whether there are only such as we write, each once: what nobody reads, nobody would miss.
    pub(crate) fn are_ours(&self) -> bool {
        const KNOWN: [&[u8]; 7] = [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"comment"];
        let is_xattr = |key: &[u8]| key.strip_prefix(XATTR_PREFIX.as_bytes()).is_some_and(is_escaped_name);
        let mut met = HashSet::new();
        self.0.iter().all(|(key, value)| match key.as_slice() {
            b"hdrcharset" => value == b"BINARY" && met.insert(&**key),
            key => (KNOWN.contains(&key) || is_xattr(key)) && met.insert(key),
        })
    }

    /// The extended attributes among them.
    pub(crate) fn xattrs(&self) -> Xattrs {
        let named = self.0.iter().filter_map(|(key, value)| Some((key.strip_prefix(XATTR_PREFIX.as_bytes())?, value)));
        named.map(|(name, value)| (unescape_keyword(name), value.clone())).collect()
    }
}

/// Appends a record.
pub(crate) fn push(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    records.extend_from_slice(&record(key, value));
}

/// The key of an extended attribute.
pub(crate) fn xattr_key(name: &[u8]) -> Vec<u8> {
    [XATTR_PREFIX.as_bytes(), &keyword(name)].concat()
}

/// Reads records; `None` if they are malformed, not in the one form that [`push`] gives them, or more than there can be.
pub(crate) fn parse(text: &[u8]) -> Option<Records> {
    let mut records = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if records.len() == MOST_RECORDS {
            return None;
        }
        let space = rest.iter().position(|&c| c == b' ')?;
        let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
        let body = rest.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = body.iter().position(|&c| c == b'=')?;
        if record(&body[..equals], &body[equals + 1..]) != rest[..length] {
            return None;
        }
        records.push((body[..equals].to_vec(), body[equals + 1..].to_vec()));
        rest = &rest[length..];
    }
    Some(Records(records))
}

/// An attribute's name as part of a PAX key, in which `=` ends the key: GNU tar's escapes.
fn keyword(name: &[u8]) -> Vec<u8> {
    let escape = |&c: &u8| match c {
        b'%' => b"%25".to_vec(),
        b'=' => b"%3D".to_vec(),
        other => vec![other],
    };
    name.iter().flat_map(escape).collect()
}

/// Whether this is the one way to write a name that an attribute can have.
fn is_escaped_name(key: &[u8]) -> bool {
    !key.is_empty() && !key.contains(&0) && keyword(&unescape_keyword(key)) == key
}

/// The inverse of [`keyword`].
fn unescape_keyword(key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(key.len());
    let mut rest = key;
    while let Some((&first, after)) = rest.split_first() {
        let (byte, left) = match rest {
            [b'%', b'2', b'5', left @ ..] => (b'%', left),
            [b'%', b'3', b'D', left @ ..] => (b'=', left),
            _ => (first, after),
        };
        name.push(byte);
        rest = left;
    }
    name
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + digits(rest);
    if digits(length) > digits(rest) {
        length = rest + digits(length);
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn digits(n: usize) -> usize {
    n.to_string().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_the_digits_of_its_own_length() {
        for n in [0, 1, 2, 3, 80, 88, 89, 90, 91, 980, 985, 990, 995, 9_985, 9_990] {
            let record = record(b"path", &vec![b'x'; n]);
            let text = String::from_utf8(record.clone()).expect("ASCII");
            let told: usize = text.split(' ').next().expect("a length").parse().expect("a number");
            assert_eq!(told, record.len(), "value of {n} bytes");
        }
    }

    #[test]
    fn values_may_hold_anything_and_names_too() {
        let mut text = Vec::new();
        push(&mut text, b"path", b"a\nb=c");
        push(&mut text, &xattr_key(b"user.a=b%"), b"\0\xff\n");
        let records = parse(&text).expect("parses");
        assert_eq!(records.get(b"path"), Some(&b"a\nb=c"[..]));
        assert_eq!(records.xattrs(), vec![(b"user.a=b%".to_vec(), b"\0\xff\n".to_vec())]);
    }

    #[test]
    fn a_record_has_one_form() {
        for text in ["+9 uid=1\n", "010 uid=1\n", "09 uid=1\n", "9 uid=1\n", "8 uid=1\n8 "] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        let ours = |text: &str| parse(text.as_bytes()).map(|records| records.are_ours());
        assert_eq!(ours("8 uid=1\n8 gid=1\n"), Some(true));
        assert_eq!(ours("8 uid=1\n8 uid=1\n"), Some(false), "twice");
        assert_eq!(ours("18 SCHILY.xattr.=\n"), Some(false), "no name");
        assert_eq!(ours("19 SCHILY.xattr.%=\n"), Some(false), "not as we escape it");
        assert_eq!(ours("21 SCHILY.xattr.%25=\n"), Some(true));
    }

    /// Five bytes of a record took forty times as many in memory, before anybody looked whether we write such.
    #[test]
    fn more_records_than_an_entry_can_have_are_refused_as_they_are_met() {
        let mut text = Vec::new();
        (0..MOST_RECORDS).for_each(|_| push(&mut text, b"k", b""));
        assert!(parse(&text).is_some());
        push(&mut text, b"k", b"");
        assert_eq!(parse(&text), None);
    }

    proptest::proptest! {
        #[test]
        fn malformed_records_are_refused_without_a_panic(text: Vec<u8>) {
            let _refused_or_not = parse(&text);
        }

        #[test]
        fn what_was_pushed_is_parsed(value: Vec<u8>) {
            let mut text = Vec::new();
            push(&mut text, b"key", &value);
            let records = parse(&text).expect("parses");
            proptest::prop_assert_eq!(records.get(b"key"), Some(&value[..]));
        }
    }
}
