//! Reads JSON no further than its top level, and knows that the rest is legible.
//!
//! Most events pass through unread, or have four members that matter, several hundred a second and stream; a
//! parser that builds nothing still takes three times as long as this.

use memchr::memchr2;
use std::borrow::Cow;

/// Objects within objects, up to here.
const DEEPEST: u32 = 32;

/// Whether this is an object with exactly one member of each of these names, and legible to the end. `false`
/// also for what is rare in events; see [`members`].
pub(super) fn has_one(data: &[u8], names: &[&[u8]]) -> bool {
    let mut found = 0;
    let read = members(data, |name, _| {
        if let Some(place) = names.iter().position(|wanted| *wanted == name) {
            // One that was there already is one too many.
            (found & (1 << place) == 0).then(|| found |= 1 << place)
        } else {
            Some(())
        }
    });
    read.is_some() && found == (1 << names.len()) - 1
}

/// Hands out the members of an object, each name and its value as they are written. `None` where the object
/// is not legible to its end or `each` gives up, but also for what is rare in events: names with escapes, line
/// breaks between members, deep nesting; a parser has to say what that is.
pub(crate) fn members<'a>(data: &'a [u8], mut each: impl FnMut(&'a [u8], &'a [u8]) -> Option<()>) -> Option<()> {
    let mut reader = Reader::new(data)?;
    if reader.next()? != b'{' {
        return None;
    }
    reader.object(0, &mut each)?;
    reader.peek().is_none().then_some(())
}

/// The same for the elements of a list.
pub(crate) fn elements<'a>(data: &'a [u8], mut each: impl FnMut(&'a [u8]) -> Option<()>) -> Option<()> {
    let mut reader = Reader::new(data)?;
    if reader.next()? != b'[' {
        return None;
    }
    reader.array(0, &mut each)?;
    reader.peek().is_none().then_some(())
}

/// The text that a value is; `None` if it is none.
pub(crate) fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.contains(&b'\\') {
        return serde_json::from_slice::<String>(value).ok().map(Cow::Owned);
    }
    std::str::from_utf8(inner).ok().map(Cow::Borrowed)
}

