//! [`AllowedPeers`]: a listener that serves the hosts of some networks only.
//!
//! Reads no byte. Invariant: a peer outside of the networks is sent nothing, holds no place among those that are served,
//! and is counted.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::serve::Listener;
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};

/// Peers that this process has refused.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Connections to the port that were closed because no allowed network has their peer.
pub fn peers_refused() -> u64 {
    REFUSED.load(Relaxed)
}

/// A listener with the networks of the peers that it serves.
pub(super) struct AllowedPeers {
    listener: TcpListener,
    /// Empty: every peer is served.
    networks: Vec<IpNet>,
}

impl AllowedPeers {
    pub(super) fn new(listener: TcpListener, networks: Vec<IpNet>) -> Self {
        Self { listener, networks }
    }

    fn serves(&self, peer: SocketAddr) -> bool {
        // A socket of both families sees IPv4 peers at mapped addresses.
        let address = peer.ip().to_canonical();
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&address))
    }
}

impl Listener for AllowedPeers {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, peer) = Listener::accept(&mut self.listener).await;
            if self.serves(peer) {
                return (stream, peer);
            }
            drop(stream);
            if REFUSED.fetch_add(1, Relaxed) == 0 {
                tracing::warn!("admin.http: closed a connection of {}, which admin.allow does not have", peer.ip());
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_is_judged_by_its_own_family() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let networks = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().unwrap()).to_vec();
        let mut port = AllowedPeers::new(listener, networks);
        let serves = |port: &AllowedPeers, peer: &str| port.serves(SocketAddr::new(peer.parse().unwrap(), 1));
        for (peer, served) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("2001:db8::7", true),
            ("11.0.0.1", false),
            ("127.0.0.1", false),
            ("::1", false),
        ] {
            assert_eq!(serves(&port, peer), served, "{peer}");
        }
        port.networks.clear();
        assert!(serves(&port, "192.0.2.1"), "no list");
    }
}
