//! Keys and values of sequences that are decoded together.
//!
//! Sequences of any lengths stand in one tensor per layer, `[row, kv_head, slot, d_head]`, and all end at the same slot, so that a new token of
//! every row is written at one place. Slots before a row's first token are padding: they are never seen, and a token's position is its distance
//! from the row's first slot, so what a row computes is what it would compute alone.

use super::plan::KeysValues;
use anyhow::Result;
use tch::{Device, Kind, Tensor};

/// Slots by which a cache grows at least.
const ROOM: i64 = 64;

/// The keys and values of every layer, and where each row begins.
pub struct Cache {
    /// `[place, kv_head, capacity, d_head]` per layer, after rotation; there may be more places than rows.
    layers: Vec<KeysValues>,
    /// First slot of each row.
    start: Vec<i64>,
    /// Slots in use.
    len: i64,
    capacity: i64,
}

impl Cache {
    /// An empty cache for rows of these lengths, whose tokens are to be put into the slots up to the longest one's length.
    pub(super) fn new(lengths: &[i64]) -> Self {
        let len = lengths.iter().copied().max().unwrap_or(0);
        Self { layers: Vec::new(), start: lengths.iter().map(|length| len - length).collect(), len, capacity: len + ROOM }
    }

    /// Adds a layer from the keys and values of all slots: `[row, kv_head, len, d_head]` each.
    pub(super) fn push(&mut self, whole: &KeysValues) -> Result<()> {
        let roomy = |whole: &Tensor| -> Result<Tensor> {
            let size = whole.size();
            let place = Tensor::f_empty([size[0], size[1], self.capacity, size[3]], (whole.kind(), whole.device()))?;
            place.f_narrow(2, 0, self.len)?.f_copy_(whole)?;
            Ok(place)
        };
        self.layers.push(KeysValues { keys: roomy(&whole.keys)?, values: roomy(&whole.values)? });
        Ok(())
    }

    /// Tokens of each row: the position of its next one.
    pub fn lengths(&self) -> Vec<i64> {
        self.start.iter().map(|start| self.len - start).collect()
    }

    /// Makes room for one more token in every row.
    pub(super) fn extend(&mut self) -> Result<()> {
        if self.len == self.capacity {
            let used = self.lengths().into_iter().max().unwrap_or(0);
            self.rebuild(used, used + (used / 2).max(ROOM), 0)?;
        }
        self.len += 1;
        Ok(())
    }

    /// Writes the newest token of a layer: `[kv_head, row, d_head]` each. Returns the keys and values of the last `seen` slots.
    pub(super) fn put(&self, layer: usize, newest: &KeysValues, seen: i64) -> Result<KeysValues> {
        let (rows, last, first) = (self.start.len() as i64, self.len - 1, self.len - seen);
        let place = |place: &Tensor, newest: &Tensor| -> Result<Tensor> {
            let place = place.f_narrow(0, 0, rows)?;
            place.f_select(2, last)?.f_copy_(&newest.f_transpose(0, 1)?)?;
            Ok(place.f_narrow(2, first, seen)?)
        };
        let KeysValues { keys, values } = &self.layers[layer];
        Ok(KeysValues { keys: place(keys, &newest.keys)?, values: place(values, &newest.values)? })
    }

    /// Slots that a layer with this window has to look at.
    pub(super) fn seen(&self, window: Option<i64>) -> i64 {
        window.map_or(self.len, |window| window.min(self.len))
    }

    /// Which of the last `seen` slots hold a token of each row: `[row, 1, 1, slot]`.
    pub(super) fn visible(&self, seen: i64, device: Device) -> Result<Tensor> {
        let slot = Tensor::f_arange_start(self.len - seen, self.len, (Kind::Int64, device))?;
        let start = Tensor::f_from_slice(&self.start)?.f_to_device(device)?.f_view([-1, 1, 1, 1])?;
        Ok(slot.f_view([1, 1, 1, -1])?.f_ge_tensor(&start)?)
    }

    /// Takes a row out; the last one comes into its place.
    ///
    /// # Errors
    /// The device fails.
    pub fn swap_remove(&mut self, row: usize) -> Result<()> {
        let last = self.start.len() - 1;
        self.start.swap_remove(row);
        if row < last {
            for tensor in self.layers.iter().flat_map(|layer| [&layer.keys, &layer.values]) {
                let at = |row: usize| tensor.f_select(0, row as i64)?.f_narrow(1, 0, self.len);
                at(row)?.f_copy_(&at(last)?)?;
            }
        }
        Ok(())
    }

