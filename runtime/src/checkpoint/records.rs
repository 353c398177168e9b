//! How seals and bases keep their records: one line of JSON that says what follows, then the records, packed.
//!
//! ```text
//! {"generation":3,"process":0,"sequence":42,"epoch":1700000000123,"previous":"0f3a…","parts":[…],"raw_bytes":98304}
//! packed = 1 records by their shapes
//!        | 2 [length of the records by their shapes u64] zstd( records by their shapes )
//! ```
//!
//! Records come part by part, in the order in which the parts are named, without what they have in common: see [`shapes`].
//! Where that is a third of them or less, a seal is left so, since sealing is on the path of every epoch: for order events of two
//! properties zstd (level 1) takes as long again, to halve it. Bases, which are written beside the dataflow and stay, are
//! compressed always.
//!
//! Reading makes rows of them, `[key length u32][body length u32, all ones = removal][key][body]`, with lengths in little-endian, and
//! slices them out of one buffer, so a record that is kept keeps its buffer. `raw_bytes` is the length of the rows.
//!
//! # Large seals
//!
//! A seal of more than [`IN_SECTIONS_BYTES`] of records keeps them by key bucket, each bucket compressed by itself, and its
//! heading says where each is. So whoever rebuilds the state bucket by bucket reads its bucket by range and nothing else, and
//! a large seal needs no memory until its turn comes.
//!
//! ```text
//! {…,"sections":[{"bucket":0,"packed_bytes":3127,"raw_bytes":16410,"checksum":"9b1c…","records":[64]},…]}
//! packed( bucket 0: part by part ) packed( bucket 1 ) …
//! ```
//!
//! How damage is found: the frame's checksum covers the heading alone, and the heading has a checksum of every section. A
//! section that is read by range is checked against the heading, which was checked when it was read; reading the seal as a
//! whole checks heading and sections, so nothing of it is ever believed unchecked. The chain of seals names the frame's
//! checksum, and through the headings it still covers every byte. Other seals and bases have one checksum over everything.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::frame::{Checksum, Damage, Framed, Unframed};
use super::names::{BUCKETS, ObjectName, bucket_of};
use super::objects::SealKind;
use super::shapes::{self, Encoder};
use crate::watermarks::Marks;
use crate::{
    ContinuationToken, Epoch, Error, ErrorKind, FeedRangeId, Generation, Record, RecordRef,
    Records, Result,
};

/// Larger levels find nothing more in what the shapes leave, and take half as long again (level 3, measured) and longer.
const ZSTD_LEVEL: i32 = 1;
/// Records by their shapes.
const SHAPED: u8 = 1;
/// The same, compressed.
const COMPRESSED: u8 = 2;
/// Of a row without a body, instead of its length.
pub(super) const REMOVAL: u32 = u32::MAX;
/// Seals with more bytes of records than this are kept in sections; a guess. Smaller needs less memory to rebuild the state,
/// larger reads fewer and larger pieces, and packs faster.
pub(super) const IN_SECTIONS_BYTES: usize = 4 << 20;

/// What one source contributed to an epoch: records, and the tokens that they bring their feed ranges to (I2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealPart {
    /// Name of the source.
    pub source: String,
    /// The feed ranges that moved, and where to. After a split all children stand here at once, after a merge the
    /// merged range; ranges that they replace drop out (I6).
    pub ranges: Vec<(FeedRangeId, ContinuationToken)>,
    /// The changes, in order; of several for one key the last one counts.
    pub records: Records,
    /// How far the event times of the source have come, if somebody wants to know.
    pub marks: Marks,
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
    /// Sealed while the first load was under way: such seals take the place of a base.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) loading: bool,
    /// Where the records of each bucket are, if they are kept by bucket.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) sections: Vec<Section>,
}

/// The records of one bucket in a large seal; they follow those of the section before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    pub(super) bucket: u8,
    pub(super) packed_bytes: u64,
    pub(super) raw_bytes: u64,
    /// Of the packed bytes.
    pub(super) checksum: Checksum,
    /// How many records there are of each part.
    pub(super) records: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartHeading {
    pub(super) source: String,
    pub(super) ranges: Vec<(FeedRangeId, ContinuationToken)>,
    pub(super) records: u64,
    #[serde(default, skip_serializing_if = "Marks::is_empty")]
    pub(super) marks: Marks,
}

