use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use axum::http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// As much of an API server as an election talks to: one Lease.
#[derive(Default)]
struct Server {
    lease: Mutex<Option<Value>>,
}

/// The way of one process to it, which can be cut.
#[derive(Clone)]
struct Way {
    api: Arc<Server>,
    cut: Arc<AtomicBool>,
}

impl Server {
    fn answer(&self, method: &Method, sent: Value) -> (u16, Value) {
        let mut lease = self.lease.lock().unwrap();
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        let refused = |code: u16| {
            let reason = if code == 404 { "NotFound" } else { "Conflict" };
            let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason});
            (code, status)
        };
        match (method, &*lease) {
            (&Method::GET, Some(lease)) => return (200, lease.clone()),
            (&Method::GET | &Method::PUT, None) => return refused(404),
            (&Method::POST, Some(_)) => return refused(409),
            (&Method::PUT, Some(lease)) if version(lease) != version(&sent) => return refused(409),
            _ => {}
        }
        let next = lease
            .as_ref()
            .and_then(version)
            .map_or(1, |n| n.parse::<u64>().unwrap() + 1);
        let mut stored = sent;
        stored["metadata"]["resourceVersion"] = json!(next.to_string());
        *lease = Some(stored.clone());
        (200, stored)
    }

    fn holder(&self) -> Option<String> {
        let lease = self.lease.lock().unwrap();
        lease.as_ref()?["spec"]["holderIdentity"]
            .as_str()
            .map(str::to_owned)
    }
}

impl Way {
    fn to(api: &Arc<Server>) -> Self {
        Self {
            api: Arc::clone(api),
            cut: Arc::default(),
        }
    }

    fn client(&self) -> Client {
        let way = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let way = way.clone();
            async move {
                if way.cut.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let sent = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let (code, answer) = way.api.answer(&parts.method, sent);
                let mut response = Response::new(axum::body::Body::from(answer.to_string()));
                *response.status_mut() = code.try_into().unwrap();
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        Client::new(service, "system")
    }

    fn candidate(&self, name: &str) -> Candidacy {
        Candidacy::begin(
            &self.client(),
            ("system", Some("operator")),
            Some(name),
            &Metrics::new(),
        )
    }
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

/// Names of those that lead.
fn leading<'a>(candidates: &[(&'a str, &Candidacy)]) -> Vec<&'a str> {
    let leading = candidates
        .iter()
        .filter(|(_, candidacy)| candidacy.leadership().leads());
    leading.map(|(name, _)| *name).collect()
}

