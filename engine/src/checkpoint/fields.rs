//! Checked access to the fields of a JSON configuration: every defect names file, field, expectation and finding.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::CheckpointError;
use super::error::shortened;

/// One JSON object of a configuration file.
pub(super) struct Fields<'a> {
    file: String,
    /// Dotted path of this object, with a trailing dot, or empty.
    path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The file's outermost object.
    pub fn new(file: String, value: &'a Value) -> Result<Self, CheckpointError> {
        match value {
            Value::Object(map) => Ok(Self { file, path: String::new(), map }),
            other => Err(CheckpointError::Field {
                file,
                field: "the file".to_owned(),
                expected: "a JSON object".to_owned(),
                found: brief(other),
            }),
        }
    }

    /// The file, as error texts name it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// A nested object that must be there.
    pub fn object(&self, name: &str) -> Result<Fields<'a>, CheckpointError> {
        match self.map.get(name) {
            Some(Value::Object(map)) => {
                Ok(Fields { file: self.file.clone(), path: format!("{}{name}.", self.path), map })
            }
            other => Err(self.wrong(name, "an object", other)),
        }
    }

    /// The raw value; absent and null are the same.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// A whole number in a range; `default` when absent.
    pub fn integer(&self, name: &str, default: usize, range: RangeInclusive<usize>) -> Result<usize, CheckpointError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            let expected = match *range.end() {
                usize::MAX => format!("a whole number from {} on", range.start()),
                end => format!("a whole number from {} to {end}", range.start()),
            };
            self.wrong(name, &expected, Some(value))
        })
    }

    /// A number in a range; `default` when absent.
    pub fn number(&self, name: &str, default: f64, range: RangeInclusive<f64>) -> Result<f64, CheckpointError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        value.as_f64().filter(|number| range.contains(number)).ok_or_else(|| {
            self.wrong(name, &format!("a number from {} to {}", range.start(), range.end()), Some(value))
        })
    }

    /// true or false; `default` when absent.
    pub fn boolean(&self, name: &str, default: bool) -> Result<bool, CheckpointError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(name, "true or false", Some(value)))
    }

    /// A string; `default` when absent.
    pub fn text(&self, name: &str, default: &'a str) -> Result<&'a str, CheckpointError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        value.as_str().ok_or_else(|| self.wrong(name, "a string", Some(value)))
    }

    /// A non-empty list of numbers.
    pub fn numbers(
        &self,
        name: &str,
        default: &[f64],
        range: RangeInclusive<f64>,
    ) -> Result<Vec<f64>, CheckpointError> {
        let Some(value) = self.get(name) else { return Ok(default.to_vec()) };
        let numbers: Option<Vec<f64>> =
            value.as_array().and_then(|list| list.iter().map(|v| v.as_f64().filter(|n| range.contains(n))).collect());
        numbers.filter(|numbers| !numbers.is_empty()).ok_or_else(|| {
            self.wrong(name, &format!("a list of numbers from {} to {}", range.start(), range.end()), Some(value))
        })
    }

    /// A non-empty list of whole numbers.
    pub fn integers(
        &self,
        name: &str,
        default: &[usize],
        range: RangeInclusive<usize>,
    ) -> Result<Vec<usize>, CheckpointError> {
        let Some(value) = self.get(name) else { return Ok(default.to_vec()) };
        let number = |value: &Value| usize::try_from(value.as_u64()?).ok().filter(|number| range.contains(number));
        let numbers: Option<Vec<usize>> = value.as_array().and_then(|list| list.iter().map(number).collect());
        numbers.filter(|numbers| !numbers.is_empty()).ok_or_else(|| {
            let expected = format!("a list of whole numbers from {} to {}", range.start(), range.end());
            self.wrong(name, &expected, Some(value))
        })
    }

    /// The object's `model_type` must be `expected`.
    pub fn expect_model_type(&self, expected: &'static str) -> Result<(), CheckpointError> {
        let found = self.text("model_type", expected)?;
        if found == expected {
            return Ok(());
        }
        let file = match self.path.trim_end_matches('.') {
            "" => self.file.clone(),
            part => format!("{} ({part})", self.file),
        };
        Err(CheckpointError::WrongArchitecture { file, expected, found: shortened(found) })
    }

    /// A field's value breaks a rule.
    pub fn wrong(&self, name: &str, expected: &str, found: Option<&Value>) -> CheckpointError {
        CheckpointError::Field {
            file: self.file.clone(),
            field: format!("{}{name}", self.path),
            expected: expected.to_owned(),
            found: found.map_or_else(|| "nothing".to_owned(), brief),
        }
    }

    /// A field's value is legal but out of what Tiller plays.
    pub fn unsupported(&self, name: &str, reason: &'static str) -> CheckpointError {
        CheckpointError::Unsupported {
            file: self.file.clone(),
            field: format!("{}{name}", self.path),
            found: self.map.get(name).map_or_else(|| "nothing".to_owned(), brief),
            reason,
        }
    }
}

/// A JSON value in at most 60 characters.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
