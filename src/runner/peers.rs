//! The other runners of the same script, and what one asks another.

use std::{
    net::{IpAddr, SocketAddr},
    sync::OnceLock,
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, Method, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::timeout;

use super::{FREE_PATH, keys::API_KEY, run_id::RunnerTag};

/// Header of a request that one runner has passed on to another; it is not passed on again.
pub const HOP: &str = "x-scriptscope-hop";
/// How long a name may take to be resolved, and another runner to be reached.
const REACH: Duration = Duration::from_secs(2);
/// How long another runner may take to answer: it may have been asked to wait for the end of a run.
const ANSWER: Duration = Duration::from_secs(75);
/// The same for whether it has room, and for asking all of them: a probe waits for it.
const ROOM: Duration = Duration::from_millis(500);
const ROOM_OF_ANY: Duration = Duration::from_millis(1_200);

/// The runners of the script.
#[derive(Debug)]
pub struct Peers {
    /// This runner.
    tag: RunnerTag,
    own: Option<IpAddr>,
    names: Vec<String>,
    port: u16,
    client: OnceLock<reqwest::Client>,
}

/// Another runner can not be asked.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Its name could not be resolved.
    #[error("the names of the script's pods can not be resolved")]
    Names,
    /// It did not answer.
    #[error("it does not answer")]
    Silent(#[from] reqwest::Error),
}

impl Peers {
    /// The runners behind `names`, all on `port`; `own` is this one's address.
    pub fn new(own: Option<IpAddr>, names: Vec<String>, port: u16) -> Self {
        Self {
            tag: RunnerTag::of(own),
            own,
            names,
            port,
            client: OnceLock::new(),
        }
    }

    /// This runner's tag.
    pub fn tag(&self) -> RunnerTag {
        self.tag
    }

    /// Passes a request on to the runner with this tag; none if there is no such runner any more. Only to addresses that
    /// the script's own names stand for: an id may come from anybody.
    pub async fn pass_on(
        &self,
        tag: RunnerTag,
        method: Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Option<Response>, PeerError> {
        let found = self.addresses().await?.into_iter().find(|address| {
            let ip = address.ip().to_canonical();
            Some(ip) != self.own && RunnerTag::of(Some(ip)) == tag
        });
        let Some(address) = found else { return Ok(None) };
        let mut request = self.client()?.request(method, format!("http://{address}{path}"));
        for name in [header::AUTHORIZATION, HeaderName::from_static(API_KEY)] {
            if let Some(value) = headers.get(&name) {
                request = request.header(name, value);
            }
        }
        let answer = request.header(HOP, "1").timeout(ANSWER).send().await?;
        let kept: Vec<_> = [
            header::CONTENT_TYPE,
            header::RETRY_AFTER,
            header::WWW_AUTHENTICATE,
        ]
        .into_iter()
        .filter_map(|name| Some((name.clone(), answer.headers().get(&name)?.clone())))
        .collect();
        let status = answer.status();
        let mut response = (status, Body::from_stream(answer.bytes_stream())).into_response();
        response.headers_mut().extend(kept);
        Ok(Some(response))
    }

    /// Whether any other runner has room for a call.
    pub async fn any_has_room(&self) -> bool {
        timeout(ROOM_OF_ANY, self.ask_for_room()).await.unwrap_or(false)
    }

    async fn ask_for_room(&self) -> bool {
        let (Ok(addresses), Ok(client)) = (self.addresses().await, self.client()) else {
            return false;
        };
        let mut answers: FuturesUnordered<_> = addresses
            .into_iter()
            .filter(|address| Some(address.ip().to_canonical()) != self.own)
            .map(|address| {
                client
                    .get(format!("http://{address}{FREE_PATH}"))
                    .timeout(ROOM)
                    .send()
            })
            .collect();
        while let Some(answer) = answers.next().await {
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return true;
            }
        }
        false
    }

    /// Of all runners, this one included; none where this one does not know its own.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, PeerError> {
        if self.own.is_none() || self.names.is_empty() {
            return Ok(Vec::new());
        }
        let mut all = Vec::new();
        let mut failed = false;
        for name in &self.names {
            match timeout(REACH, tokio::net::lookup_host((name.as_str(), self.port))).await {
                Ok(Ok(found)) => all.extend(found),
                Ok(Err(_)) | Err(_) => failed = true,
            }
        }
        if failed && all.is_empty() {
            return Err(PeerError::Names);
        }
        Ok(all)
    }

    fn client(&self) -> reqwest::Result<&reqwest::Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        // The script's proxies, which its environment may name, are not for this.
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(REACH)
            .pool_max_idle_per_host(1)
            .build()?;
        Ok(self.client.get_or_init(|| client))
    }
}
