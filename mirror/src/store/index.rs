//! Ordered rows on disk, and the only file that names sled. What the rows mean stands in `ledger.rs`; who may call
//! stands in `keeper.rs`. sled 0.34 is disposable here: any error it reports makes the caller build a new one beside it.

use std::collections::BTreeMap;
use std::path::Path;

/// A row: at most about 256 bytes together, so that sled never makes a blob file of one.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// The rows failed; the text is the database's own.
#[derive(Debug, thiserror::Error)]
#[error("index: {0}")]
pub(crate) struct IndexError(pub(crate) String);

/// One change of a batch: `None` removes.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

/// An ordered map that keeps its rows. Batches are atomic; only [`Rows::flush`] promises durability.
pub(crate) trait Rows: Send {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;
    fn write(&mut self, batch: Vec<Change>) -> Result<(), IndexError>;
    /// The first `limit` rows whose keys start so, in key order.
    fn scan(&self, prefix: &[u8], limit: usize) -> Result<Vec<Row>, IndexError>;
    fn flush(&mut self) -> Result<(), IndexError>;
}

pub(crate) struct SledRows(sled::Db);

impl SledRows {
    pub(crate) fn open(path: &Path) -> Result<Self, IndexError> {
        let config = sled::Config::new()
            .path(path)
            .mode(sled::Mode::LowSpace)
            .cache_capacity(8 << 20)
            .use_compression(false)
            .flush_every_ms(Some(1000));
        Ok(Self(config.open()?))
    }
}

impl Rows for SledRows {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.0.get(key)?.map(|value| value.to_vec()))
    }

    fn write(&mut self, batch: Vec<Change>) -> Result<(), IndexError> {
        let mut rows = sled::Batch::default();
        for (key, value) in batch {
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(key),
            }
        }
        Ok(self.0.apply_batch(rows)?)
    }

    fn scan(&self, prefix: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        let rows = self.0.scan_prefix(prefix).take(limit);
        rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(IndexError::from))
            .collect()
    }

    fn flush(&mut self) -> Result<(), IndexError> {
        Ok(self.0.flush().map(drop)?)
    }
}

/// Rows in memory: the model that sled is tested against, and what an agent works with while its disk holds no index.
#[derive(Default)]
pub(crate) struct MemoryRows(BTreeMap<Vec<u8>, Vec<u8>>);

impl Rows for MemoryRows {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.0.get(key).cloned())
    }

    fn write(&mut self, batch: Vec<Change>) -> Result<(), IndexError> {
        for (key, value) in batch {
            match value {
                Some(value) => drop(self.0.insert(key, value)),
                None => drop(self.0.remove(&key)),
            }
        }
        Ok(())
    }

    fn scan(&self, prefix: &[u8], limit: usize) -> Result<Vec<Row>, IndexError> {
        let from = self.0.range(prefix.to_vec()..);
        Ok(from
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn flush(&mut self) -> Result<(), IndexError> {
        Ok(())
    }
}

impl From<sled::Error> for IndexError {
    fn from(error: sled::Error) -> Self {
        Self(error.to_string())
    }
}
