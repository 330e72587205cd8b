//! What a network file says beyond what nodes must agree on: a node may ignore it, so later versions
//! add to it without locking out earlier ones (docs/protocol.md §8.6(8)).

use serde::{Deserialize, Serialize};

use super::NetworkFault;
use crate::limits::OPTIONAL_NAME_LEN_MAX;

/// The table `[optional]` of a network file. This version knows no entry of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Optional(toml::Table);

impl Optional {
    /// The names of its entries, all of which this version ignores.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether the file has none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The table as it is written at the end of a file.
    pub(super) fn to_toml(&self) -> String {
        if self.is_empty() {
            return String::new();
        }
        let mut text = "\n[optional]\n".to_owned();
        for (name, value) in &self.0 {
            text.push_str(name);
            text.push_str(" = ");
            write_value(&mut text, value);
            text.push('\n');
        }
        text
    }

    /// Refuses names that could not be shown as they are.
    pub(super) fn check(self) -> Result<Self, NetworkFault> {
        let is_name_byte =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let is_name = |name: &str| {
            (1..=OPTIONAL_NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(is_name_byte)
        };
        if self.names().all(is_name) {
            Ok(self)
        } else {
            Err(NetworkFault::Optional)
        }
    }
}

/// Appends the one form of a value (§8.6(10)): what an invitation's hash covers must not depend on
/// how a library prints.
fn write_value(text: &mut String, value: &toml::Value) {
    match value {
        toml::Value::String(it) => write_text(text, it),
        toml::Value::Integer(it) => text.push_str(&it.to_string()),
        toml::Value::Float(it) => text.push_str(&float(*it)),
        toml::Value::Boolean(it) => text.push_str(if *it { "true" } else { "false" }),
        toml::Value::Datetime(it) => text.push_str(&it.to_string()),
        toml::Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { ", " });
                write_value(text, item);
            }
            text.push(']');
        }
        toml::Value::Table(entries) if entries.is_empty() => text.push_str("{}"),
        toml::Value::Table(entries) => {
            text.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                text.push_str(if index == 0 { " " } else { ", " });
                write_key(text, key);
                text.push_str(" = ");
                write_value(text, value);
            }
            text.push_str(" }");
        }
    }
}

fn write_key(text: &mut String, key: &str) {
    let is_bare_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !key.is_empty() && key.bytes().all(is_bare_byte) {
        text.push_str(key);
    } else {
        write_text(text, key);
    }
}

fn write_text(text: &mut String, it: &str) {
    text.push('"');
    for c in it.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\0'..='\x1f' | '\x7f' => text.push_str(&format!("\\u{:04X}", u32::from(c))),
            _ => text.push(c),
        }
    }
    text.push('"');
}

fn float(it: f64) -> String {
    if it.is_nan() {
        return "nan".to_owned();
    }
    let shortest = it.to_string(); // never an exponent
    if it.is_infinite() || shortest.contains('.') {
        shortest
    } else {
        shortest + ".0"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entry `a` of a file in which it has this value, as it is written again.
    fn again(value: &str) -> String {
        let optional: Optional = toml::from_str(&format!("a = {value}")).unwrap();
        let text = optional.to_toml();
        let line = text.strip_prefix("\n[optional]\na = ").unwrap();
        let again: Optional = toml::from_str(&format!("a = {line}")).unwrap();
        assert_eq!(again.to_toml(), text, "{value}");
        line.trim_end().to_owned()
    }

    #[test] // §8.6(10)
    fn every_kind_of_value_has_one_form() {
        for (written, form) in [
            ("'a \\ \"b\"'", r#""a \\ \"b\"""#),
            ("\"\"\"two\nlines\\u007f\"\"\"", r#""two\u000Alines\u007F""#),
            ("\"\\u00e9\"", "\"\u{e9}\""),
            ("0x1f", "31"),
            ("-1_000", "-1000"),
            ("1e3", "1000.0"),
            ("-0.0", "-0.0"),
            ("1e-7", "0.0000001"),
            ("1e22", "10000000000000000000000.0"),
            ("-inf", "-inf"),
            ("+nan", "nan"),
            ("true", "true"),
            ("2026-11-27 08:00:00.500z", "2026-11-27T08:00:00.5Z"),
            ("08:00:00.000", "08:00:00.0"),
            ("[ 1, [], 'x', ]", "[1, [], \"x\"]"),
            (
                "{ b = 1, 'c d' = 2, a = {} }",
                "{ a = {}, b = 1, \"c d\" = 2 }",
            ),
        ] {
            assert_eq!(again(written), form);
        }
    }
}
