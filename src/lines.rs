//! Where a line-oriented file may be cut: at a record boundary.
//!
//! A session that is being written may end in the middle of a record. What stands after its last newline is kept if
//! it is a JSON value by itself; otherwise it is a half-written tail, which is set aside in the archive.

use std::io;

/// How far from the end a newline is looked for. A file without one there is not made of lines.
pub(crate) const LONGEST_RECORD: u64 = 16 * 1024 * 1024;

const STEP: u64 = 64 * 1024;

/// Whether a file of this name is made of JSON lines: `x.jsonl`, and what OpenClaw renames it to, as in
/// `x.jsonl.deleted.1700000000`.
pub(crate) fn is_lines(name: &[u8]) -> bool {
    const ENDING: &[u8] = b".jsonl";
    name.ends_with(ENDING)
        || name.windows(ENDING.len() + 1).any(|part| part.starts_with(ENDING) && part.ends_with(b"."))
}

/// The half-written tail of the first `length` bytes; `None` if they end at a record boundary.
///
/// `read_at` fills a buffer from an offset and tells how much it could.
///
/// # Errors
/// Those of `read_at`.
pub(crate) fn torn_tail(
    length: u64,
    mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<Option<Vec<u8>>> {
    let mut tail: Vec<u8> = Vec::new();
    let mut start = length;
    while start > 0 && length - start < LONGEST_RECORD {
        let step = STEP.min(start);
        start -= step;
        let mut chunk = vec![0; usize::try_from(step).unwrap_or(0)];
        if read_at(&mut chunk, start)? < chunk.len() {
            // Shorter than it was: the exact reader will find that out, and its fate says it.
            return Ok(None);
        }
        let newline = chunk.iter().rposition(|&c| c == b'\n');
        tail.splice(0..0, chunk.drain(newline.map_or(0, |at| at + 1)..));
        if newline.is_some() {
            return Ok(half_written(tail));
        }
    }
    Ok(if start == 0 { half_written(tail) } else { None })
}

fn half_written(tail: Vec<u8>) -> Option<Vec<u8>> {
    let whole = tail.is_empty() || serde_json::from_slice::<serde::de::IgnoredAny>(&tail).is_ok();
    (!whole).then_some(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail_of(bytes: &[u8]) -> Option<Vec<u8>> {
        torn_tail(bytes.len() as u64, |buffer, offset| {
            let from = usize::try_from(offset).expect("small");
            buffer.copy_from_slice(&bytes[from..from + buffer.len()]);
            Ok(buffer.len())
        })
        .expect("reads")
    }

    #[test]
    fn a_half_written_record_is_cut_and_a_whole_one_is_not() {
        assert_eq!(tail_of(b""), None);
        assert_eq!(tail_of(b"{\"a\":1}\n"), None);
        assert_eq!(tail_of(b"{\"a\":1}\n{\"b\":2}"), None, "whole, though its newline is missing");
        assert_eq!(tail_of(b"{\"a\":1}\n{\"b\":"), Some(b"{\"b\":".to_vec()));
        assert_eq!(tail_of(b"{\"b\":"), Some(b"{\"b\":".to_vec()), "the very first record");
        assert_eq!(tail_of(b"\n\n"), None);
    }

    #[test]
    fn a_record_longer_than_one_step_is_found_whole() {
        let long = [b"{\"a\":1}\n\"".to_vec(), vec![b'x'; 200_000]].concat();
        assert_eq!(tail_of(&long).map(|tail| tail.len()), Some(200_001));
        let whole = [&long[..], b"\""].concat();
        assert_eq!(tail_of(&whole), None);
    }

    #[test]
    fn sessions_are_known_by_name_also_after_openclaw_renamed_them() {
        for (name, lines) in [
            ("a.jsonl", true),
            ("a.jsonl.deleted.1700000000", true),
            ("a.jsonl.reset.2026-01-01", true),
            ("a.checkpoint.b.jsonl", true),
            ("sessions.json", false),
            ("a.jsonlx", false),
        ] {
            assert_eq!(is_lines(name.as_bytes()), lines, "{name}");
        }
    }
}
