//! The layout of the database, and how an older one becomes it.
//!
//! Invariant: an older database is copied whole before anything in it changes, and changes in one transaction.
//! Layouts: 1, rows without checksums; 2, each row with its checksum, and a total of each table.
//! Spec: docs/sync.md#damage.

use std::fs;
use std::path::Path;

use rusqlite::params;
use weft_agent_core::store::Table;

use super::sum::{self, Total, Totals, is_long};
use super::{Store, StoreError, kept, named};

/// Version of the SQL layout; `PRAGMA user_version`.
const SCHEMA_VERSION: i64 = 2;

impl Store {
    /// Makes what is there a database of this layout.
    pub(super) fn migrate(&self, dir: &Path) -> Result<(), StoreError> {
        let failed = |error: rusqlite::Error| named(&self.path, &error);
        let found: i64 = self.db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        if found > SCHEMA_VERSION {
            return Err(StoreError::Newer { path: self.path.clone(), found });
        }
        let tables: i64 = self
            .db
            .query_row("SELECT count(*) FROM sqlite_master WHERE type = 'table'", [], |row| row.get(0))
            .map_err(failed)?;
        let expected = if found == 0 { 0 } else { Table::ALL.len() as i64 };
        if tables < expected || found == 0 && (tables > 0 || kept::file(dir).exists() && self.was_used(dir)) {
            let what = "tables are missing".to_owned();
            return Err(StoreError::Damaged { path: self.path.clone(), what });
        }
        if found == SCHEMA_VERSION {
            return Ok(());
        }
        if found > 0 {
            let copy = dir.join(format!("replica-layout-{found}.db"));
            let _absent = fs::remove_file(&copy);
            self.db.execute("VACUUM INTO ?1", params![copy.to_string_lossy()]).map_err(failed)?;
        }
        let done = self.db.execute_batch("BEGIN IMMEDIATE").and_then(|()| self.write_layout(found > 0));
        if done.is_err() {
            let _rolled_back = self.db.execute_batch("ROLLBACK");
        }
        done.map_err(failed)
    }

    /// Whether the folder says that this database was in use before; a repair begins with none.
    fn was_used(&self, dir: &Path) -> bool {
        dir.join("open").exists()
    }

    fn write_layout(&self, has_rows: bool) -> rusqlite::Result<()> {
        let mut totals = Totals::default();
        self.db.execute_batch(sum::CREATE)?;
        for table in Table::ALL {
            let name = table.name();
            let shape = if is_long(table) { "" } else { "WITHOUT ROWID" };
            if has_rows {
                self.db.execute_batch(&format!("ALTER TABLE {name} RENAME TO old_{name}"))?;
            }
            // The checksum stands before the value: a long value need not be read for it.
            self.db.execute_batch(&format!(
                "CREATE TABLE {name} (key BLOB PRIMARY KEY NOT NULL, sum INTEGER NOT NULL, value BLOB NOT NULL) {shape};"
            ))?;
            let mut total = Total::default();
            if has_rows {
                let mut statement = self.db.prepare(&format!("SELECT key, value FROM old_{name}"))?;
                let mut rows = statement.query([])?;
                while let Some(row) = rows.next()? {
                    let (key, value): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
                    let sum = sum::of_row(table, &key, &value);
                    total.add(sum);
                    self.db
                        .prepare_cached(&format!("INSERT INTO {name} (key, sum, value) VALUES (?1, ?2, ?3)"))?
                        .execute(params![key, sum, value])?;
                }
                drop(rows);
                drop(statement);
                self.db.flush_prepared_statement_cache();
                self.db.execute_batch(&format!("DROP TABLE old_{name}"))?;
            }
            totals.set(table, total);
        }
        totals.write(&self.db)?;
        self.db.execute_batch(&format!("PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"))
    }
}
