//! Generates JSON documents, and ways to write them that are well-formed but not canonical.

use proptest::prelude::*;
use serde_json::{Map, Number, Value};

/// A document of bounded size, with text from all of Unicode.
pub(crate) fn document() -> impl Strategy<Value = Value> {
    let text = prop_oneof![any::<String>(), "[a-c\"\\\\/\u{0}-\u{1f}\u{7f}é｡😀]{0,4}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|float| Number::from_f64(float).map_or(Value::Null, Value::Number)),
        text.clone().prop_map(Value::String),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((text.clone(), inner), 0..6)
                .prop_map(|members| Value::Object(Map::from_iter(members))),
        ]
    })
}

/// Writes `value` with the liberties that JSON gives, chosen by `choices`, over and over.
pub(crate) fn written_freely(value: &Value, choices: &[u8]) -> String {
    let mut writer = FreeWriter { choices: choices.iter().copied().cycle(), json: String::new() };
    writer.white_space();
    writer.value(value);
    writer.white_space();
    writer.json
}

struct FreeWriter<I> {
    choices: I,
    json: String,
}

impl<I: Iterator<Item = u8>> FreeWriter<I> {
    fn choice(&mut self, of: usize) -> usize {
        usize::from(self.choices.next().unwrap_or(0)) % of
    }

    fn white_space(&mut self) {
        let space = ["", "", "", " ", "\n\t", "\r "][self.choice(6)];
        self.json.push_str(space);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Array(elements) => self.list('[', ']', elements, Self::value),
            Value::Object(object) => {
                let mut members: Vec<_> = object.iter().collect();
                let shift = self.choice(members.len().max(1));
                members.rotate_left(shift);
                self.list('{', '}', &members, |writer, (name, value)| {
                    writer.string(name);
                    writer.white_space();
                    writer.json.push(':');
                    writer.white_space();
                    writer.value(value);
                });
            }
            Value::String(text) => self.string(text),
            plain => self.json.push_str(&plain.to_string()),
        }
    }

    fn list<T>(&mut self, open: char, close: char, items: &[T], write: fn(&mut Self, &T)) {
        self.json.push(open);
        self.white_space();
        for (position, item) in items.iter().enumerate() {
            if position > 0 {
                self.json.push(',');
                self.white_space();
            }
            write(self, item);
            self.white_space();
        }
        self.json.push(close);
    }

    fn string(&mut self, text: &str) {
        self.json.push('"');
        for character in text.chars() {
            let must_escape = character < ' ' || matches!(character, '"' | '\\');
            if must_escape || self.choice(3) == 0 {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    self.json.push_str(&format!("\\u{unit:04X}"));
                }
            } else {
                self.json.push(character);
            }
        }
        self.json.push('"');
    }
}
