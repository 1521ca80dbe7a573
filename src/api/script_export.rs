//! `ScriptExport`: a file made of a script's runs or log lines.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NameRef;
use crate::model;

pub use crate::export::format::Compression;

/// A rule that optional fields stay as they are.
macro_rules! stays {
    ($first:literal $(, $field:literal)*) => {
        concat!(stays!(@ $first) $(, " && ", stays!(@ $field))*)
    };
    (@ $field:literal) => {
        concat!(
            "has(self.", $field, ") == has(oldSelf.", $field, ") && (!has(self.", $field, ") || self.", $field,
            " == oldSelf.", $field, ")"
        )
    };
}

/// A file made of a script's runs or log lines, once or each time a schedule says so.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "scriptscope.dev",
    version = "v1alpha1",
    kind = "ScriptExport",
    plural = "scriptexports",
    shortname = "sexport",
    category = "scriptscope",
    doc = "A file made of a script's runs or log lines, once or each time a schedule says so.",
    namespaced,
    status = "ScriptExportStatus",
    printcolumn(
        name = "PHASE",
        type_ = "string",
        json_path = ".status.phase",
        description = "Where the export stands"
    ),
    printcolumn(
        name = "ROWS",
        type_ = "integer",
        json_path = ".status.progress.rowsWritten",
        description = "Rows written so far"
    ),
    printcolumn(
        name = "SIZE",
        type_ = "integer",
        json_path = ".status.progress.bytesWritten",
        description = "Bytes written so far"
    ),
    printcolumn(
        name = "FILE",
        type_ = "string",
        json_path = ".status.artifact.fileName",
        description = "Name of the file, once complete"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.scriptRef == oldSelf.scriptRef && self.data == oldSelf.data")
    .message("spec can not be changed, but for cancelled, ttlAfterFinished and what a schedule has; create another ScriptExport"))]
#[x_kube(validation = Rule::new(stays!("range", "match", "filters", "columns", "format", "compression", "csv", "destination"))
    .message("spec can not be changed, but for cancelled, ttlAfterFinished and what a schedule has; create another ScriptExport"))]
#[x_kube(validation = Rule::new("!has(oldSelf.cancelled) || !oldSelf.cancelled || (has(self.cancelled) && self.cancelled)")
    .message("spec.cancelled can not be taken back; create another ScriptExport"))]
#[x_kube(validation = Rule::new("has(self.schedule) == has(oldSelf.schedule)")
    .message("spec.schedule can be changed, but neither added nor removed; create another ScriptExport"))]
#[x_kube(validation = Rule::new("has(self.schedule) || !(has(self.timeZone) || has(self.historyLimit) || (has(self.suspend) && self.suspend))")
    .message("spec.timeZone, spec.historyLimit and spec.suspend need spec.schedule"))]
#[x_kube(validation = Rule::new("!has(self.schedule) || !has(self.ttlAfterFinished)")
    .message("spec.ttlAfterFinished is for an export that is made once: with spec.schedule, historyLimit says how many files are kept"))]
pub struct ScriptExportSpec {
    /// The script, in the same namespace. It need not exist any more; its data is enough.
    pub script_ref: NameRef,
    /// What the rows are.
    pub data: ExportData,
    /// When they happened: `from` and `to`, or `last`, or `preset`. Default: the last 7 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<RangeSpec>,
    /// Whether all filters must hold, or any.
    #[serde(rename = "match", default)]
    pub matching: model::Match,
    /// Which rows. No filter lets every row through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub filters: Vec<model::Condition>,
    /// Which columns the file has, by their headings, in this order. Default: the eight of runs (Run ID, Status,
    /// Deployment Version, Response Time, Function, Executed On, Source Type, Source) or the four of log lines (Log ID,
    /// Log Level, Log Message, Timestamp). Further ones: Finished On, Reason, Deployment ID, Trace ID, Input, Output,
    /// Error, Traceback of runs, and Run ID, Attributes of log lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 100)))]
    pub columns: Vec<String>,
    /// How the file is written.
    #[serde(default)]
    pub format: ExportFormat,
    /// What a CSV file is compressed with. A Parquet file is compressed within, always.
    #[serde(default)]
    pub compression: Compression,
    /// What only CSV files have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<CsvOptions>,
    /// Where the file goes. Default: the operator's own volume.
    #[serde(default)]
    pub destination: Destination,
    /// Set to end the export; what was written of its file is removed. No effect on one that has ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancelled: bool,
    /// How long after its end the object is deleted, and the file with it: a number and s, m, h, d or w, such as `7d`.
    /// Default: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[1-9][0-9]{0,6}[smhdw]$"))]
    pub ttl_after_finished: Option<String>,
    /// When a file is made, each time: minute, hour, day of month, month and day of week, such as `0 6 * * 1`. Each is a
    /// ScriptExport of its own, which this one owns. Default: one file, now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub schedule: Option<String>,
    /// Where the schedule's clock hangs, such as `Europe/Berlin`. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub time_zone: Option<String>,
    /// How many files of a schedule are kept; earlier ones are deleted, but not from S3. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub history_limit: Option<i32>,
    /// Set to make no file when one is due. The last one that was missed is made once this is taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExportData {
    /// Runs, into `<script>_runs_data.csv`.
    Runs,
    /// Log lines, into `<script>_logs_data.csv`.
    Logs,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExportFormat {
    /// Text, one record a line.
    #[default]
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// What only CSV files have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CsvOptions {
    /// Whether the file begins with a byte order mark, by which Excel knows that it is UTF-8.
    #[serde(default)]
    pub bom: bool,
}

/// A range of time, in exactly one of three ways.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.from) || has(self.to), has(self.last), has(self.preset)].filter(x, x).size() == 1")
    .message("spec.range needs exactly one of: from and to, last, preset"))]
