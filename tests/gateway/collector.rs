//! A real OTLP collector in front of a receiver that tells what has arrived.

use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;

use crate::support::{Program, Setup, Tools, eventually};

/// A collector in front of a receiver: the address that takes OTLP over gRPC and the one over HTTP.
pub(crate) struct Collector {
    receiver: Program,
    _agent: Program,
    /// Holds what the receiver writes, also when its gateway is gone.
    _directory: Setup,
    pub(crate) grpc: String,
    pub(crate) http: String,
}

impl Collector {
    pub(crate) async fn start(tools: &Tools, directory: &Setup) -> Option<Self> {
        let (python, program) = (tools.python()?, tools.find("rotel-agent")?);
        let mut command = Command::new(python);
        command.arg(Tools::script("otlp_receiver.py"));
        let receiver = Program::start(command, &directory.path("spans.jsonl"));
        let port: u16 =
            eventually("the receiver's port", async || receiver.output().lines().next()?.parse().ok()).await;
        let (grpc, http) = (free_port(), free_port());
        let mut command = Command::new(program);
        command.args(["start", "--otlp-grpc-endpoint", &grpc, "--otlp-http-endpoint", &http]);
        command.args(["--exporter", "otlp", "--otlp-exporter-protocol", "http"]);
        command.args(["--otlp-exporter-endpoint", &format!("http://127.0.0.1:{port}"), "--batch-timeout", "200ms"]);
        let agent = Program::start(command, &directory.path("collector.log"));
        eventually("the collector listens", async || std::net::TcpStream::connect(&grpc).ok()).await;
        let directory = directory.clone();
        Some(Self {
            receiver,
            _agent: agent,
            _directory: directory,
            grpc: format!("http://{grpc}"),
            http: format!("http://{http}"),
        })
    }

    /// The spans that have arrived. A line that is not written to its end yet is not read.
    pub(crate) fn spans(&self) -> Vec<Value> {
        let output = self.receiver.output();
        let whole = output.split_inclusive('\n').skip(1).filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not a span: {line}"))).collect()
    }

    /// Waits for a span.
    pub(crate) async fn span(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("the span of {what}"), async || self.spans().into_iter().find(&wanted)).await
    }
}

pub(crate) fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").to_string()
}
