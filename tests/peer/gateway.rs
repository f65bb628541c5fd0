//! OpenClaw's gateway: the process that holds a state open for as long as it runs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Home, PATIENCE, REPLY, finish, signal_group, text};

/// How long a probe, or a gateway that was asked to stop, may take.
const MOMENT: Duration = Duration::from_secs(20);

pub(crate) struct Gateway {
    child: Child,
    port: u16,
    said: File,
}

impl Home {
    /// Starts a gateway and waits until it says that it is ready.
    pub(crate) fn start_gateway(&self) -> Gateway {
        let port = free_port();
        self.configure(|config| config["gateway"]["port"] = port.into());
        let said = tempfile::tempfile().expect("a file for what the gateway says");
        let child = self
            .openclaw()
            .args(["gateway", "run"])
            .stdin(Stdio::null())
            .stdout(said.try_clone().expect("a second descriptor"))
            .stderr(said.try_clone().expect("a second descriptor"))
            .process_group(0)
            .spawn()
            .expect("the gateway started");
        let mut gateway = Gateway { child, port, said };
        gateway.wait_until_ready();
        gateway
    }

    /// One agent turn in the gateway's process; gives everything that the model was asked in it.
    pub(crate) fn turn_by_gateway(&self, message: &str) -> String {
        self.model.forget();
        let mut command = self.openclaw();
        command.args(["agent", "--agent", "main", "--json", "--message", message]);
        let said = finish(&mut command).json();
        // Without a gateway the command would take the turn by itself, and its answer would have no status.
        assert_eq!(said["status"], "ok", "{said:#}");
        assert_eq!(said["result"]["payloads"][0]["text"], REPLY, "{said:#}");
        self.model.asked()
    }
}

impl Gateway {
    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !is_ready(self.port).unwrap_or(false) {
            assert!(self.is_running(), "the gateway ended: {}", text(&mut self.said));
            assert!(Instant::now() < deadline, "the gateway did not get ready: {}", text(&mut self.said));
            thread::sleep(Duration::from_millis(200));
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its status").is_none()
    }

    /// Ends it as a service manager does.
    pub(crate) fn stop(mut self) {
        signal_group(&self.child, "TERM");
        let deadline = Instant::now() + MOMENT;
        while self.is_running() {
            assert!(Instant::now() < deadline, "the gateway did not stop: {}", text(&mut self.said));
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Gateway {
    /// A failed assertion must not leave the gateway behind; after `stop` there is none. What it started in groups of
    /// their own ends with it.
    fn drop(&mut self) {
        if self.is_running() {
            signal_group(&self.child, "KILL");
            self.child.wait().expect("its end");
        }
    }
}

/// A port that nobody has now. Somebody else may take it before the gateway does, which then ends and says so.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port on the loopback");
    listener.local_addr().expect("its address").port()
}

fn is_ready(port: u16) -> io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(MOMENT))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(&status == b"HTTP/1.1 200")
}

/// The databases of a state that some process has open now.
pub(crate) fn databases_in_use(state: &Path) -> BTreeSet<PathBuf> {
    let processes = fs::read_dir("/proc").expect("the list of processes").filter_map(Result::ok);
    processes
        .filter_map(|process| fs::read_dir(process.path().join("fd")).ok())
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.ok()?.path()).ok())
        .filter(|path| path.starts_with(state) && path.extension().is_some_and(|ending| ending == "sqlite"))
        .collect()
}
