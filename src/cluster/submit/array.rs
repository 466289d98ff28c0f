//! Numbers of tasks as schedulers write them.

/// `0-3,7,9-39`.
pub fn ranges(numbers: &[usize]) -> String {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let runs = sorted.chunk_by(|a, b| a + 1 == *b);
    let text = runs.map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        [only] => only.to_string(),
        [] => String::new(),
    });
    text.collect::<Vec<_>>().join(",")
}

/// Arrays whose numbers are all below `size`: for each the place of its number 0 in the series, and its
/// numbers. Empty ones are left out.
pub fn split(numbers: &[usize], size: usize) -> Vec<(usize, Vec<usize>)> {
    let size = size.max(1);
    let mut arrays: Vec<(usize, Vec<usize>)> = Vec::new();
    for &number in numbers {
        let base = number / size * size;
        match arrays.iter_mut().find(|(other, _)| *other == base) {
            Some((_, array)) => array.push(number - base),
            None => arrays.push((base, vec![number - base])),
        }
    }
    arrays
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_compact() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[3]), "3");
        assert_eq!(ranges(&[0, 1, 2, 3, 7, 9, 10]), "0-3,7,9-10");
    }

    proptest! {
        #[test]
        fn every_number_is_in_one_array_and_below_its_size(numbers in prop::collection::btree_set(0usize..5_000, 0..200), size in 1usize..1_500) {
            let numbers: Vec<usize> = numbers.into_iter().collect();
            let arrays = split(&numbers, size);
            prop_assert!(arrays.iter().all(|(_, array)| array.iter().all(|&number| number < size)));
            let again: Vec<usize> = arrays.iter().flat_map(|(base, array)| array.iter().map(move |number| base + number)).collect();
            prop_assert_eq!(&again, &numbers);
            let mut read = Vec::new();
            for range in ranges(&numbers).split(',').filter(|range| !range.is_empty()) {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                read.extend(first.parse::<usize>().unwrap()..=last.parse().unwrap());
            }
            prop_assert_eq!(read, numbers);
        }
    }
}
