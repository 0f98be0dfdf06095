//! [`Channel`]: messages with descriptors between the process that leaves and the one that follows it.
//!
//! Knows no message (`messages.rs` does). A SEQPACKET socket keeps the borders of messages; descriptors travel by
//! SCM_RIGHTS (unix(7)), and a document or bytes too long for one message travel in a sealed memfd (memfd_create(2)).
//!
//! A message is a head of 24 bytes in little-endian order, a document in JSON, and bytes:
//!
//! | offset | what |
//! |---|---|
//! | 0 | the eight bytes `sessile\n` |
//! | 8 | kind, 2 bytes |
//! | 10 | flags, 2 bytes; 1: document and bytes are in a memfd, which is the first descriptor |
//! | 12 | length of the document, 4 bytes |
//! | 16 | length of the bytes, 4 bytes |
//! | 20 | number of descriptors, without the memfd, 4 bytes |
//!
//! Invariant: a message is received whole, with every descriptor that it names, or it is an error; a memfd is read only
//! if its content can no longer change.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Most descriptors of one message, SCM_MAX_FD of the kernel.
const KERNEL_MAX: usize = 253;

/// Most descriptors that a caller may send with one message; one more may be the memfd.
pub const DESCRIPTORS_MAX: usize = KERNEL_MAX - 1;

/// Longest document with its bytes that travels in the message itself.
const INLINE_MAX: usize = 32 * 1024;

/// Longest document with its bytes at all.
const CONTENT_MAX: usize = 256 << 20;

const MAGIC: &[u8; 8] = b"sessile\n";
const HEAD_BYTES: usize = 24;

/// Flag: document and bytes are in a memfd.
const IN_MEMFD: u16 = 1;

/// What keeps the content of a memfd as it is.
const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW);

/// One end of the socket pair. The type of tokio only waits for it: it is no stream.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
    /// True if everything was sent before this process began, by one that has ended.
    is_queue: bool,
}

/// A message as it goes through a socket, without its descriptors.
pub struct Packet {
    head: [u8; HEAD_BYTES],
    content: Vec<u8>,
    memfd: Option<OwnedFd>,
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A message that was received.
#[derive(Debug)]
pub struct Message {
    /// Number of its kind.
    pub kind: u16,
    /// Document in JSON.
    pub document: Vec<u8>,
    /// Bytes beside the document.
    pub bytes: Vec<u8>,
    /// Descriptors, in the order of the sender.
    pub descriptors: Vec<OwnedFd>,
}

/// Why a message could not be sent or received.
#[derive(Debug)]
pub enum ChannelError {
    /// The other process has closed its end or has ended.
    Closed,
    /// A system call failed.
    Io(io::Error),
    /// The other process does not keep to the format.
    Malformed(&'static str),
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the other process has ended"),
            Self::Io(error) => write!(f, "the channel between the processes: {error}"),
            Self::Malformed(what) => write!(f, "the other process has sent {what}"),
        }
    }
}

impl From<io::Error> for ChannelError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// Makes the pair: the end of this process, and the one for the process to start.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

