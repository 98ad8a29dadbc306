//! A TCP proxy in front of any address that breaks connections at a byte: ends, resets, stalls, slows, corrupts. The
//! faults stand in a plan that is given before; nothing is random unless the seed says so. Must not know HTTP.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::upstream::{Cut, Gate};

/// What happens to one direction of a connection.
#[derive(Clone, Debug, Default)]
pub struct Fault {
    /// Ends both directions before this byte.
    pub cut: Option<(u64, Cut)>,
    /// Holds the direction at this byte until the gate opens.
    pub stall: Option<(u64, Gate)>,
    /// Flips a bit of this byte.
    pub corrupt: Option<u64>,
    /// Passes at most so many bytes at a time.
    pub piece: Option<usize>,
}

/// What happens to one connection.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// From the server to the client.
    pub down: Fault,
    /// From the client to the server.
    pub up: Fault,
}

/// A running proxy; it ends when dropped.
pub struct Chaos {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    target: SocketAddr,
    plans: Mutex<Plans>,
    connections: AtomicU64,
    down_bytes: AtomicU64,
    up_bytes: AtomicU64,
}

#[derive(Default)]
struct Plans {
    next: std::collections::VecDeque<Plan>,
    standing: Plan,
}

impl Chaos {
    /// A proxy on a port of its own that harms nothing yet.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            target,
            plans: Mutex::default(),
            connections: AtomicU64::new(0),
            down_bytes: AtomicU64::new(0),
            up_bytes: AtomicU64::new(0),
        });
        let task = tokio::spawn(accept(Arc::clone(&shared), listener));
        Self { address, shared, task }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Plans the next connection that has no plan yet.
    pub fn next(&self, plan: Plan) {
        self.shared.plans.lock().expect("no holder of this lock panics").next.push_back(plan);
    }

    /// Plans every connection that [`Chaos::next`] does not.
    pub fn always(&self, plan: Plan) {
        self.shared.plans.lock().expect("no holder of this lock panics").standing = plan;
    }

    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Bytes passed from the server to clients.
    #[must_use]
    pub fn down_bytes(&self) -> u64 {
        self.shared.down_bytes.load(Ordering::SeqCst)
    }

    /// Bytes passed from clients to the server.
    #[must_use]
    pub fn up_bytes(&self) -> u64 {
        self.shared.up_bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Numbers for faults at places that nobody chose: the same seed gives the same ones.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let plan = {
            let mut plans = shared.plans.lock().expect("no holder of this lock panics");
            plans.next.pop_front().unwrap_or_else(|| plans.standing.clone())
        };
        let shared = Arc::clone(&shared);
        // A broken connection is what a proxy like this is for.
        connections.spawn(async move { drop(pass(&shared, client, plan).await) });
    }
}

async fn pass(shared: &Shared, client: TcpStream, plan: Plan) -> io::Result<()> {
    let server = TcpStream::connect(shared.target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut client_read, mut client_write) = client.into_split();
    let (mut server_read, mut server_write) = server.into_split();
    let cut = {
        let down = direction(&mut server_read, &mut client_write, plan.down, &shared.down_bytes);
        let up = direction(&mut client_read, &mut server_write, plan.up, &shared.up_bytes);
        tokio::pin!(down, up);
        // A direction that just ends leaves the other one going; a cut ends both.
        let first = tokio::select! {
            ended = &mut down => ended.map(|cut| (cut, true)),
            ended = &mut up => ended.map(|cut| (cut, false)),
        };
        match first? {
            (Some(cut), _) => Some(cut),
            (None, true) => up.await?,
            (None, false) => down.await?,
        }
    };
    let (client, server) = (whole(client_read, client_write), whole(server_read, server_write));
    if cut == Some(Cut::Rst) {
        client.set_zero_linger()?;
        server.set_zero_linger()?;
    }
    Ok(())
}

/// Copies until the end, which it passes on, or until the cut, which it returns.
async fn direction(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    fault: Fault,
    count: &AtomicU64,
) -> io::Result<Option<Cut>> {
    let mut piece = vec![0; fault.piece.unwrap_or(16 * 1024)];
    let mut at = 0_u64;
    let mut stall = fault.stall;
    loop {
        if let Some((_, gate)) = stall.take_if(|(stall, _)| *stall <= at) {
            gate.pass().await;
        }
        if let Some((_, how)) = fault.cut.filter(|(cut, _)| *cut <= at) {
            return Ok(Some(how));
        }
        let limits = fault.cut.map(|(cut, _)| cut).into_iter().chain(stall.as_ref().map(|(stall, _)| *stall));
        let room = limits.map(|limit| limit - at).min().unwrap_or(u64::MAX);
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(piece.len());
        let read = from.read(&mut piece[..room]).await?;
        if read == 0 {
            to.shutdown().await?;
            return Ok(None);
        }
        let passed = at..at + read as u64;
        if let Some(bad) = fault.corrupt.filter(|bad| passed.contains(bad)) {
            piece[usize::try_from(bad - at).expect("within a piece")] ^= 1;
        }
        to.write_all(&piece[..read]).await?;
        count.fetch_add(read as u64, Ordering::SeqCst);
        at = passed.end;
    }
}

fn whole(read: OwnedReadHalf, write: OwnedWriteHalf) -> TcpStream {
    read.reunite(write).expect("both halves are of one stream")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{End, Request, fetch};
    use crate::image::Object;
    use crate::upstream::Upstream;

    async fn through(plan: Plan) -> (End, usize) {
        let upstream = Upstream::start().await;
        let blob = Object::noise(1, 100_000);
        upstream.push_blob("a", &blob);
        let chaos = Chaos::start(upstream.address()).await;
        chaos.next(plan);
        let reply = fetch(chaos.address(), Request::get(&format!("/v2/a/blobs/{}", blob.digest))).await;
        assert_eq!(chaos.connections(), 1);
        (reply.end, reply.body.len())
    }

    #[tokio::test]
    async fn without_a_plan_everything_passes() {
        assert_eq!(through(Plan::default()).await, (End::Whole, 100_000));
    }

    #[tokio::test]
    async fn connections_are_cut_as_planned() {
        let cut =
            |how| Plan { down: Fault { cut: Some((50_000, how)), ..Fault::default() }, ..Plan::default() };
        let (end, length) = through(cut(Cut::Fin)).await;
        assert!(end == End::Fin && (49_000..50_000).contains(&length), "{end:?} {length}");
        assert_eq!(through(cut(Cut::Rst)).await.0, End::Rst);
    }

    #[test]
    fn dice_fall_alike_for_a_seed() {
        let mut dice = Dice::new(3);
        let first: Vec<u64> = (0..5).map(|_| dice.below(100)).collect();
        let mut again = Dice::new(3);
        assert_eq!(first, (0..5).map(|_| again.below(100)).collect::<Vec<_>>());
    }
}
