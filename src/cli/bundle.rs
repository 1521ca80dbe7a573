//! `support-bundle`: what somebody who helps needs to see, in one file, without secrets.

use std::{
    fmt::Debug,
    fs::File,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet},
        coordination::v1::Lease,
        core::v1::{Event, PersistentVolumeClaim, Pod, Service},
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, LogParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    CliError,
    args::Place,
    cluster::Cluster,
    doctor::{Facts, fetch, findings, health_of, report, system_pods},
    output::plain,
    redact,
};
use crate::api::{CustomScript, ScriptExport};

/// Lines of each log that are taken, the last ones.
const LINES: i64 = 5_000;
/// Bytes of each log, at most.
const LOG_BYTES: i64 = 4 << 20;
/// Pods whose logs are taken.
const PODS: usize = 50;
/// Objects of a kind, at most.
const OBJECTS: u32 = 1_000;

/// Arguments of `support-bundle`.
#[derive(clap::Args, Clone, Debug)]
pub struct BundleArgs {
    /// The file to write. Default: scriptscope-support-TIME.tar.gz in this folder.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Without the logs of operator and agents.
    #[arg(long)]
    no_logs: bool,
    #[command(flatten)]
    place: Place,
}

/// A bundle that is being written. What was not redacted can not be put in.
struct Bundle<W: Write> {
    archive: tar::Builder<GzEncoder<W>>,
    folder: String,
    time: u64,
    /// What could not be had, and why.
    missing: Vec<String>,
}

impl<W: Write> Bundle<W> {
    fn new(to: W, now: Timestamp) -> Self {
        Self {
            archive: tar::Builder::new(GzEncoder::new(to, Compression::default())),
            folder: format!("scriptscope-support-{}", stamp(now)),
            time: now.as_second().unsigned_abs(),
            missing: Vec::new(),
        }
    }

    /// Adds an object.
    fn object(&mut self, name: &str, mut value: Value) -> io::Result<()> {
        redact::object(&mut value);
        let text = serde_json::to_string_pretty(&value)?;
        self.bytes(name, text.as_bytes())
    }

    /// Adds a text.
    fn text(&mut self, name: &str, text: &str) -> io::Result<()> {
        self.bytes(name, redact::text(text).as_bytes())
    }

    /// Adds what could be had, or notes why it could not.
    fn objects<T: Serialize>(&mut self, name: &str, found: Result<T, String>) -> io::Result<()> {
        match found {
            Ok(found) => self.object(name, serde_json::to_value(found)?),
            Err(why) => {
                self.lacks(name, &why);
                Ok(())
            }
        }
    }

    fn lacks(&mut self, name: &str, why: &str) {
        self.missing.push(redact::text(&format!("{name}: {why}")));
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.time);
        let path = format!("{}/{name}", self.folder);
        self.archive.append_data(&mut header, path, bytes)
    }

    fn finish(mut self) -> io::Result<(W, Vec<String>)> {
        let missing = std::mem::take(&mut self.missing);
        self.bytes("missing.txt", missing.join("\n").as_bytes())?;
        Ok((self.archive.into_inner()?.finish()?, missing))
    }
}

