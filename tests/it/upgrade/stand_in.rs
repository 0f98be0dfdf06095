//! Programs that stand in for one of the two processes and do only what a test wants.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use serde_json::{Value, json};

use crate::support::{Sessile, eventually};

/// What every stand-in for the new process knows: `hear`, `say`, `note` and `wait_for` a file in the folder of the test.
const WORDS: &str = r#"#!/usr/bin/env python3
import array, json, os, resource, signal, socket, struct, sys, time
channel = socket.socket(fileno=0)
folder = os.path.dirname(sys.argv[-1])
HEAD = struct.Struct("<8sHHIII")

def hear():
    data, control, _, _ = channel.recvmsg(1 << 17, socket.CMSG_SPACE(253 * 4))
    if not data:
        sys.exit("closed")
    own = array.array("i")
    for level, kind, bytes in control:
        own.frombytes(bytes[: len(bytes) - len(bytes) % own.itemsize])
    _, kind, flags, length, _, _ = HEAD.unpack(data[:24])
    own = list(own)
    text = os.pread(own.pop(0), length, 0) if flags & 1 else data[24 : 24 + length]
    return kind, json.loads(text), own

def say(kind, document):
    text = json.dumps(document).encode()
    channel.send(HEAD.pack(b"sessile\n", kind, 0, len(text), 0, 0) + text)

def note(name, text=""):
    with open(os.path.join(folder, name + ".tmp"), "w") as file:
        file.write(text)
    os.rename(os.path.join(folder, name + ".tmp"), os.path.join(folder, name))

def wait_for(name):
    while not os.path.exists(os.path.join(folder, name)):
        time.sleep(0.005)

def begin():
    kept = []
    while True:
        kind, document, own = hear()
        descriptors.extend(own)
        if kind == 1:
            say(1, {"oldest": 1, "newest": 1, "version": "9", "pid": os.getpid()})
        if kind == 2:
            kept.extend(address["number"] for address in document["addresses"])
        if kind == 3:
            say(4, {"keeps": kept, "descriptors": 1 << 20})
            return

def take(before=lambda: None):
    """Takes pairs until the commit; returns its descriptors."""
    while True:
        kind, document, own = hear()
        if kind == 8:
            return own
        if kind == 6:
            before()
            descriptors.extend(own)
            say(7, {"pairs": len(document["pairs"])})

descriptors = []
note("pid", str(os.getpid()))
"#;

/// A program in the place of the binary, in Python behind [`WORDS`].
pub fn successor(sessile: &Sessile, text: &str) -> PathBuf {
    program(sessile.dir.path(), &format!("{WORDS}\n{text}\n"))
}

pub fn program(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("binary");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Asks for an upgrade to a program, and does not wait.
pub fn begin(sessile: &Sessile, binary: &Path) -> Child {
    let mut upgrade = sessile.upgrade_command(Some(binary));
    upgrade.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts")
}

/// What a stand-in has noted.
pub fn noted(sessile: &Sessile, name: &str) -> String {
    eventually(name, || std::fs::read_to_string(sessile.dir.path().join(name)).ok())
}

/// Lets a stand-in go on that waits for this.
pub fn tell(sessile: &Sessile, name: &str) {
    std::fs::write(sessile.dir.path().join(name), "").unwrap();
}

/// The number of the stand-in.
pub fn pid_of(sessile: &Sessile) -> u32 {
    noted(sessile, "pid").trim().parse().expect("a number")
}

/// True if a process runs; one that nothing has waited for runs no more.
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next()).is_some_and(|state| state != 'Z')
}

/// This test as the process before: the new one is started by it, and gets what it sends.
pub struct Elder {
    channel: Option<std::os::fd::OwnedFd>,
    pub sessile: Sessile,
}

impl Elder {
    /// Starts the new process with a greeting; its own is received.
    pub fn start(config: &str) -> Self {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let prepare = |command: &mut Command| {
            command.stdin(Stdio::from(theirs)).env("SESSILE_UPGRADE", "1");
        };
        let elder = Self { sessile: Sessile::spawn(config, prepare), channel: Some(ours) };
        elder.say(1, &json!({ "oldest": 1, "newest": 1, "version": "9", "pid": std::process::id() }));
        assert_eq!(elder.hear().0, 1);
        elder
    }

    /// Gives a state without sockets, and waits until the new process could serve.
    pub fn prepare(&self) {
        self.say(3, &json!({ "secret": "00112233445566778899aabbccddeeff", "lock": false }));
        assert_eq!(self.hear().0, 4);
    }

    pub fn say(&self, kind: u16, document: &Value) {
        let text = serde_json::to_vec(document).unwrap();
        let mut message = b"sessile\n".to_vec();
        message.extend(kind.to_le_bytes());
        message.extend([0; 2]);
        message.extend((text.len() as u32).to_le_bytes());
        message.extend([0; 8]);
        message.extend(text);
        send(self.channel.as_ref().unwrap(), &message, SendFlags::empty()).unwrap();
    }

    /// Kind and document of the next message.
    pub fn hear(&self) -> (u16, Value) {
        let mut message = vec![0; 1 << 17];
        let (_, length) = recv(self.channel.as_ref().unwrap(), &mut message, RecvFlags::empty()).unwrap();
        assert!(length >= 24, "the new process has ended: {}", self.sessile.said());
        (u16::from_le_bytes([message[8], message[9]]), serde_json::from_slice(&message[24..length]).unwrap())
    }

    /// Gives up, and lives on.
    pub fn give_up(&mut self) {
        self.channel = None;
    }
}

/// Starts the process as the follower of one that gives this state and then ends before the commit.
pub fn orphan(config: &str, state: &Value) -> Sessile {
    const DIES: &str = r#"
import json, os, socket, struct, subprocess, sys
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
new = subprocess.Popen(sys.argv[2:], stdin=theirs, env={**os.environ, "SESSILE_UPGRADE": "1"})
theirs.close()
def say(kind, text):
    ours.send(struct.pack("<8sHHIII", b"sessile\n", kind, 0, len(text), 0, 0) + text.encode())
    ours.recv(1 << 17)
say(1, json.dumps({"oldest": 1, "newest": 1, "version": "9", "pid": os.getpid()}))
say(3, sys.argv[1])
folder = os.path.dirname(sys.argv[-1])
with open(folder + "/tmp", "w") as file:
    file.write(str(new.pid))
os.rename(folder + "/tmp", folder + "/pid")
os._exit(0)
"#;
    let mut sessile = Sessile::spawn(config, |command| {
        let file = PathBuf::from(command.get_args().last().unwrap());
        let out = |name: &str| std::fs::File::create(file.with_file_name(name)).unwrap();
        let mut elder = Command::new("python3");
        elder.args(["-c", DIES]).arg(state.to_string()).arg(command.get_program()).args(command.get_args());
        elder.stdin(Stdio::null()).stdout(out("out.log")).stderr(out("err.log"));
        *command = elder;
    });
    sessile.is_now(pid_of(&sessile));
    sessile.ready();
    sessile
}
