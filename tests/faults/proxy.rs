//! A TCP proxy that loses, cuts, delays and stalls what passes through it.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// What happens to the next bytes that pass in one direction.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// So many of them pass, then the connection is gone.
    Cut(usize),
    /// They come later.
    Delay(Duration),
    /// They pass, and the sender's side is closed.
    HalfClose,
    /// Once these bytes have passed, the connection is gone before any answer.
    CutAfter(&'static [u8]),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From who connected.
    Request,
    /// Back to it.
    Answer,
}

#[derive(Default)]
struct Plan {
    target: Option<SocketAddr>,
    /// For requests and for answers.
    faults: [VecDeque<Fault>; 2],
    done: u64,
}

pub struct Proxy {
    pub address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    stalled: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let plan = Arc::new(Mutex::new(Plan::default()));
        let (stalled, watched) = watch::channel(false);
        let task = tokio::spawn(accept(listener, Arc::clone(&plan), watched));
        Ok(Self {
            address,
            plan,
            stalled,
            task,
        })
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        lock(&self.plan)
    }

    /// Where connections go; refused where there is nothing.
    pub fn point_to(&self, target: Option<SocketAddr>) {
        self.plan().target = target;
    }

    /// Lets a fault happen to the next bytes.
    pub fn inject(&self, direction: Direction, fault: Fault) {
        self.plan().faults[direction as usize].push_back(fault);
    }

    /// Nothing passes while this stands.
    pub fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// Ends all faults; says how many have happened.
    pub fn heal(&self) -> u64 {
        self.stall(false);
        let mut plan = self.plan();
        plan.faults = Default::default();
        plan.done
    }
}

fn lock(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn accept(listener: TcpListener, plan: Arc<Mutex<Plan>>, stalled: watch::Receiver<bool>) {
    // Ended with the proxy.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (plan, stalled) = (Arc::clone(&plan), stalled.clone());
        connections.spawn(async move {
            let target = lock(&plan).target;
            let Some(target) = target else { return };
            let Ok(server) = TcpStream::connect(target).await else {
                return;
            };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            // Where one direction ends with an error or a cut, both sides are closed; at a plain end the other goes on.
            let request = pump(from_client, to_server, Direction::Request, &plan, stalled.clone());
            let answer = pump(from_server, to_client, Direction::Answer, &plan, stalled.clone());
            let _ = tokio::try_join!(request, answer);
        });
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    plan: &Mutex<Plan>,
    mut stalled: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut buffer).await?;
        let _ = stalled.wait_for(|stalled| !stalled).await;
        let bytes = &buffer[..count];
        if count == 0 {
            return to.shutdown().await;
        }
        match next(plan, direction, bytes) {
            None => to.write_all(bytes).await?,
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                to.write_all(bytes).await?;
            }
            Some(Fault::Cut(passing)) => {
                to.write_all(&bytes[..passing.min(count)]).await?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            Some(Fault::CutAfter(_)) => {
                to.write_all(bytes).await?;
                to.flush().await?;
                // Long enough for the other side to act on it, short enough for its answer to be lost at times.
                tokio::time::sleep(Duration::from_millis(1)).await;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            Some(Fault::HalfClose) => {
                to.write_all(bytes).await?;
                return to.shutdown().await;
            }
        }
    }
}

/// The fault for these bytes, if it is their turn.
fn next(plan: &Mutex<Plan>, direction: Direction, bytes: &[u8]) -> Option<Fault> {
    let mut plan = lock(plan);
    let faults = &mut plan.faults[direction as usize];
    if let Some(Fault::CutAfter(awaited)) = faults.front()
        && memchr::memmem::find(bytes, awaited).is_none()
    {
        return None;
    }
    let fault = faults.pop_front()?;
    plan.done += 1;
    Some(fault)
}
