//! Chromium without a window, driven by the DevTools protocol through two pipes: messages are JSON, each ends in a zero
//! byte. Everything that a page complains of or asks the network for is kept.
//!
//! The protocol is read as plain JSON: typed bindings lag behind the browser, and an event that they do not know would
//! be a complaint not heard.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

/// The browser's names, Debian's first.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Long enough for a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(2);

/// A page in a browser of its own, which ends with it.
pub struct Page {
    browser: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    calls: u64,
    session: String,
    events: Vec<Value>,
    /// What requests of the page's own begin with.
    own: String,
    /// Its profile, and the page's file; they go with it.
    _folder: TempDir,
}

/// What a page is opened in.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub width: u32,
    pub height: u32,
    pub scripts: bool,
}

impl Default for Window {
    fn default() -> Self {
        Self { width: 1280, height: 900, scripts: true }
    }
}

impl Page {
    /// Opens a page's text from a file.
    #[allow(dead_code)] // Not everybody who uses this has a file.
    pub fn open(html: &str, window: Window) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report.html");
        std::fs::write(&file, html).unwrap();
        let address = format!("file://{}", file.display());
        Self::visit(&address, window, folder)
    }

    /// Opens an address, with a folder for the browser's profile.
    pub fn visit(address: &str, window: Window, folder: TempDir) -> Self {
        let mut page = Self::start(folder);
        address.clone_into(&mut page.own);
        let target = page.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = page.call("Target.attachToTarget", &attach);
        attached["sessionId"].as_str().unwrap().clone_into(&mut page.session);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), &json!({}));
        }
        page.resize(window.width, window.height);
        let off = json!({ "value": !window.scripts });
        page.call("Emulation.setScriptExecutionDisabled", &off);
        page.call("Page.navigate", &json!({ "url": address }));
        page.wait_for("Page.loadEventFired");
        page
    }

    fn start(folder: TempDir) -> Self {
        // The browser reads from descriptor 3 and writes to 4; the shell gives it our pipes as those.
        let mut browser = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null", "sh"])
            .arg(binary())
            .args(["--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .arg("about:blank")
            // A group of its own: whatever it signals is not the tests.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = browser.stdin.take().unwrap();
        let mut out = BufReader::new(browser.stdout.take().unwrap());
        let (sender, from) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while out.read_until(0, &mut message).is_ok_and(|n| n > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { break };
                if sender.send(value).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let (session, own, events) = (String::new(), String::new(), Vec::new());
        Self { browser, to, from, calls: 0, session, events, own, _folder: folder }
    }

    /// Calls a method of the protocol and gives its result.
    pub fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).unwrap();
        self.to.flush().unwrap();
        loop {
            let found = self.next();
            if found["id"] == json!(self.calls) {
                assert!(found["error"].is_null(), "{method}: {}", found["error"]);
                return found["result"].clone();
            }
            self.events.push(found);
        }
    }

    fn next(&mut self) -> Value {
        self.from.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            panic!("the browser does not answer ({error}); is `{}` a working Chromium?", binary())
        })
    }

    fn wait_for(&mut self, event: &str) {
        while !self.events.iter().any(|found| found["method"] == event) {
            let found = self.next();
            self.events.push(found);
        }
    }

    /// What JavaScript comes to; promises are waited for, exceptions are failures.
    pub fn eval(&mut self, script: &str) -> Value {
        let parameters =
            json!({ "expression": script, "returnByValue": true, "awaitPromise": true });
        let found = self.call("Runtime.evaluate", &parameters);
        let thrown = &found["exceptionDetails"];
        assert!(thrown.is_null(), "{script}\n{thrown}");
        found["result"]["value"].clone()
    }

    /// Text that JavaScript comes to.
    pub fn text(&mut self, script: &str) -> String {
        let found = self.eval(script);
        found.as_str().unwrap_or_else(|| panic!("{script}\nis no text: {found}")).to_owned()
    }

    /// A number that JavaScript comes to.
    pub fn number(&mut self, script: &str) -> f64 {
        let found = self.eval(script);
        found.as_f64().unwrap_or_else(|| panic!("{script}\nis no number: {found}"))
    }

    /// How many elements a selector finds that are drawn.
    pub fn count(&mut self, selector: &str) -> usize {
        let selector = json!(selector);
        let script = format!(
            "[...document.querySelectorAll({selector})].filter(x => x.getClientRects().length > 0).length"
        );
        self.number(&script) as usize
    }

    /// Scrolls to the first element that a selector finds.
    #[allow(dead_code)]
    pub fn show(&mut self, selector: &str) {
        let selector = json!(selector);
        self.eval(&format!("document.querySelector({selector}).scrollIntoView()"));
    }

    /// Scrolls to the first element that a selector finds and moves the mouse to its middle.
    pub fn point_at(&mut self, selector: &str) -> Value {
        let selector = json!(selector);
        let script = format!(
            "(() => {{ const x = document.querySelector({selector}); x.scrollIntoView({{ block: 'center' }});
             const r = x.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        );
        let at = self.eval(&script);
        self.mouse("mouseMoved", &at, 0);
        at
    }

    /// The same, and presses the mouse's button there.
    pub fn click(&mut self, selector: &str) {
        let at = self.point_at(selector);
        self.mouse("mousePressed", &at, 1);
        self.mouse("mouseReleased", &at, 1);
    }

    fn mouse(&mut self, kind: &str, at: &Value, clicks: u32) {
        let button = if clicks > 0 { "left" } else { "none" };
        let parameters =
            json!({ "type": kind, "x": at[0], "y": at[1], "button": button, "clickCount": clicks });
        self.call("Input.dispatchMouseEvent", &parameters);
    }

    /// Presses a key, by its name in events.
    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            "End" => 35,
            _ => 0,
        };
        for kind in ["rawKeyDown", "keyUp"] {
            let parameters =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", &parameters);
        }
    }

    /// The window's size.
    pub fn resize(&mut self, width: u32, height: u32) {
        let parameters =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", &parameters);
    }

    /// The medium (`screen`, `print`) and the system's colour scheme.
    pub fn emulate(&mut self, medium: &str, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let parameters = json!({ "media": medium, "features": features });
        self.call("Emulation.setEmulatedMedia", &parameters);
    }

    /// Everything that went wrong so far: errors, warnings, exceptions, and requests for anything but the page itself.
    pub fn complaints(&mut self) -> Vec<String> {
        // What has happened is known when a later call has its answer.
        self.eval("new Promise(done => setTimeout(done, 50)).then(() => true)");
        self.events.iter().filter_map(|event| complaint(event, &self.own)).collect()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Asked to close, it ends its helpers too; the profile's folder goes after it.
        let _ = self.to.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        for _ in 0..100 {
            if self.browser.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}

fn complaint(event: &Value, own: &str) -> Option<String> {
    let found = &event["params"];
    match event["method"].as_str()? {
        "Runtime.exceptionThrown" => Some(format!("exception: {}", found["exceptionDetails"])),
        "Runtime.consoleAPICalled"
            if matches!(found["type"].as_str(), Some("error" | "warning" | "assert")) =>
        {
            Some(format!("console: {}", found["args"]))
        }
        "Log.entryAdded" if found["entry"]["level"] != "verbose" => {
            Some(format!("log: {}", found["entry"]))
        }
        "Network.requestWillBeSent" => {
            let url = found["request"]["url"].as_str()?;
            (!url.starts_with(own) && !url.starts_with("data:")).then(|| format!("request: {url}"))
        }
        _ => None,
    }
}

fn binary() -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    NAMES
        .iter()
        .flat_map(|name| std::env::split_paths(&path).map(move |folder| folder.join(name)))
        .find(|file| Path::is_file(file))
        .map_or_else(
            || {
                panic!(
                    "the report is tested in Chromium, which is not installed: on Debian and Ubuntu, \
                     `apt-get install chromium`; elsewhere put `chromium` on the PATH"
                )
            },
            |file| file.display().to_string(),
        )
}
