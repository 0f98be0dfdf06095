//! The list: memory that more than one thread writes while clients are served.
//!
//! How it was counted: the path of a connection through `splicer/` and `terminate/`, and of what both call, was read for
//! atomics, locks and counted references (`Arc`), from accept to close and from head to head. The path is the usual one:
//! a client that is served, at its first attempt, without limits per source. What only a failure, a change of health, a
//! scrape or a reload writes is left out. A write counts as one, also where two follow each other and the second finds the
//! line at home. Invariant: a row says what the code does; each change of the path changes its row.
//!
//! What is *not* here is written by one thread only, in lines of its own: counters of workers, listeners, backends and
//! cookies, slots of `ArcSwap` in which a thread notes what it reads, rows, timers, pipes and buffers of a worker; and the
//! queue of a listening socket, of which each worker has one (but for unix sockets, and those of systemd). So a wake that
//! only moves bytes writes nothing that is shared, and neither does a GiB of bulk once its pipes are there.

use self::Spread::{Backends, Keys, One, Stripes};
use self::When::{Kernel, Keyed, Keyless, LeastConnections, Logged, Seldom};

/// One kind of line, and how often a thread writes it.
pub struct SharedLine {
    /// The word that is written.
    pub name: &'static str,
    /// File in which it is written.
    pub file: &'static str,
    /// Writes for a connection, from accept to close.
    pub connection: f64,
    /// Writes for a request of a kept connection, beside those for the connection.
    pub request: f64,
    /// How many lines share the writes.
    pub spread: Spread,
    /// Where it is written at all.
    pub when: When,
    /// What else reads it.
    pub read_by: &'static str,
}

/// How many lines of one kind there are.
#[derive(Clone, Copy, PartialEq)]
pub enum Spread {
    /// One for the process, or for a listener or a pool, which may have all clients.
    One,
    /// One for each backend.
    Backends,
    /// One for each of 16 groups of threads.
    Stripes,
    /// So many that no two threads want one at once.
    Keys,
}

/// Where a line is written.
#[derive(Clone, Copy, PartialEq)]
pub enum When {
    Always,
    /// In pools with a key.
    Keyed,
    /// In pools without a key.
    Keyless,
    /// In pools with `balance = "least_connections"`.
    LeastConnections,
    /// While connections and requests are logged.
    Logged,
    /// In the kernel.
    Kernel,
    /// In the case that the text names; the model leaves it out.
    Seldom(&'static str),
}

const fn line(name: &'static str, file: &'static str, connection: f64, request: f64, spread: Spread) -> SharedLine {
    SharedLine { name, file, connection, request, spread, when: When::Always, read_by: "-" }
}

impl SharedLine {
    const fn when(self, when: When) -> Self {
        Self { when, ..self }
    }

