//! The page, embedded in the binary.

use axum::{
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use rust_embed::RustEmbed;

use super::guard;

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/ui/plain"]
struct Page;

/// A file of the page; the fallback of all routes.
pub(super) async fn serve(uri: Uri, headers: HeaderMap) -> Response {
    let path = match uri.path() {
        "/" => "index.html",
        path => path.trim_start_matches('/'),
    };
    let Some(file) = Page::get(path) else {
        return guard::no_route().await.into_response();
    };
    let tag = format!(
        "\"{}\"",
        file.metadata
            .sha256_hash()
            .iter()
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    );
    let caching = [(header::CACHE_CONTROL, "no-cache"), (header::ETAG, &*tag)];
    if headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|v| v.as_bytes() == tag.as_bytes())
    {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    let kind = match path.rsplit_once('.').map(|(_, ext)| ext) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    (caching, [(header::CONTENT_TYPE, kind)], file.data).into_response()
}
