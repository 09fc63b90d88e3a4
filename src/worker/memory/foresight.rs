//! [`Foresight`]: which models are likely to be asked for soon, by the hour of the day and by which one was asked for before. Counts that
//! fade, and nothing beyond them. Pure: the time of day goes in.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Days after which a day counts half: habits of the week before last are old.
const HALF_LIFE: f64 = 7.0;
/// What a use of a model counts after its next one: some twenty are remembered.
const FADE: f64 = 0.95;
/// A model that comes later than this after another does not follow it.
const SOON: Duration = Duration::from_secs(10 * 60);
/// So long before its hour a model is expected: a load has to be over by then.
const AHEAD: Duration = Duration::from_secs(5 * 60);
const DAY: u64 = 24 * HOUR;
const HOUR: u64 = 60 * 60;
/// Models that are remembered; those that were asked for last.
const MODELS: usize = 256;
/// Models that are remembered to follow one; the most frequent.
const FOLLOWERS: usize = 16;

/// The `memory.preload` section: whether models are loaded before anybody asks for them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PreloadConfig {
    /// Off by default: it loads what may not be needed.
    pub enabled: bool,
    /// How probable it has to be that a model is asked for, above 0, at most 1.
    pub threshold: f64,
    /// Models that are in memory at once though nobody has asked for them.
    pub models: usize,
}

impl Default for PreloadConfig {
    fn default() -> Self {
        Self { enabled: false, threshold: 0.6, models: 1 }
    }
}

impl PreloadConfig {
    /// What is wrong, in words.
    pub(super) fn fault(&self) -> Option<&'static str> {
        if !(self.threshold > 0.0 && self.threshold <= 1.0) {
            Some("threshold must be more than 0 and at most 1")
        } else if self.models == 0 {
            Some("models must be at least 1; enabled: false switches it off")
        } else {
            None
        }
    }
}

/// What is known of when models are asked for. Times are since 1970, so hours are those of UTC; which name they have elsewhere does not matter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Foresight {
    /// Days on which anything was asked for.
    days: Days,
    models: BTreeMap<String, Demand>,
    /// The model that was asked for last, and when.
    #[serde(skip)]
    last: Option<(String, Duration)>,
}

/// When one model is asked for, and what comes after it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Demand {
    /// Days on which it was asked for in this hour.
    hours: [Days; 24],
    /// How often it was asked for after others, or first.
    visits: f64,
    /// After how many of those which other came soon.
    followers: BTreeMap<String, f64>,
}

/// A model that is likely to be asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Its name.
    pub model: String,
    /// 0 to 1.
    pub probability: f64,
    /// What speaks for it.
    pub sign: Sign,
}

/// What speaks for a model to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The hour.
    Hour,
    /// This one, which was asked for last.
    After(String),
}

impl Prediction {
    /// What speaks for it, in words.
    pub fn reason(&self) -> String {
        match &self.sign {
            Sign::Hour => "it is asked for at this hour on most days".to_owned(),
            Sign::After(before) => format!("it is asked for after '{before}'"),
        }
    }
}

/// A number of days, each worth half after [`HALF_LIFE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "(f64, u64)", into = "(f64, u64)")]
struct Days {
    count: f64,
    /// The last one; the count is as of then.
    last: u64,
}

impl From<(f64, u64)> for Days {
    fn from((count, last): (f64, u64)) -> Self {
        // The file may say anything.
        Self { count: count.max(0.0), last }
    }
}

impl From<Days> for (f64, u64) {
    fn from(days: Days) -> Self {
        (days.count, days.last)
    }
}

impl Days {
    /// This day is one, too.
    fn mark(&mut self, day: u64) {
        if !self.has(day) {
            *self = Self { count: self.before(day) + 1.0, last: day };
        }
    }

    fn has(&self, day: u64) -> bool {
        self.count > 0.0 && self.last == day
    }

    /// As of `day`, without it.
    fn before(&self, day: u64) -> f64 {
        if self.has(day) {
            return (self.count - 1.0).max(0.0);
        }
        self.count * (-(day.saturating_sub(self.last) as f64) / HALF_LIFE).exp2()
    }
}