/// When records are compressed that are packed by their shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compress {
    Always,
    /// When they are more than a third of what they were.
    IfLarge,
}

impl Compress {
    fn wanted(self, shaped_bytes: usize, raw_bytes: u64) -> bool {
        match self {
            Compress::Always => true,
            Compress::IfLarge => shaped_bytes as u64 > raw_bytes / 3,
        }
    }
}

/// Packs `parts` under a heading, whose own parts, sizes and sections are filled in.
pub(super) fn pack(
    name: ObjectName,
    mut heading: Heading,
    parts: &[SealPart],
    compress: Compress,
) -> Result<Framed> {
    heading.raw_bytes = raw_bytes(parts) as u64;
    heading.parts = parts.iter().map(PartHeading::of).collect();
    let mut body = heading_line(&heading)?;
    let records = parts.iter().flat_map(|part| part.records.iter());
    Packer::new(compress)?.pack(records, heading.raw_bytes, &mut body)?;
    Ok(Framed::new(name, body.into()))
}

/// As [`pack`], but a large seal in sections.
pub(super) fn pack_seal(name: ObjectName, heading: Heading, parts: &[SealPart]) -> Result<Framed> {
    if raw_bytes(parts) > IN_SECTIONS_BYTES {
        pack_in_sections(name, heading, parts)
    } else {
        pack(name, heading, parts, Compress::IfLarge)
    }
}

fn pack_in_sections(name: ObjectName, mut heading: Heading, parts: &[SealPart]) -> Result<Framed> {
    heading.parts = parts.iter().map(PartHeading::of).collect();
    // By bucket, then by part; within both, in order.
    let mut buckets = vec![vec![Vec::new(); parts.len()]; usize::from(BUCKETS)];
    for (at, part) in parts.iter().enumerate() {
        for record in part.records.iter() {
            buckets[usize::from(bucket_of(record.key))][at].push(record);
        }
    }
    let mut packer = Packer::new(Compress::IfLarge)?;
    let mut rest = Vec::new();
    for (bucket, by_part) in (0..BUCKETS).zip(&buckets) {
        let records = || by_part.iter().flatten().copied();
        let raw_bytes = records().map(raw_size).sum::<usize>() as u64;
        if raw_bytes == 0 {
            continue;
        }
        let from = rest.len();
        packer.pack(records(), raw_bytes, &mut rest)?;
        let packed = &rest[from..];
        heading.raw_bytes += raw_bytes;
        heading.sections.push(Section {
            bucket,
            packed_bytes: packed.len() as u64,
            raw_bytes,
            checksum: Checksum::of_part(packed),
            records: by_part.iter().map(|records| records.len() as u64).collect(),
        });
    }
    let line = heading_line(&heading)?;
    let heading_bytes = line.len();
    Ok(Framed::in_parts(
        name,
        [line, rest].concat().into(),
        heading_bytes,
    ))
}

fn heading_line(heading: &Heading) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(heading).map_err(|error| {
        Error::internal("cannot encode the heading of a seal").with_source(error)
    })?;
    line.push(b'\n');
    Ok(line)
}

impl PartHeading {
    fn of(part: &SealPart) -> PartHeading {
        PartHeading {
            source: part.source.clone(),
            ranges: part.ranges.clone(),
            records: part.records.len() as u64,
            marks: part.marks.clone(),
        }
    }
}

fn raw_size(record: RecordRef<'_>) -> usize {
    8 + record.size_bytes()
}

/// Bytes of all records, not packed.
pub(super) fn raw_bytes(parts: &[SealPart]) -> usize {
    let raw = |part: &SealPart| 8 * part.records.len() + part.records.size_bytes();
    parts.iter().map(raw).sum()
}

/// Packs records; it keeps what compression takes from one use to the next.
struct Packer {
    compress: Compress,
    zstd: zstd::bulk::Compressor<'static>,
}

