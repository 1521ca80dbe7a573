//! The ways of korelogger's lines to the runner: datagrams, and for Node, which has no such sockets, a pipe.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::{self, PipeReader, Read},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram as StdDatagram},
    },
};

use memchr::memchr_iter;
use tokio::{
    io::AsyncReadExt,
    net::{UnixDatagram, unix::pipe},
};

use super::span::{MAX_DATAGRAM, Span};

/// The largest write that is never mixed with another one, in bytes.
const ATOMIC_WRITE: usize = 4096;
/// Digits of a line's id.
const ID_LEN: usize = 24;
/// Bytes of unfinished spans that are kept; a process that ends between two pieces leaves some behind.
const MAX_UNFINISHED: usize = 4 * MAX_DATAGRAM;

/// Where the lines of a worker and of the processes that it starts arrive.
#[derive(Debug)]
pub struct Logs {
    socket: UnixDatagram,
    /// The same socket, to be asked what is there this very moment, which tokio only knows a little later.
    socket_now: StdDatagram,
    datagram: Vec<u8>,
    pipe: Option<LogPipe>,
    /// Spans of the pipe that were read and not yet taken.
    ready: VecDeque<Span>,
}

#[derive(Debug)]
struct LogPipe {
    receiver: pipe::Receiver,
    /// The same pipe, as `socket_now`.
    now: File,
    buffer: Vec<u8>,
    packets: Packets,
}

impl Logs {
    /// A socket of this (abstract) name and, for Node, the pipe of which this is the reading end.
    pub fn new(name: &str, pipe: Option<PipeReader>) -> io::Result<Self> {
        let socket = StdDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket_now: socket.try_clone()?,
            socket: UnixDatagram::from_std(socket)?,
            datagram: vec![0; MAX_DATAGRAM],
            pipe: pipe.map(LogPipe::new).transpose()?,
            ready: VecDeque::new(),
        })
    }

    /// The next line; waits for it. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Span {
        loop {
            if let Some(span) = self.ready.pop_front() {
                return span;
            }
            tokio::select! {
                Ok(length) = self.socket.recv(&mut self.datagram) => {
                    if let Some(span) = parse(&self.datagram, length) {
                        return span;
                    }
                }
                ended = read(&mut self.pipe, &mut self.ready) => {
                    if ended {
                        self.pipe = None;
                    }
                }
            }
        }
    }

    /// A line that is there already.
    pub fn arrived(&mut self) -> Option<Span> {
        loop {
            if let Some(span) = self.ready.pop_front() {
                return Some(span);
            }
            if let Ok(length) = self.socket_now.recv(&mut self.datagram) {
                match parse(&self.datagram, length) {
                    Some(span) => return Some(span),
                    None => continue,
                }
            }
            let pipe = self.pipe.as_mut()?;
            let length = pipe
                .now
                .read(&mut pipe.buffer)
                .ok()
                .filter(|length| *length > 0)?;
            pipe.take(length, &mut self.ready);
        }
    }
}

fn parse(datagram: &[u8], length: usize) -> Option<Span> {
    Span::parse(datagram.get(..length).unwrap_or_default())
}

/// Reads what is in the pipe; whether it is at its end. Never ready without one.
async fn read(pipe: &mut Option<LogPipe>, ready: &mut VecDeque<Span>) -> bool {
    let Some(pipe) = pipe else {
        return std::future::pending().await;
    };
    match pipe.receiver.read(&mut pipe.buffer).await {
        Ok(length) if length > 0 => {
            pipe.take(length, ready);
            false
        }
        _ => true,
    }
}

impl LogPipe {
    fn new(reader: PipeReader) -> io::Result<Self> {
        let now = File::from(OwnedFd::from(reader.try_clone()?));
        Ok(Self {
            receiver: pipe::Receiver::from_owned_fd(reader.into())?,
            now,
            buffer: vec![0; 16 << 10],
            packets: Packets::default(),
        })
    }

    fn take(&mut self, length: usize, ready: &mut VecDeque<Span>) {
        let bytes = self.buffer.get(..length).unwrap_or_default();
        self.packets
            .push(bytes, |packet| ready.extend(Span::parse(packet)));
    }
}

