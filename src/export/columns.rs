//! Which columns a file has. Pure.

use super::Table;
use crate::store::RunParts;

/// A column that a file can not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// There is no such column.
    #[error("{given:?} is not a column of {table}; there are {known}")]
    Unknown {
        /// What was asked for.
        given: String,
        /// `runs` or `logs`.
        table: &'static str,
        /// Every column there is.
        known: String,
    },
    /// One is asked for twice.
    #[error("{0} is there twice")]
    Twice(&'static str),
}

/// A set of columns with their headings.
macro_rules! columns {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $heading:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $type {
            /// Every column, those of a file that asks for none in particular first.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The heading.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $heading,)+
                }
            }
        }
    };
}

columns! {
    /// A column of runs.
    RunColumn {
        /// Its id.
        RunId = "Run ID",
        /// Its status.
        Status = "Status",
        /// Version of its deployment.
        DeploymentVersion = "Deployment Version",
        /// Milliseconds from call to answer, of successful runs.
        ResponseTime = "Response Time",
        /// Function called.
        Function = "Function",
        /// When it began.
        ExecutedOn = "Executed On",
        /// Kind of caller.
        SourceType = "Source Type",
        /// Caller.
        Source = "Source",
        /// When it ended.
        FinishedOn = "Finished On",
        /// Why it failed, one word.
        Reason = "Reason",
        /// Id of its deployment.
        DeploymentId = "Deployment ID",
        /// Id of the trace that its call belongs to.
        TraceId = "Trace ID",
        /// Arguments, JSON.
        Input = "Input",
        /// Returned value, JSON.
        Output = "Output",
        /// Why it failed, text.
        Error = "Error",
        /// Stack trace of the failure.
        Traceback = "Traceback",
    }
}

columns! {
    /// A column of log lines.
    LogColumn {
        /// Its id.
        LogId = "Log ID",
        /// Its level.
        LogLevel = "Log Level",
        /// Its text.
        LogMessage = "Log Message",
        /// When it was printed.
        Timestamp = "Timestamp",
        /// The run that printed it.
        RunId = "Run ID",
        /// Further attributes of its span, JSON.
        Attributes = "Attributes",
    }
}

/// Columns of runs that a file has if nothing is said.
const RUNS: usize = 8;
/// Columns of log lines that a file has if nothing is said.
const LOGS: usize = 4;

impl RunColumn {
    /// What has to be read of a run for it.
    fn part(self) -> RunParts {
        match self {
            Self::RunId
            | Self::Status
            | Self::DeploymentVersion
            | Self::ResponseTime
            | Self::Function
            | Self::ExecutedOn
            | Self::SourceType
            | Self::Source => RunParts::Listed,
            Self::FinishedOn | Self::Reason | Self::DeploymentId | Self::TraceId => RunParts::All,
            Self::Input | Self::Output | Self::Error | Self::Traceback => RunParts::WithPayloads,
        }
    }
}

/// The columns of a file, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Columns {
    /// Of a file of runs.
    Runs(Vec<RunColumn>),
    /// Of a file of log lines.
    Logs(Vec<LogColumn>),
}

impl Columns {
    /// Those of a file that asks for none in particular.
    pub fn of(table: Table) -> Self {
        match table {
            Table::Runs => Self::Runs(RunColumn::ALL[..RUNS].to_vec()),
            Table::Logs => Self::Logs(LogColumn::ALL[..LOGS].to_vec()),
        }
    }

    /// Those with these headings, in this order; those of [`Columns::of`] where there are none.
    pub fn named<T: AsRef<str>>(table: Table, headings: &[T]) -> Result<Self, ColumnError> {
        if headings.is_empty() {
            return Ok(Self::of(table));
        }
        Ok(match table {
            Table::Runs => Self::Runs(find("runs", headings, RunColumn::ALL, RunColumn::as_str)?),
            Table::Logs => Self::Logs(find("logs", headings, LogColumn::ALL, LogColumn::as_str)?),
        })
    }

    /// What they are columns of.
    pub fn table(&self) -> Table {
        match self {
            Self::Runs(_) => Table::Runs,
            Self::Logs(_) => Table::Logs,
        }
    }

    /// The headings.
    pub fn headings(&self) -> Vec<&'static str> {
        match self {
            Self::Runs(columns) => columns.iter().map(|c| c.as_str()).collect(),
            Self::Logs(columns) => columns.iter().map(|c| c.as_str()).collect(),
        }
    }

    /// What has to be read of runs for them.
    pub fn parts(&self) -> RunParts {
        match self {
            Self::Runs(columns) => columns.iter().map(|c| c.part()).max(),
            Self::Logs(_) => None,
        }
        .unwrap_or(RunParts::Listed)
    }
}

fn find<C: Copy + PartialEq, T: AsRef<str>>(
    table: &'static str,
    headings: &[T],
    all: &[C],
    name: fn(C) -> &'static str,
) -> Result<Vec<C>, ColumnError> {
    let mut found = Vec::with_capacity(headings.len());
    for heading in headings.iter().map(AsRef::as_ref) {
        let column = all.iter().copied().find(|&column| name(column) == heading);
        let column = column.ok_or_else(|| ColumnError::Unknown {
            given: heading.chars().take(100).collect(),
            table,
            known: all.iter().map(|&c| name(c)).collect::<Vec<_>>().join(", "),
        })?;
        if found.contains(&column) {
            return Err(ColumnError::Twice(name(column)));
        }
        found.push(column);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_columns_asked_for_in_their_order() {
        let columns = Columns::named(Table::Runs, &["Error", "Run ID"]).unwrap();
        assert_eq!(columns.headings(), ["Error", "Run ID"]);
        assert_eq!(columns.parts(), RunParts::WithPayloads);
        assert_eq!(Columns::of(Table::Runs).parts(), RunParts::Listed);
        let columns = Columns::named(Table::Runs, &["Trace ID", "Run ID"]).unwrap();
        assert_eq!(columns.parts(), RunParts::All);
        let logs = Columns::named::<&str>(Table::Logs, &[]).unwrap();
        assert_eq!(
            logs.headings(),
            ["Log ID", "Log Level", "Log Message", "Timestamp"]
        );
    }

    #[test]
    fn a_column_that_there_is_not_is_named_with_those_there_are() {
        let unknown = Columns::named(Table::Logs, &["Log ID", "Status"]).unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "\"Status\" is not a column of logs; there are Log ID, Log Level, Log Message, Timestamp, Run ID, Attributes"
        );
        let twice = Columns::named(Table::Runs, &["Source", "Source"]).unwrap_err();
        assert_eq!(twice.to_string(), "Source is there twice");
    }
}