impl Packer {
    fn new(compress: Compress) -> Result<Packer> {
        let zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL)
            .map_err(|error| Error::internal("cannot set up compression").with_source(error))?;
        Ok(Packer { compress, zstd })
    }

    /// Adds records that are rows of `raw_bytes` to `to`.
    fn pack<'a>(
        &mut self,
        mut records: impl Iterator<Item = RecordRef<'a>>,
        raw_bytes: u64,
        to: &mut Vec<u8>,
    ) -> Result<()> {
        let from = to.len();
        to.push(SHAPED);
        let mut shapes = Encoder::new(std::mem::take(to));
        records.try_for_each(|record| {
            check_length(record.key)?;
            check_length(record.body.unwrap_or_default())?;
            shapes.push(record);
            Ok(())
        })?;
        *to = shapes.finish();
        let shaped = &to[from + 1..];
        if !self.compress.wanted(shaped.len(), raw_bytes) {
            return Ok(());
        }
        let compressed = self
            .zstd
            .compress(shaped)
            .map_err(|error| Error::internal("cannot compress records").with_source(error))?;
        let length = shaped.len() as u64;
        to.truncate(from);
        to.push(COMPRESSED);
        to.extend_from_slice(&length.to_le_bytes());
        to.extend_from_slice(&compressed);
        Ok(())
    }
}

/// Whether a row has room for the length of its key or body.
fn check_length(bytes: &[u8]) -> Result<()> {
    if bytes.len() < REMOVAL as usize {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Data,
        format!("a document of {} bytes is too large to seal", bytes.len()),
    ))
}

/// The records of an object, still packed.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    pub(super) heading: Heading,
    /// As much as was read of what follows the heading.
    rest: Bytes,
    /// Where the rest begins in the object.
    rest_at: u64,
    /// Whether all of it was read.
    whole: bool,
}

impl Packed {
    /// Reads the heading, and checks what was read of the sections.
    pub(super) fn of(object: &Unframed) -> Result<Packed, Damage> {
        let line = object.body.iter().position(|byte| *byte == b'\n');
        let end = line.ok_or_else(|| Damage::Content("no heading".to_owned()))?;
        let heading: Heading = serde_json::from_slice(&object.body[..end])
            .map_err(|error| Damage::Content(format!("unreadable heading, {error}")))?;
        let rest_bytes = object.body_bytes - (end as u64 + 1);
        let packed = Packed {
            rest: object.body.slice(end + 1..),
            rest_at: object.body_at + end as u64 + 1,
            whole: object.body.len() as u64 == object.body_bytes,
            heading,
        };
        let sections = &packed.heading.sections;
        let sizes = sections.iter().map(|section| section.packed_bytes);
        let sum = sizes.fold(0u64, u64::saturating_add);
        if object.in_parts == sections.is_empty() || object.in_parts && sum != rest_bytes {
            return Err(Damage::Content("its sections do not add up".to_owned()));
        }
        if packed.whole {
            for section in sections {
                packed.section(section)?;
            }
        }
        Ok(packed)
    }

    /// Whether its records are kept by bucket.
    pub(super) fn in_sections(&self) -> bool {
        !self.heading.sections.is_empty()
    }

    /// Lets go of what was read beyond the heading.
    pub(super) fn forget_records(&mut self) {
        (self.rest, self.whole) = (Bytes::new(), false);
    }

    /// Where the section of `bucket` is in the object.
    pub(super) fn range_of(&self, bucket: u8) -> Option<(&Section, Range<u64>)> {
        let mut at = self.rest_at;
        for section in &self.heading.sections {
            let end = at + section.packed_bytes;
            if section.bucket == bucket {
                return Some((section, at..end));
            }
            at = end;
        }
        None
    }

    /// A section of an object that was read as a whole.
    fn section(&self, section: &Section) -> Result<Bytes, Damage> {
        let (_, range) = self.range_of(section.bucket).ok_or_else(does_not_add_up)?;
        let from = (range.start - self.rest_at) as usize;
        let to = (range.end - self.rest_at) as usize;
        // A bucket that is named twice would be found at the first place, with another length or checksum.
        if to > self.rest.len() {
            return Err(does_not_add_up());
        }
        let bytes = self.rest.slice(from..to);
        section.check(&bytes)?;
        Ok(bytes)
    }

    /// Unpacks all records.
    pub(super) fn unpack(self) -> Result<Vec<SealPart>, Damage> {
        let mut parts: Vec<SealPart> = self.heading.parts.iter().map(empty).collect();
        if self.in_sections() {
            for section in &self.heading.sections {
                section.unpack(&self.section(section)?, &mut parts)?;
            }
        } else {
            let counts: Vec<u64> = self.heading.parts.iter().map(|part| part.records).collect();
            unpack(&self.rest, self.heading.raw_bytes, &counts, &mut parts)?;
        }
        let counts = self.heading.parts.iter().map(|part| part.records);
        if counts.eq(parts.iter().map(|part| part.records.len() as u64)) {
            Ok(parts)
        } else {
            Err(does_not_add_up())
        }
    }
}

