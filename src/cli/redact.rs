//! What must not leave a cluster is taken out of texts and objects.

use serde_json::Value;

/// What stands where something was taken out.
pub const REDACTED: &str = "REDACTED";

/// Words in a key that say that its value is a secret.
const SECRET_KEYS: [&str; 9] = [
    "password",
    "passwd",
    "secret",
    "token",
    "credential",
    "apikey",
    "api_key",
    "authorization",
    "privatekey",
];
/// Members that hold whole copies of an object, or nothing that helps.
const DROPPED: [&str; 2] = [
    "managedFields",
    "kubectl.kubernetes.io/last-applied-configuration",
];
/// What a token of Kubernetes or a signature begins with.
const JWT: &str = "eyJ";
/// Beginnings of well-known keys.
const KEYS: [&str; 7] = [
    "AKIA",
    "ASIA",
    "ghp_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "sk_live_",
];
/// Settings of operator and agent that are worth seeing and never secret.
const PLAIN_SETTINGS: [&str; 13] = [
    "POD_NAME",
    "POD_NAMESPACE",
    "SCRIPTSCOPE_AGENT_SERVICE_ACCOUNT",
    "SCRIPTSCOPE_COLLECTION",
    "SCRIPTSCOPE_IMAGE",
    "SCRIPTSCOPE_LEASE",
    "SCRIPTSCOPE_LOG",
    "SCRIPTSCOPE_LOG_FORMAT",
    "SCRIPTSCOPE_LOG_FROM",
    "SCRIPTSCOPE_LOGS_DIR",
    "SCRIPTSCOPE_NODE",
    "SCRIPTSCOPE_RETENTION_LOGS",
    "SCRIPTSCOPE_WATCH_NAMESPACE",
];

/// An object of Kubernetes without secrets: values of environment variables, sources, what keys call secret, names of Secrets,
/// and whatever looks like one in a text.
pub fn object(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|key, _| !DROPPED.contains(&key.as_str()));
            for (key, member) in members.iter_mut() {
                match (key.as_str(), &mut *member) {
                    ("env", Value::Array(variables)) => variables.iter_mut().for_each(variable),
                    // The source of a script: file by file, only how long each is.
                    ("inline", Value::Object(files)) => {
                        for file in files.values_mut() {
                            let length = file.as_str().map_or(0, str::len);
                            *file = Value::String(format!("{REDACTED} ({length} bytes)"));
                        }
                    }
                    ("data" | "stringData" | "binaryData", Value::Object(_)) => {
                        *member = Value::String(REDACTED.to_owned());
                    }
                    (key, Value::Object(reference)) if is_reference(key) => {
                        if let Some(name) = reference.get_mut("name") {
                            *name = Value::String(REDACTED.to_owned());
                        }
                        reference.values_mut().for_each(object);
                    }
                    (key, Value::String(text)) if is_secret(key) => REDACTED.clone_into(text),
                    (_, member) => object(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(object),
        Value::String(found) => *found = text(found),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "");
    SECRET_KEYS.iter().any(|word| key.contains(word))
}

/// Whether a member refers to a Secret.
fn is_reference(key: &str) -> bool {
    key.to_ascii_lowercase().contains("secret") && key.ends_with("Ref")
}

fn variable(variable: &mut Value) {
    let name = variable["name"].as_str().unwrap_or_default();
    let plain = PLAIN_SETTINGS.contains(&name);
    match variable.get_mut("value") {
        Some(value) if !plain => *value = Value::String(REDACTED.to_owned()),
        _ => {}
    }
    // valueFrom names a Secret and its key.
    if let Some(from) = variable.get_mut("valueFrom") {
        object(from);
        if let Some(reference) = from.get_mut("secretKeyRef") {
            *reference = Value::String(REDACTED.to_owned());
        }
    }
}

/// A text without user names and passwords in URLs, without queries that sign or hold a secret, without tokens.
pub fn text(text: &str) -> String {
    let text = urls(text);
    let mut safe = String::with_capacity(text.len());
    // Set where the next word is a secret: after "Bearer".
    let mut next_is_secret = false;
    for word in text.split_inclusive(is_between) {
        let bare = word.trim_end_matches(is_between);
        let after = &word[bare.len()..];
        let says_something = bare.chars().any(char::is_alphanumeric);
        let is_scheme = matches!(bare.to_ascii_lowercase().as_str(), "bearer" | "basic");
        if next_is_secret && says_something && !is_scheme || looks_secret(bare) {
            safe.push_str(REDACTED);
            safe.push_str(after);
            next_is_secret = false;
            continue;
        }
        next_is_secret |= is_scheme;
        match bare.split_once('=') {
            Some((key, value)) if is_secret(key) && !value.is_empty() => {
                safe.push_str(key);
                safe.push('=');
                safe.push_str(REDACTED);
                safe.push_str(after);
                continue;
            }
            _ => {}
        }
        // `password: x` and `"token":"x"`.
        let key = bare.trim_end_matches([':', '=']);
        if key.len() < bare.len() && is_secret(key) || is_secret(bare) && after.starts_with(['"', '\'', ':'])
        {
            next_is_secret = true;
        }
        safe.push_str(word);
    }
    safe
}

fn is_between(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '"' | '\'' | ',' | ';' | '(' | ')' | '<' | '>' | '{' | '}' | '[' | ']' | '`' | '&' | '?'
        )
}

fn looks_secret(word: &str) -> bool {
    let after_key = word.rsplit(['=', ':']).next().unwrap_or(word);
    [word, after_key].iter().any(|word| {
        word.starts_with(JWT) && word.matches('.').count() >= 2
            || KEYS
                .iter()
                .any(|key| word.starts_with(key) && word.len() >= key.len() + 8)
    }) || word.contains("-----BEGIN")
}

