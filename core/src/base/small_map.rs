//! A map of few entries: the legs and sources of one class, the alerts on it. The smallest node of a `BTreeMap` has
//! room for eleven entries, which would dominate the memory of a class with one leg.

/// Entries sorted by key, in one allocation without spare capacity.
#[derive(Clone, Debug)]
pub(crate) struct SmallMap<K, V>(Vec<(K, V)>);

impl<K: Ord, V> SmallMap<K, V> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let at = self.find(key).ok()?;
        Some(&self.0[at].1)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(key).ok()?;
        Some(&mut self.0[at].1)
    }

    /// The value of `key`; created where there was none.
    pub(crate) fn at(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        let at = match self.find(&key) {
            Ok(at) => at,
            Err(at) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (key, new()));
                at
            }
        };
        &mut self.0[at].1
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.0.iter_mut().map(|(key, value)| (&*key, value))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// Removes and returns the entries with a wanted key.
    pub(crate) fn take(&mut self, wanted: impl Fn(&K) -> bool) -> Vec<(K, V)> {
        self.0.extract_if(.., |(key, _)| wanted(key)).collect()
    }

    /// Removes entries, and frees the memory with the last one.
    pub(crate) fn forget(&mut self, unwanted: impl Fn(&K, &V) -> bool) {
        if self.0.is_empty() {
            return;
        }
        self.0.retain(|(key, value)| !unwanted(key, value));
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
    }

    fn find(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(at, _)| at.cmp(key))
    }
}

impl<K: Ord, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> IntoIterator for SmallMap<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_behaves_as_a_map(keys in prop::collection::vec(0_u8..9, 0..40), out in 0_u8..9) {
            let (mut map, mut tree) = (SmallMap::new(), BTreeMap::new());
            for (value, key) in keys.into_iter().enumerate() {
                *map.at(key, || 0) += value;
                *tree.entry(key).or_insert(0) += value;
            }
            prop_assert!(map.iter().eq(tree.iter()));
            prop_assert_eq!(map.get(&out), tree.get(&out));
            prop_assert_eq!(map.get_mut(&out), tree.get_mut(&out));
            let taken = map.take(|key| *key == out);
            prop_assert_eq!(taken.into_iter().next(), tree.remove_entry(&out));
            map.forget(|key, value| key % 2 == 0 && *value > 3);
            tree.retain(|key, value| key % 2 != 0 || *value <= 3);
            prop_assert!(map.into_iter().eq(tree));
        }
    }
}
