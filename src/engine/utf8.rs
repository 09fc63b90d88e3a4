//! [`Decoder`]: bytes of tokens to text, whole characters only. Pure state.

/// Turns a stream of bytes, cut anywhere, into whole characters. Bytes that can never be part of a character are dropped:
/// a client must see neither half a character nor a replacement for one (ollama-api.md, section 1.6).
#[derive(Debug, Default)]
pub struct Decoder {
    /// The start of a character, at most three bytes.
    pending: Vec<u8>,
}

impl Decoder {
    /// Takes `bytes` and returns the text that is complete now.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.pending.len());
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    match error.error_len() {
                        Some(broken) => rest = &after[broken..],
                        None => {
                            rest = after;
                            break;
                        }
                    }
                }
            }
        }
        self.pending = rest.to_vec();
        text
    }

    /// Whether the start of a character is being held back.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_character_cut_anywhere_comes_out_whole() {
        let text = "aß€🦙z";
        for cut in 0..=text.len() {
            let mut decoder = Decoder::default();
            let (head, tail) = text.as_bytes().split_at(cut);
            let first = decoder.push(head);
            assert_eq!(decoder.is_pending(), !text.is_char_boundary(cut));
            assert_eq!(first + &decoder.push(tail), text);
        }
    }

    #[test]
    fn bytes_that_are_no_character_are_dropped() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.push(b"a\xff\xfeb\xf0\x9f"), "ab");
        assert_eq!(decoder.push(b"c"), "c");
        assert!(!decoder.is_pending());
    }

    proptest! {
        #[test]
        fn any_text_in_any_pieces_survives(text in "\\PC{0,24}", size in 1usize..5) {
            let mut decoder = Decoder::default();
            let out: String = text.as_bytes().chunks(size).map(|piece| decoder.push(piece)).collect();
            prop_assert_eq!(out, text);
            prop_assert!(!decoder.is_pending());
        }

        #[test]
        fn any_bytes_give_the_same_text_in_any_pieces(bytes in proptest::collection::vec(any::<u8>(), 0..24), size in 1usize..5) {
            let mut whole = Decoder::default();
            let mut cut = Decoder::default();
            let expected = whole.push(&bytes);
            let out: String = bytes.chunks(size).map(|piece| cut.push(piece)).collect();
            prop_assert_eq!(out, expected);
        }
    }
}