impl Section {
    /// Checks the section's bytes.
    pub(super) fn check(&self, packed: &[u8]) -> Result<(), Damage> {
        if packed.len() as u64 == self.packed_bytes && Checksum::of_part(packed) == self.checksum {
            return Ok(());
        }
        let what = format!("checksum of bucket {} differs", self.bucket);
        Err(Damage::Content(what))
    }

    /// Unpacks the section's records, whose bytes are checked, and adds them to `parts`.
    pub(super) fn unpack(&self, packed: &[u8], parts: &mut [SealPart]) -> Result<(), Damage> {
        unpack(packed, self.raw_bytes, &self.records, parts)
    }
}

/// The part of this heading, without its records.
pub(super) fn empty(part: &PartHeading) -> SealPart {
    SealPart {
        source: part.source.clone(),
        ranges: part.ranges.clone(),
        records: Records::new(),
        marks: part.marks.clone(),
    }
}

fn does_not_add_up() -> Damage {
    Damage::Content("its records do not add up".to_owned())
}

/// Unpacks `counts` records for each of `parts`.
fn unpack(
    packed: &[u8],
    raw_bytes: u64,
    counts: &[u64],
    parts: &mut [SealPart],
) -> Result<(), Damage> {
    let capacity = usize::try_from(raw_bytes).map_err(|_| does_not_add_up())?;
    let raw = rows(packed, capacity)?;
    if raw.len() != capacity || counts.len() != parts.len() {
        return Err(does_not_add_up());
    }
    let mut rest = Bytes::from(raw);
    for (count, part) in counts.iter().zip(parts) {
        // The count is bounded by the bytes that are there, whatever the heading says.
        let most = (*count).min(rest.len() as u64 / 8) as usize;
        let mut records = Vec::with_capacity(most);
        for _ in 0..*count {
            records.push(decode_record(&mut rest).ok_or_else(does_not_add_up)?);
        }
        part.records.append(records.into());
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(does_not_add_up())
    }
}

/// The rows that were packed, which are `length` bytes.
fn rows(packed: &[u8], length: usize) -> Result<Vec<u8>, Damage> {
    let rows = match packed.split_first() {
        Some((&SHAPED, shaped)) => shapes::decode(shaped, length),
        Some((&COMPRESSED, rest)) => shapes::decode(&decompressed(rest)?, length),
        _ => None,
    };
    rows.ok_or_else(does_not_add_up)
}

