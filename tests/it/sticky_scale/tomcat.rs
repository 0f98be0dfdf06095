//! Tomcat with `jvmRoute`: sessions that the application counts in, held by `;jsessionid=` where cookies are off, and by
//! the cookie, while a backend is added, drained, and sessile reloads and restarts.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::backend::pool;
use crate::support::program::{Program, find, free_local_address};
use crate::support::sessile::run;
use crate::support::{PATIENCE, Sessile, eventually, skip};
use crate::terminate::client::Talk;

/// Where Debian's package tomcat10-common has it.
const HOME: &str = "/usr/share/tomcat10";
const SESSIONS: usize = 20;

/// Counts the visits of its session: name of the server, count, and the address to go on at.
const PAGE: &str = r#"<%@ page session="true" trimDirectiveWhitespaces="true" %><%
Integer count = (Integer) session.getAttribute("count");
count = count == null ? 1 : count + 1;
session.setAttribute("count", count);
out.print(System.getProperty("server") + " " + count + " " + response.encodeURL("count.jsp"));
%>"#;

/// What an application declares; `$MODE`: how its sessions are followed.
const APPLICATION: &str = r#"<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0">
<servlet><servlet-name>jsp</servlet-name><servlet-class>org.apache.jasper.servlet.JspServlet</servlet-class></servlet>
<servlet-mapping><servlet-name>jsp</servlet-name><url-pattern>*.jsp</url-pattern></servlet-mapping>
<session-config><tracking-mode>$MODE</tracking-mode></session-config>
</web-app>"#;

