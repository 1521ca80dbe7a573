//! What can go wrong, in words that name what was given and what to do.

use std::{io, process::ExitCode};

/// Why a verb could not be done.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line can not be meant so.
    #[error("{0}")]
    Usage(String),
    /// It could not be done.
    #[error("{0}")]
    Failed(String),
    /// The kubeconfig can not be used.
    #[error("the kubeconfig can not be used: {0}; see kubectl config view")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The API server said no, or nothing.
    #[error("{}", of_kube(.0))]
    Kube(#[from] kube::Error),
    /// The operator's answer is an error.
    #[error("{}", of_operator(.message, .field.as_deref()))]
    Operator {
        /// HTTP status.
        status: u16,
        /// For people.
        message: String,
        /// The wrong part of the request.
        field: Option<String>,
    },
    /// The connection broke.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// What came is not what was expected.
    #[error("the answer is not understood: {0}; the operator may be of another version than this command")]
    Answer(#[from] serde_json::Error),
    /// Standard output or a file can not be written.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl CliError {
    /// The exit code: 2 where the command line is wrong, 1 otherwise.
    pub fn code(&self) -> ExitCode {
        match self {
            Self::Usage(_) | Self::Operator { status: 400, .. } => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }

    /// Whether only the reader of standard output has gone, as `head` does.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

fn of_kube(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.is_forbidden() => {
            format!(
                "{}; ask who administers the cluster for this right",
                status.message
            )
        }
        kube::Error::Api(status) => status.message.clone(),
        error => format!("the API server can not be reached: {}", with_causes(error)),
    }
}

/// An error with what caused it.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// The field of a request, as the flag that it came from.
fn of_operator(message: &str, field: Option<&str>) -> String {
    match field {
        Some("from" | "to" | "last" | "preset" | "filter" | "limit" | "level" | "run") => {
            format!("--{}: {message}", field.unwrap_or_default())
        }
        Some("range") => format!("--from, --to, --last: {message}"),
        Some(field) => format!("{field}: {message}"),
        None => message.to_owned(),
    }
}
