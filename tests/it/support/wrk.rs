//! The load generator `wrk`: kept connections, each with one request after the other.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A load of requests; killed when dropped.
pub struct Wrk(Option<Child>);

impl Wrk {
    /// Starts it with eight connections, unless the options say another number.
    pub fn start(url: &str, options: &[&str]) -> Self {
        let mut wrk = Command::new("wrk");
        wrk.args(["--threads", "1", "--connections", "8", "--duration", "3600s", "--timeout", "10s"]).args(options);
        wrk.arg(url).stdout(Stdio::piped());
        Self(Some(wrk.spawn().expect("wrk starts")))
    }

    /// Ends it. Every request must have been answered well, and no connection broken or refused. Returns the number of
    /// requests.
    pub fn finish(mut self) -> u64 {
        let wrk = self.0.take().expect("it runs");
        kill_process(Pid::from_child(&wrk), Signal::INT).expect("it runs");
        let said = String::from_utf8(wrk.wait_with_output().expect("it ends").stdout).expect("text");
        assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
        let requests = said.lines().find_map(|line| line.trim().split_once(" requests in"));
        requests.and_then(|(count, _)| count.parse().ok()).unwrap_or_else(|| panic!("no count: {said}"))
    }
}

impl Drop for Wrk {
    fn drop(&mut self) {
        if let Some(mut wrk) = self.0.take() {
            let _ = wrk.kill();
            let _ = wrk.wait();
        }
    }
}
