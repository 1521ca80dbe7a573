//! `invoke`: calls a function of a script.

use std::{io::Read, path::Path};

use anstyle::{AnsiColor, Style};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
    client::Body,
};
use serde_json::{Map, Value};
use tokio::net::TcpStream;

use super::{
    api::{encoded, handshake, of_body, whole},
    args::Place,
    cluster::Cluster,
    error::{CliError, with_causes},
    output::{Out, plain, plain_lines},
    rollback::adopted,
    rows::text,
    tunnel::{self, Stream},
};
use crate::{
    api::{CustomScript, labels},
    model::SourceType,
};

/// Arguments of `invoke`.
#[derive(clap::Args, Clone, Debug)]
pub struct InvokeArgs {
    /// The script.
    pub script: String,
    /// The function.
    pub function: String,
    /// The arguments by name as a JSON object, or @FILE to read it from there (@- from standard input).
    #[arg(value_name = "JSON|@FILE", conflicts_with = "arg")]
    pub arguments: Option<String>,
    /// One argument; the value is JSON, or else a text. May be given more than once.
    #[arg(long, value_name = "NAME=VALUE")]
    pub arg: Vec<String>,
    /// Whom the run names as its source; it is then one of source type Tool. Default: a test call.
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// File with an API key, for a script that asks for one.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<std::path::PathBuf>,
    /// The result alone, or the whole answer as JSON, with run id, status, standard output and error.
    #[arg(short, long, value_parser = ["result", "json"], default_value = "result")]
    pub output: String,
    /// Address of the script's endpoint, instead of a tunnel to one of its pods.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// Calls. Fails where the run has.
pub async fn invoke(args: InvokeArgs) -> Result<(), CliError> {
    let body = arguments(&args)?;
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    let path = format!("/functions/{}", encoded(&args.function));
    *request.uri_mut() = path
        .parse()
        .map_err(|_| CliError::Usage(format!("{} is no name of a function", args.function)))?;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(source) = &args.source {
        let source = HeaderValue::try_from(source.as_str())
            .map_err(|_| CliError::Usage("--source: this can not be sent in a header".to_owned()))?;
        headers.insert("x-scriptscope-source", source);
    } else {
        let test = HeaderValue::from_static(SourceType::Test.as_str());
        headers.insert("x-scriptscope-source-type", test);
    }
    if let Some(file) = &args.api_key_file {
        let wrong = |why: &str| CliError::Failed(format!("--api-key-file {}: {why}", file.display()));
        let key = std::fs::read_to_string(file).map_err(|error| wrong(&error.to_string()))?;
        let mut key = HeaderValue::try_from(key.trim()).map_err(|_| wrong("this is no key"))?;
        key.set_sensitive(true);
        headers.insert("x-api-key", key);
    }
    let (status, body) = match &args.url {
        Some(url) => directly(url, request, &args.script).await?,
        None => through_api(args.place, &args.script, request).await?,
    };
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    if answer["runId"].is_null() {
        return Err(of_body(status, &body));
    }
    show(&answer, &args.output)
}

fn show(answer: &Value, output: &str) -> Result<(), CliError> {
    let mut out = Out::default();
    let dim = Style::new().dimmed();
    if output == "json" {
        out.json(answer)?;
    } else {
        for printed in [text(answer, "stdout"), text(answer, "stderr")] {
            if !printed.is_empty() {
                anstream::eprintln!("{dim}{}{dim:#}", plain_lines(printed.trim_end_matches('\n')));
            }
        }
        if let Some(result) = answer.get("result") {
            out.json(result)?;
        }
    }
    let run = text(answer, "runId");
    if text(answer, "status") == "Success" {
        return Ok(());
    }
    let error = &answer["error"];
    if output != "json" {
        let traceback = text(error, "traceback").trim_end();
        if !traceback.is_empty() {
            anstream::eprintln!("{dim}{}{dim:#}", plain_lines(traceback));
        }
    }
    let red = Style::new().fg_color(Some(AnsiColor::Red.into()));
    anstream::eprintln!("{red}Failed{red:#} ({})", plain(text(error, "reason")));
    let kind = match text(error, "type") {
        "" => String::new(),
        kind => format!("{kind}: "),
    };
    Err(CliError::Failed(format!(
        "{}{}; run {run}",
        plain(&kind),
        plain_lines(text(error, "message"))
    )))
}

fn unanswered(error: &(dyn std::error::Error + 'static), script: &str) -> CliError {
    CliError::Failed(format!(
        "the call was not answered: {}; whether it ran, scriptscope runs {script} says",
        with_causes(error)
    ))
}

/// Calls at an address.
async fn directly(
    url: &str,
    mut request: Request<Full<Bytes>>,
    script: &str,
) -> Result<(StatusCode, Bytes), CliError> {
    let (stream, host) = endpoint(url).await?;
    let host = HeaderValue::try_from(host).map_err(|_| CliError::Usage("--url: no address".to_owned()))?;
    request.headers_mut().insert(header::HOST, host);
    let response = handshake(stream).await?.send_request(request).await;
    let response = response.map_err(|error| unanswered(&error, script))?;
    Ok((response.status(), whole(response).await?))
}

/// Calls a ready pod by the API server's proxy: a port-forward ends at the node, outside the pod's sandbox.
async fn through_api(
    place: Place,
    script: &str,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), CliError> {
    if place.server.is_some() {
        return Err(CliError::Usage(
            "--server is the operator's address; with invoke give the script's in --url, or neither"
                .to_owned(),
        ));
    }
    let cluster = Cluster::new(place);
    let (client, namespace) = (cluster.client().await?, cluster.namespace().await?);
    refuse_adopted(&client, &namespace, script).await?;
    let labels = format!("{}={script}", labels::SCRIPT);
    let missing = |found| match found {
        0 => format!(
            "script {script} in namespace {namespace} has no pods; is it deployed? See kubectl -n {namespace} get script"
        ),
        _ => format!(
            "no pod of script {script} in namespace {namespace} is ready; see kubectl -n {namespace} describe script {script}"
        ),
    };
    let (pod, port) = tunnel::ready_pod(&client, &namespace, &labels, &["http"], missing).await?;
    let (mut head, body) = request.into_parts();
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{}",
        head.uri.path()
    );
    head.uri = path
        .parse()
        .map_err(|_| CliError::Usage(format!("{script} is no name of a script")))?;
    let request = Request::from_parts(
        head,
        Body::from(body.collect().await.unwrap_or_default().to_bytes()),
    );
    let response = client
        .send(request)
        .await
        .map_err(|error| unanswered(&error, script))?;
    let status = response.status();
    let body = whole(response).await?;
    // What the API server says of itself is no answer of the script.
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    if answer["kind"] == "Status" {
        return Err(CliError::Failed(format!(
            "the API server does not pass the call on: {}; it needs the right to create pods/proxy in namespace {namespace} \
             (docs/cli.md)",
            plain(text(&answer, "message"))
        )));
    }
    Ok((status, body))
}

/// Says of a script that adopts a Deployment that there is nothing to call. Whoever may not read the script hears of its pods.
async fn refuse_adopted(client: &Client, namespace: &str, script: &str) -> Result<(), CliError> {
    let kind = ApiResource::erase::<CustomScript>(&());
    let scripts: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
    let Ok(Some(object)) = scripts.get_opt(script).await else {
        return Ok(());
    };
    adopted(&object.data["spec"]).map_or(Ok(()), |deployment| {
        Err(CliError::Failed(format!(
            "{script} adopts Deployment {deployment} and has no functions to call: what that prints is recorded, and its runs are \
             begun by whatever calls it"
        )))
    })
}

/// A connection to an address, and the address as a header says it.
async fn endpoint(url: &str) -> Result<(Stream, String), CliError> {
    let wrong = || {
        CliError::Usage(format!(
            "--url: {url} is no address such as http://127.0.0.1:8080"
        ))
    };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let host = uri
        .host()
        .filter(|_| uri.scheme_str() == Some("http"))
        .ok_or_else(wrong)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, uri.port_u16().unwrap_or(80))).await;
    let stream =
        stream.map_err(|error| CliError::Failed(format!("--url: {url} can not be reached: {error}")))?;
    let authority = uri.authority().map_or(host, http::uri::Authority::as_str);
    Ok((Box::new(stream), authority.to_owned()))
}

