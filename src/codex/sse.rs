//! An incremental decoder for server-sent events that hands out slices of what it was given.
//!
//! Each byte is searched once: the decoder remembers how far it has looked, so a frame that
//! arrives in many pieces costs no more than one that arrives whole. A frame that lies inside one
//! chunk is a reference-counted slice of that chunk; only a frame cut by a chunk border is copied.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;
use std::borrow::Cow;

/// The largest frame that is buffered: an image in base64 is a few MiB (protocol.md 3).
pub const MAX_FRAME: usize = 48 * 1024 * 1024;

/// A frame grew past [`MAX_FRAME`] without an end.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a server-sent event is larger than {MAX_FRAME} bytes")]
pub struct FrameTooLarge;

/// One event as it came over the wire, with its terminating blank line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    raw: Bytes,
    /// Where its last line begins, if that is the only one besides an `event:` line.
    last_line: Option<usize>,
}

impl Frame {
    /// An event of ours; `None` where its data has line breaks, which would end it early.
    pub fn of(kind: &str, data: &str) -> Option<Self> {
        let is_one_line = !data.contains(['\n', '\r']);
        is_one_line.then(|| Self { raw: Bytes::from(format!("event: {kind}\ndata: {data}\n\n")), last_line: None })
    }

    /// A frame that came earlier, of its bytes.
    pub fn copied(raw: &[u8]) -> Self {
        Self { raw: Bytes::copy_from_slice(raw), last_line: None }
    }

    /// The bytes as received, terminator included: what a pass-through writes.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The payload: all `data:` lines joined by a line feed; `None` for a comment or a bare
    /// `event:` line. Borrowed unless there is more than one `data:` line.
    pub fn data(&self) -> Option<Cow<'_, [u8]>> {
        if let Some(data) = self.only_data() {
            return Some(Cow::Borrowed(data));
        }
        let mut joined: Option<Cow<'_, [u8]>> = None;
        for line in self.lines() {
            let Some(value) = data_of(line) else { continue };
            joined = Some(match joined {
                None => Cow::Borrowed(value),
                Some(first) => {
                    let mut all = first.into_owned();
                    all.push(b'\n');
                    all.extend_from_slice(value);
                    Cow::Owned(all)
                }
            });
        }
        joined
    }

    /// The payload of a frame as the backend writes it: `event:`, one `data:` line, an empty one.
    fn only_data(&self) -> Option<&[u8]> {
        let last = self.raw.get(self.last_line?..)?;
        let data = last.strip_prefix(b"data: ")?.strip_suffix(b"\n\n")?;
        (!data.ends_with(b"\r")).then_some(data)
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest: &[u8] = &self.raw;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let end = memchr(b'\n', rest).unwrap_or(rest.len());
            let line = &rest[..end];
            rest = rest.get(end + 1..).unwrap_or_default();
            Some(line.strip_suffix(b"\r").unwrap_or(line))
        })
    }
}

/// The value of a `data:` line.
fn data_of(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(b"data")? {
        // A field without a colon has an empty value.
        b"" => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

/// Turns chunks of a response body into [`Frame`]s.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The newest chunk, while every earlier byte has been handed out.
    chunk: Bytes,
    /// An unfinished frame from earlier chunks and all that followed it.
    carry: BytesMut,
    /// How many bytes of the current buffer hold no frame end: the search goes on from there.
    searched: usize,
    /// Whether the first frame has been handed out: a byte order mark may precede it.
    started: bool,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next chunk of the body. Call [`Decoder::next_frame`] until it yields `None` after it.
    pub fn push(&mut self, chunk: Bytes) {
        if self.carry.is_empty() && self.chunk.is_empty() {
            self.chunk = chunk;
            self.searched = 0;
        } else {
            self.spill();
            self.carry.extend_from_slice(&chunk);
        }
    }

    /// The next complete frame, `None` when more bytes are needed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameTooLarge> {
        let buffer: &[u8] = if self.carry.is_empty() { &self.chunk } else { &self.carry };
        match frame_end(buffer, self.searched) {
            Some(Found { end, mut last_line }) => {
                self.searched = 0;
                let mut raw =
                    if self.carry.is_empty() { self.chunk.split_to(end) } else { self.carry.split_to(end).freeze() };
                // Here and not on arrival, for its three bytes may arrive one by one.
                if !std::mem::replace(&mut self.started, true) && raw.starts_with(b"\xEF\xBB\xBF") {
                    raw.advance(3);
                    last_line = None;
                }
                Ok(Some(Frame { raw, last_line }))
            }
            None if buffer.len() > MAX_FRAME => Err(FrameTooLarge),
            None => {
                self.searched = buffer.len();
                self.spill();
                Ok(None)
            }
        }
    }

    /// What is left when the body has ended: a frame whose blank line never came is not an event.
    pub fn has_incomplete_frame(&self) -> bool {
        let left: &[u8] = if self.carry.is_empty() { &self.chunk } else { &self.carry };
        left.iter().any(|b| !b.is_ascii_whitespace())
    }

    fn spill(&mut self) {
        self.carry.extend_from_slice(&self.chunk);
        // Also an empty slice keeps what it was cut from.
        self.chunk = Bytes::new();
        if self.carry.is_empty() {
            self.carry = BytesMut::new();
        }
    }
}

