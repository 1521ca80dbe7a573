//! From the spec of an export to what is to be written, and where. Pure.

use jiff::Timestamp;

use crate::{
    api::{Compression, ExportData, ExportFormat, RangeSpec, S3Destination, ScriptExportSpec},
    export::{Plan, Table, columns::Columns, format::Format, range::RangeRequest, s3::S3Target},
    model::{Filter, ScriptKey, TimeRange, parse_age},
};

use super::status::Refusal;

/// Longest message in a status.
const MESSAGE: usize = 1_024;

/// What is to be written, or why it can not be. Ranges count from `start`, or from when the file was `due`, and then hold
/// nothing of later, so that each row is in the file of one time however late it is made.
pub fn plan(
    namespace: &str,
    spec: &ScriptExportSpec,
    start: Timestamp,
    due: Option<Timestamp>,
) -> Result<Plan, Refusal> {
    let script = ScriptKey::new(namespace, &spec.script_ref.name);
    if !crate::export::file::is_object_name(&script.name) {
        return Err(refuse(
            "InvalidScript",
            "spec.scriptRef.name is not the name of a CustomScript",
        ));
    }
    let table = match spec.data {
        ExportData::Runs => Table::Runs,
        ExportData::Logs => Table::Logs,
    };
    let filter = Filter {
        matching: spec.matching,
        conditions: spec.filters.clone(),
    };
    table
        .check(&filter)
        .map_err(|error| refuse("InvalidFilter", &format!("spec.filters: {error}")))?;
    let mut range = request(spec.range.as_ref())
        .resolve(due.unwrap_or(start))
        .map_err(|error| refuse("InvalidRange", &format!("spec.range: {error}")))?;
    if let Some(due) = due {
        let to = range.to.map_or(due, |to| to.min(due));
        range = TimeRange::new(range.from, Some(to))
            .map_err(|error| refuse("InvalidRange", &format!("spec.range: {error}")))?;
    }
    if let Some(ttl) = &spec.ttl_after_finished {
        parse_age(ttl).map_err(|error| refuse("InvalidTtl", &format!("spec.ttlAfterFinished: {error}")))?;
    }
    let columns = Columns::named(table, &spec.columns)
        .map_err(|error| refuse("InvalidColumns", &format!("spec.columns: {error}")))?;
    Ok(Plan {
        script,
        columns,
        range,
        filter,
        due,
    })
}

/// How it is to be written, or why it can not be.
pub fn format(spec: &ScriptExportSpec) -> Result<Format, Refusal> {
    match spec.format {
        ExportFormat::Csv => Ok(Format::Csv {
            compression: spec.compression,
            bom: spec.csv.is_some_and(|csv| csv.bom),
        }),
        ExportFormat::Parquet if spec.compression != Compression::None => Err(refuse(
            "InvalidFormat",
            "spec.compression is for CSV files; a Parquet file is compressed within: leave it out",
        )),
        ExportFormat::Parquet if spec.csv.is_some() => {
            Err(refuse("InvalidFormat", "spec.csv is for CSV files; leave it out"))
        }
        ExportFormat::Parquet => Ok(Format::Parquet),
    }
}

/// A refusal whose message fits.
pub fn refuse(reason: &'static str, message: &str) -> Refusal {
    Refusal {
        reason,
        message: short(message),
    }
}

/// Where in S3 the file goes; none for the operator's volume.
pub fn target(spec: &ScriptExportSpec) -> Result<Option<(&S3Destination, S3Target)>, Refusal> {
    let Some(s3) = &spec.destination.s3 else {
        return Ok(None);
    };
    if spec.destination.volume.is_some() {
        return Err(refuse(
            "InvalidDestination",
            "spec.destination needs exactly one of: volume, s3",
        ));
    }
    let target = S3Target {
        bucket: s3.bucket.clone(),
        prefix: s3.prefix.clone().unwrap_or_default(),
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
    };
    Ok(Some((s3, target)))
}

fn request(spec: Option<&RangeSpec>) -> RangeRequest {
    let Some(spec) = spec else {
        return RangeRequest::default();
    };
    RangeRequest {
        from: spec.from.as_ref().map(|time| time.0),
        to: spec.to.as_ref().map(|time| time.0),
        last: spec.last.clone(),
        preset: spec.preset,
    }
}

/// As much of a text as a status takes.
pub fn short(text: &str) -> String {
    text.chars().take(MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> ScriptExportSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_spec_that_can_not_be_is_refused_with_its_field() {
        let start = "2026-01-08T00:00:00Z".parse().unwrap();
        let refusal = |json| plan("shop", &spec(json), start, None).unwrap_err();
        let filter = refusal(serde_json::json!({
            "scriptRef": {"name": "pay"}, "data": "Runs",
            "filters": [{"column": "Log Level", "operator": "Equals", "values": ["Info"]}],
        }));
        assert_eq!(filter.reason, "InvalidFilter");
        assert_eq!(filter.message, "spec.filters: Log Level is not a column of runs");
        let range = refusal(serde_json::json!({
            "scriptRef": {"name": "pay"}, "data": "Runs", "range": {"last": "7y"},
        }));
        assert!(range.message.starts_with("spec.range: "), "{range:?}");
        let name = refusal(serde_json::json!({"scriptRef": {"name": "../x"}, "data": "Logs"}));
        assert_eq!(name.reason, "InvalidScript");
        let columns = refusal(serde_json::json!({
            "scriptRef": {"name": "pay"}, "data": "Logs", "columns": ["Log ID", "Pod"],
        }));
        assert_eq!(columns.reason, "InvalidColumns");
        assert!(
            columns
                .message
                .starts_with("spec.columns: \"Pod\" is not a column of logs; there are Log ID"),
            "{columns:?}"
        );
    }

    #[test]
    fn what_is_for_csv_files_alone_is_refused_for_others() {
        let of = |more: serde_json::Value| {
            let mut json = serde_json::json!({"scriptRef": {"name": "pay"}, "data": "Runs"});
            json.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            format(&spec(json))
        };
        assert_eq!(of(serde_json::json!({})), Ok(Format::default()));
        let gzip = of(serde_json::json!({"compression": "Gzip", "csv": {"bom": true}})).unwrap();
        assert_eq!(gzip.extension(), "csv.gz");
        assert_eq!(of(serde_json::json!({"format": "Parquet"})), Ok(Format::Parquet));
        for (more, field) in [
            (
                serde_json::json!({"format": "Parquet", "compression": "Zstd"}),
                "spec.compression",
            ),
            (
                serde_json::json!({"format": "Parquet", "csv": {"bom": false}}),
                "spec.csv",
            ),
        ] {
            let refusal = of(more).unwrap_err();
            assert!(refusal.message.starts_with(field), "{refusal:?}");
        }
    }

    #[test]
    fn a_spec_without_a_range_is_of_the_last_seven_days() {
        let start = "2026-01-08T00:00:00Z".parse().unwrap();
        let json = serde_json::json!({"scriptRef": {"name": "pay"}, "data": "Logs"});
        let plan = plan("shop", &spec(json), start, None).unwrap();
        assert_eq!(plan.range.from, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!(plan.table(), Table::Logs);
    }
}