/// Makes spans of what is written into the pipe; `worker/node/korelogger/lib/pipe.js` says how they are.
#[derive(Debug, Default)]
struct Packets {
    /// The beginning of a packet.
    partial: Vec<u8>,
    /// Beginnings of long spans, by their lines' ids.
    unfinished: HashMap<Vec<u8>, Vec<u8>>,
    unfinished_bytes: usize,
}

impl Packets {
    /// Takes in what was read; tells of each datagram that is complete by it.
    fn push(&mut self, bytes: &[u8], mut found: impl FnMut(&[u8])) {
        let mut start = 0;
        for end in memchr_iter(b'\n', bytes) {
            let rest = bytes.get(start..end).unwrap_or_default();
            start = end + 1;
            let partial = std::mem::take(&mut self.partial);
            if partial.is_empty() {
                self.packet(rest, &mut found);
            } else {
                self.packet(&[&partial, rest].concat(), &mut found);
            }
        }
        // Something else than korelogger may write here, and never end a line.
        self.partial
            .extend_from_slice(bytes.get(start..).unwrap_or_default());
        if self.partial.len() > ATOMIC_WRITE {
            self.partial = Vec::new();
        }
    }

    fn packet(&mut self, packet: &[u8], found: &mut impl FnMut(&[u8])) {
        let Some((letter, rest)) = packet.split_first() else {
            return;
        };
        if rest.first() == Some(&b'{') {
            found(packet);
            return;
        }
        let Some((id, piece)) = rest.split_at_checked(ID_LEN) else {
            return;
        };
        if *letter == b'+' {
            self.keep(id, piece);
            return;
        }
        if let Some(begun) = self.unfinished.remove(id) {
            self.unfinished_bytes -= begun.len();
            found(&[&[*letter], begun.as_slice(), piece].concat());
        }
    }

    fn keep(&mut self, id: &[u8], piece: &[u8]) {
        if self.unfinished_bytes + piece.len() > MAX_UNFINISHED {
            self.unfinished.clear();
            self.unfinished_bytes = 0;
        }
        self.unfinished_bytes += piece.len();
        self.unfinished
            .entry(id.to_vec())
            .or_default()
            .extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0123456789abcdef00000001";
    const B: &str = "0123456789abcdef00000002";

    fn packets(packets: &mut Packets, bytes: &[u8]) -> Vec<String> {
        let mut all = Vec::new();
        packets.push(bytes, |packet| {
            all.push(String::from_utf8(packet.to_vec()).unwrap());
        });
        all
    }

    #[test]
    fn pieces_of_two_processes_become_whole_again_wherever_the_reads_cut_them() {
        let text = format!("E{{1}}\n+{A}{{\"a\n+{B}{{\"b\nN{{2}}\n+{A}\":\nE{A}1}}\nN{B}\":2}}\n");
        for cut in 0..=text.len() {
            let mut reader = Packets::default();
            let mut all = packets(&mut reader, &text.as_bytes()[..cut]);
            all.extend(packets(&mut reader, &text.as_bytes()[cut..]));
            assert_eq!(all, ["E{1}", "N{2}", "E{\"a\":1}", "N{\"b\":2}"], "cut at {cut}");
            assert_eq!(reader.unfinished_bytes, 0);
        }
    }

    #[test]
    fn garbage_costs_no_memory_and_no_line_after_it() {
        let mut reader = Packets::default();
        for _ in 0..1000 {
            assert!(packets(&mut reader, &[b'x'; 3000]).is_empty());
            assert!(reader.partial.len() <= ATOMIC_WRITE);
        }
        let piece = "y".repeat(4000);
        for i in 0..2000 {
            let line = format!("\n\n+\nE\n+{i:024}{piece}\n");
            assert!(packets(&mut reader, line.as_bytes()).is_empty());
            assert!(reader.unfinished_bytes <= MAX_UNFINISHED);
        }
        assert_eq!(packets(&mut reader, b"N{3}\n"), ["N{3}"]);
    }
}
