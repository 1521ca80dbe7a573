//! The kubeconfig: which cluster, whose credentials, which namespace.

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::sync::OnceCell;

use super::{args::Place, error::CliError};

/// The cluster that the flags name; the kubeconfig is read when it is first needed.
pub struct Cluster {
    place: Place,
    config: OnceCell<Config>,
}

impl Cluster {
    /// Of these flags.
    pub fn new(place: Place) -> Self {
        Self {
            place,
            config: OnceCell::new(),
        }
    }

    /// The flags.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The kubeconfig's word.
    pub async fn config(&self) -> Result<&Config, CliError> {
        self.config.get_or_try_init(|| read(&self.place)).await
    }

    /// A client of the API server.
    pub async fn client(&self) -> Result<Client, CliError> {
        Ok(Client::try_from(self.config().await?.clone())?)
    }

    /// The namespace of scripts.
    pub async fn namespace(&self) -> Result<String, CliError> {
        if let Some(namespace) = &self.place.namespace {
            return Ok(namespace.clone());
        }
        if self.place.server.is_some() && self.place.token_file.is_some() {
            return Err(CliError::Usage(
                "--namespace is needed with --server and --token-file, which use no kubeconfig".to_owned(),
            ));
        }
        Ok(self.config().await?.default_namespace.clone())
    }
}

async fn read(place: &Place) -> Result<Config, CliError> {
    let options = KubeConfigOptions {
        context: place.context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = match &place.kubeconfig {
        Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
        None => match Config::from_kubeconfig(&options).await {
            Ok(config) => config,
            // Within a pod there may be none.
            Err(error) if place.context.is_none() => Config::incluster().map_err(|_| error)?,
            Err(error) => return Err(error.into()),
        },
    };
    let who = &config.auth_info;
    if who.impersonate.is_some() || who.impersonate_groups.is_some() || who.impersonate_uid.is_some() {
        return Err(CliError::Failed(
            "the kubeconfig's user impersonates another one, whom the operator can not be shown; use a context with that user's own credentials"
                .to_owned(),
        ));
    }
    Ok(config)
}