impl Foresight {
    /// A model that nobody used is asked for.
    pub fn asked(&mut self, model: &str, at: Duration) {
        let (day, hour) = moment(at);
        self.days.mark(day);
        let before = self.last.replace((model.to_owned(), at));
        let demand = self.models.entry(model.to_owned()).or_default();
        demand.hours[hour].mark(day);
        match before {
            Some((same, _)) if same == model => return,
            Some((other, then)) if is_soon(then, at) => self.follow(&other, model),
            _ => {}
        }
        if let Some(demand) = self.models.get_mut(model) {
            demand.visit();
        }
        self.forget_the_oldest();
    }

    fn follow(&mut self, before: &str, model: &str) {
        let Some(demand) = self.models.get_mut(before) else { return };
        *demand.followers.entry(model.to_owned()).or_default() += 1.0;
        if demand.followers.len() > FOLLOWERS {
            let least = demand.followers.iter().min_by(|a, b| a.1.total_cmp(b.1));
            let least = least.map(|(name, _)| name.clone());
            least.map(|name| demand.followers.remove(&name));
        }
    }

    fn forget_the_oldest(&mut self) {
        if self.models.len() > MODELS {
            let oldest = self.models.iter().min_by_key(|(_, demand)| demand.last_day());
            let oldest = oldest.map(|(name, _)| name.clone());
            oldest.map(|name| self.models.remove(&name));
        }
    }

    /// What is likely to be asked for soon, the most likely first.
    pub fn predictions(&self, at: Duration) -> Vec<Prediction> {
        let mut predictions: Vec<_> =
            self.models.iter().filter_map(|(model, demand)| self.prediction(model, demand, at)).collect();
        predictions.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        predictions
    }

    fn prediction(&self, model: &str, demand: &Demand, at: Duration) -> Option<Prediction> {
        let by_hour = (self.by_hour(demand, at), Sign::Hour);
        let before = self.last.as_ref().filter(|(last, then)| last != model && is_soon(*then, at));
        let after = before.map(|(last, _)| (self.by_last(last, model), Sign::After(last.clone())));
        let (probability, sign) = after.filter(|after| after.0 > by_hour.0).unwrap_or(by_hour);
        (probability > 0.0).then(|| Prediction { model: model.to_owned(), probability, sign })
    }

    /// On what part of the days before it was asked for in this hour, with one more on which it was not: one day makes no habit. What was asked
    /// for in this hour already is not expected by it once more.
    fn by_hour(&self, demand: &Demand, at: Duration) -> f64 {
        let (day, hour) = moment(at.saturating_add(AHEAD));
        let then = &demand.hours[hour];
        if then.has(day) { 0.0 } else { (then.before(day) / (self.days.before(day) + 1.0)).min(1.0) }
    }

    /// After what part of its visits, the one that is on included, `last` was followed by `model`.
    fn by_last(&self, last: &str, model: &str) -> f64 {
        let of = |demand: &Demand| Some(demand.followers.get(model)? / demand.visits.max(1.0));
        self.models.get(last).and_then(of).map_or(0.0, |part| part.min(1.0))
    }
}

impl Demand {
    /// It is asked for after another.
    fn visit(&mut self) {
        self.visits = self.visits * FADE + 1.0;
        self.followers.values_mut().for_each(|count| *count *= FADE);
    }

    fn last_day(&self) -> u64 {
        self.hours.iter().map(|days| days.last).max().unwrap_or(0)
    }
}

/// Whether what is asked for `at` a time follows what was asked for `then`. A clock may have been set back meanwhile.
fn is_soon(then: Duration, at: Duration) -> bool {
    at.checked_sub(then).is_some_and(|passed| passed <= SOON)
}

