//! TensorBoard's event files: a sequence of TFRecords, each a protobuf `Event`.
//!
//! <https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto> and, for the records,
//! <https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details>. Little of them is needed here.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

// Field numbers of the messages.
const EVENT_WALL_TIME: u64 = 1;
const EVENT_STEP: u64 = 2;
const EVENT_FILE_VERSION: u64 = 3;
const EVENT_SUMMARY: u64 = 5;
const EVENT_SESSION_LOG: u64 = 7;
const SUMMARY_VALUE: u64 = 1;
const VALUE_TAG: u64 = 1;
const VALUE_SIMPLE_VALUE: u64 = 2;
const SESSION_LOG_STATUS: u64 = 1;
const SESSION_LOG_STATUS_START: u64 = 1;

/// One events file, appended to.
#[derive(Debug)]
pub(super) struct EventsFile {
    file: File,
}

impl EventsFile {
    /// Makes a new events file in `folder`, beside those that are there: TensorBoard reads all of them in the order of
    /// their names, which begin with the time.
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        // Several files of one process within one second are told apart, and kept in order, by this number.
        static FILES: AtomicU32 = AtomicU32::new(0);
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let seconds = now_s() as u64;
        let name =
            format!("events.out.tfevents.{seconds:010}.{}.{}.{number}", host_name(), std::process::id());
        let mut events = Self { file: File::create(folder.join(name))? };
        let mut event = event_at(0);
        bytes_field(&mut event, EVENT_FILE_VERSION, b"brain.Event:2");
        events.record(&event)?;
        Ok(events)
    }

    /// Tells TensorBoard that what earlier files say of `step` and later is void.
    pub(super) fn forget_from(&mut self, step: u64) -> io::Result<()> {
        let mut session = Vec::new();
        varint_field(&mut session, SESSION_LOG_STATUS, SESSION_LOG_STATUS_START);
        let mut event = event_at(step);
        bytes_field(&mut event, EVENT_SESSION_LOG, &session);
        self.record(&event)
    }

    /// Writes `values`, each with its tag, as scalars of `step`.
    pub(super) fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut message = Vec::new();
            bytes_field(&mut message, VALUE_TAG, tag.as_bytes());
            key(&mut message, VALUE_SIMPLE_VALUE, WIRE_FIXED32);
            message.extend((*value as f32).to_le_bytes());
            bytes_field(&mut summary, SUMMARY_VALUE, &message);
        }
        let mut event = event_at(step);
        bytes_field(&mut event, EVENT_SUMMARY, &summary);
        self.record(&event)
    }

    /// Writes one record: length, checksum of the length, data, checksum of the data.
    fn record(&mut self, data: &[u8]) -> io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(data);
        record.extend(masked_crc(data).to_le_bytes());
        self.file.write_all(&record)
    }
}

/// The beginning of an `Event`.
fn event_at(step: u64) -> Vec<u8> {
    let mut event = Vec::new();
    key(&mut event, EVENT_WALL_TIME, WIRE_FIXED64);
    event.extend(now_s().to_le_bytes());
    varint_field(&mut event, EVENT_STEP, step);
    event
}

/// TFRecord's checksum: a CRC-32C, turned and shifted so that checksums of data that holds checksums stay good ones.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

// Protobuf's wire types.
const WIRE_VARINT: u64 = 0;
const WIRE_FIXED64: u64 = 1;
const WIRE_BYTES: u64 = 2;
const WIRE_FIXED32: u64 = 5;

fn key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    varint(out, field << 3 | wire_type);
}

fn varint_field(out: &mut Vec<u8>, field: u64, value: u64) {
    key(out, field, WIRE_VARINT);
    varint(out, value);
}

fn bytes_field(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    key(out, field, WIRE_BYTES);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// Seven bits a byte, the low ones first; the eighth bit says that more follow.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Seconds since 1970.
fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The machine's name, as far as it may stand in a file's.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String =
        name.trim().chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    if name.is_empty() { "localhost".to_string() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_protobufs() {
        // The examples of protobuf's own documentation, and the ends of the range.
        for (value, expected) in
            [(0, &[0][..]), (1, &[1]), (127, &[127]), (150, &[0x96, 0x01]), (300, &[0xac, 0x02])]
        {
            let mut out = Vec::new();
            varint(&mut out, value);
            assert_eq!(out, expected);
        }
        let mut out = Vec::new();
        varint(&mut out, u64::MAX);
        assert_eq!(out, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    }

    #[test]
    fn checksums_are_masked() {
        // CRC-32C of "123456789" is 0xe3069283, by the definition of the code; turned right by 15 bits that is 0x2507c60d.
        let masked = 0x2507_c60d_u32.wrapping_add(0xa282_ead8);
        assert_eq!(masked_crc(b"123456789"), masked);
    }
}
