//! A line as an object of JSON: what every line has first, then the fields of the event.

use serde_json::Value;

use super::Known;
use super::line::Line;
use crate::rfc3339::written_time;

/// The line, with its end.
pub(super) fn rendered(line: &Line, known: &Known) -> String {
    let mut members: Vec<(&str, Value)> = vec![
        ("timestamp", written_time(line.at_ms).into()),
        ("level", line.level.as_str().into()),
        ("target", line.target.as_str().into()),
        ("message", line.message.as_str().into()),
    ];
    let identity = [
        ("job", known.job.as_deref().map(Value::from)),
        ("process", known.process.map(Value::from)),
        ("generation", known.generation.map(Value::from)),
    ];
    for (name, value) in identity {
        // An event that says it itself knows better.
        members.extend(value.filter(|_| !line.has(name)).map(|value| (name, value)));
    }
    members.extend(line.fields.iter().cloned());
    let mut text = String::from("{");
    for (name, value) in members {
        if text.len() > 1 {
            text.push(',');
        }
        text += &Value::from(name).to_string();
        text.push(':');
        text += &value.to_string();
    }
    text + "}\n"
}
