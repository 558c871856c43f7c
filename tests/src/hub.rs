//! A hub of models on loopback, as Hugging Face's answers: descriptions, sizes and checksums, redirects to another origin for large
//! files, ranges; and misbehaving as networks do. A thread of its own and one for each connection, all joined when it is dropped.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The only revision that it has.
pub const COMMIT: &str = "4c8334b02c6ec4e8664a91979669a501ec497792";

/// Files that are not weights and below this size lie in git's own store.
const LARGE: u64 = 1 << 20;
/// Bytes that are sent at once.
const PIECE: usize = 64 << 10;
/// How often a thread looks whether it is to end.
const SLICE: Duration = Duration::from_millis(20);

/// How the hub misbehaves. All of it may be changed while it runs.
#[derive(Clone, Debug, Default)]
pub struct Manners {
    /// Bytes a second of each connection.
    pub throttle: Option<u64>,
    /// A connection ends after so many bytes of a file's body.
    pub cut_after: Option<u64>,
    /// How often; `None` is always.
    pub cuts: Option<usize>,
    /// The middle byte of this file is another, the first time that it is sent to its end.
    pub corrupt_once: Option<String>,
    /// Every answer.
    pub status: Option<u16>,
    /// Whether nothing is answered at all.
    pub stalls: bool,
    /// A body stops after so many bytes, and its connection stays open.
    pub stalls_after: Option<u64>,
    /// Whoever does not say this is refused.
    pub token: Option<String>,
    /// Whole files whatever range is asked for.
    pub ignores_ranges: bool,
    /// What descriptions and sizes say of files, "name" and "size"; for a hub that means harm.
    pub lies: Vec<(String, u64)>,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// GET, HEAD or CONNECT.
    pub method: String,
    /// What follows the host.
    pub path: String,
    /// Name of the file, if it is about one.
    pub file: Option<String>,
    /// First byte asked for.
    pub start: Option<u64>,
    /// What the asker said of itself.
    pub authorization: Option<String>,
    /// Whether it went to the hub and not to the store of large files.
    pub at_hub: bool,
    /// Bytes of the body that were sent.
    pub sent: u64,
}

struct Served {
    name: String,
    path: PathBuf,
    size: u64,
    etag: String,
}

impl Served {
    fn is_large(&self) -> bool {
        self.etag.len() == 64
    }
}

struct Shared {
    repository: String,
    files: Vec<Served>,
    manners: Mutex<Manners>,
    asked: Mutex<Vec<Asked>>,
    cuts: AtomicUsize,
    store: SocketAddr,
    stop: AtomicBool,
}

/// A running hub.
pub struct HubServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HubServer {
    /// Serves the files of `folder` as `repository`, at a port of 127.0.0.1; 0 is any that is free.
    ///
    /// # Errors
    /// The folder cannot be read, or the port is taken.
    pub fn start(folder: &Path, repository: &str, port: u16) -> io::Result<Self> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if fs::metadata(entry.path())?.is_file() {
                files.push(served(name, entry.path())?);
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let (hub, store) =
            (TcpListener::bind((Ipv4Addr::LOCALHOST, port))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
        let address = hub.local_addr()?;
        let shared = Arc::new(Shared {
            repository: repository.to_owned(),
            files,
            manners: Mutex::default(),
            asked: Mutex::default(),
            cuts: AtomicUsize::new(0),
            store: store.local_addr()?,
            stop: AtomicBool::new(false),
        });
        let threads = [(hub, true), (store, false)].map(|(listener, at_hub)| {
            let shared = shared.clone();
            std::thread::spawn(move || accept(&listener, &shared, at_hub))
        });
        Ok(Self { shared, address, threads: threads.into() })
    }

    /// Its address, as for `HF_ENDPOINT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it behaves so.
    pub fn behave(&self, manners: Manners) {
        self.shared.cuts.store(0, Ordering::Relaxed);
        *held(&self.shared.manners) = manners;
    }

    /// What it was asked since the last time that this was called.
    pub fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *held(&self.shared.asked))
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.shared.files.iter().map(|file| file.size).sum()
    }

    /// The checksum of a file.
    pub fn etag(&self, name: &str) -> Option<String> {
        self.shared.files.iter().find(|file| file.name == name).map(|file| file.etag.clone())
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Checksum by the store that the file would lie in.
fn served(name: String, path: PathBuf) -> io::Result<Served> {
    let size = fs::metadata(&path)?.len();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let etag = if size >= LARGE || name.ends_with(".safetensors") {
        let (mut sha, mut file, mut piece) = (Sha256::new(), File::open(&path)?, vec![0; 1 << 20]);
        loop {
            match file.read(&mut piece)? {
                0 => break,
                read => sha.update(&piece[..read]),
            }
        }
        hex(&sha.finalize())
    } else {
        let mut sha = Sha1::new();
        sha.update(format!("blob {size}\0"));
        sha.update(fs::read(&path)?);
        hex(&sha.finalize())
    };
    Ok(Served { name, path, size, etag })
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, at_hub: bool) {
    // So that it can look whether it is to end.
    let _ = listener.set_nonblocking(true);
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let shared = shared.clone();
                // A connection that breaks is its asker's affair.
                threads.push(std::thread::spawn(move || drop(serve(stream, &shared, at_hub))));
            }
            Err(_) => std::thread::sleep(SLICE),
        }
        threads.retain(|thread| !thread.is_finished());
    }
    threads.into_iter().for_each(|thread| drop(thread.join()));
}

