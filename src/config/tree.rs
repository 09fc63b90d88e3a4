//! [`Node`]: configuration values that know where they come from, before they mean anything.
//!
//! The file, environment variables and flags each become such a tree; laid over one another they become the one that
//! [`super::decode`] reads.

use super::problem::{Path, Place, Step};

/// A value with its origin.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where the value starts.
    pub place: Place,
    /// The value.
    pub data: Data,
    /// Holds text from `${...}`, which may be a secret: never shown in a message.
    pub is_substituted: bool,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Nothing; the same as an absent key.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other finite number.
    Float(f64),
    /// A text.
    Text(Text),
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order of the file; keys are unique.
    Map(Vec<Entry>),
    /// A value with a problem that has been reported; treated as absent.
    Faulty,
}

/// A text scalar.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    /// Its characters.
    pub value: String,
    /// Written without quotes, so that what `${...}` puts there may become a number or a boolean.
    pub is_plain: bool,
}

/// One key of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key is.
    pub place: Place,
    /// What it has.
    pub value: Node,
}

impl Node {
    /// A value as it stands.
    pub fn new(place: Place, data: Data) -> Self {
        Self { place, data, is_substituted: false }
    }

    /// A text that stays a text.
    pub fn text(place: Place, value: impl Into<String>) -> Self {
        Self::new(place, Data::Text(Text { value: value.into(), is_plain: false }))
    }

    /// A default that is a mapping without keys.
    pub fn empty_map() -> Self {
        Self::new(Place::Builtin, Data::Map(Vec::new()))
    }

    /// A mapping with this value as its only one.
    pub fn under(self, key: &str) -> Self {
        let place = self.place.clone();
        let entry = Entry { key: key.to_owned(), place: place.clone(), value: self };
        Self::new(place, Data::Map(vec![entry]))
    }

    /// Absent as far as its reader is concerned.
    pub fn is_absent(&self) -> bool {
        matches!(self.data, Data::Null | Data::Faulty)
    }

    /// The entries of a mapping; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.data {
            Data::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The same, to change the values.
    pub fn entries_mut(&mut self) -> &mut [Entry] {
        match &mut self.data {
            Data::Map(entries) => entries,
            _ => &mut [],
        }
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The value under `key`, put there as nothing if absent. `None` if this is neither a mapping nor nothing.
    pub fn slot(&mut self, key: &str, place: &Place) -> Option<&mut Self> {
        self.fill(Data::Map(Vec::new()));
        let Data::Map(entries) = &mut self.data else { return None };
        let at = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
            let value = Self::new(place.clone(), Data::Null);
            entries.push(Entry { key: key.to_owned(), place: place.clone(), value });
            entries.len() - 1
        });
        entries.get_mut(at).map(|entry| &mut entry.value)
    }

    /// Puts `value` under `key` in place of what is there; does nothing to what is no mapping.
    pub fn replace(&mut self, key: &str, value: Self) {
        let place = value.place.clone();
        if let Some(slot) = self.slot(key, &place) {
            *slot = value;
        }
    }

    /// Puts `value` under `key` where nothing is yet; does nothing to what is no mapping.
    pub fn put_default(&mut self, key: &str, value: Self) {
        let place = value.place.clone();
        if let Some(slot) = self.slot(key, &place).filter(|slot| slot.data == Data::Null) {
            *slot = value;
        }
    }

    /// Lays `over` on top: mappings are merged key by key, anything else is replaced. Places become those of `over`.
    pub fn overlay(&mut self, over: Self) {
        match over.data {
            Data::Null => {}
            Data::Map(entries) if matches!(self.data, Data::Map(_)) => {
                self.place = over.place;
                for entry in entries {
                    self.lay(entry);
                }
            }
            _ => *self = over,
        }
    }

    fn lay(&mut self, over: Entry) {
        let Data::Map(entries) = &mut self.data else { return };
        match entries.iter_mut().find(|entry| entry.key == over.key) {
            Some(entry) => {
                entry.place = over.place;
                entry.value.overlay(over.value);
            }
            None => entries.push(over),
        }
    }

    /// Gives an absent value this one.
    pub fn fill(&mut self, data: Data) {
        if self.data == Data::Null {
            self.data = data;
        }
    }

    /// Nothing, or a collection without anything in it.
    pub fn is_empty(&self) -> bool {
        match &self.data {
            Data::Null => true,
            Data::List(items) => items.is_empty(),
            Data::Map(entries) => entries.is_empty(),
            _ => false,
        }
    }

    /// A mapping, or nothing yet.
    pub fn is_section(&self) -> bool {
        matches!(self.data, Data::Null | Data::Map(_))
    }

    /// Positions of the items of a list that are not faulty.
    pub fn sound_indices(&self) -> impl Iterator<Item = usize> {
        let items: &[Self] = if let Data::List(items) = &self.data { items } else { &[] };
        items.iter().enumerate().filter(|(_, item)| item.data != Data::Faulty).map(|(index, _)| index)
    }

    /// The value that `path` leads to.
    pub fn at(&self, path: &[Step]) -> Option<&Self> {
        let Some((step, rest)) = path.split_first() else { return Some(self) };
        let child = match (step, &self.data) {
            (Step::Key(key), _) => self.get(key),
            (Step::Index(index), Data::List(items)) => items.get(*index),
            _ => None,
        };
        child?.at(rest)
    }

    /// The same, to change it.
    pub fn at_mut(&mut self, path: &[Step]) -> Option<&mut Self> {
        let Some((step, rest)) = path.split_first() else { return Some(self) };
        let child = match (step, &mut self.data) {
            (Step::Key(key), Data::Map(entries)) => {
                entries.iter_mut().find(|entry| entry.key == *key).map(|entry| &mut entry.value)
            }
            (Step::Index(index), Data::List(items)) => items.get_mut(*index),
            _ => None,
        };
        child?.at_mut(rest)
    }

    /// The place of the value that `path` leads to, or of its nearest ancestor that exists.
    pub fn place_of(&self, path: &Path) -> Place {
        let mut place = &self.place;
        let mut node = self;
        for step in &path.0 {
            match (step, &node.data) {
                (Step::Key(key), Data::Map(entries)) => {
                    let Some(entry) = entries.iter().find(|entry| entry.key == *key) else { break };
                    // A block mapping starts at its first key, but what people look for is the key that holds it.
                    place = if entry.value.is_scalar() { &entry.value.place } else { &entry.place };
                    node = &entry.value;
                }
                (Step::Index(index), Data::List(items)) => {
                    let Some(item) = items.get(*index) else { break };
                    (place, node) = (&item.place, item);
                }
                _ => break,
            }
        }
        place.clone()
    }

    /// The value as a message shows it.
    pub fn describe(&self) -> String {
        match &self.data {
            Data::Null | Data::Faulty => "nothing".to_owned(),
            Data::List(_) => "a list".to_owned(),
            Data::Map(_) => "a mapping".to_owned(),
            // It may be a secret.
            _ if self.is_substituted => "something else behind the ${...}".to_owned(),
            Data::Bool(value) => value.to_string(),
            Data::Integer(value) => value.to_string(),
            Data::Float(value) => value.to_string(),
            Data::Text(text) => format!("{:?}", text.value),
        }
    }

    /// One value, or nothing.
    pub fn is_scalar(&self) -> bool {
        !matches!(self.data, Data::List(_) | Data::Map(_))
    }
}