#[tokio::test(start_paused = true)]
async fn of_three_one_leads_and_goes_on() {
    let api: Arc<Server> = Arc::default();
    let ways = [Way::to(&api), Way::to(&api), Way::to(&api)];
    let [a, b, c] = [
        ways[0].candidate("a"),
        ways[1].candidate("b"),
        ways[2].candidate("c"),
    ];
    seconds(1).await;
    let first = leading(&[("a", &a), ("b", &b), ("c", &c)]);
    assert_eq!(first.len(), 1, "{first:?}");
    for _ in 0..120 {
        seconds(1).await;
        assert_eq!(leading(&[("a", &a), ("b", &b), ("c", &c)]), first);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_stopped_gives_it_away_at_once() {
    let api: Arc<Server> = Arc::default();
    let (a, b) = (Way::to(&api).candidate("a"), Way::to(&api).candidate("b"));
    seconds(1).await;
    let (leader, other) = if a.leadership().leads() { (a, b) } else { (b, a) };
    seconds(30).await;
    leader.end().await;
    assert_eq!(api.holder(), None);
    seconds(3).await;
    assert!(other.leadership().leads());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_cut_off_gives_up_before_another_takes_over_within_twenty_seconds() {
    let api: Arc<Server> = Arc::default();
    let (ways, mut cut) = ([Way::to(&api), Way::to(&api), Way::to(&api)], Duration::ZERO);
    let [a, b, c] = [
        ways[0].candidate("a"),
        ways[1].candidate("b"),
        ways[2].candidate("c"),
    ];
    seconds(31).await;
    let all = [("a", &a), ("b", &b), ("c", &c)];
    let place = all.iter().position(|(_, one)| one.leadership().leads()).unwrap();
    ways[place].cut.store(true, Ordering::Relaxed);
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cut += Duration::from_millis(100);
        let leading = leading(&all);
        assert!(leading.len() <= 1, "{leading:?} after {cut:?}");
        if leading.first().is_some_and(|name| *name != all[place].0) {
            break;
        }
        assert!(cut < Duration::from_secs(20), "nobody took over");
    }
    // It never leads again, also when the way is whole: its process is to end.
    ways[place].cut.store(false, Ordering::Relaxed);
    seconds(60).await;
    assert!(!all[place].1.leadership().leads());
}

#[tokio::test(start_paused = true)]
async fn a_process_goes_on_with_what_its_pod_held_before_it() {
    let api: Arc<Server> = Arc::default();
    let way = Way::to(&api);
    let before = way.candidate("a");
    seconds(5).await;
    assert!(before.leadership().leads());
    before.task.unwrap().abort();
    let after = way.candidate("a");
    seconds(1).await;
    assert!(after.leadership().leads());
}

#[tokio::test]
async fn the_only_operator_leads_and_asks_nobody() {
    let way = Way::to(&Arc::default());
    way.cut.store(true, Ordering::Relaxed);
    let alone = Candidacy::begin(&way.client(), ("system", None), None, &Metrics::new());
    assert!(alone.leadership().leads());
    alone.end().await;
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn held_by(holder: &str, renewed: i64) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: Some(15),
        renew_time: Some(MicroTime(at(renewed))),
        lease_transitions: Some(4),
        ..LeaseSpec::default()
    }
}

#[test]
fn a_lease_that_nobody_holds_is_taken() {
    let now = Instant::now();
    let taken = View::new("a").next(None, now, at(7)).unwrap();
    assert_eq!(taken.holder_identity.as_deref(), Some("a"));
    assert_eq!(
        (taken.acquire_time, taken.lease_transitions),
        (Some(MicroTime(at(7))), Some(1))
    );
    let given_away = LeaseSpec {
        holder_identity: None,
        ..held_by("b", 1)
    };
    assert!(View::new("a").next(Some(&given_away), now, at(7)).is_some());
}

#[test]
fn anothers_lease_is_taken_only_when_it_has_not_changed_for_its_whole_time() {
    let (mut view, start) = (View::new("a"), Instant::now());
    let after = |seconds| start + Duration::from_secs(seconds);
    // Renewed long ago by its holder's clock, which may be wrong.
    assert!(view.next(Some(&held_by("b", 1)), start, at(9_000)).is_none());
    assert!(view.next(Some(&held_by("b", 1)), after(14), at(9_014)).is_none());
    assert!(
        view.next(Some(&held_by("b", 2)), after(16), at(9_016)).is_none(),
        "it was renewed"
    );
    assert!(view.next(Some(&held_by("b", 2)), after(31), at(9_031)).is_none());
    let taken = view.next(Some(&held_by("b", 2)), after(32), at(9_032)).unwrap();
    assert_eq!(
        (taken.holder_identity.as_deref(), taken.lease_transitions),
        (Some("a"), Some(5))
    );
}

#[test]
fn ones_own_lease_is_renewed_and_is_held_for_less_than_it_lasts() {
    let (mut view, start) = (View::new("a"), Instant::now());
    let own = LeaseSpec {
        acquire_time: Some(MicroTime(at(3))),
        ..held_by("a", 5)
    };
    let renewed = view.next(Some(&own), start, at(8)).unwrap();
    assert_eq!(
        (renewed.acquire_time, renewed.renew_time),
        (Some(MicroTime(at(3))), Some(MicroTime(at(8))))
    );
    assert_eq!(renewed.lease_transitions, Some(4));
    assert!(!view.holds(start), "nothing was written yet");
    view.held = Some(start);
    assert!(view.holds(start + RENEW_WITHIN / 2));
    assert!(!view.holds(start + RENEW_WITHIN));
    assert!(RENEW_WITHIN + TIMEOUT < DURATION);
}

#[tokio::test]
async fn work_is_done_from_the_gain_until_the_loss() {
    let leadership = Leadership::default();
    assert!(!leadership.leads());
    let work = tokio::spawn({
        let leadership = leadership.clone();
        async move { leadership.hold(std::future::pending::<()>()).await }
    });
    leadership.gained.cancel();
    assert!(leadership.leads());
    tokio::task::yield_now().await;
    assert!(!work.is_finished());
    leadership.lost.cancel();
    assert_eq!(work.await.unwrap(), None);
    assert!(!leadership.leads());
    assert_eq!(Leadership::alone().hold(async { 7 }).await, Some(7));
}
