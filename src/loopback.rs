//! Pages that are served on the loopback address, for this machine alone.

use std::process::{Command, Stdio};

use http::{HeaderMap, HeaderName, header};

/// A page of this machine. A page of another site, or a name that was made to point here, has the wrong `Host`, `Origin` or
/// `Sec-Fetch-Site`.
#[derive(Clone, Debug)]
pub struct LocalSite {
    hosts: [String; 2],
}

impl LocalSite {
    /// At this port of the loopback address.
    pub fn new(port: u16) -> Self {
        Self {
            hosts: [format!("127.0.0.1:{port}"), format!("localhost:{port}")],
        }
    }

    /// Whether a request was meant for this address, by a page of this address or by nobody's.
    pub fn takes(&self, headers: &HeaderMap) -> bool {
        let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let host = text(header::HOST).unwrap_or_default();
        let origin = text(header::ORIGIN);
        let site = text(HeaderName::from_static("sec-fetch-site"));
        self.hosts.iter().any(|here| here == host)
            && origin.is_none_or(|origin| origin.strip_prefix("http://") == Some(host))
            && site.is_none_or(|site| matches!(site, "same-origin" | "none"))
    }
}

/// Opens the address in the user's browser, if there is one.
pub fn open(address: &str) {
    let program = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    let opened = Command::new(program)
        .arg(address)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if opened.is_err() {
        anstream::eprintln!("no browser could be started: open the address yourself");
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

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
    fn only_this_machines_pages_are_let_in() {
        let site = LocalSite::new(4000);
        for (pairs, good) in [
            (&[("host", "127.0.0.1:4000")][..], true),
            (&[("host", "localhost:4000"), ("sec-fetch-site", "none")], true),
            (
                &[("host", "localhost:4000"), ("origin", "http://localhost:4000")],
                true,
            ),
            (&[], false),
            (&[("host", "evil.example:4000")], false),
            (&[("host", "127.0.0.1")], false),
            (
                &[("host", "127.0.0.1:4000"), ("origin", "http://evil.example")],
                false,
            ),
            (&[("host", "127.0.0.1:4000"), ("origin", "null")], false),
            (
                &[("host", "127.0.0.1:4000"), ("sec-fetch-site", "cross-site")],
                false,
            ),
            (
                &[("host", "127.0.0.1:4000"), ("sec-fetch-site", "same-site")],
                false,
            ),
        ] {
            assert_eq!(site.takes(&headers(pairs)), good, "{pairs:?}");
        }
    }
}
