//! A real Prometheus that scrapes the process under test, and promtool.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::{eventually, http};

/// A Prometheus; killed when dropped.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Prometheus {
    /// Scrapes a target four times a second as job `sessile`, and evaluates rules as often.
    pub fn scraping(target: SocketAddr, rules: Option<&str>) -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let file = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("the file is written");
        file("rules.yaml", rules.unwrap_or("groups: []\n"));
        let times = "scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms";
        file(
            "prometheus.yaml",
            &format!(
                "global: {{{times}}}\nrule_files: [rules.yaml]\nscrape_configs:\n  - job_name: sessile\n    \
                 static_configs: [{{targets: [\"{target}\"]}}]\n"
            ),
        );
        let log = fs::File::create(dir.path().join("log")).expect("a log file");
        let mut command = Command::new("prometheus");
        command.arg("--config.file").arg(dir.path().join("prometheus.yaml"));
        command.arg("--storage.tsdb.path").arg(dir.path().join("data")).arg("--web.listen-address=127.0.0.1:0");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("prometheus starts");
        let log = dir.path().join("log");
        let address = eventually("the address of prometheus", || listening(&fs::read_to_string(&log).ok()?));
        let prometheus = Self { child, address, _dir: dir };
        eventually("the first scrape", || prometheus.query("up == 1").first().map(|_| ()));
        prometheus
    }

    /// The values of a query now, each with its labels; none while the query has no data.
    pub fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let stream = TcpStream::connect(self.address).expect("prometheus listens");
        let reply = http::exchange(stream, "GET", &format!("/api/v1/query?query={escaped}"));
        let Some((status, body)) = reply else { return Vec::new() };
        let answer: Value = serde_json::from_str(&body).unwrap_or_default();
        if status == 503 {
            return Vec::new(); // not ready yet
        }
        assert_eq!(answer["status"], "success", "{query}: {status} {body}");
        let result = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        let value = |series: &Value| series["value"][1].as_str()?.parse().ok();
        result.iter().filter_map(|series| Some((series["metric"].clone(), value(series)?))).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address that the log names.
fn listening(log: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|line| line.contains("msg=\"Listening on\""))?;
    line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok()
}

/// Runs promtool in a folder, with a text on its input; what it says if it is content, else a panic with that.
pub fn promtool(folder: &Path, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(folder);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("promtool");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("promtool reads");
    let output = child.wait_with_output().expect("promtool ends");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said
}
