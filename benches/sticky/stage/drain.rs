//! A backend is drained by command: it serves its known clients until the deadline, and what is still open then is
//! closed evenly, the quietest first.
//!
//! All clients settle while it is alone; then others come, so that all connections are its own.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::backends::Backends;
use super::clients::{Load, connect, run as block_on, settle};
use super::table::Table;
use super::truth::Truth;
use super::{Row, Scale, breaks, reload, tell};
use crate::support::Sessile;

const OTHERS: usize = 4;
const DEADLINE: Duration = Duration::from_secs(2);
/// How often a busy connection says something.
const BUSY: Duration = Duration::from_millis(100);
/// How much the clock of the measurement may be off.
const LATE: Duration = Duration::from_millis(50);

/// When connections were closed, and which were busy.
struct Closing {
    at: Instant,
    busy: bool,
}

/// Once.
pub fn run(scale: &Scale) -> Vec<Row> {
    vec![relays(scale), cookies(scale)]
}

fn options(scale: &Scale) -> String {
    let [deadline, over] = [DEADLINE, scale.drain_over].map(|time| time.as_millis());
    format!("drain_deadline = \"{deadline}ms\"\ndrain_over = \"{over}ms\"\n")
}

fn relays(scale: &Scale) -> Row {
    let backends = Backends::start(OTHERS);
    let mut table = Table::new(&backends.addresses, 1, 4_096);
    table.options += &options(scale);
    let sessile = Sessile::start(&table.text());
    let front = sessile.address("l");
    let mut truth = Truth::new(&backends.log);
    let count = scale.idle + scale.busy;
    let sources: Vec<u32> = scale.sources().cycle().take(count as usize).collect();
    let (closings, drained, known) = block_on(async {
        let mut open = Vec::new();
        for (number, source) in sources.iter().enumerate() {
            let (stream, _) = settle(*source, front, b"h").await.expect("a connection");
            open.push(tokio::task::spawn_local(until_closed(stream, number as u32 >= scale.idle)));
        }
        reload(&sessile, &table.with(OTHERS).text());
        tokio::task::yield_now().await;
        let drained = Instant::now();
        tell(&sessile, 0, "drain");
        // Known clients are served there until the deadline.
        let mut known = 0;
        for source in sources.iter().take(20) {
            known += u32::from(settle(*source, front, b"h").await.is_ok_and(|(_, home)| home == 0));
        }
        let mut closings = Vec::new();
        for task in open {
            closings.push(task.await.expect("no panic"));
        }
        (closings, drained, known)
    });
    let before = truth.step();
    let back = Load::start(front, sources.into_iter(), scale.parallel);
    back.go_on(u64::from(count));
    let toll = back.stop();
    let after = truth.step();

    let mut row = Row::new(format!("{} idle and {} busy are drained", scale.idle, scale.busy), count.into());
    row.counted = breaks(&sessile);
    row.by_logs = after.breaks.len() as u64;
    row.exactly(Some("drain"));
    row.must(before.breaks.is_empty() && known == 20, || format!("{known} of 20 were still served there"));
    row.must(after.breaks.len() as u32 == count.min(scale.clients), || "some did not find the next backend".into());
    row.must(toll.lost + toll.cut == 0, || "visits were cut".into());
    judge(&mut row, closings, drained, scale);
    row
}