/// Where a frame ends.
struct Found {
    /// The index just past the blank line.
    end: usize,
    /// See [`Frame`].
    last_line: Option<usize>,
}

/// The end of the first frame; `searched` bytes hold none.
fn frame_end(buffer: &[u8], searched: usize) -> Option<Found> {
    // The end is at most four bytes long, so three of the searched ones may belong to it.
    let mut from = searched.saturating_sub(3);
    // Of lines that were searched before nothing is known.
    let mut last_line = (searched == 0).then_some(0);
    while let Some(at) = memchr(b'\n', &buffer[from..]) {
        let feed = from + at;
        match buffer.get(feed + 1..) {
            Some([b'\n', ..]) => return Some(Found { end: feed + 2, last_line }),
            Some([b'\r', b'\n', ..]) => return Some(Found { end: feed + 3, last_line }),
            _ => from = feed + 1,
        }
        last_line = last_line.filter(|begin| *begin == 0 && buffer.starts_with(b"event:")).map(|_| from);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(chunks: &[&[u8]]) -> Vec<Frame> {
        let mut decoder = Decoder::new();
        let mut frames = Vec::new();
        for chunk in chunks {
            decoder.push(Bytes::copy_from_slice(chunk));
            while let Some(frame) = decoder.next_frame().expect("small frames") {
                frames.push(frame);
            }
        }
        frames
    }

    #[test]
    fn a_frame_inside_one_chunk_is_a_slice_of_it() {
        let chunk = Bytes::from_static(b"event: a\ndata: {\"x\":1}\n\ndata: 2\n\n");
        let mut decoder = Decoder::new();
        decoder.push(chunk.clone());
        let first = decoder.next_frame().expect("fits").expect("complete");
        assert_eq!(first.raw().as_ptr(), chunk.as_ptr());
        assert_eq!(first.data().as_deref(), Some(&b"{\"x\":1}"[..]));
        let second = decoder.next_frame().expect("fits").expect("complete");
        assert_eq!(second.data().as_deref(), Some(&b"2"[..]));
    }

    #[test]
    fn several_data_lines_are_joined_and_comments_carry_none() {
        let frames = decode(&[b": keep-alive\n\ndata: a\r\ndata:b\r\n\r\n"]);
        assert_eq!(frames[0].data(), None);
        assert_eq!(frames[1].data().as_deref(), Some(&b"a\nb"[..]));
    }

    #[test]
    fn a_byte_order_mark_in_pieces_is_skipped_and_a_field_without_a_colon_is_empty() {
        let frames = decode(&[b"\xEF", b"\xBB", b"\xBFdata: 1\n\n", b"data\ndata:\ndatum\n\n"]);
        assert_eq!(frames[0].data().as_deref(), Some(&b"1"[..]));
        assert_eq!(frames[1].data().as_deref(), Some(&b"\n"[..]));
    }

    #[test]
    fn a_byte_order_mark_is_skipped_and_an_unfinished_frame_is_known() {
        let mut decoder = Decoder::new();
        decoder.push(Bytes::from_static(b"\xEF\xBB\xBFdata: 1\n\ndata: cut"));
        assert!(decoder.next_frame().expect("fits").is_some());
        assert_eq!(decoder.next_frame().expect("fits"), None);
        assert!(decoder.has_incomplete_frame());
    }

    proptest! {
        #[test]
        fn cuts_do_not_change_the_frames(
            payloads in prop::collection::vec("[ -~é🦀]{0,40}", 1..8),
            crlf in any::<bool>(),
            cuts in prop::collection::vec(1usize..9, 1..200),
        ) {
            let end = if crlf { "\r\n" } else { "\n" };
            let wire = payloads.iter().fold(String::new(), |wire, p| wire + "event: e" + end + "data: " + p + end + end);
            let mut rest = wire.as_bytes();
            let mut pieces = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, tail) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = tail;
            }
            let got: Vec<Vec<u8>> = decode(&pieces).iter().map(|f| f.data().expect("data").into_owned()).collect();
            let want: Vec<Vec<u8>> = payloads.iter().map(|p| p.as_bytes().to_vec()).collect();
            prop_assert_eq!(got, want);
        }
    }
}
