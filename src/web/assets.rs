//! The dashboard's files, embedded in the binary with their compressed forms beside them (`app.js`, `app.js.br`,
//! `app.js.gz`); `make ui` makes them.

use axum::{
    http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::guard;

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/ui/dist"]
#[allow_missing = true]
struct Dashboard;

/// Shown where the binary was built without the dashboard.
const NOT_BUILT: &str = include_str!("not_built.html");

/// Files whose names hold a hash of what is in them.
const HASHED: &str = "assets/";

/// A file of the dashboard; the fallback of all routes.
pub(super) async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = file_of(uri.path());
    if !matches!(method, Method::GET | Method::HEAD) {
        return guard::wrong_method().await.into_response();
    }
    let Some(file) = Dashboard::get(path) else {
        if path == "index.html" {
            return ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], NOT_BUILT).into_response();
        }
        return guard::no_route().await.into_response();
    };
    let caching = if path.starts_with(HASHED) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let tag = tag_of(&file);
    let common = [
        (header::CACHE_CONTROL, caching),
        (header::ETAG, &*tag),
        (header::VARY, "accept-encoding"),
    ];
    if headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|v| v.as_bytes() == tag.as_bytes())
    {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let kind = [(header::CONTENT_TYPE, kind_of(path))];
    match compressed(path, &headers) {
        Some((encoding, file)) => (common, kind, [encoding], file.data).into_response(),
        None => (common, kind, file.data).into_response(),
    }
}

/// The file at a path of the page. The dashboard's own places are all one file, which looks at the path itself.
fn file_of(path: &str) -> &str {
    match path {
        "/" | "/scripts" => "index.html",
        path if path.starts_with("/scripts/") => "index.html",
        // The compressed forms are no files of their own.
        path if matches!(path.rsplit('.').next(), Some("br" | "gz")) => "",
        path => path.trim_start_matches('/'),
    }
}

fn tag_of(file: &EmbeddedFile) -> String {
    let hash = file.metadata.sha256_hash();
    let hex = hash
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    // Weak: compressed or not, it is the same file.
    format!("W/\"{hex}\"")
}

/// The smallest form that the reader takes, unless that is the plain one.
fn compressed(path: &str, headers: &HeaderMap) -> Option<((HeaderName, &'static str), EmbeddedFile)> {
    let accepted = headers.get(header::ACCEPT_ENCODING)?.to_str().ok()?;
    [("br", "br"), ("gzip", "gz")]
        .into_iter()
        .find_map(|(encoding, end)| {
            let file = accepts(accepted, encoding).then(|| Dashboard::get(&format!("{path}.{end}")))??;
            Some(((header::CONTENT_ENCODING, encoding), file))
        })
}

fn accepts(accepted: &str, encoding: &str) -> bool {
    accepted.split(',').any(|part| {
        let mut words = part.split(';').map(str::trim);
        let named = words
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case(encoding));
        named && !words.any(|word| matches!(word, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

fn kind_of(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, ext)| ext) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_the_dashboard_is_its_page() {
        for path in [
            "/",
            "/scripts",
            "/scripts/shop/pay",
            "/scripts/shop/pay/runs/run.js",
        ] {
            assert_eq!(file_of(path), "index.html", "{path}");
        }
        assert_eq!(file_of("/assets/app-1a2b.js"), "assets/app-1a2b.js");
        assert_eq!(file_of("/assets/app-1a2b.js.br"), "");
        assert_eq!(file_of("/nothing"), "nothing");
    }

    #[test]
    fn a_reader_gets_only_what_it_can_unpack() {
        assert!(accepts("gzip, deflate, br;q=0.9", "br"));
        assert!(accepts("GZIP", "gzip"));
        for no in ["", "gzip", "brotli", "br;q=0", "br; q=0.0"] {
            assert!(!accepts(no, "br"), "{no}");
        }
    }
}
