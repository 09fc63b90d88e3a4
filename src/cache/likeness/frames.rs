//! [`Frames`]: questions by their frames, within a budget. What was used least lately leaves first, a whole frame at a time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use super::Known;
use crate::generation::Key;

/// What a frame takes beside its questions.
const OVERHEAD: usize = 256;

#[derive(Default)]
pub(super) struct Frames {
    frames: HashMap<Key, Frame>,
    /// All questions.
    count: usize,
    /// Frames by when they were used last.
    order: BTreeMap<u64, Key>,
    uses: u64,
    bytes: usize,
    /// The most questions of a frame.
    most: usize,
    budget: usize,
}

struct Frame {
    /// The oldest first.
    known: VecDeque<Arc<Known>>,
    used: u64,
}

impl Frames {
    /// From now on a frame has at most `most` questions, and all of them take at most `budget` bytes.
    pub(super) fn limit(&mut self, most: usize, budget: usize) {
        (self.most, self.budget) = (most, budget);
        let keys: Vec<_> = self.frames.keys().copied().collect();
        keys.iter().for_each(|key| self.shorten(key));
        self.shrink();
    }

    /// The questions of a frame.
    pub(super) fn of(&mut self, key: &Key) -> Vec<Arc<Known>> {
        self.touch(key);
        self.frames.get(key).map(|frame| frame.known.iter().cloned().collect()).unwrap_or_default()
    }

    /// Adds a question, in the place of the same one, and throws away what is over at `now`.
    pub(super) fn insert(&mut self, known: Arc<Known>, now: SystemTime) {
        let key = known.asked.frame;
        self.remove(&key, |other| other.asked.text == known.asked.text || other.expires <= now);
        if !self.frames.contains_key(&key) {
            self.bytes += OVERHEAD;
            self.frames.insert(key, Frame { known: VecDeque::new(), used: 0 });
        }
        self.touch(&key);
        self.bytes += known.size();
        self.count += 1;
        if let Some(frame) = self.frames.get_mut(&key) {
            frame.known.push_back(known);
        }
        self.shorten(&key);
        self.shrink();
    }

    /// Removes those questions of a frame of which `is_meant` is true.
    pub(super) fn remove(&mut self, key: &Key, is_meant: impl Fn(&Known) -> bool) {
        let Some(frame) = self.frames.get_mut(key) else { return };
        let (bytes, count) = (&mut self.bytes, &mut self.count);
        frame.known.retain(|known| {
            let stays = !is_meant(known);
            *bytes -= if stays { 0 } else { known.size() };
            *count -= usize::from(!stays);
            stays
        });
        if frame.known.is_empty() {
            self.drop_frame(key);
        }
    }

    /// The same in all frames.
    pub(super) fn purge(&mut self, is_meant: impl Fn(&Known) -> bool) {
        let keys: Vec<_> = self.frames.keys().copied().collect();
        keys.iter().for_each(|key| self.remove(key, &is_meant));
    }

    /// Questions, and their bytes.
    pub(super) fn usage(&self) -> (usize, usize) {
        (self.count, self.bytes)
    }

    fn touch(&mut self, key: &Key) {
        let Some(frame) = self.frames.get_mut(key) else { return };
        self.uses += 1;
        self.order.remove(&frame.used);
        frame.used = self.uses;
        self.order.insert(self.uses, *key);
    }

    fn shorten(&mut self, key: &Key) {
        let Some(frame) = self.frames.get_mut(key) else { return };
        while frame.known.len() > self.most {
            self.count -= 1;
            self.bytes -= frame.known.pop_front().map_or(0, |known| known.size());
        }
        if frame.known.is_empty() {
            self.drop_frame(key);
        }
    }

    fn shrink(&mut self) {
        while self.bytes > self.budget {
            let Some((_, oldest)) = self.order.first_key_value() else { return };
            let oldest = *oldest;
            match self.frames.get_mut(&oldest) {
                // Of the only one the latest questions stay.
                Some(frame) if self.order.len() == 1 && frame.known.len() > 1 => {
                    self.count -= 1;
                    self.bytes -= frame.known.pop_front().map_or(0, |known| known.size());
                }
                _ => self.drop_frame(&oldest),
            }
        }
    }

