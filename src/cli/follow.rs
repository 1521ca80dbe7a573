//! `logs -f`: the stream of new lines, taken up again where it broke.

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::Value;

use super::{
    api::{Api, with_query},
    args::Format,
    error::CliError,
    logs::Printer,
};

/// The first and the longest pause before a broken stream is taken up again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// A stream that says nothing for so long is broken; the operator says something every 15 s.
const SILENCE: Duration = Duration::from_secs(45);
/// Largest event, in bytes.
const LARGEST: usize = 64 << 20;

/// Prints the last `tail` lines and then new ones, until there is an error that trying again does not help.
pub async fn follow(
    api: &Api,
    path: &str,
    query: &[(&'static str, String)],
    tail: usize,
    printer: &mut Printer,
) -> Result<(), CliError> {
    let mut query = query.to_vec();
    query.push(("tail", tail.to_string()));
    let path = with_query(&format!("{path}/stream"), &query);
    printer.begin()?;
    let (mut last, mut pause) = (None, PAUSES.0);
    loop {
        let heard = listen(api, &path, &mut last, printer).await;
        match heard {
            Ok(()) => pause = PAUSES.0,
            Err(error) if last.is_none() || !is_passing(&error) => return Err(error),
            Err(error) => {
                anstream::eprintln!("({error}; trying again)");
                pause = (pause * 2).min(PAUSES.1);
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Whether trying again may help.
fn is_passing(error: &CliError) -> bool {
    match error {
        CliError::Operator { status, .. } => *status >= 500 || *status == 429,
        CliError::Failed(_) | CliError::Http(_) | CliError::Kube(_) => true,
        CliError::Usage(_) | CliError::Kubeconfig(_) | CliError::Answer(_) | CliError::Io(_) => false,
    }
}

async fn listen(
    api: &Api,
    path: &str,
    last: &mut Option<String>,
    printer: &mut Printer,
) -> Result<(), CliError> {
    let headers: Vec<_> = last.iter().map(|id| ("last-event-id", id.clone())).collect();
    let mut body = api.get(path, &headers).await?.into_body();
    let mut events = Events::default();
    loop {
        let frame = tokio::time::timeout(SILENCE, body.frame())
            .await
            .map_err(|_| CliError::Failed("the stream fell silent".to_owned()))?;
        let Some(frame) = frame else { return Ok(()) };
        let frame = frame.map_err(|error| CliError::Failed(format!("the stream broke: {error}")))?;
        events.feed(&frame.into_data().unwrap_or_default())?;
        while let Some(event) = events.next() {
            match event.name.as_str() {
                "lines" => {
                    let lines: Value = serde_json::from_str(&event.data)?;
                    for line in lines["items"].as_array().into_iter().flatten() {
                        printer.line(line)?;
                    }
                    printer.out.flush()?;
                }
                "error" => {
                    let said: Value = serde_json::from_str(&event.data).unwrap_or_default();
                    let message = said["error"]["message"]
                        .as_str()
                        .unwrap_or("the stream was ended");
                    return Err(CliError::Failed(message.to_owned()));
                }
                _ => {}
            }
            // Only now: what was not printed would be lost.
            if let Some(id) = event.id {
                *last = Some(id);
            }
        }
        if printer.shape.output == Format::Table {
            printer.out.flush()?;
        }
    }
}

/// A server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    name: String,
    id: Option<String>,
    data: String,
}

/// Events out of bytes as they come.
#[derive(Debug, Default)]
struct Events {
    bytes: Vec<u8>,
    event: Event,
}

impl Events {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > LARGEST {
            return Err(CliError::Failed("an event of the stream is too large".to_owned()));
        }
        Ok(())
    }

    /// The next whole event.
    fn next(&mut self) -> Option<Event> {
        loop {
            let end = memchr::memchr(b'\n', &self.bytes)?;
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if event != Event::default() {
                    return Some(event);
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.event.name),
                "id" => self.event.id = Some(value.to_owned()),
                "data" => {
                    if !self.event.data.is_empty() {
                        self.event.data.push('\n');
                    }
                    self.event.data.push_str(value);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_however_the_bytes_come() {
        let text = ": hello\n\nevent: lines\nid: 7\ndata: {\"a\":\ndata: 1}\n\nid: 8\n\ndata: rest";
        for size in [1, 3, 100] {
            let mut events = Events::default();
            let mut found = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                events.feed(chunk).unwrap();
                found.extend(std::iter::from_fn(|| events.next()));
            }
            assert_eq!(found.len(), 2, "{found:?}");
            assert_eq!(
                (found[0].name.as_str(), found[0].id.as_deref()),
                ("lines", Some("7"))
            );
            assert_eq!(found[0].data, "{\"a\":\n1}");
            assert_eq!(found[1].id.as_deref(), Some("8"));
        }
    }
}
