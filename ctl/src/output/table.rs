//! Rows into text: aligned, tab-separated or JSON.
//!
//! A row is its JSON object; a column names a field of it and says how a person
//! reads it. So the table and the JSON cannot disagree, and `-o` takes the same
//! names for both.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};
use ublk_target::control::protocol::{ErrorCode, Failure};

use super::{SCHEMA, Style, human};
use crate::Done;
use ublk_target::control::utc;

/// How a field reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As it is.
    Text,
    /// A count, to the right.
    Number,
    /// Bytes, rounded unless exact ones were asked for.
    Bytes,
    /// Milliseconds since the epoch, as UTC.
    Time,
    /// Seconds, as people say them.
    Span,
    /// `message` of a problem.
    Problem,
}

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Field of the JSON object, and name for `-o`.
    pub field: &'static str,
    /// Heading.
    pub heading: &'static str,
    /// How it reads.
    pub kind: Kind,
    /// Shown in a list without `-o`.
    pub listed: bool,
}

/// Something that can be printed as a row.
pub trait Row: Serialize {
    /// What the JSON calls a list of these.
    const NAME: &'static str;
    /// Every column, in order.
    const COLUMNS: &'static [Column];
}

/// A list: one line per item, or a JSON document with an array.
///
/// # Errors
/// [`ErrorCode::Usage`] for an unknown field in `-o`.
pub fn list<T: Row>(items: &[T], style: &Style) -> Done<String> {
    let columns = chosen::<T>(style, |column| column.listed)?;
    let rows = objects(items)?;
    if style.json {
        return Ok(format!("{:#}\n", document::<T>(rows, style)));
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            columns
                .iter()
                .map(|column| cell(row, column, style))
                .collect()
        })
        .collect();
    Ok(lines(&columns, &cells, style))
}

/// Everything about each item: one line per field, a blank line between items.
///
/// # Errors
/// As [`list`].
pub fn show<T: Row>(items: &[T], style: &Style) -> Done<String> {
    let columns = chosen::<T>(style, |_| true)?;
    let rows = objects(items)?;
    if style.json {
        return Ok(format!("{:#}\n", document::<T>(rows, style)));
    }
    let width = columns.iter().map(|c| c.heading.len()).max().unwrap_or(0);
    let one = |row: &Map<String, Value>| {
        let mut text = String::new();
        for column in &columns {
            let value = cell(row, column, style);
            text += &match (style.no_header, style.terminal) {
                (true, _) => format!("{value}\n"),
                (false, true) => format!("{:width$}  {value}\n", column.heading),
                (false, false) => format!("{}\t{value}\n", column.heading),
            };
        }
        text
    };
    Ok(rows.iter().map(one).collect::<Vec<_>>().join("\n"))
}

/// One item as one line of JSON, for streams.
///
/// # Errors
/// As [`list`].
pub fn json_line<T: Row>(item: &T, style: &Style) -> Done<String> {
    chosen::<T>(style, |_| true)?;
    let mut line = Map::new();
    line.insert("schema".to_owned(), json!(SCHEMA));
    for object in objects(std::slice::from_ref(item))? {
        line.extend(narrowed(object, style));
    }
    Ok(format!("{}\n", Value::Object(line)))
}

fn document<T: Row>(rows: Vec<Map<String, Value>>, style: &Style) -> Value {
    let rows: Vec<Value> = rows
        .into_iter()
        .map(|row| Value::Object(narrowed(row, style)))
        .collect();
    json!({ "schema": SCHEMA, T::NAME: rows })
}

fn narrowed(mut row: Map<String, Value>, style: &Style) -> Map<String, Value> {
    if style.fields.is_empty() {
        return row;
    }
    let take = |field: &String| row.remove(field).map(|value| (field.clone(), value));
    style.fields.iter().filter_map(take).collect()
}

fn objects<T: Row>(items: &[T]) -> Done<Vec<Map<String, Value>>> {
    let object = |item: &T| match serde_json::to_value(item) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(Failure::new(
            ErrorCode::Error,
            format!("{other} is not an object"),
        )),
        Err(error) => Err(Failure::new(ErrorCode::Error, error.to_string())),
    };
    items.iter().map(object).collect()
}

fn chosen<T: Row>(style: &Style, default: impl Fn(&Column) -> bool) -> Done<Vec<Column>> {
    if style.fields.is_empty() {
        return Ok(T::COLUMNS
            .iter()
            .copied()
            .filter(|column| default(column))
            .collect());
    }
    let find = |field: &String| {
        T::COLUMNS
            .iter()
            .copied()
            .find(|column| column.field == field)
            .ok_or_else(|| {
                let known: Vec<_> = T::COLUMNS.iter().map(|column| column.field).collect();
                Failure::new(
                    ErrorCode::Usage,
                    format!("there is no field {field:?} here"),
                )
                .next(format!("choose from: {}", known.join(", ")))
            })
    };
    style.fields.iter().map(find).collect()
}

