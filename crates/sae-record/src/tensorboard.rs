//! Event files of TensorBoard, which Weights & Biases takes, too (`wandb sync`).
//!
//! A file is a sequence of records: the length of a message, a checksum of that, the message (protocol buffers: `Event` of
//! `tensorflow/core/util/event.proto`, `Summary` and `HistogramProto` of `framework/summary.proto`), and a checksum of that. No library
//! that writes them is kept up; the few fields that are needed are encoded here.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::RecordError;

/// What is logged of a step under a name.
#[derive(Debug, Clone, PartialEq)]
pub enum Logged {
    /// A number.
    Scalar(f64),
    /// Counts of values in bins.
    Histogram {
        /// The ends of the bins: one more than bins.
        edges: Vec<f64>,
        /// Values in each bin.
        counts: Vec<f64>,
    },
}

/// An open event file.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Begins a file anew.
    pub fn create(path: &Path) -> Result<Self, RecordError> {
        let file = File::create(path).map_err(RecordError::file("create", path))?;
        let mut events = Self { path: path.to_owned(), file };
        let mut event = Message::at(now());
        event.text(3, "brain.Event:2");
        events.record(&event.0)?;
        Ok(events)
    }

    /// Writes what is logged of a step.
    pub fn write(&mut self, step: u64, values: &[(String, Logged)]) -> Result<(), RecordError> {
        let mut summary = Message::default();
        for (tag, value) in values {
            let mut own = Message::default();
            own.text(1, tag);
            match value {
                Logged::Scalar(value) => own.float(2, *value as f32),
                Logged::Histogram { edges, counts } => own.message(5, &histogram(edges, counts)),
            }
            summary.message(1, &own);
        }
        let mut event = Message::at(now());
        event.varint(2, step);
        event.message(5, &summary);
        self.record(&event.0)
    }

    fn record(&mut self, message: &[u8]) -> Result<(), RecordError> {
        let length = (message.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(message.len() + 16);
        record.extend(length);
        record.extend(masked(&length).to_le_bytes());
        record.extend(message);
        record.extend(masked(message).to_le_bytes());
        self.file.write_all(&record).map_err(RecordError::file("write", &self.path))
    }
}

/// The checksum as the format has it.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Seconds since 1970.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// A bin's values count as its middle.
fn histogram(edges: &[f64], counts: &[f64]) -> Message {
    let middles = || edges.windows(2).map(|ends| f64::midpoint(ends[0], ends[1]));
    let sum = |of: fn(f64) -> f64| middles().zip(counts).map(|(at, n)| of(at) * n).sum::<f64>();
    let mut message = Message::default();
    message.double(1, edges.first().copied().unwrap_or(0.0));
    message.double(2, edges.last().copied().unwrap_or(0.0));
    message.double(3, counts.iter().sum());
    message.double(4, sum(|at| at));
    message.double(5, sum(|at| at * at));
    // The upper end of each bin; the first bin's lower end is the end of an empty one.
    message.doubles(6, edges.iter().copied());
    message.doubles(7, std::iter::once(0.0).chain(counts.iter().copied()));
    message
}

/// A message of protocol buffers.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    /// An event at a time.
    fn at(seconds: f64) -> Self {
        let mut message = Self::default();
        message.double(1, seconds);
        message
    }

    /// A field's number and the kind of its value.
    fn key(&mut self, field: u64, kind: u64) {
        self.number((field << 3) | kind);
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.number(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, 2);
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn text(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    fn doubles(&mut self, field: u64, values: impl Iterator<Item = f64>) {
        let bytes: Vec<u8> = values.flat_map(f64::to_le_bytes).collect();
        self.bytes(field, &bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_as_the_format_has_them() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("events.out.tfevents.sae");
        let mut events = EventFile::create(&path).unwrap();
        events.write(300, &[("loss".to_owned(), Logged::Scalar(0.5))]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let mut rest = bytes.as_slice();
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked(&rest[..8]).to_le_bytes());
            let message = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked(message).to_le_bytes());
            messages.push(message);
            rest = &rest[16 + length..];
        }
        assert_eq!(messages.len(), 2);
        assert_eq!(&messages[0][9..], b"\x1a\x0dbrain.Event:2");
        // Step 300 is two bytes; the summary has one value of 11: its name of 4, and a float.
        assert_eq!(&messages[1][9..], b"\x10\xac\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15\0\0\0\x3f");
        // A checksum of the format's own tests.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }
}
