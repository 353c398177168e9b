//! Opening a file that may be compressed.
//!
//! The first bytes tell the format, not the file's name: gzip, Zstandard, a zip archive with one file in it, or plain.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use tidefeed_runtime::{Error, ErrorKind, Result};
use zip::ZipArchive;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const ZIP: &[u8] = b"PK\x03\x04";

/// The decompressed content of a file.
///
/// # Errors
/// `Config` when the file cannot be opened, `Data` when it is not what its first bytes promise. What is damaged further
/// in shows while reading.
pub fn open(path: &Path) -> Result<Box<dyn Read>> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| {
        let context = format!("cannot open {name}: name an existing file with --flights");
        Error::new(ErrorKind::Config, context).with_source(error)
    })?;
    decompress(&name, file)
}

/// The decompressed content of bytes that are part of the program.
///
/// # Errors
/// `Data` when the bytes are not what they begin like.
pub fn open_bundled(name: &str, bytes: &'static [u8]) -> Result<Box<dyn Read>> {
    decompress(name, Cursor::new(bytes))
}

fn decompress<R: Read + Seek + 'static>(name: &str, mut source: R) -> Result<Box<dyn Read>> {
    let damaged = |error: std::io::Error| {
        Error::new(ErrorKind::Data, format!("cannot read {name}")).with_source(error)
    };
    let mut start = Vec::new();
    source
        .by_ref()
        .take(4)
        .read_to_end(&mut start)
        .map_err(damaged)?;
    source.seek(SeekFrom::Start(0)).map_err(damaged)?;

    let source = BufReader::with_capacity(1 << 16, source);
    if start.starts_with(GZIP) {
        Ok(Box::new(MultiGzDecoder::new(source)))
    } else if start.starts_with(ZSTD) {
        let decoder = zstd::stream::read::Decoder::with_buffer(source).map_err(damaged)?;
        Ok(Box::new(decoder))
    } else if start.starts_with(ZIP) {
        unzip(name, source)
    } else {
        Ok(Box::new(source))
    }
}

/// The one file of an archive, whole in memory: its reader cannot outlive the archive.
fn unzip<R: Read + Seek>(name: &str, source: R) -> Result<Box<dyn Read>> {
    let bad = |what: String| Error::new(ErrorKind::Data, format!("{name} {what}"));
    let mut archive = ZipArchive::new(source)
        .map_err(|error| bad("is a damaged zip archive".to_owned()).with_source(error))?;
    if archive.len() != 1 {
        return Err(bad(format!(
            "is a zip archive of {} files; it must hold exactly one",
            archive.len()
        )));
    }
    let mut content = Vec::new();
    archive
        .by_index(0)
        .map_err(std::io::Error::from)
        .and_then(|mut file| file.read_to_end(&mut content))
        .map_err(|error| bad("cannot be unzipped".to_owned()).with_source(error))?;
    Ok(Box::new(Cursor::new(content)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn content(bytes: &[u8]) -> Result<String> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(bytes).expect("written");
        let mut text = String::new();
        open(file.path())?
            .read_to_string(&mut text)
            .map_err(|error| Error::new(ErrorKind::Data, "damaged").with_source(error))?;
        Ok(text)
    }

    fn zipped(files: &[&str]) -> Vec<u8> {
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for file in files {
            archive
                .start_file(*file, zip::write::SimpleFileOptions::default())
                .expect("started");
            archive.write_all(b"a,b\n1,2\n").expect("written");
        }
        archive.finish().expect("finished").into_inner()
    }

    #[test]
    fn every_format_reads_the_same() {
        let plain = b"a,b\n1,2\n";
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(plain).expect("written");
        let forms = [
            plain.to_vec(),
            gzip.finish().expect("finished"),
            zstd::encode_all(&plain[..], 3).expect("encoded"),
            zipped(&["flights.csv"]),
        ];
        for form in &forms {
            assert_eq!(content(form).expect("readable").as_bytes(), plain);
        }
        assert_eq!(content(b"").expect("readable"), "");
    }

    #[test]
    fn what_is_damaged_is_an_error_in_one_line() {
        let zstd = zstd::encode_all(&b"a,b\n1,2\n"[..], 3).expect("encoded");
        assert!(content(&zstd[..zstd.len() - 3]).is_err());
        let two = content(&zipped(&["a", "b"])).expect_err("two files");
        assert!(
            two.report().contains("2 files; it must hold exactly one"),
            "{two:?}"
        );
        let torn = content(&zipped(&["a"])[..40]).expect_err("torn");
        assert!(torn.report().contains("damaged zip archive"), "{torn:?}");
        let missing = open(Path::new("/no/such/file")).err().expect("missing");
        assert_eq!(missing.kind(), ErrorKind::Config);
    }
}
