//! The twenty configurations.

use std::net::SocketAddr;

/// One configuration and what its clients are like.
pub struct Configuration {
    pub what: &'static str,
    /// Whether a key decides, so that `explain` can name one backend.
    pub keyed: bool,
    /// Clients send a hello, which the listener reads.
    pub hello: bool,
    /// Without a server name the pool `p` knows no key.
    pub keyed_by_name_alone: bool,
    /// Clients' headers carry a TLV.
    pub tlv: bool,
    /// A backend that is killed once checks have seen it.
    pub down: Option<&'static str>,
    /// Where many of the clients come from.
    pub networks: &'static [&'static str],
    /// The rest of the listener's table.
    listener: &'static str,
    /// The rest of the pool `p`, and others. `@b0` is the address of backend `b0`.
    text: &'static str,
}

impl Configuration {
    /// The file, with these addresses of backends.
    pub fn text(&self, addresses: &[SocketAddr]) -> String {
        // Checks are slow to despair: that no living backend is ever taken for dead counts more than haste.
        let check = match self.down {
            Some(_) => "check = { interval = \"50ms\", timeout = \"2s\", rise = 1, fall = 2 }",
            None => "check = \"off\"",
        };
        let tls = if self.hello { "passthrough" } else { "off" };
        let mut text = format!(
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\ntrust = \"127.0.0.0/8\"\ntls = \"{tls}\"\n{}\n\
             [[pool]]\nname = \"p\"\n{check}{}",
            self.listener, self.text
        );
        for (index, address) in addresses.iter().enumerate() {
            text = text.replace(&format!("@b{index}\""), &format!("{address}\""));
        }
        text
    }
}

const KEYED: Configuration = Configuration {
    what: "",
    keyed: true,
    hello: false,
    keyed_by_name_alone: false,
    tlv: false,
    down: None,
    networks: &[],
    listener: "pool = \"p\"",
    text: "",
};

/// Clients of listeners that read hellos; the file is another one.
pub const WITH_HELLO: Configuration =
    Configuration { hello: true, networks: &["10.0.0.0/8", "2001:db8::/32"], ..KEYED };

/// Clients of listeners that do not.
pub const WITHOUT_HELLO: Configuration = Configuration { hello: false, ..WITH_HELLO };

const KEYLESS: Configuration = Configuration { keyed: false, ..KEYED };

