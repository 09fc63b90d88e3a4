use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A breaker, the time, and what it has told.
struct Bench {
    breaker: Arc<Breaker>,
    now: Instant,
    told: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    fn new(config: BreakerConfig) -> Self {
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&told);
        let listener: Listener =
            Arc::new(move |change| heard.lock().unwrap().push(change.to.as_str().to_owned()));
        let now = Instant::now();
        Self { breaker: Arc::new(Breaker::new(config, listener, now)), now, told }
    }

    fn admit(&self) -> Permit {
        self.breaker.admit(self.now).unwrap_or_else(|shut| panic!("shut: {shut:?}"))
    }

    fn succeed(&self, times: u32) {
        (0..times).for_each(|_| self.admit().succeed(self.now));
    }

    fn fail(&self, times: u32) {
        (0..times).for_each(|_| self.admit().fail("500", self.now));
    }

    fn is_shut(&self) -> bool {
        self.breaker.admit(self.now).is_err()
    }

    fn told(&self) -> String {
        self.told.lock().unwrap().join(" ")
    }
}

#[test]
fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
    let bench = Bench::new(BreakerConfig::default());
    bench.fail(4);
    bench.succeed(1);
    bench.fail(3);
    assert!(!bench.is_shut());
    bench.succeed(20);
    bench.fail(5);
    assert!(bench.is_shut());
    assert_eq!(bench.breaker.report(bench.now).reason, "5 failures in a row, the last one: 500");
    assert_eq!(bench.told(), "open");
}

#[test]
fn half_of_many_requests_failing_open_it_and_of_few_do_not() {
    let bench = Bench::new(BreakerConfig::default());
    for _ in 0..4 {
        bench.succeed(1);
        bench.fail(1);
    }
    assert!(!bench.is_shut(), "eight requests say nothing");
    bench.succeed(1);
    bench.fail(1);
    assert!(bench.is_shut());
}

#[test]
fn failures_of_another_time_are_forgotten() {
    let mut bench = Bench::new(BreakerConfig { consecutive_failures: 1000, ..BreakerConfig::default() });
    bench.fail(9);
    bench.now += 70 * SECOND;
    bench.succeed(6);
    bench.fail(4);
    assert!(!bench.is_shut());
}

#[test]
fn slow_answers_open_it_where_that_is_asked_for() {
    let slow = |slow_call| {
        let bench = Bench::new(BreakerConfig { slow_call, ..BreakerConfig::default() });
        for _ in 0..10 {
            let mut permit = bench.admit();
            permit.answered(2 * SECOND, bench.now);
            permit.succeed(bench.now);
        }
        bench.is_shut()
    };
    assert!(slow(SECOND));
    assert!(!slow(Duration::ZERO) && !slow(3 * SECOND));
}

#[test]
fn one_request_tries_whether_the_node_is_back_and_the_time_doubles_until_it_is() {
    let mut bench = Bench::new(BreakerConfig::default());
    bench.fail(5);
    bench.now += 29 * SECOND;
    assert!(bench.is_shut());
    bench.now += SECOND;
    let trial = bench.admit();
    assert!(bench.is_shut(), "one at a time");
    trial.fail("500", bench.now);
    for seconds in [60, 120, 240, 300, 300] {
        bench.now += (seconds - 1) * SECOND;
        assert!(bench.is_shut(), "{seconds}");
        bench.now += SECOND;
        bench.admit().fail("500", bench.now);
    }
    bench.now += 300 * SECOND;
    bench.succeed(1);
    assert_eq!(bench.breaker.report(bench.now).state, State::Closed);
    assert!(bench.told().ends_with("open half_open closed"), "{}", bench.told());
}

#[test]
fn a_node_that_is_back_gets_little_first() {
    let mut bench = Bench::new(BreakerConfig::default());
    assert_eq!(bench.breaker.share(bench.now), 1.0);
    bench.fail(5);
    bench.now += 30 * SECOND;
    bench.succeed(1);
    let mut last = 0.0;
    for _ in 0..30 {
        let share = bench.breaker.share(bench.now);
        assert!(share > last && share < 1.0, "{share} after {last}");
        (last, bench.now) = (share, bench.now + SECOND);
    }
    assert_eq!(bench.breaker.share(bench.now), 1.0);
}

#[test]
fn who_opens_again_soon_stays_open_longer_and_after_a_quiet_time_it_does_not() {
    let mut bench = Bench::new(BreakerConfig::default());
    let opens_for = |bench: &mut Bench| {
        bench.fail(5);
        let retry_in = bench.breaker.report(bench.now).retry_in.unwrap();
        bench.now += Duration::from_secs_f64(retry_in);
        bench.succeed(1);
        retry_in
    };
    assert_eq!([opens_for(&mut bench), opens_for(&mut bench)], [30.0, 60.0]);
    bench.now += 60 * SECOND;
    bench.succeed(1);
    assert_eq!(opens_for(&mut bench), 30.0);
}

