//! What is installed, and what it says about itself.
//!
//! Starts a program only to ask for its version. Invariant: installs nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program in PATH, or where the system's own are.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.push("/usr/sbin".into()); // not in every user's PATH
    folders.into_iter().map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The first line that a program says about itself.
pub fn said(program: &Path, flag: &str) -> String {
    let Ok(output) = Command::new(program).arg(flag).stdin(Stdio::null()).output() else { return String::new() };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
}

/// Whether an nginx that says this of itself has a directive for HTTP/2, as from 1.25.1 on.
pub fn has_http2_directive(said: &str) -> bool {
    let version = said.rsplit('/').next().unwrap_or_default();
    let numbers: Vec<u32> = version.split(['.', ' ']).map_while(|number| number.parse().ok()).collect();
    numbers >= vec![1, 25, 1]
}

/// Whether nginx can take uploads into files, which it does with its DAV module.
pub fn takes_uploads(nginx: &Path) -> bool {
    built_with(nginx).split_whitespace().any(|flag| flag == "--with-http_dav_module")
}

/// Where nginx's stream module is: nothing if it is not there, an inner nothing if it is built in.
pub fn stream_module(nginx: &Path) -> Option<Option<PathBuf>> {
    let flags = built_with(nginx);
    if flags.split_whitespace().any(|flag| flag == "--with-stream") {
        return Some(None);
    }
    let folder = flags.split_whitespace().find_map(|flag| flag.strip_prefix("--modules-path="))?;
    let module = Path::new(folder).join("ngx_stream_module.so");
    module.is_file().then_some(Some(module))
}

fn built_with(nginx: &Path) -> String {
    let output = Command::new(nginx).arg("-V").stdin(Stdio::null()).output();
    output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stderr).into_owned())
}
