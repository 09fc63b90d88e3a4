//! Which snapshots leave when there is no more room: those that save the least for the room and time they have taken.

use std::time::Duration;

/// Files of the same minute are equally old: what was saved together leaves by what it is worth.
const GRAIN: Duration = Duration::from_secs(60);

/// A snapshot on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept<T> {
    /// Which.
    pub file: T,
    /// What computing it again would cost, in any unit that all share.
    pub cost: u64,
    /// Its size.
    pub bytes: u64,
    /// Since it was saved or last restored.
    pub age: Duration,
}

/// Those that have to leave so that the rest takes no more than `room` bytes: the lowest cost over size and age first.
pub fn leaving<T>(mut files: Vec<Kept<T>>, room: u64) -> Vec<T> {
    let mut taken: u64 = files.iter().map(|file| file.bytes).sum();
    files.sort_by(|a, b| worth(a).total_cmp(&worth(b)));
    let mut leaving = Vec::new();
    for file in files {
        if taken <= room {
            break;
        }
        taken -= file.bytes;
        leaving.push(file.file);
    }
    leaving
}

fn worth<T>(file: &Kept<T>) -> f64 {
    file.cost as f64 / file.bytes.max(1) as f64 / (file.age + GRAIN).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(file: &'static str, cost: u64, bytes: u64, minutes: u64) -> Kept<&'static str> {
        Kept { file, cost, bytes, age: Duration::from_secs(60 * minutes) }
    }

    #[test]
    fn nothing_leaves_while_there_is_room() {
        assert!(leaving(vec![kept("a", 1, 60, 900), kept("b", 1, 40, 0)], 100).is_empty());
    }

    #[test]
    fn the_oldest_the_largest_and_the_cheapest_leave_first() {
        let equal = |name, minutes| kept(name, 10, 10, minutes);
        assert_eq!(leaving(vec![equal("new", 1), equal("old", 9), equal("older", 20)], 15), ["older", "old"]);
        assert_eq!(leaving(vec![kept("large", 10, 30, 1), kept("small", 10, 10, 1)], 30), ["large"]);
        assert_eq!(leaving(vec![kept("cheap", 10, 10, 1), kept("dear", 90, 10, 1)], 10), ["cheap"]);
    }

    #[test]
    fn with_no_room_at_all_everything_leaves() {
        assert_eq!(leaving(vec![kept("a", 1, 1, 1), kept("b", 2, 1, 1)], 0), ["a", "b"]);
    }
}
