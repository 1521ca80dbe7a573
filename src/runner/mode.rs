//! Whether a caller waits for its run.

use axum::http::{HeaderMap, Uri};

use super::{query::parameter, refusal::Refusal};

/// How a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The answer is the result.
    Wait,
    /// The answer comes at once and says where to ask for the result.
    Accept {
        /// Asked for by the header `Prefer`, which then is answered.
        preferred: bool,
    },
}

impl Mode {
    /// What the query (`mode=async`) or the header `Prefer: respond-async` (RFC 7240) ask for; the query wins.
    pub fn of(uri: &Uri, headers: &HeaderMap) -> Result<Self, Refusal> {
        match parameter(uri, "mode").as_deref() {
            Some("async") => Ok(Self::Accept { preferred: false }),
            Some("sync") => Ok(Self::Wait),
            Some(other) => Err(Refusal::mode(other)),
            None if prefers_async(headers) => Ok(Self::Accept { preferred: true }),
            None => Ok(Self::Wait),
        }
    }
}

fn prefers_async(headers: &HeaderMap) -> bool {
    let preferences = headers.get_all("prefer").iter().filter_map(|v| v.to_str().ok());
    preferences
        .flat_map(|text| text.split(','))
        .filter_map(|preference| preference.split(';').next())
        .any(|name| name.trim().eq_ignore_ascii_case("respond-async"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_says_whether_it_waits() {
        let mode = |path: &str, prefer: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for text in prefer {
                headers.append("prefer", text.parse().unwrap());
            }
            Mode::of(&path.parse().unwrap(), &headers).map_err(|refusal| refusal.code)
        };
        let accept = |preferred| Ok(Mode::Accept { preferred });
        assert_eq!(mode("/f", &[]), Ok(Mode::Wait));
        assert_eq!(mode("/f?mode=async", &[]), accept(false));
        assert_eq!(mode("/f?other=1&mode=sync", &["respond-async"]), Ok(Mode::Wait));
        assert_eq!(mode("/f", &["wait=5, Respond-Async; x=1"]), accept(true));
        assert_eq!(mode("/f", &["return=minimal", "respond-async"]), accept(true));
        assert_eq!(mode("/f", &["respond-asynchronously"]), Ok(Mode::Wait));
        assert_eq!(mode("/f?mode=later", &[]), Err("InvalidMode"));
    }
}
