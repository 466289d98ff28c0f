use super::Readouts;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

/// A file with one readout of this type and shape, all zeros.
fn readouts(folder: &tempfile::TempDir, dtype: Dtype, shape: &[usize]) -> Readouts {
    let path = folder.path().join("a.safetensors");
    let data = vec![0; shape.iter().product::<usize>() * dtype.bitsize() / 8];
    let none: Vec<u8> = Vec::new();
    let rows = TensorView::new(Dtype::I64, vec![0], &none).unwrap();
    let tensors = [("last_prompt", TensorView::new(dtype, shape.to_vec(), &data).unwrap()), ("rows.last_prompt", rows)];
    serialize_to_file(tensors, None, &path).unwrap();
    Readouts::open(&path).unwrap()
}

#[test]
fn a_readout_has_three_dimensions_and_a_width() {
    let folder = tempfile::tempdir().unwrap();
    // Without rows any width costs no byte; sums over rows would be as long.
    for shape in [&[][..], &[2], &[2, 0], &[2, 0, 0], &[2, 0, 1 << 60], &[2, 0, 3, 1]] {
        let error = readouts(&folder, Dtype::F32, shape).rows("last_prompt", 4).unwrap_err().to_string();
        assert!(error.contains("expected [layer, item, d_model]"), "{shape:?}: {error}");
    }
    assert!(readouts(&folder, Dtype::F32, &[2, 0, 8]).rows("last_prompt", 4).unwrap().is_empty());
}

#[test]
fn a_type_that_is_not_read_is_known_from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let error = readouts(&folder, Dtype::F64, &[2, 1, 3]).check_finite("last_prompt").unwrap_err().to_string();
    assert!(error.contains("last_prompt: dtype F64, expected F32, F16 or BF16"), "{error}");
    assert!(readouts(&folder, Dtype::BF16, &[2, 1, 3]).check_finite("last_prompt").is_ok());
}
