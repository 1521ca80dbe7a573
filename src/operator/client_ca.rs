//! Which authorities the cluster takes for client certificates: the API server says so in a `ConfigMap` for servers like
//! this one.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use crate::web::certificates::Authorities;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
const KEY: &str = "client-ca-file";
/// How often it is read; an authority that is taken away ends within this time.
const AGAIN: Duration = Duration::from_secs(30);

/// Keeps the authorities up to date until `shutdown`. While the `ConfigMap` can not be read, those known stay.
pub async fn run(client: Client, authorities: Arc<Authorities>, shutdown: CancellationToken) {
    let maps = Api::<ConfigMap>::namespaced(client, NAMESPACE);
    // What was found last, or why nothing: said once.
    let mut last = None;
    loop {
        let found = match maps.get_opt(NAME).await {
            Ok(map) => Ok(map.and_then(|map| map.data?.remove(KEY)).unwrap_or_default()),
            Err(error) => Err(error.to_string()),
        };
        if last.as_ref() != Some(&found) {
            take(&found, &authorities);
            last = Some(found);
        }
        if shutdown
            .run_until_cancelled(tokio::time::sleep(AGAIN))
            .await
            .is_none()
        {
            return;
        }
    }
}

fn take(found: &Result<String, String>, authorities: &Authorities) {
    match found {
        Err(error) => tracing::warn!(
            %error,
            "The authorities for client certificates can not be read; readers with tokens are not affected."
        ),
        Ok(pem) if pem.is_empty() => {
            authorities.forget();
            tracing::info!("The cluster takes no client certificates.");
        }
        Ok(pem) => match authorities.trust(pem) {
            Ok(()) => tracing::info!("The authorities for client certificates were read."),
            Err(error) => tracing::warn!(%error, "Client certificates are not taken."),
        },
    }
}
