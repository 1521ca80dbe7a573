//! Looks after the runner of one version: starts it again when it ends by itself, and ends it when it is told to.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::sleep,
};
use uuid::Uuid;

use super::{
    calls::Target,
    instance::{Ended, Event, Instance, Place, ready, tell_stored},
    recovery,
    shared::{Order, Shared},
};
use crate::{
    api::labels,
    model::Deployment,
    runner::{EXIT_UNUSABLE, Function},
    store::PodRecord,
};

/// Pauses before a runner is started again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A runner that served for so long is started again without a pause.
const STEADY: Duration = Duration::from_secs(30);
/// So many starts that fail for want of something else than a usable script make a version fail.
const STARTS: u32 = 3;
/// Reasons of runs that their runner did not end.
const UNDEPLOYED: (&str, &str) = ("Undeployed", "scriptscope dev was told to end at once");
const LOST: &str = "LostContact";

/// A version that takes calls.
pub struct Ready {
    /// Its functions.
    pub functions: Vec<Function>,
    /// Where it takes calls.
    pub target: Arc<Target>,
}

/// A version whose runner is looked after.
pub struct Version {
    /// Its number.
    pub number: i64,
    order: watch::Sender<Order>,
    task: JoinHandle<()>,
}

impl Version {
    /// Starts a version. The receiver gets the word that it takes calls, or why it can not.
    pub fn start(
        shared: &Arc<Shared>,
        deployment: &Deployment,
        place: Place,
    ) -> (Self, oneshot::Receiver<Result<Ready, String>>) {
        let (order, orders) = watch::channel(Order::Serve);
        let (told, tells) = oneshot::channel();
        let uid = Uuid::now_v7().to_string();
        let supervisor = Supervisor {
            pod: PodRecord {
                name: format!("{}-v{}", shared.script.name, deployment.version),
                uid,
                container: labels::CONTAINER.to_owned(),
                script: shared.script.clone(),
                version: deployment.version,
                deployment_id: deployment.deployment_id.clone(),
            },
            place,
            orders,
            everybodys: shared.order.subscribe(),
            told: Some(told),
            shared: Arc::clone(shared),
        };
        let version = Self {
            number: deployment.version,
            order,
            task: shared.supervisors.spawn(supervisor.run()),
        };
        (version, tells)
    }

    /// Lets its runs end, and waits for its own end.
    pub async fn end(self) {
        self.order.send_replace(Order::Drain);
        let _ = self.task.await;
    }
}

struct Supervisor {
    shared: Arc<Shared>,
    pod: PodRecord,
    place: Place,
    orders: watch::Receiver<Order>,
    everybodys: watch::Receiver<Order>,
    told: Option<oneshot::Sender<Result<Ready, String>>>,
}

impl Supervisor {
    async fn run(mut self) {
        let mut pause = PAUSE.0;
        for restart in 0.. {
            let began = Instant::now();
            let ended = match self.serve(restart).await {
                Ok(ended) => ended,
                Err(error) => Ended {
                    status: None,
                    reason: error.to_string(),
                },
            };
            if self.order() > Order::Serve {
                break;
            }
            let is_unusable = ended.status.and_then(|status| status.code()) == Some(EXIT_UNUSABLE);
            if (is_unusable || restart + 1 >= STARTS)
                && let Some(told) = self.told.take()
            {
                let _ = told.send(Err(why(&ended)));
                break;
            }
            if self.told.is_none() {
                let text = format!(
                    "The runner of version {} {}; starting it again.",
                    self.pod.version,
                    why(&ended)
                );
                self.shared.printer.problem(&text).await;
            }
            if began.elapsed() > STEADY {
                pause = PAUSE.0;
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.changed(Order::Serve) => break,
            }
            pause = (pause * 2).min(PAUSE.1);
        }
        self.settle().await;
        // Whatever is in the way goes with the folder that this one lies in.
        let _ = tokio::fs::remove_dir_all(&self.place.folder).await;
    }

    fn order(&self) -> Order {
        (*self.orders.borrow()).max(*self.everybodys.borrow())
    }

    /// Ready when the order is beyond this one.
    async fn changed(&mut self, known: Order) {
        let Self {
            orders, everybodys, ..
        } = self;
        tokio::select! {
            () = beyond(orders, known) => {}
            () = beyond(everybodys, known) => {}
        }
    }

    /// One runner, from its start to its end.
    async fn serve(&mut self, restart: u32) -> std::io::Result<Ended> {
        if restart == 0 {
            let registered = self.shared.store.register_pod(&self.pod).await;
            registered.map_err(std::io::Error::other)?;
        }
        let shared = Arc::clone(&self.shared);
        let mut instance = Instance::start(&shared, &self.pod, &self.place, restart).await?;
        let address = instance.address;
        let target = Target::new(address);
        let mut is_ready = false;
        let mut readiness = pin!(ready(&shared.http, address));
        let mut known = Order::Serve;
        let status = loop {
            tokio::select! {
                event = instance.event() => match event {
                    Event::Exited(status) => break status,
                    Event::LastRecordStored { token } => {
                        let http = shared.http.clone();
                        tokio::spawn(async move { tell_stored(&http, address, token).await });
                    }
                },
                functions = &mut readiness, if !is_ready && known == Order::Serve => {
                    is_ready = true;
                    self.take_calls(functions, &target);
                }
                () = self.changed(known) => {
                    known = self.order();
                    match known {
                        Order::Serve => {}
                        Order::Drain => instance.drain(),
                        Order::Cut => instance.cut(),
                        Order::Kill => instance.kill(),
                    }
                }
            }
        };
        shared.calls.remove(&target);
        let ended = instance.conclude(status).await;
        let (reason, message) = match known {
            Order::Serve => (LOST, format!("the runner {}", why(&ended))),
            _ => (UNDEPLOYED.0, UNDEPLOYED.1.to_owned()),
        };
        let closed = recovery::close_runs(&*shared.store, &self.pod, reason, &message).await;
        if let Err(error) = closed {
            tracing::warn!(%error, "Runs in progress of a runner that has ended could not be ended.");
        }
        Ok(ended)
    }

    /// The first time whoever waits is told; after that calls come at once.
    fn take_calls(&mut self, functions: Vec<Function>, target: &Arc<Target>) {
        let target = Arc::clone(target);
        match self.told.take() {
            Some(told) => drop(told.send(Ok(Ready { functions, target }))),
            None => drop(self.shared.calls.switch(target)),
        }
    }

    async fn settle(&self) {
        let (reason, message) = UNDEPLOYED;
        let settled = recovery::settle(&*self.shared.store, &self.pod, reason, message).await;
        if let Err(error) = settled {
            tracing::warn!(%error, "The end of a version could not be stored.");
        }
    }
}

/// Ready when the order is beyond this one; never where nobody can give one any more.
async fn beyond(orders: &mut watch::Receiver<Order>, known: Order) {
    if orders.wait_for(|order| *order > known).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn why(ended: &Ended) -> String {
    let is_unusable = ended.status.and_then(|status| status.code()) == Some(EXIT_UNUSABLE);
    match (&ended.status, &*ended.reason) {
        (Some(_), reason) if is_unusable && !reason.is_empty() => reason.to_owned(),
        (Some(status), "") => format!("ended by itself ({status})"),
        (Some(status), reason) => format!("ended by itself ({status}): {reason}"),
        (None, reason) => format!("could not be started: {reason}"),
    }
}