    const fn read_by(self, read_by: &'static str) -> Self {
        Self { read_by, ..self }
    }
}

/// An accept is tried until the queue is empty, and each try takes a permit: while clients come one by one, every second
/// accept is followed by a try in vain. Hence three where two were expected.
pub const LINES: [SharedLine; 28] = [
    line("Admission::open", "admission.rs", 3.0, 0.0, One).read_by("the share of a worker, at accept"),
    line("ListenerState::open", "admission.rs", 3.0, 0.0, One),
    line("references of ListenerState, by permits", "admission.rs", 3.0, 0.0, One),
    line("references of Listener, while connecting", "splicer/worker/acceptor.rs", 2.0, 0.0, One),
    line("references of Pool, while connecting", "splicer/flow.rs", 2.0, 0.0, One),
    line("PoolShared::draws", "pool/scene.rs", 1.0, 1.0, One).when(Keyless),
    line("PoolShared::leases", "pool/lease.rs", 2.0, 0.0, One).read_by("load_bound, at each new key"),
    line("Backend::leases", "pool/lease.rs", 2.0, 0.0, Backends).read_by("max_connections, two_choices"),
    line("references of Backend, by leases", "pool/lease.rs", 2.0, 0.0, Backends),
    // A lease notes its change, and each note may change a seat and the nodes above: three where three backends are.
    line("Tally of the least loaded", "placement/tally.rs", 6.0, 0.0, One).when(LeastConnections).read_by("each pick"),
    line("TopKeys, picks until the next sample", "sticky/table/top_keys.rs", 1.0, 1.0, Stripes).when(Keyed),
    // A new key adds to its kind, its backend and its minute; a known one moves between minutes, once a minute at most.
    line("Census of entries", "sticky/table/census.rs", 3.0, 0.0, Stripes).when(Keyed),
    // Two lock bits are taken and cleared, and the two words of the entry written.
    line("buckets of a new key", "sticky/table/buckets.rs", 6.0, 0.0, Keys).when(Keyed).read_by("picks of other keys"),
    line("references of the listener's name", "access_log/mod.rs", 2.0, 2.0, One).when(Logged),
    line("references of the pool's name", "access_log/mod.rs", 2.0, 2.0, One).when(Logged),
    line("references of the backend's name", "access_log/mod.rs", 2.0, 2.0, Backends).when(Logged),
    // Head and slot of the queue, and what wakes the writer, for a batch of 256 lines or of 50 ms.
    line("queue of the access log", "access_log/mod.rs", 0.02, 0.02, One).when(Logged),
    // At accept, at the socket to the backend and at both closes: the lock, and the bits of free descriptors.
    line("descriptors of the process", "kernel", 8.0, 0.0, One).when(Kernel),
    line("source shard, one of 64", "admission.rs", 4.0, 0.0, Keys).when(Seldom("limits per source")),
    line("HelloMemory::held", "admission/held.rs", 2.0, 0.0, One).when(Seldom("a hello beyond 4 KiB")),
    line("PoolShared::breaks", "pool/mod.rs", 1.0, 1.0, One).when(Seldom("a client that lost its backend")),
    line("references of a range's name", "splicer/flow.rs", 2.0, 0.0, One).when(Seldom("a named range")),
    line("inbox of a worker", "splicer/inbox.rs", 5.0, 0.0, Keys).when(Seldom("a worker above its share")),
    line("LargePipes::held", "splicer/large_pipes.rs", 2.0, 0.0, One)
        .when(Seldom("a large pipe made and closed"))
        .read_by("each turn of bulk"),
    line("queue of a runtime", "splicer/workers.rs", 5.0, 0.0, Keys).when(Seldom("a conversation; its worker alone")),
    line("references of the listener's name", "terminate/conversation.rs", 2.0, 0.0, One)
        .when(Seldom("a conversation")),
    line("queue of handshakes", "terminate/handshakes.rs", 4.0, 0.0, One).when(Seldom("max_handshakes")),
    line("lock of the ticket keys", "tls/tickets.rs", 4.0, 0.0, One).when(Seldom("a handshake without ticket_keys")),
];

/// Prints the list.
pub fn print() {
    println!("memory that several threads write: writes for a connection and for a request of a kept one");
    println!("  {:<52}{:>6}{:>6}  {:<16}{:<28}{:<34}read also by", "word", "conn.", "req.", "lines", "file", "when");
    for line in &LINES {
        let spread = match line.spread {
            One => "1",
            Backends => "each backend",
            Stripes => "16",
            Keys => "many",
        };
        let when = match line.when {
            When::Always => "always",
            Keyed => "keyed pools",
            Keyless => "keyless pools",
            LeastConnections => "least_connections",
            Logged => "logged",
            Kernel => "always",
            Seldom(case) => case,
        };
        let SharedLine { name, file, connection, request, read_by, .. } = line;
        println!("  {name:<52}{connection:>6}{request:>6}  {spread:<16}{file:<28}{when:<34}{read_by}");
    }
    println!("  a wake that moves bytes: none; a GiB of bulk: none, once its pipes are there\n");
}
