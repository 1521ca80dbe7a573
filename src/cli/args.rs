//! Flags that several verbs share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::{
    error::CliError,
    filter::{Table, filter},
};
use crate::model::Match;

/// Which cluster, which namespace, and how to get there.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Cluster")]
pub struct Place {
    /// Namespace of the script. Default: that of the kubeconfig's context.
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig. Default: the current one.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The kubeconfig file. Default: $KUBECONFIG, or ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace that the operator runs in.
    #[arg(
        long,
        value_name = "NAME",
        env = "SCRIPTSCOPE_SYSTEM_NAMESPACE",
        default_value = "scriptscope-system"
    )]
    pub system_namespace: String,
    /// Address of the operator's web server on this machine, such as <http://127.0.0.1:8080>, instead of a tunnel
    /// through the API server.
    #[arg(long, value_name = "URL", env = "SCRIPTSCOPE_SERVER")]
    pub server: Option<String>,
    /// File with the bearer token to send, instead of the kubeconfig's credentials.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Which rows.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Rows")]
pub struct Which {
    /// Only of this last time, such as 15m, 12h, 7d, 4w. Default: 7d.
    #[arg(long, value_name = "AGE", conflicts_with_all = ["from", "to"])]
    pub last: Option<String>,
    /// Only from this time on (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub from: Option<Timestamp>,
    /// Only before this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub to: Option<Timestamp>,
    /// Only rows of which this holds, such as 'Status=Failed', 'Response Time>=250', 'Source~billing',
    /// 'Function!=check,report'; or the JSON of the REST API. May be given more than once.
    #[arg(long, value_name = "CONDITION")]
    pub filter: Vec<String>,
    /// Whether all conditions must hold, or any of them.
    #[arg(long = "match", value_enum, default_value_t)]
    pub matching: Matching,
}

/// How conditions are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Matching {
    /// All must hold.
    #[default]
    All,
    /// At least one must hold.
    Any,
}

impl Which {
    /// Whether everything is wanted.
    pub fn is_all(&self) -> bool {
        self.last.is_none() && self.from.is_none() && self.to.is_none() && self.filter.is_empty()
    }

    /// As keys and values of a query of the REST API.
    pub fn query(&self, table: Table) -> Result<Vec<(&'static str, String)>, CliError> {
        let mut query = Vec::new();
        query.extend(self.last.clone().map(|last| ("last", last)));
        query.extend(self.from.map(|time| ("from", time.to_string())));
        query.extend(self.to.map(|time| ("to", time.to_string())));
        let matching = match self.matching {
            Matching::All => Match::All,
            Matching::Any => Match::Any,
        };
        if !self.filter.is_empty() {
            let filter = filter(&self.filter, matching, table)?;
            query.push(("filter", serde_json::to_string(&filter)?));
        }
        Ok(query)
    }
}

/// How the answer is written.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Output")]
pub struct Shape {
    /// How the answer is written.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// Tables without their headings.
    #[arg(long)]
    pub no_headers: bool,
}

/// Form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// What the REST API says.
    Json,
    /// RFC 4180, for spreadsheets.
    Csv,
}
