//! Connections to pods through the API server's port-forward, with the user's own rights.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt, api::ListParams};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::CliError;

/// Bytes in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection of any kind.
pub type Stream = Box<dyn Io>;

/// The name of a ready pod with these labels and the number of the first of its ports that has one of these names.
pub async fn ready_pod(
    client: &Client,
    namespace: &str,
    labels: &str,
    ports: &[&str],
    missing: impl Fn(usize) -> String,
) -> Result<(String, u16), CliError> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let found = pods.list(&ListParams::default().labels(labels)).await?.items;
    // The newest: the others may be on their way out.
    let pod = found
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod))
        .max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let Some(pod) = pod else {
        return Err(CliError::Failed(missing(found.len())));
    };
    let port = ports.iter().find_map(|name| port_of(pod, name));
    let port = port.ok_or_else(|| {
        CliError::Failed(format!(
            "pod {} in namespace {namespace} has no port named {}; it may be of an older version of ScriptScope",
            pod.name_any(),
            ports.join(" or ")
        ))
    })?;
    Ok((pod.name_any(), port))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// The number of a port of a pod that has this name.
pub fn port_of(pod: &Pod, name: &str) -> Option<u16> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let port = ports.find(|port| port.name.as_deref() == Some(name))?;
    u16::try_from(port.container_port).ok()
}

/// A connection to a port of a pod.
pub async fn forward(client: &Client, namespace: &str, pod: &str, port: u16) -> Result<Stream, CliError> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let mut forwarder = match pods.portforward(pod, &[port]).await {
        Ok(forwarder) => forwarder,
        Err(kube::Error::UpgradeConnection(error)) => {
            return Err(CliError::Failed(format!(
                "no tunnel to pod {pod} in namespace {namespace}: {error}; it needs the right to create pods/portforward there (docs/cli.md)"
            )));
        }
        Err(error) => return Err(error.into()),
    };
    let refused = || CliError::Failed(format!("no tunnel to port {port} of pod {pod}"));
    let stream = forwarder.take_stream(port).ok_or_else(refused)?;
    let failure = Arc::new(Mutex::new(None));
    if let Some(error) = forwarder.take_error(port) {
        let failure = Arc::clone(&failure);
        tokio::spawn(async move {
            if let Some(error) = error.await {
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        });
    }
    Ok(Box::new(Forwarded {
        stream: Box::new(stream),
        failure,
    }))
}

/// A forwarded connection, which says what the node says when it ends.
struct Forwarded {
    stream: Stream,
    failure: Arc<Mutex<Option<String>>>,
}

impl Forwarded {
    fn failure(&self) -> Option<io::Error> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone().map(io::Error::other)
    }
}

impl AsyncRead for Forwarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        match polled {
            Poll::Ready(Ok(())) if buffer.filled().len() == before => {
                Poll::Ready(self.failure().map_or(Ok(()), Err))
            }
            polled => polled,
        }
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