/// Closes: none before the deadline, evenly after it, the quietest first.
fn judge(row: &mut Row, mut closings: Vec<Closing>, drained: Instant, scale: &Scale) {
    closings.sort_by_key(|closing| closing.at);
    let deadline = drained + DEADLINE;
    let early = closings.iter().filter(|closing| closing.at < deadline).count();
    row.must(early == 0, || format!("{early} were closed before the deadline"));
    let second = |closing: &Closing| closing.at + Duration::from_secs(1);
    let busiest = (0..closings.len()).map(|first| {
        let end = second(&closings[first]);
        closings[first..].iter().take_while(|closing| closing.at < end).count()
    });
    let (busiest, mean) = (busiest.max().unwrap_or(0), closings.len() as f64 / scale.drain_over.as_secs_f64());
    let ratio = busiest as f64 / mean;
    row.must(ratio <= scale.pace, || format!("the busiest second is {ratio:.2} × the mean"));
    let took = closings.last().map(|last| last.at - deadline).unwrap_or_default();
    row.must(took <= scale.drain_over + Duration::from_secs(1) + LATE, || format!("took {took:?}"));
    let quiet = closings.iter().take_while(|closing| !closing.busy).count() as u32;
    // Each worker closes its own quietest first, and one may have fewer of them.
    row.must(quiet >= scale.idle * 3 / 4, || format!("a busy one was closed as number {quiet}"));
    row.note =
        format!("{:.0} s, busiest second {ratio:.2} × the mean, first busy one after {quiet}", took.as_secs_f64());
}

async fn until_closed(mut stream: TcpStream, busy: bool) -> Closing {
    loop {
        if busy {
            tokio::time::sleep(BUSY).await;
            if stream.write_all(b"x").await.is_err() {
                break;
            }
        }
        if !matches!(stream.read(&mut [0; 16]).await, Ok(1..)) {
            break;
        }
    }
    Closing { at: Instant::now(), busy }
}

/// A client with our cookie for the drained backend is served there until the deadline, and then elsewhere.
fn cookies(scale: &Scale) -> Row {
    let backends = Backends::start(OTHERS);
    let keys = tempfile::NamedTempFile::new().expect("a file");
    let key: String = (0..32).map(|byte: u8| format!("{:02x}", byte.wrapping_mul(0x9d) ^ 0x35)).collect();
    std::fs::write(keys.path(), format!("{key}\n")).expect("a file");
    let mut table = Table::new(&backends.addresses, OTHERS, 1_024);
    table.options += &options(scale);
    table.options += &with_cookie(keys.path());
    let sessile = Sessile::start(&table.text());
    let front = sessile.address("l");
    let (mut early, mut late) = (0, 0);
    let mut clients: Vec<(u32, String, u8)> = Vec::new();
    block_on(async {
        for source in scale.sources().take(200) {
            let (home, cookie) = request(source, front, "").await.expect("a response");
            clients.push((source, cookie.expect("a cookie"), home));
        }
        clients.retain(|(_, _, home)| *home == 0);
        let drained = Instant::now();
        tell(&sessile, 0, "drain");
        while drained.elapsed() < DEADLINE.mul_f64(0.7) {
            for (source, cookie, _) in &clients {
                let (home, _) = request(*source, front, cookie).await.expect("a response");
                early += u64::from(home != 0);
            }
        }
        tokio::time::sleep((drained + DEADLINE + LATE).saturating_duration_since(Instant::now())).await;
        for (source, cookie, _) in &mut clients {
            let (home, again) = request(*source, front, cookie).await.expect("a response");
            late += u64::from(home != 0);
            *cookie = again.expect("another cookie");
        }
        for (source, cookie, _) in &clients {
            let (home, _) = request(*source, front, cookie).await.expect("a response");
            late += u64::from(home == 0);
        }
    });
    let mut row = Row::new("cookies for it, until and after the deadline", clients.len() as u64);
    row.counted = breaks(&sessile);
    row.by_logs = early + late;
    row.exactly(Some("drain"));
    row.must(early == 0, || format!("{early} requests went elsewhere too early"));
    row.must(late == clients.len() as u64, || format!("{late} moved at the deadline"));
    row
}

fn with_cookie(keys: &Path) -> String {
    format!("http = true\ncookie = {{ mode = \"insert\", keys = \"{}\" }}\n", keys.display())
}

/// The backend that answers, and the cookie that it comes with.
async fn request(source: u32, front: SocketAddr, cookie: &str) -> std::io::Result<(u8, Option<String>)> {
    let mut stream = connect(source, front).await?;
    let cookie = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{cookie}\r\n").as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let line = head.lines().find_map(|line| line.strip_prefix("Set-Cookie: ")?.split(';').next());
    Ok((stream.read_u8().await? - b'A', line.map(str::to_owned)))
}
