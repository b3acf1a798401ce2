//! Where a request comes from: the connection's other end, or, behind proxies that are trusted, the
//! last address of `X-Forwarded-For` that is none of theirs. It travels in a header of our own, which
//! is taken out of what clients send, for that is what every route has in its hands.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Request};
use ipnet::IpNet;
use std::net::IpAddr;

const FROM: HeaderName = HeaderName::from_static("x-tollway-from");
const FORWARDED: &str = "x-forwarded-for";

/// What is told of a connection's other end.
pub(super) fn told(peer: IpAddr) -> Option<HeaderValue> {
    HeaderValue::try_from(peer.to_canonical().to_string()).ok()
}

/// A request with nothing told but where its connection comes from.
pub(super) fn stamp<B>(mut request: Request<B>, peer: Option<&HeaderValue>) -> Request<B> {
    match peer {
        Some(peer) => drop(request.headers_mut().insert(FROM, peer.clone())),
        None => drop(request.headers_mut().remove(FROM)),
    }
    request
}

/// The request with what its proxies tell, where they are trusted.
pub(super) fn tell<B>(mut request: Request<B>, trusted: &[IpNet]) -> Request<B> {
    let headers = request.headers_mut();
    if !trusted.is_empty()
        && let Some(peer) = of(headers)
        && let Some(from) = told(client(headers, peer, trusted))
    {
        headers.insert(FROM, from);
    }
    request
}

/// Where a request comes from, as it was told.
pub(super) fn of(headers: &HeaderMap) -> Option<IpAddr> {
    headers.get(FROM)?.to_str().ok()?.parse().ok()
}

fn client(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut from = peer.to_canonical();
    // Each proxy adds at the end whom it was called by, so the end is what is known best.
    let hops: Vec<&str> = headers
        .get_all(FORWARDED)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .collect();
    for hop in hops.into_iter().rev() {
        if !is_trusted(&from) {
            break;
        }
        let Some(next) = address(hop.trim()) else { break };
        from = next;
    }
    from
}

/// `192.0.2.1`, `192.0.2.1:4711`, `[2001:db8::1]:4711`, `2001:db8::1`.
fn address(text: &str) -> Option<IpAddr> {
    let plain = text.parse::<IpAddr>().ok();
    plain.or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|at| at.ip())).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED, value.parse().expect("a header"));
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().expect("a network")).collect();
        client(&headers, peer.parse().expect("an address"), &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed_and_only_as_far_as_they_go() {
        assert_eq!(from("192.0.2.9", &["10.0.0.1"], &[]), "192.0.2.9");
        assert_eq!(from("10.0.0.2", &["198.51.100.7"], &["10.0.0.0/8"]), "198.51.100.7");
        assert_eq!(
            from("::ffff:10.0.0.2", &["203.0.113.1, 198.51.100.7", "10.0.0.9:80"], &["10.0.0.0/8"]),
            "198.51.100.7"
        );
        assert_eq!(from("10.0.0.2", &["nonsense"], &["10.0.0.0/8"]), "10.0.0.2");
        assert_eq!(from("10.0.0.2", &["[2001:db8::1]:4711"], &["10.0.0.0/8"]), "2001:db8::1");
    }

    #[test]
    fn a_client_cannot_tell_its_origin_itself() {
        let says = || Request::builder().header(FROM, "10.0.0.1").header(FROM, "10.0.0.2").body(()).expect("a request");
        let peer = "192.0.2.9".parse().expect("an address");
        for (peer, expected) in [(told(peer), Some(peer)), (None, None)] {
            assert_eq!(of(tell(stamp(says(), peer.as_ref()), &[]).headers()), expected);
        }
    }
}
