//! Where an answer ends because the client said so: at a stop sequence, or at an output limit. The
//! backend takes neither, so the answer is cut on its way down.
//!
//! A stop sequence is found across any borders of events: the end of a text that may be the
//! beginning of a sequence waits for what follows. Where several could end the text, the one that
//! is complete first does, and of these the longest. Only the assistant's text is searched, never
//! arguments or reasoning.
//!
//! The limit counts what the client is given, text and arguments, with the backend's vocabulary.
//! Reasoning does not count: how much it was is told only at the end. Nothing is tokenized while
//! the answer has fewer bytes than it may have tokens.

use super::tokens;
use crate::codex::Usage;
use std::borrow::Cow;
use std::sync::Arc;

/// What a request says about the end of its answer.
#[derive(Debug, Default)]
pub(in crate::dialect) struct Bounds {
    /// None of them is empty.
    stops: Vec<String>,
    /// Tokens.
    limit: Option<u64>,
}

impl Bounds {
    /// Empty sequences say nothing and are left out.
    pub(in crate::dialect) fn new(mut stops: Vec<String>, limit: Option<u64>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        Self { stops, limit }
    }

    /// The most output tokens.
    pub(in crate::dialect) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Whether there is a limit to be counted.
    pub(in crate::dialect) fn has_limit(&self) -> bool {
        self.limit.is_some()
    }

    fn is_none(&self) -> bool {
        self.stops.is_empty() && self.limit.is_none()
    }
}

/// Why an answer was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dialect) enum Cut {
    /// At this stop sequence of the request.
    Stop(usize),
    /// At the output limit.
    Limit,
}

/// Watches one answer.
#[derive(Debug)]
pub(in crate::dialect) struct Cutter {
    bounds: Arc<Bounds>,
    /// The end of the text so far, as far as it may be the beginning of a stop sequence.
    held: String,
    /// Tokens of what went out, as far as it was counted.
    counted: u64,
    /// What went out since.
    uncounted: String,
    /// What went out in quarters of a token, for the estimate of an answer that was cut.
    quarters: u64,
    /// Tokens of reasoning, estimated.
    reasoning: u64,
    /// Set once; nothing goes out after it.
    cut: Option<Cut>,
}

impl Cutter {
    pub(in crate::dialect) fn new(bounds: Arc<Bounds>) -> Self {
        Self { bounds, held: String::new(), counted: 0, uncounted: String::new(), quarters: 0, reasoning: 0, cut: None }
    }

    /// Why the answer was cut; `None` while it was not.
    pub(in crate::dialect) fn cut(&self) -> Option<Cut> {
        self.cut
    }

    /// The stop sequence that cut the answer.
    pub(in crate::dialect) fn stop_sequence(&self) -> Option<&str> {
        match self.cut {
            Some(Cut::Stop(index)) => self.bounds.stops.get(index).map(String::as_str),
            _ => None,
        }
    }

    /// More text of the assistant; what of it, and of what was held back, is to go out.
    pub(in crate::dialect) fn text<'t>(&mut self, text: &'t str) -> Cow<'t, str> {
        if self.cut.is_some() {
            return Cow::Borrowed("");
        }
        if self.bounds.stops.is_empty() {
            return Cow::Borrowed(self.counted(text));
        }
        let whole =
            if self.held.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(std::mem::take(&mut self.held) + text) };
        let stop = first_stop(&self.bounds.stops, &whole);
        let end = stop.map_or_else(|| whole.len() - held_back(&self.bounds.stops, &whole), |(_, start)| start);
        if stop.is_none() {
            whole[end..].clone_into(&mut self.held);
        }
        let allowed = self.counted(&whole[..end]).len();
        // A limit that is reached before the sequence is what ends the answer.
        self.cut = self.cut.or(stop.map(|(index, _)| Cut::Stop(index)));
        match whole {
            Cow::Borrowed(text) => Cow::Borrowed(&text[..allowed]),
            Cow::Owned(mut text) => {
                text.truncate(allowed);
                Cow::Owned(text)
            }
        }
    }

    /// What was held back and is no stop sequence, for no text follows.
    pub(in crate::dialect) fn release(&mut self) -> String {
        let mut held = std::mem::take(&mut self.held);
        held.truncate(self.counted(&held).len());
        held
    }

    /// Text that is not searched for stop sequences: what of it is to go out.
    pub(in crate::dialect) fn counted<'t>(&mut self, text: &'t str) -> &'t str {
        if self.cut.is_some() {
            return "";
        }
        if self.bounds.is_none() {
            return text;
        }
        self.quarters += tokens::quarters(text);
        let Some(limit) = self.bounds.limit else { return text };
        let bytes = self.uncounted.len() + text.len();
        if self.counted + u64::try_from(bytes).unwrap_or(u64::MAX) <= limit {
            // A token has at least one byte.
            self.uncounted.push_str(text);
            return text;
        }
        self.counted += tokens::exact(&std::mem::take(&mut self.uncounted));
        let (allowed, tokens) = tokens::beginning(text, limit.saturating_sub(self.counted));
        self.counted += tokens;
        if allowed.len() < text.len() {
            self.cut = Some(Cut::Limit);
        }
        allowed
    }

    /// The model reasoned; it is not counted against the limit, but it was used.
    pub(in crate::dialect) fn reasoned(&mut self, encrypted: &str) {
        self.reasoning += tokens::of_reasoning(encrypted);
    }

    /// About what an answer that was cut has used, by an estimate of its input.
    pub(in crate::dialect) fn spent(&self, input: u64) -> Usage {
        let shown = match (self.cut, self.bounds.limit) {
            (Some(Cut::Limit), Some(limit)) => limit,
            _ => self.quarters.div_ceil(4),
        };
        let output = shown + self.reasoning;
        Usage { input, output, reasoning: self.reasoning, total: input + output, ..Usage::default() }
    }
}