fn stamp(now: Timestamp) -> String {
    now.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// Writes one.
pub async fn bundle(args: BundleArgs) -> Result<(), CliError> {
    let now = Timestamp::now();
    let path = args
        .output
        .unwrap_or_else(|| PathBuf::from(format!("scriptscope-support-{}.tar.gz", stamp(now))));
    let cluster = Cluster::new(args.place);
    let client = cluster.client().await?;
    let facts = Box::pin(fetch(&cluster)).await?;
    // For its owner alone, and never in the place of another file.
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| CliError::Failed(format!("--output {}: {error}", path.display())))?;
    let filled = fill(Bundle::new(file, now), &cluster, &client, &facts, !args.no_logs).await;
    let (file, missing) = match filled {
        Ok(done) => done,
        Err(error) => {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
    };
    let bytes = file.metadata()?.len();
    for what in &missing {
        anstream::eprintln!("not in it: {}", plain(what));
    }
    anstream::eprintln!(
        "{} has {bytes} bytes. Values of variables, sources, Secrets and what looks like a token are left out; names of scripts \
         and pods and their messages are in it. Look through it before you send it.",
        plain(&path.display().to_string())
    );
    Ok(())
}

async fn fill<W: Write>(
    mut bundle: Bundle<W>,
    cluster: &Cluster,
    client: &Client,
    facts: &Facts,
    with_logs: bool,
) -> Result<(W, Vec<String>), CliError> {
    let system = cluster.place().system_namespace.as_str();
    let scope = cluster.place().namespace.as_deref();
    let server = facts.server.as_ref().ok();
    bundle.object(
        "versions.json",
        json!({
            "command": facts.command,
            "kubernetes": server.map(|server| &server.version),
            "operators": facts.operators.as_ref().ok(),
            "made": Timestamp::now(),
        }),
    )?;
    bundle.object("doctor.json", report(&findings(facts)))?;
    bundle.object("facts.json", serde_json::to_value(facts)?)?;
    if facts.server.is_err() {
        bundle.lacks("everything else", "the API server can not be reached");
        return Ok(bundle.finish()?);
    }
    bundle.objects("customscripts.json", list::<CustomScript>(client, scope).await)?;
    bundle.objects("scriptexports.json", list::<ScriptExport>(client, scope).await)?;
    let here = Some(system);
    bundle.objects("system/deployments.json", list::<Deployment>(client, here).await)?;
    bundle.objects("system/replicasets.json", list::<ReplicaSet>(client, here).await)?;
    bundle.objects("system/daemonsets.json", list::<DaemonSet>(client, here).await)?;
    bundle.objects("system/services.json", list::<Service>(client, here).await)?;
    bundle.objects(
        "system/claims.json",
        list::<PersistentVolumeClaim>(client, here).await,
    )?;
    bundle.objects("system/leases.json", list::<Lease>(client, here).await)?;
    bundle.objects("system/events.json", list::<Event>(client, here).await)?;
    let pods = match system_pods(client, system).await {
        Ok(pods) => pods,
        Err(why) => {
            bundle.lacks("system/pods.json", &why);
            Vec::new()
        }
    };
    bundle.object("system/pods.json", serde_json::to_value(&pods)?)?;
    let is_operator = |pod: &Pod| {
        pod.labels()
            .get("app.kubernetes.io/component")
            .map(String::as_str)
            == Some("operator")
    };
    for pod in pods.iter().filter(|pod| is_operator(pod)) {
        let name = format!("metrics/{}.txt", pod.name_any());
        match health_of(client, system, pod).await {
            Ok((status, readyz, metrics)) => {
                bundle.text(&name, &format!("# readyz: {status} {}\n{metrics}", readyz.trim()))?;
            }
            Err(why) => bundle.lacks(&name, &why),
        }
    }
    if with_logs {
        if pods.len() > PODS {
            bundle.lacks("logs", &format!("those of {} further pods", pods.len() - PODS));
        }
        // Operators first: there are few, and they know most.
        let (first, second): (Vec<&Pod>, Vec<&Pod>) = pods.iter().partition(|pod| is_operator(pod));
        for pod in first.into_iter().chain(second).take(PODS) {
            logs(&mut bundle, client, system, pod).await?;
        }
    }
    Ok(bundle.finish()?)
}

/// The objects of a kind in a namespace, or in all.
async fn list<K>(client: &Client, namespace: Option<&str>) -> Result<Vec<K>, String>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let found = api.list(&ListParams::default().limit(OBJECTS)).await;
    found
        .map(|found| found.items)
        .map_err(|error| CliError::from(error).to_string())
}

/// The last lines of a pod's containers, and of those before their last restart.
async fn logs<W: Write>(
    bundle: &mut Bundle<W>,
    client: &Client,
    system: &str,
    pod: &Pod,
) -> Result<(), CliError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), system);
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    for container in statuses {
        for previous in [false, true] {
            if previous && container.restart_count == 0 {
                continue;
            }
            let name = format!(
                "logs/{}/{}{}.log",
                pod.name_any(),
                container.name,
                if previous { ".previous" } else { "" }
            );
            let parameters = LogParams {
                container: Some(container.name.clone()),
                previous,
                tail_lines: Some(LINES),
                limit_bytes: Some(LOG_BYTES),
                timestamps: true,
                ..LogParams::default()
            };
            match api.logs(&pod.name_any(), &parameters).await {
                Ok(text) => bundle.text(&name, &text)?,
                Err(error) => bundle.lacks(&name, &CliError::from(error).to_string()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read};

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn what_is_put_in_is_readable_and_without_secrets() {
        let now = "2026-11-20T12:00:00Z".parse().unwrap();
        let mut bundle = Bundle::new(Vec::new(), now);
        let pods = json!([{"spec": {"containers": [{"env": [{"name": "PASSWORD", "value": "hush"}]}]}}]);
        bundle.object("system/pods.json", pods).unwrap();
        bundle
            .text(
                "logs/a/b.log",
                "can not reach postgres://u:hush@db/x\nnext line\n",
            )
            .unwrap();
        bundle
            .objects::<Value>(
                "customscripts.json",
                Err("at https://me:hush@server: forbidden".into()),
            )
            .unwrap();
        let (bytes, missing) = bundle.finish().unwrap();
        assert_eq!(missing.len(), 1);
        let mut found = BTreeMap::new();
        for entry in tar::Archive::new(GzDecoder::new(&bytes[..])).entries().unwrap() {
            let mut entry = entry.unwrap();
            assert_eq!(entry.header().mode().unwrap(), 0o600);
            let path = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert!(!text.contains("hush"), "{path}: {text}");
            found.insert(path, text);
        }
        let of = |name: &str| &found[&format!("scriptscope-support-20261120T120000Z/{name}")];
        assert!(of("system/pods.json").contains("PASSWORD"));
        assert!(of("logs/a/b.log").ends_with("db/x\nnext line\n"));
        assert!(
            of("missing.txt").contains("customscripts.json"),
            "{}",
            of("missing.txt")
        );
    }
}
