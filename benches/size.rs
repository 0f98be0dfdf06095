//! What a large configuration costs: `cargo bench --bench size`.
//!
//! Runs the program with n and 2n routes, certificates, pools, and backends in a ring, each backend unchecked, and prints
//! the time of `sessile check`, of a start, of a reload and of two scrapes, the size of a scrape, the memory after the
//! start and after the scrapes, and what the process costs while it idles, alone and with 16 viewers of its page. The
//! last row of each table is the second by the first: 2 is linear growth. Times are of a process that has a machine for
//! itself. `--test` takes few of each and measures nothing. Invariant: a figure counts only if the process gave the right
//! response.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The start of a process may take so long.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time over which an idle process is watched.
const IDLE: Duration = Duration::from_secs(10);
/// Ticks of the processor clock in a second, as /proc counts them.
const TICKS: f64 = 100.0;

/// What there is many of.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Routes,
    Certificates,
    Pools,
    Backends,
}

/// A configuration of each kind, as large as the figures that operators have named.
const SIZES: [(Kind, usize); 4] =
    [(Kind::Routes, 10_000), (Kind::Certificates, 2_000), (Kind::Pools, 5_000), (Kind::Backends, 1_000)];
/// Enough to be sure that the bench itself works.
const FEW: usize = 20;

/// Pages that show the process at once.
const VIEWERS: usize = 16;

const COLUMNS: [&str; 10] = [
    "check ms",
    "start ms",
    "MiB",
    "reload ms",
    "scrape ms",
    "again ms",
    "page KiB",
    "MiB after",
    "idle %",
    "watched %",
];

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    for (kind, count) in SIZES {
        let count = if is_test { FEW } else { count };
        println!("{:<14}{:>8}{}", format!("{kind:?}"), "n", COLUMNS.map(|column| format!("{column:>11}")).concat());
        let rows = [count, 2 * count].map(|count| (count, measure(kind, count, is_test)));
        for (count, row) in &rows {
            println!("{:<14}{count:>8}{}", "", row.map(|figure| format!("{figure:>11.1}")).concat());
        }
        let growth: [f64; COLUMNS.len()] = std::array::from_fn(|column| rows[1].1[column] / rows[0].1[column]);
        println!("{:<14}{:>8}{}\n", "growth", "2.0", growth.map(|figure| format!("{figure:>11.1}")).concat());
    }
}

/// One row of figures.
fn measure(kind: Kind, count: usize, is_test: bool) -> [f64; COLUMNS.len()] {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("sessile.toml");
    fs::write(&file, configuration(kind, count, dir.path())).expect("a file");

    let began = Instant::now();
    let check = sessile().arg("check").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(check.expect("the program runs").success(), "{kind:?} {count}: the file is good");
    let check_ms = ms(began);

    let began = Instant::now();
    let process = Process::start(&file, dir.path().join("admin.sock"));
    let start_ms = ms(began);
    let memory = process.memory_mib();

    let began = Instant::now();
    assert!(process.ask("POST", "/reload").contains("\"accepted\":true"), "{kind:?} {count}: the reload is accepted");
    let reload_ms = ms(began);

    let scrapes = [(); 2].map(|()| {
        let began = Instant::now();
        let page = process.ask("GET", "/metrics");
        assert!(page.contains("\nsessile_generation 2\n"), "{kind:?} {count}: a page of the reloaded file");
        (ms(began), page.len())
    });
    assert!(scrapes[0].1 > backends(kind, count) * 100, "every backend is on the page");
    let after = process.memory_mib();
    let idle = if is_test { 0.0 } else { process.idle_percent() };
    let viewers = [(); VIEWERS].map(|()| process.watch());
    let watched = if is_test { 0.0 } else { process.idle_percent() };
    let page_kib = scrapes[1].1 as f64 / 1_024.0;
    drop(process);
    viewers.into_iter().for_each(|viewer| drop(viewer.join()));
    [check_ms, start_ms, memory, reload_ms, scrapes[0].0, scrapes[1].0, page_kib, after, idle, watched]
}

fn backends(kind: Kind, count: usize) -> usize {
    match kind {
        Kind::Routes | Kind::Certificates => 1,
        Kind::Pools | Kind::Backends => count,
    }
}

