//! `origins`: a list, or one text with commas as in `OLLAMA_ORIGINS`.

use super::problem::Place;
use super::tree::{Data, Node};

/// The list that `text` means.
pub fn split(text: &str, place: &Place) -> Data {
    let origins = text.split(',').map(str::trim).filter(|origin| !origin.is_empty());
    Data::List(origins.map(|origin| Node::text(place.clone(), origin)).collect())
}

/// Makes a text under `origins` a list.
pub fn spread(tree: &mut Node) {
    let Some(entry) = tree.entries_mut().iter_mut().find(|entry| entry.key == "origins") else { return };
    let Node { place, data, .. } = &mut entry.value;
    if let Data::Text(text) = data {
        *data = split(&text.value, place);
    }
}