/// The number that a value is; `None` also for one of more than nine digits.
pub(super) fn number(value: &[u8]) -> Option<u32> {
    let is_plain = (1..=9).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    is_plain.then(|| value.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
}

/// What has not been read. Every function ends after what it is named for; `None` where that is not there.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(data: &'a [u8]) -> Option<Self> {
        // In one go for all strings: they hold no control characters. Not `all`, which is not vectorised.
        let least = data.iter().fold(u8::MAX, |least, byte| least.min(*byte));
        (least >= b' ').then_some(Self(data))
    }

    /// What comes after spaces.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        match *self.0.first()? {
            b' ' => self.skip_spaces(),
            byte => Some(byte),
        }
    }

    #[cold]
    fn skip_spaces(&mut self) -> Option<u8> {
        self.0 = self.0.trim_ascii_start();
        self.0.first().copied()
    }

    #[inline]
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.0 = &self.0[1..];
        Some(byte)
    }

    /// What a function reads, as it is written.
    #[inline]
    fn read(&mut self, depth: u32) -> Option<&'a [u8]> {
        self.peek()?;
        let before = self.0;
        self.value(depth)?;
        Some(&before[..before.len() - self.0.len()])
    }

    fn value(&mut self, depth: u32) -> Option<()> {
        match self.next()? {
            b'"' => self.string().map(drop),
            b'{' if depth < DEEPEST => self.object(depth + 1, &mut |_, _| Some(())),
            b'[' if depth < DEEPEST => self.array(depth + 1, &mut |_| Some(())),
            b't' => self.word(b"rue"),
            b'f' => self.word(b"alse"),
            b'n' => self.word(b"ull"),
            b'-' => self.digit().and_then(|first| self.number(first)),
            first @ b'0'..=b'9' => self.number(first),
            _ => None,
        }
    }

    /// Its brace is read.
    #[inline]
    fn object(&mut self, depth: u32, each: &mut impl FnMut(&'a [u8], &'a [u8]) -> Option<()>) -> Option<()> {
        if self.peek()? == b'}' {
            self.0 = &self.0[1..];
            return Some(());
        }
        loop {
            if self.next()? != b'"' {
                return None;
            }
            let (name, has_escapes) = self.string()?;
            if has_escapes || self.next()? != b':' {
                return None;
            }
            each(name, self.read(depth)?)?;
            match self.next()? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    /// Its bracket is read.
    #[inline]
    fn array(&mut self, depth: u32, each: &mut impl FnMut(&'a [u8]) -> Option<()>) -> Option<()> {
        if self.peek()? == b']' {
            self.0 = &self.0[1..];
            return Some(());
        }
        loop {
            each(self.read(depth)?)?;
            match self.next()? {
                b',' => {}
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    /// As it is written, without its quotes; and whether it has escapes. The first quote is read.
    #[inline]
    fn string(&mut self) -> Option<(&'a [u8], bool)> {
        let before = self.0;
        let end = quote_or_backslash(before)?;
        self.0 = &before[end + 1..];
        if before[end] == b'"' {
            return Some((&before[..end], false));
        }
        self.escaped()?;
        Some((&before[..before.len() - self.0.len() - 1], true))
    }

    /// What is left of a string, from behind a backslash to its quote.
    fn escaped(&mut self) -> Option<()> {
        loop {
            self.0 = match self.0 {
                [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', rest @ ..] => rest,
                [b'u', a, b, c, d, rest @ ..] if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) => rest,
                _ => return None,
            };
            let end = quote_or_backslash(self.0)?;
            let found = self.0[end];
            self.0 = &self.0[end + 1..];
            if found == b'"' {
                return Some(());
            }
        }
    }

    /// What is left of a word.
    fn word(&mut self, rest: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(rest)?;
        Some(())
    }

    fn digit(&mut self) -> Option<u8> {
        let (digit, rest) = self.0.split_first().filter(|(byte, _)| byte.is_ascii_digit())?;
        self.0 = rest;
        Some(*digit)
    }

    fn digits(&mut self) {
        while self.digit().is_some() {}
    }

    /// Its first digit is read.
    fn number(&mut self, first: u8) -> Option<()> {
        if first != b'0' {
            self.digits();
        }
        if let [b'.', rest @ ..] = self.0 {
            self.0 = rest;
            self.digit()?;
            self.digits();
        }
        if let [b'e' | b'E', rest @ ..] = self.0 {
            self.0 = rest;
            if let [b'+' | b'-', rest @ ..] = self.0 {
                self.0 = rest;
            }
            self.digit()?;
            self.digits();
        }
        Some(())
    }
}

/// Where the first of the two is. Most strings are short: for one of them a call of `memchr2` takes twice as
/// long; for a prompt it takes a tenth.
#[inline]
fn quote_or_backslash(data: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const QUOTES: u64 = u64::from_ne_bytes([b'"'; 8]);
    const BACKSLASHES: u64 = u64::from_ne_bytes([b'\\'; 8]);
    const SHORT: usize = 64;
    // Of the bytes that are zero, the highest bit of the first is set, and none of those before it.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let mut rest = data;
    while let Some((chunk, after)) = rest.split_first_chunk() {
        let word = u64::from_le_bytes(*chunk);
        let found = zeros(word ^ QUOTES) | zeros(word ^ BACKSLASHES);
        if found != 0 {
            return Some(data.len() - rest.len() + found.trailing_zeros() as usize / 8);
        }
        rest = after;
        if data.len() - rest.len() >= SHORT {
            return memchr2(b'"', b'\\', rest).map(|place| data.len() - rest.len() + place);
        }
    }
    let place = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
    place.map(|place| data.len() - rest.len() + place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde::de::IgnoredAny;

    fn has_one_type(data: &[u8]) -> bool {
        has_one(data, &[b"type"])
    }

    /// The same, by the parser.
    fn parses(data: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Typed {
            #[serde(rename = "type")]
            _kind: IgnoredAny,
        }
        serde_json::from_slice::<Typed>(data).is_ok() && data.trim_ascii_start().starts_with(b"{")
    }

    #[test]
    fn what_events_are_made_of_is_read_as_the_parser_reads_it() {
        let legible = [
            r#"{"type":"response.output_text.delta","sequence_number":4,"delta":"a\"\\\/\b\f\n\r\té\u00e9\uD83D","logprobs":[]}"#,
            r#" { "type" : "x" , "a" : [ 1 , -0 , 0.5 , -12.25e+10 , 1E-2 , true , false , null , {} , [ ] ] } "#,
            r#"{"response":{"type":"y","type":"z","a":{"type":1}},"type":"x"}"#,
        ];
        for text in legible {
            assert!(parses(text.as_bytes()) && has_one_type(text.as_bytes()), "{text}");
        }
        let not = [
            "",
            " ",
            "{",
            "[]",
            "null",
            "{}",
            r#"{"a":1}"#,
            r#"{"type":1}}"#,
            r#"{"type":1,}"#,
            r#"{"type":1 "a":2}"#,
            r#"{"type":1,"type":1}"#,
            r#"{"type":"\x"}"#,
            r#"{"type":"\u12g4"}"#,
            r#"{"type":"\u12"}"#,
            r#"{"type":01}"#,
            r#"{"type":1.}"#,
            r#"{"type":.5}"#,
            r#"{"type":-}"#,
            r#"{"type":1e}"#,
            r#"{"type":+1}"#,
            r#"{"type":tru}"#,
            r#"{"type":nul"#,
            r#"{"type":[1,]}"#,
            r#"{"type":[1 2]}"#,
            r#"{"type":"a"#,
            "{\"type\":\"a\u{1}\"}",
            r"{type:1}",
        ];
        for text in not {
            assert!(!parses(text.as_bytes()) && !has_one_type(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_is_rare_is_left_to_the_parser() {
        let long = format!(r#"{{"type":"{}\"{}","a":1}}"#, "x".repeat(1000), "y".repeat(70));
        assert!(parses(long.as_bytes()) && has_one_type(long.as_bytes()));
        for cut in [0, 8, 63, 64, 65, 900, long.len() - 1] {
            assert!(!has_one_type(&long.as_bytes()[..cut]), "{cut}");
        }
        let deep = format!(r#"{{"type":1,"a":{}{}}}"#, "[".repeat(100), "]".repeat(100));
        for text in [r#"{"type":1,"\u0074ype":2}"#, r#"{"type":1,"a\n":2}"#, "{\"type\":1,\n\"a\":2}", deep.as_str()] {
            assert!(!has_one_type(text.as_bytes()), "{text}");
        }
    }

    fn any_json() -> impl Strategy<Value = String> {
        let text = r"[ -!#-\[\]-~é🦀]{0,12}".prop_map(|text| format!("\"{text}\""));
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<bool>().prop_map(|value| value.to_string()),
            any::<i64>().prop_map(|value| value.to_string()),
            "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?",
            text.clone(),
            r#"("\\)(n|"|u00e9)""#.prop_map(|text: String| text),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            let name = prop_oneof![Just("\"type\"".to_owned()), text.clone()];
            let members = prop::collection::vec((name, inner.clone()), 0..4).prop_map(|members| {
                let members: Vec<_> = members.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                format!("{{{}}}", members.join(", "))
            });
            let items = prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(",")));
            prop_oneof![members, items]
        })
    }

    proptest! {
        #[test]
        fn members_and_elements_are_those_that_the_parser_finds(value in any_json()) {
            use serde_json::value::RawValue;
            let list = format!("[{value}, {value},{value}]");
            let mut elements = Vec::new();
            let skimmed = super::elements(list.as_bytes(), |element| {
                elements.push(element);
                Some(())
            });
            let parsed: Vec<&RawValue> = serde_json::from_str(&list).expect("a list");
            let parsed: Vec<&[u8]> = parsed.iter().map(|element| element.get().as_bytes()).collect();
            prop_assert!(skimmed.is_none() || elements == parsed);
            let object = format!(r#"{{"a":{value}, "b" : {value} }}"#);
            let mut values = Vec::new();
            let skimmed = members(object.as_bytes(), |name, value| {
                values.push((name, value));
                Some(())
            });
            let same = [(&b"a"[..], value.as_bytes()), (&b"b"[..], value.as_bytes())];
            prop_assert!(skimmed.is_none() || values == same);
        }
    }

    proptest! {
        #[test]
        fn whole_or_damaged_it_is_read_as_the_parser_reads_it(
            rest in any_json(),
            damage in prop::option::of((any::<prop::sample::Index>(), prop::option::of(r#"[{}\[\]:,"\\ -~]"#))),
        ) {
            let mut text: Vec<char> = format!(r#"{{"type":"x","rest":{rest}}}"#).chars().collect();
            if let Some((at, by)) = damage {
                let at = at.index(text.len());
                let by: Vec<char> = by.iter().flat_map(|by| by.chars()).collect();
                text.splice(at..=at, by);
            }
            let text: String = text.into_iter().collect();
            let (skimmed, parsed) = (has_one_type(text.as_bytes()), parses(text.as_bytes()));
            prop_assert!(parsed || !skimmed, "{}", text);
            // A name with an escape is left to the parser.
            prop_assert!(skimmed || !parsed || text.contains('\\'), "{}", text);
        }
    }
}
