//! The sessions in an agent's database, as OpenClaw has kept them since 2026.8: each record a row, plain or packed.
//!
//! Whoever made the database may mean harm, so what is asked for is asked of tables alone, whose definitions are as
//! expected, and nothing is read that is larger than a record may be.

use std::io;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::source::Trouble;
use crate::lines::LONGEST_RECORD;
use crate::transcript::{State, Stored, Summary};

/// The table of records.
const RECORDS: &str = "transcript_events";

/// Sessions that were deleted or begun anew, each whole in one row.
const ENDED: &str = "session_transcript_archives";

/// Sessions that were packed away, perhaps into files.
const PACKED: &str = "session_transcript_cold_archives";

/// Bytes of a session's id that are read.
const LONGEST_ID: usize = 200;

/// Bytes of a session that was packed as a whole.
const LONGEST_SESSION: u64 = 1 << 30;

/// Tells of all of them.
pub(super) fn tell(copy: &Connection, tell: &mut dyn FnMut(Stored) -> io::Result<()>) -> Result<(), Trouble> {
    copy.execute_batch("PRAGMA trusted_schema=OFF; PRAGMA query_only=ON")?;
    if !has(copy, RECORDS, &["session_id", "seq", "event_json", "created_at"])? {
        return Err(Trouble::Broken("its tables are not those of a version that is known".to_owned()));
    }
    current(copy, tell)?;
    if has(copy, ENDED, &["session_id", "reason", "encoding", "archive_blob", "created_at"])? {
        ended(copy, tell)?;
    }
    if has(copy, PACKED, &["session_id", "event_count", "archived_at"])? {
        packed(copy, tell)?;
    }
    Ok(())
}

/// Whether there is a plain table of this name with these columns.
fn has(copy: &Connection, table: &str, columns: &[&str]) -> rusqlite::Result<bool> {
    let plain = "SELECT count(*) FROM sqlite_schema WHERE type='table' AND name=?1 AND sql LIKE 'CREATE TABLE%'";
    let is_there = copy.query_row(plain, [table], |row| row.get::<_, i64>(0))? == 1;
    let mut found = copy.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let found = found.query_map([table], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    Ok(is_there && columns.iter().all(|column| found.iter().any(|name| name == column)))
}

/// The sessions whose records are rows, which come sorted by session.
fn current(copy: &Connection, tell: &mut dyn FnMut(Stored) -> io::Result<()>) -> Result<(), Trouble> {
    let packed = if has(copy, RECORDS, &["event_zstd"])? { "event_zstd" } else { "NULL" };
    let within = |column: &str| format!("CASE WHEN octet_length({column}) <= {LONGEST_RECORD} THEN {column} END");
    let query = format!(
        "SELECT session_id, {}, {}, created_at FROM {RECORDS} ORDER BY session_id, seq",
        within("event_json"),
        within(packed)
    );
    let mut statement = copy.prepare(&query)?;
    let mut rows = statement.query([])?;
    let mut session: Option<Stored> = None;
    while let Some(row) = rows.next()? {
        let id = text(row, 0)?;
        if session.as_ref().is_none_or(|session| session.id != id) {
            let done = session.replace(Stored { id, ..Stored::default() });
            done.map_or(Ok(()), &mut *tell)?;
        }
        if let Some(session) = &mut session {
            take(&mut session.summary, row)?;
        }
    }
    Ok(session.map_or(Ok(()), tell)?)
}

/// One record, in either form.
fn take(summary: &mut Summary, row: &Row<'_>) -> rusqlite::Result<()> {
    let before = summary.last;
    match (row.get_ref(1)?, row.get_ref(2)?) {
        (ValueRef::Text(plain) | ValueRef::Blob(plain), _) => summary.take(plain),
        (_, ValueRef::Blob(packed)) => {
            let most = usize::try_from(LONGEST_RECORD).unwrap_or(usize::MAX);
            match zstd::bulk::decompress(packed, most) {
                Ok(plain) => summary.take(&plain),
                Err(_) => summary.unparsed += 1,
            }
        }
        _ => summary.unparsed += 1,
    }
    if summary.last == before {
        summary.last = before.max(number(row, 3)?);
    }
    Ok(())
}

fn ended(copy: &Connection, tell: &mut dyn FnMut(Stored) -> io::Result<()>) -> Result<(), Trouble> {
    let query = format!("SELECT session_id, reason, encoding, archive_blob, created_at FROM {ENDED}");
    let mut statement = copy.prepare(&query)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let read = match (text(row, 2)?.as_str(), row.get_ref(3)?) {
            ("identity", ValueRef::Blob(lines)) => Summary::read(lines),
            ("zstd", ValueRef::Blob(packed)) => unpacked(packed),
            (other, _) => Err(io::Error::other(format!("unknown encoding {other}"))),
        };
        let mut summary = read.unwrap_or_else(|_| Summary { unparsed: 1, ..Summary::default() });
        summary.last = summary.last.or(number(row, 4)?);
        tell(Stored { id: text(row, 0)?, state: State::of(text(row, 1)?.as_bytes()), summary })?;
    }
    Ok(())
}

