//! YAML text to [`Node`]s, with every syntax error and duplicate key in its place.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use saphyr::Scalar;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::problem::{Path, Place, Problem};
use super::tree::{Data, Entry, Node, Text};

/// Deeper than any configuration; keeps recursion over the tree off the stack's end.
const MAX_DEPTH: usize = 32;
/// Aliases of aliases can grow a small file without end.
const MAX_NODES: usize = 100_000;

/// Where a text was read from.
#[derive(Clone)]
pub enum Origin {
    /// A file; its name as given.
    File(Arc<str>),
    /// An environment variable, which has no lines.
    Variable(Arc<str>),
}

impl Origin {
    fn at(&self, mark: &Marker) -> Place {
        match self {
            Self::File(file) => {
                Place::Line { file: Arc::clone(file), line: mark.line(), column: mark.col() + 1 }
            }
            Self::Variable(name) => Place::Variable(Arc::clone(name)),
        }
    }

    fn whole(&self) -> Place {
        match self {
            Self::File(file) => Place::File(Arc::clone(file)),
            Self::Variable(name) => Place::Variable(Arc::clone(name)),
        }
    }
}

/// Reads one document; an empty one is nothing. What could be read comes back beside the problems.
pub fn parse(text: &str, origin: Origin) -> (Node, Vec<Problem>) {
    let mut builder = Builder::new(origin);
    for event in Parser::new_from_str(text) {
        let outcome = match event {
            Ok((event, span)) => builder.on(event, &span.start),
            Err(error) => {
                builder.report(error.marker(), error.info().to_owned());
                Err(Stop)
            }
        };
        if outcome.is_err() {
            break;
        }
    }
    builder.finish()
}

/// The value that YAML 1.2's core schema sees in an unquoted `text`.
pub fn plain(text: &str) -> Data {
    resolve(Scalar::parse_from_cow(Cow::Borrowed(text)), text, true)
}

fn resolve(scalar: Scalar<'_>, text: &str, is_plain: bool) -> Data {
    match scalar {
        Scalar::Null => Data::Null,
        Scalar::Boolean(value) => Data::Bool(value),
        Scalar::Integer(value) => Data::Integer(value),
        Scalar::FloatingPoint(value) if value.is_finite() => Data::Float(value.into_inner()),
        Scalar::FloatingPoint(_) | Scalar::String(_) => Data::Text(Text { value: text.to_owned(), is_plain }),
    }
}

/// The rest of the text cannot be understood, and the reason has been reported.
struct Stop;

/// A collection that is being read.
struct Open {
    node: Node,
    anchor: usize,
    key: Option<(String, Place)>,
}

struct Builder {
    origin: Origin,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    nodes: usize,
    problems: Vec<Problem>,
}

impl Builder {
    fn new(origin: Origin) -> Self {
        Self { origin, open: Vec::new(), anchors: HashMap::new(), root: None, nodes: 0, problems: Vec::new() }
    }

    fn on(&mut self, event: Event<'_>, mark: &Marker) -> Result<(), Stop> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                self.report(mark, "a second document starts here, expected one".to_owned());
                Err(Stop)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let node = self.scalar(&text, style, tag.as_ref(), mark);
                self.add(node, anchor, mark)
            }
            Event::SequenceStart(anchor, _) => self.start(Data::List(Vec::new()), anchor, mark),
            Event::MappingStart(anchor, _) => self.start(Data::Map(Vec::new()), anchor, mark),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.add(open.node, open.anchor, mark),
                None => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => self.add(node, 0, mark),
                None => {
                    self.report(mark, "an alias inside the value that it names".to_owned());
                    Err(Stop)
                }
            },
            _ => Ok(()),
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Cow<'_, Tag>>, mark: &Marker) -> Node {
        let data = match Scalar::parse_from_cow_and_metadata(Cow::Borrowed(text), style, tag) {
            Some(scalar) => resolve(scalar, text, style == ScalarStyle::Plain && tag.is_none()),
            None => {
                self.report(mark, format!("{text:?} is not what its tag says"));
                Data::Faulty
            }
        };
        Node::new(self.origin.at(mark), data)
    }

    fn start(&mut self, data: Data, anchor: usize, mark: &Marker) -> Result<(), Stop> {
        if self.open.len() == MAX_DEPTH {
            self.report(mark, format!("nested deeper than {MAX_DEPTH} levels"));
            return Err(Stop);
        }
        self.open.push(Open { node: Node::new(self.origin.at(mark), data), anchor, key: None });
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn add(&mut self, node: Node, anchor: usize, mark: &Marker) -> Result<(), Stop> {
        self.nodes += size(&node);
        if self.nodes > MAX_NODES {
            self.report(mark, format!("more than {MAX_NODES} values, aliases counted each time"));
            return Err(Stop);
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.node.data {
            Data::List(items) => items.push(node),
            Data::Map(entries) => match open.key.take() {
                Some((key, place)) => match entries.iter().find(|entry| entry.key == key) {
                    Some(first) => {
                        let message =
                            format!("the key \"{key}\" is here a second time, first at {}", first.place);
                        self.problems.push(Problem { place, path: Path::default(), message });
                    }
                    None => entries.push(Entry { key, place, value: node }),
                },
                None => match key_text(&node) {
                    Some(key) => open.key = Some((key, node.place)),
                    None => {
                        let message = "a list or mapping as a key, expected a text".to_owned();
                        self.problems.push(Problem { place: node.place, path: Path::default(), message });
                        return Err(Stop);
                    }
                },
            },
            _ => {}
        }
        Ok(())
    }

    fn report(&mut self, mark: &Marker, message: String) {
        self.problems.push(Problem { place: self.origin.at(mark), path: Path::default(), message });
    }

    fn finish(self) -> (Node, Vec<Problem>) {
        let nothing = Node::new(self.origin.whole(), Data::Null);
        (self.root.unwrap_or(nothing), self.problems)
    }
}

fn key_text(node: &Node) -> Option<String> {
    match &node.data {
        Data::Text(text) => Some(text.value.clone()),
        Data::Integer(number) => Some(number.to_string()),
        Data::Float(number) => Some(number.to_string()),
        Data::Bool(value) => Some(value.to_string()),
        Data::Null | Data::Faulty => Some("null".to_owned()),
        Data::List(_) | Data::Map(_) => None,
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.data {
        Data::List(items) => items.iter().map(size).sum(),
        Data::Map(entries) => entries.iter().map(|entry| size(&entry.value)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scalars_follow_the_core_schema_of_yaml_1_2() {
        let text = |value: &str| Data::Text(Text { value: value.to_owned(), is_plain: true });
        for (written, data) in [
            ("", Data::Text(Text { value: String::new(), is_plain: true })),
            ("~", Data::Null),
            ("null", Data::Null),
            ("true", Data::Bool(true)),
            ("yes", text("yes")),
            ("off", text("off")),
            ("0x1F", Data::Integer(31)),
            ("-7", Data::Integer(-7)),
            ("1.5", Data::Float(1.5)),
            ("1e3", Data::Float(1000.0)),
            (".inf", text(".inf")),
            ("1:30", text("1:30")),
        ] {
            assert_eq!(plain(written), data, "{written}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[ab0: \\-\\[\\]{}&*!|>'\"#,?%~\\n\\t\\\\$é]{0,60}") {
            let _ = parse(&text, Origin::Variable("X".into()));
        }
    }
}
