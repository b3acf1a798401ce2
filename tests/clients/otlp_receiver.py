"""Receives traces as OTLP over HTTP and prints each span as one line of JSON: the end of the way
behind the collector. The first line is the port."""

import gzip
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


def plain(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    return getattr(value, kind) if kind and kind != "kvlist_value" else None

writing = threading.Lock()


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {item.key: plain(item.value) for item in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.tell(about, span)
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def tell(self, about, span):
        attributes = {item.key: plain(item.value) for item in span.attributes}
        seen = {
            "service": about.get("service.name"),
            "resource": about,
            "name": span.name,
            "kind": span.kind,
            "trace": span.trace_id.hex(),
            "id": span.span_id.hex(),
            "parent": span.parent_span_id.hex(),
            "end": span.end_time_unix_nano,
            "status": span.status.code,
            "attributes": attributes,
            "events": [
                {"name": event.name, "at": event.time_unix_nano, **{a.key: a.value.string_value for a in event.attributes}}
                for event in span.events
            ],
            "links": [link.trace_id.hex() for link in span.links],
        }
        # Not `print`, which writes the line's end by itself: another thread's span could come between.
        with writing:
            sys.stdout.write(json.dumps(seen, default=repr) + "\n")
            sys.stdout.flush()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_port, flush=True)
server.serve_forever()
