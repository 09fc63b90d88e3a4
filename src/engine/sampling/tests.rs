use proptest::prelude::*;

use super::*;
use crate::generation::Options;

/// Nothing cut, nothing penalised, temperature 1.
fn plain() -> Settings {
    let options = Options {
        temperature: Some(1.0),
        top_k: Some(0),
        top_p: Some(1.0),
        seed: Some(1),
        ..Options::default()
    };
    Settings::new(&options, 4096)
}

fn sample(settings: &Settings, logits: &[f32], position: u64) -> Option<Token> {
    Sampler::default().sample(settings, logits, &[], position, None)
}

/// All tokens that come up over many positions.
fn support(settings: &Settings, logits: &[f32]) -> Vec<Token> {
    let mut seen: Vec<Token> = (0..3000).filter_map(|position| sample(settings, logits, position)).collect();
    seen.sort_unstable();
    seen.dedup();
    seen
}

#[test]
fn the_defaults_are_those_of_ollama() {
    let settings = Settings::new(&Options { seed: Some(3), ..Options::default() }, 4096);
    let expected = Settings {
        temperature: 0.8,
        top_k: 40,
        top_p: 0.9,
        min_p: 0.0,
        typical_p: 1.0,
        repeat_last_n: 64,
        repeat_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        logit_bias: Vec::new(),
        top_n_sigma: 0.0,
        dry: None,
        xtc: None,
        seed: 3,
    };
    assert_eq!(settings, expected);
    let whole = Options { repeat_last_n: Some(-1), top_k: Some(-1), ..Options::default() };
    assert_eq!(Settings::new(&whole, 4096).repeat_last_n, 4096);
    assert_eq!(Settings::new(&whole, 4096).top_k, 0);
}

#[test]
fn temperature_zero_takes_the_likeliest_whatever_the_seed() {
    for seed in 0..20 {
        let settings = Settings { temperature: 0.0, seed, ..plain() };
        assert_eq!(sample(&settings, &[0.1, 2.0, 1.9, f32::NAN, 2.0], seed), Some(1));
    }
}

#[test]
fn the_draw_depends_on_seed_and_position_alone() {
    let logits: Vec<f32> = (0..100).map(|i| (i % 7) as f32).collect();
    let settings = Settings { top_k: 40, top_p: 0.9, ..plain() };
    let first: Vec<_> = (0..50).map(|position| sample(&settings, &logits, position)).collect();
    let again: Vec<_> = (0..50).rev().map(|position| sample(&settings, &logits, position)).collect();
    assert_eq!(first, again.into_iter().rev().collect::<Vec<_>>());
    let other: Vec<_> = (0..50)
        .map(|position| sample(&Settings { seed: 2, ..settings.clone() }, &logits, position))
        .collect();
    assert_ne!(first, other);
}

#[test]
fn draws_follow_the_probabilities() {
    let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
    let mut counts = [0u32; 3];
    for position in 0..10_000 {
        counts[sample(&plain(), &logits, position).unwrap() as usize] += 1;
    }
    for (count, expected) in counts.into_iter().zip([5000, 3000, 2000]) {
        assert!(count.abs_diff(expected) < 250, "{counts:?}");
    }
}

#[test]
fn a_low_temperature_sharpens_and_a_high_one_flattens() {
    let share = |temperature: f32| {
        let settings = Settings { temperature, ..plain() };
        (0..4000).filter(|&position| sample(&settings, &[1.0, 0.0], position) == Some(0)).count()
    };
    assert!(share(0.2) > share(1.0) && share(1.0) > share(5.0));
}

#[test]
fn a_temperature_next_to_zero_takes_the_likeliest() {
    for temperature in [1e-40, f32::MIN_POSITIVE, 1e-10] {
        let settings = Settings { temperature, ..plain() };
        assert_eq!(support(&settings, &[10.0, 20.0, -5.0]), [1], "{temperature}");
        assert_eq!(support(&settings, &[-30.0, -20.0]), [1], "{temperature}");
    }
}

#[test]
fn each_cut_keeps_what_it_should() {
    let logits: Vec<f32> = [0.4f32, 0.3, 0.2, 0.08, 0.02].iter().map(|p| p.ln()).collect();
    assert_eq!(support(&plain(), &logits), [0, 1, 2, 3, 4]);
    assert_eq!(support(&Settings { top_k: 2, ..plain() }, &logits), [0, 1]);
    assert_eq!(support(&Settings { top_p: 0.75, ..plain() }, &logits), [0, 1, 2]);
    assert_eq!(support(&Settings { top_p: 0.0, ..plain() }, &logits), [0]);
    assert_eq!(support(&Settings { min_p: 0.4, ..plain() }, &logits), [0, 1, 2]);
    assert_eq!(support(&Settings { min_p: 2.0, ..plain() }, &logits), [0]);
    // Entropy 1.28 nats; surprises 0.92, 1.20, 1.61, 2.53, 3.91: nearest are 1, then 2, then 0.
    assert_eq!(support(&Settings { typical_p: 0.45, ..plain() }, &logits), [1, 2]);
}