#[x_kube(validation = Rule::new("!has(self.from) || !has(self.to) || self.from < self.to")
    .message("spec.range.from must be before spec.range.to"))]
pub struct RangeSpec {
    /// First moment, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// First moment after it, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Time>,
    /// The time before now: a number and s, m, h, d or w, such as `7d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[1-9][0-9]{0,6}[smhdw]$"))]
    pub last: Option<String>,
    /// A named range, in days of UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<model::Preset>,
}

/// Where the file goes: to one place.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = Rule::new("!(has(self.volume) && has(self.s3))")
    .message("spec.destination needs exactly one of: volume, s3"))]
pub struct Destination {
    /// The operator's own volume; the file is downloaded from the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeDestination>,
    /// A bucket of Amazon S3, or of a server that speaks as it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Destination>,
}

/// A bucket of Amazon S3, or of a server that speaks as it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Destination {
    /// Name of the bucket. It must exist.
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$"))]
    pub bucket: String,
    /// Folder in the bucket, such as `audit/2026`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub prefix: Option<String>,
    /// Where the server is, such as `https://minio.example.com`; without TLS only where this says `http://`. Default: Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^@?#]+$"))]
    pub endpoint: Option<String>,
    /// Region of the bucket. Default: us-east-1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,
    /// Secret in the same namespace with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for some, AWS_SESSION_TOKEN; with
    /// ca.crt (PEM), the server is trusted by these authorities instead of the system's.
    pub credentials_secret_ref: NameRef,
}

/// The operator's own volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VolumeDestination {}

/// What the operator found.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ScriptExportStatus {
    /// Pending, Running, Succeeded, Failed or Cancelled; of a schedule Scheduled, Suspended, Failed or Cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ExportPhase>,
    /// Generation of the object that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ExportProgress>,
    /// The file, once complete; of a schedule its last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// Complete, Failed or Cancelled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// How it went, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Of a schedule: the last time for which a file was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// Of a schedule: when the next file is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
    /// Of a schedule: its files that are kept, newest first, and its last failures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<ScheduledExport>,
}

/// What came of a time of a schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledExport {
    /// Name of its ScriptExport.
    pub name: String,
    /// When it was due.
    pub time: Time,
    /// Where it stands.
    pub phase: ExportPhase,
    /// How it went, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its file, once complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
}

/// Where an export stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)] // described at `ScriptExportStatus::phase`
pub enum ExportPhase {
    Pending,
    Running,
    Succeeded,
    Failed,
    Cancelled,
    Scheduled,
    Suspended,
}

/// How far an export is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExportProgress {
    /// Rows written.
    pub rows_written: i64,
    /// Rows that there will be, about; none where counting them would take too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_estimated: Option<i64>,
    /// Bytes written.
    pub bytes_written: i64,
}

/// A complete file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Its name.
    pub file_name: String,
    /// Path on the operator's web server, to be opened with a token; or `s3://bucket/key`.
    pub url: String,
    /// Its size in bytes.
    pub bytes: i64,
    /// SHA-256 of its content, hexadecimal.
    pub sha256: String,
    /// Rows, without the header.
    pub rows: i64,
}
