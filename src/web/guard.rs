//! What holds for every request: limits, time, headers of the answer, and who asks.

use std::{any::Any, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tower_http::catch_panic::CatchPanicLayer;

use super::{ApiError, WebState, certificates::Chain, session};
use crate::{connections::Peer, query::within};

/// How long an answer may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest body; no route reads one.
const BODY: u64 = 64 << 10;
/// Longest path and query together, in bytes.
const URI: usize = 16 << 10;
/// All headers together, in bytes.
const HEADERS: usize = 32 << 10;

const SECURITY: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Puts limits, the time-out, the answers to panics and wrong methods, and the security headers around the routes.
pub(super) fn wrap(router: Router) -> Router {
    router
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(limit))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::map_response(secure))
}

pub(super) async fn wrong_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "MethodNotAllowed",
        "this route does not take this method; docs/api.md lists the routes",
    )
}

/// The answer where there is no route.
#[allow(clippy::unused_async)] // handlers are
pub(super) async fn no_route() -> ApiError {
    ApiError::not_found("NotFound", "there is nothing here; docs/api.md lists the routes")
}

// By value: the panic's payload is handed over so.
#[allow(clippy::needless_pass_by_value)]
fn panicked(payload: Box<dyn Any + Send + 'static>) -> Response {
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(panic = message, "A request made the server panic.");
    ApiError::internal().into_response()
}

/// Bounds the time that the store may take.
pub(super) async fn in_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    within(limit, next.run(request)).await
}

async fn limit(request: Request, next: Next) -> Result<Response, ApiError> {
    let headers = request.headers();
    let body = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if body.is_some_and(|length| length > BODY) {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "TooLarge",
            format!("a request body may have at most {BODY} bytes"),
        ));
    }
    let uri = request.uri().path_and_query().map_or(0, |p| p.as_str().len());
    if uri > URI {
        return Err(ApiError::new(
            StatusCode::URI_TOO_LONG,
            "TooLarge",
            format!("path and query may have at most {URI} bytes; use fewer or shorter filter values"),
        ));
    }
    let size: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if size > HEADERS {
        return Err(ApiError::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "TooLarge",
            format!("the headers may have at most {HEADERS} bytes"),
        ));
    }
    tokio::time::timeout(PATIENCE, next.run(request))
        .await
        .map_err(|_| {
            ApiError::new(
                StatusCode::GATEWAY_TIMEOUT,
                "Timeout",
                format!(
                    "no answer within {} s; narrow the range or the filter, or make a ScriptExport",
                    PATIENCE.as_secs()
                ),
            )
        })
}

async fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in SECURITY {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // The files of the page bring their own.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The token that a request came with, for those that outlive its check.
#[derive(Clone)]
pub(super) struct Token(pub(super) Arc<str>);

/// Lets a request through only with a good bearer token, or else from a reverse proxy that is believed, or else with the
/// token of a session, or else with a good client certificate, and notes whose it is.
pub(super) async fn authenticate(
    State(state): State<WebState>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (method, headers, access) = (request.method(), request.headers(), &state.access);
    let shown = bearer(headers.get(header::AUTHORIZATION));
    let named = match &state.proxy {
        Some(proxy) if shown.is_none() => {
            let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
            proxy.identity(peer, method, headers)?
        }
        _ => None,
    };
    let token = shown
        .or_else(|| session::token_of(method, headers))
        .map(|token| Token(token.into()));
    let identity = if let Some(named) = named {
        named
    } else if let Some(token) = token {
        let identity = access.identify(&token.0).await?;
        request.extensions_mut().insert(token);
        identity
    } else if let Some(chain) = request.extensions().get::<Chain>().cloned() {
        access.identify_certificate(&chain).await?
    } else {
        return Err(ApiError::unauthenticated(
            "send a Kubernetes token in the header Authorization: Bearer <token>; kubectl create token makes one",
        ));
    };
    request.extensions_mut().insert(identity);
    Ok(next.run(request).await)
}

fn bearer(header: Option<&HeaderValue>) -> Option<&str> {
    let (scheme, token) = header?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains(char::is_whitespace))
        .then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_token_is_a_token() {
        let of = |text: &'static str| {
            let value = HeaderValue::from_static(text);
            bearer(Some(&value)).map(ToOwned::to_owned)
        };
        assert_eq!(of("Bearer abc"), Some("abc".into()));
        assert_eq!(of("bearer  abc "), Some("abc".into()));
        for wrong in ["", "Bearer", "Bearer ", "Basic abc", "abc", "Bearer a b"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(bearer(None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_or_panicking_route_answers_with_an_error() {
        use axum::{body::Body, routing::get};
        use tower::ServiceExt;

        async fn slow() -> &'static str {
            tokio::time::sleep(PATIENCE * 2).await;
            ""
        }
        #[allow(clippy::panic)]
        async fn broken() -> &'static str {
            panic!("what only the log may say")
        }
        let app = wrap(
            Router::new()
                .route("/slow", get(slow))
                .route("/broken", get(broken)),
        );
        for (path, status) in [("/slow", 504), ("/broken", 500)] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), status);
            assert!(response.headers().contains_key(header::CONTENT_SECURITY_POLICY));
            let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
            let text = String::from_utf8(body.to_vec()).unwrap();
            assert!(text.starts_with("{\"error\":{"), "{text}");
            assert!(!text.contains("only the log"), "{text}");
        }
    }
}
