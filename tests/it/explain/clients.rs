//! Clients with random addresses, and the first bytes they send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

use ipnet::IpNet;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::version::TLS13;
use serde_json::Value;

use super::configurations::Configuration;
use crate::support::authority::{self, Authority};
use crate::support::rng::Rng;

/// A TLV of every client's header, where a configuration wants one: as `explain` is told of it.
pub const TLV: &str = "0xE0=tenant-7";

/// Names that clients ask for.
const NAMES: [&str; 5] = ["a.test", "b.test", "www.example.org", "x.static.example.org", "elsewhere.test"];

/// One client.
#[derive(Debug)]
pub struct Client {
    /// Announced by PROXY v2.
    source: SocketAddr,
    /// Where the listener reads hellos: the name it asks for, if it does.
    hello: Option<Option<&'static str>>,
    tlv: bool,
}

/// Clients that are the same in every run.
pub fn random(seed: u64, count: usize, configuration: &Configuration) -> Vec<Client> {
    let mut random = Rng(seed);
    let networks: Vec<IpNet> =
        configuration.networks.iter().map(|network| network.parse().expect("a network")).collect();
    let one = |index: usize| {
        let address = match random.below(10) {
            0..4 if !networks.is_empty() => {
                let network = networks[random.clone().below(networks.len())];
                inside(&mut random, network)
            }
            0..6 => IpAddr::V4(Ipv4Addr::from(random.next() as u32)),
            6 => IpAddr::V6(Ipv4Addr::from(random.next() as u32).to_ipv6_mapped()),
            _ => inside(&mut random, "2000::/3".parse().expect("a network")),
        };
        let name = NAMES.get(random.below(NAMES.len() + 1)).copied();
        // The port distinguishes clients of one address.
        let source = SocketAddr::new(address, 1_000 + index as u16);
        Client { source, hello: configuration.hello.then_some(name), tlv: configuration.tlv }
    };
    (0..count).map(one).collect()
}

impl Client {
    /// Source address; IPv4-mapped addresses are IPv4.
    pub fn address(&self) -> IpAddr {
        self.source.ip().to_canonical()
    }

    /// Client as the access log names it.
    pub fn logged(&self) -> String {
        SocketAddr::new(self.address(), self.source.port()).to_string()
    }

    /// Whether it has something that the key of this pool is made of.
    pub fn has_key(&self, configuration: &Configuration, pool: &Value) -> bool {
        !configuration.keyed_by_name_alone || pool != "p" || self.hello.flatten().is_some()
    }

    /// Client as `explain` reads it.
    pub fn line(&self) -> String {
        format!("{} {}\n", self.source.ip(), self.hello.flatten().unwrap_or_default())
    }

    /// PROXY header and hello.
    pub fn first_bytes(&self) -> Vec<u8> {
        let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
        let mut body = Vec::new();
        match self.source.ip() {
            IpAddr::V4(source) => {
                bytes.push(0x11);
                body.extend(source.octets());
                body.extend([192, 0, 2, 1]);
            }
            IpAddr::V6(source) => {
                bytes.push(0x21);
                body.extend(source.octets());
                body.extend(Ipv6Addr::LOCALHOST.octets());
            }
        }
        body.extend(self.source.port().to_be_bytes());
        body.extend(443u16.to_be_bytes());
        if self.tlv {
            body.extend(b"\xE0\x00\x08tenant-7");
        }
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        if let Some(name) = self.hello {
            bytes.extend(hello(name));
        }
        bytes
    }
}

fn hello(name: Option<&str>) -> Vec<u8> {
    static CLIENTS: LazyLock<[Arc<ClientConfig>; 2]> = LazyLock::new(|| {
        [false, true].map(|enable_sni| {
            let mut config = Authority::new().client(&[&TLS13], &[kx_group::X25519]);
            config.enable_sni = enable_sni;
            Arc::new(config)
        })
    });
    authority::hello(&CLIENTS[usize::from(name.is_some())], name.unwrap_or("nobody.test")).1
}

/// Any address of a network.
fn inside(rng: &mut Rng, network: IpNet) -> IpAddr {
    match network {
        IpNet::V4(network) => {
            let host = rng.next() as u32 & u32::from(network.hostmask());
            IpAddr::V4((u32::from(network.network()) | host).into())
        }
        IpNet::V6(network) => {
            let random = u128::from(rng.next()) << 64 | u128::from(rng.next());
            IpAddr::V6((u128::from(network.network()) | random & u128::from(network.hostmask())).into())
        }
    }
}
