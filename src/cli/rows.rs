//! Pages of rows put together, and cells out of their JSON. Pure but for the asking.

use serde_json::{Value, json};

use super::{api::Api, error::CliError};
use crate::operator::custom_script::display::duration;

/// Rows of a page at most.
const PAGE: usize = 1_000;

/// Rows of as many pages as were needed.
pub struct Rows {
    /// The rows, newest first.
    pub items: Vec<Value>,
    /// The first page without its rows.
    pub page: Value,
    /// Whether there are more rows than asked for.
    pub more: bool,
}

impl Rows {
    /// At most `limit` rows.
    pub async fn get(
        api: &Api,
        path: &str,
        query: &[(&'static str, String)],
        limit: usize,
    ) -> Result<Self, CliError> {
        let mut items = Vec::new();
        let mut first = None;
        let mut cursor = None;
        loop {
            let mut query = query.to_vec();
            query.push(("limit", (limit - items.len()).min(PAGE).to_string()));
            query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let mut page = api.json(path, &query).await?;
            if let Value::Array(rows) = page["items"].take() {
                items.extend(rows);
            }
            cursor = page["next"].as_str().map(str::to_owned);
            first.get_or_insert(page);
            if cursor.is_none() || items.len() >= limit {
                break;
            }
        }
        Ok(Self {
            items,
            page: first.unwrap_or_default(),
            more: cursor.is_some(),
        })
    }

    /// As one answer.
    pub fn json(&self) -> Value {
        json!({ "items": self.items, "range": self.page["range"], "more": self.more })
    }

    /// Says on standard error that there are more rows.
    pub fn tell_more(&self) {
        if self.more {
            anstream::eprintln!(
                "({} shown; there are more: raise --limit, or export them)",
                self.items.len()
            );
        }
    }
}

/// A member as text; empty where there is none.
pub fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_default()
}

/// A whole number as text; empty where there is none.
pub fn number(row: &Value, key: &str) -> String {
    row[key].as_i64().map(|n| n.to_string()).unwrap_or_default()
}

/// Microseconds for people; empty where there are none.
pub fn micros(row: &Value, key: &str) -> String {
    row[key].as_i64().map(duration).unwrap_or_default()
}

/// A time to the millisecond.
pub fn time(row: &Value, key: &str) -> String {
    with_decimals(row, key, 3)
}

/// A time as exported files have it: with six decimals always.
pub fn exported_time(row: &Value, key: &str) -> String {
    with_decimals(row, key, 6)
}

fn with_decimals(row: &Value, key: &str, decimals: usize) -> String {
    let parsed = text(row, key).parse::<jiff::Timestamp>();
    parsed.map_or_else(|_| text(row, key).to_owned(), |time| format!("{time:.decimals$}"))
}
