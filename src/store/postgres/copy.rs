//! Rows in COPY's binary format: many rows at the least cost to the server.

use sqlx::PgConnection;

use crate::store::StoreError;

/// Signature, flags, and the length of an empty extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
const NULL: [u8; 4] = (-1_i32).to_be_bytes();
/// What is sent to the server at once.
const MESSAGE: usize = 1 << 20;

/// Rows for one table.
pub struct Rows {
    columns: i16,
    bytes: Vec<u8>,
}

impl Rows {
    /// None yet, of so many columns.
    pub fn new(columns: i16) -> Self {
        Self {
            columns,
            bytes: HEADER.to_vec(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER.len()
    }

    /// Begins a row; its fields follow, in the order of the columns.
    pub fn begin(&mut self) -> &mut Self {
        self.bytes.extend(self.columns.to_be_bytes());
        self
    }

    /// A BIGINT.
    pub fn bigint(&mut self, value: impl Into<Option<i64>>) -> &mut Self {
        match value.into() {
            Some(value) => self.field(&value.to_be_bytes()),
            None => self.null(),
        }
    }

    /// A SMALLINT.
    pub fn smallint(&mut self, value: u8) -> &mut Self {
        self.field(&i16::from(value).to_be_bytes())
    }

    /// A SMALLINT of any sign.
    pub fn small(&mut self, value: i16) -> &mut Self {
        self.field(&value.to_be_bytes())
    }

    /// A BOOLEAN.
    pub fn flag(&mut self, value: bool) -> &mut Self {
        self.field(&[u8::from(value)])
    }

    /// A TEXT or a BYTEA.
    pub fn bytes<'a>(&mut self, value: impl Into<Option<&'a [u8]>>) -> &mut Self {
        match value.into() {
            Some(value) => self.field(value),
            None => self.null(),
        }
    }

    fn field(&mut self, value: &[u8]) -> &mut Self {
        // Nothing is that long: an agent's whole batch is not.
        let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
        self.bytes.extend(length.to_be_bytes());
        self.bytes.extend_from_slice(value);
        self
    }

    fn null(&mut self) -> &mut Self {
        self.bytes.extend(NULL);
        self
    }

    /// Sends them; `copy` is the statement that takes them.
    pub async fn send(mut self, connection: &mut PgConnection, copy: &str) -> Result<(), StoreError> {
        self.bytes.extend(TRAILER);
        let mut sink = connection.copy_in_raw(copy).await?;
        for message in self.bytes.chunks(MESSAGE) {
            sink.send(message).await?;
        }
        sink.finish().await?;
        Ok(())
    }
}
