//! Configurations of equal meaning: source hash, two backends, one thread, connect 2 s, idle 1 h, one line of access
//! log per connection to the same kind of file, health checks and metrics where the product has them; or log, checks
//! and metrics off in every product. Fronts that end TLS are in `terminated.rs`, what a tuned peer has more in
//! `tuned.rs`.
//!
//! Everything else stays at the product's own default. nginx as packaged has passive checks and no stream metrics:
//! what a peer cannot do it need not do. Invariant: no peer is asked for more than sessile is.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use super::terminated;
use super::tuned::{Place, Tuning};
use crate::backends::Service;
use crate::load::identity::{Exchange, Identity, NAME};

/// What a configuration is made of.
pub struct Plan<'a> {
    /// Where the process may put files.
    pub folder: &'a Path,
    /// Listeners and what stands behind each.
    pub fronts: Vec<Front>,
    /// Where metrics are served.
    pub metrics: SocketAddr,
    /// Whether access log, metrics and checks are off.
    pub off: bool,
    /// What a peer has beside what it comes with.
    pub tuning: Tuning,
    /// Workers of sessile; a peer always has one.
    pub workers: u16,
    /// How long sessile looks for more before it sleeps.
    pub busy_poll: &'static str,
    /// How keys are exchanged where TLS ends.
    pub exchange: Exchange,
    /// What is shown there.
    pub identity: &'a Identity,
    /// Whether nginx has a directive for HTTP/2, or a word behind the address.
    pub http2_directive: bool,
}

/// A listener with what stands behind it.
#[derive(Debug, Clone, Copy)]
pub struct Front {
    /// Where the proxy listens.
    pub at: SocketAddr,
    /// What is served.
    pub service: Service,
    /// Where the backends are.
    pub backends: [SocketAddr; 2],
}

impl Front {
    /// Whether an operator would expect large transfers there.
    fn is_bulk(&self) -> bool {
        matches!(self.service, Service::Bulk | Service::Files | Service::Pages)
    }
}

/// For sessile.
pub fn sessile(plan: &Plan<'_>) -> String {
    let Plan { folder, fronts, metrics, workers, busy_poll, off, .. } = plan;
    let socket = folder.join("admin.sock");
    let (http, log) = match off {
        true => ("off".to_owned(), "[log]\nconnections = false\n"),
        false => (metrics.to_string(), ""),
    };
    let mut text = format!(
        "workers = {workers}\nbusy_poll = \"{busy_poll}\"\n[admin]\nsocket = \"{}\"\nhttp = \"{http}\"\n{log}",
        socket.display()
    );
    for Front { at, service, backends: [a, b] } in fronts {
        let name = service.name();
        let check = if *off { "check = \"off\"\n" } else { "" };
        let _ = write!(text, "\n[[listener]]\nname = \"{name}\"\nbind = \"{at}\"\n");
        if service.is_terminated() {
            terminated::sessile(&mut text, plan, name);
        } else {
            let _ = match service {
                Service::Tls => {
                    write!(text, "tls = \"passthrough\"\nroute = [{{ sni = \"{NAME}\", pool = \"{name}\" }}]\n")
                }
                _ => writeln!(text, "pool = \"{name}\""),
            };
            let http = if *service == Service::Pages { "http = true\n" } else { "" };
            let _ = write!(text, "\n[[pool]]\nname = \"{name}\"\n{http}balance = \"hash\"\nstick_table = \"0\"\n");
        }
        let _ = writeln!(
            text,
            "{check}backend = [{{ name = \"a\", address = \"{a}\" }}, {{ name = \"b\", address = \"{b}\" }}]"
        );
    }
    if fronts.iter().any(|front| front.service.is_terminated()) {
        terminated::sessile_tls(&mut text, plan);
    }
    text
}

