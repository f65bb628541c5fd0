//! Ways in for fuzzers, and for the test that plays again what they found: bytes of anybody's making, to the readers that
//! must stand them. Not part of the library's interface.

use std::io::{self, Read};
use std::sync::Arc;

use super::database::Databases;
use super::foreign;
use super::shape::Shape;
use super::stranger::{Guest, HashingLines, Met, Stranger, parse, parsed_time, prove_unpacked};
use super::verdict::Verdict;
use crate::archive::{Line, written_time};
use crate::freeze::DatabaseOptions;
use crate::gate::{CancelFlag, Gate};
use crate::report::PathName;

const BLOCK: usize = 512;

/// Where a header has its checksum.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// Reads the bytes as an archive that is unpacked already: as they are, and with the checksums of their headers mended,
/// which a fuzzer would have to guess.
///
/// # Panics
/// Where a reader does, and where a proven archive is still proven without its last byte.
pub fn tar_reader(bytes: &[u8]) {
    read(bytes);
    read(&mended(bytes));
}

fn read(bytes: &[u8]) {
    let gate: Arc<dyn Gate> = Arc::new(CancelFlag::new());
    let mut databases = Databases::new(&DatabaseOptions::default(), &gate);
    let _proven_or_not = foreign::read(bytes, &mut databases);
    if prove_unpacked(bytes, &mut Hasty).is_ok() {
        let cut = &bytes[..bytes.len() - 1];
        assert!(prove_unpacked(cut, &mut ()).is_err(), "a cut archive is proven");
    }
}

/// Reads a little of each entry.
struct Hasty;

impl Guest for Hasty {
    fn entry(&mut self, _met: Met<'_>, contents: &mut dyn Read) -> io::Result<()> {
        contents.take(3).read_to_end(&mut Vec::new()).map(drop)
    }
}

fn mended(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(block) = at_block(&mut bytes, at) {
        let mut header = tar::Header::from_byte_slice(block).clone();
        header.set_cksum();
        block[CHECKSUM].copy_from_slice(&header.as_bytes()[CHECKSUM]);
        let size = header.entry_size().ok().and_then(|size| usize::try_from(size).ok());
        let Some(next) = size.and_then(|size| size.div_ceil(BLOCK).checked_add(1)?.checked_mul(BLOCK)) else { break };
        let Some(after) = at.checked_add(next) else { break };
        at = after;
    }
    bytes
}

/// The block at `at`, unless it is of zeros or beyond the end.
fn at_block(bytes: &mut [u8], at: usize) -> Option<&mut [u8]> {
    let block = bytes.get_mut(at..at.checked_add(BLOCK)?)?;
    block.iter().any(|&byte| byte != 0).then_some(block)
}

/// Reads the bytes as an inventory.
///
/// # Panics
/// Where a reader does, and where a line or a time does not survive being written again.
pub fn inventory(bytes: &[u8]) {
    let mut lines = HashingLines::new(bytes);
    let mut shape = Shape::default();
    while let Ok(Some(text)) = lines.next_line() {
        let Ok(line) = serde_json::from_slice::<Line>(&text) else { return };
        let again = serde_json::to_vec(&line).and_then(|text| serde_json::from_slice::<Line>(&text));
        let again = again.ok().and_then(|line| line.facts());
        assert_eq!(again, line.facts(), "{line:?}");
        if let Some(time) = parsed_time(&line.mtime) {
            assert_eq!(written_time(time), line.mtime);
        }
        if shape.line(&line).is_err() {
            return;
        }
    }
    let _whole_or_not = shape.conclude();
}

/// Reads the bytes as a manifest of ours, as one of OpenClaw's, and as a report.
///
/// # Panics
/// Where a reader does.
pub fn manifest(bytes: &[u8]) {
    let mut nobody = ();
    let mut stranger = Stranger::beside(&mut nobody);
    let _believed_or_not = stranger.manifest(&mut &bytes[..]);
    let _believed_or_not = stranger.report(&mut &bytes[..]);
    let _believed_or_not = stranger.conclude();
    let _believed_or_not = foreign::judge(bytes);
    if let Ok(report) = parse(&mut &bytes[..], u64::MAX, "report") {
        Verdict::of(PathName(Vec::new())).quote(report);
    }
}
