//! Connections: how many, and how long they may dawdle.

use std::{net::IpAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, http::Request};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::web::Tls;

/// Whom a request's connection is with; each request has it as an extension.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Connections at once; further ones wait to be accepted.
const CONNECTIONS: usize = 512;
/// How long the head of a request may take to arrive.
const HEAD: Duration = Duration::from_secs(15);
/// Buffer of a connection, which the head of a request must fit into.
const BUFFER: usize = 64 << 10;
/// How long requests may go on after the shutdown began.
const GRACE: Duration = Duration::from_secs(10);
/// Pause after a connection could not be accepted, which is mostly for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves HTTP/1.1 on `listener` until `shutdown`; requests under way then have a few seconds to end.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    serve_over(listener, None, router, HEAD, shutdown).await;
}

/// The same for clients that keep connections for later: they may be idle, or send the head of a request, for `head`.
pub async fn serve_patiently(
    listener: TcpListener,
    router: Router,
    head: Duration,
    shutdown: CancellationToken,
) {
    serve_over(listener, None, router, head, shutdown).await;
}

/// The same over TLS.
pub async fn serve_tls(listener: TcpListener, tls: Tls, router: Router, shutdown: CancellationToken) {
    serve_over(listener, Some(tls), router, HEAD, shutdown).await;
}

async fn serve_over(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    head: Duration,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accept = async {
            // Closed never: nobody closes it.
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let peer = Peer(peer.ip());
                // Answers are small and written at once; waiting for more only delays them.
                let _ = stream.set_nodelay(true);
                let (tls, router, shutdown) = (tls.clone(), router.clone(), shutdown.clone());
                connections.spawn(async move {
                    let _place = place;
                    match tls {
                        None => connection(stream, peer, router, head, shutdown).await,
                        Some(tls) => {
                            if let Some((stream, router)) = tls.greet(stream, router).await {
                                connection(stream, peer, router, head, shutdown).await;
                            }
                        }
                    }
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
    shutdown: CancellationToken,
) {
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request
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