/// The arguments as a JSON object.
fn arguments(args: &InvokeArgs) -> Result<String, CliError> {
    let Some(given) = &args.arguments else {
        return named(&args.arg);
    };
    let (what, text) = match given.strip_prefix('@') {
        None => ("the arguments", given.clone()),
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            ("standard input", text)
        }
        Some(file) => {
            let text = std::fs::read_to_string(Path::new(file))
                .map_err(|error| CliError::Failed(format!("{file}: {error}")))?;
            (file, text)
        }
    };
    let value: Value = serde_json::from_str(&text).map_err(|error| {
        CliError::Usage(format!(
            "{what} can not be read as JSON: {error}; give an object such as '{{\"account\": 17}}', or use --arg account=17"
        ))
    })?;
    if !value.is_object() {
        return Err(CliError::Usage(format!(
            "{what}: expected a JSON object of arguments by name, such as '{{\"account\": 17}}'"
        )));
    }
    // As it was given: numbers keep their digits.
    Ok(text)
}

fn named(pairs: &[String]) -> Result<String, CliError> {
    let mut all = Map::new();
    for pair in pairs {
        let Some((name, value)) = pair.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(CliError::Usage(format!("--arg {pair}: expected NAME=VALUE")));
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        if all.insert(name.to_owned(), value).is_some() {
            return Err(CliError::Usage(format!("--arg {name}: given twice")));
        }
    }
    Ok(Value::Object(all).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_by_name_are_json_or_text() {
        let all = ["a=1", "b=true", "c=hello", "d=[1]", "e=", "f=x=y", "g=\"1\""].map(str::to_owned);
        let json: Value = serde_json::from_str(&named(&all).unwrap()).unwrap();
        let wanted =
            serde_json::json!({"a": 1, "b": true, "c": "hello", "d": [1], "e": "", "f": "x=y", "g": "1"});
        assert_eq!(json, wanted);
        assert_eq!(named(&[]).unwrap(), "{}");
        for wrong in ["a", "=1"] {
            assert!(
                named(&[wrong.to_owned()])
                    .unwrap_err()
                    .to_string()
                    .contains("NAME=VALUE")
            );
        }
        let twice = named(&["a=1".to_owned(), "a=2".to_owned()]).unwrap_err();
        assert!(twice.to_string().contains("twice"));
    }
}
