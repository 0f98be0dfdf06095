//! The product through its front door: the real binary, real sockets, hostile clients and backends.
//!
//! A test belongs beside what it provokes. What a parser, a rule or one module decides is tested in `src/`.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod admin; // the admin interface and the commands that use it
mod attention; // what needs attention: one log line, one metric, one word in status
mod balance; // how workers share connections
mod booted; // the unit in the hands of a booted systemd
mod bulk; // transfers by large and by small pipes, byte by byte
mod by_load; // new clients placed by load and remembered; siblings of a location
mod certificates; // files of certificates and keys: made, checked, refused
mod defer_accept; // clients that have sent nothing are left to the kernel
mod demo; // `sessile demo`: what it promises and what it leaves behind
mod discovery; // backends that come and go by DNS or files: good and broken, scaled, replaced, kept
mod documents; // every fenced command of the README and the manual, on a machine of its own
mod early_close; // backends that accept and end every connection without a byte
mod examples; // every example of `config/`, with the backends of `sessile demo --backends`
mod exit_codes; // every exit code of every command, against its manual page
mod explain; // `sessile explain` against what the running process picks
mod faults; // every ending of a passthrough connection, in log, metrics and status
mod field_reports; // what public reports tell of other balancers: placement, reload, health
mod first_run; // folders that are missing at the first start
mod fleet; // stick tables of several instances that agree through a store
mod generations; // memory and generations after a thousand reloads
mod grpc; // gRPC: calls of every kind through pools of HTTP/2, and its health checks
mod http2; // HTTP/2 with clients: streams, cookies, windows, GOAWAY, WebSockets, attacks
mod http2_backend; // HTTP/2 with backends: streams, trailers, resets, GOAWAY, WebSockets, misbehaviour
mod http2_frames; // HTTP/2 frame by frame: the RFCs by section, and attacks
mod idle; // thousands of connections that do nothing, and the memory they cost
mod incidents; // staged incidents: what `sessile why` and `sessile events` tell of each
mod keys; // clients known by headers, queries, paths, parameters and certificates of their requests
mod leaks; // descriptors, permits and leases after two thousand mixed faults
mod limits; // limits of requests: bodies, heads, rates, by HTTP/1.1 and HTTP/2
mod log; // both streams line by line: schema, moves, outputs, samples, stalled readers
mod log_files; // files of the log: torn lines, and what a refused configuration leaves on the disk
mod manual; // manual pages and completions, read by the programs they are for
mod migrate; // configurations of HAProxy and nginx in `config/migrate/`, beside their originals
mod monitoring; // /metrics, the dashboard and the alert rules before a real Prometheus
mod never_stuck; // pipes, dead disks and full outputs in the place of files
mod notify; // what a service manager hears of the process, and what its journal gets
mod one_generation; // bytes that were read before a reload and judged after it
mod one_line; // `sessile run` without a file: what its arguments stand for, and how commands find it
mod orders; // backends added, changed and removed at run time: clients, restarts, refusals, `sessile save`
mod packaging; // what packages are made of: version, configuration, licences
mod page; // the page of the admin interface in Chromium: what it shows, at two widths, in two themes, by keyboard
mod peers; // `sessile check` beside HAProxy and nginx, mistake by mistake
mod plan; // `sessile plan` against where clients really move
mod queue; // clients that wait for a place at a full backend: order, limits, reloads, departures
mod rebinding; // a page of a foreign site in a browser, and the admin port
mod reload; // a reload as a whole: accepted or refused, and what it says
mod reload_keeps; // what a reload leaves as it was: backends, keys, open connections
mod reload_says; // what a reload, a plan and a check say of a change: keys, when they take effect, cookies
mod restart; // a next process that starts while the one before stops
mod routes; // routes of requests, answers without a backend, pages for errors
mod rules; // random configurations of all rules of requests: what `explain` foretells is what requests do
mod runtime_state; // drains and ejections over a restart
mod services; // real programs behind passthrough: HTTPS, SSH, Redis, PostgreSQL
mod shape; // the sources themselves: floors, cycles, sizes, words
mod size; // many pools and large stick tables: memory, addresses and series
mod smoke; // one client comes back to its backend
mod split_by_key; // splits that know clients by a key, for bytes, TLS that passes through and requests
mod stick_table; // the stick table of passthrough pools and its file
mod sticky; // the scenarios of `benches/sticky`, small
mod sticky_scale; // stickiness by numbers: ids of servers over three instances, load, siblings, Tomcat
mod stop; // SIGTERM, listeners that are removed, deadlines, a restart
mod support; // no tests: the process under test, backends, clients, waiting
mod systemd; // listening sockets that systemd passes
mod terminate; // terminated TLS and HTTP: cookies, requests, the shared store
#[cfg(feature = "top")]
mod top; // `sessile top` in a real terminal
mod two_balancers; // two balancers with one address, which keepalived moves
mod unit; // the files for systemd in `config/`
mod unix_sockets; // files of unix listeners: removed, replaced, made again, with mode and group
mod upgrade; // another binary takes over: pairs, listeners, state; refusals and deaths on the way
mod urgent; // urgent bytes (RFC 6093) beside the stream
mod watch; // `watch = true`
mod websocket; // a WebSocket and requests through a hundred reloads
