//! [`Node`]s to values: a serde deserializer whose errors know their place, and that finds every mistake of a tree.
//!
//! serde stops at the first mistake. [`decode`] reports it, takes the value out of the tree (or, where a key is missing, what
//! misses it) and reads again, until what is left can be read. Unknown keys are mistakes whether or not a type denies them, so nobody can forget to.

use std::fmt::{self, Display};

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::problem::{Path, Place, Problem, Step, unknown_key};
use super::tree::{Data, Entry, Node};

/// Reads `tree`, which loses the values that are wrong. `None`: not even the rest makes a `T`.
pub fn decode<T: DeserializeOwned>(tree: &mut Node, problems: &mut Vec<Problem>) -> Option<T> {
    loop {
        let fault = match T::deserialize(&*tree) {
            Ok(value) => return Some(value),
            Err(fault) => fault,
        };
        let mut path = Path(fault.steps.into_iter().rev().collect());
        let is_missing = matches!(fault.cause, Cause::Missing);
        let is_consequence = tree.at(&path.0).is_some_and(|node| node.data == Data::Faulty);
        if !is_consequence {
            let place = fault.place.unwrap_or_else(|| tree.place.clone());
            let message = match fault.cause {
                Cause::Value { expected, found } => {
                    format!("expected {expected}, found {}", found.unwrap_or_else(|| tree.describe()))
                }
                Cause::Other(message) => message,
                Cause::Missing => "required, but missing".to_owned(),
            };
            problems.push(Problem { place, path: path.clone(), message });
        }
        if is_missing {
            path.0.pop();
        }
        match tree.at_mut(&path.0) {
            Some(node) if !path.0.is_empty() && node.data != Data::Faulty => node.data = Data::Faulty,
            _ => return None,
        }
    }
}

/// A mistake on its way out of the tree.
#[derive(Debug)]
pub struct Fault {
    /// From the inside out.
    steps: Vec<Step>,
    place: Option<Place>,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    /// Not of the kind or in the range that is expected.
    Value { expected: String, found: Option<String> },
    /// A key that has to be there.
    Missing,
    /// An unknown key, or what a type says in its own words.
    Other(String),
}

impl Fault {
    fn new(cause: Cause) -> Self {
        Self { steps: Vec::new(), place: None, cause }
    }

    fn expected(expected: String) -> Self {
        Self::new(Cause::Value { expected, found: None })
    }

    /// Adds what the value's holder knows: the step to it, its place, and what was found there.
    fn at(mut self, step: Step, key_place: &Place, node: &Node) -> Self {
        if self.place.is_none() {
            let is_missing = matches!(self.cause, Cause::Missing);
            self.place = Some(if is_missing { key_place } else { &node.place }.clone());
            if let Cause::Value { found, .. } = &mut self.cause {
                *found = Some(node.describe());
            }
        }
        self.steps.push(step);
        self
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Value { expected, .. } => write!(f, "expected {expected}"),
            Cause::Other(message) => f.write_str(message),
            Cause::Missing => f.write_str("required, but missing"),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(Cause::Other(message.to_string()))
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::expected(in_words(&expected.to_string()))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::expected(in_words(&expected.to_string()))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::expected(expected.join(" or "))
    }

    fn missing_field(field: &'static str) -> Self {
        let mut fault = Self::new(Cause::Missing);
        fault.steps.push(Step::Key(field.to_owned()));
        fault
    }
}

/// serde's names of Rust types, as the writer of a config file would say them.
fn in_words(expected: &str) -> String {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" | "path string" => "a text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        other => other.to_owned(),
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.data {
            Data::Null | Data::Faulty => visitor.visit_unit(),
            Data::Bool(value) => visitor.visit_bool(*value),
            Data::Integer(value) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(*value),
            },
            Data::Float(value) => visitor.visit_f64(*value),
            Data::Text(text) => visitor.visit_borrowed_str(&text.value),
            Data::List(items) => visitor.visit_seq(Items { items: items.iter().enumerate() }),
            Data::Map(_) => visitor.visit_map(Entries::new(self, false)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if !matches!(self.data, Data::Map(_) | Data::Null) {
            return Err(Fault::expected("a mapping".to_owned()));
        }
        let unknown =
            |entry: &&Entry| entry.value.data != Data::Faulty && !fields.contains(&entry.key.as_str());
        if let Some(entry) = self.entries().iter().find(unknown) {
            let mut fault = Fault::new(Cause::Other(unknown_key(&entry.key, fields)));
            fault.place = Some(entry.place.clone());
            fault.steps.push(Step::Key(entry.key.clone()));
            return Err(fault);
        }
        visitor.visit_map(Entries::new(self, true))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.is_absent() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.data {
            Data::Text(text) => visitor.visit_enum(StrDeserializer::new(&text.value)),
            _ => Err(de::Error::unknown_variant("", variants)),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}

/// The entries of a mapping.
struct Entries<'de> {
    entries: std::slice::Iter<'de, Entry>,
    /// A section's key without a value keeps its default; in a mapping by name it is an entry all the same.
    skip_null: bool,
    value: Option<&'de Entry>,
}

impl<'de> Entries<'de> {
    fn new(node: &'de Node, skip_null: bool) -> Self {
        Self { entries: node.entries().iter(), skip_null, value: None }
    }
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let skip_null = self.skip_null;
        self.value = self.entries.find(|entry| match entry.value.data {
            Data::Null => !skip_null,
            Data::Faulty => false,
            _ => true,
        });
        let Some(entry) = self.value else { return Ok(None) };
        let key: StrDeserializer<'de, Fault> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some(entry) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let step = || Step::Key(entry.key.clone());
        seed.deserialize(&entry.value).map_err(|fault| fault.at(step(), &entry.place, &entry.value))
    }
}

/// The values of a list.
struct Items<'de> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((index, item)) = self.items.find(|(_, item)| item.data != Data::Faulty) else {
            return Ok(None);
        };
        let value =
            seed.deserialize(item).map_err(|fault| fault.at(Step::Index(index), &item.place, item))?;
        Ok(Some(value))
    }
}
