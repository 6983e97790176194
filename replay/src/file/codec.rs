//! Compression of blocks.

use super::format::Codec;

/// How a snapshot's blocks are compressed, each for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all: the fastest, and the right choice for observations of random-looking floats.
    #[default]
    None,
    /// LZ4: some hundred MB/s a core, and small files where bytes repeat, as in images.
    #[cfg(feature = "lz4")]
    Lz4,
    /// Zstandard at a level of -7..=22 (3 is its usual one): smaller and slower.
    #[cfg(feature = "zstd")]
    Zstd(i32),
}

/// Compresses one block after the other into memory of its own.
pub(super) struct Compressor {
    kind: Kind,
    #[cfg_attr(not(any(feature = "lz4", feature = "zstd")), allow(dead_code))]
    out: Vec<u8>,
}

enum Kind {
    None,
    #[cfg(feature = "lz4")]
    Lz4,
    #[cfg(feature = "zstd")]
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Compressor {
    pub(super) fn new(compression: Compression) -> std::io::Result<Self> {
        let kind = match compression {
            Compression::None => Kind::None,
            #[cfg(feature = "lz4")]
            Compression::Lz4 => Kind::Lz4,
            #[cfg(feature = "zstd")]
            Compression::Zstd(level) => Kind::Zstd(zstd::bulk::Compressor::new(level)?),
        };
        Ok(Self { kind, out: Vec::new() })
    }

    pub(super) fn codec(&self) -> Codec {
        match self.kind {
            Kind::None => Codec::None,
            #[cfg(feature = "lz4")]
            Kind::Lz4 => Codec::Lz4,
            #[cfg(feature = "zstd")]
            Kind::Zstd(_) => Codec::Zstd,
        }
    }

    /// What is to be stored for `raw`: fewer bytes, or `raw` itself.
    pub(super) fn compress<'a>(&'a mut self, raw: &'a [u8]) -> std::io::Result<&'a [u8]> {
        let bytes: usize = match &mut self.kind {
            Kind::None => raw.len(),
            #[cfg(feature = "lz4")]
            Kind::Lz4 => {
                self.out.resize(lz4_flex::block::get_maximum_output_size(raw.len()), 0);
                lz4_flex::block::compress_into(raw, &mut self.out).map_err(std::io::Error::other)?
            }
            #[cfg(feature = "zstd")]
            Kind::Zstd(compressor) => {
                self.out.resize(zstd::zstd_safe::compress_bound(raw.len()), 0);
                compressor.compress_to_buffer(raw, &mut self.out[..])?
            }
        };
        Ok(if bytes < raw.len() { &self.out[..bytes] } else { raw })
    }
}

/// Whether this build can read blocks of this kind.
pub(super) fn known(codec: Codec) -> bool {
    match codec {
        Codec::None => true,
        Codec::Lz4 => cfg!(feature = "lz4"),
        Codec::Zstd => cfg!(feature = "zstd"),
    }
}

/// The least bytes that can hold `raw` bytes compressed. A block that claims to hold more is damaged, and no memory is
/// taken for it.
pub(super) fn least_stored(codec: Codec, raw: usize) -> usize {
    match codec {
        Codec::None => raw,
        // A byte of a length stands for 255 at most (LZ4 Block Format, "Match length").
        Codec::Lz4 => raw / 255,
        // 128 KiB in a block of 4 bytes (RFC 8878, 3.1.1.2.2: RLE_Block).
        Codec::Zstd => raw >> 15,
    }
}

/// Fills `raw` from what was stored for it.
pub(super) fn decompress(codec: Codec, stored: &[u8], raw: &mut [u8]) -> Result<(), String> {
    let unpacked: Result<usize, String> = match codec {
        #[cfg(feature = "lz4")]
        Codec::Lz4 => lz4_flex::block::decompress_into(stored, raw).map_err(|error| error.to_string()),
        #[cfg(feature = "zstd")]
        Codec::Zstd => zstd::bulk::decompress_to_buffer(stored, raw).map_err(|error| error.to_string()),
        _ => Err(format!("this build does not unpack {} bytes of {}", stored.len(), codec.name())),
    };
    match unpacked? {
        bytes if bytes == raw.len() => Ok(()),
        bytes => Err(format!("it unpacks to {bytes} bytes where it says {}", raw.len())),
    }
}
