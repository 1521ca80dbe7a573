//! Plain types that every part shares: no Kubernetes, no SQL, no I/O.
//!
//! Text is UTF-8; what is not was replaced by U+FFFD when it was read. A message and its attributes may hold NUL, as they
//! were printed. Ids, names, reasons and the trace context never do (it became U+FFFD), since text columns of some
//! databases can not hold it; payloads and errors are JSON, which writes it as an escape.
//!
//! Times are [`jiff::Timestamp`]s kept to the microsecond; durations and response times are microseconds.

mod figures;
mod filter;
mod log_gap;
mod log_line;
mod run;
mod script;
mod series;
mod time_range;

pub use figures::{Figures, VersionFigures, failure_rate_basis_points, nearest_rank};
pub use filter::{Column, Condition, Filter, FilterError, Match, Operator, milliseconds_to_micros};
pub use log_gap::LogGap;
pub use log_line::{LogId, LogLevel, LogLine};
pub use run::{Run, RunDetail, RunError, RunStatus, SourceType, UnknownName};
pub use script::{Change, DeployedSpec, Deployment, DeploymentState, KeptSpec, ScriptKey};
pub use series::{Bucket, Count, Step};
pub use time_range::{Preset, TimeRange, TimeRangeError, parse_age};