/// The sequence that is complete first, and where it begins; of several that end at the same place
/// the longest.
fn first_stop(stops: &[String], text: &str) -> Option<(usize, usize)> {
    let found = stops.iter().enumerate().filter_map(|(index, stop)| Some((index, text.find(stop)?)));
    found.min_by_key(|(index, start)| (start + stops[*index].len(), *start))
}

/// How many bytes at the end of a text may be the beginning of a sequence.
fn held_back(stops: &[String], text: &str) -> usize {
    let beginning = |stop: &String| {
        let longest = text.len().min(stop.len().saturating_sub(1));
        let mut borders = (1..=longest).rev().filter(|border| stop.is_char_boundary(*border));
        borders.find(|border| text.ends_with(&stop[..*border]))
    };
    stops.iter().filter_map(beginning).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cutter(stops: &[&str], limit: Option<u64>) -> Cutter {
        let stops = stops.iter().map(|stop| (*stop).to_owned()).collect();
        Cutter::new(Arc::new(Bounds::new(stops, limit)))
    }

    /// What goes out of these pieces, and why no more does.
    fn run(cutter: &mut Cutter, pieces: &[&str]) -> String {
        let mut out: String = pieces.iter().map(|piece| cutter.text(piece).into_owned()).collect();
        out.push_str(&cutter.release());
        out
    }

    #[test]
    fn a_sequence_is_found_across_pieces_and_nothing_of_it_goes_out() {
        for pieces in [&["one END two"][..], &["one E", "N", "D two"], &["one ", "END", " two"], &["one END"]] {
            let mut cutter = cutter(&["END"], None);
            assert_eq!(run(&mut cutter, pieces), "one ", "{pieces:?}");
            assert_eq!((cutter.cut(), cutter.stop_sequence()), (Some(Cut::Stop(0)), Some("END")));
        }
    }

    #[test]
    fn text_that_only_begins_like_a_sequence_waits_and_then_goes_out() {
        let mut cutter = cutter(&["\n\nHuman:"], None);
        assert_eq!(cutter.text("a\n"), "a");
        assert_eq!(cutter.text("\nHum"), "");
        assert_eq!(cutter.text("ble"), "\n\nHumble");
        assert_eq!(cutter.text("\n\n"), "");
        assert_eq!((cutter.release().as_str(), cutter.cut()), ("\n\n", None));
    }

    #[test]
    fn the_sequence_that_is_complete_first_ends_the_text() {
        let mut short = cutter(&["bcd", "c"], None);
        assert_eq!(run(&mut short, &["abcd"]), "ab");
        assert_eq!(short.stop_sequence(), Some("c"));
        let mut long = cutter(&["c", "bc"], None);
        assert_eq!(run(&mut long, &["ab", "cd"]), "a");
        assert_eq!(long.stop_sequence(), Some("bc"));
        assert_eq!(
            run(&mut cutter(&["aab"], None), &["a", "a", "a", "a", "b"]),
            "aa",
            "it may begin anew inside itself"
        );
    }

    #[test]
    fn a_limit_lets_whole_tokens_out_and_an_answer_just_as_long_is_not_cut() {
        let mut cut = cutter(&[], Some(3));
        assert_eq!(run(&mut cut, &["one two", " three four", " five"]), "one two three");
        assert_eq!(cut.cut(), Some(Cut::Limit));
        assert_eq!(cut.spent(10), Usage { input: 10, output: 3, total: 13, ..Usage::default() });
        let mut whole = cutter(&[], Some(4));
        assert_eq!(run(&mut whole, &["one two", " three four"]), "one two three four");
        assert_eq!(whole.cut(), None);
    }

    #[test]
    fn arguments_count_and_are_not_searched() {
        let mut cutter = cutter(&["END"], Some(8));
        assert_eq!(cutter.counted("{\"a\":\"END"), "{\"a\":\"END");
        assert_eq!(cutter.cut(), None);
        assert!(cutter.counted(" one two three four five six seven\"}").len() < 30);
        assert_eq!((cutter.cut(), cutter.text("more")), (Some(Cut::Limit), Cow::Borrowed("")));
    }

    #[test]
    fn empty_sequences_and_no_bounds_change_nothing() {
        let mut cutter = cutter(&[""], None);
        assert_eq!(run(&mut cutter, &["as", " it is"]), "as it is");
    }

    proptest! {
        #[test]
        fn where_the_pieces_begin_changes_nothing(
            text in "[ab🦀]{0,24}",
            stops in prop::collection::vec("[ab🦀]{1,4}", 0..4),
            cuts in prop::collection::vec(0usize..24, 0..6),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let mut whole = cutter(&stops, None);
            let expected = run(&mut whole, &[&text]);
            let mut borders: Vec<usize> = cuts.iter().map(|cut| text.floor_char_boundary(*cut)).collect();
            borders.extend([0, text.len()]);
            borders.sort_unstable();
            let pieces: Vec<&str> = borders.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let mut cut = cutter(&stops, None);
            prop_assert_eq!(run(&mut cut, &pieces), expected.clone());
            prop_assert_eq!(cut.cut(), whole.cut());
            // Nothing that goes out holds a sequence, and it is a beginning of the text.
            prop_assert!(stops.iter().all(|stop| !expected.contains(stop)));
            prop_assert!(text.starts_with(&expected));
        }
    }
}