/// A Tomcat with two applications: `/url` without cookies, and `/cookie`.
fn tomcat(java: &Path, name: &str, address: SocketAddr) -> Program {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let write = |file: &str, text: &str| {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("the file is written");
    };
    let (host, port) = (address.ip(), address.port());
    write(
        "conf/server.xml",
        &format!(
            "<Server port=\"-1\"><Service name=\"Catalina\"><Connector address=\"{host}\" port=\"{port}\"/>\
             <Engine name=\"Catalina\" defaultHost=\"localhost\" jvmRoute=\"{name}\">\
             <Host name=\"localhost\" appBase=\"webapps\" autoDeploy=\"false\"/></Engine></Service></Server>"
        ),
    );
    for (application, mode) in [("url", "URL"), ("cookie", "COOKIE")] {
        write(&format!("webapps/{application}/count.jsp"), PAGE);
        write(&format!("webapps/{application}/WEB-INF/web.xml"), &APPLICATION.replace("$MODE", mode));
    }
    fs::create_dir(dir.path().join("temp")).expect("a folder");
    let mut command = Command::new(java);
    command.args(["-Xmx96m", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:+UseSerialGC"]);
    command.args(["-cp", &format!("{HOME}/bin/bootstrap.jar:{HOME}/bin/tomcat-juli.jar")]);
    command.arg(format!("-Dcatalina.home={HOME}")).arg(format!("-Dcatalina.base={}", dir.path().display()));
    command.arg(format!("-Djava.io.tmpdir={}/temp", dir.path().display())).arg(format!("-Dserver={name}"));
    command.args(["org.apache.catalina.startup.Bootstrap", "start"]);
    // It listens before its applications are there.
    Program::start_until(dir, command, &address.to_string(), |_| {
        let Ok(stream) = TcpStream::connect(address) else { return false };
        let _ = stream.set_read_timeout(Some(PATIENCE));
        Talk::new(stream).get("/url/count.jsp", "").status == 200
    })
}

/// Where Java is; `None`: something is not installed, and the test is skipped.
fn java(test: &str) -> Option<PathBuf> {
    let java = find(test, "java")?;
    let there = Path::new(HOME).join("bin/bootstrap.jar").is_file();
    if !there {
        skip(test, "tomcat10-common is not installed");
    }
    there.then_some(java)
}

/// A session of one of the applications.
struct Session {
    server: String,
    count: usize,
    /// Address to go on at.
    path: String,
    cookie: String,
}

impl Session {
    /// Begins one, or goes on; false: it was lost.
    fn visit(&mut self, talk: &mut Talk<TcpStream>) -> bool {
        let response = talk.get(&self.path, &self.cookie);
        assert_eq!(response.status, 200, "{}", response.text());
        let text = response.text();
        let mut words = text.split(' ');
        let (server, count) = (words.next().expect("a server"), words.next().and_then(|count| count.parse().ok()));
        let folder = self.path.rsplit_once('/').expect("a path").0.to_owned();
        self.path = format!("{folder}/{}", words.next().expect("a link"));
        if let Some(set) = response.field("set-cookie") {
            self.cookie = format!("Cookie: {}\r\n", set.split(';').next().expect("a pair"));
        }
        let stays = self.count == 0 || (server == self.server && count == Some(self.count + 1));
        (self.server, self.count) = (server.to_owned(), count.expect("a count"));
        stays
    }
}

struct Site {
    sessile: Sessile,
    front: SocketAddr,
    addresses: Vec<SocketAddr>,
    sessions: Vec<Session>,
}

impl Site {
    fn start(addresses: Vec<SocketAddr>) -> Self {
        let front = free_local_address();
        let sessile = Sessile::start(&text(front, &addresses[..1], ""));
        Self { sessile, front, addresses, sessions: Vec::new() }
    }

    fn talk(&self) -> Talk<TcpStream> {
        let stream = TcpStream::connect(self.front).expect("the listener accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Talk::new(stream)
    }

    /// Begins sessions of both applications.
    fn begin(&mut self) {
        let mut talk = self.talk();
        for application in ["url", "cookie"] {
            for _ in 0..SESSIONS {
                let path = format!("/{application}/count.jsp");
                let mut session = Session { server: String::new(), count: 0, path, cookie: String::new() };
                session.visit(&mut talk);
                assert_eq!(session.cookie.is_empty(), application == "url");
                assert_eq!(session.path.contains(";jsessionid="), application == "url", "{}", session.path);
                self.sessions.push(session);
            }
        }
    }

    /// Every session goes on, in both directions over one connection and over one of its own, and none is lost.
    fn go_on(&mut self, what: &str) {
        let mut talk = self.talk();
        let mut lost = 0;
        for session in &mut self.sessions {
            lost += usize::from(!session.visit(&mut talk));
        }
        let front = self.front;
        for session in self.sessions.iter_mut().rev() {
            let stream = TcpStream::connect(front).expect("the listener accepts");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            lost += usize::from(!session.visit(&mut Talk::new(stream)));
        }
        assert_eq!(lost, 0, "{what}: sessions were lost");
    }

    fn reload(&self, count: usize, more: &str) {
        let verdict = self.sessile.reload(&text(self.front, &self.addresses[..count], more));
        assert_eq!(verdict["accepted"], true, "{verdict}");
    }

    fn servers(&self, sessions: &[Session]) -> Vec<usize> {
        let count = |name: &str| sessions.iter().filter(|session| session.server == name).count();
        vec![count("b0"), count("b1")]
    }
}

fn text(front: SocketAddr, backends: &[SocketAddr], more: &str) -> String {
    let cookie = "cookie = { mode = \"route\", name = \"JSESSIONID\", path_parameter = \"jsessionid\" }\n";
    let pool = pool("p", &format!("http = true\nbalance = \"round_robin\"\n{cookie}{more}"), backends);
    format!("[[listener]]\nname = \"l\"\nbind = \"{front}\"\npool = \"p\"\n{pool}")
}

#[test]
fn tomcat_loses_no_session_with_and_without_cookies() {
    let Some(java) = java("tomcat_loses_no_session_with_and_without_cookies") else { return };
    let addresses: Vec<_> = (0..2).map(|_| free_local_address()).collect();
    let _servers: Vec<_> = thread::scope(|scope| {
        let start = |(number, address): (usize, &SocketAddr)| {
            let (java, address) = (&java, *address);
            scope.spawn(move || tomcat(java, &format!("b{number}"), address))
        };
        let starting: Vec<_> = addresses.iter().enumerate().map(start).collect();
        starting.into_iter().map(|starting| starting.join().expect("a Tomcat")).collect()
    });
    let mut site = Site::start(addresses);
    site.begin();
    site.go_on("one server");
    assert_eq!(site.servers(&site.sessions), [2 * SESSIONS, 0]);

    site.reload(2, "");
    site.go_on("a server was added");
    site.begin();
    assert_eq!(site.servers(&site.sessions[2 * SESSIONS..]), [SESSIONS, SESSIONS]);
    site.reload(2, "connect_timeout = \"3s\"\n");
    site.go_on("a reload");

    let socket = site.sessile.admin();
    let output = run(&["drain", "p/b1", "--json", "--socket", socket.to_str().unwrap()]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["accepted"], true, "{said}");
    site.go_on("a drain");
    let known = site.sessions.len();
    site.begin();
    assert_eq!(site.servers(&site.sessions[known..]), [2 * SESSIONS, 0], "new ones go elsewhere");

    site.sessile.signal(Signal::TERM);
    assert!(site.sessile.wait().success());
    site.sessile.restart();
    site.go_on("a restart");
    let pid = site.sessile.pid();
    let upgraded = site.sessile.upgrade(None);
    assert_eq!(upgraded["accepted"], true, "{upgraded}");
    site.go_on("an upgrade");
    let breaks = site.sessile.sum("sessile_sticky_breaks_total", &["pool=\"p\""]);
    assert_eq!(breaks, 0.0);
    eventually("the process before to be gone", || (site.sessile.pid() != pid).then_some(()));
}
