//! Many connections from few keys, in front of ten backends with a load bound: how evenly they can be spread, and that
//! no client moves for it.
//!
//! All of them are open at the same time, so a backend's share is what it holds. The bar is the load bound plus the
//! connections of the most frequent key, over the mean. Then everything is closed and every client comes once more.

use std::collections::HashMap;

use super::backends::{Arrival, Backends};
use super::clients::{run as block_on, settle};
use super::table::Table;
use super::truth::{Truth, spread};
use super::{Row, Scale, breaks};
use crate::support::load_support::client_hello;
use crate::support::{Sessile, eventually};

const BACKENDS: usize = 10;
const BOUND: f64 = 1.25;
/// Connects under way at the same time.
const PARALLEL: usize = 32;

/// What is opened: an address and the number of a server name, 0 for none.
type Call = (u32, u16);

struct Case {
    name: &'static str,
    listener: &'static str,
    pool: &'static str,
    /// After the backends.
    ranges: &'static str,
    calls: Vec<Call>,
    key: fn(&Arrival) -> u64,
    /// Whether the load bound can do anything about it.
    splits: bool,
}

/// All four.
pub fn run(scale: &Scale) -> Vec<Row> {
    cases(scale.campus).iter().map(|case| one(case, scale)).collect()
}

fn cases(count: u32) -> [Case; 4] {
    let mut draw = Draw(7);
    let zipf = draw.zipf(count, 2_000.min(count));
    let bound = "load_bound = 1.25\n";
    let named = "load_bound = 1.25\nkey = [\"source\", \"sni\"]\nsend_proxy_tlvs = [\"authority\"]\n";
    let campus = draw.calls(
        count,
        |draw| (0x7f40_0000 + draw.below(4_000) * 16, 0),
        |draw| (0x7f50_0000 + (draw.below(120) << 16), 0),
    );
    let one = |draw: &mut Draw| (0x7f40_0101, 1 + draw.below(40) as u16);
    let other = |draw: &mut Draw| (0x7f50_0000 + draw.below(20_000), 1);
    let source = |arrival: &Arrival| u64::from(arrival.source);
    let names = draw.calls(count, one, other);
    let unsplit = names.iter().map(|(source, _)| (*source, 0)).collect();
    let tls = "tls = \"passthrough\"\n";
    [
        Case { name: "Zipf(1.1) keys", listener: "", pool: bound, ranges: "", calls: zipf, key: source, splits: true },
        Case {
            name: "a /16 with 60 %, split by /24",
            listener: "",
            pool: "load_bound = 1.25\nprefix_v4 = 16\n",
            ranges: "[[pool.range]]\nname = \"campus\"\ncidr = \"127.64.0.0/16\"\nprefix = 24\n",
            calls: campus,
            key: |arrival| {
                if arrival.source >> 16 == 0x7f40 {
                    u64::from(arrival.source >> 8)
                } else {
                    u64::from(arrival.source >> 16)
                }
            },
            splits: true,
        },
        Case {
            name: "one address with 60 %, 40 names",
            listener: tls,
            pool: named,
            ranges: "",
            calls: names,
            key: |arrival| u64::from(arrival.source) << 16 | u64::from(arrival.name),
            splits: true,
        },
        Case {
            name: "the same address, unsplit",
            listener: "",
            pool: bound,
            ranges: "",
            calls: unsplit,
            key: source,
            splits: false,
        },
    ]
}

fn one(case: &Case, scale: &Scale) -> Row {
    let backends = Backends::start(BACKENDS);
    let mut table = Table::new(&backends.addresses, BACKENDS, 4_096);
    table.options += case.pool;
    (table.listener, table.after) = (case.listener.into(), case.ranges.into());
    let sessile = Sessile::start(&table.text());
    let front = sessile.address("l");
    let mut truth = Truth::keyed(&backends.log, case.key);
    let open = || block_on(call_all(front, &case.calls));

    let held = open();
    let first = truth.step();
    let lost = case.calls.len() - held.len();
    let (largest, _) = spread(&first.arrivals, &[1; BACKENDS]);
    let mut keys: HashMap<u64, usize> = HashMap::new();
    first.arrivals.iter().for_each(|arrival| *keys.entry((case.key)(arrival)).or_default() += 1);
    let most = keys.values().max().copied().unwrap_or(0);
    let share = most as f64 / first.arrivals.len() as f64;
    drop(held);
    eventually("everything to be closed", || (sessile.status()["admission"]["open"] == 0).then_some(()));
    drop(open());
    let second = truth.step();

    let mut row = Row::new(case.name, (first.arrivals.len() + second.arrivals.len()) as u64);
    row.counted = breaks(&sessile);
    row.by_logs = (first.breaks.len() + second.breaks.len()) as u64;
    row.exactly(None);
    row.must(lost == 0, || format!("{lost} were not served"));
    let bar = if case.splits { BOUND + share * BACKENDS as f64 + scale.noise } else { f64::INFINITY };
    row.spreads((largest, bar));
    row.note =
        format!("{} keys, the most frequent has {:.1} %; hottest: {}", keys.len(), share * 100.0, hottest(&sessile));
    row
}

/// What the balancer shows as the key that comes most often.
fn hottest(sessile: &Sessile) -> String {
    let hottest = &sessile.json("/stick-table")[0]["hottest"][0];
    format!("{} with {:.1} %", hottest["key"], hottest["share"].as_f64().unwrap_or(0.0) * 100.0)
}

async fn call_all(front: std::net::SocketAddr, calls: &[Call]) -> Vec<tokio::net::TcpStream> {
    use futures_util::stream::{StreamExt, iter};
    let call = async |(source, name): Call| match name {
        0 => settle(source, front, b"h").await,
        name => settle(source, front, &client_hello(&format!("n{name}.campus.test"))).await,
    };
    let answers = iter(calls.iter().map(|known| call(*known))).buffer_unordered(PARALLEL);
    answers.filter_map(async |answer| Some(answer.ok()?.0)).collect().await
}

/// Numbers that look random and are the same every time.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }

    /// 60 % of one kind, the rest of the other.
    fn calls(
        &mut self,
        count: u32,
        mut one: impl FnMut(&mut Self) -> Call,
        mut other: impl FnMut(&mut Self) -> Call,
    ) -> Vec<Call> {
        (0..count).map(|_| if self.below(10) < 6 { one(self) } else { other(self) }).collect()
    }

    /// Keys with a frequency that falls with the 1.1th power of their rank.
    fn zipf(&mut self, count: u32, keys: u32) -> Vec<Call> {
        let mut sums = Vec::new();
        let total = (1..=keys).fold(0.0, |sum, rank| {
            let sum = sum + f64::from(rank).powf(-1.1);
            sums.push(sum);
            sum
        });
        let rank = |draw: f64| sums.partition_point(|sum| *sum < draw * total) as u32;
        (0..count).map(|_| (0x7f40_0000 + rank(f64::from(self.below(u32::MAX)) / f64::from(u32::MAX)), 0)).collect()
    }
}
