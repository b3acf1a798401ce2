//! What an image costs: a token for each 750 pixels, as Anthropic's clients expect.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Pixels a token.
const PIXELS: u64 = 750;

/// What an image costs at most, for larger ones are scaled down, or when its size is not legible.
const MOST: u64 = 1600;

/// How much of an image is looked at, bytes of base64: enough for a photograph's metadata.
const HEAD: usize = 256 * 1024;

/// The tokens of an image given by its address.
pub(in crate::dialect) fn tokens(image_url: &str) -> u64 {
    let Some((width, height)) = data(image_url).as_deref().and_then(size) else { return MOST };
    (u64::from(width) * u64::from(height)).div_ceil(PIXELS).clamp(1, MOST)
}

/// The first bytes of an image that is in its own address.
fn data(image_url: &str) -> Option<Vec<u8>> {
    let (_, encoded) = image_url.strip_prefix("data:")?.split_once(";base64,")?;
    let head = encoded.as_bytes().get(..HEAD).unwrap_or(encoded.as_bytes());
    // Whole groups of four, so that a cut is no error.
    STANDARD.decode(&head[..head.len() / 4 * 4]).ok()
}

/// Width and height from the header of a PNG, GIF, JPEG or WebP file.
fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Some((be32(bytes, 16)?, be32(bytes, 20)?));
    }
    if bytes.starts_with(b"GIF8") {
        return Some((le16(bytes, 6)?, le16(bytes, 8)?));
    }
    if bytes.starts_with(b"\xFF\xD8") {
        return jpeg(bytes);
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12)? == b"WEBP" {
        return webp(bytes);
    }
    None
}

/// Walks the segments up to the frame header.
fn jpeg(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        let marker = *bytes.get(at + 1)?;
        if bytes[at] != 0xFF {
            return None;
        }
        match marker {
            // Padding, and markers without content.
            0xFF => at += 1,
            0x01 | 0xD0..=0xD8 => at += 2,
            // The frame headers; C4, C8 and CC are tables and extensions.
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                return Some((be16(bytes, at + 7)?, be16(bytes, at + 5)?));
            }
            _ => at += 2 + usize::try_from(be16(bytes, at + 2)?.max(2)).ok()?,
        }
    }
}

fn webp(bytes: &[u8]) -> Option<(u32, u32)> {
    match bytes.get(12..16)? {
        b"VP8 " => Some((le16(bytes, 26)? & 0x3FFF, le16(bytes, 28)? & 0x3FFF)),
        b"VP8L" => {
            let bits = u32::from_le_bytes(bytes.get(21..25)?.try_into().ok()?);
            Some(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
        }
        b"VP8X" => {
            let le24 = |at| Some(le16(bytes, at)? | u32::from(*bytes.get(at + 2)?) << 16);
            Some((le24(24)? + 1, le24(27)? + 1))
        }
        _ => None,
    }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn be16(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

fn le16(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> u64 {
        tokens(&format!("data:image/x;base64,{}", STANDARD.encode(bytes)))
    }

    #[test]
    fn the_size_is_read_from_the_header() {
        let png = [&b"\x89PNG\r\n\x1a\n\0\0\0\x0DIHDR"[..], &[0, 0, 3, 0xE8], &[0, 0, 2, 0xEE], &[8, 6]].concat();
        assert_eq!(of(&png), 1000, "1000 by 750");
        let jpeg = [0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 1, 2, 0xFF, 0xC0, 0, 11, 8, 0, 75, 0, 100, 3];
        assert_eq!(of(&jpeg), 10, "100 by 75");
        assert_eq!(of(b"GIF89a\x64\0\x4B\0\0\0"), 10, "100 by 75");
        let webp = [&b"RIFF\0\0\0\0WEBPVP8X\x0A\0\0\0\0\0\0\0"[..], &[99, 0, 0], &[74, 0, 0]].concat();
        assert_eq!(of(&webp), 10, "100 by 75");
    }

    #[test]
    fn what_is_not_legible_costs_the_most() {
        for bytes in [&b""[..], b"\x89PNG\r\n\x1a\n", b"\xFF\xD8\xFF", b"RIFF....WEBPVP8", b"nothing"] {
            assert_eq!(of(bytes), MOST);
        }
        assert_eq!(tokens("https://example.com/a.png"), MOST);
        assert_eq!(tokens("data:image/png;base64,###"), MOST);
    }
}
