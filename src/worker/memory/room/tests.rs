//! Who comes and who leaves, by the limits.

use std::collections::BTreeMap;

use Standing::{Busy, Fixed, Hushed, Idle, Leaving, Pinned};
use proptest::prelude::*;

use super::*;

fn need(bytes: u64) -> Need {
    Need { private: bytes, ..Need::default() }
}

fn occupant(key: u32, bytes: u64, standing: Standing) -> Occupant<u32> {
    Occupant { key, need: need(bytes), standing, worth: key.into() }
}

fn waits(key: u32, bytes: u64, is_due: bool) -> Waiting<u32> {
    let needs = vec![need(bytes)];
    Waiting { key, needs, before_eviction: 1, is_due, is_pressed: false, is_modest: false }
}

/// The same with rungs below.
fn descends(key: u32, bytes: &[u64], is_due: bool) -> Waiting<u32> {
    Waiting { needs: bytes.iter().map(|bytes| need(*bytes)).collect(), ..waits(key, 0, is_due) }
}

const NONE: Vec<u32> = Vec::new();

/// Ten bytes, of which all are there.
fn limits() -> Limits {
    Limits { count: 9, budget: Some(10), ..Limits::default() }
}

/// Who starts, leaves and is hushed.
fn moves(occupants: &[Occupant<u32>], waiting: &[Waiting<u32>]) -> [Vec<u32>; 3] {
    let Moves { start, evict, hush, refuse } = plan(occupants, waiting, &limits());
    assert_eq!(refuse, []);
    [start.into_iter().map(|(key, _)| key).collect(), evict, hush]
}

#[test]
fn what_fits_comes_and_nobody_leaves() {
    let there = [occupant(1, 6, Idle)];
    assert_eq!(moves(&there, &[waits(9, 4, false)]), [vec![9], NONE, NONE]);
}

#[test]
fn the_least_worth_leave_until_it_will_fit_and_it_comes_when_they_are_gone() {
    let there = [occupant(1, 2, Idle), occupant(2, 4, Idle), occupant(3, 4, Idle)];
    assert_eq!(moves(&there, &[waits(9, 6, false)]), [NONE, vec![1, 2], NONE]);
    let there = [occupant(1, 2, Leaving), occupant(2, 4, Leaving), occupant(3, 4, Idle)];
    assert_eq!(moves(&there, &[waits(9, 6, false)]), [NONE, NONE, NONE]);
    assert_eq!(moves(&[occupant(3, 4, Idle)], &[waits(9, 6, false)]), [vec![9], NONE, NONE]);
}

#[test]
fn nobody_leaves_in_vain_or_without_need() {
    let there = [occupant(1, 3, Idle), occupant(2, 6, Busy)];
    assert_eq!(moves(&there, &[waits(9, 5, false)]), [NONE, NONE, NONE]);
    let there = [occupant(1, 1, Idle), occupant(2, 8, Idle)];
    assert_eq!(moves(&there, &[waits(9, 9, false)]), [NONE, vec![2], NONE], "1 can stay");
}

#[test]
fn those_in_use_are_hushed_for_who_has_waited_long_enough_and_stay_hushed() {
    let there = [occupant(1, 6, Busy), occupant(2, 2, Fixed)];
    assert_eq!(moves(&there, &[waits(9, 5, true)]), [NONE, NONE, vec![1]]);
    let there = [occupant(3, 5, Hushed), occupant(1, 5, Busy)];
    assert_eq!(moves(&there, &[waits(9, 5, true)]), [NONE, NONE, vec![3]]);
    assert_eq!(moves(&there, &[]), [NONE, NONE, NONE], "who waited has left");
}

#[test]
fn who_came_first_is_not_overtaken_by_one_who_needs_its_room() {
    let there = [occupant(1, 6, Busy)];
    let line = [waits(8, 8, false), waits(9, 4, false)];
    assert_eq!(moves(&there, &line), [NONE, NONE, NONE]);
    let line = [waits(8, 6, false), waits(9, 4, false)];
    assert_eq!(moves(&[], &line), [vec![8, 9], NONE, NONE]);
}

#[test]
fn for_what_nobody_asked_for_nobody_leaves() {
    let modest = Waiting { is_modest: true, ..waits(9, 5, false) };
    let line = [modest, waits(8, 4, false)];
    assert_eq!(moves(&[occupant(1, 6, Idle)], &line), [vec![8], NONE, NONE]);
    assert_eq!(moves(&[occupant(1, 1, Idle)], &line), [vec![9, 8], NONE, NONE]);
}

