//! What the libraries cost by themselves: a program between nginx and the gateway. It takes a request with
//! hyper, passes it on with hyper, reads the kind of each event of the answer, and writes what came together
//! together. It has no keys, limits, accounts, translation, ledger or metrics.

use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tollway::codex::Event;
use tollway::codex::event::Depth;
use tollway::codex::sse::Decoder;

/// Bytes in a write.
const MOST: usize = 64 * 1024;

/// The process that is measured: prints where it listens, and serves until it is ended.
pub(crate) async fn serve(backend: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build::<_, Incoming>(connector);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(stream, client.clone(), backend));
    }
}

async fn connection(stream: TcpStream, client: Client<HttpConnector, Incoming>, backend: SocketAddr) -> Result<()> {
    stream.set_nodelay(true)?;
    let service = service_fn(|mut request: http::Request<Incoming>| {
        let uri = format!("http://{backend}{}", request.uri().path());
        let client = client.clone();
        async move {
            *request.uri_mut() = uri.parse()?;
            anyhow::Ok(client.request(request).await?.map(Passed::of))
        }
    });
    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    served.context("a connection")
}

/// An answer's body on its way. As in the gateway (`codex::stream::ahead`), it is read where the connection
/// wakes for it, so that all that has arrived is written together.
struct Passed(Arc<Reader>);

struct Reader {
    /// `None` at its end: it holds the waker, which holds the reader.
    from: Mutex<Option<Incoming>>,
    out: Mutex<Out>,
    client: AtomicWaker,
}

#[derive(Default)]
struct Out {
    decoder: Decoder,
    bytes: BytesMut,
    /// Whether there was no room for more.
    is_full: bool,
    end: Option<Result<()>>,
}

impl Out {
    fn take(&mut self, piece: Bytes) -> Result<()> {
        self.decoder.push(piece);
        while let Some(frame) = self.decoder.next_frame()? {
            if let Some(data) = frame.data() {
                Event::parse(&data, Depth::Control)?;
            }
            self.bytes.extend_from_slice(frame.raw());
        }
        Ok(())
    }
}

impl Passed {
    fn of(from: Incoming) -> Self {
        let (from, out, client) = (Mutex::new(Some(from)), Mutex::default(), AtomicWaker::new());
        let reader = Arc::new(Reader { from, out, client });
        reader.read();
        Self(reader)
    }
}

impl Reader {
    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is one thread: what holds the lock is this very function, further up.
    fn read(self: &Arc<Self>) {
        let Ok(mut from) = self.from.try_lock() else { return };
        let waker = Waker::from(Arc::clone(self));
        let mut context = Context::from_waker(&waker);
        while let Some(body) = from.as_mut() {
            let mut out = self.out();
            out.is_full = out.bytes.len() >= MOST;
            if out.is_full {
                return;
            }
            let Poll::Ready(came) = Pin::new(body).poll_frame(&mut context) else { return };
            match came {
                Some(Ok(frame)) => {
                    let took = frame.into_data().map_or(Ok(()), |piece| out.take(piece));
                    out.end = took.is_err().then_some(took);
                }
                Some(Err(error)) => out.end = Some(Err(error.into())),
                None => out.end = Some(Ok(())),
            }
            if out.end.is_some() {
                *from = None;
            }
            drop(out);
            self.client.wake();
        }
    }
}

impl Wake for Reader {
    fn wake(self: Arc<Self>) {
        self.read();
    }
}

impl Body for Passed {
    type Data = Bytes;
    type Error = anyhow::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let reader = &self.0;
        reader.client.register(context.waker());
        let mut out = reader.out();
        if out.bytes.is_empty() {
            return match out.end.take() {
                Some(end) => Poll::Ready(end.err().map(Err)),
                None => Poll::Pending,
            };
        }
        let bytes = out.bytes.split().freeze();
        let was_full = out.is_full;
        drop(out);
        if was_full {
            reader.read();
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}
