//! The socket between the runner and a worker: frames of JSON, and the descriptors of a run's pipes.

use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
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
    buffer: BytesMut,
    max_frame: usize,
}

impl Channel {
    /// A channel, and the worker's end of it. Frames beyond `max_frame` bytes are errors.
    pub fn pair(max_frame: usize) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let stream = UnixStream::from_std(ours)?;
        let channel = Self {
            stream,
            buffer: BytesMut::new(),
            max_frame,
        };
        Ok((channel, theirs.into()))
    }

    /// Sends a frame.
    pub async fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        self.stream.write_all(&frame(payload)?).await
    }

    /// Sends two frames and, with their first byte, two descriptors; in one system call if there is room.
    pub async fn send_with(
        &mut self,
        first: &[u8],
        second: &[u8],
        fds: [BorrowedFd<'_>; 2],
    ) -> io::Result<()> {
        let frames = [frame(first)?, frame(second)?].concat();
        let fds = fds.map(|fd| fd.as_raw_fd());
        let sent = self.stream.async_io(Interest::WRITABLE, || {
            let message = [ControlMessage::ScmRights(&fds)];
            let (socket, flags) = (self.stream.as_raw_fd(), MsgFlags::MSG_NOSIGNAL);
            sendmsg::<()>(socket, &[IoSlice::new(&frames)], &message, flags, None).map_err(io::Error::from)
        });
        let rest = frames.get(sent.await?..).unwrap_or_default();
        self.stream.write_all(rest).await
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

fn frame(payload: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes(), payload].concat())
}
