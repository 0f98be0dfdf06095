//! Configurations of equal meaning where HTTP is read, without TLS for files; and where TLS ends at the proxy: one
//! certificate, one key exchange, one cipher suite (the clients offer no other); each new client goes to the next
//! backend and stays there by a cookie of the proxy's; backends are told client, scheme and host; one line of access
//! log per request. Where clients may speak HTTP/2, backends are spoken to in HTTP/1.1 on connections that are kept.
//!
//! nginx as packaged has no sticky cookie: its clients get a random one and are placed by its hash. What would make a
//! peer slower by its default and has no counterpart here is turned off: answers spooled to files, uploads read whole
//! before they are sent on, an end to kept connections after so many requests, a connection to a backend for every
//! request. Invariant: no peer is asked for more than sessile is.

use std::fmt::Write;

use super::config::{Front, Plan, haproxy_checks, nginx_log};
use super::tuned::Place;
use crate::backends::{Service, temporary};
use crate::load::identity::Exchange;

/// The end of a listener, with its pool; the backends follow.
pub fn sessile(text: &mut String, plan: &Plan<'_>, name: &str) {
    let (bundle, keys) = (plan.identity.bundle.display(), plan.identity.cookie_keys.display());
    let _ = write!(
        text,
        "pool = \"{name}\"\ntls = \"terminate\"\ncertificate = [{{ cert = \"{bundle}\" }}]\n\n\
         [[pool]]\nname = \"{name}\"\nhttp = true\nbalance = \"round_robin\"\n\
         cookie = {{ mode = \"insert\", name = \"SRV\", keys = \"{keys}\" }}\n"
    );
}

/// What holds for all that ends TLS.
pub fn sessile_tls(text: &mut String, plan: &Plan<'_>) {
    let group = match plan.exchange {
        Exchange::X25519 => "x25519",
        Exchange::PostQuantum => "X25519MLKEM768",
    };
    let _ = write!(text, "\n[tls]\ngroups = \"{group}\"\n");
}

/// A front and its backends.
pub fn haproxy(text: &mut String, plan: &Plan<'_>, front: &Front) {
    let bundle = plan.identity.bundle.display();
    let Front { at, service, backends: [a, b] } = front;
    let name = service.name();
    let alpn = if *service == Service::Http2 { "h2,http/1.1" } else { "http/1.1" };
    let log = if plan.off { "" } else { "    option httplog\n" };
    let _ = write!(
        text,
        "frontend {name}\n    mode http\n{log}    option forwardfor\n    \
         bind {at} ssl crt {bundle} alpn {alpn} curves X25519\n    \
         http-request set-header X-Forwarded-Proto https\n    \
         http-request set-header X-Forwarded-Host %[req.hdr(host)]\n    default_backend {name}\n\
         backend {name}\n    mode http\n    balance roundrobin\n    cookie SRV insert indirect nocache\n    \
         timeout tunnel 1h\n{}    server a {a} cookie a\n    server b {b} cookie b\n",
        haproxy_checks(plan.off)
    );
}

/// The block of HTTP.
pub fn nginx(text: &mut String, plan: &Plan<'_>, fronts: &[&Front]) {
    let mut buffers = plan.tuning.at(Place::Http);
    if buffers.is_empty() {
        buffers += "    proxy_buffer_size 16k;\n    proxy_buffers 8 16k;\n";
    }
    if fronts.iter().any(|front| front.service == Service::Http2) {
        buffers += &plan.tuning.at(Place::Http2);
    }
    let _ = write!(text, "http {{\n{}{buffers}", nginx_log(plan, "combined"));
    temporary(text, plan.folder);
    if fronts.iter().any(|front| front.service.is_terminated()) {
        *text += "map $http_upgrade $onward { default upgrade; \"\" \"\"; }\n\
                  map $cookie_SRV $client { default $cookie_SRV; \"\" $request_id; }\n\
                  map $cookie_SRV $given { default \"\"; \"\" \"SRV=$request_id; path=/\"; }\n";
    }
    for front in fronts {
        match front.service {
            Service::Pages => nginx_pages(text, plan, front),
            _ => nginx_https(text, plan, front),
        }
    }
    *text += "}\n";
}

/// Files without TLS.
fn nginx_pages(text: &mut String, plan: &Plan<'_>, front: &Front) {
    let Front { at, backends: [a, b], .. } = front;
    let listen = plan.tuning.at(Place::Listen);
    let _ = write!(
        text,
        "upstream pages {{\n    hash $remote_addr consistent;\n    server {a};\n    server {b};\n    keepalive 128;\n    \
         keepalive_requests 1000000000;\n}}\n\
         server {{\n    listen {at} backlog=4096{listen};\n    keepalive_requests 1000000000;\n    \
         client_max_body_size 0;\n    location / {{\n        proxy_pass http://pages;\n        \
         proxy_http_version 1.1;\n        proxy_set_header Host $host;\n        \
         proxy_set_header Connection \"\";\n        proxy_set_header X-Forwarded-For $remote_addr;\n        \
         proxy_connect_timeout 2s;\n        proxy_read_timeout 1h;\n        proxy_request_buffering off;\n        \
         proxy_max_temp_file_size 0;\n    }}\n}}\n"
    );
}

/// Where TLS ends.
fn nginx_https(text: &mut String, plan: &Plan<'_>, front: &Front) {
    let bundle = plan.identity.bundle.display();
    let Front { at, service, backends: [a, b] } = front;
    let name = service.name();
    let listen = plan.tuning.at(Place::Listen);
    let (word, directive) = match (service, plan.http2_directive) {
        (Service::Http2, false) => (" http2", ""),
        (Service::Http2, true) => ("", "    http2 on;\n"),
        _ => ("", ""),
    };
    let _ = write!(
        text,
        "upstream {name} {{\n    hash $client consistent;\n    server {a};\n    server {b};\n    keepalive 128;\n    \
         keepalive_requests 1000000000;\n}}\n\
         server {{\n    listen {at} ssl{word} backlog=4096{listen};\n{directive}    ssl_certificate {bundle};\n    \
         ssl_certificate_key {bundle};\n    ssl_protocols TLSv1.2 TLSv1.3;\n    ssl_ecdh_curve X25519;\n    \
         keepalive_requests 1000000000;\n    client_max_body_size 0;\n    add_header Set-Cookie $given;\n    \
         location / {{\n        proxy_pass http://{name};\n        proxy_http_version 1.1;\n        \
         proxy_set_header Host $host;\n        proxy_set_header Connection $onward;\n        \
         proxy_set_header Upgrade $http_upgrade;\n        proxy_set_header X-Forwarded-For $remote_addr;\n        \
         proxy_set_header X-Forwarded-Proto https;\n        proxy_set_header X-Forwarded-Host $host;\n        \
         proxy_connect_timeout 2s;\n        proxy_read_timeout 1h;\n        proxy_request_buffering off;\n        \
         proxy_max_temp_file_size 0;\n    }}\n}}\n"
    );
}
