//! OpenSSH: a protocol in which the server speaks first.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use tempfile::TempDir;

use crate::support::backend::{Backend, listener, pool};
use crate::support::program::{self, Program, find, free_address};
use crate::support::{Sessile, has, skip};

#[test]
fn a_login_carries_a_stream_both_ways() {
    let test = "a_login_carries_a_stream_both_ways";
    let Some(server) = Server::start(test).filter(|_| has(test, "ssh")) else { return };
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", "", &[server.address])));
    let address = sessile.address("l");
    assert_eq!(server.keyscan(address), server.host_key);

    let sent: Vec<u8> = (0..4 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    // Forwarded to an echo, so that the user needs no shell.
    let echo = Backend::serving(|stream| std::io::copy(&mut &stream, &mut &stream).map(drop));
    let forward = format!("-W{}", echo.address);
    if !server.lets_in(test, &forward) {
        return;
    }
    let mut ssh = server.ssh(address, &forward).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (ssh.stdin.take().unwrap(), ssh.stdout.take().unwrap());
    let input = sent.clone();
    let writer = thread::spawn(move || stdin.write_all(&input));
    let mut received = Vec::new();
    stdout.read_to_end(&mut received).unwrap();
    writer.join().unwrap().unwrap();
    assert!(ssh.wait().unwrap().success());
    assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
    sessile.ended("l", "done");
}

/// An SSH server for the user of the test.
pub struct Server {
    pub address: SocketAddr,
    /// Kind and key.
    pub host_key: String,
    dir: PathBuf,
    user: String,
    program: Program,
}

impl Server {
    pub fn start(test: &str) -> Option<Self> {
        let sshd = find(test, "sshd")?;
        if !has(test, "ssh-keygen") || !has(test, "ssh-keyscan") {
            return None;
        }
        if rustix::process::geteuid().is_root() {
            // Where root's server confines itself; Debian makes it at boot.
            fs::create_dir_all("/run/sshd").expect("root may");
        }
        let dir = tempfile::tempdir().expect("a scratch directory");
        let path = dir.path().to_owned();
        let host_key = keygen(&dir, "host");
        fs::write(path.join("authorized"), keygen(&dir, "client")).expect("the file is written");
        let address = free_address();
        let config = format!(
            "ListenAddress {address}\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized\nStrictModes no\n\
             PermitRootLogin prohibit-password\nPasswordAuthentication no\nUsePAM no\nPidFile none\n",
            path.display()
        );
        fs::write(path.join("sshd_config"), config).expect("the file is written");
        let mut command = Command::new(sshd);
        command.args(["-D", "-e", "-f"]).arg(path.join("sshd_config"));
        let user = program::output(Command::new("id").arg("-un")).trim().to_owned();
        Some(Self { address, host_key, user, dir: path, program: Program::start(dir, command, address) })
    }

    /// The host's key as a client sees it that waits for the server to speak.
    pub fn keyscan(&self, address: SocketAddr) -> String {
        let mut command = Command::new("ssh-keyscan");
        command.args(["-T", "20", "-t", "ed25519", "-p", &address.port().to_string()]).arg(address.ip().to_string());
        let said = program::output(&mut command);
        said.split_whitespace().skip(1).take(2).collect::<Vec<_>>().join(" ")
    }

    /// Whether the user may log in without us; an account that is locked may not.
    fn lets_in(&self, test: &str, option: &str) -> bool {
        let answer = self.ssh(self.address, option).stdin(Stdio::null()).output().expect("ssh starts");
        if self.program.said().contains("account is locked") {
            skip(test, &format!("the account of {} is locked", self.user));
            return false;
        }
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
        true
    }

    /// A client that may log in and knows the host, with one more option.
    pub fn ssh(&self, address: SocketAddr, option: &str) -> Command {
        let known = format!("[{}]:{} {}\n", address.ip(), address.port(), self.host_key);
        let file = self.dir.join("known");
        fs::write(&file, known).expect("the file is written");
        let mut command = Command::new("ssh");
        command.args(["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o"]);
        command.arg(format!("UserKnownHostsFile={}", file.display())).arg("-i").arg(self.dir.join("client"));
        command.args([option, "-p", &address.port().to_string(), "-l", &self.user, &address.ip().to_string()]);
        command
    }
}

/// Makes a pair of keys; kind and public key.
fn keygen(dir: &TempDir, name: &str) -> String {
    let file = dir.path().join(name);
    program::output(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file));
    let public = fs::read_to_string(file.with_extension("pub")).expect("a public key");
    public.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}