/// The day, counted from 1970, and the hour of it.
fn moment(at: Duration) -> (u64, usize) {
    let seconds = at.as_secs();
    (seconds / DAY, (seconds % DAY / HOUR) as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(day: u64, hour: u64, minute: u64) -> Duration {
        Duration::from_secs(day * DAY + hour * HOUR + minute * 60)
    }

    /// The most likely one, in percent.
    fn first(foresight: &Foresight, at: Duration) -> Option<(String, u32, Sign)> {
        let first = foresight.predictions(at).into_iter().next()?;
        Some((first.model, (first.probability * 100.0).round() as u32, first.sign))
    }

    #[test]
    fn what_is_asked_for_at_an_hour_day_after_day_is_expected_shortly_before_it() {
        let mut foresight = Foresight::default();
        let mut told = Vec::new();
        for day in 100..105 {
            told.push(first(&foresight, at(day, 8, 55)).map_or(0, |(_, percent, _)| percent));
            foresight.asked("m", at(day, 9, 10));
        }
        assert_eq!(told, [0, 48, 63, 71, 76]);
        assert_eq!(first(&foresight, at(105, 8, 54)), None, "not earlier");
        assert_eq!(first(&foresight, at(105, 9, 30)).unwrap().2, Sign::Hour);
        assert_eq!(first(&foresight, at(105, 9, 55)), None, "not later");
        foresight.asked("m", at(105, 9, 31));
        assert_eq!(first(&foresight, at(105, 9, 50)), None, "it has come");
    }

    #[test]
    fn a_habit_that_ends_is_forgotten() {
        let mut foresight = Foresight::default();
        for day in 100..130 {
            foresight.asked(if day < 115 { "old" } else { "new" }, at(day, 9, 10));
        }
        let expected = foresight.predictions(at(130, 9, 0));
        let of = |name| expected.iter().find(|it| it.model == name).unwrap().probability;
        assert!(of("new") > 0.7 && of("old") < 0.2, "{expected:?}");
    }

    #[test]
    fn what_follows_another_is_expected_for_a_while_after_it() {
        let mut foresight = Foresight::default();
        for round in 0..10 {
            foresight.asked("a", at(1, round, 0));
            foresight.asked("a", at(1, round, 1));
            foresight.asked(if round == 3 { "c" } else { "b" }, at(1, round, 2));
        }
        foresight.asked("a", at(2, 20, 0));
        let (model, percent, sign) = first(&foresight, at(2, 20, 1)).unwrap();
        assert_eq!((model.as_str(), sign), ("b", Sign::After("a".into())));
        assert!((70..90).contains(&percent), "{percent}: the visit that is on is one, too");
        assert_eq!(first(&foresight, at(2, 20, 11)), None);
    }

    #[test]
    fn what_comes_much_later_does_not_follow() {
        let mut foresight = Foresight::default();
        for round in 0..10 {
            foresight.asked("a", at(round, 1, 0));
            foresight.asked("b", at(round, 5, 0));
        }
        foresight.asked("a", at(10, 20, 0));
        assert_eq!(first(&foresight, at(10, 20, 1)), None);
    }

    #[test]
    fn it_survives_being_written_down() {
        let mut foresight = Foresight::default();
        for day in 0..3 {
            foresight.asked("a", at(day, 9, 0));
            foresight.asked("b", at(day, 9, 1));
        }
        let written = serde_json::to_string(&foresight).unwrap();
        let read: Foresight = serde_json::from_str(&written).unwrap();
        let soon = at(3, 9, 0);
        let percents = |foresight: &Foresight| -> Vec<_> {
            foresight
                .predictions(soon)
                .into_iter()
                .map(|it| (it.model, (it.probability * 1e6) as u32))
                .collect()
        };
        let by_hour = percents(&read);
        assert_eq!((by_hour.len(), &by_hour), (2, &percents(&Foresight { last: None, ..foresight })));
        assert_eq!(serde_json::from_str::<Foresight>("{}").unwrap(), Foresight::default());
    }

    #[test]
    fn what_cannot_be_is_named() {
        let fault = |enabled, threshold, models| PreloadConfig { enabled, threshold, models }.fault();
        assert_eq!(PreloadConfig::default().fault(), None);
        for (threshold, models) in [(0.0, 1), (1.1, 1), (f64::NAN, 1), (0.5, 0)] {
            assert!(fault(true, threshold, models).is_some(), "{threshold} {models}");
        }
    }

    proptest! {
        /// Whatever is asked for and whenever, also where the clock is set back: probabilities are probabilities, in order, and what is
        /// remembered is bounded.
        #[test]
        fn probabilities_are_probabilities(asked in proptest::collection::vec((0..400_u32, 0..4_000_000_u64), 0..600), now in 0..4_000_000_u64) {
            let mut foresight = Foresight::default();
            for (model, at) in asked {
                foresight.asked(&format!("m{model}"), Duration::from_secs(at));
            }
            let predictions = foresight.predictions(Duration::from_secs(now));
            prop_assert!(predictions.iter().all(|it| it.probability > 0.0 && it.probability <= 1.0));
            prop_assert!(predictions.is_sorted_by(|a, b| a.probability >= b.probability));
            prop_assert!(foresight.models.len() <= MODELS);
            prop_assert!(foresight.models.values().all(|demand| demand.followers.len() <= FOLLOWERS));
        }
    }
}
