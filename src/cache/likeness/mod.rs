//! [`Likeness`]: which questions are so similar that one's answer may be the other's.
//!
//! Two questions are compared only if all else is the same: model, tenant, options, tools and everything that was said before, which is their
//! frame. Their vectors must lie close to each other, and what [`marks`] finds in them must be the same. Of an answer nothing is kept here:
//! it is looked up among those that are, under the other question's own identity, so what was purged, has expired or belongs to another
//! model is not found. The scan is exact: a frame has few questions, and a thousand take a fraction of a millisecond.

mod config;
mod frames;
mod marks;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use prometheus::IntGauge;

pub use config::{SemanticConfig, SemanticMode};

use super::Which;
use crate::generation::Key;
use crate::telemetry::Metrics;
use frames::Frames;

/// Questions whose answers are kept. It begins with none, switched off.
pub struct Likeness {
    /// Whether the mode is another than off, for those who only ask that.
    is_on: AtomicBool,
    config: RwLock<Arc<SemanticConfig>>,
    frames: Mutex<Frames>,
    entries: IntGauge,
    bytes: IntGauge,
}

/// A question that can be compared.
#[derive(Clone, Debug)]
pub struct Asked {
    /// All that is not the question: the key of the identity of the same request without it.
    pub frame: Key,
    /// The question.
    pub text: Arc<str>,
    marks: Vec<String>,
}

/// Where a question lies.
#[derive(Clone, Debug)]
pub struct Point {
    /// What embeds; points of different models cannot be compared.
    space: Arc<str>,
    /// Of length 1.
    numbers: Arc<[f32]>,
}

/// A question that was answered.
#[derive(Debug)]
pub struct Known {
    asked: Asked,
    point: Point,
    /// The key of its request's identity.
    key: Key,
    model: Arc<str>,
    tenant: Arc<str>,
    created: SystemTime,
    expires: SystemTime,
}

/// A question that is similar.
#[derive(Clone, Debug)]
pub struct Alike {
    /// The other question.
    pub text: Arc<str>,
    /// The cosine of the angle between them.
    pub similarity: f32,
    /// The key of the other request's identity.
    pub key: Key,
}

impl Likeness {
    /// Switched off.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            is_on: AtomicBool::new(false),
            config: RwLock::default(),
            frames: Mutex::default(),
            entries: metrics.cache_entries.with_label_values(&["questions"]),
            bytes: metrics.cache_bytes.with_label_values(&["questions"]),
        }
    }

    /// Goes on under other settings.
    pub fn configure(&self, config: &SemanticConfig) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config.clone());
        let is_on = config.mode != SemanticMode::Off;
        self.is_on.store(is_on, Ordering::Release);
        let budget = if is_on { config.memory } else { 0 };
        self.change(|frames| frames.limit(config.compared, usize::try_from(budget).unwrap_or(usize::MAX)));
    }

    /// Whether questions are compared at all.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// What is in force now.
    pub fn config(&self) -> Arc<SemanticConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The question as it is compared. `None`: its length or its writing does not allow it.
    pub fn read(&self, text: &str) -> Option<Legible> {
        let (config, length) = (self.config(), text.chars().count());
        let is_fit = (config.shortest..=config.longest).contains(&length);
        is_fit.then(|| marks::marks(text)).flatten().map(|marks| Legible { text: text.into(), marks })
    }

    /// The question nearest to `asked` that is near enough, of those answered before `now`.
    pub fn find(&self, asked: &Asked, point: &Point, now: SystemTime) -> Option<Alike> {
        let threshold = self.config().threshold;
        // Shared, so that nobody waits for the comparing.
        let known = self.frames().of(&asked.frame);
        let alike = |known: &Arc<Known>| {
            let similarity = known.is_fit(asked, now).then(|| point.similarity(&known.point))??;
            let text = || Arc::clone(&known.asked.text);
            (f64::from(similarity) >= threshold).then(|| Alike { text: text(), similarity, key: known.key })
        };
        known.iter().filter_map(alike).max_by(|one, other| one.similarity.total_cmp(&other.similarity))
    }

    /// Knows a question from now on, whose answer was kept at `created` and is one until `expires`, of the request with this key.
    pub fn learn(
        &self,
        asked: Asked,
        point: Point,
        key: Key,
        (model, tenant): (&Arc<str>, &Arc<str>),
        (created, expires): (SystemTime, SystemTime),
    ) {
        let (model, tenant) = (Arc::clone(model), Arc::clone(tenant));
        let known = Known { asked, point, key, model, tenant, created, expires };
        self.change(|frames| frames.insert(Arc::new(known), created));
    }

    /// Forgets the question of the request with this key: its answer is gone.
    pub fn forget(&self, frame: &Key, key: Key) {
        self.change(|frames| frames.remove(frame, |known| known.key == key));
    }

    /// Forgets the questions whose answers are purged.
    pub fn purge(&self, which: &Which) {
        self.change(|frames| frames.purge(|known| which.is(|| known.key, &known.model, &known.tenant)));
    }

    fn change(&self, change: impl FnOnce(&mut Frames)) {
        let mut frames = self.frames();
        change(&mut frames);
        let (entries, bytes) = frames.usage();
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.entries.set(count(entries));
        self.bytes.set(count(bytes));
    }

    fn frames(&self) -> MutexGuard<'_, Frames> {
        // A panic between two changes leaves at most a count that is off.
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that was read, in no frame yet.
pub struct Legible {
    text: Arc<str>,
    marks: Vec<String>,
}