    fn drop_frame(&mut self, key: &Key) {
        let Some(frame) = self.frames.remove(key) else { return };
        self.order.remove(&frame.used);
        self.count -= frame.known.len();
        self.bytes -= OVERHEAD + frame.known.iter().map(|known| known.size()).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::{Asked, Point};
    use super::*;

    fn known(frame: u8, text: &str, expires: u64) -> Arc<Known> {
        let frame = Key::from_bytes([frame; 32]);
        let start = SystemTime::UNIX_EPOCH;
        Arc::new(Known {
            asked: Asked { frame, text: text.into(), marks: Vec::new() },
            point: Point::new("e".into(), &[1.0; 4]).unwrap(),
            key: frame,
            model: "m".into(),
            tenant: "t".into(),
            created: start,
            expires: start + Duration::from_secs(expires),
        })
    }

    fn texts(frames: &mut Frames, frame: u8) -> Vec<String> {
        let known = frames.of(&Key::from_bytes([frame; 32]));
        known.iter().map(|known| known.asked.text.to_string()).collect()
    }

    fn frames(most: usize, budget: usize) -> Frames {
        let mut frames = Frames::default();
        frames.limit(most, budget);
        frames
    }

    #[test]
    fn a_frame_keeps_its_latest_questions_once_each_and_none_that_are_over() {
        let (mut frames, start) = (frames(2, 1 << 20), SystemTime::UNIX_EPOCH);
        for text in ["a", "b", "a", "c"] {
            frames.insert(known(1, text, 10), start);
        }
        assert_eq!(texts(&mut frames, 1), ["a", "c"]);
        frames.insert(known(1, "d", 20), start + Duration::from_secs(10));
        assert_eq!(texts(&mut frames, 1), ["d"]);
    }

    #[test]
    fn the_frame_that_was_used_least_lately_leaves_first() {
        let one = OVERHEAD + known(0, "a", 1).size();
        let (mut frames, start) = (frames(9, 2 * one), SystemTime::UNIX_EPOCH);
        frames.insert(known(1, "a", 10), start);
        frames.insert(known(2, "a", 10), start);
        assert_eq!(texts(&mut frames, 1), ["a"]);
        frames.insert(known(3, "a", 10), start);
        assert_eq!(
            [1, 2, 3].map(|frame| texts(&mut frames, frame).len()),
            [1, 0, 1],
            "the first was asked for after the second"
        );
    }

    proptest! {
        #[test]
        fn the_account_is_right_whatever_happens(
            steps in prop::collection::vec((0u8..4, "[a-c]{1,3}", 0u64..6, any::<bool>()), 0..60),
            most in 1usize..4,
        ) {
            let mut frames = frames(most, 1500);
            for (step, (frame, text, expires, removes)) in (0..).zip(steps) {
                if removes {
                    frames.remove(&Key::from_bytes([frame; 32]), |known| *known.asked.text == *text);
                } else {
                    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(step / 10);
                    frames.insert(known(frame, &text, expires + step / 10 + 1), now);
                }
                let held: usize =
                    frames.frames.values().map(|frame| OVERHEAD + frame.known.iter().map(|known| known.size()).sum::<usize>()).sum();
                prop_assert_eq!(frames.bytes, held);
                prop_assert_eq!(frames.count, frames.frames.values().map(|frame| frame.known.len()).sum::<usize>());
                prop_assert!(held <= 1500);
                prop_assert_eq!(frames.order.len(), frames.frames.len());
                prop_assert!(frames.frames.values().all(|frame| !frame.known.is_empty() && frame.known.len() <= most));
            }
            frames.purge(|_| true);
            prop_assert_eq!(frames.usage(), (0, 0));
        }
    }
}