#[test]
fn after_memory_ran_out_all_who_can_go_have_to() {
    let pressed = Waiting { is_pressed: true, ..waits(9, 1, false) };
    let there = [occupant(1, 1, Idle), occupant(2, 1, Busy)];
    assert_eq!(moves(&there, std::slice::from_ref(&pressed)), [NONE, vec![1], NONE]);
    assert_eq!(moves(&there[1..], &[pressed]), [vec![9], NONE, NONE]);
}

#[test]
fn what_can_never_fit_is_told_the_numbers() {
    const GIB: u64 = 1 << 30;
    let there_is = Limits {
        count: 2,
        budget: Some(8 * GIB),
        room: Some(3 * GIB),
        device: Some(GIB),
        ..Limits::default()
    };
    let refused = |occupants: &[Occupant<u32>], waiting: Waiting<u32>| {
        plan(occupants, &[waiting], &there_is).refuse.pop().map(|(_, refusal)| refusal)
    };
    let never = |text: &str| Some(Refusal::Never(text.to_owned()));
    let large = waits(9, 9 * GIB + GIB / 2, false);
    assert_eq!(refused(&[], large), never("it needs 9.5 GiB of memory, and the budget is 8.0 GiB"));
    assert_eq!(
        refused(&[occupant(1, 6 * GIB, Pinned)], waits(9, 3 * GIB, false)),
        never("it needs 3.0 GiB of memory, and the budget is 8.0 GiB, of which pinned models take 6.0 GiB")
    );
    let on_gpu = Waiting { needs: vec![Need { device: 2 * GIB, ..Need::default() }], ..waits(9, 0, false) };
    assert_eq!(refused(&[], on_gpu), never("it needs 2.0 GiB of GPU memory, and the budget is 1.0 GiB"));
    let pinned = [occupant(1, 0, Pinned), occupant(2, 0, Pinned)];
    assert_eq!(refused(&pinned, waits(9, 0, false)), never("every place is taken by a pinned model"));
    assert_eq!(refused(&[], waits(9, 4 * GIB, false)), None, "others may give it back");
    let later = "it needs 4.0 GiB of memory, and other processes leave 3.0 GiB".to_owned();
    assert_eq!(refused(&[], waits(9, 4 * GIB, true)), Some(Refusal::Later(later)));
}

/// On which rung it starts.
fn rung(occupants: &[Occupant<u32>], waiting: Waiting<u32>, limits: &Limits) -> Option<usize> {
    plan(occupants, &[waiting], limits).start.first().map(|(_, rung)| *rung)
}

#[test]
fn what_would_never_fit_comes_on_the_first_rung_that_does() {
    assert_eq!(rung(&[], descends(9, &[14, 11, 9, 5], false), &limits()), Some(2));
    assert_eq!(rung(&[occupant(1, 3, Pinned)], descends(9, &[14, 9, 5], false), &limits()), Some(2));
    let there = [occupant(1, 6, Idle)];
    assert_eq!(moves(&there, &[descends(9, &[14, 9, 4], false)]), [NONE, vec![1], NONE], "9 could fit");
    let refused = plan(&[], &[descends(9, &[14, 11], false)], &limits()).refuse;
    let reason = "it needs 11 B of memory, and the budget is 10 B";
    assert_eq!(refused, [(9, Refusal::Never(reason.to_owned()))], "the least of it is told");
}

#[test]
fn for_the_room_of_others_it_waits_in_full() {
    let there = [occupant(1, 6, Busy)];
    assert_eq!(moves(&there, &[descends(9, &[9, 4], false)]), [NONE, NONE, NONE]);
    assert_eq!(moves(&there, &[descends(9, &[9, 4], true)]), [NONE, NONE, vec![1]]);
}

#[test]
fn rungs_before_eviction_are_tried_before_anybody_leaves() {
    let early = |bytes: &[u64]| Waiting { before_eviction: 2, ..descends(9, bytes, false) };
    let there = [occupant(1, 6, Idle)];
    assert_eq!(rung(&there, early(&[9, 4]), &limits()), Some(1));
    assert_eq!(moves(&there, &[early(&[9, 5])]), [NONE, vec![1], NONE]);
}

#[test]
fn what_other_processes_take_is_waited_for_and_then_done_without() {
    let short = Limits { room: Some(5), ..limits() };
    assert_eq!(rung(&[], descends(9, &[8, 4], false), &short), None);
    assert_eq!(rung(&[], descends(9, &[8, 4], true), &short), Some(1));
    let refused = plan(&[], &[descends(9, &[8, 6], true)], &short).refuse;
    assert!(matches!(&refused[..], [(9, Refusal::Later(reason))] if reason.contains("needs 6 B")));
}

