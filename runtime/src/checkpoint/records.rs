//! How seals and bases keep their records: one line of JSON that says what follows, then the records, compressed.
//!
//! ```text
//! {"generation":3,"process":0,"sequence":42,"epoch":1700000000123,"previous":"0f3a…","parts":[…],"raw_bytes":98304}
//! zstd( [key length u32][body length u32, all ones = removal][key][body] … )
//! ```
//!
//! Lengths are little-endian. Records come part by part, in the order in which the parts are named; decoding slices
//! them out of one buffer and copies nothing, so a record that is kept keeps its buffer.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::frame::{Checksum, Damage};
use super::objects::SealKind;
use crate::{ContinuationToken, Epoch, Error, ErrorKind, FeedRangeId, Generation, Record, Result};

/// Level 1: sealing is on the path of every epoch, and JSON shrinks well even so.
const ZSTD_LEVEL: i32 = 1;
const REMOVAL: u32 = u32::MAX;

/// What one source contributed to an epoch: records, and the tokens that they bring their feed ranges to (I2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealPart {
    /// Name of the source.
    pub source: String,
    /// The feed ranges that moved, and where to. After a split all children stand here at once, after a merge the
    /// merged range; ranges that they replace drop out (I6).
    pub ranges: Vec<(FeedRangeId, ContinuationToken)>,
    /// The changes, in order; of several for one key the last one counts.
    pub records: Vec<Record>,
}

/// The readable line of a seal; a base bucket has the same with sequence = bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Heading {
    pub(super) kind: SealKind,
    pub(super) generation: Generation,
    pub(super) process: u32,
    pub(super) sequence: u64,
    pub(super) epoch: Epoch,
    pub(super) previous: Checksum,
    pub(super) parts: Vec<PartHeading>,
    pub(super) raw_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartHeading {
    pub(super) source: String,
    pub(super) ranges: Vec<(FeedRangeId, ContinuationToken)>,
    pub(super) records: u64,
}

/// Encodes `parts` under a heading, whose own `parts` and `raw_bytes` are filled in.
pub(super) fn encode(mut heading: Heading, parts: &[SealPart]) -> Result<Bytes> {
    let raw = encode_records(parts)?;
    heading.raw_bytes = raw.len() as u64;
    heading.parts = parts
        .iter()
        .map(|part| PartHeading {
            source: part.source.clone(),
            ranges: part.ranges.clone(),
            records: part.records.len() as u64,
        })
        .collect();
    let mut body = serde_json::to_vec(&heading).map_err(|error| {
        Error::internal("cannot encode the heading of a seal").with_source(error)
    })?;
    body.push(b'\n');
    let packed = zstd::bulk::compress(&raw, ZSTD_LEVEL)
        .map_err(|error| Error::internal("cannot compress a seal").with_source(error))?;
    body.extend_from_slice(&packed);
    Ok(Bytes::from(body))
}

fn encode_records(parts: &[SealPart]) -> Result<BytesMut> {
    let size = parts
        .iter()
        .flat_map(|part| &part.records)
        .map(|record| 8 + record.size_bytes())
        .sum();
    let mut raw = BytesMut::with_capacity(size);
    for record in parts.iter().flat_map(|part| &part.records) {
        raw.put_u32_le(length_of(&record.key)?);
        raw.put_u32_le(match &record.body {
            Some(body) => length_of(body)?,
            None => REMOVAL,
        });
        raw.put_slice(&record.key);
        if let Some(body) = &record.body {
            raw.put_slice(body);
        }
    }
    Ok(raw)
}

fn length_of(bytes: &Bytes) -> Result<u32> {
    match u32::try_from(bytes.len()) {
        Ok(length) if length < REMOVAL => Ok(length),
        _ => Err(Error::new(
            ErrorKind::Data,
            format!("a document of {} bytes is too large to seal", bytes.len()),
        )),
    }
}

/// Reads the heading and returns it with the compressed rest.
pub(super) fn decode_heading(body: &Bytes) -> Result<(Heading, Bytes), Damage> {
    let end = body
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(|| Damage::Content("no heading".to_owned()))?;
    let heading = serde_json::from_slice(&body[..end])
        .map_err(|error| Damage::Content(format!("unreadable heading, {error}")))?;
    Ok((heading, body.slice(end + 1..)))
}