#[test]
fn cuts_apply_in_order_on_what_the_one_before_left() {
    let logits: Vec<f32> = [0.4f32, 0.3, 0.2, 0.1].iter().map(|p| p.ln()).collect();
    // Among the best two, renormalised to 0.57 and 0.43, the first alone reaches 0.5; of all four it would not.
    assert_eq!(support(&Settings { top_k: 2, top_p: 0.5, ..plain() }, &logits), [0]);
    assert_eq!(support(&Settings { top_p: 0.5, ..plain() }, &logits), [0, 1]);
    // Temperature comes last: it does not widen the nucleus.
    assert_eq!(support(&Settings { top_p: 0.5, temperature: 50.0, ..plain() }, &logits), [0, 1]);
}

#[test]
fn penalties_look_at_the_window_alone() {
    let greedy = Settings { temperature: 0.0, repeat_penalty: 2.0, repeat_last_n: 2, ..plain() };
    let next = |settings: &Settings, history: &[Token]| {
        Sampler::default().sample(settings, &[3.0, 2.0, -1.0], history, 0, None)
    };
    assert_eq!(next(&greedy, &[0]), Some(1));
    assert_eq!(next(&greedy, &[0, 2, 2]), Some(0));
    assert_eq!(next(&Settings { repeat_last_n: 0, ..greedy.clone() }, &[0]), Some(0));
    let presence = Settings { repeat_penalty: 1.0, presence_penalty: 1.5, ..greedy.clone() };
    assert_eq!(next(&presence, &[0, 0]), Some(1));
    let frequency = Settings { repeat_penalty: 1.0, frequency_penalty: 0.6, ..greedy };
    assert_eq!(next(&frequency, &[0]), Some(0));
    assert_eq!(next(&frequency, &[0, 0]), Some(1));
}

#[test]
fn a_bias_comes_before_the_penalties_and_can_force_or_forbid() {
    let greedy = |options: Options| {
        let settings = Settings::new(&Options { temperature: Some(0.0), ..options }, 4096);
        Sampler::default().sample(&settings, &[3.0, 2.0, -1.0], &[2], 0, None)
    };
    let bias = |bias: &[(Token, f32)]| Options { logit_bias: Some(bias.to_vec()), ..Options::default() };
    assert_eq!(greedy(bias(&[(0, -100.0)])), Some(1));
    assert_eq!(greedy(bias(&[(2, 100.0)])), Some(2));
    assert_eq!(greedy(bias(&[(99, 100.0)])), Some(0));
    // 5 halved is less than 3; were the penalty first, -2 + 6 would win.
    let penalised = Options { repeat_penalty: Some(2.0), ..bias(&[(2, 6.0)]) };
    assert_eq!(greedy(penalised), Some(0));
}

#[test]
fn xtc_leaves_out_all_but_the_least_likely_of_the_likely() {
    let logits: Vec<f32> = [0.4f32, 0.3, 0.2, 0.08, 0.02].iter().map(|p| p.ln()).collect();
    let xtc = |probability, threshold| {
        let options = Options {
            xtc_probability: Some(probability),
            xtc_threshold: Some(threshold),
            ..Options::default()
        };
        Settings { xtc: Settings::new(&options, 64).xtc, ..plain() }
    };
    assert_eq!(support(&xtc(1.0, 0.1), &logits), [2, 3, 4]);
    assert_eq!(support(&xtc(1.0, 0.25), &logits), [1, 2, 3, 4]);
    assert_eq!(support(&xtc(1.0, 0.35), &logits), [0, 1, 2, 3, 4], "a single likely one stays");
    assert_eq!((xtc(0.0, 0.1).xtc, xtc(1.0, 0.6).xtc), (None, None));
    assert_eq!(sample(&Settings { temperature: 0.0, ..xtc(1.0, 0.1) }, &logits, 0), Some(0));
    // How often it cuts is its probability, and the same at the same places.
    let cuts: Vec<bool> = (0..4000)
        .map(|position| {
            let only_best = Settings { temperature: 1e-10, ..xtc(0.25, 0.1) };
            sample(&only_best, &logits, position) == Some(2)
        })
        .collect();
    assert!(cuts.iter().filter(|&&cut| cut).count().abs_diff(1000) < 140);
}

