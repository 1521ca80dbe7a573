//! Logs of the process itself.

use std::{fs, path::PathBuf, thread, time::Duration};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// The client's own lines on failed requests and cut watches repeat what the callers say, who know what they asked for.
const QUIET: &str = "kube_client::client=error,kube_client::client::builder=off";
/// How often the file is looked at that says what to log.
const TICK: Duration = Duration::from_secs(2);

/// Form of the log lines.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error. `filter` is a level or a list of `target=level` directives. Where `from` is given,
/// that file says it, and goes on saying it: a change counts within seconds, without a restart.
pub fn init(filter: &str, format: LogFormat, from: Option<PathBuf>) {
    let mut source = from.map(|file| Source {
        file,
        said: String::new(),
    });
    let said = source.as_mut().and_then(Source::news).and_then(Result::ok);
    let first = said.unwrap_or_else(|| parsed(filter).unwrap_or_else(|_| EnvFilter::new("info")));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(first)
        .with_writer(std::io::stderr);
    // A second call (tests) keeps the first subscriber.
    match format {
        LogFormat::Text => {
            let builder = builder.with_ansi(false).with_filter_reloading();
            let handle = builder.reload_handle();
            if builder.try_init().is_ok() {
                follow(source, move |filter| handle.reload(filter).is_ok());
            }
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            if builder.try_init().is_ok() {
                follow(source, move |filter| handle.reload(filter).is_ok());
            }
        }
    }
}

fn parsed(filter: &str) -> Result<EnvFilter, String> {
    let filter = filter.trim();
    if filter.is_empty() {
        return Err("nothing is said".to_owned());
    }
    EnvFilter::try_new(format!("{QUIET},{filter}")).map_err(|error| error.to_string())
}

/// The file that says what to log.
struct Source {
    file: PathBuf,
    said: String,
}

impl Source {
    /// The filter that it says, where that has changed. A file that is not there says nothing: a volume of Kubernetes is
    /// exchanged under its readers.
    fn news(&mut self) -> Option<Result<EnvFilter, String>> {
        let text = fs::read_to_string(&self.file).ok()?;
        if text == self.said {
            return None;
        }
        self.said = text;
        Some(parsed(&self.said))
    }
}

/// Looks at the file as long as the process lives, and puts what it says in force by `reload`.
fn follow(source: Option<Source>, reload: impl Fn(EnvFilter) -> bool + Send + 'static) {
    let Some(mut source) = source else {
        return;
    };
    let turn = move || {
        loop {
            thread::sleep(TICK);
            let file = source.file.display().to_string();
            match source.news() {
                None => {}
                Some(Ok(filter)) => {
                    if !reload(filter) {
                        return;
                    }
                    tracing::info!(file, filter = source.said.trim(), "What is logged has changed.");
                }
                Some(Err(error)) => {
                    tracing::warn!(file, error, "What to log is not understood; nothing has changed.");
                }
            }
        }
    };
    // Without it the filter stays as it is.
    if let Err(error) = thread::Builder::new().name("log-filter".to_owned()).spawn(turn) {
        tracing::warn!(%error, "What to log can not be followed.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_to_log_once_for_each_change() {
        let folder = tempfile::tempdir().unwrap();
        let mut source = Source {
            file: folder.path().join("level"),
            said: String::new(),
        };
        assert!(source.news().is_none(), "there is no file");
        fs::write(&source.file, "info,scriptscope::ingest=debug\n").unwrap();
        let filter = source.news().unwrap().unwrap().to_string();
        assert!(
            filter.contains("scriptscope::ingest=debug") && filter.contains("kube_client"),
            "{filter}"
        );
        assert!(source.news().is_none(), "nothing has changed");
        for wrong in ["scriptscope=loud", "a=b=c", " \n"] {
            fs::write(&source.file, wrong).unwrap();
            assert!(source.news().unwrap().is_err(), "{wrong}");
        }
        fs::remove_file(&source.file).unwrap();
        assert!(source.news().is_none());
    }
}
