//! [`defer_accept`]: leaves clients that have sent nothing to the kernel (TCP_DEFER_ACCEPT, tcp(7)).
//!
//! Chooses no time and no listener. Invariant: a socket without the option has 0 seconds, as the kernel makes it.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::setsockopt;
use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};

sockopt_impl!(
    /// Seconds for which a client that has sent nothing is not accepted; the kernel counts attempts and rounds up.
    DeferAccept,
    Both,
    libc::IPPROTO_TCP,
    libc::TCP_DEFER_ACCEPT,
    u32
);

/// Keeps clients out of the accept queue of a TCP socket until their first bytes come, for so many seconds; 0 = not at
/// all. A socket that listens may be given another time.
pub fn defer_accept(socket: &impl AsFd, seconds: u32) -> io::Result<()> {
    Ok(setsockopt(socket, DeferAccept, &seconds)?)
}
