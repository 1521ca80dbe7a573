//! The socket between the runner and a worker: frames of JSON, and the descriptors of a run's pipes.
//!
//! Python takes the descriptors from that socket. Node only takes some from its own channel between parent and child, one
//! with each line of JSON; so its worker has such a channel, too.

use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use bytes::{Buf, Bytes, BytesMut};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::UnixStream,
};

/// The runner's end.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
    /// Node's channel for descriptors.
    handles: Option<UnixStream>,
    buffer: BytesMut,
    max_frame: usize,
}

/// A line that announces a descriptor to Node. Its own form for one that it shall not make a socket of; the message in it
/// is for the worker and begins as those do that Node keeps from a script's own listeners.
const HANDLE: &[u8] =
    b"{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\",\"msg\":{\"cmd\":\"NODE_SCRIPTSCOPE\"}}\n";

impl Channel {
    /// A channel, and the worker's end of it. Frames beyond `max_frame` bytes are errors.
    pub fn pair(max_frame: usize) -> io::Result<(Self, OwnedFd)> {
        let (stream, theirs) = stream_pair()?;
        let channel = Self {
            stream,
            handles: None,
            buffer: BytesMut::new(),
            max_frame,
        };
        Ok((channel, theirs))
    }

    /// Adds a channel of Node's for descriptors; the worker's end of it.
    pub fn add_handles(&mut self) -> io::Result<OwnedFd> {
        let (ours, theirs) = stream_pair()?;
        self.handles = Some(ours);
        Ok(theirs)
    }

    /// Sends a frame.
    pub async fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        self.stream.write_all(&frame(payload)?).await
    }

    /// Sends two frames and, with their first byte, descriptors; in one system call if there is room.
    pub async fn send_with(&mut self, first: &[u8], second: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let frames = [frame(first)?, frame(second)?].concat();
        send_fds(&mut self.stream, &frames, fds).await
    }

    /// Sends descriptors over Node's channel; false if there is none.
    pub async fn send_handles(&mut self, fds: &[BorrowedFd<'_>]) -> io::Result<bool> {
        let Some(handles) = &mut self.handles else {
            return Ok(false);
        };
        forget_answers(handles);
        for fd in fds {
            send_fds(handles, HANDLE, &[*fd]).await?;
        }
        Ok(true)
    }

    /// The next frame; none when the worker has closed its end. Dropping the future loses nothing.
    pub async fn receive(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn buffered(&mut self) -> io::Result<Option<Bytes>> {
        let Some(header) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*header) as usize;
        if length > self.max_frame {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
        }
        if self.buffer.len() < 4 + length {
            self.buffer.reserve(4 + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

fn stream_pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}

/// Sends bytes and, with the first of them, descriptors.
async fn send_fds(stream: &mut UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let sent = stream.async_io(Interest::WRITABLE, || {
        let message = [ControlMessage::ScmRights(&fds)];
        let message = if fds.is_empty() { &[][..] } else { &message };
        let (socket, flags) = (stream.as_raw_fd(), MsgFlags::MSG_NOSIGNAL);
        sendmsg::<()>(socket, &[IoSlice::new(bytes)], message, flags, None).map_err(io::Error::from)
    });
    let rest = bytes.get(sent.await?..).unwrap_or_default();
    stream.write_all(rest).await
}

/// Reads what Node has said on receiving descriptors, so that it never has to wait for room.
fn forget_answers(handles: &UnixStream) {
    let mut buffer = [0; 1024];
    while handles.try_read(&mut buffer).is_ok_and(|length| length > 0) {}
}

fn frame(payload: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes(), payload].concat())
}