impl Channel {
    /// Takes an end of the pair.
    pub fn new(end: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&end, true)?;
        Ok(Self { socket: UnixStream::from_std(end.into())?, is_queue: false })
    }

    /// Takes an end with everything that a process has left which has ended. Nothing more comes, and what is sent is
    /// read by no process.
    pub fn of_queue(end: OwnedFd) -> io::Result<Self> {
        Ok(Self { is_queue: true, ..Self::new(end)? })
    }

    /// True if the other process has ended before this one began.
    pub fn is_queue(&self) -> bool {
        self.is_queue
    }

    /// Number of the process that has made the pair, which is the one that leaves.
    pub fn maker(&self) -> io::Result<u32> {
        Ok(socket_peercred(&self.socket)?.pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Sends one message, and waits while the queue of the socket is full.
    pub async fn send(
        &self,
        kind: u16,
        document: &impl Serialize,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        if self.is_queue {
            return Ok(());
        }
        let packet = Packet::new(kind, document, bytes, descriptors.len(), INLINE_MAX)?;
        self.socket.async_io(Interest::WRITABLE, || packet.send_through(&self.socket, descriptors)).await?;
        Ok(())
    }

    /// Receives the next message. Waits for ever: the caller sets a limit. Nothing is lost if this is dropped meanwhile.
    pub async fn receive(&self) -> Result<Message, ChannelError> {
        let mut buffer = vec![0; HEAD_BYTES + INLINE_MAX];
        let received = match self.is_queue {
            false => self.socket.async_io(Interest::READABLE, || receive_from(&self.socket, &mut buffer)).await,
            true => receive_from(&self.socket, &mut buffer),
        };
        let (length, flags, mut descriptors) = match received {
            Err(error) if self.is_queue && error.kind() == io::ErrorKind::WouldBlock => {
                return Err(ChannelError::Closed);
            }
            received => received?,
        };
        if length == 0 {
            return Err(ChannelError::Closed);
        }
        if flags.contains(ReturnFlags::TRUNC) {
            return Err(ChannelError::Malformed("a message that is too long"));
        }
        // The kernel drops descriptors that this process has no number for.
        if flags.contains(ReturnFlags::CTRUNC) {
            return Err(ChannelError::Malformed("more descriptors than this process may open"));
        }
        let head = Head::read(&buffer[..length])?;
        let content = match head.in_memfd {
            false => buffer[HEAD_BYTES..length].to_vec(),
            true if descriptors.is_empty() => return Err(ChannelError::Malformed("a message without its memfd")),
            true => read_sealed(descriptors.remove(0), head.document + head.bytes)?,
        };
        head.complete(content, descriptors)
    }
}

impl Packet {
    /// Composes a message. A document that is longer than `inline_max`, with its bytes, goes into a memfd.
    pub fn new(
        kind: u16,
        document: &impl Serialize,
        bytes: &[u8],
        descriptors: usize,
        inline_max: usize,
    ) -> io::Result<Self> {
        let mut content = serde_json::to_vec(document)?;
        let length = content.len();
        content.extend_from_slice(bytes);
        let inline = content.len() <= inline_max;
        let head = head(kind, inline, length, bytes.len(), descriptors);
        let memfd = match inline {
            true => None,
            false => Some(sealed(|file| file.write_all(&std::mem::take(&mut content)))?),
        };
        Ok(Self { head, content, memfd })
    }

    /// Sends it with its descriptors.
    pub fn send_through(&self, socket: impl AsFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let all: Vec<_> = self.memfd.iter().map(OwnedFd::as_fd).chain(descriptors.iter().copied()).collect();
        let parts = [IoSlice::new(&self.head), IoSlice::new(&self.content)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(KERNEL_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !all.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&all)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// Receives into a buffer: length, flags and descriptors.
fn receive_from(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, ReturnFlags, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(KERNEL_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(buffer)];
    let mut receive = || recvmsg(&socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC);
    // The other process has ended without reading all. What it has sent is still in the queue.
    let received = receive().or_else(|error| if error == Errno::CONNRESET { receive() } else { Err(error) })?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    Ok((received.bytes, received.flags, descriptors))
}

impl Message {
    /// Reads the document. Unknown fields are skipped, missing ones have their default.
    pub fn read<D: DeserializeOwned>(&self) -> Result<D, ChannelError> {
        serde_json::from_slice(&self.document).map_err(|_| ChannelError::Malformed("a document that cannot be read"))
    }
}

/// A whole message without bytes and descriptors, for a process that sends nothing else.
pub fn encode(kind: u16, document: &impl Serialize) -> io::Result<Vec<u8>> {
    let document = serde_json::to_vec(document)?;
    Ok([&head(kind, true, document.len(), 0, 0)[..], &document].concat())
}

/// Makes a memfd with this content, which cannot change any more.
pub fn sealed(write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("sessile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    write(&mut file)?;
    file.rewind()?;
    fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

/// Takes a memfd with content that cannot change any more, to be read from its begin.
pub fn open_sealed(memfd: OwnedFd) -> Result<File, ChannelError> {
    match fcntl_get_seals(&memfd) {
        Ok(seals) if seals.contains(SEALS) => {}
        _ => return Err(ChannelError::Malformed("a memfd that can still change")),
    }
    let mut file = File::from(memfd);
    file.rewind()?;
    Ok(file)
}

fn read_sealed(memfd: OwnedFd, length: usize) -> Result<Vec<u8>, ChannelError> {
    let file = open_sealed(memfd)?;
    if file.metadata()?.len() != length as u64 || length > CONTENT_MAX {
        return Err(ChannelError::Malformed("a memfd of another length"));
    }
    let mut content = Vec::with_capacity(length);
    file.take(length as u64).read_to_end(&mut content)?;
    Ok(content)
}

struct Head {
    kind: u16,
    in_memfd: bool,
    document: usize,
    bytes: usize,
    descriptors: usize,
}

fn head(kind: u16, inline: bool, document: usize, bytes: usize, descriptors: usize) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(MAGIC);
    head[8..10].copy_from_slice(&kind.to_le_bytes());
    head[10..12].copy_from_slice(&(if inline { 0 } else { IN_MEMFD }).to_le_bytes());
    for (at, length) in [(12, document), (16, bytes), (20, descriptors)] {
        head[at..at + 4].copy_from_slice(&(length as u32).to_le_bytes());
    }
    head
}

impl Head {
    fn read(message: &[u8]) -> Result<Self, ChannelError> {
        let Some((head, content)) = message.split_first_chunk::<HEAD_BYTES>() else {
            return Err(ChannelError::Malformed("a message without a head"));
        };
        let number = |at: usize, bytes: usize| {
            head[at..at + bytes].iter().rev().fold(0usize, |number, byte| number << 8 | usize::from(*byte))
        };
        if !head.starts_with(MAGIC) {
            return Err(ChannelError::Malformed("a message of another program"));
        }
        let (kind, flags) = (number(8, 2) as u16, number(10, 2) as u16);
        let (document, bytes, descriptors) = (number(12, 4), number(16, 4), number(20, 4));
        let in_memfd = flags & IN_MEMFD != 0;
        if document + bytes != content.len() && !(in_memfd && content.is_empty()) {
            return Err(ChannelError::Malformed("a message of another length"));
        }
        Ok(Self { kind, in_memfd, document, bytes, descriptors })
    }

    fn complete(&self, mut content: Vec<u8>, descriptors: Vec<OwnedFd>) -> Result<Message, ChannelError> {
        if descriptors.len() != self.descriptors {
            return Err(ChannelError::Malformed("a message without its descriptors"));
        }
        let bytes = content.split_off(self.document);
        Ok(Message { kind: self.kind, document: content, bytes, descriptors })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn channels() -> (Channel, Channel) {
        let (one, other) = pair().unwrap();
        (Channel::new(one).unwrap(), Channel::new(other).unwrap())
    }

    fn send_raw(to: &Channel, message: &[u8]) {
        rustix::net::send(&to.socket, message, SendFlags::empty()).unwrap();
    }

    #[tokio::test]
    async fn a_message_arrives_whole_whatever_its_length() {
        let (here, there) = channels();
        let pipe = rustix::pipe::pipe().unwrap();
        for length in [0, 1, INLINE_MAX - 20, INLINE_MAX + 1, 3 << 20] {
            let bytes: Vec<_> = (0..length).map(|n| n as u8).collect();
            here.send(7, &json!({ "a": length }), &bytes, &[pipe.0.as_fd(), pipe.1.as_fd()]).await.unwrap();
            let message = there.receive().await.unwrap();
            assert_eq!((message.kind, message.descriptors.len()), (7, 2));
            assert_eq!(message.read::<Value>().unwrap(), json!({ "a": length }));
            assert!(message.bytes == bytes, "{length}");
        }
    }

    #[tokio::test]
    async fn what_a_process_has_sent_arrives_although_it_ended_without_reading_all() {
        let (here, there) = channels();
        there.send(1, &json!({}), &[], &[]).await.unwrap();
        for kind in [2, 3] {
            here.send(kind, &json!({}), &[], &[]).await.unwrap();
        }
        drop(here);
        assert_eq!((there.receive().await.unwrap().kind, there.receive().await.unwrap().kind), (2, 3));
        assert!(matches!(there.receive().await, Err(ChannelError::Closed)));
    }

    #[tokio::test]
    async fn the_process_that_has_made_a_channel_is_known_at_both_ends() {
        let (here, there) = channels();
        assert_eq!((here.maker().unwrap(), there.maker().unwrap()), (std::process::id(), std::process::id()));
    }

    #[tokio::test]
    async fn as_many_descriptors_as_the_kernel_takes_arrive_in_order() {
        let (here, there) = channels();
        let files: Vec<_> = (0..DESCRIPTORS_MAX).map(|n| sealed(|file| write!(file, "{n}")).unwrap()).collect();
        let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        here.send(1, &json!({}), &vec![0; INLINE_MAX], &borrowed).await.unwrap();
        for (n, descriptor) in there.receive().await.unwrap().descriptors.into_iter().enumerate() {
            let mut text = String::new();
            open_sealed(descriptor).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, n.to_string());
        }
    }

    /// Another version may be on either side: these bytes are a promise.
    #[tokio::test]
    async fn the_bytes_of_a_message_are_as_agreed() {
        let (here, there) = channels();
        here.send(258, &json!({ "a": 1 }), b"xyz", &[]).await.unwrap();
        let mut message = [0; 64];
        let (_, length) = rustix::net::recv(&there.socket, &mut message, RecvFlags::empty()).unwrap();
        let agreed = b"sessile\n\x02\x01\0\0\x07\0\0\0\x03\0\0\0\0\0\0\0{\"a\":1}xyz";
        assert_eq!(message[..length], agreed[..]);
        send_raw(&there, agreed);
        assert_eq!(here.receive().await.unwrap().bytes, b"xyz");
    }

    #[tokio::test]
    async fn what_is_not_in_the_format_is_named() {
        let (here, there) = channels();
        let good = [&head(1, true, 2, 0, 0)[..], b"{}"].concat();
        for (message, named) in [
            (&good[..10], "without a head"),
            (&good[..HEAD_BYTES + 1], "another length"),
            (&[b"x", &good[1..]].concat(), "another program"),
            (&[&head(1, true, 2, 0, 1)[..], b"{}"].concat(), "without its descriptors"),
            (&head(1, false, 2, 0, 0)[..], "without its memfd"),
            (&[&head(1, true, 2, u32::MAX as usize, 0)[..], b"{}"].concat(), "another length"),
        ] {
            send_raw(&here, message);
            let refused = there.receive().await.unwrap_err().to_string();
            assert!(refused.contains(named), "{refused}: {named}");
        }
        let open = File::from(memfd_create("open", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap());
        assert!(open_sealed(open.into()).is_err(), "not sealed");
        drop(here);
        assert!(matches!(there.receive().await, Err(ChannelError::Closed)));
    }
}
