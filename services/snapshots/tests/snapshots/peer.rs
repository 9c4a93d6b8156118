//! A small HTTP server that keeps what it is given, in memory, and does what it is told to do wrong: a store as S3 and WebDAV
//! speak, as far as one object at a time goes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// What goes wrong with one request.
#[derive(Debug, Clone)]
pub(crate) enum Wrong {
    /// Nothing.
    Fine,
    /// So many bytes of the body come, and then the end of the connection.
    CutAfter(usize),
    /// There is no answer, but the end of the connection.
    HangUp,
    /// Another answer: status, and body.
    Answer(u16, String),
    /// Another header.
    Redirect(String),
    /// As another object of the same length would be.
    Changed,
    /// The whole, whatever range was asked for.
    NoRange,
}

/// What S3 says when it is asked too often.
pub(crate) fn slow_down() -> Wrong {
    Wrong::Answer(503, error("SlowDown", "Please reduce your request rate."))
}

pub(crate) fn error(code: &str, message: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>")
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    /// For the next requests whose method and path contain the text.
    wrongs: VecDeque<(String, Wrong)>,
    seen: Vec<String>,
    headers: Vec<String>,
}

/// The server.
pub(crate) struct Peer {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Request {
    method: String,
    target: String,
    range: Option<usize>,
    condition: Option<String>,
    body: Vec<u8>,
}

impl Peer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { url, state, task: task.abort_handle() }
    }

    pub(crate) fn put(&self, path: &str, bytes: Vec<u8>) {
        self.state.lock().unwrap().objects.insert(path.to_owned(), bytes);
    }

    pub(crate) fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.state.lock().unwrap().objects.clone()
    }

    /// Does the next requests like `like` wrong, one after the other.
    pub(crate) fn wrong(&self, like: &str, wrongs: impl IntoIterator<Item = Wrong>) {
        let wrongs = wrongs.into_iter().map(|wrong| (like.to_owned(), wrong));
        self.state.lock().unwrap().wrongs.extend(wrongs);
    }

    /// Requests like `like`, as `GET /path range`.
    pub(crate) fn seen(&self, like: &str) -> Vec<String> {
        self.state.lock().unwrap().seen.iter().filter(|one| one.contains(like)).cloned().collect()
    }

    pub(crate) fn headers(&self) -> String {
        self.state.lock().unwrap().headers.join("\n")
    }

    pub(crate) fn forget(&self) {
        let mut state = self.state.lock().unwrap();
        state.wrongs.clear();
        state.seen.clear();
    }
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = receive(&mut stream, &state).await {
        let (answer, cut) = state.lock().unwrap().answer(&request);
        let length = cut.unwrap_or(answer.len());
        if stream.write_all(&answer[..length.min(answer.len())]).await.is_err() || cut.is_some() {
            return;
        }
    }
}

async fn receive(stream: &mut BufReader<TcpStream>, state: &Mutex<State>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|length| *length > 0)?;
    let (method, rest) = line.split_once(' ')?;
    let target = rest.split(' ').next()?.to_owned();
    let mut request = Request { method: method.to_owned(), target, range: None, condition: None, body: Vec::new() };
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        state.lock().unwrap().headers.push(line.trim().to_owned());
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "transfer-encoding" => chunked = true,
            "range" => request.range = value.strip_prefix("bytes=")?.split('-').next()?.parse().ok(),
            "if-match" => request.condition = Some(value.to_owned()),
            _ => {}
        }
    }
    if chunked {
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok().filter(|length| *length > 0)?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).await.ok()?;
            request.body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    } else {
        request.body = vec![0; length];
        stream.read_exact(&mut request.body).await.ok()?;
    }
    Some(request)
}

fn plain(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

impl State {
    /// The bytes of the answer, and after how many the connection ends.
    fn answer(&mut self, request: &Request) -> (Vec<u8>, Option<usize>) {
        let range = request.range.map(|from| format!(" from {from}")).unwrap_or_default();
        let seen = format!("{} {}{range}", request.method, request.target);
        self.seen.push(seen.clone());
        let wrong = self.wrongs.iter().position(|(like, _)| seen.contains(like.as_str()));
        let wrong = wrong.and_then(|at| self.wrongs.remove(at)).map_or(Wrong::Fine, |(_, wrong)| wrong);
        match wrong {
            Wrong::Answer(status, body) => (plain(status, "", body.as_bytes()), None),
            Wrong::HangUp => (Vec::new(), Some(0)),
            Wrong::Redirect(to) => (plain(302, &format!("location: {to}\r\n"), b""), None),
            Wrong::CutAfter(bytes) => {
                let answer = self.usual(request, false, false);
                let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
                (answer, Some(head + bytes))
            }
            Wrong::Changed => (self.usual(request, true, false), None),
            Wrong::NoRange => (self.usual(request, false, true), None),
            Wrong::Fine => (self.usual(request, false, false), None),
        }
    }

    fn usual(&mut self, request: &Request, changed: bool, whole: bool) -> Vec<u8> {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        match request.method.as_str() {
            "GET" => self.get(path, request, changed, whole),
            "PUT" if query.is_empty() => {
                self.objects.insert(path.to_owned(), request.body.clone());
                plain(201, "etag: \"1\"\r\n", b"")
            }
            "PUT" => {
                let number = query.split("partNumber=").nth(1).and_then(|rest| rest.split('&').next()).unwrap();
                self.objects.insert(format!("{path}#{number:0>5}"), request.body.clone());
                plain(200, &format!("etag: \"{number}\"\r\n"), b"")
            }
            "POST" if query.contains("uploads") => {
                let id = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
                plain(200, "", id.as_bytes())
            }
            "POST" => {
                let pieces = self.take_pieces(path);
                self.objects.insert(path.to_owned(), pieces.concat());
                plain(200, "", b"<CompleteMultipartUploadResult><ETag>\"1\"</ETag></CompleteMultipartUploadResult>")
            }
            "DELETE" if query.contains("uploadId") => {
                self.take_pieces(path);
                plain(204, "", b"")
            }
            "DELETE" => {
                self.objects.remove(path);
                plain(204, "", b"")
            }
            "MKCOL" => plain(405, "", b""),
            _ => plain(501, "", b""),
        }
    }

    fn take_pieces(&mut self, path: &str) -> Vec<Vec<u8>> {
        let begin = format!("{path}#");
        let names: Vec<String> = self.objects.keys().filter(|name| name.starts_with(&begin)).cloned().collect();
        names.iter().filter_map(|name| self.objects.remove(name)).collect()
    }

    fn get(&self, path: &str, request: &Request, changed: bool, whole: bool) -> Vec<u8> {
        let Some(bytes) = self.objects.get(path) else {
            return plain(404, "", error("NoSuchKey", "The specified key does not exist.").as_bytes());
        };
        let etag = if changed { "\"2\"" } else { "\"1\"" };
        if request.condition.as_ref().is_some_and(|condition| condition != etag) {
            return plain(412, "", error("PreconditionFailed", "At least one of them").as_bytes());
        }
        let headers = format!("etag: {etag}\r\nlast-modified: Sun, 22 Nov 2026 02:00:00 GMT\r\n");
        match request.range.filter(|_| !whole) {
            Some(from) => {
                let range = format!("{headers}content-range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
                plain(206, &range, &bytes[from..])
            }
            None => plain(200, &headers, bytes),
        }
    }
}
