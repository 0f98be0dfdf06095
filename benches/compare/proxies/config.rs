//! Configurations of equal meaning: source hash, two backends, one thread, connect 2 s, idle 1 h, one line of access
//! log per connection to the same kind of file, health checks and metrics where the product has them. Fronts that end
//! TLS are in `terminated.rs`.
//!
//! Everything else stays at the product's own default. nginx as packaged has passive checks and no stream metrics: what
//! a peer cannot do it need not do. Invariant: no peer is asked for more than sessile is.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use super::terminated;
use crate::backends::{Backends, Service};
use crate::load::identity::{Exchange, Identity, NAME};

/// What a configuration is made of.
pub struct Plan<'a> {
    /// Where the process may put files.
    pub folder: &'a Path,
    /// Listeners and what stands behind each.
    pub fronts: Vec<(SocketAddr, &'a Backends)>,
    /// Where metrics are served.
    pub metrics: SocketAddr,
    /// Workers of sessile; a peer always has one.
    pub workers: u16,
    /// How long sessile looks for more before it sleeps.
    pub busy_poll: &'static str,
    /// How keys are exchanged where TLS ends.
    pub exchange: Exchange,
    /// What is shown there.
    pub identity: &'a Identity,
}

/// For sessile.
pub fn sessile(plan: &Plan<'_>) -> String {
    let Plan { folder, fronts, metrics, workers, busy_poll, .. } = plan;
    let socket = folder.join("admin.sock");
    let mut text = format!(
        "workers = {workers}\nbusy_poll = \"{busy_poll}\"\n[admin]\nsocket = \"{}\"\nhttp = \"{metrics}\"\n",
        socket.display()
    );
    for (front, backends) in fronts {
        let Backends { service, addresses: [a, b], .. } = backends;
        let name = service.name();
        let _ = write!(text, "\n[[listener]]\nname = \"{name}\"\nbind = \"{front}\"\n");
        if *service == Service::Https {
            terminated::sessile(&mut text, plan, backends);
            continue;
        }
        let _ = match service {
            Service::Tls => {
                write!(text, "tls = \"passthrough\"\nroute = [{{ sni = \"{NAME}\", pool = \"{name}\" }}]\n")
            }
            _ => writeln!(text, "pool = \"{name}\""),
        };
        let _ = write!(
            text,
            "\n[[pool]]\nname = \"{name}\"\nbalance = \"hash\"\nstick_table = \"0\"\n\
             backend = [{{ name = \"a\", address = \"{a}\" }}, {{ name = \"b\", address = \"{b}\" }}]\n"
        );
    }
    text
}

/// For HAProxy, which runs under its master, so that it can reload.
pub fn haproxy(plan: &Plan<'_>, splice: bool) -> String {
    let Plan { folder, fronts, metrics, .. } = plan;
    let socket = folder.join("stats.sock");
    // A quarter of all connections get pipes unless told otherwise, which the descriptor limit would not allow.
    let (pipes, option) = if splice { ("maxpipes 256", "option splice-auto") } else { ("", "") };
    let mut text = format!(
        "global\n    nbthread 1\n    log stdout format raw local0\n    {pipes}\n    \
         stats socket {} mode 600 level admin expose-fd listeners\n\
         defaults\n    mode tcp\n    log global\n    option tcplog\n    {option}\n    \
         timeout connect 2s\n    timeout client 1h\n    timeout server 1h\n\
         frontend metrics\n    mode http\n    no log\n    bind {metrics}\n    stats enable\n    stats uri /\n",
        socket.display()
    );
    for (front, backends) in fronts {
        let Backends { service, addresses: [a, b], .. } = backends;
        if *service == Service::Https {
            terminated::haproxy(&mut text, plan, *front, backends);
            continue;
        }
        let name = service.name();
        let _ = write!(text, "frontend {name}\n    bind {front}\n");
        let _ = match service {
            Service::Tls => write!(
                text,
                "    tcp-request inspect-delay 5s\n    tcp-request content accept if {{ req.ssl_hello_type 1 }}\n    \
                 use_backend {name} if {{ req.ssl_sni -i {NAME} }}\n"
            ),
            _ => writeln!(text, "    default_backend {name}"),
        };
        let _ = write!(
            text,
            "backend {name}\n    balance source\n    hash-type consistent\n    \
             default-server check inter 2s rise 2 fall 3\n    server a {a}\n    server b {b}\n"
        );
    }
    text
}

/// For nginx. `module`: the stream module, where it is not built in.
pub fn nginx(plan: &Plan<'_>, module: Option<&Path>) -> String {
    let Plan { folder, fronts, .. } = plan;
    let folder = folder.display();
    let load = module.map_or(String::new(), |module| format!("load_module {};\n", module.display()));
    let mut text = format!(
        "{load}daemon off;\nworker_processes 1;\nworker_rlimit_nofile 20000;\npid {folder}/nginx.pid;\n\
         error_log {folder}/error.log warn;\nevents {{ worker_connections 18000; }}\nstream {{\n\
         log_format line '$remote_addr [$time_local] $protocol $status $bytes_sent $bytes_received $session_time \
         $upstream_addr';\naccess_log {folder}/access.log line;\nproxy_connect_timeout 2s;\nproxy_timeout 1h;\n"
    );
    let (sites, streams): (Vec<_>, Vec<_>) =
        fronts.iter().partition(|(_, backends)| backends.service == Service::Https);
    for (front, Backends { service, addresses: [a, b], .. }) in streams {
        let name = service.name();
        let _ = writeln!(text, "upstream {name} {{ hash $remote_addr consistent; server {a}; server {b}; }}");
        let _ = match service {
            Service::Tls => write!(
                text,
                "map $ssl_preread_server_name $pool {{ {NAME} {name}; }}\n\
                 server {{ listen {front} backlog=4096; ssl_preread on; proxy_pass $pool; }}\n"
            ),
            _ => writeln!(text, "server {{ listen {front} backlog=4096; proxy_pass {name}; }}"),
        };
    }
    text += "}\n";
    for (front, backends) in sites {
        terminated::nginx(&mut text, plan, front, backends);
    }
    text
}