fn unpacked(packed: &[u8]) -> io::Result<Summary> {
    Summary::read(io::Read::take(zstd::stream::read::Decoder::new(packed)?, LONGEST_SESSION))
}

/// Of these only the table's own words are told.
fn packed(copy: &Connection, tell: &mut dyn FnMut(Stored) -> io::Result<()>) -> Result<(), Trouble> {
    let mut statement = copy.prepare(&format!("SELECT session_id, event_count, archived_at FROM {PACKED}"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let records = number(row, 1)?.and_then(|count| u64::try_from(count).ok()).unwrap_or_default();
        let summary = Summary { records, last: number(row, 2)?, ..Summary::default() };
        tell(Stored { id: text(row, 0)?, state: State::Archived, summary })?;
    }
    Ok(())
}

/// What should be a text, cut; nothing where it is something else.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) => String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST_ID)]).into_owned(),
        _ => String::new(),
    })
}

/// What should be a number.
fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<i64>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Integer(number) => Some(number),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(sql: &str) -> Connection {
        let database = Connection::open_in_memory().expect("opens");
        database.execute_batch(sql).expect("is SQL");
        database
    }

    fn told(database: &Connection) -> Result<Vec<Stored>, Trouble> {
        let mut all = Vec::new();
        tell(database, &mut |stored| {
            all.push(stored);
            Ok(())
        })?;
        Ok(all)
    }

    const TABLE: &str = "CREATE TABLE transcript_events (session_id TEXT, seq INTEGER, event_json TEXT, \
        created_at INTEGER, event_zstd BLOB, PRIMARY KEY (session_id, seq));";

    #[test]
    fn records_are_read_plain_and_packed_and_what_is_neither_is_counted() {
        let database = database(TABLE);
        let said = |text: &str| format!(r#"{{"type":"message","message":{{"role":"user","content":"{text}"}}}}"#);
        let packed = zstd::bulk::compress(said("packed").as_bytes(), 3).expect("packs");
        let mut insert = database.prepare("INSERT INTO transcript_events VALUES (?1,?2,?3,?4,?5)").expect("is SQL");
        insert.execute((&"b", 1, said("second"), 20, None::<Vec<u8>>)).expect("inserts");
        insert.execute((&"b", 0, None::<String>, 10, Some(packed))).expect("inserts");
        insert.execute((&"a", 0, said("plain"), 5, None::<Vec<u8>>)).expect("inserts");
        insert.execute((&"a", 1, "{", 7, None::<Vec<u8>>)).expect("inserts");
        insert.execute((&"a", 2, None::<String>, "late", Some(b"no zstd".to_vec()))).expect("inserts");
        let found = told(&database).expect("is known");
        let short: Vec<_> = found
            .iter()
            .map(|s| {
                (&*s.id, s.summary.records, s.summary.unparsed, s.summary.first_message.as_deref(), s.summary.last)
            })
            .collect();
        assert_eq!(short, [("a", 1, 2, Some("plain"), Some(7)), ("b", 2, 0, Some("packed"), Some(20))]);
    }

    #[test]
    fn sessions_that_were_ended_or_packed_away_are_told_as_such() {
        let database = database(&format!(
            "{TABLE} CREATE TABLE session_transcript_archives (session_id TEXT, reason TEXT, encoding TEXT, \
             archive_blob BLOB, created_at INTEGER);
             INSERT INTO session_transcript_archives VALUES
                ('c', 'reset', 'identity', CAST('{{\"type\":\"session\"}}' AS BLOB), 9), ('d', 'deleted', 'zstd', x'00', 8);
             CREATE TABLE session_transcript_cold_archives (session_id TEXT, event_count INTEGER, archived_at INTEGER);
             INSERT INTO session_transcript_cold_archives VALUES ('e', 12, 7);"
        ));
        let found = told(&database).expect("is known");
        let short: Vec<_> = found.iter().map(|s| (&*s.id, s.state, s.summary.records, s.summary.unparsed)).collect();
        assert_eq!(short, [("c", State::Reset, 1, 0), ("d", State::Deleted, 0, 1), ("e", State::Archived, 12, 0)]);
    }

    #[test]
    fn tables_of_no_version_that_is_known_are_said_to_be_that() {
        for sql in [
            "CREATE TABLE transcript_events (id)",
            "CREATE TABLE sessions (id)",
            "CREATE VIEW transcript_events AS SELECT 1 session_id, 1 seq, 1 event_json, 1 created_at",
        ] {
            let words = told(&database(sql)).expect_err(sql).to_string();
            assert!(words.contains("version"), "{sql}: {words}");
        }
    }
}
