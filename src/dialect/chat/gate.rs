//! Between an answer's pieces and where they go: lets out what the client's stop sequences and
//! output limit allow.

use super::assembly::{Piece, Sink};
use crate::dialect::cut::Cutter;

/// A sink before another one.
pub(super) struct Gate<'a, S> {
    pub(super) cutter: &'a mut Cutter,
    pub(super) sink: &'a mut S,
}

impl<S: Sink> Gate<'_, S> {
    /// Lets out the text that was held back: it does not go on, so it is no stop sequence.
    pub(super) fn release(&mut self) {
        let held = self.cutter.release();
        if !held.is_empty() {
            self.sink.take(Piece::Text(&held));
        }
    }
}

impl<S: Sink> Sink for Gate<'_, S> {
    fn take(&mut self, piece: Piece<'_>) {
        if self.cutter.cut().is_some() {
            return;
        }
        if let Piece::Text(text) = piece {
            let text = self.cutter.text(text);
            if !text.is_empty() {
                self.sink.take(Piece::Text(&text));
            }
            return;
        }
        if !matches!(piece, Piece::Citation { .. }) {
            self.release();
        }
        match piece {
            _ if self.cutter.cut().is_some() => {}
            Piece::Refusal(text) => {
                let text = self.cutter.counted(text);
                self.sink.take(Piece::Refusal(text));
            }
            Piece::Arguments { index, family, text } => {
                let text = self.cutter.counted(text);
                self.sink.take(Piece::Arguments { index, family, text });
            }
            Piece::Encrypted { encrypted, .. } => {
                self.cutter.reasoned(encrypted);
                self.sink.take(piece);
            }
            piece => self.sink.take(piece),
        }
    }
}
