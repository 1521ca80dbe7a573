//! Plain types that every part shares: no Kubernetes, no SQL, no I/O.
//!
//! Times are [`jiff::Timestamp`]s kept to the microsecond; durations and response times are microseconds.

mod figures;
mod filter;
mod log_line;
mod run;
mod script;
mod series;
mod time_range;

pub use figures::{Figures, VersionFigures, failure_rate_basis_points, nearest_rank};
pub use filter::{Column, Condition, Filter, FilterError, Match, Operator, milliseconds_to_micros};
pub use log_line::{LogId, LogLevel, LogLine};
pub use run::{Run, RunDetail, RunError, RunStatus, SourceType, UnknownName};
pub use script::{Deployment, DeploymentState, ScriptKey};
pub use series::{Bucket, Count, Step};
pub use time_range::{Preset, TimeRange, TimeRangeError, parse_age};
