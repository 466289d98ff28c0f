//! Weights of small checkpoints as tests edit them: all tensors of a `model.safetensors`, f32, in memory.

use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
use std::path::Path;

/// Shape and values by name.
#[derive(Clone)]
pub struct Weights(pub BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Weights {
    pub fn read(folder: &Path) -> Self {
        let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let values = |view: &TensorView| view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Self(file.iter().map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), values(&view)))).collect())
    }

    pub fn values(&mut self, name: &str) -> &mut Vec<f32> {
        &mut self.0.get_mut(name).unwrap().1
    }

    /// Writes the tensors that `wanted` names into one file.
    fn write_file(&self, path: &Path, wanted: &dyn Fn(&str) -> bool) {
        let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let tensors: Vec<(&String, &Vec<usize>, Vec<u8>)> =
            self.0.iter().filter(|(name, _)| wanted(name)).map(|(name, (shape, values))| (name, shape, bytes(values))).collect();
        let views = tensors.iter().map(|(name, shape, bytes)| (*name, TensorView::new(Dtype::F32, (*shape).clone(), bytes).unwrap()));
        std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    pub fn write(&self, folder: &Path) {
        self.write_file(&folder.join("model.safetensors"), &|_| true);
    }

    /// Two shards with an index; the second has what `second` names.
    pub fn write_shards(&self, folder: &Path, second: &dyn Fn(&str) -> bool) {
        let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        self.write_file(&folder.join(names[0]), &|name| !second(name));
        self.write_file(&folder.join(names[1]), second);
        let map: BTreeMap<&String, &str> = self.0.keys().map(|name| (name, names[usize::from(second(name))])).collect();
        let index = serde_json::json!({"metadata": {}, "weight_map": map});
        std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    }
}
