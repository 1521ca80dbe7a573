//! Filters, as they come in a request's query string and in a `ScriptExport`.

use http::Uri;
use scriptscope::{
    api::ScriptExportSpec,
    export::Table,
    model::Filter,
    query::{LineFilter, Sql, push_runs_where},
    web::filter_of_query,
};
use sqlx::Sqlite;

/// An input's first byte says what the rest is: `?` a query string, anything else a `ScriptExport`'s spec.
pub fn check(data: &[u8]) {
    let Some((&form, rest)) = data.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(rest) else {
        return;
    };
    for table in [Table::Runs, Table::Logs] {
        let filter = match form {
            b'?' => query(text, table),
            _ => export(text, table),
        };
        if let Some(filter) = filter {
            usable(&filter, table);
        }
    }
}

fn query(text: &str, table: Table) -> Option<Filter> {
    let uri: Uri = format!("/x?{text}").parse().ok()?;
    match filter_of_query(&uri, table) {
        Ok(filter) => Some(filter),
        Err(error) => {
            assert!(error.field.is_some(), "an error names what is wrong");
            None
        }
    }
}

fn export(text: &str, table: Table) -> Option<Filter> {
    let spec: ScriptExportSpec = serde_json::from_str(text).ok()?;
    let filter = Filter {
        matching: spec.matching,
        conditions: spec.filters,
    };
    table.check(&filter).is_ok().then_some(filter)
}

/// What was let in can be applied, and survives being written down and sent.
fn usable(filter: &Filter, table: Table) {
    let written = serde_json::to_string(filter).expect("a filter can be written");
    assert_eq!(
        &serde_json::from_str::<Filter>(&written).expect("and read"),
        filter
    );
    let encoded = written
        .bytes()
        .fold(String::new(), |text, b| text + &format!("%{b:02x}"));
    // A request is bounded; the API server bounds an export.
    let fits = filter.conditions.len() <= 32 && filter.conditions.iter().all(|c| c.values.len() <= 50);
    if fits && encoded.len() < 60_000 {
        assert_eq!(query(&format!("filter={encoded}"), table).as_ref(), Some(filter));
    }
    match table {
        Table::Logs => {
            let lines = LineFilter::new(filter).expect("a checked filter is applied");
            let _ = lines.levels();
        }
        Table::Runs => {
            let mut sql = Sql::<Sqlite>::new("SELECT 1 FROM runs r");
            push_runs_where(&mut sql, 1, &(0..i64::MAX), filter, None).expect("a checked filter is applied");
            let text = sql.text();
            assert!(filter.conditions.is_empty() || text.contains(" AND ("));
        }
    }
}