/// A file with so many of one kind and few of all others.
fn configuration(kind: Kind, count: usize, dir: &Path) -> String {
    let mut text = format!(
        "workers = 2\n[admin]\nsocket = \"{}\"\n[log]\nconnections = false\nlevel = \"error\"\n\
         [[listener]]\nname = \"web\"\nbind = \"127.0.0.1:0\"\npool = \"p0\"\n",
        dir.join("admin.sock").display()
    );
    let backend = |name: usize| format!("{{ name = \"b{name}\", address = \"127.0.0.1:{}\" }}", 1 + name % 60_000);
    let off = "check = { kind = \"off\" }";
    let pool = |name: usize| format!("[[pool]]\nname = \"p{name}\"\n{off}\nbackend = {}\n", backend(0));
    match kind {
        Kind::Routes => {
            text += "tls = \"passthrough\"\n";
            (0..count).for_each(|n| text += &route(n, 0));
            text += &pool(0);
        }
        Kind::Certificates => {
            text += "tls = \"terminate\"\n";
            (0..count).for_each(|n| text += &certificate(n, dir));
            text += &pool(0);
        }
        Kind::Pools => {
            text += "tls = \"passthrough\"\n";
            (0..count).for_each(|n| text += &route(n, n));
            (0..count).for_each(|n| text += &pool(n));
        }
        Kind::Backends => {
            let backends: Vec<_> = (0..count).map(backend).collect();
            text +=
                &format!("[[pool]]\nname = \"p0\"\nbalance = \"ring\"\n{off}\nbackend = [{}]\n", backends.join(", "));
        }
    }
    text
}

fn route(number: usize, pool: usize) -> String {
    format!("[[listener.route]]\nsni = \"r{number}.example\"\npool = \"p{pool}\"\n")
}

fn certificate(number: usize, dir: &Path) -> String {
    let made = rcgen::generate_simple_self_signed([format!("c{number}.example")]).expect("a certificate");
    let path = dir.join(format!("{number}.pem"));
    fs::write(&path, made.cert.pem() + &made.signing_key.serialize_pem()).expect("a file");
    let default = if number == 0 { "default = true\n" } else { "" };
    let path = path.display();
    format!("[[listener.certificate]]\ncert = \"{path}\"\nkey = \"{path}\"\n{default}")
}

fn sessile() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sessile"))
}

fn ms(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

/// A process that serves; killed when dropped.
struct Process {
    child: Child,
    socket: PathBuf,
}

impl Process {
    /// Starts the program, and returns when it is ready.
    fn start(file: &Path, socket: PathBuf) -> Self {
        let command = sessile().args(["run", "--config"]).arg(file).stdout(Stdio::null()).spawn();
        let mut process = Self { child: command.expect("the program runs"), socket };
        let give_up = Instant::now() + PATIENCE;
        while !process.try_ask("GET", "/readyz").is_some_and(|response| response.starts_with("HTTP/1.1 200")) {
            assert!(Instant::now() < give_up, "the process is not ready");
            assert!(process.child.try_wait().is_ok_and(|ended| ended.is_none()), "the process has ended");
            std::thread::sleep(Duration::from_millis(1));
        }
        process
    }

    fn ask(&self, method: &str, path: &str) -> String {
        let response = self.try_ask(method, path).expect("the process responds");
        assert!(response.starts_with("HTTP/1.1 200"), "{path}: {}", response.lines().next().unwrap_or_default());
        response
    }

    /// The whole response; `None`: nothing listens yet.
    fn try_ask(&self, method: &str, path: &str) -> Option<String> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: sessile\r\nConnection: close\r\n\r\n").ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        Some(response)
    }

    /// A viewer of the page that has got its first sample, and reads until the process ends.
    fn watch(&self) -> JoinHandle<()> {
        let mut stream = UnixStream::connect(&self.socket).expect("the process listens");
        stream.write_all(b"GET /stream HTTP/1.1\r\nHost: sessile\r\n\r\n").expect("the process reads");
        let mut begin = Vec::new();
        while !begin.windows(6).any(|bytes| bytes == b"data: ") {
            let mut bytes = [0; 4_096];
            let length = stream.read(&mut bytes).expect("a sample");
            assert!(length > 0, "the stream goes on: {}", String::from_utf8_lossy(&begin));
            begin.extend_from_slice(&bytes[..length]);
        }
        std::thread::spawn(move || drop(io::copy(&mut stream, &mut io::sink())))
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("the process runs")
    }

    fn memory_mib(&self) -> f64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1_024.0
    }

    /// Share of a core that the process takes while no client comes.
    fn idle_percent(&self) -> f64 {
        let before = self.ticks();
        std::thread::sleep(IDLE);
        (self.ticks() - before) / TICKS / IDLE.as_secs_f64() * 100.0
    }

    fn ticks(&self) -> f64 {
        let stat = self.proc("stat");
        // User and system time are the 14th and 15th field; the second is a name in brackets.
        let fields = stat.rsplit_once(") ").expect("a name").1.split(' ').skip(11);
        fields.take(2).map(|field| field.parse::<f64>().expect("a number")).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