/// Unpacks the records that follow `heading`.
pub(super) fn decode_parts(heading: Heading, packed: &[u8]) -> Result<Vec<SealPart>, Damage> {
    let wrong = || Damage::Content("its records do not add up".to_owned());
    let capacity = usize::try_from(heading.raw_bytes).map_err(|_| wrong())?;
    let raw = zstd::bulk::decompress(packed, capacity)
        .map_err(|error| Damage::Content(format!("its records do not unpack, {error}")))?;
    if raw.len() != capacity {
        return Err(wrong());
    }
    let mut rest = Bytes::from(raw);
    let mut parts = Vec::with_capacity(heading.parts.len());
    for part in heading.parts {
        // The count is bounded by the bytes that are there, whatever the heading says.
        let mut records = Vec::with_capacity(part.records.min(rest.len() as u64 / 8) as usize);
        for _ in 0..part.records {
            records.push(decode_record(&mut rest).ok_or_else(wrong)?);
        }
        parts.push(SealPart {
            source: part.source,
            ranges: part.ranges,
            records,
        });
    }
    if rest.is_empty() {
        Ok(parts)
    } else {
        Err(wrong())
    }
}

fn decode_record(rest: &mut Bytes) -> Option<Record> {
    let (key_length, after) = rest.split_first_chunk::<4>()?;
    let (body_length, after) = after.split_first_chunk::<4>()?;
    let key_length = usize::try_from(u32::from_le_bytes(*key_length)).ok()?;
    let body_length = match u32::from_le_bytes(*body_length) {
        REMOVAL => None,
        length => Some(usize::try_from(length).ok()?),
    };
    let size = key_length.checked_add(body_length.unwrap_or(0))?;
    if size > after.len() {
        return None;
    }
    let mut record = rest.split_to(8 + size);
    let key = record.slice(8..8 + key_length);
    let body = body_length.map(|_| record.split_off(8 + key_length));
    Some(Record { key, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heading() -> Heading {
        Heading {
            kind: SealKind::Input,
            generation: Generation(1),
            process: 0,
            sequence: 1,
            epoch: Epoch(5),
            previous: Checksum::default(),
            parts: Vec::new(),
            raw_bytes: 0,
        }
    }

    fn parts() -> Vec<SealPart> {
        let record = |key: &'static str, body: Option<&'static str>| Record {
            key: Bytes::from_static(key.as_bytes()),
            body: body.map(|body| Bytes::from_static(body.as_bytes())),
        };
        vec![
            SealPart {
                source: "flights".into(),
                ranges: vec![(
                    FeedRangeId("00-FF".into()),
                    ContinuationToken("t\n1".into()),
                )],
                records: vec![
                    record("a", Some("{\"x\":1}")),
                    record("b", None),
                    record("", Some("")),
                ],
            },
            SealPart {
                source: "idle".into(),
                ranges: Vec::new(),
                records: Vec::new(),
            },
        ]
    }

    #[test]
    fn parts_round_trip() {
        for parts in [parts(), Vec::new()] {
            let body = encode(heading(), &parts).unwrap();
            let (heading, packed) = decode_heading(&body).unwrap();
            assert_eq!(heading.epoch, Epoch(5));
            assert_eq!(decode_parts(heading, &packed).unwrap(), parts);
        }
    }

    #[test]
    fn a_heading_that_does_not_fit_its_records_is_damage() {
        let body = encode(heading(), &parts()).unwrap();
        let (good, packed) = decode_heading(&body).unwrap();
        for change in 0..4 {
            let mut bad = good.clone();
            match change {
                0 => bad.parts[0].records += 1,
                1 => bad.parts[0].records -= 1,
                2 => bad.raw_bytes -= 1,
                _ => bad.raw_bytes += 1,
            }
            assert!(decode_parts(bad, &packed).is_err(), "change {change}");
        }
        assert!(decode_parts(good, &packed[..packed.len() - 1]).is_err());
        assert!(decode_heading(&Bytes::from_static(b"{}")).is_err());
    }

    #[test]
    fn raw_records_of_any_bytes_never_panic() {
        let mut state = 7u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            let bytes = state.to_le_bytes().repeat((state >> 60) as usize);
            let mut rest = Bytes::from(bytes.iter().map(|b| b & 15).collect::<Vec<u8>>());
            while decode_record(&mut rest).is_some() {}
        }
    }
}
