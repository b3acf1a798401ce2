//! The same backend as it is in production: HTTP/2 over TLS, so that a gateway needs one descriptor
//! for all its streams and not one for each.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::backend::{Plan, Sink, Template, Wire, answer, fields, is_answered, small};
use crate::client::Dialect;
use crate::contender::{Contender, Installation};
use crate::{Run, Scenario, prepare, run_dialect};

/// Streams on a connection: above all that the kit ever has at a time, so that it is not the limit that is
/// measured. The gateway itself puts no more than a hundred on one.
const STREAMS: u32 = 20_000;

/// In a prompt: the answer comes slowly, whatever the plan says, so that both kinds can be mixed.
pub(crate) const SLOWLY: &str = "slowly";
/// Between the deltas of an answer that comes slowly, microseconds.
const SLOW_PACE: u64 = 10_000;

/// What a gateway is called in the report when this is its backend.
const NAME: &str = "Tollway, HTTP/2 to the backend";

/// A backend that is running, until the runtime ends.
pub(crate) struct Secure {
    address: SocketAddr,
    papers: TempDir,
}

impl Secure {
    pub(crate) async fn start(plan: &Arc<Plan>) -> Result<Self> {
        let papers = tempfile::tempdir()?;
        let acceptor = acceptor(papers.path())?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(serve(listener, acceptor, plan.clone()));
        Ok(Self { address, papers })
    }

    /// A gateway of its own in front of this backend, with a heap that has not been larger before.
    pub(crate) async fn gateway(&self) -> Result<Contender> {
        let (address, authority) = (self.address, self.authority().display().to_string());
        tokio::task::spawn_blocking(move || {
            let installation = Installation::new(address, None)?
                .set("TOLLWAY_BACKEND__BASE_URL", format!("https://{address}/backend-api"))
                .set("TOLLWAY_OAUTH__ISSUER", format!("https://{address}"))
                .set("TOLLWAY_BACKEND__CA_FILE", authority);
            let key = installation.fill(5, 5)?;
            let mut gateway = installation.serve_again(key)?;
            gateway.name = NAME;
            Ok(gateway)
        })
        .await?
    }

    fn authority(&self) -> PathBuf {
        self.papers.path().join("ca.crt")
    }
}

/// What requests cost over HTTP/2 and TLS, as many rounds as are wanted: nginx does not speak it to a backend.
pub(crate) async fn measure(plan: &Arc<Plan>, rounds: usize) -> Result<Vec<(Scenario, Dialect, Run)>> {
    let backend = Secure::start(plan).await?;
    let gateway = backend.gateway().await?;
    let mut runs = Vec::new();
    for _ in 0..rounds {
        for scenario in [Scenario::Burst, Scenario::Long, Scenario::Short, Scenario::Paced] {
            let shape = scenario.shape();
            prepare(plan, &shape);
            for dialect in Dialect::ALL {
                eprintln!("HTTP/2 to the backend: {}, {}", scenario.words(), dialect.name());
                runs.push((scenario, dialect, run_dialect(&gateway, dialect, &shape).await?));
            }
        }
    }
    Ok(runs)
}

/// An authority, and a certificate of it for the backend's address: one that signs itself is not taken
/// for a server's.
fn papers_in(directory: &Path) -> Result<()> {
    let openssl = |arguments: &str| {
        let done = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output();
        let done = done.context("openssl is missing")?;
        ensure!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    std::fs::write(directory.join("names"), "subjectAltName=IP:127.0.0.1\n")?;
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.crt -days 2 -subj /CN=ca"))?;
    openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=backend"))?;
    openssl("x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt")
}

fn acceptor(directory: &Path) -> Result<TlsAcceptor> {
    papers_in(directory)?;
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(directory.join("server.crt"))?.collect::<std::result::Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key"))?;
    let mut configuration = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    configuration.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(configuration)))
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, plan: Arc<Plan>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // As the other backend: there are no descriptors left.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (acceptor, plan) = (acceptor.clone(), plan.clone());
        tokio::spawn(async move {
            // The gateway is ended, or takes another of two connections that it opened at once; what ends one
            // in the middle of streams is told by those.
            let _ = connection(stream, &acceptor, &plan).await;
        });
    }
}

async fn connection(stream: TcpStream, acceptor: &TlsAcceptor, plan: &Arc<Plan>) -> Result<()> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let service = service_fn(|request| respond(request, plan.clone()));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.max_concurrent_streams(STREAMS);
    builder.serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

/// The pieces of an answer on their way into frames.
struct Pieces(mpsc::Sender<Bytes>);

impl Sink for Pieces {
    async fn send(&mut self, bytes: &mut Vec<u8>) -> std::io::Result<()> {
        let piece = Bytes::from(std::mem::take(bytes));
        // Nobody takes it: the stream was reset.
        self.0.send(piece).await.map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }
}

type Body = Either<Full<Bytes>, StreamBody<PieceStream>>;
type PieceStream = std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

async fn respond(request: Request<Incoming>, plan: Arc<Plan>) -> Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let path = head.uri.path();
    if !is_answered(path) {
        let (status, text) = small(path);
        let response = Response::builder().status(status).header("content-type", "application/json");
        return Ok(response.body(Either::Left(Full::from(text)))?);
    }
    let is_slow = memchr::memmem::find(&body, SLOWLY.as_bytes()).is_some();
    let pace = if is_slow { SLOW_PACE } else { plan.pace.load(Ordering::Relaxed) };
    let (sender, mut receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let template = Template::new(plan.deltas.load(Ordering::Relaxed), Wire::Frames);
        // A peer that goes away in the middle is the scenario's end, not ours.
        let _ = answer(&mut Pieces(sender), &template, &plan, pace).await;
    });
    let pieces = futures_util::stream::poll_fn(move |context| {
        receiver.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    });
    let response = fields().fold(Response::builder(), |response, (name, value)| response.header(name, value));
    Ok(response.body(Either::Right(StreamBody::new(Box::pin(pieces) as PieceStream)))?)
}
