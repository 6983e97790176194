//! `metadata.json`.

use crate::data::DataError;
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// Spaces list the bounds of every element, so the file may be large; this is far beyond any.
const MAX_BYTES: u64 = 256 << 20;

/// What is needed of the metadata.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    pub(super) format: String,
    pub(super) total_episodes: Option<u64>,
    pub(super) total_steps: Option<u64>,
    jpeg: bool,
    observations: Value,
    actions: Value,
}

impl Metadata {
    pub(super) fn read(data: &Path) -> Result<Self, DataError> {
        let path = data.join("metadata.json");
        let file = path.display().to_string();
        if !path.exists() && data.join("main_data.hdf5").exists() {
            // Before version 0.5 everything was in the HDF5 file.
            return Ok(Self { format: "hdf5".to_string(), jpeg: true, ..Self::default() });
        }
        let mut text = String::new();
        let mut reader = std::fs::File::open(&path)
            .map_err(|source| DataError::Io { file: file.clone(), source })?
            .take(MAX_BYTES);
        reader.read_to_string(&mut text).map_err(|source| DataError::Io { file: file.clone(), source })?;
        let damaged = |why: String| DataError::damaged(&file, why);
        let value: Value = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        let format = value["data_format"].as_str().unwrap_or("hdf5").to_string();
        // A space is JSON within a string.
        let space = |key: &str| match value[key].as_str() {
            Some(text) => serde_json::from_str(text).map_err(|error| damaged(format!("{key}: {error}"))),
            None => Ok(Value::Null),
        };
        Ok(Self {
            format,
            total_episodes: value["total_episodes"].as_u64(),
            total_steps: value["total_steps"].as_u64(),
            jpeg: value["jpeg_encoding"].as_bool().unwrap_or(true),
            observations: space("observation_space")?,
            actions: space("action_space")?,
        })
    }

    /// The space of the column `name`, such as `observations/camera`.
    fn space(&self, name: &str) -> Option<&Value> {
        let mut steps = name.split('/');
        let mut space = match steps.next()? {
            "observations" => &self.observations,
            "actions" => &self.actions,
            _ => return None,
        };
        for key in steps {
            space = match &space["subspaces"] {
                Value::Object(entries) => entries.get(key)?,
                Value::Array(entries) => {
                    entries.get(key.trim_start_matches("_index_").parse::<usize>().ok()?)?
                }
                _ => return None,
            };
        }
        Some(space)
    }

    /// The shape of a row of the column `name`, which Arrow files do not tell.
    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let dims = self.space(name)?["shape"].as_array()?;
        dims.iter().map(|dim| dim.as_u64().and_then(|dim| usize::try_from(dim).ok())).collect()
    }

    /// Whether the column `name` holds images that Minari has stored as JPEG: bytes from 0 to 255 in two or three
    /// dimensions, the first two at least 32 (`is_image_space` in minari/dataset/minari_storage.py).
    pub(super) fn is_jpeg(&self, name: &str) -> bool {
        let bound = |space: &Value, bound: &str, value: f64| all(&space[bound], value);
        self.jpeg
            && self.space(name).is_some_and(|space| {
                let shape = self.shape(name).unwrap_or_default();
                matches!(shape.len(), 2 | 3)
                    && shape[..2].iter().all(|dim| *dim >= 32)
                    && space["dtype"] == "uint8"
                    && bound(space, "low", 0.0)
                    && bound(space, "high", 255.0)
            })
    }
}

fn all(bounds: &Value, expected: f64) -> bool {
    match bounds {
        Value::Array(inner) => inner.iter().all(|bounds| all(bounds, expected)),
        other => other.as_f64() == Some(expected),
    }
}
