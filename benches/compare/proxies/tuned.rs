//! Peers once more, well tuned: each setting with its reason, on top of the configurations of `config.rs`.
//!
//! Taken is what manuals and operators name for speed and what leaves the service as it is. Not taken: what polls
//! (`busy-polling`), what changes what a silent client meets (`deferred`), what more threads would change, and sizes
//! of socket buffers, which the kernel sets better. Invariant: what a run says of a tuned peer is what its
//! configuration has.

/// Where a setting stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// HAProxy's `global` section.
    Global,
    /// The same section, where bulk is expected: pipes count against the descriptor limit.
    Pipes,
    /// The same section, where clients speak HTTP/2.
    Windows,
    /// HAProxy's `defaults` section.
    Defaults,
    /// HAProxy's frontends where bulk is expected.
    Bulk,
    /// nginx's `events` block.
    Events,
    /// nginx's `stream` block.
    Stream,
    /// nginx's `http` block.
    Http,
    /// The same block, where clients speak HTTP/2.
    Http2,
    /// Behind an address of nginx.
    Listen,
    /// Behind the file of nginx's access log.
    Log,
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    place: Place,
    text: &'static str,
    reason: &'static str,
}

/// Settings of one peer; none where it runs as it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tuning {
    /// As it comes.
    None,
    /// HAProxy.
    Haproxy,
    /// nginx.
    Nginx,
}

use Place::{Bulk, Defaults, Events, Global, Http, Http2, Listen, Log, Pipes, Stream, Windows};

const fn set(place: Place, text: &'static str, reason: &'static str) -> Setting {
    Setting { place, text, reason }
}

static HAPROXY: [Setting; 9] = [
    set(
        Bulk,
        "option splice-request",
        "bulk does not pass user space; splice-auto is never sure enough of that in 2.6",
    ),
    set(Bulk, "option splice-response", "the same from the backend"),
    set(Pipes, "tune.pipesize 1048576", "a page of a file fills one slot of a pipe, of which there are 16 by default"),
    set(Pipes, "maxpipes 256", "a quarter of all connections get pipes otherwise, more than there are descriptors"),
    set(Global, "tune.bufsize 65536", "what is not spliced moves by 64 KiB, not by 16"),
    set(Global, "tune.maxaccept 64", "fewer turns for many new connections, not 4 at a time"),
    set(Windows, "tune.h2.initial-window-size 1048576", "a stream's upload may be 1 MiB ahead, not 64 KiB"),
    set(Defaults, "option tcp-smart-accept", "one ACK less from the client's connection"),
    set(Defaults, "option tcp-smart-connect", "one ACK less to the backend"),
];

static NGINX: [Setting; 10] = [
    set(Events, "multi_accept on;", "every connection that waits is accepted at one wake-up"),
    set(Listen, "reuseport", "the worker has a queue of its own"),
    set(Log, "buffer=64k flush=1s", "one write for many lines"),
    set(Stream, "proxy_buffer_size 64k;", "bulk moves by 64 KiB, not by 16"),
    set(Http, "proxy_buffer_size 64k;", "the same for what comes from backends"),
    set(Http, "proxy_buffers 8 64k;", "the same"),
    set(Http, "proxy_busy_buffers_size 128k;", "two buffers may be on their way to the client"),
    set(Http, "client_body_buffer_size 64k;", "uploads move by 64 KiB, not by 16"),
    set(Http2, "http2_chunk_size 16k;", "frames of 16 KiB, not of 8"),
    set(Http2, "http2_body_preread_size 1m;", "a stream's upload may be 1 MiB ahead, not 64 KiB"),
];

impl Tuning {
    fn settings(self) -> &'static [Setting] {
        match self {
            Self::None => &[],
            Self::Haproxy => &HAPROXY,
            Self::Nginx => &NGINX,
        }
    }

    /// Whatever belongs to a place: lines, or words behind others.
    pub fn at(self, place: Place) -> String {
        let here = self.settings().iter().filter(|setting| setting.place == place);
        here.map(|Setting { text, .. }| match place {
            Listen | Log => format!(" {text}"),
            _ => format!("    {text}\n"),
        })
        .collect()
    }

    /// Every setting with its reason.
    pub fn reasons(self) -> Vec<String> {
        self.settings().iter().map(|Setting { text, reason, .. }| format!("{text} ({reason})")).collect()
    }
}
