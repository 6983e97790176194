//! The header of an `.npy` array, which says its type and shape (numpy.lib.format, versions 1 to 3).

use crate::data::Stored;
use std::io::Read;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// NumPy itself reads no longer one.
const MAX_HEADER: usize = 10_000;
/// What NumPy pads a header to, so that an array in memory would be aligned.
const ALIGNMENT: usize = 64;

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) stored: Stored,
    /// Whether the file's bytes are in the other order than this machine's.
    pub(super) swapped: bool,
    pub(super) shape: Vec<usize>,
    /// Bytes before the first element.
    pub(super) bytes: u64,
}

/// Why a header is not read: it is damaged, or of an array that is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Damaged(String),
    Unsupported(String),
}

impl Header {
    /// The header of an array of `rows` rows of `shape`.
    pub(super) fn write(stored: Stored, rows: u64, shape: &[usize]) -> Vec<u8> {
        let order = match (stored.size_bytes(), cfg!(target_endian = "little")) {
            (1, _) => '|',
            (_, true) => '<',
            (_, false) => '>',
        };
        let kind = match stored {
            Stored::Bool => 'b',
            Stored::I8 | Stored::I16 | Stored::I32 | Stored::I64 => 'i',
            Stored::U8 | Stored::U16 | Stored::U32 | Stored::U64 | Stored::Bf16 => 'u',
            Stored::F16 | Stored::F32 | Stored::F64 => 'f',
        };
        let dims: String = shape.iter().map(|dim| format!(" {dim},")).collect();
        // One dimension has a comma after it, more have none after the last.
        let dims = format!("{rows},{dims}");
        let dims = if shape.is_empty() { dims.as_str() } else { &dims[..dims.len() - 1] };
        let size = stored.size_bytes();
        let mut text =
            format!("{{'descr': '{order}{kind}{size}', 'fortran_order': False, 'shape': ({dims}), }}");
        let prefix = MAGIC.len() + 4;
        let padded = (prefix + text.len() + 1).next_multiple_of(ALIGNMENT) - prefix;
        text.extend(std::iter::repeat_n(' ', padded - text.len() - 1));
        text.push('\n');
        let mut header = MAGIC.to_vec();
        // A buffer's shapes are short, so version 1 with its 16 bits of length will do.
        header.extend([1, 0]);
        header.extend((text.len() as u16).to_le_bytes());
        header.extend(text.as_bytes());
        header
    }

    pub(super) fn read(from: &mut impl Read) -> Result<Self, Refusal> {
        let short = |_| Refusal::Damaged("its header ends too soon".to_string());
        let mut start = [0u8; 8];
        from.read_exact(&mut start).map_err(short)?;
        if &start[..6] != MAGIC {
            return Err(Refusal::Damaged("it does not begin as an .npy array does".to_string()));
        }
        let (length, prefix) = match start[6] {
            1 => {
                let mut length = [0u8; 2];
                from.read_exact(&mut length).map_err(short)?;
                (usize::from(u16::from_le_bytes(length)), 10)
            }
            2 | 3 => {
                let mut length = [0u8; 4];
                from.read_exact(&mut length).map_err(short)?;
                (u32::from_le_bytes(length) as usize, 12)
            }
            version => return Err(Refusal::Damaged(format!("its version is {version}, not 1, 2 or 3"))),
        };
        if length > MAX_HEADER {
            return Err(Refusal::Damaged(format!(
                "its header claims {length} bytes, more than {MAX_HEADER}"
            )));
        }
        let mut text = vec![0u8; length];
        from.read_exact(&mut text).map_err(short)?;
        let text = String::from_utf8(text)
            .map_err(|_| Refusal::Damaged("its header is no UTF-8 text".to_string()))?;
        Parser { text: &text, at: 0 }.header((prefix + length) as u64)
    }
}