fn decompressed(packed: &[u8]) -> Result<Vec<u8>, Damage> {
    let (length, compressed) = packed.split_first_chunk().ok_or_else(does_not_add_up)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| does_not_add_up())?;
    zstd::bulk::decompress(compressed, length)
        .map_err(|error| Damage::Content(format!("its records do not unpack, {error}")))
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
    use std::slice::from_ref;

    use super::super::frame::unframe;
    use super::*;
    use crate::watermarks::Mark;

    const NAME: ObjectName = ObjectName::Start(Generation(1));

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
            loading: false,
            sections: Vec::new(),
        }
    }

    fn read(object: &Framed) -> Result<Packed, Damage> {
        let bytes = Bytes::from([object.header.as_ref(), object.body.as_ref()].concat());
        Packed::of(&unframe(NAME, &bytes)?)
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
                ]
                .into(),
                marks: Marks {
                    begun: Some([FeedRangeId("00-FF".into())].into()),
                    ranges: [(FeedRangeId("00-FF".into()), Mark::default())].into(),
                },
            },
            SealPart {
                source: "idle".into(),
                ranges: Vec::new(),
                records: Records::new(),
                marks: Marks::default(),
            },
        ]
    }

    #[test]
    fn parts_round_trip() {
        let ways = [Compress::Always, Compress::IfLarge];
        for (parts, compress) in [parts(), many(), Vec::new()]
            .into_iter()
            .flat_map(|parts| ways.map(|way| (parts.clone(), way)))
        {
            let packed = read(&pack(NAME, heading(), &parts, compress).unwrap()).unwrap();
            assert_eq!(packed.heading.epoch, Epoch(5));
            assert_eq!(packed.unpack().unwrap(), parts);
        }
    }

    /// Seals of records that are alike are left as they are; those of others and all bases are compressed.
    #[test]
    fn what_the_shapes_leave_is_compressed_where_it_is_much() {
        let part = |body: fn(u32) -> String| {
            let record = |number: u32| Record {
                key: Bytes::from(format!("[{number}]")),
                body: Some(Bytes::from(body(number))),
            };
            SealPart {
                records: (0..500).map(record).collect(),
                ..parts().remove(0)
            }
        };
        let alike = part(|number| format!(r#"{{"region":"north","amount":{number}}}"#));
        let others = part(|number| format!(r#"{{"{number} of these and no other":"north"}}"#));
        for (part, compress, expected) in [
            (&alike, Compress::IfLarge, SHAPED),
            (&others, Compress::IfLarge, COMPRESSED),
            (&alike, Compress::Always, COMPRESSED),
        ] {
            let packed = read(&pack(NAME, heading(), from_ref(part), compress).unwrap()).unwrap();
            assert_eq!(packed.rest[0], expected);
            assert!(packed.rest.len() as u64 * 3 < packed.heading.raw_bytes);
        }
    }

    /// Seals without marks look as they did before there were any.
    #[test]
    fn a_part_without_marks_has_none_in_its_heading() {
        let without = r#"{"source":"s","ranges":[],"records":0}"#;
        let heading: PartHeading = serde_json::from_str(without).unwrap();
        assert!(heading.marks.is_empty());
        assert_eq!(serde_json::to_string(&heading).unwrap(), without);
    }

    #[test]
    fn a_heading_that_does_not_fit_its_records_is_damage() {
        let good = read(&pack(NAME, heading(), &parts(), Compress::Always).unwrap()).unwrap();
        for change in 0..4 {
            let mut bad = good.clone();
            match change {
                0 => bad.heading.parts[0].records += 1,
                1 => bad.heading.parts[0].records -= 1,
                2 => bad.heading.raw_bytes -= 1,
                _ => bad.heading.raw_bytes += 1,
            }
            assert!(bad.unpack().is_err(), "change {change}");
        }
        let mut short = good.clone();
        short.rest.truncate(short.rest.len() - 1);
        assert!(short.unpack().is_err());
        assert!(read(&Framed::new(NAME, Bytes::from_static(b"{}"))).is_err());
    }

    /// By key, because sections change the order of keys, and never that within a key.
    fn by_key(parts: Vec<SealPart>) -> Vec<SealPart> {
        let mut parts = parts;
        for part in &mut parts {
            let mut records = Vec::from(std::mem::take(&mut part.records));
            records.sort_by(|a, b| a.key.cmp(&b.key));
            part.records = records.into();
        }
        parts
    }

    fn many() -> Vec<SealPart> {
        let mut parts = parts();
        for number in 0..500 {
            let key = Bytes::from(format!("key {}", number % 200));
            let body = (number % 7 > 0).then(|| Bytes::from(format!("body {number}")));
            parts[number % 2].records.push(Record { key, body });
        }
        parts
    }

    #[test]
    fn sections_hold_the_same_parts_each_bucket_by_itself() {
        let object = pack_in_sections(NAME, heading(), &many()).unwrap();
        let packed = read(&object).unwrap();
        assert!(packed.in_sections());
        let mut together: Vec<SealPart> = packed.heading.parts.iter().map(empty).collect();
        let bytes = [object.header.as_ref(), object.body.as_ref()].concat();
        for bucket in 0..BUCKETS {
            let Some((section, range)) = packed.range_of(bucket) else {
                continue;
            };
            let bytes = &bytes[range.start as usize..range.end as usize];
            section.check(bytes).unwrap();
            section.unpack(bytes, &mut together).unwrap();
        }
        assert_eq!(together, packed.clone().unpack().unwrap());
        assert_eq!(by_key(together), by_key(many()));
    }

    #[test]
    fn every_damaged_byte_of_a_section_is_found_by_its_own_checksum() {
        let object = pack_in_sections(NAME, heading(), &many()).unwrap();
        let good = [object.header.as_ref(), object.body.as_ref()].concat();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            let read = unframe(NAME, &bad.into()).and_then(|object| Packed::of(&object));
            assert!(read.is_err(), "byte {at}");
        }
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