fn cell(row: &Map<String, Value>, column: &Column, style: &Style) -> String {
    let value = row.get(column.field).unwrap_or(&Value::Null);
    let text = match (column.kind, value) {
        (_, Value::Null) => "-".to_owned(),
        (Kind::Problem, problem) => plain(problem.get("message").unwrap_or(problem)),
        (Kind::Bytes, Value::Number(n)) if !style.bytes => {
            n.as_u64().map_or_else(|| n.to_string(), human::size)
        }
        (Kind::Time, Value::Number(n)) => n.as_u64().map_or_else(|| n.to_string(), utc::readable),
        (Kind::Span, Value::Number(n)) => n.as_u64().map_or_else(
            || n.to_string(),
            |seconds| utc::about(Duration::from_secs(seconds)),
        ),
        (_, value) => plain(value),
    };
    // A path or a message may hold anything; it must not break the table or
    // command the terminal.
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Object(fields) => {
            let pair = |(name, value): (&String, &Value)| format!("{name} {}", plain(value));
            fields.iter().map(pair).collect::<Vec<_>>().join(", ")
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            items.join(" ")
        }
        other => other.to_string(),
    }
}

fn lines(columns: &[Column], cells: &[Vec<String>], style: &Style) -> String {
    let headings: Vec<String> = columns.iter().map(|c| c.heading.to_owned()).collect();
    let mut text = String::new();
    let header = (!style.no_header).then_some(&headings);
    if !style.terminal {
        for row in header.into_iter().chain(cells) {
            text += &row.join("\t");
            text.push('\n');
        }
        return text;
    }
    let width_of = |at: usize| {
        let cells = header
            .into_iter()
            .chain(cells)
            .filter_map(|row| row.get(at));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width_of).collect();
    if let Some(header) = header {
        text += &format!("\x1b[1m{}\x1b[0m\n", aligned(columns, &widths, header));
    }
    for row in cells {
        text += &aligned(columns, &widths, row);
        text.push('\n');
    }
    text
}