/// Takes `user:password@` and the values of queries out of URLs.
fn urls(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        safe.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`' | '\\'))
            .unwrap_or(after.len());
        let (url, more) = after.split_at(end);
        let authority = url.find(['/', '?', '#']).unwrap_or(url.len());
        // A password may hold a slash that nobody escaped: whatever stands before the last @ goes.
        let host = match url.rfind('@') {
            Some(last) if last < authority || !url[..last].contains('?') && url[..last].contains(':') => {
                safe.push_str(REDACTED);
                &url[last..]
            }
            _ => url,
        };
        match host.split_once('?') {
            Some((path, query)) => {
                safe.push_str(path);
                for (n, pair) in query.split('&').enumerate() {
                    safe.push(if n == 0 { '?' } else { '&' });
                    match pair.split_once('=') {
                        Some((key, _)) => {
                            safe.push_str(key);
                            safe.push('=');
                            safe.push_str(REDACTED);
                        }
                        None => safe.push_str(REDACTED),
                    }
                }
            }
            None => safe.push_str(host),
        }
        rest = more;
    }
    safe.push_str(rest);
    safe
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Split, so that nobody who searches for tokens takes it for one.
    fn jwt() -> String {
        ["eyJhbGciOiJSUzI1NiJ9", "eyJzdWIiOiJhIn0", "c2lnbmF0dXJl"].join(".")
    }

    #[test]
    fn nothing_secret_is_left_of_an_object() {
        let token = jwt();
        let mut script = json!({
            "metadata": {
                "name": "pay",
                "managedFields": [{"manager": "hush-1"}],
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "{\"env\": \"hush-2\"}",
                    "note": format!("use {token} to log in"),
                },
            },
            "spec": {
                "runtime": "python",
                "env": [
                    {"name": "TOKEN", "value": "hush-3"},
                    {"name": "HARMLESS", "value": "hush-4"},
                    {"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "hush-5", "key": "hush-6"}}},
                ],
                "envFrom": [{"secretRef": {"name": "hush-7"}}],
                "source": {
                    "inline": {"main.py": "KEY = 'hush-8'"},
                    "archive": {"url": "https://user:hush-9@host/a.tar.gz?X-Amz-Signature=hush-10&plain=hush-11"},
                },
                "endpoint": {"apiKeysSecretRef": {"name": "hush-12"}},
                "destination": {"s3": {"bucket": "b", "credentialsSecretRef": {"name": "hush-13"}}},
                "somePassword": "hush-14",
            },
            "status": {"phase": "Deployed", "message": "postgres://u:hush-15@db:5432/x?sslmode=require can not be reached"},
        });
        object(&mut script);
        let text = script.to_string();
        assert!(!text.contains("hush"), "{text}");
        assert!(!text.contains(&token), "{text}");
        // What helps is there.
        for kept in [
            "\"pay\"",
            "python",
            "HARMLESS",
            "main.py",
            "host/a.tar.gz",
            "\"b\"",
            "Deployed",
            "db:5432/x",
        ] {
            assert!(text.contains(kept), "{kept}: {text}");
        }
    }

    #[test]
    fn settings_of_the_operator_can_be_seen_but_its_database_can_not() {
        let mut pod = json!({"spec": {"containers": [{"env": [
            {"name": "SCRIPTSCOPE_LEASE", "value": "scriptscope"},
            {"name": "SCRIPTSCOPE_DATABASE_URL", "value": "postgres://u:hush@db/x"},
        ]}]}});
        object(&mut pod);
        let text = pod.to_string();
        assert!(
            text.contains("\"scriptscope\"") && !text.contains("hush"),
            "{text}"
        );
    }

    #[test]
    fn nothing_secret_is_left_of_a_text() {
        let token = jwt();
        for (line, kept) in [
            (
                format!("Authorization: Bearer {token} was refused"),
                "was refused",
            ),
            ("authorization: bearer hush, then".to_owned(), "then"),
            (
                "the URL postgres://scope:hu%40sh:hush@db:5432/x is wrong".to_owned(),
                "db:5432/x is wrong",
            ),
            ("postgres://scope:hu/hush@db/x".to_owned(), "@db/x"),
            ("password=hush user=me".to_owned(), "user=me"),
            ("{\"token\":\"hush\",\"level\":\"INFO\"}".to_owned(), "INFO"),
            ("api_key: hush done".to_owned(), "done"),
            (
                "GET https://s3/b/k?X-Amz-Credential=hush&X-Amz-Signature=hush 403".to_owned(),
                " 403",
            ),
            (["AKIA", "HUSHhushHUSHhush", " was used"].concat(), "was used"),
        ] {
            let safe = text(&line);
            let low = safe.to_ascii_lowercase();
            assert!(!low.contains("hush") && !safe.contains(&token), "{line}: {safe}");
            assert!(safe.contains(kept) && safe.contains(REDACTED), "{line}: {safe}");
        }
    }

    #[test]
    fn a_harmless_text_stays_as_it_is() {
        for line in [
            "{\"timestamp\":\"2026-11-20T12:00:00Z\",\"level\":\"INFO\",\"message\":\"Stored 12 lines.\",\"target\":\"scriptscope::ingest\"}",
            "http://scriptscope-ingest.scriptscope-system.svc:8081 answers",
            "mail me@example.com: 3 tries, a=b (c) [d]",
            "  indented\n\ttext\n",
        ] {
            assert_eq!(text(line), line);
        }
    }
}
