//! Signing in with a token once: the browser keeps it where no script of the page can read it.
//!
//! The cookie is the token itself, so any replica knows it and it ends when the token ends. It counts only for requests
//! of the dashboard's own pages; `SameSite=Strict` keeps other sites' away, and what the browser says of where a request
//! comes from keeps away those of other hosts of the same site.

use axum::{
    Extension,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{ApiError, guard::Token};

/// Name of the cookie.
const COOKIE: &str = "scriptscope-session";
/// Longest token that browsers keep as a cookie, in bytes.
const LONGEST: usize = 3_800;

/// `POST`: the token that the request came with becomes the session.
pub(super) async fn begin(
    token: Option<Extension<Token>>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let Some(Extension(Token(token))) = token.filter(|_| headers.contains_key(header::AUTHORIZATION)) else {
        return Err(ApiError::invalid(
            "authorization",
            "send the token to sign in with in the header Authorization: Bearer <token>",
        ));
    };
    if token.len() > LONGEST || !token.bytes().all(is_cookie_octet) {
        return Err(ApiError::invalid(
            "authorization",
            format!(
                "a browser can not keep this token: it may have at most {LONGEST} bytes; kubectl create token makes shorter ones"
            ),
        ));
    }
    Ok(answer(&headers, &token, ""))
}

/// `DELETE`: forgets the session.
pub(super) async fn end(headers: HeaderMap) -> impl IntoResponse {
    answer(&headers, "", "; Max-Age=0")
}

fn answer(headers: &HeaderMap, value: &str, more: &str) -> Response {
    // Browsers say with POST and DELETE where their page came from, also through a proxy that ends TLS.
    let tls = headers
        .get(header::ORIGIN)
        .is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let secure = if tls { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={value}; Path=/api/; HttpOnly; SameSite=Strict{secure}{more}");
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response()
}

fn is_cookie_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

/// The token of the session that a request belongs to, if it comes from the dashboard itself.
pub(super) fn token_of<'a>(method: &Method, headers: &'a HeaderMap) -> Option<&'a str> {
    if !is_from_here(method, headers) {
        return None;
    }
    headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE && !value.is_empty()).then_some(value))
}

/// Whether the page that asks is one of this host, or nobody's (an address typed in, a bookmark) and only reads.
pub(super) fn is_from_here(method: &Method, headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match site {
        Some(b"same-origin") => true,
        Some(b"none") | None => reads,
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_session_counts_only_for_the_dashboard_itself() {
        let cookie = ("cookie", "a=b; scriptscope-session=abc.def; c=d");
        for (method, site, counts) in [
            (Method::GET, Some("same-origin"), true),
            (Method::POST, Some("same-origin"), true),
            (Method::GET, Some("none"), true),
            (Method::GET, None, true),
            (Method::GET, Some("same-site"), false),
            (Method::GET, Some("cross-site"), false),
            (Method::POST, Some("none"), false),
            (Method::POST, None, false),
        ] {
            let mut sent = vec![cookie];
            sent.extend(site.map(|site| ("sec-fetch-site", site)));
            let sent = headers(&sent);
            let token = token_of(&method, &sent);
            assert_eq!(token, counts.then_some("abc.def"), "{method} {site:?}");
        }
        let ended = headers(&[("cookie", "scriptscope-session=")]);
        assert_eq!(token_of(&Method::GET, &ended), None);
    }

    #[test]
    fn no_other_page_can_read_the_cookie() {
        let at = |origin| answer(&headers(&[("origin", origin)]), "t", "");
        let plain = at("http://localhost:8080").headers()[header::SET_COOKIE].clone();
        assert_eq!(
            plain,
            "scriptscope-session=t; Path=/api/; HttpOnly; SameSite=Strict"
        );
        let tls = at("https://scripts.example").headers()[header::SET_COOKIE].clone();
        assert!(tls.to_str().unwrap().ends_with("; SameSite=Strict; Secure"));
    }
}