/// For HAProxy, which runs under its master, so that it can reload.
pub fn haproxy(plan: &Plan<'_>, splice: bool) -> String {
    let Plan { folder, fronts, metrics, off, tuning, .. } = plan;
    let socket = folder.join("stats.sock");
    // A quarter of all connections get pipes unless told otherwise, which the descriptor limit would not allow.
    let (pipes, option) = if splice { ("    maxpipes 256\n", "    option splice-auto\n") } else { ("", "") };
    let (target, log, page) = match off {
        true => ("", "", String::new()),
        false => (
            "    log stdout format raw local0\n",
            "    log global\n    option tcplog\n",
            format!(
                "frontend metrics\n    mode http\n    no log\n    bind {metrics}\n    stats enable\n    stats uri /\n"
            ),
        ),
    };
    let (mut global, defaults) = (tuning.at(Place::Global), tuning.at(Place::Defaults));
    if fronts.iter().any(Front::is_bulk) {
        global += &tuning.at(Place::Pipes);
    }
    if fronts.iter().any(|front| front.service == Service::Http2) {
        global += &tuning.at(Place::Windows);
    }
    let mut text = format!(
        "global\n    nbthread 1\n{target}{pipes}{global}    \
         stats socket {} mode 600 level admin expose-fd listeners\n\
         defaults\n    mode tcp\n{log}{option}{defaults}    \
         timeout connect 2s\n    timeout client 1h\n    timeout server 1h\n{page}",
        socket.display()
    );
    for front in fronts {
        if front.service.is_terminated() {
            terminated::haproxy(&mut text, plan, front);
            continue;
        }
        let Front { at, service, backends: [a, b] } = front;
        let name = service.name();
        let bulk = if front.is_bulk() { tuning.at(Place::Bulk) } else { String::new() };
        let mode = match (service, off) {
            (Service::Pages, true) => "    mode http\n",
            (Service::Pages, false) => "    mode http\n    option httplog\n",
            _ => "",
        };
        let _ = write!(text, "frontend {name}\n    bind {at}\n{mode}{bulk}");
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
            "backend {name}\n{}    balance source\n    hash-type consistent\n{}    server a {a}\n    server b {b}\n",
            if *service == Service::Pages { "    mode http\n" } else { "" },
            haproxy_checks(*off)
        );
    }
    text
}

/// What HAProxy does to know that its servers are there.
pub fn haproxy_checks(off: bool) -> &'static str {
    if off { "" } else { "    default-server check inter 2s rise 2 fall 3\n" }
}

/// For nginx. `module`: the stream module, where it is not built in.
pub fn nginx(plan: &Plan<'_>, module: Option<&Path>) -> String {
    let Plan { folder, fronts, tuning, .. } = plan;
    let place = folder.display();
    let load = module.map_or(String::new(), |module| format!("load_module {};\n", module.display()));
    let (events, stream, listen) = (tuning.at(Place::Events), tuning.at(Place::Stream), tuning.at(Place::Listen));
    let mut text = format!(
        "{load}daemon off;\nworker_processes 1;\nworker_rlimit_nofile 20000;\npid {place}/nginx.pid;\n\
         error_log {place}/error.log warn;\nevents {{\n    worker_connections 18000;\n{events}}}\nstream {{\n\
         log_format line '$remote_addr [$time_local] $protocol $status $bytes_sent $bytes_received $session_time \
         $upstream_addr';\n{}proxy_connect_timeout 2s;\nproxy_timeout 1h;\n{stream}",
        nginx_log(plan, "line")
    );
    let is_site = |front: &&Front| front.service.is_terminated() || front.service == Service::Pages;
    let (sites, streams): (Vec<&Front>, Vec<&Front>) = fronts.iter().partition(is_site);
    for Front { at, service, backends: [a, b] } in streams {
        let name = service.name();
        let _ = writeln!(text, "upstream {name} {{ hash $remote_addr consistent; server {a}; server {b}; }}");
        let _ = match service {
            Service::Tls => write!(
                text,
                "map $ssl_preread_server_name $pool {{ {NAME} {name}; }}\n\
                 server {{ listen {at} backlog=4096{listen}; ssl_preread on; proxy_pass $pool; }}\n"
            ),
            _ => writeln!(text, "server {{ listen {at} backlog=4096{listen}; proxy_pass {name}; }}"),
        };
    }
    text += "}\n";
    if !sites.is_empty() {
        terminated::nginx(&mut text, plan, &sites);
    }
    text
}

/// Where nginx writes its access log.
pub fn nginx_log(plan: &Plan<'_>, format: &str) -> String {
    match plan.off {
        true => "access_log off;\n".to_owned(),
        false => format!("access_log {}/access.log {format}{};\n", plan.folder.display(), plan.tuning.at(Place::Log)),
    }
}
