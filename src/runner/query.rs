//! Parameters of a request's address.

use axum::{extract::Query, http::Uri};

/// The last value of a parameter, if it is there.
pub fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let Query(pairs): Query<Vec<(String, String)>> = Query::try_from_uri(uri).ok()?;
    pairs
        .into_iter()
        .rev()
        .find_map(|(key, value)| (key == name).then_some(value))
}
