//! Which names of a folder are durable, and what was created and deleted since. Pure.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;

use crate::Loss;

/// A file, whatever its name.
pub(crate) type FileId = usize;

/// The names of a folder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Directory {
    durable: BTreeMap<String, FileId>,
    cached: BTreeMap<String, FileId>,
    /// For each name that was changed, what it stood for after each change.
    since: BTreeMap<String, Vec<Option<FileId>>>,
}

impl Directory {
    pub(crate) fn file(&self, name: &str) -> Option<FileId> {
        self.cached.get(name).copied()
    }

    /// A file that was there before.
    pub(crate) fn found(&mut self, name: &str, file: FileId) {
        self.durable.insert(name.to_owned(), file);
        self.cached.insert(name.to_owned(), file);
    }

    pub(crate) fn create(&mut self, name: &str, file: FileId) {
        self.cached.insert(name.to_owned(), file);
        self.since.entry(name.to_owned()).or_default().push(Some(file));
    }

    pub(crate) fn delete(&mut self, name: &str) {
        if self.cached.remove(name).is_some() {
            self.since.entry(name.to_owned()).or_default().push(None);
        }
    }

    pub(crate) fn sync(&mut self) {
        self.durable.clone_from(&self.cached);
        self.since.clear();
    }

    /// The names that are there after a loss of power; each change of a name may be lost on its own.
    pub(crate) fn after(&self, loss: Loss, rng: &mut StdRng) -> BTreeMap<String, FileId> {
        let names: BTreeSet<_> = self.durable.keys().chain(self.since.keys()).collect();
        let mut found = BTreeMap::new();
        for name in names {
            let changes = self.since.get(name).map_or(&[][..], Vec::as_slice);
            let file = match loss.moment(changes.len(), rng).checked_sub(1) {
                Some(newest) => changes[newest],
                None => self.durable.get(name).copied(),
            };
            found.extend(file.map(|file| (name.clone(), file)));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::rng;

    fn seen(directory: &Directory, name: &str) -> BTreeSet<Option<FileId>> {
        (0..500)
            .map(|seed| {
                let mut rng = rng(seed);
                let loss = Loss::draw(&mut rng);
                directory.after(loss, &mut rng).get(name).copied()
            })
            .collect()
    }

    #[test]
    fn names_are_kept_once_the_folder_is_synced() {
        let mut directory = Directory::default();
        directory.create("a", 0);
        directory.create("b", 1);
        directory.delete("a");
        assert_eq!(seen(&directory, "a"), [None, Some(0)].into());
        assert_eq!(seen(&directory, "b"), [None, Some(1)].into());

        directory.sync();
        assert_eq!(seen(&directory, "a"), [None].into());
        assert_eq!(seen(&directory, "b"), [Some(1)].into());
    }

    #[test]
    fn a_deleted_file_may_come_back_and_its_successor_may_be_lost() {
        let mut directory = Directory::default();
        directory.found("a", 0);
        directory.delete("a");
        directory.create("a", 1);

        assert_eq!(seen(&directory, "a"), [None, Some(0), Some(1)].into());
    }
}
