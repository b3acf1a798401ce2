//! What the libraries cost by themselves: a program between nginx and the gateway. It takes a request with
//! hyper, passes it on with hyper, reads the kind of each event of the answer, and writes what came together
//! together. It has no keys, limits, accounts, translation, ledger or metrics. A yardstick and no floor: it is as the
//! kit is built, and it does not read ahead as the gateway does.

use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
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
/// Polls until every other task that is ready has had its turn: hyper polls a body twice in one of its own.
const A_TURN: u32 = 2;

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

/// An answer's body on its way.
struct Passed {
    from: Incoming,
    decoder: Decoder,
    out: BytesMut,
    /// Polls in vain since the last piece.
    in_vain: u32,
}

impl Passed {
    fn of(from: Incoming) -> Self {
        Self { from, decoder: Decoder::new(), out: BytesMut::new(), in_vain: 0 }
    }

    fn take(&mut self, piece: Bytes) -> Result<()> {
        self.decoder.push(piece);
        while let Some(frame) = self.decoder.next_frame()? {
            if let Some(data) = frame.data() {
                Event::parse(&data, Depth::Control)?;
            }
            self.out.extend_from_slice(frame.raw());
        }
        Ok(())
    }

    fn write(&mut self) -> Option<Bytes> {
        self.in_vain = 0;
        (!self.out.is_empty()).then(|| self.out.split().freeze())
    }
}

impl Body for Passed {
    type Data = Bytes;
    type Error = anyhow::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        while self.out.len() < MOST {
            match Pin::new(&mut self.from).poll_frame(context)? {
                Poll::Ready(Some(frame)) => {
                    self.in_vain = 0;
                    if let Ok(piece) = frame.into_data() {
                        self.take(piece)?;
                    }
                }
                Poll::Ready(None) => return Poll::Ready(self.write().map(|bytes| Ok(Frame::data(bytes)))),
                Poll::Pending if self.out.is_empty() => return Poll::Pending,
                Poll::Pending if self.in_vain == A_TURN => break,
                Poll::Pending => {
                    self.in_vain += 1;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(self.write().map(|bytes| Ok(Frame::data(bytes))))
    }
}