fn aligned(columns: &[Column], widths: &[usize], row: &[String]) -> String {
    let mut line = String::new();
    for ((column, &width), cell) in columns.iter().zip(widths).zip(row) {
        line += &match column.kind {
            Kind::Number | Kind::Bytes => format!("{cell:>width$}  "),
            _ => format!("{cell:<width$}  "),
        };
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use ublk_target::control::views::{
        AgreedView, EventView, FeatureView, FeaturesView, FrontendName, Level, PolicyName, Problem,
        SnapshotStateName, SnapshotView, StatusView, VolumeState, VolumeView, WaitingView,
        ZeroCopyName,
    };

    use super::*;

    fn snapshot(name: &str, exclusive_bytes: u64) -> SnapshotView {
        SnapshotView {
            volume: "web".into(),
            name: name.into(),
            tag: 7,
            created_ms: 1_795_212_903_123,
            size: 1 << 30,
            exclusive_bytes,
            shared_bytes: 1 << 20,
            priority: -1,
            state: SnapshotStateName::Live,
            dropped: None,
            mapped: true,
            held: false,
            device: Some("/dev/ublkb3".into()),
            link: Some(format!("/dev/csnap/web@{name}")),
            agreed: Some(AgreedView {
                zero_copy: ZeroCopyName::Off,
                queues: 2,
                depth: 128,
                max_io_bytes: 1 << 20,
                per_io_daemons: true,
                features: vec!["user-recovery".into(), "quiesce".into()],
            }),
            export: Some(format!("web@{name}")),
            clients: 2,
            uses: 3,
        }
    }

    fn volume() -> VolumeView {
        VolumeView {
            name: "web".into(),
            state: VolumeState::Served,
            size: 4096,
            snapshots: 1,
            held_bytes: 1 << 20,
            origin: "/dev/\x1b[31m\tsda".into(),
            store: "/dev/sdb".into(),
            policy: PolicyName::SnapshotFirst,
            full_wait_s: 60,
            device: None,
            link: None,
            agreed: None,
            clients: 0,
            uses: 0,
            created_ms: 0,
            uuid: "u".into(),
            problem: None,
        }
    }

    fn style(fields: &[&str]) -> Style {
        Style {
            fields: fields.iter().map(|&f| f.to_owned()).collect(),
            ..Style::default()
        }
    }

    #[test]
    fn a_pipe_gets_tab_separated_columns() {
        let rows = [snapshot("monday", 16384), snapshot("b", 0)];
        assert_eq!(
            list(&rows, &Style::default()).unwrap(),
            "VOLUME\tNAME\tTAKEN (UTC)\tSIZE\tONLY HERE\tSHARED\tPRIORITY\tSTATE\tHELD\tMAPPED\tUSES\tDEVICE\n\
             web\tmonday\t2026-11-20 22:15:03\t1.00 GiB\t16.0 KiB\t1.00 MiB\t-1\tlive\tno\tyes\t3\t/dev/ublkb3\n\
             web\tb\t2026-11-20 22:15:03\t1.00 GiB\t0 B\t1.00 MiB\t-1\tlive\tno\tyes\t3\t/dev/ublkb3\n"
        );
    }

    #[test]
    fn a_terminal_gets_aligned_columns_with_numbers_to_the_right() {
        let rows = [snapshot("monday", 16384), snapshot("b", 0)];
        let style = Style {
            terminal: true,
            ..style(&["name", "exclusive_bytes", "export"])
        };
        assert_eq!(
            list(&rows, &style).unwrap(),
            "\x1b[1mNAME    ONLY HERE  EXPORT\x1b[0m\n\
             monday   16.0 KiB  web@monday\n\
             b             0 B  web@b\n"
        );
    }

    #[test]
    fn options_choose_fields_bytes_and_header() {
        let style = Style {
            bytes: true,
            no_header: true,
            ..style(&["size", "name"])
        };
        assert_eq!(
            list(&[snapshot("a", 0)], &style).unwrap(),
            "1073741824\ta\n"
        );
        let failure = list(&[snapshot("a", 0)], &self::style(&["nam"])).unwrap_err();
        assert_eq!(failure.code, ErrorCode::Usage);
        assert!(failure.next.unwrap().contains("exclusive_bytes"));
    }

    #[test]
    fn json_has_a_schema_and_the_same_fields() {
        let style = Style {
            json: true,
            ..style(&["name", "exclusive_bytes"])
        };
        let text = list(&[snapshot("a", 5)], &style).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let expected = json!({"schema": 1, "snapshots": [{"name": "a", "exclusive_bytes": 5}]});
        assert_eq!(value, expected);
        let empty = list::<SnapshotView>(
            &[],
            &Style {
                json: true,
                ..Style::default()
            },
        )
        .unwrap();
        let value: Value = serde_json::from_str(&empty).unwrap();
        assert_eq!(value, json!({"schema": 1, "snapshots": []}));
    }

    #[test]
    fn showing_prints_every_field_and_control_characters_are_defused() {
        let text = show(&[volume()], &Style::default()).unwrap();
        assert!(text.contains("ORIGIN\t/dev/?[31m?sda\n"), "{text:?}");
        assert_eq!(text.lines().count(), VolumeView::COLUMNS.len());
        let text = show(&[snapshot("a", 0)], &Style::default()).unwrap();
        let agreed = "AGREED\tdepth 128, features user-recovery quiesce, max_io_bytes 1048576, \
                      per_io_daemons yes, queues 2, zero_copy off\n";
        assert!(text.contains(agreed), "{text:?}");
    }

    #[test]
    fn a_stream_is_one_line_of_json_an_event() {
        let event = EventView {
            seq: 3,
            time_ms: 0,
            level: Level::Error,
            kind: "snapshot-dropped".into(),
            store: None,
            volume: Some("web".into()),
            snapshot: None,
            message: "a\nb".into(),
        };
        let line = json_line(&event, &style(&["seq", "message"])).unwrap();
        assert_eq!(line, "{\"message\":\"a\\nb\",\"schema\":1,\"seq\":3}\n");
    }

    fn columns_are_fields<T: Row>(item: &T) {
        let object = objects(std::slice::from_ref(item)).unwrap().remove(0);
        let mut fields: Vec<_> = object.keys().map(String::as_str).collect();
        let mut columns: Vec<_> = T::COLUMNS.iter().map(|column| column.field).collect();
        fields.sort_unstable();
        columns.sort_unstable();
        assert_eq!(fields, columns, "{} and its JSON differ", T::NAME);
    }

    #[test]
    fn every_field_is_a_column_and_the_other_way_round() {
        columns_are_fields(&snapshot("a", 0));
        columns_are_fields(&volume());
        columns_are_fields(&StatusView {
            version: String::new(),
            pid: 0,
            started_ms: 0,
            threads: 0,
            protections: None,
            frontend: FrontendName::Both,
            frontend_why: String::new(),
            ublk_features: Vec::new(),
            nbd_socket: String::new(),
            stores: Vec::new(),
            volumes_served: 0,
            volumes_not_served: 0,
            mapped: 0,
            devices: 0,
            waiting: Vec::new(),
            clients: 0,
            newest_event: 0,
        });
        let problem = Problem {
            message: String::new(),
            next: String::new(),
        };
        columns_are_fields(&WaitingView {
            device: None,
            name: String::new(),
            store: String::new(),
            problem,
        });
        let feature = FeatureView {
            name: String::new(),
            since: String::new(),
            offered: true,
            used: true,
            consequence: None,
        };
        columns_are_fields(&feature);
        columns_are_fields(&FeaturesView {
            kernel: String::new(),
            asked: String::new(),
            frontend: FrontendName::Ublk,
            frontend_why: String::new(),
            driver: true,
            problem: None,
            features: vec![feature],
        });
    }
}