/// On this GPU.
fn on_gpu(gpu: &str, bytes: u64) -> Need {
    let mut need = Need { device: bytes, ..Need::default() };
    need.put(bytes, &gpu.parse().unwrap());
    need
}

#[test]
fn each_gpu_has_its_own_budget_and_what_nobody_knows_has_none() {
    let gpus = BTreeMap::from([(0, 8), (1, 8)]);
    let limits = Limits { count: 9, device: Some(16), gpus, ..Limits::default() };
    let there = [Occupant { need: on_gpu("0", 6), ..occupant(1, 0, Idle) }];
    let comes = |gpu, bytes| Waiting { needs: vec![on_gpu(gpu, bytes)], ..waits(9, 0, false) };
    let moves = |waiting| plan(&there, &[waiting], &limits);
    assert_eq!(moves(comes("1", 6)).start, [(9, 0)], "beside the one on the other GPU");
    assert_eq!(moves(comes("0", 6)).evict, [1], "in its place");
    assert_eq!(moves(comes("0,1", 12)).evict, [1], "half of it would not fit");
    assert_eq!(moves(comes("7", 99)).start, [(9, 0)]);
    let reason = "it needs 9 B of memory of GPU 1, and the budget is 8 B".to_owned();
    assert_eq!(moves(comes("1", 9)).refuse, [(9, Refusal::Never(reason))]);
    let anywhere = Need { device: 11, ..Need::default() };
    let anywhere = Waiting { needs: vec![anywhere], ..waits(9, 0, false) };
    assert_eq!(moves(anywhere).evict, [1], "what may be on all of them counts into all");
}

#[test]
fn a_file_that_several_map_counts_once() {
    let mapped = |bytes| Need { mapped: BTreeMap::from([("/m".into(), 8)]), ..need(bytes) };
    let there = [Occupant { need: mapped(1), ..occupant(1, 0, Busy) }];
    let waiting = [Waiting { needs: vec![mapped(1)], ..waits(9, 0, false) }];
    assert_eq!(moves(&there, &waiting), [vec![9], NONE, NONE]);
}

proptest! {
    #[test]
    fn whatever_is_there_the_limits_hold_and_who_must_stay_stays(
        there in proptest::collection::vec((1..8_u64, 0..6_usize), 0..6), line in proptest::collection::vec((1..14_u64, any::<bool>(), any::<bool>()), 0..4),
    ) {
        let standings = [Leaving, Pinned, Fixed, Idle, Busy, Hushed];
        let there: Vec<_> = (0_u32..).zip(there).map(|(key, (bytes, standing))| occupant(key, bytes, standings[standing])).collect();
        let line: Vec<_> = (100_u32..).zip(line)
            .map(|(key, (bytes, is_due, is_pressed))| Waiting { is_pressed, ..waits(key, bytes, is_due) }).collect();
        let Moves { start, evict, hush, refuse } = plan(&there, &line, &limits());
        let bytes_of = |key: &u32| line.iter().find(|it| it.key == *key).unwrap().needs[0].private;
        let standing = |key: &u32| there[*key as usize].standing;
        if !start.is_empty() {
            let taken = there.iter().map(|it| it.need.private).sum::<u64>() + start.iter().map(|(key, _)| bytes_of(key)).sum::<u64>();
            prop_assert!(taken <= 10);
        }
        prop_assert!(evict.iter().all(|key| standing(key) == Idle));
        prop_assert!(hush.iter().all(|key| matches!(standing(key), Busy | Hushed)));
        prop_assert!(hush.is_empty() || line.iter().any(|it| it.is_due));
        let pinned: u64 = there.iter().filter(|it| it.standing == Pinned).map(|it| it.need.private).sum();
        for waiting in &line {
            prop_assert_eq!(refuse.iter().any(|(key, _)| *key == waiting.key), pinned + waiting.needs[0].private > 10);
        }
        // The first that can come at all and is due waits for nothing but what is on its way out or cannot go.
        if let Some(first) = line.iter().find(|it| it.is_due && pinned + it.needs[0].private <= 10) {
            let is_first = line.iter().find(|it| pinned + it.needs[0].private <= 10).is_some_and(|it| it.key == first.key);
            let goes = |it: &&Occupant<u32>| it.standing == Leaving || evict.contains(&it.key) || hush.contains(&it.key);
            let stays: u64 = there.iter().filter(|it| !goes(it)).map(|it| it.need.private).sum();
            let must: u64 = there.iter().filter(|it| matches!(it.standing, Pinned | Fixed)).map(|it| it.need.private).sum();
            if is_first && must + first.needs[0].private <= 10 {
                prop_assert!(stays + first.needs[0].private <= 10);
            }
        }
    }
}
