//! [`Queue`]: messages that wait in a socket pair for a process that does not run yet.
//!
//! Knows no message and no service manager (`stored.rs` does). What is put in stays in the kernel, with its descriptors,
//! for as long as any process or the store of the service manager has the reader. The writer travels behind the last
//! message: it would be closed with this process otherwise, and a service manager before systemd 246 drops a descriptor
//! once its other end is closed (sd_pid_notify_with_fds(3)). Invariants: nothing waits here, what finds no room is not put in; there is room
//! for the last message; a message that is taken back is read by no process.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::sockopt::{set_socket_send_buffer_size, socket_send_buffer_size};
use rustix::net::{RecvFlags, recv};
use serde::Serialize;

use super::channel::{Packet, pair};

/// Longest content that travels in a message itself: the kernel counts the bytes of the queue, and not those of memfds.
const INLINE_MAX: usize = 256;

/// Memory for messages that is asked for; the kernel gives what `net.core.wmem_max` allows.
const WANTED_BYTES: usize = 64 << 20;

/// Memory that is kept for the last message, as the kernel counts it.
const LAST_BYTES: usize = 16 << 10;

/// The queue, as the process that fills it has it.
#[derive(Debug)]
pub struct Queue {
    writer: OwnedFd,
    reader: OwnedFd,
    /// Memory for messages, as the kernel counts it.
    room: usize,
}

impl Queue {
    /// Makes an empty queue with as much room as the kernel gives; in debug builds with less, where a test wants that.
    pub fn new() -> io::Result<Self> {
        #[cfg(debug_assertions)]
        if let Some(wanted) = std::env::var("SESSILE_TEST_QUEUE_BYTES").ok().and_then(|bytes| bytes.parse().ok()) {
            return Self::with_room(wanted);
        }
        Self::with_room(WANTED_BYTES)
    }

    fn with_room(wanted: usize) -> io::Result<Self> {
        let (writer, reader) = pair()?;
        ioctl_fionbio(&writer, true)?;
        ioctl_fionbio(&reader, true)?;
        set_socket_send_buffer_size(&writer, wanted)?;
        let queue = Self { room: socket_send_buffer_size(&writer)?, writer, reader };
        queue.limit(queue.room.saturating_sub(LAST_BYTES))?;
        Ok(queue)
    }

    /// Sets the memory for messages. The kernel takes half of it as an argument and doubles it (socket(7)).
    fn limit(&self, bytes: usize) -> io::Result<()> {
        Ok(set_socket_send_buffer_size(&self.writer, bytes / 2)?)
    }

    /// Puts a message behind the others. False: there is no room for it, or the user of this process has as many
    /// descriptors under way as it may (unix(7), `ETOOMANYREFS`).
    pub fn put(
        &self,
        kind: u16,
        document: &impl Serialize,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<bool> {
        let packet = Packet::new(kind, document, bytes, descriptors.len(), INLINE_MAX)?;
        match packet.send_through(&self.writer, descriptors) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::TOOMANYREFS) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts the last message in, with a descriptor and the writer behind it.
    pub fn put_last(&self, kind: u16, document: &impl Serialize, descriptor: BorrowedFd<'_>) -> io::Result<bool> {
        self.limit(self.room)?;
        self.put(kind, document, &[], &[descriptor, self.writer.as_fd()])
    }

    /// The end that the next process reads.
    pub fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Empties the queue, also for a process that has got the reader meanwhile.
    pub fn take_back(self) {
        empty(&self.reader);
    }
}

/// Empties a queue that is not used: descriptors in it keep addresses and connections open. They are closed by the kernel.
pub fn empty(reader: impl AsFd) {
    while recv(&reader, &mut [0; 64], RecvFlags::DONTWAIT).is_ok_and(|(_, length)| length > 0) {}
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use serde_json::{Value, json};

    use super::super::channel::{Channel, ChannelError, open_sealed, sealed};
    use super::*;

    /// A connection: its server end, and the end of the client.
    fn connection() -> (OwnedFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0.into(), client)
    }

    fn reader_of(queue: Queue) -> OwnedFd {
        queue.reader
    }

