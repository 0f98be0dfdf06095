//! Chromium, driven by its DevTools protocol over a WebSocket.
//!
//! Waits for each reply; what the browser says meanwhile is kept. Invariant: a page is asked by its own session, so
//! what is heard of one page is not of another.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::PathBuf;
use std::rc::Rc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use super::chromium::Chromium;
use super::program::find;
use super::{PATIENCE, eventually};

/// A running browser; killed with all its processes when it and its pages are dropped.
pub struct Browser(Rc<RefCell<Link>>);

/// One page of a browser.
pub struct BrowserPage {
    link: Rc<RefCell<Link>>,
    session: String,
}

/// What a picture shows.
#[derive(Debug)]
pub struct Picture {
    /// How many colours it has.
    pub colours: u64,
    /// Mean brightness, 0 to 255.
    pub brightness: f64,
}

/// A size of the window, and a theme.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub width: u32,
    pub height: u32,
    /// `dark` or `light`.
    pub theme: &'static str,
}

impl Browser {
    /// Starts Chromium, which knows no host but this one; `None`: it is not installed, and the test is skipped.
    pub fn start(test: &str) -> Option<Self> {
        Self::with(test, "MAP rebound.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", &[], &json!({}))
    }

    /// Starts Chromium with these rules for names, more arguments and preferences of its user; `None` as above.
    pub fn with(test: &str, hosts: &str, arguments: &[String], preferences: &Value) -> Option<Self> {
        let (program, home) = (find(test, "chromium")?, tempfile::tempdir().expect("a scratch directory"));
        let profile = home.path().join("Default");
        std::fs::create_dir(&profile).expect("a folder");
        std::fs::write(profile.join("Preferences"), preferences.to_string()).expect("the file is written");
        let start = Start { program, hosts: hosts.to_owned(), arguments: arguments.to_owned() };
        Some(Self(Rc::new(RefCell::new(Link::start(home.into(), start)))))
    }

    /// Ends the browser as its user would, and starts it again with the profile that it has left. No page may be left.
    pub fn restart(self) -> Self {
        let link = Rc::into_inner(self.0).expect("no page is left").into_inner();
        Self(Rc::new(RefCell::new(link.restart())))
    }

    /// A page with nothing in it.
    pub fn page(&self) -> BrowserPage {
        let mut link = self.0.borrow_mut();
        let target = link.call("", "Target.createTarget", &json!({ "url": "about:blank" }));
        let attached = json!({ "targetId": target["targetId"], "flatten": true });
        let session = link.call("", "Target.attachToTarget", &attached)["sessionId"].clone();
        let session = session.as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            link.call(&session, &format!("{domain}.enable"), &json!({}));
        }
        drop(link);
        BrowserPage { link: Rc::clone(&self.0), session }
    }

    /// What a picture in the PNG format shows, as the browser reads it.
    pub fn picture(&self, png: &[u8]) -> Picture {
        let data = data_encoding::BASE64.encode(png);
        let script = format!(
            "(async () => {{
                const picture = new Image();
                picture.src = 'data:image/png;base64,{data}';
                await picture.decode();
                const canvas = new OffscreenCanvas(picture.width, picture.height);
                const pen = canvas.getContext('2d');
                pen.drawImage(picture, 0, 0);
                const bytes = pen.getImageData(0, 0, picture.width, picture.height).data;
                const colours = new Set();
                let sum = 0;
                for (let at = 0; at < bytes.length; at += 4) {{
                    const [red, green, blue] = bytes.slice(at, at + 3);
                    colours.add(red << 16 | green << 8 | blue);
                    sum += (red + green + blue) / 3;
                }}
                return [colours.size, sum / (bytes.length / 4)];
            }})()"
        );
        let seen = self.page().evaluate(&script);
        Picture { colours: seen[0].as_u64().expect("a count"), brightness: seen[1].as_f64().expect("a mean") }
    }
}

impl BrowserPage {
    /// Opens an address and waits until it is loaded.
    pub fn open(&self, address: &str) {
        self.call("Page.navigate", &json!({ "url": address }));
        let loaded = format!("document.readyState === 'complete' && location.href === {}", json!(address));
        self.until(&format!("{address} to be loaded"), &loaded);
    }

    /// The value of an expression, or of what it promises.
    pub fn evaluate(&self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let reply = self.call("Runtime.evaluate", &asked);
        assert!(reply["exceptionDetails"].is_null(), "{expression}: {reply}");
        reply["result"]["value"].clone()
    }

