//! `dashboard`: the operator's page at an address of this machine, for this user's browser alone.
//!
//! What is served here has the user's rights, so it must not be reached by others: it listens on the loopback address
//! only; other users of the machine lack the cookie, which a ticket that works once gives; and a page of another site, or a
//! name that was made to point here, has the wrong `Host`, `Origin` or `Sec-Fetch-Site`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body_util::Full;
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{api::Api, args::Place, cluster::Cluster, error::CliError, output::Out};
use crate::{
    loopback::{LocalSite, open},
    web,
};

/// The cookie that this user's browser gets.
const COOKIE: &str = "scriptscope-dashboard";
/// Where a ticket is taken.
const OPEN: &str = "/open/";

/// Arguments of `dashboard`.
#[derive(clap::Args, Clone, Debug)]
pub struct DashboardArgs {
    /// Port on this machine. Default: any that is free.
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// Only print the address, do not open it in the browser.
    #[arg(long)]
    pub no_open: bool,
    #[command(flatten)]
    place: Place,
}

/// Serves the page until interrupted.
pub async fn dashboard(args: DashboardArgs) -> Result<(), CliError> {
    let api = Api::new(&Cluster::new(args.place)).await?;
    // Nothing is opened that would not work.
    let who = api.json("/api/v1/whoami", &[]).await?;
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)))
        .await
        .map_err(|error| CliError::Failed(format!("--port {}: {error}", args.port)))?;
    let port = listener.local_addr()?.port();
    let gate = Gate::new(port);
    let address = format!("http://127.0.0.1:{port}{OPEN}{}", gate.ticket());
    let mut out = Out::default();
    out.text(&format!("Dashboard: {address}"))?;
    anstream::eprintln!(
        "as {}; the address works once, Ctrl-C ends it",
        super::output::plain(who["username"].as_str().unwrap_or_default())
    );
    if !args.no_open {
        open(&address);
    }
    let shutdown = CancellationToken::new();
    let router = Router::new()
        .fallback(answer)
        .with_state(Arc::new(Desk { api, gate }));
    web::serve(listener, router, shutdown).await;
    Ok(())
}

/// Who may come in.
struct Gate {
    site: LocalSite,
    secret: String,
    ticket: Mutex<Option<String>>,
}

impl Gate {
    fn new(port: u16) -> Self {
        Self {
            site: LocalSite::new(port),
            secret: random(),
            ticket: Mutex::new(Some(random())),
        }
    }

    fn ticket(&self) -> String {
        let ticket = self.ticket.lock().unwrap_or_else(PoisonError::into_inner);
        ticket.clone().unwrap_or_default()
    }

    /// Takes a ticket, once.
    fn takes(&self, shown: &str) -> bool {
        let mut ticket = self.ticket.lock().unwrap_or_else(PoisonError::into_inner);
        let good = ticket.as_deref().is_some_and(|ticket| same(ticket, shown));
        if good {
            *ticket = None;
        }
        good
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        let cookies = headers.get_all(header::COOKIE).into_iter();
        let mut cookies = cookies.flat_map(|value| value.to_str().unwrap_or_default().split(';'));
        cookies.any(|cookie| {
            let pair = cookie.trim().split_once('=');
            pair.is_some_and(|(name, value)| name == COOKIE && same(value, &self.secret))
        })
    }
}

fn random() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

struct Desk {
    api: Api,
    gate: Gate,
}

async fn answer(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let refused = |why: &'static str| (StatusCode::FORBIDDEN, why).into_response();
    if !desk.gate.site.takes(request.headers()) {
        return refused("this is served for this machine's browser alone\n");
    }
    if let Some(ticket) = request.uri().path().strip_prefix(OPEN) {
        if !desk.gate.takes(ticket) {
            return refused("this address was used already: run scriptscope dashboard again\n");
        }
        let cookie = format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict", desk.gate.secret);
        let headers = [
            (header::SET_COOKIE, cookie),
            (header::LOCATION, "/".to_owned()),
            (header::CACHE_CONTROL, "no-store".to_owned()),
            (header::REFERRER_POLICY, "no-referrer".to_owned()),
        ];
        return (StatusCode::SEE_OTHER, headers).into_response();
    }
    if !desk.gate.knows(request.headers()) {
        return refused("open the address that scriptscope dashboard printed\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return (StatusCode::METHOD_NOT_ALLOWED, "this can only be read\n").into_response();
    }
    let asked = passed_on(&request);
    drop(request);
    match ask(&desk.api, asked).await {
        Ok(response) => response,
        Err(error) => {
            let message = error.to_string();
            let body = serde_json::json!({ "error": { "code": "Unreachable", "message": message } });
            (StatusCode::BAD_GATEWAY, axum::Json(body)).into_response()
        }
    }
}

/// The same question to the operator. Neither the browser's cookie nor a token it may have goes there.
fn passed_on(request: &Request) -> Result<http::Request<Full<Bytes>>, CliError> {
    let mut asked = http::Request::new(Full::<Bytes>::default());
    *asked.method_mut() = request.method().clone();
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    *asked.uri_mut() = path
        .parse()
        .map_err(|_| CliError::Failed("this is no path".to_owned()))?;
    for name in [
        header::ACCEPT,
        header::ACCEPT_ENCODING,
        header::ACCEPT_LANGUAGE,
        header::IF_NONE_MATCH,
        header::RANGE,
        HeaderName::from_static("last-event-id"),
    ] {
        if let Some(value) = request.headers().get(&name) {
            asked.headers_mut().insert(name, value.clone());
        }
    }
    Ok(asked)
}

/// The operator's answer to the user.
async fn ask(api: &Api, asked: Result<http::Request<Full<Bytes>>, CliError>) -> Result<Response, CliError> {
    let (mut parts, body) = api.send(asked?).await?.into_parts();
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::WWW_AUTHENTICATE,
    ] {
        parts.headers.remove(name);
    }
    parts
        .headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    Ok(Response::from_parts(parts, Body::new(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        });
        pairs.collect()
    }

    #[test]
    fn only_who_has_the_cookie_is_let_in() {
        let gate = Gate::new(4000);
        let secret = gate.secret.clone();
        assert!(gate.knows(&headers(&[("cookie", &format!("a=b; {COOKIE}={secret}"))])));
        assert!(!gate.knows(&headers(&[("cookie", &format!("{COOKIE}={secret}x"))])));
        assert!(!gate.knows(&headers(&[("cookie", &format!("{COOKIE}="))])));
        assert!(!gate.knows(&headers(&[])));
    }

    #[test]
    fn a_ticket_is_good_once() {
        let gate = Gate::new(1);
        let ticket = gate.ticket();
        assert!(!gate.takes("") && !gate.takes("other"));
        assert!(gate.takes(&ticket));
        assert!(!gate.takes(&ticket) && !gate.takes(""));
    }
}