/// A request's head.
struct Head {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

fn serve(mut stream: TcpStream, shared: &Shared, at_hub: bool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SLICE))?;
    stream.set_nodelay(true)?;
    let mut waiting = Vec::new();
    while let Some(head) = read_head(&mut stream, &mut waiting, shared)? {
        if !answer(&mut stream, &head, shared, at_hub)? {
            break;
        }
    }
    Ok(())
}

/// `None` at the end of the connection, or of the server.
fn read_head(stream: &mut TcpStream, waiting: &mut Vec<u8>, shared: &Shared) -> io::Result<Option<Head>> {
    let end = loop {
        if let Some(end) = waiting.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) => return Ok(None),
            Ok(read) => waiting.extend_from_slice(&piece[..read]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
        if shared.stop.load(Ordering::Relaxed) || waiting.len() > 1 << 16 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&waiting[..end]).into_owned();
    waiting.drain(..end + 4);
    let mut lines = text.lines();
    let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let headers = lines.filter_map(|line| line.split_once(':'));
    Ok(Some(Head {
        method: first.next().unwrap_or_default(),
        path: first.next().unwrap_or_default(),
        headers: headers.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect(),
    }))
}

/// Whether the connection goes on.
fn answer(stream: &mut TcpStream, head: &Head, shared: &Shared, at_hub: bool) -> io::Result<bool> {
    let manners = held(&shared.manners).clone();
    let resolved = format!("/{}/resolve/{COMMIT}/", shared.repository);
    let kept = format!("/api/resolve-cache/models/{}/{COMMIT}/", shared.repository);
    let by_name = |name: &str| shared.files.iter().find(|file| file.name == name);
    let asked_for = head.path.strip_prefix(&resolved).filter(|_| at_hub);
    let in_git = head.path.strip_prefix(&kept).filter(|_| at_hub);
    let in_store = head.path.strip_prefix("/store/");
    let file = match (asked_for.or(in_git), in_store) {
        (Some(name), _) => by_name(name),
        (None, Some(etag)) => shared.files.iter().find(|file| file.etag == etag),
        _ => None,
    };
    let start = head.header("range").and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
    held(&shared.asked).push(Asked {
        method: head.method.clone(),
        path: head.path.clone(),
        file: file.map(|file| file.name.clone()),
        start,
        authorization: head.header("authorization").map(str::to_owned),
        at_hub,
        sent: 0,
    });
    let number = held(&shared.asked).len() - 1;
    if manners.stalls {
        return stall(shared);
    }
    if head.method == "CONNECT" {
        // As a proxy, it is at once whom it is asked to connect to.
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        return Ok(true);
    }
    if let Some(status) = manners.status {
        return plain(stream, head, status, &[], b"misbehaving");
    }
    let refused =
        manners.token.as_ref().is_some_and(|token| head.header("authorization") != Some(&format!("Bearer {token}")));
    if at_hub && refused {
        return plain(stream, head, 401, &[], b"Invalid username or password.");
    }
    if at_hub && head.path == format!("/api/models/{}/revision/main", shared.repository) {
        let lies = manners.lies.iter().map(|(name, _)| name.as_str());
        let names = shared.files.iter().map(|file| file.name.as_str()).chain(lies);
        let siblings: Vec<_> = names.map(|name| json!({ "rfilename": name })).collect();
        let body = json!({ "id": shared.repository, "sha": COMMIT, "siblings": siblings }).to_string();
        return plain(stream, head, 200, &[("Content-Type", "application/json".to_owned())], body.as_bytes());
    }
    let Some(file) = file else { return plain(stream, head, 404, &[], b"Entry not found") };
    let size = manners.lies.iter().find(|(name, _)| *name == file.name).map_or(file.size, |(_, size)| *size);
    let quoted = format!("\"{}\"", file.etag);
    if asked_for.is_some() {
        let mut headers = vec![("X-Repo-Commit", COMMIT.to_owned())];
        if file.is_large() {
            headers.push(("X-Linked-Etag", quoted));
            headers.push(("X-Linked-Size", size.to_string()));
            headers.push(("Location", format!("http://{}/store/{}", shared.store, file.etag)));
            return plain(stream, head, 302, &headers, b"Found");
        }
        headers.push(("Location", format!("{kept}{}", file.name)));
        return plain(stream, head, 307, &headers, b"Temporary Redirect");
    }
    send(stream, head, shared, &manners, file, start.filter(|_| !manners.ignores_ranges), number)
}