    /// The text of the first element that a selector finds.
    pub fn text(&self, selector: &str) -> String {
        let text = self.evaluate(&format!("document.querySelector({})?.textContent ?? ''", json!(selector)));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true.
    pub fn until(&self, what: &str, expression: &str) {
        eventually(what, || {
            let is_so = self.evaluate(&format!("Boolean({expression})"));
            (is_so == true).then_some(())
        });
    }

    /// Shows the page before all others, in another size and theme.
    pub fn look(&self, look: Look) {
        self.call("Page.bringToFront", &json!({}));
        let size = json!({
            "width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": look.width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", &size);
        let theme = json!({ "features": [{ "name": "prefers-color-scheme", "value": look.theme }] });
        self.call("Emulation.setEmulatedMedia", &theme);
    }

    /// A picture of the whole page, in the PNG format.
    pub fn screenshot(&self) -> Vec<u8> {
        let reply = self.call("Page.captureScreenshot", &json!({ "format": "png", "captureBeyondViewport": true }));
        let picture = reply["data"].as_str().unwrap_or_default();
        data_encoding::BASE64.decode(picture.as_bytes()).expect("base64")
    }

    /// Presses a key: `Tab`, `Enter`.
    pub fn press(&self, key: &str) {
        let code = BTreeMap::from([("Tab", 9), ("Enter", 13)])[key];
        let mut event = json!({ "type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code });
        if key == "Enter" {
            event["text"] = "\r".into();
        }
        self.call("Input.dispatchKeyEvent", &event);
        event["type"] = "keyUp".into();
        self.call("Input.dispatchKeyEvent", &event);
    }

    /// Types a text into the element that has the focus.
    pub fn write(&self, text: &str) {
        self.call("Input.insertText", &json!({ "text": text }));
    }

    /// Addresses that the page has asked for.
    pub fn requested(&self) -> Vec<String> {
        let requests = self.heard("Network.requestWillBeSent");
        requests.iter().map(|event| event["request"]["url"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Statuses of the replies to what the page has asked of an address, whether it may read them or not.
    pub fn statuses(&self, address: &str) -> Vec<u64> {
        let mut asked = self.heard("Network.requestWillBeSent");
        asked.retain(|event| event["request"]["url"] == address);
        let is_asked = |event: &&Value| asked.iter().any(|asked| asked["requestId"] == event["requestId"]);
        let (plain, raw) = (self.heard("Network.responseReceived"), self.heard("Network.responseReceivedExtraInfo"));
        let plain = plain.iter().filter(is_asked).map(|event| &event["response"]["status"]);
        let raw = raw.iter().filter(is_asked).map(|event| &event["statusCode"]);
        plain.chain(raw).map(|status| status.as_u64().expect("a status")).collect()
    }

    /// Errors and warnings of the page: of its script, of its policy, of what it could not load.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints: Vec<_> = self.heard("Runtime.exceptionThrown").iter().map(Value::to_string).collect();
        let said = self.heard("Runtime.consoleAPICalled");
        complaints.extend(said.iter().filter(|event| event["type"] != "log").map(Value::to_string));
        let noted = self.heard("Log.entryAdded");
        let grave = |event: &&Value| event["entry"]["level"] == "error" || event["entry"]["level"] == "warning";
        complaints.extend(noted.iter().filter(grave).map(Value::to_string));
        complaints
    }

    /// What the browser has said about this page, by method.
    fn heard(&self, method: &str) -> Vec<Value> {
        self.evaluate("0"); // what came before is read by then
        let link = self.link.borrow();
        let of_page = |event: &&Value| event["sessionId"] == *self.session && event["method"] == method;
        link.events.iter().filter(of_page).map(|event| event["params"].clone()).collect()
    }

    fn call(&self, method: &str, parameters: &Value) -> Value {
        self.link.borrow_mut().call(&self.session, method, parameters)
    }
}

/// What a browser is started with.
struct Start {
    program: PathBuf,
    hosts: String,
    arguments: Vec<String>,
}

/// The browser's process and the connection to it.
struct Link {
    process: Chromium,
    start: Start,
    socket: Option<WebSocket<TcpStream>>,
    calls: u64,
    events: Vec<Value>,
}

impl Link {
    fn start(home: Rc<TempDir>, start: Start) -> Self {
        let place = home.path().join("DevToolsActivePort");
        // That of the run before.
        let _ = std::fs::remove_file(&place);
        let process = Chromium::at(home, &start.program, &start.hosts, &start.arguments);
        let mut link = Self { process, start, socket: None, calls: 0, events: Vec::new() };
        let (port, path) = eventually("chromium to be ready", || {
            let text = std::fs::read_to_string(&place).ok()?;
            let (port, path) = text.split_once('\n')?;
            Some((port.parse::<u16>().ok()?, path.to_owned())).filter(|(_, path)| !path.is_empty())
        });
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("chromium listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (socket, _) = tungstenite::client(format!("ws://127.0.0.1:{port}{path}"), stream).expect("a WebSocket");
        link.socket = Some(socket);
        link
    }

    fn restart(mut self) -> Self {
        let close = json!({ "id": 0, "method": "Browser.close" }).to_string();
        self.socket.as_mut().expect("a connection").send(Message::text(close)).expect("chromium reads");
        Self::start(self.process.ended(), self.start)
    }

    /// Calls a method, of a session or of the browser as a whole, and returns its result.
    fn call(&mut self, session: &str, method: &str, parameters: &Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if !session.is_empty() {
            message["sessionId"] = session.into();
        }
        let socket = self.socket.as_mut().expect("a connection");
        socket.send(Message::text(message.to_string())).expect("chromium reads");
        loop {
            let Message::Text(text) = socket.read().unwrap_or_else(|error| panic!("{method}: {error}")) else {
                continue;
            };
            let mut said: Value = serde_json::from_str(&text).expect("JSON");
            if said["id"] == id {
                assert!(said["error"].is_null(), "{method}: {said}");
                return said["result"].take();
            }
            self.events.push(said);
        }
    }
}
