//! Configurations of equal meaning where TLS ends at the proxy: one certificate, one key exchange, one cipher suite (the
//! clients offer no other); each new client goes to the next backend and stays there by a cookie of the proxy's; backends
//! are told client, scheme and host; one line of access log per request.
//!
//! nginx as packaged has no sticky cookie: its clients get a random one and are placed by its hash. What would make
//! a peer slower by its default and has no counterpart here is turned off: answers spooled to files, uploads read whole
//! before they are sent on, an end to kept connections after so many requests, a connection to a backend for every
//! request. Invariant: no peer is asked for more than sessile is.

use std::fmt::Write;
use std::net::SocketAddr;

use super::config::Plan;
use crate::backends::Backends;
use crate::load::identity::Exchange;

/// The end of a listener, with its pool and what holds for all that ends TLS.
pub fn sessile(text: &mut String, plan: &Plan<'_>, backends: &Backends) {
    let (bundle, keys) = (plan.identity.bundle.display(), plan.identity.cookie_keys.display());
    let group = match plan.exchange {
        Exchange::X25519 => "x25519",
        Exchange::PostQuantum => "X25519MLKEM768",
    };
    let Backends { addresses: [a, b], .. } = backends;
    let _ = write!(
        text,
        "pool = \"https\"\ntls = \"terminate\"\ncertificate = [{{ cert = \"{bundle}\" }}]\n\n[[pool]]\nname = \"https\"\n\
         http = true\nbalance = \"round_robin\"\ncookie = {{ mode = \"insert\", name = \"SRV\", keys = \"{keys}\" }}\n\
         backend = [{{ name = \"a\", address = \"{a}\" }}, {{ name = \"b\", address = \"{b}\" }}]\n\n\
         [tls]\ngroups = \"{group}\"\n"
    );
}

/// A front and its backends.
pub fn haproxy(text: &mut String, plan: &Plan<'_>, front: SocketAddr, backends: &Backends) {
    let bundle = plan.identity.bundle.display();
    let Backends { addresses: [a, b], .. } = backends;
    let _ = write!(
        text,
        "frontend https\n    mode http\n    option httplog\n    option forwardfor\n    \
         bind {front} ssl crt {bundle} alpn http/1.1 curves X25519\n    \
         http-request set-header X-Forwarded-Proto https\n    \
         http-request set-header X-Forwarded-Host %[req.hdr(host)]\n    default_backend https\n\
         backend https\n    mode http\n    balance roundrobin\n    cookie SRV insert indirect nocache\n    \
         timeout tunnel 1h\n    default-server check inter 2s rise 2 fall 3\n    \
         server a {a} cookie a\n    server b {b} cookie b\n"
    );
}

/// The block of HTTP.
pub fn nginx(text: &mut String, plan: &Plan<'_>, front: SocketAddr, backends: &Backends) {
    let (folder, bundle) = (plan.folder.display(), plan.identity.bundle.display());
    let Backends { addresses: [a, b], .. } = backends;
    let _ = write!(text, "http {{\naccess_log {folder}/access.log combined;\n");
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(text, "{kind}_temp_path {folder}/{kind};");
    }
    let _ = write!(
        text,
        "map $http_upgrade $onward {{ default upgrade; \"\" \"\"; }}\n\
         map $cookie_SRV $client {{ default $cookie_SRV; \"\" $request_id; }}\n\
         map $cookie_SRV $given {{ default \"\"; \"\" \"SRV=$request_id; path=/\"; }}\n\
         upstream https {{\n    hash $client consistent;\n    server {a};\n    server {b};\n    keepalive 128;\n    \
         keepalive_requests 1000000000;\n}}\n\
         server {{\n    listen {front} ssl backlog=4096;\n    ssl_certificate {bundle};\n    \
         ssl_certificate_key {bundle};\n    ssl_protocols TLSv1.2 TLSv1.3;\n    ssl_ecdh_curve X25519;\n    \
         keepalive_requests 1000000000;\n    client_max_body_size 0;\n    add_header Set-Cookie $given;\n    \
         location / {{\n        proxy_pass http://https;\n        proxy_http_version 1.1;\n        \
         proxy_set_header Host $host;\n        proxy_set_header Connection $onward;\n        \
         proxy_set_header Upgrade $http_upgrade;\n        proxy_set_header X-Forwarded-For $remote_addr;\n        \
         proxy_set_header X-Forwarded-Proto https;\n        proxy_set_header X-Forwarded-Host $host;\n        \
         proxy_connect_timeout 2s;\n        proxy_read_timeout 1h;\n        proxy_request_buffering off;\n        \
         proxy_max_temp_file_size 0;\n        proxy_buffer_size 16k;\n        proxy_buffers 8 16k;\n    }}\n}}\n}}\n"
    );
}