#[test]
fn a_request_that_was_cancelled_says_nothing_and_makes_room_for_another_trial() {
    let mut bench = Bench::new(BreakerConfig::default());
    (0..20).for_each(|_| drop(bench.admit()));
    assert_eq!(bench.breaker.report(bench.now).requests, 0);
    bench.fail(5);
    bench.now += 30 * SECOND;
    drop(bench.admit());
    bench.succeed(1);
    assert!(!bench.is_shut());
}

#[test]
fn the_first_event_of_a_long_answer_says_that_the_node_is_back_and_it_may_still_fail() {
    let mut bench = Bench::new(BreakerConfig { min_requests: 1, ..BreakerConfig::default() });
    bench.fail(1);
    bench.now += 30 * SECOND;
    let mut trial = bench.admit();
    trial.answered(SECOND, bench.now);
    let others = [bench.admit(), bench.admit()];
    assert_eq!(bench.told(), "open half_open closed");
    trial.fail("it broke off", bench.now);
    assert!(bench.is_shut());
    drop(others);
}

#[test]
fn what_was_let_in_before_it_opened_says_nothing_about_after() {
    let mut bench = Bench::new(BreakerConfig::default());
    let (early, late) = (bench.admit(), bench.admit());
    bench.fail(5);
    early.succeed(bench.now);
    assert!(bench.is_shut());
    bench.now += 30 * SECOND;
    let trial = bench.admit();
    late.fail("500", bench.now);
    trial.succeed(bench.now);
    assert!(!bench.is_shut());
}

#[test]
fn a_node_that_asks_to_be_left_alone_is_and_has_not_failed() {
    let mut bench = Bench::new(BreakerConfig::default());
    bench.breaker.rest(7 * SECOND, bench.now);
    assert_eq!(bench.breaker.shut(bench.now), Some(Shut { retry_at: Some(bench.now + 7 * SECOND) }));
    bench.breaker.rest(3600 * SECOND, bench.now);
    bench.now += 300 * SECOND;
    bench.succeed(1);
    assert_eq!(bench.told(), "");
}

#[test]
fn what_a_person_decides_holds_until_it_is_taken_back() {
    let mut bench = Bench::new(BreakerConfig::default());
    bench.breaker.force(Forced::Open, "maintenance", bench.now);
    bench.now += 3600 * SECOND;
    assert_eq!(bench.breaker.shut(bench.now), Some(Shut { retry_at: None }));
    bench.breaker.force(Forced::Closed, "it is fine", bench.now);
    bench.fail(50);
    assert!(!bench.is_shut());
    bench.breaker.reset(bench.now);
    bench.fail(5);
    assert!(bench.is_shut());
    bench.breaker.reset(bench.now);
    bench.succeed(1);
    assert_eq!(bench.told(), "open closed open closed");
}

#[derive(Clone, Debug)]
enum Deed {
    Wait(u64),
    Admit,
    Succeed,
    Fail,
    Drop,
}

proptest! {
    /// Whatever happens, no more requests than `half_open` try at once, and it never stays shut for longer than `open_max`.
    #[test]
    fn it_always_comes_back_and_never_lets_a_crowd_try(
        deeds in prop::collection::vec(prop_oneof![
            (0u64..100).prop_map(Deed::Wait), Just(Deed::Admit), Just(Deed::Admit), Just(Deed::Succeed),
            Just(Deed::Fail), Just(Deed::Fail), Just(Deed::Drop),
        ], 0..200),
        half_open in 1u32..4,
    ) {
        let mut bench = Bench::new(BreakerConfig { half_open, ..BreakerConfig::default() });
        let mut out = Vec::new();
        for deed in deeds {
            match deed {
                Deed::Wait(seconds) => bench.now += Duration::from_secs(seconds),
                Deed::Admit => out.extend(bench.breaker.admit(bench.now).ok()),
                Deed::Succeed => drop(out.pop().map(|permit: Permit| permit.succeed(bench.now))),
                Deed::Fail => drop(out.pop().map(|permit: Permit| permit.fail("x", bench.now))),
                Deed::Drop => drop(out.pop()),
            }
            let era = bench.breaker.lock().era;
            let trials = out.iter().filter(|permit| permit.is_trial && permit.era == era).count();
            if bench.breaker.report(bench.now).state == State::HalfOpen {
                prop_assert!(trials <= half_open as usize);
            }
        }
        out.clear();
        bench.now += 300 * SECOND;
        prop_assert!(!bench.is_shut());
    }
}
