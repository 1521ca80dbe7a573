//! Environment variables of the script: `--env` and `--env-file`. Pure but for reading the files.

use std::{fs, io, path::PathBuf};

/// Names with this beginning are the runner's own.
const OURS: &str = "SCRIPTSCOPE_";

/// Why a variable can not be set.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// There is no `=`, or no name before it.
    #[error("{place}: expected KEY=VALUE")]
    NotAPair {
        /// The option, or file and line.
        place: String,
    },
    /// The name is not one that a script can have.
    #[error("{place}: {name} can not be the name of a variable here")]
    Name {
        /// The option, or file and line.
        place: String,
        /// The name.
        name: String,
    },
    /// The file can not be read.
    #[error("--env-file {}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// Variables in the order in which they are set: those of files first, so that an option on the command line wins.
pub fn variables(options: &[String], files: &[PathBuf]) -> Result<Vec<(String, String)>, EnvironmentError> {
    let mut all = Vec::new();
    for path in files {
        let text = fs::read_to_string(path).map_err(|error: io::Error| EnvironmentError::File {
            path: path.clone(),
            why: error.to_string(),
        })?;
        all.extend(of_file(&text, &format!("--env-file {}", path.display()))?);
    }
    for option in options {
        all.push(pair(option, "--env")?);
    }
    Ok(all)
}

/// Lines `KEY=VALUE`, also with `export` before them and quotes around the value; empty ones and comments are skipped.
fn of_file(text: &str, name: &str) -> Result<Vec<(String, String)>, EnvironmentError> {
    let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(n, line)| {
            let line = line.strip_prefix("export ").unwrap_or(line);
            let (key, value) = pair(line, &format!("{name}, line {n}"))?;
            Ok((key.trim().to_owned(), unquoted(value.trim()).to_owned()))
        })
        .collect()
}

fn pair(text: &str, place: &str) -> Result<(String, String), EnvironmentError> {
    let place = place.to_owned();
    let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.trim().is_empty()) else {
        return Err(EnvironmentError::NotAPair { place });
    };
    if name.trim().starts_with(OURS) || name.contains('\0') || value.contains('\0') {
        let name = name.trim().to_owned();
        return Err(EnvironmentError::Name { place, name });
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn unquoted(value: &str) -> &str {
    ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hold_what_such_files_hold() {
        let text = "# settings\nA=1\n\nexport B = \"two words\" \nC='it''s'\nD=\nE=a=b\n";
        let read = of_file(text, "f").unwrap();
        let read: Vec<(&str, &str)> = read.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(
            read,
            [
                ("A", "1"),
                ("B", "two words"),
                ("C", "it''s"),
                ("D", ""),
                ("E", "a=b")
            ]
        );
    }

    #[test]
    fn a_wrong_one_is_named() {
        let error = of_file("A=1\nB\n", "--env-file x").unwrap_err();
        assert_eq!(error.to_string(), "--env-file x, line 2: expected KEY=VALUE");
        let wrong = |text: &str| variables(&[text.to_owned()], &[]).unwrap_err().to_string();
        assert_eq!(wrong("=1"), "--env: expected KEY=VALUE");
        assert_eq!(
            wrong("SCRIPTSCOPE_APP=/"),
            "--env: SCRIPTSCOPE_APP can not be the name of a variable here"
        );
    }
}