/// Nothing comes until the server ends.
fn stall(shared: &Shared) -> io::Result<bool> {
    while !shared.stop.load(Ordering::Relaxed) {
        std::thread::sleep(SLICE);
    }
    Ok(false)
}

fn plain(
    stream: &mut TcpStream,
    head: &Head,
    status: u16,
    headers: &[(&str, String)],
    body: &[u8],
) -> io::Result<bool> {
    let mut text = format!("HTTP/1.1 {status} Answer\r\nContent-Length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
    stream.write_all((text + "\r\n").as_bytes())?;
    if head.method != "HEAD" {
        stream.write_all(body)?;
    }
    Ok(true)
}

fn send(
    stream: &mut TcpStream,
    head: &Head,
    shared: &Shared,
    manners: &Manners,
    file: &Served,
    start: Option<u64>,
    number: usize,
) -> io::Result<bool> {
    let begins = start.unwrap_or(0);
    if begins > file.size {
        return plain(stream, head, 416, &[], b"");
    }
    let mut text = match start {
        Some(_) => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {begins}-{}/{}\r\n",
            file.size.saturating_sub(1),
            file.size
        ),
        None => "HTTP/1.1 200 OK\r\n".to_owned(),
    };
    let size = file.size - begins;
    text += &format!(
        "Accept-Ranges: bytes\r\nContent-Length: {size}\r\nETag: \"{}\"\r\nX-Repo-Commit: {COMMIT}\r\n\r\n",
        file.etag
    );
    stream.write_all(text.as_bytes())?;
    if head.method == "HEAD" {
        return Ok(true);
    }
    let mut source = File::open(&file.path)?;
    source.seek(SeekFrom::Start(begins))?;
    let damaged = manners.corrupt_once.as_deref() == Some(&file.name);
    let cuts = manners.cut_after.filter(|cut| {
        if size <= *cut {
            return false;
        }
        let before = shared.cuts.fetch_add(1, Ordering::Relaxed);
        manners.cuts.is_none_or(|most| before < most)
    });
    let mut sent = 0;
    while sent < size {
        let limits = [Some(size), cuts, manners.stalls_after].into_iter().flatten();
        let limit = limits.min().unwrap_or(size);
        if sent >= limit {
            if cuts.is_some_and(|cut| sent >= cut) {
                return Ok(false);
            }
            return stall(shared);
        }
        let piece = manners.throttle.map_or(PIECE as u64, |rate| (rate / 50).clamp(1, PIECE as u64));
        let mut bytes = vec![0; piece.min(limit - sent) as usize];
        source.read_exact(&mut bytes)?;
        let middle = (file.size / 2).wrapping_sub(begins + sent);
        if damaged && let Some(byte) = bytes.get_mut(middle as usize) {
            *byte ^= 0x10;
        }
        stream.write_all(&bytes)?;
        sent += bytes.len() as u64;
        if let Some(asked) = held(&shared.asked).get_mut(number) {
            asked.sent = sent;
        }
        if let Some(rate) = manners.throttle {
            std::thread::sleep(Duration::from_secs_f64(bytes.len() as f64 / rate as f64));
        }
        if shared.stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
    }
    if damaged {
        held(&shared.manners).corrupt_once = None;
    }
    Ok(true)
}