/// All of them.
pub const CONFIGURATIONS: [Configuration; 20] = [
    Configuration {
        what: "hash with nothing but defaults",
        text: r#"
backend = [
    { name = "b0", address = "@b0" },
    { name = "b1", address = "@b1" },
    { name = "b2", address = "@b2" },
]
"#,
        ..KEYED
    },
    Configuration {
        what: "hash with weights, one of them 0, and a seed",
        text: r#"
hash_seed = 18446744073709551615
backend = [
    { name = "b0", address = "@b0", weight = 1 },
    { name = "b1", address = "@b1", weight = 256 },
    { name = "b2", address = "@b2", weight = 17 },
    { name = "b3", address = "@b3", weight = 0 },
    { name = "b4", address = "@b4", weight = 100 },
]
"#,
        ..KEYED
    },
    Configuration {
        what: "hash of short prefixes",
        networks: &["10.1.0.0/16", "2001:db8::/32"],
        text: r#"
prefix_v4 = 20
prefix_v6 = 37
backend = [
    { name = "b0", address = "@b0" },
    { name = "b1", address = "@b1" },
    { name = "b2", address = "@b2", weight = 2 },
    { name = "b3", address = "@b3" },
]
"#,
        ..KEYED
    },
    Configuration {
        what: "hash with ranges that are one key or have their own prefix, one inside another",
        networks: &["10.0.0.0/8", "10.1.2.0/24", "10.1.2.128/25", "2001:db8::/32", "2001:db8:1::/48"],
        text: r#"
backend = [
    { name = "b0", address = "@b0" },
    { name = "b1", address = "@b1" },
    { name = "b2", address = "@b2" },
    { name = "b3", address = "@b3" },
    { name = "b4", address = "@b4" },
]
[[pool.range]]
name = "ten"
cidr = "10.0.0.0/8"
prefix = 26
[[pool.range]]
name = "office"
cidr = "10.1.2.0/24"
one = true
[[pool.range]]
name = "desks"
cidr = "10.1.2.128/25"
prefix = 32
[[pool.range]]
name = "campus"
cidr = "2001:db8::/32"
prefix = 48
[[pool.range]]
name = "library"
cidr = "2001:db8:1::/48"
one = true
"#,
        ..KEYED
    },
    Configuration {
        what: "hash with pinned ranges, strict and not, whose backend is down",
        down: Some("b1"),
        networks: &["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "2001:db8::/32"],
        text: r#"
backend = [
    { name = "b0", address = "@b0" },
    { name = "b1", address = "@b1", weight = 3 },
    { name = "b2", address = "@b2" },
    { name = "b3", address = "@b3" },
]
[[pool.range]]
name = "strict"
cidr = "10.1.0.0/16"
pin = "b1"
strict = true
[[pool.range]]
name = "lenient"
cidr = "10.2.0.0/16"
pin = "b1"
[[pool.range]]
name = "pair"
cidr = "10.3.0.0/16"
pin = ["b1", "b3"]
strict = true
[[pool.range]]
name = "six"
cidr = "2001:db8::/32"
pin = ["b0", "b2"]
"#,
        ..KEYED
    },
    Configuration {
        what: "hash over levels of unequal depth, with weights",
        text: r#"
hash_seed = 7
backend = [
    { name = "b0", address = "@b0", location = "dc1/rack1/host1" },
    { name = "b1", address = "@b1", location = "dc1/rack1/host2", weight = 4 },
    { name = "b2", address = "@b2", location = "dc1/rack2" },
    { name = "b3", address = "@b3", location = "dc2", weight = 2 },
    { name = "b4", address = "@b4", location = "dc2/rack1/host1" },
    { name = "b5", address = "@b5" },
]
"#,
        ..KEYED
    },
    Configuration {
        what: "hash over levels, one backend down and a backup",
        down: Some("b1"),
        text: r#"
backend = [
    { name = "b0", address = "@b0", location = "dc1/host1" },
    { name = "b1", address = "@b1", location = "dc1/host1" },
    { name = "b2", address = "@b2", location = "dc1/host2" },
    { name = "b3", address = "@b3", location = "dc2/host1" },
    { name = "b4", address = "@b4", location = "dc2/host2", weight = 2 },
    { name = "b5", address = "@b5", location = "dc1/host1", backup = true },
]
"#,
        ..KEYED
    },
    Configuration {
        what: "hash whose only primary is down, so that backups serve",
        down: Some("b0"),
        text: r#"
backend = [
    { name = "b0", address = "@b0" },
    { name = "b1", address = "@b1", backup = true },
    { name = "b2", address = "@b2", backup = true, weight = 3 },
]
"#,
        ..KEYED
    },
    Configuration {
        what: "ring with nothing but defaults",
        text: r#"
balance = "ring"
backend = [
    { name = "b0", address = "@b0" },
    { name = "b1", address = "@b1" },
    { name = "b2", address = "@b2" },
    { name = "b3", address = "@b3" },
]
"#,
        ..KEYED
    },
    Configuration {
        what: "ring with few points, weights and a seed, one backend down",
        down: Some("b2"),
        text: r#"
balance = "ring"
ring_points = 5
hash_seed = 99
backend = [
    { name = "b0", address = "@b0", weight = 3 },
    { name = "b1", address = "@b1" },
    { name = "b2", address = "@b2", weight = 8 },
    { name = "b3", address = "@b3", weight = 2 },
    { name = "b4", address = "@b4", backup = true },
]
"#,
        ..KEYED
    },
    Configuration {
        what: "ring over levels, with ranges",
        networks: &["172.16.0.0/12", "2001:db8::/32"],
        text: r#"
balance = "ring"
backend = [
    { name = "b0", address = "@b0", location = "dc1/host1" },
    { name = "b1", address = "@b1", location = "dc1/host2", weight = 5 },
    { name = "b2", address = "@b2", location = "dc2/host1" },
    { name = "b3", address = "@b3", location = "dc2/host2" },
]
[[pool.range]]
name = "inside"
cidr = "172.16.0.0/12"
pin = ["b1", "b2", "b3"]
[[pool.range]]
name = "campus"
cidr = "2001:db8::/32"
prefix = 40
"#,
        ..KEYED
    },
    Configuration {
        what: "maglev with nothing but defaults",
        text: r#"
balance = "maglev"
backend = [
    { name = "b0", address = "@b0" },
    { name = "b1", address = "@b1" },
    { name = "b2", address = "@b2" },
]
"#,
        ..KEYED
    },
    Configuration {
        what: "maglev with a small table, weights and a seed, one backend down",
        down: Some("b3"),
        text: r#"
balance = "maglev"
maglev_size = 251
hash_seed = 123456789
backend = [
    { name = "b0", address = "@b0", weight = 2 },
    { name = "b1", address = "@b1" },
    { name = "b2", address = "@b2", weight = 7 },
    { name = "b3", address = "@b3", weight = 5 },
    { name = "b4", address = "@b4", weight = 0 },
]
"#,
        ..KEYED
    },
    Configuration {
        what: "maglev over levels, with a pinned range whose backend is down",
        down: Some("b0"),
        networks: &["198.51.100.0/24", "2001:db8::/32"],
        text: r#"
balance = "maglev"
backend = [
    { name = "b0", address = "@b0", location = "dc1" },
    { name = "b1", address = "@b1", location = "dc1", weight = 2 },
    { name = "b2", address = "@b2", location = "dc2" },
    { name = "b3", address = "@b3", location = "dc2" },
]
[[pool.range]]
name = "partner"
cidr = "198.51.100.0/24"
pin = ["b0", "b2"]
[[pool.range]]
name = "campus"
cidr = "2001:db8::/32"
one = true
"#,
        ..KEYED
    },
    Configuration {
        what: "keys made of the server name, behind routes by name and source",
        hello: true,
        networks: &["203.0.113.0/24"],
        keyed_by_name_alone: true,
        listener: r#"
pool = "p"
[[listener.route]]
sni = "www.example.org"
pool = "site"
[[listener.route]]
sni = "*.example.org"
source = "203.0.113.0/24"
pool = "site"
"#,
        text: r#"
key = "sni"
backend = [
    { name = "b0", address = "@b0" },
    { name = "b1", address = "@b1" },
    { name = "b2", address = "@b2" },
    { name = "b3", address = "@b3" },
    { name = "b4", address = "@b4" },
]
[[pool]]
name = "site"
balance = "maglev"
check = "off"
backend = [{ name = "b5", address = "@b5" }, { name = "b6", address = "@b6", weight = 2 }]
"#,
        ..KEYED
    },
    Configuration {
        what: "keys made of source, server name and a TLV, one backend down",
        hello: true,
        tlv: true,
        down: Some("b2"),
        networks: &["10.0.0.0/8"],
        text: r#"
balance = "ring"
key = ["source", "sni", "tlv:0xE0"]
prefix_v4 = 24
backend = [
    { name = "b0", address = "@b0" },
    { name = "b1", address = "@b1", weight = 2 },
    { name = "b2", address = "@b2" },
    { name = "b3", address = "@b3" },
]
[[pool.range]]
name = "ten"
cidr = "10.0.0.0/8"
one = true
"#,
        ..KEYED
    },
    Configuration {
        what: "round robin with weights, one backend down",
        down: Some("b1"),
        networks: &["10.1.0.0/16"],
        text: r#"
balance = "round_robin"
backend = [
    { name = "b0", address = "@b0", weight = 5 },
    { name = "b1", address = "@b1" },
    { name = "b2", address = "@b2" },
    { name = "b3", address = "@b3", weight = 0 },
    { name = "b4", address = "@b4", backup = true },
]
"#,
        ..KEYLESS
    },
    Configuration {
        what: "least connections over levels",
        text: r#"
balance = "least_connections"
backend = [
    { name = "b0", address = "@b0", location = "dc1" },
    { name = "b1", address = "@b1", location = "dc1", weight = 2 },
    { name = "b2", address = "@b2", location = "dc2", weight = 2 },
    { name = "b3", address = "@b3", backup = true },
]
"#,
        ..KEYLESS
    },
    Configuration {
        what: "two choices with weights",
        text: r#"
balance = "two_choices"
backend = [
    { name = "b0", address = "@b0" },
    { name = "b1", address = "@b1", weight = 2 },
    { name = "b2", address = "@b2", weight = 3 },
    { name = "b3", address = "@b3" },
]
"#,
        ..KEYLESS
    },
    Configuration {
        what: "random, the only primary down",
        down: Some("b0"),
        text: r#"
balance = "random"
backend = [
    { name = "b0", address = "@b0" },
    { name = "b1", address = "@b1", backup = true },
    { name = "b2", address = "@b2", backup = true, weight = 2 },
]
"#,
        ..KEYLESS
    },
];
