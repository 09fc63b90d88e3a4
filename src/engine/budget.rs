//! Who of the prompts that are being read gets how much of a step. Pure.

use crate::generation::Priority;
use crate::units::line::Turn;

/// The part of a step that is the oldest prompt's whatever its priority: so that it is read in the end.
const OLDEST: usize = 4;

/// Divides `room` tokens among prompts, given as turn and tokens to read: the most urgent first, then first come first served,
/// a quarter for the oldest. How many each gets, in the order of `prompts`.
pub fn divide(prompts: &[(Turn<Priority>, usize)], mut room: usize) -> Vec<usize> {
    let (mut portions, least) = (vec![0; prompts.len()], room.div_ceil(OLDEST));
    let mut give = |index: usize, most: usize| {
        let portion = (prompts[index].1 - portions[index]).min(most).min(room);
        portions[index] += portion;
        room -= portion;
    };
    let oldest = (0..prompts.len()).min_by_key(|&index| prompts[index].0.age());
    if let Some(oldest) = oldest {
        give(oldest, least);
    }
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_unstable_by_key(|&index| prompts[index].0);
    order.into_iter().for_each(|index| give(index, usize::MAX));
    portions
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::line::Line;

    /// The turns of jobs of these priorities that came one after another.
    fn turns(priorities: &[i64]) -> Vec<Turn<Priority>> {
        let mut line = Line::default();
        priorities.iter().for_each(|&priority| line.push(priority.try_into().unwrap(), ()));
        let mut turns: Vec<_> =
            std::iter::from_fn(|| line.next(|()| ()).map(|(next, ())| next).and_then(|next| line.take(next)))
                .map(|(turn, ())| turn)
                .collect();
        turns.sort_by_key(Turn::age);
        turns
    }

    fn divided(prompts: &[(i64, usize)], room: usize) -> Vec<usize> {
        let priorities: Vec<i64> = prompts.iter().map(|(priority, _)| *priority).collect();
        let tokens = prompts.iter().map(|(_, tokens)| *tokens);
        let prompts: Vec<_> = turns(&priorities).into_iter().zip(tokens).collect();
        divide(&prompts, room)
    }

    #[test]
    fn the_first_prompt_is_read_to_its_end_before_the_next() {
        assert_eq!(divided(&[(0, 60), (0, 60), (0, 60)], 100), [60, 40, 0]);
    }

    #[test]
    fn the_urgent_are_read_first_and_the_oldest_a_little_all_the_same() {
        assert_eq!(divided(&[(0, 500), (-10, 500), (-10, 500)], 100), [25, 75, 0]);
        assert_eq!(divided(&[(0, 10), (-10, 500)], 100), [10, 90]);
    }

    proptest! {
        #[test]
        fn nothing_is_wasted_and_the_oldest_goes_on(
            prompts in prop::collection::vec((-3..3i64, 1..300usize), 1..8),
            room in 1..400usize,
        ) {
            let portions = divided(&prompts, room);
            let wanted: usize = prompts.iter().map(|(_, tokens)| tokens).sum();
            prop_assert_eq!(portions.iter().sum::<usize>(), wanted.min(room));
            prop_assert!(portions.iter().zip(&prompts).all(|(portion, (_, tokens))| portion <= tokens));
            prop_assert!(portions[0] >= prompts[0].1.min(room.div_ceil(OLDEST)));
        }
    }
}