#[test]
fn top_n_sigma_keeps_what_is_near_the_best() {
    // Mean 0, deviation 2.
    let logits = [4.0, 2.0, 0.0, 0.0, 0.0, -2.0, -2.0, -2.0];
    let sigma = |n| support(&Settings { top_n_sigma: n, ..plain() }, &logits);
    assert_eq!(sigma(0.5), [0]);
    assert_eq!(sigma(1.0), [0, 1]);
    assert_eq!(sigma(2.0), [0, 1, 2, 3, 4]);
    assert_eq!(sigma(-1.0).len(), 8);
    let with_impossible = [4.0, 2.0, 0.0, 0.0, 0.0, -2.0, -2.0, -2.0, f32::NEG_INFINITY];
    assert_eq!(support(&Settings { top_n_sigma: 1.0, ..plain() }, &with_impossible), [0, 1]);
}

#[test]
fn what_is_not_allowed_is_never_sampled() {
    let mut only_two = |logits: &mut [f32]| {
        for (id, logit) in logits.iter_mut().enumerate() {
            if id != 2 {
                *logit = f32::NEG_INFINITY;
            }
        }
    };
    for temperature in [0.0, 1.0] {
        let settings = Settings { temperature, top_k: 40, ..plain() };
        let token = Sampler::default().sample(&settings, &[9.0, 8.0, -5.0], &[], 0, Some(&mut only_two));
        assert_eq!(token, Some(2));
        let mut none = |logits: &mut [f32]| logits.fill(f32::NEG_INFINITY);
        assert_eq!(Sampler::default().sample(&settings, &[9.0, 8.0], &[], 0, Some(&mut none)), None);
    }
}

#[test]
fn log_probabilities_are_those_of_the_whole_distribution() {
    let logits = [1.0 + 0.5f32.ln(), 1.0 + 0.3f32.ln(), 1.0 + 0.2f32.ln(), f32::NEG_INFINITY];
    let distribution = Distribution::new(&logits);
    assert!((distribution.logprob(1) - 0.3f32.ln()).abs() < 1e-5);
    assert_eq!(distribution.logprob(3), -9999.0);
    assert_eq!(distribution.best(2), [0, 1]);
    assert_eq!(distribution.best(9), [0, 1, 2]);
    assert!(distribution.best(0).is_empty());
}

/// The chain as plainly as possible: everything sorted, in doubles.
fn reference(settings: &Settings, logits: &[f32], position: u64) -> Token {
    let mut left: Vec<(Token, f64)> = (0..).zip(logits.iter().map(|&logit| f64::from(logit))).collect();
    left.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let probabilities = |left: &[(Token, f64)]| -> Vec<f64> {
        let sum: f64 = left.iter().map(|(_, logit)| logit.exp()).sum();
        left.iter().map(|(_, logit)| logit.exp() / sum).collect()
    };
    if settings.top_k > 0 {
        left.truncate(settings.top_k);
    }
    let cut = probabilities(&left)
        .iter()
        .scan(0.0, |sum, p| {
            let before = *sum;
            *sum += p;
            Some(before)
        })
        .take_while(|&before| before < f64::from(settings.top_p))
        .count();
    left.truncate(cut.max(1));
    let best = left[0].1;
    left.retain(|(_, logit)| (logit - best).exp() >= f64::from(settings.min_p));
    for (_, logit) in &mut left {
        *logit = (*logit - best) / f64::from(settings.temperature);
    }
    let point = uniform(settings.seed, position);
    let mut sum = 0.0;
    for (p, (token, _)) in probabilities(&left).iter().zip(&left) {
        sum += p;
        if point < sum {
            return *token;
        }
    }
    left[left.len() - 1].0
}

proptest! {
    #[test]
    fn the_fast_chain_agrees_with_the_plain_one(
        seed in any::<u64>(),
        size in 1usize..700,
        top_k in 0usize..60,
        top_p in 0.05f32..0.99,
        min_p in 0.0f32..0.5,
        temperature in prop_oneof![9 => 0.2f32..3.0, 1 => Just(1e-40)],
    ) {
        let logits: Vec<f32> = (0..size).map(|i| (uniform(seed, i as u64) * 12.0 - 6.0) as f32).collect();
        let settings = Settings { temperature, top_k, top_p, min_p, seed, ..plain() };
        // Single and double precision may part where a boundary lies within rounding: that is rare, and never often.
        let apart = (0..20)
            .filter(|&position| sample(&settings, &logits, position) != Some(reference(&settings, &logits, position)))
            .count();
        prop_assert!(apart <= 1, "{} of 20 differ", apart);
    }

    #[test]
    fn the_best_k_are_the_best_k(values in proptest::collection::vec(-5i32..5, 1..400), k in 1usize..50) {
        let logits: Vec<f32> = values.iter().map(|&value| value as f32).collect();
        let mut expected: Vec<Token> = (0..logits.len() as Token).collect();
        expected.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
        expected.truncate(k);
        prop_assert_eq!(Distribution::new(&logits).best(k), expected);
    }
}
