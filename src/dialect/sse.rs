//! Server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>), as far as dialects do not write them themselves.

use std::fmt::{Display, Write as _};

use bytes::BytesMut;

/// `Content-Type` of a stream of events.
pub const EVENT_STREAM: &str = "text/event-stream";

/// Gives the last of the events in `out` an id. Not an event of its own without data: there are clients that read every event as JSON.
pub fn identify(out: &mut BytesMut, id: &impl Display) {
    const END: &[u8] = b"\n\n";
    let Some(before_end) = out.len().checked_sub(END.len()) else { return };
    let from =
        out[..before_end].windows(END.len()).rposition(|bytes| bytes == END).map_or(0, |at| at + END.len());
    let event = out.split_off(from);
    // Writing to memory does not fail.
    let _ = writeln!(out, "id: {id}");
    out.unsplit(event);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identified(text: &str) -> String {
        let mut out = BytesMut::from(text);
        identify(&mut out, &"x.1");
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn the_last_event_gets_the_id() {
        assert_eq!(identified("data: {}\n\n"), "id: x.1\ndata: {}\n\n");
        assert_eq!(identified("data: 1\n\ndata: 2\n\n"), "data: 1\n\nid: x.1\ndata: 2\n\n");
        assert_eq!(identified(""), "");
    }
}
