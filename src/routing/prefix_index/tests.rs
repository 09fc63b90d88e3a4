use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn node(number: usize) -> Candidate {
    Candidate::new(format!("n{number}"), 1)
}

fn share(index: &mut PrefixIndex, prefix: &Prefix, node: &Candidate) -> f32 {
    index.look(prefix);
    index.share(0, node)
}

#[test]
fn a_node_has_what_its_prompts_began_with_until_it_is_replaced() {
    let mut index = PrefixIndex::new(0);
    let text = vec![1; 1024];
    let mut other = text.clone();
    other[600] = 2;
    let (prefix, other) = (Prefix::of("m", &text), Prefix::of("m", &other));
    let a = node(0);
    index.learn(&prefix, &a, 256);
    assert_eq!(share(&mut index, &prefix, &a), 1.0);
    assert_eq!(share(&mut index, &other, &a), 0.5);
    assert_eq!(share(&mut index, &other, &node(1)), 0.0);
    let replaced = Candidate { incarnation: 1, ..a };
    assert_eq!(share(&mut index, &prefix, &replaced), 0.0);
}

#[test]
fn a_node_has_thrown_away_what_it_used_before_it_read_all_that_it_keeps() {
    let mut index = PrefixIndex::new(0);
    let [a, b, c] = [1, 2, 3].map(|text| Prefix::of("m", &[text; 256]));
    let keeps = Candidate { keeps: Some(1000), ..node(0) };
    index.learn(&a, &keeps, 400);
    index.learn(&b, &keeps, 400);
    // Used, not read again.
    index.learn(&a, &keeps, 0);
    index.learn(&c, &keeps, 700);
    index.learn(&a, &keeps, 0);
    assert_eq!([&a, &b, &c].map(|prefix| share(&mut index, prefix, &keeps)), [1.0, 1.0, 1.0]);
    index.learn(&c, &keeps, 310);
    assert_eq!([&a, &b, &c].map(|prefix| share(&mut index, prefix, &keeps)), [1.0, 0.0, 1.0]);
}

#[test]
fn all_of_many_nodes_are_known_to_have_what_all_of_them_have() {
    let mut index = PrefixIndex::new(4 << 20);
    let prefix = Prefix::of("m", &[1; 512]);
    for number in 0..300 {
        index.learn(&prefix, &node(number), 256);
        assert!((0..300).all(|other| (share(&mut index, &prefix, &node(other)) == 1.0) == (other <= number)));
    }
}

#[test]
fn a_number_that_is_given_again_brings_nothing_along() {
    let mut index = PrefixIndex::new(8 << 20);
    let prefix = Prefix::of("m", &[1; 256]);
    index.learn(&prefix, &node(0), 256);
    let nothing = Prefix::default();
    (1..=MOST_NODES).for_each(|number| index.learn(&nothing, &node(number), 256));
    assert_eq!(index.nodes.keys.len(), MOST_NODES);
    assert_eq!(share(&mut index, &prefix, &node(MOST_NODES)), 0.0);
    assert_eq!(share(&mut index, &prefix, &node(0)), 0.0);
}

#[test]
fn it_never_takes_more_than_it_may_and_the_latest_is_what_it_keeps() {
    let memory = 1 << 20;
    let mut index = PrefixIndex::new(memory);
    let prompt = |number: u32| Prefix::of("m", &number.to_le_bytes().repeat(512));
    for number in 0..5_000 {
        index.learn(&prompt(number), &node(number as usize % 200), 256);
        index.learn(&prompt(0), &node(number as usize % 200), 256);
        if number % 100 == 0 {
            assert!(index.memory() <= memory as usize, "{}", index.memory());
        }
    }
    assert_eq!(index.entries.len(), index.most + 1, "it was full");
    assert_eq!(share(&mut index, &prompt(4_999), &node(199)), 1.0);
    assert_eq!(share(&mut index, &prompt(0), &node(3)), 1.0);
    assert_eq!(share(&mut index, &prompt(1), &node(1)), 0.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// While nothing has to leave, it says what a list of all prompts would.
    #[test]
    fn it_knows_what_a_list_of_all_prompts_knows(
        sent in prop::collection::vec((prop::collection::vec(0..3_u8, 0..6), 0..12_usize), 1..60),
        asked in prop::collection::vec(0..3_u8, 0..6),
    ) {
        let prefix = |blocks: &[u8]| Prefix::of("m", &blocks.iter().flat_map(|b| [*b; 256]).collect::<Vec<_>>());
        let mut index = PrefixIndex::new(4 << 20);
        let mut reference: HashMap<usize, usize> = HashMap::new();
        for (blocks, at) in &sent {
            index.learn(&prefix(blocks), &node(*at), 256);
            let equal = blocks.iter().zip(&asked).take_while(|(a, b)| a == b).count();
            let best = reference.entry(*at).or_default();
            *best = equal.max(*best);
        }
        let asked = prefix(&asked);
        for at in 0..12 {
            let expected = asked.share(reference.get(&at).copied().unwrap_or_default());
            prop_assert_eq!(share(&mut index, &asked, &node(at)), expected);
        }
    }
}
