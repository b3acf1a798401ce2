//! Tokens of a text: exactly, with the backend's vocabulary (`o200k_base`), or roughly and at once.

pub(in crate::dialect) mod image;

/// Marks around a message, a call or an output.
pub(in crate::dialect) const PER_ITEM: u64 = 4;

/// Marks around a tool's definition.
pub(in crate::dialect) const PER_TOOL: u64 = 8;

/// Marks before the answer.
pub(in crate::dialect) const PRIMING: u64 = 3;

/// A document is taken for so many tokens for each started [`FILE_PAGE`] bytes.
const PER_FILE_PAGE: u64 = 2000;

/// The size of a typical page of a PDF, bytes of base64.
const FILE_PAGE: usize = 64 * 1024;

/// Text is given to the tokenizer in pieces of at most so many bytes, so that no text can make its
/// regular expression run away; each cut can cost one token.
const PIECE: usize = 64 * 1024;

/// How many tokens a text is. Takes milliseconds for each 100 kB, and some hundred at the first
/// call of the process, which builds the vocabulary.
pub(in crate::dialect) fn exact(text: &str) -> u64 {
    let vocabulary = tiktoken_rs::o200k_base_singleton();
    let mut rest = text;
    let mut tokens = 0;
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(piece_end(rest));
        tokens += vocabulary.encode_ordinary(piece).len();
        rest = tail;
    }
    u64::try_from(tokens).unwrap_or(u64::MAX)
}

/// The longest beginning of a text that is no more than `limit` tokens, and how many it is. A
/// character that the last token would tear is left out.
pub(in crate::dialect) fn beginning(text: &str, limit: u64) -> (&str, u64) {
    let vocabulary = tiktoken_rs::o200k_base_singleton();
    let (mut end, mut tokens) = (0, 0);
    while end < text.len() {
        let piece = &text[end..][..piece_end(&text[end..])];
        let encoded = vocabulary.encode_ordinary(piece);
        let room = usize::try_from(limit - tokens).unwrap_or(usize::MAX);
        if encoded.len() > room {
            let bytes = vocabulary.decode_bytes(&encoded[..room]).map_or(0, |bytes| bytes.len());
            return (&text[..text.floor_char_boundary(end + bytes)], limit);
        }
        tokens += u64::try_from(encoded.len()).unwrap_or(u64::MAX);
        end += piece.len();
    }
    (text, tokens)
}

/// The tokens of a document, by the size of its content in base64.
pub(in crate::dialect) fn of_file(data: Option<&str>) -> u64 {
    let pages = data.map_or(1, |data| data.len().div_ceil(FILE_PAGE).max(1));
    u64::try_from(pages).unwrap_or(u64::MAX).saturating_mul(PER_FILE_PAGE)
}

/// Where to cut: after the last space of a piece if there is one, else at a character's border.
fn piece_end(text: &str) -> usize {
    if text.len() <= PIECE {
        return text.len();
    }
    let end = text.floor_char_boundary(PIECE);
    text[..end].rfind(' ').filter(|space| *space > 0).unwrap_or(end)
}

/// About as many tokens as [`exact`], at the cost of looking at each byte once.
pub(in crate::dialect) fn rough(text: &str) -> u64 {
    quarters(text).div_ceil(4)
}

/// In quarters of a token: one for an ASCII letter, two for a letter of another alphabet, three for
/// an Asian sign, eight for an emoji.
pub(in crate::dialect) fn quarters(text: &str) -> u64 {
    let of_byte = |byte: &u8| match byte {
        0x00..=0x7F => 1,
        0x80..=0xBF => 0,
        0xC0..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xFF => 8,
    };
    // Most text is ASCII for long stretches, which are told by whole registers.
    let of_stretch = |stretch: &[u8]| {
        if stretch.is_ascii() { stretch.len() as u64 } else { stretch.iter().map(of_byte).sum() }
    };
    text.as_bytes().chunks(64).map(of_stretch).sum()
}

/// About how many tokens encrypted reasoning is: it is base64 of its text and some 650 bytes around it.
pub(in crate::dialect) fn of_reasoning(encrypted: &str) -> u64 {
    let bytes = (encrypted.len() / 4 * 3).saturating_sub(650);
    u64::try_from(bytes / 4).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_counted_with_the_backends_vocabulary() {
        assert_eq!(exact("hello world"), 2);
        assert_eq!(exact("Tollway übersetzt Nachrichten."), 7);
    }

    #[test]
    fn a_beginning_is_whole_tokens_and_whole_characters() {
        assert_eq!(beginning("one two three four", 2), ("one two", 2));
        assert_eq!(beginning("one two", 2), ("one two", 2));
        assert_eq!(beginning("one two", 9), ("one two", 2));
        assert_eq!(beginning("one", 0), ("", 0));
        for limit in 0..6 {
            // The crab is several tokens, none of which is a character.
            let (text, _) = beginning("🦀🦀", limit);
            assert!("🦀🦀".starts_with(text) && exact(text) <= limit, "{limit}: {text}");
        }
    }

    #[test]
    fn the_estimate_is_near_the_count() {
        let text = "The quick brown fox jumps over the lazy dog, and nobody minds. ".repeat(50);
        for text in [text.as_str(), "これは日本語の文章です。とても短いです。", "Привет, как дела? Всё хорошо."]
        {
            let (rough, exact) = (rough(text), exact(text));
            assert!(rough.abs_diff(exact) * 2 <= exact.max(8), "{rough} for {exact}: {text}");
        }
    }

    #[test]
    fn a_character_counts_the_same_wherever_it_stands() {
        for (character, weight) in [("a", 1), ("é", 2), ("語", 3), ("🦀", 8)] {
            for before in 0..130 {
                let text = format!("{}{character}{}", "a".repeat(before), "b".repeat(70));
                assert_eq!(quarters(&text), before as u64 + weight + 70, "{character} after {before}");
            }
        }
    }

    #[test]
    fn no_text_makes_the_tokenizer_run_away() {
        for text in [" ".repeat(300_000), "a".repeat(300_000), "é\n".repeat(100_000), "=".repeat(300_000)] {
            assert!(exact(&text) > 0);
            assert_eq!(beginning(&text, 10).1, 10);
        }
    }
}