/// Reads the Python dictionary of a header: three keys, in any order.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn header(mut self, bytes: u64) -> Result<Header, Refusal> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.expect('{')?;
        while !self.take('}') {
            let key = self.string()?;
            self.expect(':')?;
            match key.as_str() {
                "descr" if self.peek() == Some('[') => {
                    let why = "is an array of records; save each of their fields as an array of its own";
                    return Err(Refusal::Unsupported(why.to_string()));
                }
                "descr" => descr = Some(self.string()?),
                "fortran_order" => fortran = Some(self.boolean()?),
                "shape" => shape = Some(self.tuple()?),
                _ => return Err(self.wrong("one of the keys descr, fortran_order and shape")),
            }
            if !self.take(',') {
                self.expect('}')?;
                break;
            }
        }
        if !self.text[self.at..].trim().is_empty() {
            return Err(self.wrong("nothing more"));
        }
        let (Some(descr), Some(fortran), Some(shape)) = (descr, fortran, shape) else {
            return Err(Refusal::Damaged("its header lacks descr, fortran_order or shape".to_string()));
        };
        let (stored, swapped) = element_type(&descr)?;
        if fortran && shape.len() > 1 {
            let why = "is in Fortran's order; save `numpy.ascontiguousarray` of it";
            return Err(Refusal::Unsupported(why.to_string()));
        }
        Ok(Header { stored, swapped, shape, bytes })
    }

    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next()
    }

    fn take(&mut self, expected: char) -> bool {
        let there = self.peek() == Some(expected);
        if there {
            self.at += expected.len_utf8();
        }
        there
    }

    fn expect(&mut self, expected: char) -> Result<(), Refusal> {
        if self.take(expected) { Ok(()) } else { Err(self.wrong(&format!("'{expected}'"))) }
    }

    fn string(&mut self) -> Result<String, Refusal> {
        let quote = self.peek().filter(|c| matches!(c, '\'' | '"'));
        let Some(quote) = quote else { return Err(self.wrong("a string")) };
        let rest = &self.text[self.at + 1..];
        let Some(end) = rest.find(quote) else { return Err(self.wrong("a whole string")) };
        self.at += end + 2;
        Ok(rest[..end].to_string())
    }

    fn boolean(&mut self) -> Result<bool, Refusal> {
        self.peek();
        for (word, value) in [("True", true), ("False", false)] {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.wrong("True or False"))
    }

    fn tuple(&mut self) -> Result<Vec<usize>, Refusal> {
        self.expect('(')?;
        let mut dims = Vec::new();
        while !self.take(')') {
            self.peek();
            let rest = &self.text[self.at..];
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let Ok(dim) = rest[..digits].parse() else { return Err(self.wrong("a number")) };
            self.at += digits;
            // Python 2 wrote long integers so.
            self.take('L');
            dims.push(dim);
            if !self.take(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(dims)
    }

    fn wrong(&self, expected: &str) -> Refusal {
        Refusal::Damaged(format!("its header needs {expected} at position {}", self.at))
    }
}

/// The type that NumPy calls `descr`, and whether its bytes have to be swapped.
fn element_type(descr: &str) -> Result<(Stored, bool), Refusal> {
    let stored = match descr.get(1..) {
        Some("b1") => Stored::Bool,
        Some("i1") => Stored::I8,
        Some("u1") => Stored::U8,
        Some("i2") => Stored::I16,
        Some("u2") => Stored::U16,
        Some("i4") => Stored::I32,
        Some("u4") => Stored::U32,
        Some("i8") => Stored::I64,
        Some("u8") => Stored::U64,
        Some("f2") => Stored::F16,
        Some("f4") => Stored::F32,
        Some("f8") => Stored::F64,
        _ => {
            let why =
                format!("holds elements of type '{descr}'; save it as numbers or bools of up to 8 bytes");
            return Err(Refusal::Unsupported(why));
        }
    };
    let swapped = match descr.as_bytes()[0] {
        _ if stored.size_bytes() == 1 => false,
        b'<' => cfg!(target_endian = "big"),
        b'>' => cfg!(target_endian = "little"),
        b'=' | b'|' => false,
        _ => return Err(Refusal::Damaged(format!("its header has the type '{descr}'"))),
    };
    Ok((stored, swapped))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Header, Refusal> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.as_bytes());
        Header::read(&mut &bytes[..])
    }

    #[test]
    fn headers_come_back_as_written() {
        for (rows, shape) in
            [(0, vec![]), (7, vec![]), (1, vec![3]), (u64::from(u32::MAX) * 9, vec![4, 84, 84])]
        {
            let bytes = Header::write(Stored::F16, rows, &shape);
            assert_eq!(bytes.len() % 64, 0);
            let header = Header::read(&mut &bytes[..]).unwrap();
            let expected: Vec<usize> = [rows as usize].into_iter().chain(shape).collect();
            assert_eq!(header.shape, expected);
            assert_eq!((header.stored, header.bytes), (Stored::F16, bytes.len() as u64));
        }
        let text = String::from_utf8_lossy(&Header::write(Stored::Bool, 5, &[2, 3])[10..]).into_owned();
        assert!(
            text.starts_with("{'descr': '|b1', 'fortran_order': False, 'shape': (5, 2, 3), } "),
            "{text}"
        );
        let text = String::from_utf8_lossy(&Header::write(Stored::F32, 5, &[])[10..]).into_owned();
        assert!(text.contains("(5,)"), "{text}");
    }

    #[test]
    fn what_numpy_may_write_is_read() {
        let header = of("{\"shape\": (3L, 2), 'fortran_order':False,'descr':'>f8'}  \n").unwrap();
        assert_eq!((header.stored, header.shape), (Stored::F64, vec![3, 2]));
        assert_eq!(header.swapped, cfg!(target_endian = "little"));
        assert_eq!(of("{'descr': '|u1', 'fortran_order': True, 'shape': (3,), }").unwrap().shape, [3]);
        assert_eq!(of("{'descr': '<i8', 'fortran_order': False, 'shape': (), }").unwrap().shape, [0; 0]);
    }

    #[test]
    fn what_is_not_taken_says_why() {
        let refusal = |text: &str| match of(text).unwrap_err() {
            Refusal::Damaged(why) | Refusal::Unsupported(why) => why,
        };
        assert!(refusal("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }").contains("'|O'"));
        assert!(
            refusal("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }").contains("records")
        );
        assert!(refusal("{'descr': '<f4', 'fortran_order': True, 'shape': (3, 2), }").contains("Fortran"));
        assert!(refusal("{'descr': '<f4', 'fortran_order': False, 'shape': (-3,), }").contains("a number"));
        assert!(refusal("{'descr': '<f4', 'fortran_order': False, }").contains("lacks"));
        assert!(
            refusal("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }")
                .contains("number")
        );
        assert!(refusal("{'descr': 'é4', 'fortran_order': False, 'shape': (3,), }").contains("'é4'"));
        assert!(refusal("").contains("'{'"));
        assert_eq!(
            Header::read(&mut &b"\x93NUMPY\x02\x00\xff\xff\xff\xff"[..]),
            Err(Refusal::Damaged("its header claims 4294967295 bytes, more than 10000".to_string()))
        );
    }
}
