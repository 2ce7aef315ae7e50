//! YAML text to a tree of values, each with its place in the file.
//!
//! Whatever the text says, the tree is bounded: in depth, and in what aliases repeat (a "billion laughs" is refused). Only
//! the first document of a text counts, as for the stock client.

use std::borrow::Cow;
use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use crate::error::{Fault, Position};
use crate::scalar;

/// Lists and mappings inside each other.
const MAX_DEPTH: usize = 64;
/// Values in a file, aliases written out: some hundred times those of a great stack.
const MAX_VALUES: usize = 200_000;
/// Bytes of text in a file, aliases written out.
const MAX_BYTES: usize = 8 << 20;

/// A value, and where its entry begins: in a mapping at its key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub at: Position,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Mapping(BTreeMap<String, Node>),
}

/// Reads the first document of a text.
pub(crate) fn parse(text: &str) -> Result<Node, Fault> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        anchors: BTreeMap::new(),
        values_left: MAX_VALUES,
        bytes_left: MAX_BYTES,
    };
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(Node { at: position(&span), value: Value::Null }),
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
            first => return reader.node(first, position(&span), 0),
        }
    }
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    /// What has an anchor, once it has ended.
    anchors: BTreeMap<usize, Node>,
    values_left: usize,
    bytes_left: usize,
}

fn position(span: &Span) -> Position {
    Position { line: span.start.line(), column: span.start.col() + 1 }
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Fault> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let at = Position { line: error.marker().line(), column: error.marker().col() + 1 };
                Err(Fault::at(at, format!("invalid YAML: {}", error.info())))
            }
            None => Err(Fault::nowhere("invalid YAML: the text breaks off")),
        }
    }

    /// Reads the value that `event` begins.
    fn node(&mut self, event: Event<'t>, at: Position, depth: usize) -> Result<Node, Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::at(at, format!("more than {MAX_DEPTH} lists and mappings inside each other")));
        }
        let (anchor, value) = match event {
            Event::Alias(anchor) => {
                let Some(meant) = self.anchors.get(&anchor).cloned() else {
                    return Err(Fault::at(at, "an anchor's value contains itself"));
                };
                self.charge_again(&meant, at)?;
                return Ok(Node { at, ..meant });
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.charge(1, text.len(), at)?;
                (anchor, scalar_value(&text, style, tag.as_ref()))
            }
            Event::SequenceStart(anchor, _) => (anchor, self.list(at, depth)?),
            Event::MappingStart(anchor, _) => (anchor, self.mapping(at, depth)?),
            _ => return Err(Fault::at(at, "invalid YAML: a value was expected")),
        };
        let node = Node { at, value };
        if anchor > 0 {
            self.charge_again(&node, at)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, at: Position, depth: usize) -> Result<Value, Fault> {
        self.charge(1, 0, at)?;
        let mut list = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Value::List(list));
            }
            list.push(self.node(event, position(&span), depth + 1)?);
        }
    }

    fn mapping(&mut self, at: Position, depth: usize) -> Result<Value, Fault> {
        self.charge(1, 0, at)?;
        let mut mapping = BTreeMap::<String, Node>::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let at = position(&span);
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            if event == Event::MappingEnd {
                break;
            }
            let key = match self.node(event, at, depth + 1)?.value {
                Value::Text(text) => text,
                _ => return Err(Fault::at(at, "Non-string key: quote it")),
            };
            let (event, span) = self.next()?;
            let value = self.node(event, position(&span), depth + 1)?;
            if is_merge {
                merged.push(value);
                continue;
            }
            if let Some(former) = mapping.get(&key) {
                let line = former.at.line;
                return Err(Fault::at(at, format!("mapping key {key:?} already defined at line {line}")));
            }
            mapping.insert(key, Node { at, ..value });
        }
        // As YAML 1.1's merge keys: what is written out wins, then what is named first.
        for value in merged {
            self.merge(&mut mapping, value)?;
        }
        Ok(Value::Mapping(mapping))
    }

    fn merge(&mut self, into: &mut BTreeMap<String, Node>, from: Node) -> Result<(), Fault> {
        match from.value {
            Value::Mapping(entries) => {
                for (key, value) in entries {
                    into.entry(key).or_insert(value);
                }
                Ok(())
            }
            Value::List(list) if list.iter().all(|node| matches!(node.value, Value::Mapping(_))) => {
                list.into_iter().try_for_each(|node| self.merge(into, node))
            }
            _ => Err(Fault::at(from.at, "map merge requires map or sequence of maps as the value")),
        }
    }

    fn charge(&mut self, values: usize, bytes: usize, at: Position) -> Result<(), Fault> {
        match (self.values_left.checked_sub(values), self.bytes_left.checked_sub(bytes)) {
            (Some(values), Some(bytes)) => {
                (self.values_left, self.bytes_left) = (values, bytes);
                Ok(())
            }
            _ => Err(Fault::at(
                at,
                format!("more than {MAX_VALUES} values or {MAX_BYTES} bytes, aliases written out"),
            )),
        }
    }

    /// A copy costs what the original did.
    fn charge_again(&mut self, node: &Node, at: Position) -> Result<(), Fault> {
        match &node.value {
            Value::Text(text) => self.charge(1, text.len(), at),
            Value::List(list) => {
                self.charge(1, 0, at)?;
                list.iter().try_for_each(|node| self.charge_again(node, at))
            }
            Value::Mapping(mapping) => {
                self.charge(1, 0, at)?;
                mapping.iter().try_for_each(|(key, node)| {
                    self.charge(1, key.len(), at)?;
                    self.charge_again(node, at)
                })
            }
            Value::Null | Value::Boolean(_) | Value::Integer(_) | Value::Float(_) => self.charge(1, 0, at),
        }
    }
}

/// A tag says what a scalar is; an unknown one that it is text.
fn scalar_value(text: &str, style: ScalarStyle, tag: Option<&Cow<'_, Tag>>) -> Value {
    let resolves = match tag {
        None => style == ScalarStyle::Plain,
        Some(tag) => tag.is_yaml_core_schema() && tag.suffix != "str",
    };
    if resolves { scalar::resolve(text) } else { Value::Text(text.to_owned()) }
}

impl Node {
    /// An entry of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries()?.get(key)
    }

    /// The entries, of a mapping.
    pub fn entries(&self) -> Option<&BTreeMap<String, Node>> {
        match &self.value {
            Value::Mapping(entries) => Some(entries),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