    #[tokio::test]
    async fn a_queue_is_read_after_its_writer_has_gone_and_its_connections_live_meanwhile() {
        let queue = Queue::new().unwrap();
        let (server, mut client) = connection();
        let long = "x".repeat(100_000);
        assert!(queue.put(1, &json!({ "a": 1 }), b"", &[]).unwrap());
        assert!(queue.put(6, &json!({ "long": long }), b"owed", &[server.as_fd()]).unwrap());
        let tables = sealed(|file| file.write_all(b"tables")).unwrap();
        assert!(queue.put_last(8, &json!({}), tables.as_fd()).unwrap());
        drop((server, tables));
        let reader = reader_of(queue);
        client.write_all(b"meanwhile").unwrap();

        let channel = Channel::of_queue(reader).unwrap();
        assert_eq!(channel.receive().await.unwrap().read::<Value>().unwrap(), json!({ "a": 1 }));
        channel.send(7, &json!({}), b"", &[]).await.expect("an answer that is read by no process is no error");
        let mut pairs = channel.receive().await.unwrap();
        assert_eq!(pairs.read::<Value>().unwrap(), json!({ "long": long }));
        assert_eq!((&pairs.bytes[..], pairs.descriptors.len()), (&b"owed"[..], 1));
        let mut server = TcpStream::from(pairs.descriptors.remove(0));
        let mut heard = [0; 9];
        server.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"meanwhile");
        let last = channel.receive().await.unwrap();
        let mut text = String::new();
        open_sealed(last.descriptors.into_iter().next().unwrap()).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((last.kind, text.as_str()), (8, "tables"));
        assert!(matches!(channel.receive().await, Err(ChannelError::Closed)), "nothing more comes");
    }

    #[tokio::test]
    async fn a_queue_that_no_process_has_left_anything_in_is_at_its_end() {
        let queue = Queue::new().unwrap();
        let kept = queue.writer.try_clone().unwrap();
        let channel = Channel::of_queue(reader_of(queue)).unwrap();
        assert!(matches!(channel.receive().await, Err(ChannelError::Closed)), "also while its writer is open");
        drop(kept);
        assert!(matches!(channel.receive().await, Err(ChannelError::Closed)));
    }

    #[test]
    fn the_store_sees_no_closed_end_after_the_writer_has_gone() {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let hangs_up = |reader: &OwnedFd| {
            let mut polled = [PollFd::new(reader, PollFlags::IN)];
            poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
            polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
        };
        let whole = Queue::new().unwrap();
        let tables = sealed(|_| Ok(())).unwrap();
        assert!(whole.put_last(8, &json!({}), tables.as_fd()).unwrap());
        assert!(!hangs_up(&reader_of(whole)));
        assert!(hangs_up(&reader_of(Queue::new().unwrap())), "without a last message it does");
    }

    #[tokio::test]
    async fn what_finds_no_room_is_not_put_in_and_the_last_message_always_finds_some() {
        let queue = Queue::with_room(32 << 10).unwrap();
        let (server, _client) = connection();
        let mut put = 0;
        while queue.put(6, &json!({ "number": put }), &[7; 300], &[server.as_fd()]).unwrap() {
            put += 1;
            assert!(put < 10_000, "a queue without an end");
        }
        assert!(put > 5, "{put}");
        let tables = sealed(|_| Ok(())).unwrap();
        assert!(queue.put_last(8, &json!({}), tables.as_fd()).unwrap());
        let channel = Channel::of_queue(reader_of(queue)).unwrap();
        for number in 0..put {
            let message = channel.receive().await.unwrap();
            assert_eq!(
                (message.read::<Value>().unwrap(), &message.bytes[..]),
                (json!({ "number": number }), &[7; 300][..])
            );
        }
        assert_eq!(channel.receive().await.unwrap().kind, 8);
    }

    #[tokio::test]
    async fn what_is_taken_back_reaches_no_process_that_has_the_reader() {
        let queue = Queue::new().unwrap();
        let (server, mut client) = connection();
        assert!(queue.put(1, &json!({}), b"", &[]).unwrap());
        assert!(queue.put(6, &json!({ "long": "x".repeat(1_000) }), b"", &[server.as_fd()]).unwrap());
        assert!(queue.put_last(8, &json!({}), server.as_fd()).unwrap());
        let of_the_store = queue.reader.try_clone().unwrap();
        queue.take_back();
        let channel = Channel::of_queue(of_the_store).unwrap();
        assert!(matches!(channel.receive().await, Err(ChannelError::Closed)));
        drop(server);
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "no copy of the connection is left");
    }
}