    /// Adds the rows of another cache below these.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn join(&mut self, mut other: Self) -> Result<()> {
        let used = self.lengths().into_iter().chain(other.lengths()).max().unwrap_or(0);
        let more = other.start.len() as i64;
        self.rebuild(used, used + ROOM, more)?;
        other.rebuild(used, used, 0)?;
        let rows = self.start.len() as i64;
        for (own, new) in self.layers.iter().zip(&other.layers) {
            for (own, new) in [(&own.keys, &new.keys), (&own.values, &new.values)] {
                own.f_narrow(0, rows, more)?.f_narrow(2, 0, used)?.f_copy_(&new.f_narrow(0, 0, more)?)?;
            }
        }
        self.start.append(&mut other.start);
        Ok(())
    }

    /// A copy of one row.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn row(&self, row: usize) -> Result<Self> {
        let (start, len) = (self.start[row], self.len - self.start[row]);
        let copied = |whole: &Tensor| -> Result<Tensor> { Ok(whole.f_narrow(0, row as i64, 1)?.f_narrow(2, start, len)?.f_detach_copy()?) };
        let layer = |layer: &KeysValues| Ok(KeysValues { keys: copied(&layer.keys)?, values: copied(&layer.values)? });
        Ok(Self { layers: self.layers.iter().map(layer).collect::<Result<_>>()?, start: vec![0], len, capacity: len })
    }

    /// Of a single row as [`Cache::row`] copies it, its first tokens.
    pub fn first(mut self, tokens: i64) -> Self {
        self.len = self.len.min(tokens);
        self
    }

    /// Several such rows below each other.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn of_rows(rows: Vec<Self>) -> Result<Self> {
        let lengths: Vec<i64> = rows.iter().map(|row| row.len).collect();
        let mut whole = Self::new(&lengths);
        for layer in 0..rows.first().map_or(0, |row| row.layers.len()) {
            let placed = |of: &dyn Fn(&KeysValues) -> &Tensor| -> Result<Tensor> {
                let size = of(&rows[0].layers[layer]).size();
                let options = (of(&rows[0].layers[layer]).kind(), of(&rows[0].layers[layer]).device());
                let place = Tensor::f_zeros([rows.len() as i64, size[1], whole.capacity, size[3]], options)?;
                for (number, row) in rows.iter().enumerate() {
                    let own = of(&row.layers[layer]).f_narrow(2, 0, row.len)?;
                    place.f_narrow(0, number as i64, 1)?.f_narrow(2, whole.len - row.len, row.len)?.f_copy_(&own)?;
                }
                Ok(place)
            };
            let layer = KeysValues { keys: placed(&|kv| &kv.keys)?, values: placed(&|kv| &kv.values)? };
            whole.layers.push(layer);
        }
        Ok(whole)
    }

    /// Moves everything to a place of another capacity, with room for `more` rows, in which the last token stands at slot `used - 1`.
    fn rebuild(&mut self, used: i64, capacity: i64, more: i64) -> Result<()> {
        let (rows, common) = (self.start.len() as i64, used.min(self.len));
        for layer in &mut self.layers {
            let moved = |old: &Tensor| -> Result<Tensor> {
                let size = old.size();
                // Zeros, since what stands in padding is weighted by zero, which a NaN would survive.
                let place = Tensor::f_zeros([rows + more, size[1], capacity, size[3]], (old.kind(), old.device()))?;
                let old = old.f_narrow(0, 0, rows)?.f_narrow(2, self.len - common, common)?;
                place.f_narrow(0, 0, rows)?.f_narrow(2, used - common, common)?.f_copy_(&old)?;
                Ok(place)
            };
            *layer = KeysValues { keys: moved(&layer.keys)?, values: moved(&layer.values)? };
        }
        self.start.iter_mut().for_each(|start| *start += used - self.len);
        (self.len, self.capacity) = (used, capacity);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A layer of one head and one dimension, whose key at a row's position p is `100 row + p`.
    fn cache(lengths: &[i64], names: &[f64]) -> Cache {
        let mut cache = Cache::new(lengths);
        let rows: Vec<f64> = (0..lengths.len())
            .flat_map(|row| (0..cache.len).map(move |slot| (row, slot)))
            .map(|(row, slot)| 100.0 * names[row] + (slot - cache.start[row]) as f64)
            .collect();
        let whole = Tensor::from_slice(&rows).view([lengths.len() as i64, 1, cache.len, 1]);
        cache.push(&KeysValues { keys: whole.copy(), values: whole }).unwrap();
        cache
    }

    /// One more token in every row, and what each row sees.
    fn seen(cache: &mut Cache, names: &[f64], window: Option<i64>) -> Vec<Vec<f64>> {
        let newest: Vec<f64> = names.iter().zip(cache.lengths()).map(|(name, length)| 100.0 * name + length as f64).collect();
        cache.extend().unwrap();
        let newest = Tensor::from_slice(&newest).view([1, -1, 1]);
        let seen = cache.seen(window);
        let kv = cache.put(0, &KeysValues { keys: newest.copy(), values: newest }, seen).unwrap();
        let visible = cache.visible(seen, Device::Cpu).unwrap();
        (0..names.len() as i64)
            .map(|row| Vec::try_from(kv.keys.get(row).flatten(0, -1).masked_select(&visible.get(row).flatten(0, -1))).unwrap())
            .collect()
    }

    #[test]
    fn every_row_sees_its_own_tokens_whoever_comes_and_goes() {
        let run = |name: f64, length: i64| (0..length).map(|p| 100.0 * name + p as f64).collect::<Vec<_>>();
        let mut batch = cache(&[3, 70, 1], &[1.0, 2.0, 3.0]);
        assert_eq!(seen(&mut batch, &[1.0, 2.0, 3.0], None), [run(1.0, 4), run(2.0, 71), run(3.0, 2)]);
        assert_eq!(
            seen(&mut batch, &[1.0, 2.0, 3.0], Some(2)),
            [run(1.0, 5)[3..].to_vec(), run(2.0, 72)[70..].to_vec(), run(3.0, 3)[1..].to_vec()]
        );
        batch.swap_remove(1).unwrap();
        assert_eq!(batch.lengths(), [5, 3]);
        assert_eq!(seen(&mut batch, &[1.0, 3.0], None), [run(1.0, 6), run(3.0, 4)]);
        batch.join(cache(&[9, 2], &[4.0, 5.0])).unwrap();
        let names = [1.0, 3.0, 4.0, 5.0];
        assert_eq!(seen(&mut batch, &names, None), [run(1.0, 7), run(3.0, 5), run(4.0, 10), run(5.0, 3)]);
        // Far enough that the place is changed more than once.
        for n in 1..200 {
            let expected = [run(1.0, 7 + n), run(3.0, 5 + n), run(4.0, 10 + n), run(5.0, 3 + n)];
            assert_eq!(seen(&mut batch, &names, None), expected);
        }
    }
}
