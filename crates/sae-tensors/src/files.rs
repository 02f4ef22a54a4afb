//! One file of tensors, or several that an index joins.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use tch::{Kind, Tensor};

use crate::TensorError;
use crate::pytorch::Pytorch;
use crate::safetensors::Safetensors;

/// What is read of an index, in bytes.
const LONGEST_INDEX: u64 = 256 << 20;

/// Tensors by name, read from disk when they are asked for.
#[derive(Debug)]
pub struct TensorFiles {
    path: PathBuf,
    files: Vec<TensorFile>,
    /// Which file holds a tensor.
    places: BTreeMap<String, usize>,
}

#[derive(Debug)]
enum TensorFile {
    Safetensors(Safetensors),
    Pytorch(Pytorch),
}

/// What a file says of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    pub shape: Vec<usize>,
    pub kind: Kind,
}

impl TensorFiles {
    /// Opens a `.safetensors` file, a file that `torch.save` wrote (a state dict), or the `.index.json` of a sharded one
    /// of either kind.
    pub fn open(path: &Path) -> Result<Self, TensorError> {
        if path.to_string_lossy().ends_with(".index.json") {
            return Self::open_index(path);
        }
        let file = TensorFile::open(path)?;
        let places = file.names().map(|name| (name.to_owned(), 0)).collect();
        Ok(Self { path: path.to_owned(), files: vec![file], places })
    }

    fn open_index(path: &Path) -> Result<Self, TensorError> {
        let failed = |message: String| TensorError::Format { path: path.to_owned(), message };
        let map = Self::weight_map(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let names: Vec<&str> =
            map.values().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect();
        let files = names
            .iter()
            .map(|name| TensorFile::open(&folder.join(name)))
            .collect::<Result<Vec<_>, _>>()?;
        let mut places = BTreeMap::new();
        for (tensor, file) in &map {
            let place = names.iter().position(|name| name == file).unwrap_or_default();
            if files[place].describe(tensor).is_none() {
                return Err(failed(format!(
                    "it says that {file} holds `{tensor}`, which it does not"
                )));
            }
            places.insert(tensor.clone(), place);
        }
        Ok(Self { path: path.to_owned(), files, places })
    }

    /// The files that an `.index.json` names, by tensor; each a plain name beside the index.
    pub fn weight_map(path: &Path) -> Result<BTreeMap<String, String>, TensorError> {
        let failed = |message: String| TensorError::Format { path: path.to_owned(), message };
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(LONGEST_INDEX).read_to_string(&mut text))
            .map_err(|source| TensorError::Io { action: "read", path: path.to_owned(), source })?;
        let mut index: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
        let map: BTreeMap<String, String> = serde_json::from_value(index["weight_map"].take())
            .map_err(|error| failed(format!("its weight_map is not one: {error}")))?;
        for name in map.values() {
            // A path would let an index reach any file of the machine.
            if Path::new(name).file_name().is_none_or(|plain| plain != name.as_str()) {
                return Err(failed(format!(
                    "its weight_map names {name:?}, which is no plain file name"
                )));
            }
        }
        if map.is_empty() {
            return Err(failed("its weight_map is empty".to_owned()));
        }
        Ok(map)
    }

    /// The file or index that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Whether there is such a tensor.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// A tensor's shape.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let file = self.files.get(*self.places.get(name)?)?;
        Some(&file.describe(name)?.shape)
    }

    /// Reads a tensor, on the CPU and in the precision that it is stored in.
    pub fn read(&self, name: &str) -> Result<Tensor, TensorError> {
        let (file, found) = self
            .places
            .get(name)
            .and_then(|&place| self.files.get(place))
            .and_then(|file| Some((file, file.describe(name)?)))
            .ok_or_else(|| self.missing(name))?;
        let bytes = match file {
            TensorFile::Safetensors(file) => file.read(name)?,
            TensorFile::Pytorch(file) => file.read(name)?,
        };
        let shape: Vec<i64> = found.shape.iter().map(|&n| n as i64).collect();
        if bytes.is_empty() {
            return Ok(Tensor::f_zeros(shape.as_slice(), (found.kind, tch::Device::Cpu))?);
        }
        Ok(Tensor::f_from_data_size(&bytes, &shape, found.kind)?)
    }

    fn missing(&self, name: &str) -> TensorError {
        let mut names: Vec<&str> = self.names().take(4).collect();
        if self.places.len() > names.len() {
            names.push("…");
        }
        let hint = match names.as_slice() {
            [] => "; it has none".to_owned(),
            names => format!("; it has {}", names.join(", ")),
        };
        TensorError::Missing { path: self.path.clone(), name: name.to_owned(), hint }
    }
}

impl TensorFile {
    fn open(path: &Path) -> Result<Self, TensorError> {
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            Ok(Self::Safetensors(Safetensors::open(path)?))
        } else {
            Ok(Self::Pytorch(Pytorch::open(path)?))
        }
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Safetensors(file) => Box::new(file.tensors.keys().map(String::as_str)),
            Self::Pytorch(file) => Box::new(file.tensors.keys().map(String::as_str)),
        }
    }

    fn describe(&self, name: &str) -> Option<&Description> {
        match self {
            Self::Safetensors(file) => file.tensors.get(name),
            Self::Pytorch(file) => file.tensors.get(name),
        }
    }
}