impl Legible {
    /// The same in its frame.
    pub fn within(self, frame: Key) -> Asked {
        Asked { frame, text: self.text, marks: self.marks }
    }
}

impl Point {
    /// `None`: the vector has no direction.
    pub fn new(space: Arc<str>, numbers: &[f32]) -> Option<Self> {
        let length = numbers.iter().map(|number| number * number).sum::<f32>().sqrt();
        let numbers = numbers.iter().map(|number| number / length).collect();
        (length.is_finite() && length > 0.0).then_some(Self { space, numbers })
    }

    /// The cosine of the angle between the two, -1 to 1. `None`: they cannot be compared.
    fn similarity(&self, other: &Self) -> Option<f32> {
        if self.space != other.space || self.numbers.len() != other.numbers.len() {
            return None;
        }
        Some(dot(&self.numbers, &other.numbers).clamp(-1.0, 1.0))
    }
}

/// In sums side by side, which a processor adds at once: a frame has a thousand questions, and other streams of the thread must not wait for them.
fn dot(one: &[f32], other: &[f32]) -> f32 {
    const LANES: usize = 8;
    let ((one, last), (other, other_last)) = (one.as_chunks::<LANES>(), other.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (one, other) in one.iter().zip(other) {
        for ((sum, one), other) in sums.iter_mut().zip(one).zip(other) {
            *sum += one * other;
        }
    }
    let last: f32 = last.iter().zip(other_last).map(|(one, other)| one * other).sum();
    sums.iter().sum::<f32>() + last
}

impl Known {
    /// Whether its answer may be that to `asked`. The same question is none: if that had an answer, it would have been found.
    fn is_fit(&self, asked: &Asked, now: SystemTime) -> bool {
        let (one, other) = (self.asked.text.len(), asked.text.len());
        self.asked.marks == asked.marks
            // "Miles to kilometres" is not "kilometres to miles".
            && marks::words(&self.asked.text) != marks::words(&asked.text)
            && one <= 2 * other
            && other <= 2 * one
            && self.created <= now
            && now < self.expires
    }

    /// Bytes that it takes, roughly.
    fn size(&self) -> usize {
        let marks: usize = self.asked.marks.iter().map(|mark| mark.len() + size_of::<String>()).sum();
        size_of::<Self>() + self.asked.text.len() + marks + size_of_val(&*self.point.numbers)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    fn likeness(config: SemanticConfig) -> Likeness {
        let likeness = Likeness::new(&Metrics::new().unwrap());
        let model = Some("e".to_owned());
        likeness.configure(&SemanticConfig { mode: SemanticMode::On, model, ..config });
        likeness
    }

    fn point(angle: f32) -> Point {
        Point::new("e".into(), &[angle.cos() * 3.0, angle.sin() * 3.0]).unwrap()
    }

    fn asked(likeness: &Likeness, frame: u8, text: &str) -> Asked {
        likeness.read(text).unwrap().within(Key::from_bytes([frame; 32]))
    }

    fn learn(likeness: &Likeness, frame: u8, text: &str, angle: f32) {
        let key = Key::from_bytes([text.len() as u8; 32]);
        let times = (START, START + Duration::from_secs(60));
        likeness.learn(asked(likeness, frame, text), point(angle), key, (&"m".into(), &"t".into()), times);
    }

    fn found(likeness: &Likeness, frame: u8, text: &str, angle: f32) -> Option<String> {
        let found = likeness.find(&asked(likeness, frame, text), &point(angle), START)?;
        Some(found.text.to_string())
    }

    #[test]
    fn the_nearest_question_of_the_same_frame_is_found_if_it_is_near_enough() {
        let likeness = likeness(SemanticConfig::default());
        learn(&likeness, 1, "How can it be made?", 0.0);
        learn(&likeness, 1, "How is it made at home?", 0.1);
        let text = "How does one make it?";
        assert_eq!(found(&likeness, 1, text, 0.12).as_deref(), None, "one is a number");
        let text = "How do they make it?";
        assert_eq!(found(&likeness, 1, text, 0.08).as_deref(), Some("How is it made at home?"));
        assert_eq!(found(&likeness, 1, text, -0.1).as_deref(), Some("How can it be made?"));
        assert_eq!(found(&likeness, 1, text, 1.0), None);
        assert_eq!(found(&likeness, 2, text, 0.08), None, "another conversation");
        assert_eq!(found(&likeness, 1, "How do they make 2 of it?", 0.08), None);
        let similarity = likeness.find(&asked(&likeness, 1, text), &point(0.1), START).unwrap().similarity;
        assert!((similarity - 1.0).abs() < 1e-6);
    }

    #[test]
    fn vectors_of_any_length_are_compared_whole() {
        for length in 0..30 {
            let numbers: Vec<f32> = (0..length).map(|at| at as f32).collect();
            let expected: f32 = numbers.iter().map(|number| number * number).sum();
            assert_eq!(dot(&numbers, &numbers), expected);
        }
    }

    #[test]
    fn what_is_gone_or_came_later_is_not_found() {
        let likeness = likeness(SemanticConfig::default());
        learn(&likeness, 1, "How can it be made?", 0.0);
        let asked = asked(&likeness, 1, "How do they make it?");
        let at = |time: SystemTime| likeness.find(&asked, &point(0.0), time).is_some();
        let late = START + Duration::from_secs(59);
        assert!(at(late) && !at(late + Duration::from_secs(1)) && !at(START - Duration::from_secs(1)));
        likeness.forget(&asked.frame, Key::from_bytes([19; 32]));
        assert!(!at(late));
        assert_eq!(likeness.frames().usage(), (0, 0));
    }

    #[test]
    fn another_embedding_model_measures_otherwise() {
        let likeness = likeness(SemanticConfig::default());
        learn(&likeness, 1, "How can it be made?", 0.0);
        let asked = asked(&likeness, 1, "How do they make it?");
        let elsewhere = Point::new("f".into(), &[1.0, 0.0]).unwrap();
        assert!(likeness.find(&asked, &elsewhere, START).is_none());
        assert!(Point::new("e".into(), &[0.0, 0.0]).is_none());
        assert!(Point::new("e".into(), &[f32::NAN, 0.0]).is_none());
    }

    #[test]
    fn questions_too_short_or_too_long_are_not_compared() {
        let likeness = likeness(SemanticConfig { shortest: 5, longest: 9, ..SemanticConfig::default() });
        assert!(likeness.read("four").is_none() && likeness.read("ten letter").is_none());
        assert!(likeness.read("right").is_some() && likeness.read("also ok ä").is_some());
    }

    #[test]
    fn a_purge_forgets_what_it_means() {
        let likeness = likeness(SemanticConfig::default());
        learn(&likeness, 1, "How can it be made?", 0.0);
        let of = |model: &str| Which { model: Some(model.to_owned()), ..Which::default() };
        likeness.purge(&of("other"));
        assert_eq!(likeness.frames().usage().0, 1);
        likeness.purge(&of("m"));
        assert_eq!(likeness.frames().usage(), (0, 0));
    }

    #[test]
    fn switched_off_nothing_is_known_any_more() {
        let likeness = likeness(SemanticConfig::default());
        learn(&likeness, 1, "How can it be made?", 0.0);
        likeness.configure(&SemanticConfig::default());
        assert!(!likeness.is_on());
        assert_eq!(likeness.frames().usage(), (0, 0));
    }
}
