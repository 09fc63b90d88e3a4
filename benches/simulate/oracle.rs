//! Somebody who knows what no proxy can: the rates of every node, what it remembers, how far each of its sequences is and how long
//! each will be. It sends every request where its first token will come first, which is what `learned` tries.

use crate::node::{LOAD, Node, READ_RATE};
use crate::traffic::Request;

/// The node with the earliest first token, of those that `may` be asked.
pub fn choose(
    nodes: &[Node],
    request: &Request,
    requests: &[Request],
    may: impl Fn(usize) -> bool,
) -> Option<usize> {
    let times = nodes.iter().enumerate().filter(|(index, _)| may(*index));
    let times = times.map(|(index, node)| (index, ttft(node, request, requests)));
    times.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| index)
}

/// Seconds until the first token, if nothing else comes.
fn ttft(node: &Node, request: &Request, requests: &[Request]) -> f64 {
    let unread_of = |request: &Request| request.tokens * (1.0 - node.cache.share(&request.digest.prefix));
    let ahead: f64 = node.running.iter().map(|sequence| sequence.unread.max(0.0)).sum();
    let waiting: f64 = node.waiting.iter().map(|waiting| unread_of(&requests[*waiting])).sum();
    let step = node.step(node.running.len() as f64);
    let read = ahead + waiting + unread_of(request).max(1.0);
    // Every piece of 512 tokens is read in a step that also generates.
    let reading = read / READ_RATE * node.slowness + (read / 512.0).ceil() * step;
    let load = if node.is_resident { 0.0 } else { LOAD };
    reading + step * steps_to_a_place(node, requests) + load
}

/// Steps until it is this request's turn for a place, with everybody before it.
fn steps_to_a_place(node: &Node, requests: &[Request]) -> f64 {
    let before = (node.running.len() + node.waiting.len() + 1).saturating_sub(node.places);
    if before == 0 {
        return 0.0;
    }
    let mut ends: Vec<f64> = node.running.iter().map(|sequence| f64::from(sequence.left)).collect();
    ends.sort_by(f64::total_cmp);
    for waiting in node.waiting.iter().take(before - 1) {
        // Takes the first place that becomes free.
        let first = ends.remove(0);
        let end = first + f64::from(requests[*waiting].answer);
        ends.insert(ends.partition_point(|other| *other < end), end);
    }
    ends.first().copied().unwrap_or_default()
}
