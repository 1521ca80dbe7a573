//! Connections: how many, and how long they may dawdle.

mod room;
mod stall;

use std::{net::IpAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use self::{
    room::{Held, Place, Room},
    stall::Stalling,
};
use crate::web::Tls;

/// Whom a request's connection is with; each request has it as an extension.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Buffer of a connection, which the head of a request must fit into.
const BUFFER: usize = 64 << 10;
/// How long requests may go on after the shutdown began.
const GRACE: Duration = Duration::from_secs(10);
/// Pause after a connection could not be accepted, which is mostly for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once. Where there are more, those that wait for a request are closed, the longest idle first; where each
    /// has one, further ones wait to be accepted.
    pub connections: usize,
    /// How long the head of a request may take to arrive, and how long a connection may be idle.
    pub head: Duration,
    /// How long a client may take none of its answer.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            head: Duration::from_secs(15),
            stall: Duration::from_mins(1),
        }
    }
}

/// Serves HTTP/1.1 on `listener` until `shutdown`; requests under way then have a few seconds to end.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    serve_over(listener, None, router, Limits::default(), shutdown).await;
}

/// The same with other limits.
pub async fn serve_within(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    serve_over(listener, None, router, limits, shutdown).await;
}

/// The same for clients that keep connections for later: they may be idle, or send the head of a request, for `head`.
pub async fn serve_patiently(
    listener: TcpListener,
    router: Router,
    head: Duration,
    shutdown: CancellationToken,
) {
    let limits = Limits {
        head,
        ..Limits::default()
    };
    serve_over(listener, None, router, limits, shutdown).await;
}

/// The same over TLS.
pub async fn serve_tls(listener: TcpListener, tls: Tls, router: Router, shutdown: CancellationToken) {
    serve_over(listener, Some(tls), router, Limits::default(), shutdown).await;
}

async fn serve_over(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let room = Arc::new(Room::new(limits.connections));
    let connections = TaskTracker::new();
    loop {
        // A place is taken, and made free if need be, when somebody is there who needs it.
        let accept = async {
            let accepted = listener.accept().await?;
            Ok::<_, std::io::Error>((room.place().await, accepted))
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept => accepted,
        };
        match accepted {
            Ok((place, (stream, peer))) => {
                let peer = Peer(peer.ip());
                // Answers are small and written at once; waiting for more only delays them.
                let _ = stream.set_nodelay(true);
                let stream = Stalling::new(stream, limits.stall);
                let (tls, router, shutdown) = (tls.clone(), router.clone(), shutdown.clone());
                let place = Arc::new(place);
                connections.spawn(async move {
                    let closed = place.closed();
                    let head = limits.head;
                    let serving = async {
                        match tls {
                            None => connection(stream, peer, router, head, &place, shutdown).await,
                            Some(tls) => {
                                if let Some((stream, router)) = tls.greet(stream, router).await {
                                    connection(stream, peer, router, head, &place, shutdown).await;
                                }
                            }
                        }
                    };
                    // Nobody waits for an answer on it.
                    closed.run_until_cancelled(serving).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "A connection could not be accepted.");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
        tracing::warn!("Requests were broken off by the shutdown.");
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    peer: Peer,
    router: Router,
    head: Duration,
    place: &Arc<Place>,
    shutdown: CancellationToken,
) {
    let place = Arc::clone(place);
    let service = tower::service_fn(move |mut request: Request<Incoming>| {
        let busy = place.busy();
        request.extensions_mut().insert(peer);
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            let answer = answer.await?;
            // Busy until the last of the answer is handed over.
            Ok::<_, std::convert::Infallible>(answer.map(|body| Held::new(body, busy)))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "A connection ended with an error.");
    }
}
