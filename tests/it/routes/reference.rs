//! Random tables of routes, with requests: the route that the product finds is that of an independent script,
//! `tests/route_reference.py`, which also writes the tables.

use std::net::IpAddr;
use std::process::Command;

use sessile::config;
use sessile::http::Progress;
use sessile::http::head::RequestReader;
use sessile::route::{RouteFacts, RouteTable};

use crate::support::program::output;
use crate::support::size;
use crate::terminate::programs::python;

/// Number of tables, each with ten requests; with `SESSILE_TEST_ROUTE_TABLES` as many as that says.
const TABLES: usize = 2_000;
const TABLES_VARIABLE: &str = "SESSILE_TEST_ROUTE_TABLES";

/// A configuration and its requests.
#[derive(serde::Deserialize)]
struct Case {
    text: String,
    asked: Vec<Asked>,
}

/// A request, and the number of the route that it takes; 0: the default.
#[derive(Debug, serde::Deserialize)]
struct Asked {
    method: String,
    target: String,
    host: String,
    fields: Vec<(String, String)>,
    client: IpAddr,
    route: usize,
}

#[test]
fn requests_take_the_routes_that_an_independent_script_finds() {
    let test = "requests_take_the_routes_that_an_independent_script_finds";
    let Some(python) = python(test, "ipaddress") else { return };
    let count = size(TABLES_VARIABLE, TABLES);
    let script = format!("{}/tests/route_reference.py", env!("CARGO_MANIFEST_DIR"));
    let printed = output(Command::new(python).args([&script, &count.to_string()]));
    let cases = printed.lines().map(|line| serde_json::from_str::<Case>(line).unwrap());
    let (mut tables, mut requests, mut defaults, mut wrong) = (0, 0, 0, Vec::new());
    for Case { text, asked } in cases {
        let config = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
        let config = config.unwrap_or_else(|problems| panic!("{text}\n{problems:?}")).config;
        let table = RouteTable::of(&config.listeners[0], |_| 0);
        tables += 1;
        for asked in asked {
            requests += 1;
            defaults += usize::from(asked.route == 0);
            let found = asked.found(&table);
            if found != asked.route {
                wrong.push(format!("route {found} was taken, route {} is meant: {asked:?}\n{text}", asked.route));
            }
        }
    }
    println!("{tables} tables, {requests} requests, {defaults} of them without a route");
    assert_eq!(tables, count);
    assert!((requests / 10..requests / 2).contains(&defaults), "{defaults} of {requests} have no route");
    let shown = wrong.iter().take(3).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of {requests} requests:\n{shown}", wrong.len());
}

impl Asked {
    /// Number of the route that the product finds.
    fn found(&self, table: &RouteTable) -> usize {
        let fields: String = self.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", self.method, self.target, self.host);
        let mut reader = RequestReader::new();
        assert!(matches!(reader.read(head.as_bytes()), Progress::Done(_)), "{head}");
        let facts = RouteFacts { source: Some(self.client), ..RouteFacts::default() };
        let found = table.find_request(&reader.request(head.as_bytes()), facts).expect("a default");
        found.route.map_or(0, |index| index + 1)
    }
}
