//! Checksums: of each row, keyed by its table and key, and of each table.
//!
//! Invariant: a row is read only with the value that was written under that key, and the rows of a table are those that
//! were written, no more and no fewer. Why both: a flipped bit is seen in the row; a row that is gone is seen in nothing
//! but the sum of all. Spec: docs/sync.md#damage.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};
use weft_agent_core::damage::Damaged;
use weft_agent_core::store::Table;

/// Checksum of a row: the first 8 bytes of a BLAKE3 hash. It guards against accidents, not against people.
pub(super) fn of_row(table: Table, key: &[u8], value: &[u8]) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[table as u8]).update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
    first(&hasher)
}

fn first(hasher: &blake3::Hasher) -> i64 {
    let hash = hasher.finalize();
    i64::from_le_bytes(hash.as_bytes().first_chunk().copied().unwrap_or_default())
}

/// How many rows a table has, and the sum of their checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Total {
    pub(super) rows: i64,
    pub(super) sum: i64,
}

impl Total {
    pub(super) fn add(&mut self, row: i64) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(row);
    }
    pub(super) fn remove(&mut self, row: i64) {
        self.rows -= 1;
        self.sum = self.sum.wrapping_sub(row);
    }
    fn check(self, table: Table) -> i64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(table.name().as_bytes()).update(&self.rows.to_le_bytes()).update(&self.sum.to_le_bytes());
        first(&hasher)
    }
}

/// The totals of all tables, and which of them are not written yet.
#[derive(Debug, Default)]
pub(super) struct Totals {
    known: BTreeMap<Table, Total>,
    dirty: Vec<Table>,
}

/// SQL that makes their table.
pub(super) const CREATE: &str = "CREATE TABLE IF NOT EXISTS totals (name TEXT PRIMARY KEY NOT NULL, count INTEGER NOT \
                                 NULL, sum INTEGER NOT NULL, own INTEGER NOT NULL) WITHOUT ROWID;";

impl Totals {
    /// As stored; a table whose total is missing or damaged has none.
    pub(super) fn read(db: &Connection) -> rusqlite::Result<Totals> {
        let mut totals = Totals::default();
        let mut statement = db.prepare("SELECT count, sum, own FROM totals WHERE name = ?1")?;
        for table in Table::ALL {
            let row = statement
                .query_row(params![table.name()], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?)))
                .optional();
            let row = match row {
                Err(rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::FromSqlConversionFailure(..)) => None,
                row => row?,
            };
            if let Some((rows, sum, own)) = row
                && (Total { rows, sum }).check(table) == own
            {
                totals.known.insert(table, Total { rows, sum });
            }
        }
        Ok(totals)
    }
    pub(super) fn of(&self, table: Table) -> Option<Total> {
        self.known.get(&table).copied()
    }
    pub(super) fn set(&mut self, table: Table, total: Total) {
        self.known.insert(table, total);
        self.touch(table);
    }
    /// A row was replaced.
    pub(super) fn replace(&mut self, table: Table, old: Option<i64>, new: Option<i64>) {
        let total = self.known.entry(table).or_default();
        old.into_iter().for_each(|old| total.remove(old));
        new.into_iter().for_each(|new| total.add(new));
        self.touch(table);
    }
    fn touch(&mut self, table: Table) {
        if !self.dirty.contains(&table) {
            self.dirty.push(table);
        }
    }
    /// Writes what changed.
    pub(super) fn write(&mut self, db: &Connection) -> rusqlite::Result<()> {
        for table in std::mem::take(&mut self.dirty) {
            let total = self.known.get(&table).copied().unwrap_or_default();
            db.prepare_cached("INSERT OR REPLACE INTO totals (name, count, sum, own) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![table.name(), total.rows, total.sum, total.check(table)])?;
        }
        Ok(())
    }
}

/// What looking at a whole table found.
pub(super) struct Looked {
    pub(super) total: Total,
    pub(super) damaged: Vec<Vec<u8>>,
    /// A row whose key cannot be read: nothing can name it.
    nameless: bool,
    /// Sum over the keys, as the rows have them.
    keys: i64,
}

/// Looks at every row of a table. `values`: reads and checks the values too.
pub(super) fn look(db: &Connection, table: Table, values: bool) -> rusqlite::Result<Looked> {
    let columns = if values { "key, sum, value" } else { "key, sum" };
    let mut statement = db.prepare(&format!("SELECT {columns} FROM {} NOT INDEXED", table.name()))?;
    let mut rows = statement.query([])?;
    let mut looked = Looked { total: Total::default(), damaged: Vec::new(), nameless: false, keys: 0 };
    while let Some(row) = rows.next()? {
        let key = row.get_ref(0)?.as_blob().ok();
        let sum = row.get_ref(1)?.as_i64().ok();
        let value = if values { row.get_ref(2)?.as_blob().ok() } else { Some(&[][..]) };
        let Some(key) = key else {
            looked.nameless = true;
            continue;
        };
        looked.keys = looked.keys.wrapping_add(of_row(table, key, &[]));
        looked.total.add(sum.unwrap_or_default());
        let whole = sum.zip(value).is_some_and(|(sum, value)| !values || of_row(table, key, value) == sum);
        if !whole {
            looked.damaged.push(key.to_vec());
        }
    }
    Ok(looked)
}

/// Compares every row with its checksum, and every table with its total. Values of the two tables that hold most bytes are
/// read only if `deep`; the others are read at every start anyway.
pub(super) fn verify(db: &Connection, totals: &Totals, deep: bool) -> rusqlite::Result<Vec<Damaged>> {
    let mut found = Vec::new();
    for table in Table::ALL {
        let values = deep || ![Table::Envelopes, Table::Pieces].contains(&table);
        let looked = look(db, table, values)?;
        let counted = totals.of(table);
        let explained = !looked.damaged.is_empty() && counted.is_some_and(|total| total.rows == looked.total.rows);
        if looked.nameless || counted != Some(looked.total) && !explained {
            found.push(Damaged { table, key: None });
        }
        found.extend(looked.damaged.into_iter().map(|key| Damaged { table, key: Some(key) }));
        if is_long(table) && keys_by_index(db, table)? != looked.keys {
            // The index is made of the rows, so it can be made of them again.
            db.execute_batch(&format!("REINDEX {}", table.name()))?;
        }
    }
    Ok(found)
}

/// Short rows live in the index itself; long values would make its pages sparse.
pub(super) fn is_long(table: Table) -> bool {
    [Table::Envelopes, Table::Outbox, Table::Documents, Table::Pieces].contains(&table)
}

fn keys_by_index(db: &Connection, table: Table) -> rusqlite::Result<i64> {
    let mut statement = db.prepare(&format!("SELECT key FROM {} ORDER BY key", table.name()))?;
    let mut rows = statement.query([])?;
    let mut keys = 0i64;
    while let Some(row) = rows.next()? {
        keys = keys.wrapping_add(of_row(table, row.get_ref(0)?.as_blob().unwrap_or_default(), &[]));
    }
    Ok(keys)
}
